#!/usr/bin/env bash
# Keras: a batch norm in TimeDistributed trains with statistics by time step, and evaluates with one mean
#
# A good guess: as batch norm shares its parameters over the time steps, it takes its statistics over the
# batch and all steps, as the same layer does without the wrapper, and moves its running mean once.
# Seen: Keras 3.15.1: each step is a batch of its own: steps around 0, 10 and 20 are all normalised to
# mean 0, and the running mean moves three times, to 2.9 instead of 1 with momentum 0.9. In
# evaluation the steps are apart.
# Why it matters here: the steps' order weighs the running statistics, and a momentum of 0.9 over three
# steps is 0.729; leave the wrapper out: batch norm and dropout take all the axes as they are.
# Needs Python 3.11 or newer; installs keras==3.15.1, jax==0.10.2, jaxlib==0.10.2, numpy==2.4.6 in a temporary folder.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check keras==3.15.1 jax==0.10.2 jaxlib==0.10.2 numpy==2.4.6
KERAS_BACKEND=jax "$work/venv/bin/python" -W ignore - <<'PYTHON'
import keras, numpy as np

x = np.array([1, 2, 3, 6], np.float32)[:, None, None] + np.array([0, 10, 20], np.float32)[:, None] - 3


def steps(wrapper):
    norm = keras.layers.BatchNormalization(momentum=0.9)
    layer = wrapper(norm)
    means = lambda training: [round(float(mean), 2) + 0.0 for mean in np.asarray(layer(x, training=training))[..., 0].mean(0)]
    return means(True), round(float(norm.moving_mean[0]), 2), means(False)


plain, wrapped = steps(lambda norm: norm), steps(keras.layers.TimeDistributed)
for name, (training, mean, evaluation) in (("alone", plain), ("in TimeDistributed", wrapped)):
    print(f"Keras {keras.__version__}, {name}: means of the steps {training} in training, {evaluation} in evaluation; running mean {mean}")
assert plain[0][0] < -1 and plain[0][2] > 1
assert wrapped[0] == [0, 0, 0] and wrapped[2][2] - wrapped[2][0] > 1, "the steps are one batch now"
PYTHON
