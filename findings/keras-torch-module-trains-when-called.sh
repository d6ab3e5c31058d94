#!/usr/bin/env bash
# Keras with PyTorch: a wrapped PyTorch batch norm trains when the model is only called
#
# A good guess: model(x) without a training argument evaluates, as it does for Keras' own batch norm
# and dropout, on the same backend.
# Seen: Keras 3.15.1, TorchModuleWrapper(BatchNorm1d): model(x) normalises with the batch, moves the
# running mean, and a wrapped Dropout drops. Keras' own layers in the same place do neither.
# Why it matters here: code that evaluates by model(x) changes the statistics that a file for this crate
# gets; pass training=False, or call predict().
# Needs Python 3.11 or newer; installs keras==3.15.1, torch==2.15.0, numpy==2.4.6 in a temporary folder.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check keras==3.15.1 torch==2.15.0 numpy==2.4.6
KERAS_BACKEND=torch "$work/venv/bin/python" -W ignore - <<'PYTHON'
import keras, numpy as np, torch
from keras.layers import BatchNormalization, Dropout, TorchModuleWrapper

x = np.full((1000, 2), 10, np.float32)


def called(norm, dropout, mean):
    keras.Sequential([norm])(x)
    return round(float(mean().detach().mean()), 3), bool((keras.Sequential([dropout])(x) == 0).any())


norm, own = torch.nn.BatchNorm1d(2), BatchNormalization()
wrapped = called(TorchModuleWrapper(norm), TorchModuleWrapper(torch.nn.Dropout(0.5)), lambda: norm.running_mean)
keras_own = called(own, Dropout(0.5), lambda: own.moving_mean.value)
print(f"Keras {keras.__version__}, PyTorch {torch.__version__}: model(x) moves the wrapped running mean to {wrapped[0]}, wrapped dropout drops: {wrapped[1]}; Keras' own: {keras_own[0]}, {keras_own[1]}")
assert keras_own == (0, False)
assert wrapped == (1, True), "a wrapped module evaluates now"
PYTHON
