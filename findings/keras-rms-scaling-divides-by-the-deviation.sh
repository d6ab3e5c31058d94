#!/usr/bin/env bash
# Keras: LayerNormalization(rms_scaling=True) divides by the standard deviation
#
# A good guess: rms_scaling makes the layer an RMSNorm: x divided by the root of the mean of x^2, as its
# documentation says and as RMSNormalization of the same library does.
# Seen: Keras 3.15.1 divides by the deviation from the mean and does not subtract the mean: 300, 400,
# 500, 600 become 2.7 to 5.4, and 0.65 to 1.29 in RMSNormalization.
# Why it matters here: where the mean is not 0 the two differ by any factor; to take weights over from
# the one to another RMSNorm gives other outputs.
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

x = np.array([[300, 400, 500, 600]], np.float32)
option = np.array(keras.layers.LayerNormalization(rms_scaling=True)(x))[0]
layer = np.array(keras.layers.RMSNormalization()(x))[0]
print(f"Keras {keras.__version__}: {x[0]} becomes {option.round(3)} with rms_scaling, {layer.round(3)} in RMSNormalization")
assert np.abs(layer - x[0] / np.sqrt((x**2).mean())).max() < 1e-3
assert np.abs(option - x[0] / x.std()).max() < 2e-3, "rms_scaling divides by the root mean square now"
PYTHON
