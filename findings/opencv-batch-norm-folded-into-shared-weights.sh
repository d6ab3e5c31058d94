#!/usr/bin/env bash
# OpenCV: a batch norm between two convolutions that share weights is applied twice
#
# A good guess: folding a batch norm changes the weights of the one convolution in front of it; another
# one that uses the same constant keeps its own.
# Seen: OpenCV 5.0.0: two Conv nodes of one constant 1 with a gain of 2 between them give 4 instead of
# 2, without a warning. With a copy of the constant for the second one, and in OpenCV 4.14.0, it is 2.
# Why it matters here: detection heads share weights over the levels and have a batch norm of their own
# on each; a fold has to copy weights that another layer has, too, before it changes them.
# Needs Python 3.11 or newer; installs opencv-python-headless==5.0.0.93, onnx==1.23.2, numpy==2.4.6 in a
# temporary folder.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check opencv-python-headless==5.0.0.93 onnx==1.23.2 numpy==2.4.6
"$work/venv/bin/python" -W ignore - <<'PYTHON'
import cv2, numpy as np, onnx
from onnx import TensorProto, helper, numpy_helper

def output(second):
    numbers = {"w": 1, "copy": 1, "s": 2, "b": 0, "m": 0, "v": 1}
    constants = [numpy_helper.from_array(np.full((1, 1, 1, 1) if name in ("w", "copy") else 1, number, np.float32), name) for name, number in numbers.items()]
    shapes = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 1, 1, 1]) for name in "xy"]
    nodes = [helper.make_node("Conv", ["x", "w"], ["c"]), helper.make_node("BatchNormalization", list("csbmv"), ["d"]), helper.make_node("Conv", ["d", second], ["y"])]
    model = helper.make_model(helper.make_graph(nodes, "g", shapes[:1], shapes[1:], constants), opset_imports=[helper.make_opsetid("", 15)], ir_version=8)
    onnx.checker.check_model(model)
    net = cv2.dnn.readNetFromONNX(np.frombuffer(model.SerializeToString(), np.uint8))
    net.setInput(np.ones((1, 1, 1, 1), np.float32))
    return net.forward().item()

shared, copied = output("w"), output("copy")
print(f"OpenCV {cv2.__version__}: 1 through two convolutions of 1 and a gain of 2 between them is {shared:.4f} with one constant, {copied:.4f} with two")
assert abs(copied - 2) < 1e-3
assert abs(shared - 4) < 1e-3, "the second convolution keeps its weights now"
PYTHON
