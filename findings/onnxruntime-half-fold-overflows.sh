#!/usr/bin/env bash
# onnxruntime: folding a batch norm into a convolution of halves makes an infinity of 0
#
# A good guess: a session computes a float16 convolution and batch norm on the CPU by way of f32, so
# that what fits float16 at the end is right, with and without its optimizations.
# Seen: onnxruntime 1.32.0 folds in float16: with a running mean of 300 and a weight of 300 the new bias
# is -90,000, which is minus infinity. The output of 300 is 0 with the optimizations off, and minus
# infinity with them; with weights of 100 and a variance of 0 it is NaN.
# Why it matters here: a channel with a small variance and a large mean goes infinite in a file whose
# numbers are all ordinary; fold in f32, as this crate does, and convert afterwards.
# Needs Python 3.11 or newer; installs onnxruntime==1.32.0, onnx==1.23.2, numpy==2.4.6 in a temporary
# folder.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check onnxruntime==1.32.0 onnx==1.23.2 numpy==2.4.6
"$work/venv/bin/python" -W ignore - <<'PYTHON'
import numpy as np, onnx, onnxruntime
from onnx import TensorProto, helper, numpy_helper

def outputs(w, s, m, v, x):
    constants = [numpy_helper.from_array(np.full((1, 1, 1, 1) if name == "w" else 1, number, np.float16), name) for name, number in zip("wsbmv", (w, s, 0, m, v))]
    shapes = [helper.make_tensor_value_info(name, TensorProto.FLOAT16, [1, 1, 1, 1]) for name in "xy"]
    nodes = [helper.make_node("Conv", ["x", "w"], ["c"]), helper.make_node("BatchNormalization", list("csbmv"), ["y"], epsilon=1e-6)]
    model = helper.make_model(helper.make_graph(nodes, "g", shapes[:1], shapes[1:], constants), opset_imports=[helper.make_opsetid("", 15)], ir_version=8)
    onnx.checker.check_model(model)
    found = []
    for level in onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL, onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL:
        options = onnxruntime.SessionOptions()
        options.graph_optimization_level, options.log_severity_level = level, 4
        session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
        found.append(session.run(None, {"x": np.full((1, 1, 1, 1), x, np.float16)})[0].item())
    return found

ordinary, weight, variance = outputs(1, 3, 3, 1, 5), outputs(1, 300, 300, 1, 300), outputs(100, 1, 100, 0, 1)
print(f"onnxruntime {onnxruntime.__version__}, not optimized and optimized: {ordinary}; with weight 300 {weight}; with variance 0 {variance}")
assert abs(ordinary[0] - 6) < 0.01 and abs(ordinary[1] - 6) < 0.01 and weight[0] == variance[0] == 0
assert weight[1] == -np.inf and np.isnan(variance[1]), "the fold does not overflow now"
PYTHON
