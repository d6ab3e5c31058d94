#!/usr/bin/env bash
# Ivy: dropout2d drops elements with NumPy, and channels with PyTorch
#
# A good guess: dropout2d drops whole channels, as Ivy's documentation says, on every backend.
# Seen: Ivy 1.0.0.5: with the NumPy backend each element of an image is dropped on its own, and with the
# PyTorch backend a channel is dropped or kept as a whole.
# Why it matters here: a network regularised so on one backend trains otherwise on the other; this
# crate has a mode for each.
# Needs Python 3.11 or newer; installs ivy==1.0.0.5, torch==2.15.0, numpy==2.4.6 in a temporary folder.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check ivy==1.0.0.5 torch==2.15.0 numpy==2.4.6
cd "$work" # Ivy writes a log where it is run
"$work/venv/bin/python" -W ignore - <<'PYTHON'
import importlib.metadata

import ivy, numpy as np


def mixed(backend):
    ivy.set_backend(backend)
    ivy.seed(seed_value=0)
    dropped = ivy.dropout2d(ivy.array(np.ones((1, 100, 8, 8), np.float32)), 0.5, training=True, data_format="NCHW").to_numpy()[0] == 0
    return sum(bool(channel.any() and not channel.all()) for channel in dropped)


numpy, torch = mixed("numpy"), mixed("torch")
print(f"ivy {importlib.metadata.version('ivy')}: of 100 channels, dropped in part: {numpy} with NumPy, {torch} with PyTorch")
assert torch == 0
assert numpy == 100, "NumPy drops channels now"
PYTHON
