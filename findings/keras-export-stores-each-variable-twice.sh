#!/usr/bin/env bash
# Keras 3: the SavedModel of export() has every variable twice
#
# A good guess: a checkpoint has each variable of a model once, as TensorFlow's own and Keras 2's have.
# Seen: Keras 3.15.1 on TensorFlow 2.21.0: export() writes each variable under variables/N and once
# more under _all_variables/N, in two different orders, and the file of data is more than twice as
# long as the numbers of the model.
# Why it matters here: who reads the variables by their names meets every name of a batch norm twice.
# Needs Python 3.11 or newer; installs keras==3.15.1, tensorflow-cpu==2.21.0 in a temporary folder.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check keras==3.15.1 tensorflow-cpu==2.21.0
export KERAS_BACKEND=tensorflow TF_CPP_MIN_LOG_LEVEL=3 WORK=$work
"$work/venv/bin/python" -W ignore - <<'PYTHON'
import os

import keras
import numpy as np
import tensorflow as tf
from tensorflow.core.protobuf import trackable_object_graph_pb2

folder = f"{os.environ['WORK']}/model"
layers = keras.layers
network = keras.Sequential([keras.Input((8,)), layers.Dense(1000), layers.BatchNormalization(), layers.Dense(2)])
network.export(folder, verbose=False)
reader = tf.train.load_checkpoint(f"{folder}/variables/variables")
graph = trackable_object_graph_pb2.TrackableObjectGraph.FromString(reader.get_tensor("_CHECKPOINTABLE_OBJECT_GRAPH"))
places = {}
for node in graph.nodes:
    for attribute in node.attributes:
        places.setdefault(attribute.full_name, []).append(attribute.checkpoint_key)
for name, keys in places.items():
    print(name, keys)
    numbers = [reader.get_tensor(key) for key in keys]
    assert len(keys) == 2 and np.array_equal(*numbers), "the behaviour has changed"
size = os.path.getsize(f"{folder}/variables/variables.data-00000-of-00001")
needed = sum(4 * int(np.prod(variable.shape)) for variable in network.variables)
print(f"{size} bytes for {needed} bytes of numbers")
assert len(places) == len(network.variables) and size > 2 * needed
PYTHON
