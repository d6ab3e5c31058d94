#!/usr/bin/env bash
# OpenCV: an ONNX batch norm in training mode is computed as inference
#
# A good guess: training_mode=1 normalises with the statistics of the batch, as the standard says
# and onnxruntime and OpenVINO do, or is refused.
# Seen: OpenCV 4.14.0 loads the model without a word and normalises with the stored mean 0 and
# variance 1: 1, 2, 3, 6 stay as they are.
# Why it matters here: a network that was exported in training mode gives other answers in OpenCV
# than elsewhere, without an error.
# Needs Python 3.11 or newer; installs onnx==1.23.2, opencv-python-headless==4.14.0.94, numpy==2.4.6 in a temporary folder.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check onnx==1.23.2 opencv-python-headless==4.14.0.94 numpy==2.4.6
"$work/venv/bin/python" -W ignore - <<'PYTHON'
import cv2, numpy as np, onnx
from onnx import TensorProto, helper, numpy_helper

inputs = {"scale": 1, "bias": 0, "mean": 0, "var": 1}
node = helper.make_node("BatchNormalization", ["x", *inputs], ["y", "new_mean", "new_var"], training_mode=1)
constants = [numpy_helper.from_array(np.full(1, value, np.float32), name) for name, value in inputs.items()]
value = lambda name: helper.make_tensor_value_info(name, TensorProto.FLOAT, [4, 1])
graph = helper.make_graph([node], "graph", [value("x")], [value("y")], constants)
made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 15)])
network = cv2.dnn.readNetFromONNX(np.frombuffer(made.SerializeToString(), np.uint8))
network.setInput(np.array([[1], [2], [3], [6]], np.float32))
y = network.forward().ravel()
print(f"OpenCV {cv2.__version__}: {y}; the statistics of the batch give -1.069, -0.535, 0, 1.604")
assert np.allclose(y, [1, 2, 3, 6], atol=1e-3), "training_mode is not ignored any more"
PYTHON
