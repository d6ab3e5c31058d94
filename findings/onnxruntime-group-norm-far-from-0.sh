#!/usr/bin/env bash
# onnxruntime: GroupNormalization of values around 10,000 has a deviation of 300
#
# A good guess: a normalisation gives a deviation of 1, or something near it where float32 is short of
# digits, as InstanceNormalization of the same values does.
# Seen: onnxruntime 1.32.0 computes the operator by the formula that it has in ONNX 1.23.2, with the mean of
# the squares less the squared mean: 1024 values of mean 10,000 and deviation 1 come out with a deviation of
# 307. ONNX's reference evaluator gives NaN, and InstanceNormalization of the same group is right in both.
# Why it matters here: with one channel in a group the two are one operation, so that it can be replaced;
# here statistics are taken around a pivot.
# Needs Python 3.11 or newer; installs onnxruntime==1.32.0, onnx==1.23.2, numpy==2.4.6 in a temporary folder.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check onnxruntime==1.32.0 onnx==1.23.2 numpy==2.4.6
"$work/venv/bin/python" -W ignore - <<'PYTHON'
import numpy as np, onnx, onnxruntime
from onnx import TensorProto, helper

x = (1e4 + np.random.default_rng(0).normal(size=(1, 1, 32, 32))).astype(np.float32)
found = {}
for operator, options in ("GroupNormalization", {"num_groups": 1}), ("InstanceNormalization", {}):
    node = helper.make_node(operator, ["x", "scale", "bias"], ["y"], **options)
    values = [helper.make_tensor("scale", TensorProto.FLOAT, [1], [1]), helper.make_tensor("bias", TensorProto.FLOAT, [1], [0])]
    image = [1, 1, 32, 32]
    graph = helper.make_graph([node], "g", [helper.make_tensor_value_info("x", TensorProto.FLOAT, image)], [helper.make_tensor_value_info("y", TensorProto.FLOAT, image)], values)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    onnx.checker.check_model(model, full_check=True)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    found[operator] = float(session.run(None, {"x": x})[0].std())
print(f"onnxruntime {onnxruntime.__version__}: deviation of the output {found}")
assert abs(found["InstanceNormalization"] - 1) < 1e-2
assert not abs(found["GroupNormalization"] - 1) < 1, "the variance is computed in another way now"
PYTHON
