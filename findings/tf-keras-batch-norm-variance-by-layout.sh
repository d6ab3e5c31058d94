#!/usr/bin/env bash
# tf_keras: the running variance of images is another one than that of (N, C)
#
# A good guess: a layer averages one kind of variance, whatever the rank of its input.
# Seen: with tf_keras 2.21.0 on TensorFlow 2.21.0, BatchNormalization averages the biased variance
# 3.5 of the batch 1, 2, 3, 6 given as [4, 1], and the unbiased 4.667 of the same values as [4, 1,
# 1, 1], because images take a fused kernel.
# Why it matters here: a network with both needs RunningVariance::Biased for some of its layers and
# Unbiased for the others, to go on with training.
# Needs Python 3.11; installs tf-keras==2.21.0, tensorflow-cpu==2.21.0, numpy==2.4.6 in a temporary folder.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check tf-keras==2.21.0 tensorflow-cpu==2.21.0 numpy==2.4.6
TF_CPP_MIN_LOG_LEVEL=3 "$work/venv/bin/python" -W ignore - <<'PYTHON'
import numpy as np
import tf_keras

found = {}
for shape in ((4, 1), (4, 1, 1, 1)):
    layer = tf_keras.layers.BatchNormalization(momentum=0.0)
    layer(np.float32([1, 2, 3, 6]).reshape(shape), training=True)
    found[shape] = float(layer.moving_variance[0])
print(f"tf_keras {tf_keras.__version__}: the running variance of 1, 2, 3, 6 is {found}")
assert abs(found[4, 1] - 3.5) < 1e-5 and abs(found[4, 1, 1, 1] - 14 / 3) < 1e-5, "both layouts have one variance now"
PYTHON
