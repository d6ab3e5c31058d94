#!/usr/bin/env bash
# onnxruntime: batch norm in training mode gives another output at every run of one session
#
# A good guess: a session holds constants: the same input gives the same output, whatever happens to
# the running statistics, which are outputs of their own.
# Seen: onnxruntime 1.32.0 writes the running statistics over constants that it has merged with
# equal ones (bias and mean, both 0): the output of one input changes from run to run, and is never
# the right one.
# Why it matters here: such a session is no reference for a batch norm in training.
# Needs Python 3.11 or newer; installs onnx==1.23.2, onnxruntime==1.32.0, numpy==2.4.6 in a temporary folder.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check onnx==1.23.2 onnxruntime==1.32.0 numpy==2.4.6
"$work/venv/bin/python" -W ignore - <<'PYTHON'
import numpy as np, onnx, onnxruntime
from onnx import TensorProto, helper, numpy_helper

def session(node, constants=(), options=None):
    value = lambda name: helper.make_tensor_value_info(name, TensorProto.FLOAT, [None, 2])
    constants = [numpy_helper.from_array(np.array(values, np.float32), name) for name, values in constants]
    graph = helper.make_graph([node], "graph", [value("x")], [value("y")], constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 15)])
    model.ir_version = 8
    return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])

inputs = ["x", "scale", "bias", "mean", "var"]
node = helper.make_node("BatchNormalization", inputs, ["y", "new_mean", "new_var"], training_mode=1)
one = session(node, [("scale", [1, 1]), ("bias", [0, 0]), ("mean", [0, 0]), ("var", [1, 1])])
x = np.array([[1, 2], [3, 4], [6, 9]], np.float32)
exact = float(((x - x.mean(0)) / np.sqrt(x.var(0) + 1e-5))[0, 0])
runs = [float(one.run(None, {"x": x})[0][0, 0]) for _ in range(3)]
print(f"onnxruntime {onnxruntime.__version__}: the first value is {exact:.4f}, and three runs give {runs}")
assert len(set(runs)) == 3, "the runs agree now"
PYTHON
