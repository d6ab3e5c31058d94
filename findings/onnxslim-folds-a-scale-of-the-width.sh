#!/usr/bin/env bash
# onnxslim: a scale along the width is folded into a convolution's channels
#
# A good guess: a Mul behind a Conv is folded only if its constant is a scale per channel, shape [C, 1, 1].
# A constant of shape [C] is broadcast along the last axis, the width, and is left.
# Seen: onnxslim 0.1.98 folds it if the width is the number of channels: the columns' scales become the
# channels', without a warning. With another width the Mul stays.
# Why it matters here: fold by the axis, not by the count: a batch norm's scale has shape [C], too, and
# means the channels.
# Needs Python 3.11 or newer; installs onnxslim==0.1.98, onnx==1.23.2, numpy==2.4.6 in a temporary folder.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check onnxslim==0.1.98 onnx==1.23.2 numpy==2.4.6
"$work/venv/bin/python" -W ignore - <<'PYTHON'
import numpy as np, onnx, onnxslim
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator


def outputs(width):
    scales = np.arange(1, width + 1, dtype=np.float32)
    constants = [numpy_helper.from_array(np.ones((2, 1, 1, 1), np.float32), "w"), numpy_helper.from_array(scales, "scales")]
    nodes = [helper.make_node("Conv", ["x", "w"], ["z"]), helper.make_node("Mul", ["z", "scales"], ["y"])]
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, channels, 1, width]) for name, channels in (("x", 1), ("y", 2)))
    model = helper.make_model(helper.make_graph(nodes, "g", [x], [y], constants), opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.checker.check_model(model, full_check=True)
    run = lambda model: ReferenceEvaluator(model).run(None, {"x": np.ones((1, 1, 1, width), np.float32)})[0][0, :, 0].tolist()
    return run(model), run(onnxslim.slim(model))


two, three = outputs(2), outputs(3)
print(f"onnxslim {onnxslim.__version__}: two channels of width 2: {two[0]}, slimmed {two[1]}; of width 3: {three[0]}, slimmed {three[1]}")
assert three[0] == three[1]
assert two[0] == [[1, 2], [1, 2]] and two[1] == [[1, 1], [2, 2]], "the axes are told apart now"
PYTHON
