#!/usr/bin/env bash
# KerasHub: the drop path of DINOv2 and DINOv3 drops nothing, and makes larger what it keeps
#
# A good guess: a drop path sets a sample's branch to 0 with its rate, and divides by the keep probability
# otherwise, as the other models of the library do.
# Seen: keras-hub 0.32.0 multiplies by a random number between keep and 1 + keep, divided by keep, without
# rounding it down: with a rate of 0.5 all of 1000 samples stay, as 1 to 3, with a mean of 2 where evaluation
# has 1.
# Why it matters here: fine-tuning with drop_path_rate trains branches that are (keep + 0.5)/keep times as
# large as in evaluation, with noise on them.
# Needs Python 3.11 or newer; installs keras-hub==0.32.0, keras==3.15.1, jax==0.10.2, jaxlib==0.10.2,
# numpy==2.4.6 in a temporary folder.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check keras-hub==0.32.0 keras==3.15.1 jax==0.10.2 jaxlib==0.10.2 numpy==2.4.6
"$work/venv/bin/python" -W ignore - <<'PYTHON'
import os
os.environ["KERAS_BACKEND"] = "jax"
import importlib.metadata

import numpy as np
from keras_hub.src.models.dinov2.dinov2_layers import DINOV2DropPath
from keras_hub.src.models.dinov3.dinov3_layers import DINOV3DropPath
from keras_hub.src.models.swin_transformer.swin_transformer_layers import DropPath

x, found = np.ones((1000, 1), np.float32), {}
for layer in DINOV2DropPath(0.5), DINOV3DropPath(0.5), DropPath(0.5):
    y = np.array(layer(x, training=True))
    found[type(layer).__name__] = int((y == 0).sum()), round(float(y.mean()), 2)
    assert (np.array(layer(x, training=False)) == 1).all()
print(f"KerasHub {importlib.metadata.version('keras-hub')}: of 1000 samples dropped, and mean: {found}")
dropped, mean = found.pop("DropPath")
assert 400 < dropped < 600 and 0.8 < mean < 1.2
assert all(dropped == 0 and 1.9 < mean < 2.1 for dropped, mean in found.values()), "samples are dropped now"
PYTHON
