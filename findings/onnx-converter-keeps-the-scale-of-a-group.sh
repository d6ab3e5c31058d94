#!/usr/bin/env bash
# ONNX: a converted GroupNormalization keeps a scale for each group, where one for each channel is asked for
#
# A good guess: the version converter repeats scale and bias for the channels of a group on the way from
# opset 18, which has them by group, to 21, which has them by channel, or refuses.
# Seen: ONNX 1.23.2 changes the number of the opset, and nothing else: of 4 channels in 2 groups the scale
# still has 2 elements, which the checker accepts, and neither onnxruntime 1.32.0 nor the reference evaluator
# runs it, though both run the model of opset 18.
# Why it matters here: an exported normalisation by groups is lost in an upgrade; repeat scale and bias
# C/groups times by hand.
# Needs Python 3.11 or newer; installs onnxruntime==1.32.0, onnx==1.23.2, numpy==2.4.6 in a temporary folder.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check onnxruntime==1.32.0 onnx==1.23.2 numpy==2.4.6
"$work/venv/bin/python" -W ignore - <<'PYTHON'
import numpy as np, onnx, onnxruntime
from onnx import TensorProto, helper, version_converter


def run(model):
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    try:
        session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
        return session.run(None, {"x": np.arange(8, dtype=np.float32).reshape(1, 4, 2)})[0].shape
    except Exception:
        return "refused"


node = helper.make_node("GroupNormalization", ["x", "scale", "bias"], ["y"], num_groups=2)
values = [helper.make_tensor("scale", TensorProto.FLOAT, [2], [1, 2]), helper.make_tensor("bias", TensorProto.FLOAT, [2], [0, 0])]
graph = helper.make_graph([node], "g", [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 4, 2])], [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 4, 2])], values)
old = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
new = version_converter.convert_version(old, 21)
onnx.checker.check_model(new, full_check=True)
shapes = [list(value.dims) for value in new.graph.initializer]
nodes = [node.op_type for node in new.graph.node]
before, after = run(old), run(new)
print(f"ONNX {onnx.__version__}: opset {new.opset_import[0].version} has {nodes} with scale and bias of {shapes} for 4 channels; onnxruntime: {before} before, {after} after")
assert before == (1, 4, 2) and new.opset_import[0].version == 21
assert nodes == ["GroupNormalization"] and shapes == [[2], [2]] and after == "refused", "the scale is converted now"
PYTHON
