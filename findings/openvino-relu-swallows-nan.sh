#!/usr/bin/env bash
# OpenVINO: relu of NaN is 0, and leaky relu of NaN is NaN
#
# A good guess: a NaN goes through every activation, as in PyTorch, TensorFlow and onnxruntime; or
# through none.
# Seen: OpenVINO 2026.4.1 on the CPU with the precision hint f32: Relu, Celu and Clip(0, 6) of NaN
# are 0, HardSigmoid of NaN is 1, and LeakyRelu, Elu, Selu and Sigmoid of NaN are NaN.
# Why it matters here: a batch norm whose running variance is NaN, as several frameworks store it,
# shows at its output in one network, and is a channel of zeros in another.
# Needs Python 3.11 or newer; installs openvino==2026.4.1, onnx==1.23.2, numpy==2.4.6 in a temporary folder.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check openvino==2026.4.1 onnx==1.23.2 numpy==2.4.6
"$work/venv/bin/python" -W ignore - <<'PYTHON'
import numpy as np, openvino
from onnx import TensorProto, helper, numpy_helper

bounds = [numpy_helper.from_array(np.float32(value), name) for name, value in (("low", 0), ("high", 6))]


def of_nan(operator):
    clip = operator == "Clip"
    node = helper.make_node(operator, ["x", "low", "high"] if clip else ["x"], ["y"])
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 16]) for name in "xy")
    graph = helper.make_graph([node], "graph", [x], [y], bounds if clip else [])
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)
    core = openvino.Core()
    network = core.compile_model(core.read_model(made.SerializeToString()), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    return float(network(np.full((1, 16), np.nan, np.float32))[0][0, 0])


found = {name: of_nan(name) for name in ("Relu", "Celu", "Clip", "HardSigmoid", "LeakyRelu", "Elu", "Selu", "Sigmoid")}
print(f"OpenVINO {openvino.__version__}: {found}")
expected = {"Relu": 0, "Celu": 0, "Clip": 0, "HardSigmoid": 1}
assert all(found[name] == value for name, value in expected.items()), "NaN goes through now"
assert all(np.isnan(value) for name, value in found.items() if name not in expected), "NaN is swallowed by more"
PYTHON
