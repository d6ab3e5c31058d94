#!/usr/bin/env bash
# Keras 3: a loaded model draws the dropout masks of its first steps again
#
# A good guess: a .keras file has all that training needs to go on, as the optimizer's state and its
# count of steps are in it; the state of a dropout layer's generator is one of the model's variables.
# Seen: Keras 3.15.1 on TensorFlow 2.21.0: after six steps the optimizer of the loaded model stands
# at 6, and the generator of its Dropout at 0. The file holds no variable of it.
# Why it matters here: training that stops and goes on once a day drops the same units at the start
# of every day. Here a caller derives the seed of a step from its number.
# Needs Python 3.11 or newer; installs keras==3.15.1, tensorflow-cpu==2.21.0 in a temporary folder.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check keras==3.15.1 tensorflow-cpu==2.21.0
TF_CPP_MIN_LOG_LEVEL=3 "$work/venv/bin/python" -W ignore - <<'PYTHON'
import tempfile

import keras, numpy as np

x, y = np.ones((4, 8), np.float32), np.ones((4, 1), np.float32)
model = keras.Sequential([keras.Input((8,)), keras.layers.Dropout(0.5, seed=3), keras.layers.Dense(1)])
model.compile("sgd", "mse")
model.fit(x, y, batch_size=2, epochs=3, verbose=0)
with tempfile.TemporaryDirectory() as folder:
    model.save(f"{folder}/model.keras")
    loaded = keras.saving.load_model(f"{folder}/model.keras")
state = lambda network: (int(network.optimizer.iterations), [int(value) for value in np.array(network.layers[0].seed_generator.state)])
print(f"Keras {keras.__version__}: steps and generator: trained {state(model)}, loaded {state(loaded)}")
assert any(variable is model.layers[0].seed_generator.state for variable in model.variables)
assert state(model) == (6, [3, 6])
assert state(loaded) == (6, [3, 0]), "the generator's state is stored now"
PYTHON
