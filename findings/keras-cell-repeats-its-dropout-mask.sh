#!/usr/bin/env bash
# Keras: an LSTM cell in a loop of its own drops the same inputs in every batch
#
# A good guess: each call of a cell with training=True, or each batch, draws a mask, as a Dropout layer
# does.
# Seen: Keras 3.15.1: LSTMCell, GRUCell and SimpleRNNCell with dropout draw a mask in their first call
# and keep it until reset_dropout_mask() is called. The layer LSTM calls that; a loop over a cell does
# not: of 8 inputs the same ones are dropped in 20 calls.
# Why it matters here: a hand-written recurrent loop never trains the inputs that the first mask
# dropped; here a mask is a function of a seed that the caller gives with each call.
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

x, found = np.ones((1, 8), np.float32), {}
for kind, states in (keras.layers.LSTMCell, 2), (keras.layers.GRUCell, 1), (keras.layers.SimpleRNNCell, 1):
    cell = kind(1, dropout=0.5, kernel_initializer="ones", recurrent_initializer="zeros", activation="linear")
    masks = set()
    for call in range(20):
        cell(x, [np.zeros((1, 1), np.float32)] * states, training=True)
        masks.add(tuple(np.array(cell.get_dropout_mask(x)).ravel().tolist()))
    cell.reset_dropout_mask()
    cell(x, [np.zeros((1, 1), np.float32)] * states, training=True)
    found[kind.__name__] = len(masks)
dropout = keras.layers.Dropout(0.5)
plain = len({tuple(np.array(dropout(x, training=True)).ravel().tolist()) for call in range(20)})
print(f"Keras {keras.__version__}: different masks in 20 calls: {found}, Dropout {plain}")
assert plain > 10
assert set(found.values()) == {1}, "a cell draws a mask for each call now"
PYTHON
