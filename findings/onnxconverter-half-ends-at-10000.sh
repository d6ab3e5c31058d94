#!/usr/bin/env bash
# onnxconverter-common: a running variance of 30,000 becomes a float16 of 10,000
#
# A good guess: a conversion to float16 rounds each number, and float16 goes up to 65,504 and down to
# 6e-8.
# Seen: onnxconverter-common 1.16.0 with its defaults cuts every constant above 10,000 to 10,000 and
# raises every one between 0 and 1e-7 to 1e-7, also those that float16 has. Warnings say so.
# Why it matters here: behind a layer without normalisation a variance is easily above 10,000, and
# such a channel comes out sqrt(3) too large. Pass max_finite_val=65504, or fold in f32 first.
# Needs Python 3.11 or newer; installs onnxconverter-common==1.16.0, onnx==1.23.2, numpy==2.4.6 in a temporary folder.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check onnxconverter-common==1.16.0 onnx==1.23.2 numpy==2.4.6
"$work/venv/bin/python" -W ignore - <<'PYTHON'
import numpy as np, onnxconverter_common
from onnx import TensorProto, helper, numpy_helper
from onnxconverter_common import float16

variance = np.array([1, 30_000, 60_000, 3e-7, 6e-8], np.float32)
inputs = {"scale": np.ones(5, np.float32), "bias": np.zeros(5, np.float32), "mean": np.zeros(5, np.float32), "variance": variance}
node = helper.make_node("BatchNormalization", ["x", *inputs], ["y"])
x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 5]) for name in "xy")
constants = [numpy_helper.from_array(value, name) for name, value in inputs.items()]
made = helper.make_model(helper.make_graph([node], "graph", [x], [y], constants), opset_imports=[helper.make_opsetid("", 15)], ir_version=8)
converted = float16.convert_float_to_float16(made)
stored = next(numpy_helper.to_array(tensor) for tensor in converted.graph.initializer if tensor.name == "variance")
print(f"onnxconverter-common {onnxconverter_common.__version__}: {variance} becomes {stored}; rounded: {variance.astype(np.float16)}")
assert stored.dtype == np.float16
assert (stored == np.array([1, 10_000, 10_000, 3e-7, 1e-7], np.float16)).all(), "numbers are rounded now"
PYTHON
