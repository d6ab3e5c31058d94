#!/usr/bin/env bash
# onnxslim: a batch norm folded into a grouped transposed convolution gets the wrong bias
#
# A good guess: a batch norm behind a ConvTranspose is folded right for every number of groups, or not
# at all.
# Seen: onnxslim 0.1.98 folds it for two groups of one channel each, and the second channel gets the
# bias of the first one, without a warning. With one group the outputs stay.
# Why it matters here: the weight of a transposed convolution is [in, out/groups, ...]; its
# output channels are counted over all groups, and so must the new bias be.
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

def outputs(groups):
    weight = np.full((2, 2 // groups, 1, 1), 2.0)
    values = dict(w=weight, scale=[1, 10], bias=[1, -5], mean=[0, 0], var=[1, 1])
    constants = [numpy_helper.from_array(np.array(value, np.float32), name) for name, value in values.items()]
    nodes = [helper.make_node("ConvTranspose", ["x", "w"], ["z"], group=groups),
             helper.make_node("BatchNormalization", ["z", "scale", "bias", "mean", "var"], ["y"], epsilon=0.0)]
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 2, 1, 1]) for name in "xy")
    model = helper.make_model(helper.make_graph(nodes, "g", [x], [y], constants), opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.checker.check_model(model, full_check=True)
    run = lambda model: ReferenceEvaluator(model).run(None, {"x": np.ones((1, 2, 1, 1), np.float32)})[0].ravel().tolist()
    return run(model), run(onnxslim.slim(model))

one, two = outputs(1), outputs(2)
print(f"onnxslim {onnxslim.__version__}: one group {one[0]}, slimmed {one[1]}; two groups {two[0]}, slimmed {two[1]}")
assert one[0] == one[1]
assert two[0] == [3, 15] and two[0] != two[1], "groups are folded right now"
PYTHON
