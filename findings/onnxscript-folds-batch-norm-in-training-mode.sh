#!/usr/bin/env bash
# onnxscript: the optimizer folds a batch norm in training mode into the convolution before it
#
# A good guess: a batch norm with training_mode=1 normalises with the statistics of each batch, which no
# weights can hold, so the optimizer leaves it.
# Seen: onnxscript 0.7.2 folds it, with the running statistics, if only its first output is used; the network gives
# other numbers afterwards. With its outputs for statistics in use, or by onnxoptimizer, it stays.
# Why it matters here: a file that has been through the optimizer may have lost
# what it computed, and nothing in it says so.
# Needs Python 3.11 or newer; installs onnx==1.23.2, onnxscript==0.7.2, numpy==2.4.6 in a temporary folder.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check onnx==1.23.2 onnxscript==0.7.2 numpy==2.4.6
"$work/venv/bin/python" -W ignore - <<'PYTHON'
import importlib.metadata, numpy as np, onnxscript.optimizer
from onnx import ModelProto, TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

generator = np.random.default_rng(0)
constants = {"w": np.ones((1, 1, 1, 1)), "scale": [1], "bias": [0], "mean": [0], "var": [1]}
nodes = [helper.make_node("Conv", ["x", "w"], ["z"]), helper.make_node("BatchNormalization", ["z", "scale", "bias", "mean", "var"], ["y"], training_mode=1)]
value = lambda name: helper.make_tensor_value_info(name, TensorProto.FLOAT, [4, 1, 8, 8])
tensors = [numpy_helper.from_array(np.array(array, np.float32), name) for name, array in constants.items()]
model = helper.make_model(helper.make_graph(nodes, "graph", [value("x")], [value("y")], tensors), opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
before = ModelProto()
before.CopyFrom(model)
after = onnxscript.optimizer.optimize(model)
x = (5 + 3 * generator.standard_normal((4, 1, 8, 8))).astype(np.float32)
means = [float(ReferenceEvaluator(graph).run(None, {"x": x})[0].mean()) for graph in (before, after)]
operators = [node.op_type for node in after.graph.node]
print(f"onnxscript {importlib.metadata.version('onnxscript')}: Conv, BatchNormalization(training_mode=1) become {', '.join(operators)}; "
      f"the mean of a normalised batch is {means[0]:.3f} before and {means[1]:.3f} after")
assert operators == ["Conv"] and abs(means[0]) < 1e-3 and means[1] > 4, "a batch norm in training mode stays now"
PYTHON
