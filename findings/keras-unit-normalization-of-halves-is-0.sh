#!/usr/bin/env bash
# Keras: UnitNormalization of 300, 400, 500, 600 is 0 in mixed_float16
#
# A good guess: a layer that makes unit vectors gives unit vectors under the policy mixed_float16, as
# its layer, batch, group and RMS norms give numbers of about 1 there.
# Seen: Keras 3.15.1: the squares are taken in halves, whose largest number is 65,504: the sum is
# infinite, and 1 by its root is 0: the output is 0, 0, 0, 0. LayerNormalization of the same vector is
# right, and in float32 both are.
# Why it matters here: activations above 256 are usual before a normalisation; a vector of zeros goes on
# without an infinity or NaN that a loss scaler would notice.
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

x = np.array([[300, 400, 500, 600]], np.float16)
half = np.array(keras.layers.UnitNormalization(dtype="mixed_float16")(x), np.float32)[0]
other = np.array(keras.layers.LayerNormalization(dtype="mixed_float16")(x), np.float32)[0]
single = np.array(keras.layers.UnitNormalization(dtype="float32")(x))[0]
print(f"Keras {keras.__version__}: {x[0]} has the unit vector {half} in mixed_float16, {single.round(3)} in float32; LayerNormalization in mixed_float16 {other.round(3)}")
assert abs(np.square(single).sum() - 1) < 1e-4 and abs(other.std() - 1) < 1e-2
assert (half == 0).all(), "the squares are taken in float32 now"
PYTHON
