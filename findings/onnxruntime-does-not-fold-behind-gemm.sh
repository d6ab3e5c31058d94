#!/usr/bin/env bash
# onnxruntime: a batch norm is folded into a MatMul before it, and not into a Gemm
#
# A good guess: a session folds a batch norm into the layer of constant weights before it, convolution
# or linear, with a bias or without.
# Seen: onnxruntime 1.32.0 folds into Conv, ConvTranspose and MatMul; a Gemm, which is what a linear layer
# with a bias is in ONNX (and what MatMul and Add become), keeps its BatchNormalization behind it, at
# every level of optimization and every opset from 11 to 22.
# Why it matters here: in a network of linear layers batch norm costs time in every run; folding it before the
# export (`fold_into_previous`) takes it away.
# Needs Python 3.11 or newer; installs onnx==1.23.2, onnxruntime==1.32.0, numpy==2.4.6 in a temporary folder.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check onnx==1.23.2 onnxruntime==1.32.0 numpy==2.4.6
cd "$work"
"$work/venv/bin/python" -W ignore - <<'PYTHON'
import numpy as np, onnx, onnxruntime
from onnx import TensorProto, helper, numpy_helper

def optimized(layer, opset):
    """The operators of the graph that the session runs."""
    generator = np.random.default_rng(0)
    constants = {name: generator.random(6).astype(np.float32) + 0.5 for name in ("b", "scale", "bias", "mean", "var")}
    constants["w"] = generator.standard_normal((4, 6)).astype(np.float32)
    nodes = layer + [helper.make_node("BatchNormalization", ["l", "scale", "bias", "mean", "var"], ["y"])]
    value = lambda name, width: helper.make_tensor_value_info(name, TensorProto.FLOAT, [8, width])
    tensors = [numpy_helper.from_array(array, name) for name, array in constants.items()]
    graph = helper.make_graph(nodes, "graph", [value("x", 4)], [value("y", 6)], tensors)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.optimized_model_filepath = "optimized.onnx"
    onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return [node.op_type for node in onnx.load("optimized.onnx").graph.node]

layers = {
    "MatMul": [helper.make_node("MatMul", ["x", "w"], ["l"])],
    "MatMul, Add": [helper.make_node("MatMul", ["x", "w"], ["m"]), helper.make_node("Add", ["m", "b"], ["l"])],
    "Gemm": [helper.make_node("Gemm", ["x", "w", "b"], ["l"])],
}
for opset in (11, 13, 15, 17, 22):
    found = {name: optimized(layer, opset) for name, layer in layers.items()}
    print(f"onnxruntime {onnxruntime.__version__}, opset {opset}: " + "; ".join(f"{name}, BatchNormalization -> {', '.join(after)}" for name, after in found.items()))
    kept = {name: "BatchNormalization" in after for name, after in found.items()}
    assert kept == {"MatMul": False, "MatMul, Add": True, "Gemm": True}, "it folds elsewhere now"
PYTHON
