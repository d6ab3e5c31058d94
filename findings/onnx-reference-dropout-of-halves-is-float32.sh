#!/usr/bin/env bash
# ONNX: the reference evaluator's dropout of float16 is float32
#
# A good guess: the output of Dropout has the type of its input, as the operator's definition says,
# whatever the type of its ratio is.
# Seen: onnx 1.23.2: a float16 input with a float32 ratio, a model that passes the full check, gives
# float32 values, which were never rounded to float16. With a float16 ratio the output is float16.
# Why it matters here: the reference evaluator is the judge in tests of dropout of halves, and its
# kept values 1/(1 - 0.1) are 1.1111112 where a float16 can only be 1.111.
# Needs Python 3.11 or newer; installs onnx==1.23.2, numpy==2.4.6 in a temporary folder.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check onnx==1.23.2 numpy==2.4.6
"$work/venv/bin/python" -W ignore - <<'PYTHON'
import numpy as np, onnx
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator


def dropped(ratio_type):
    constants = [numpy_helper.from_array(np.array(0.1, ratio_type), "ratio"), numpy_helper.from_array(np.array(True), "training")]
    node = helper.make_node("Dropout", ["x", "ratio", "training"], ["y"], seed=1)
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT16, [64]) for name in "xy")
    made = helper.make_model(helper.make_graph([node], "graph", [x], [y], constants), opset_imports=[helper.make_opsetid("", 22)], ir_version=10)
    onnx.checker.check_model(made, full_check=True)
    return ReferenceEvaluator(made).run(None, {"x": np.ones(64, np.float16)})[0]


wide, narrow = dropped(np.float32), dropped(np.float16)
print(f"onnx {onnx.__version__}: a float32 ratio gives {wide.dtype} {wide.max()}, a float16 ratio {narrow.dtype} {narrow.max()}")
assert narrow.dtype == np.float16
assert wide.dtype == np.float32, "the output has the type of the input now"
PYTHON
