#!/usr/bin/env bash
# onnxruntime: a session removes Dropout from the graph, whatever `training_mode` says
#
# A good guess: a Dropout whose input `training_mode` is true drops elements, as ONNX says: an export for
# Monte-Carlo dropout works, and so does a `training_mode` that every run feeds.
# Seen: onnxruntime 1.32.0 with its default optimizations removes every Dropout whose output is not an
# output of the graph (its transformer EliminateDropout), with a constant true, and with a true that
# the run feeds: nothing is dropped, and no warning says so. Without that transformer it drops.
# Why it matters here: the spread of Monte-Carlo dropout is 0, and a network looks certain of everything.
# Needs Python 3.11 or newer; installs onnx==1.23.2, onnxruntime==1.32.0, numpy==2.4.6 in a temporary folder.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check onnx==1.23.2 onnxruntime==1.32.0 numpy==2.4.6
"$work/venv/bin/python" -W ignore - <<'PYTHON'
import numpy as np, onnxruntime
from onnx import TensorProto, helper, numpy_helper

def dropped(training_mode_is_an_input, disabled=None):
    """The share of ones that Dropout(0.25) between two ReLUs makes 0."""
    nodes = [helper.make_node("Relu", ["x"], ["a"]), helper.make_node("Dropout", ["a", "ratio", "training"], ["b"]), helper.make_node("Relu", ["b"], ["y"])]
    value = lambda name: helper.make_tensor_value_info(name, TensorProto.FLOAT, [64, 100])
    inputs, feed = [value("x")], {"x": np.ones((64, 100), np.float32)}
    constants = [numpy_helper.from_array(np.float32(0.25), "ratio")]
    if training_mode_is_an_input:
        inputs.append(helper.make_tensor_value_info("training", TensorProto.BOOL, []))
        feed["training"] = np.array(True)
    else:
        constants.append(numpy_helper.from_array(np.array(True), "training"))
    graph = helper.make_graph(nodes, "graph", inputs, [value("y")], constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"], disabled_optimizers=disabled)
    return float((session.run(None, feed)[0] == 0).mean())

constant, fed, kept = dropped(False), dropped(True), dropped(False, ["EliminateDropout"])
print(f"onnxruntime {onnxruntime.__version__}: Dropout(0.25) with training_mode true drops {constant:.1%}; fed by the run, {fed:.1%}; "
      f"without EliminateDropout {kept:.1%}")
assert constant == 0 and fed == 0 and 0.2 < kept < 0.3, "Dropout in training mode is kept now"
PYTHON
