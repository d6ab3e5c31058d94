#!/usr/bin/env bash
# onnxruntime: set_denormal_as_zero of a session changes the thread that made it, for good
#
# A good guess: an option of a session holds for the session's own runs and threads, and ends with
# the session.
# Seen: onnxruntime 1.32.0 sets flush-to-zero on the thread that creates the first such session:
# numpy flushes afterwards, and still does when the session is deleted.
# Why it matters here: every other library in the process computes with subnormals flushed from then
# on.
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

half = lambda: float((np.full(64, 2e-40, np.float32) * np.float32(0.5))[0])
before = half()
options = onnxruntime.SessionOptions()
options.add_session_config_entry("session.set_denormal_as_zero", "1")
one = session(helper.make_node("Identity", ["x"], ["y"]), options=options)
during = half()
del one
after = half()
print(f"onnxruntime {onnxruntime.__version__}: half of 2e-40 in numpy is {before:.3g}, then {during:.3g}, then {after:.3g}")
assert before > 0 and during == 0 and after == 0, "the option stays in its session now"
PYTHON
