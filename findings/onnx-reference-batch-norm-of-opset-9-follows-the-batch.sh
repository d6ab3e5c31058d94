#!/usr/bin/env bash
# ONNX: the reference evaluator computes an inference batch norm of opset 9 with the batch
#
# A good guess: a BatchNormalization with one output is inference in opset 9 to 13, as the standard
# says, and gives (x - mean)/sqrt(var + eps) with the mean and variance that are in the file.
# Seen: onnx 1.23.2, ReferenceEvaluator: with mean 0 and variance 1 the values 1, 2, 3, 6 become 0.63,
# 1.52, 2.41, 5.10: it normalises with 0.9 times the stored statistics plus 0.1 times those of the
# batch. With opset 15 they stay.
# Why it matters here: files of older exporters have these opsets; the evaluator that is there to settle
# what is right is no reference for them.
# Needs Python 3.11 or newer; installs onnx==1.23.2, numpy==2.4.6 in a temporary folder.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check onnx==1.23.2 numpy==2.4.6
"$work/venv/bin/python" -W ignore - <<'PYTHON'
import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

def outputs(opset):
    constants = [numpy_helper.from_array(np.array([number], np.float32), name) for name, number in zip("sbmv", (1, 0, 0, 1))]
    shapes = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [4, 1]) for name in "xy"]
    node = helper.make_node("BatchNormalization", list("xsbmv"), ["y"])
    model = helper.make_model(helper.make_graph([node], "g", shapes[:1], shapes[1:], constants), opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
    onnx.checker.check_model(model)
    return ReferenceEvaluator(model).run(None, {"x": np.array([[1], [2], [3], [6]], np.float32)})[0].ravel()

nine, fifteen = outputs(9), outputs(15)
print(f"onnx {onnx.__version__}: opset 15 gives {fifteen.round(2)}, opset 9 gives {nine.round(2)}")
assert np.abs(fifteen - [1, 2, 3, 6]).max() < 1e-3
assert np.abs(nine - [0.626, 1.521, 2.415, 5.098]).max() < 1e-3, "opset 9 is inference now"
PYTHON
