#!/usr/bin/env bash
# onnxoptimizer: fusing a batch norm into a convolution makes eleven nodes of two
#
# A good guess: `fuse_bn_into_conv` leaves a Conv with other constant weights.
# Seen: onnxoptimizer 0.4.2, with its default passes, leaves the arithmetic of the folding in the graph: Cast, Add,
# Sqrt, Div, Unsqueeze, Mul and more, from the constants of the batch norm to a Conv whose weights are the result.
# It folds no constants itself.
# Why it matters here: such a file has no BatchNormalization to find and no folded weights to read, and a runtime
# that folds no constants computes the weights in every run.
# Needs Python 3.11 or newer; installs onnx==1.23.2, onnxoptimizer==0.4.2, numpy==2.4.6 in a temporary folder.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check onnx==1.23.2 onnxoptimizer==0.4.2 numpy==2.4.6
"$work/venv/bin/python" -W ignore - <<'PYTHON'
import importlib.metadata, numpy as np, onnxoptimizer
from onnx import TensorProto, helper, numpy_helper

constants = {"w": np.ones((2, 3, 1, 1)), "scale": [1, 2], "bias": [0, 1], "mean": [0, 1], "var": [1, 4]}
nodes = [helper.make_node("Conv", ["x", "w"], ["z"]), helper.make_node("BatchNormalization", ["z", "scale", "bias", "mean", "var"], ["y"])]
value = lambda name, channels: helper.make_tensor_value_info(name, TensorProto.FLOAT, [4, channels, 8, 8])
tensors = [numpy_helper.from_array(np.array(array, np.float32), name) for name, array in constants.items()]
graph = helper.make_graph(nodes, "graph", [value("x", 3)], [value("y", 2)], tensors)
after = onnxoptimizer.optimize(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8))
operators = [node.op_type for node in after.graph.node]
weights = {tensor.name for tensor in after.graph.initializer}
constant = next(node for node in after.graph.node if node.op_type == "Conv").input[1] in weights
print(f"onnxoptimizer {importlib.metadata.version('onnxoptimizer')}: Conv, BatchNormalization become {len(operators)} nodes: {', '.join(operators)}; "
      f"the weights of Conv are a constant: {constant}")
assert "BatchNormalization" not in operators and len(operators) > 2 and not constant, "it leaves one Conv with constant weights now"
PYTHON
