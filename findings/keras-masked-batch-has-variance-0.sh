#!/usr/bin/env bash
# Keras: a batch that is masked out moves the running statistics of a batch norm to 0
#
# A good guess: masked values are left out of the statistics: a batch without any other values leaves
# the running mean and variance as they are.
# Seen: Keras 3.15.1: the mean over no values is 0, and the variance is 0, and both are averaged in:
# with momentum 0.5 a running mean of 4 and variance of 9 are 2 and 4.5 after one such batch.
# Why it matters here: padding batches to a number of replicas, or filtering sequences to nothing,
# shrinks the running variance without an error; here the values that count are the caller's slice.
# Needs Python 3.11 or newer; installs keras==3.15.1, jax==0.10.2, jaxlib==0.10.2, numpy==2.4.6 in a
# temporary folder.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check keras==3.15.1 jax==0.10.2 jaxlib==0.10.2 numpy==2.4.6
"$work/venv/bin/python" -W ignore - <<'PYTHON'
import os
os.environ["KERAS_BACKEND"] = "jax"
import keras, numpy as np

found = []
for kept in True, False:
    norm = keras.layers.BatchNormalization(momentum=0.5)
    norm.build((None, 4, 2))
    norm.set_weights([np.full(2, number, np.float32) for number in (1, 0, 4, 9)])
    norm(4 + 3 * np.array([[[1, 1], [-1, -1]] * 3] * 2, np.float32)[:, :4], training=True, mask=np.full((2, 4), kept))
    found.append([float(np.array(norm.moving_mean)[0]), float(np.array(norm.moving_variance)[0])])
print(f"Keras {keras.__version__}: mean 4 and variance 9 are {found[0]} after a batch of mean 4 and variance 9, {found[1]} after the same batch masked out")
assert np.abs(np.array(found[0]) - [4, 9]).max() < 1e-4
assert np.abs(np.array(found[1]) - [2, 4.5]).max() < 1e-4, "a batch without values changes nothing now"
PYTHON
