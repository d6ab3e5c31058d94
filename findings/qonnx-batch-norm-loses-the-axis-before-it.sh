#!/usr/bin/env bash
# QONNX: BatchNormToAffine removes an Unsqueeze before the batch norm, whatever comes after it
#
# A good guess: an Unsqueeze before and a Squeeze behind a batch norm are removed together or not at all.
# Seen: QONNX 1.0.0 removes the one without the other: [3, 3] with an axis added in front is scaled along its
# columns instead of its rows, and the output has lost the axis. Behind a batch norm with both, the result is
# right.
# Why it matters here: the scale of a channel is applied to another axis where the sizes allow it, without a
# warning.
# Needs Python 3.11 or newer; installs qonnx==1.0.0, onnx==1.23.2, numpy==2.4.6 in a temporary folder.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check qonnx==1.0.0 onnx==1.23.2 numpy==2.4.6
"$work/venv/bin/python" -W ignore - <<'PYTHON'
import importlib.metadata

import numpy as np
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator
from qonnx.core.modelwrapper import ModelWrapper
from qonnx.transformation.batchnorm_to_affine import BatchNormToAffine
from qonnx.transformation.infer_shapes import InferShapes


def outputs(axis, squeeze):
    """A batch norm that scales by 1, 2, 3, before and after the transformation."""
    values = dict(s=[1, 2, 3], b=[0] * 3, m=[0] * 3, v=[1] * 3)
    constants = [numpy_helper.from_array(np.array(numbers, np.float32), name) for name, numbers in values.items()]
    constants.append(numpy_helper.from_array(np.array([axis]), "axis"))
    nodes = [helper.make_node("Unsqueeze", ["x", "axis"], ["u"]), helper.make_node("BatchNormalization", ["u", *"sbmv"], ["n" if squeeze else "y"], epsilon=0.0)]
    if squeeze:
        nodes.append(helper.make_node("Squeeze", ["n", "axis"], ["y"]))
    shape = [3, 3] if squeeze else [1, 3, 3]
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, size) for name, size in (("x", [3, 3]), ("y", shape)))
    model = helper.make_model(helper.make_graph(nodes, "g", [x], [y], constants), opset_imports=[helper.make_opsetid("", 15)], ir_version=8)
    run = lambda model: ReferenceEvaluator(model).run(None, {"x": np.ones((3, 3), np.float32)})[0]
    return run(model), run(ModelWrapper(model).transform(InferShapes()).transform(BatchNormToAffine()).model)


both, alone = outputs(2, True), outputs(0, False)
print(f"QONNX {importlib.metadata.version('qonnx')}: with a Squeeze behind it {both[0].tolist()} and {both[1].tolist()}; without {alone[0].tolist()} becomes {alone[1].tolist()}")
assert np.array_equal(*both)
assert alone[0].shape == (1, 3, 3) and alone[0][0, :, 0].tolist() == [1, 2, 3]
assert alone[1].shape == (3, 3) and alone[1][0].tolist() == [1, 2, 3], "the axis stays now"
PYTHON
