#!/usr/bin/env bash
# Keras with PyTorch: get_weights() of a wrapped PyTorch batch norm lacks the running statistics
#
# A good guess: get_weights() has all that save_weights() saves, and set_weights() gives a second model
# the same outputs, as with Keras' own batch norm.
# Seen: Keras 3.15.1, TorchModuleWrapper(BatchNorm1d): save_weights() writes five arrays, get_weights()
# returns the weight and the bias only. The second model evaluates with the mean 0 and the variance 1.
# Why it matters here: federated averaging, EarlyStopping(restore_best_weights=True) and copies for
# this crate go by get_weights(); take the statistics from the module's state_dict().
# Needs Python 3.11 or newer; installs keras==3.15.1, torch==2.15.0, numpy==2.4.6 in a temporary folder.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check keras==3.15.1 torch==2.15.0 numpy==2.4.6
WORK="$work/a.weights.h5" KERAS_BACKEND=torch "$work/venv/bin/python" -W ignore - <<'PYTHON'
import os

import h5py, keras, numpy as np, torch

x = np.full((4, 2), 10, np.float32)


def made(trained):
    norm = torch.nn.BatchNorm1d(2)
    norm.running_mean.fill_(10 if trained else 0)
    model = keras.Sequential([keras.layers.TorchModuleWrapper(norm)])
    model(x, training=False)
    return model


first, second, third = made(True), made(False), made(False)
second.set_weights(first.get_weights())
first.save_weights(os.environ["WORK"])
third.load_weights(os.environ["WORK"])
arrays = []
with h5py.File(os.environ["WORK"]) as file:
    file.visititems(lambda name, item: arrays.append(name) if isinstance(item, h5py.Dataset) and "module" in name else None)
outputs = [round(float(model(x, training=False)[0, 0]), 3) for model in (first, second, third)]
print(f"Keras {keras.__version__}, PyTorch {torch.__version__}: {len(arrays)} arrays in the file, {len(first.get_weights())} from get_weights(); evaluation {outputs[0]}, by set_weights {outputs[1]}, by load_weights {outputs[2]}")
assert len(arrays) == 5 and outputs[0] == outputs[2] == 0
assert len(first.get_weights()) == 2 and outputs[1] == 10, "get_weights has the statistics now"
PYTHON
