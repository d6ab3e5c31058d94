#!/usr/bin/env bash
# MNN: Softplus of 200 is 87
#
# A good guess: Softplus of a large number is that number, as in ONNX's definition and onnx's reference
# evaluator.
# Seen: MNN 3.6.1 on x86-64, a converted ONNX model: from 88 on it is 87, which is where its exponential is
# cut off; infinity is 87, too. Below, it is right to 6 digits.
# Why it matters here: a deviation or a scale that a network predicts by Softplus stops growing at 87 in the
# converted network, and in the one that was trained it does not.
# Needs Python 3.11 or newer; installs MNN==3.6.1, onnx==1.23.2, numpy==2.4.6 in a temporary folder.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check MNN==3.6.1 onnx==1.23.2 numpy==2.4.6
"$work/venv/bin/python" -W ignore - <<'PYTHON' | grep '^MNN '
import importlib.metadata, subprocess, sys, tempfile

import MNN.expr, MNN.nn, numpy as np, onnx
from onnx import TensorProto, helper
from onnx.reference import ReferenceEvaluator

version = importlib.metadata.version("MNN")


def run(operator, numbers, **attributes):
    """The outputs of a model with one node, in MNN and in onnx's reference evaluator."""
    x = np.array([numbers], np.float32)
    shapes = [helper.make_tensor_value_info(name, TensorProto.FLOAT, list(x.shape)) for name in "xy"]
    graph = helper.make_graph([helper.make_node(operator, ["x"], ["y"], **attributes)], "g", shapes[:1], shapes[1:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)
    with tempfile.TemporaryDirectory() as folder:
        onnx.save(model, f"{folder}/model.onnx")
        convert = [sys.executable, "-c", "import sys, MNN, _tools; _tools.mnnconvert(sys.argv)"]
        files = ["--modelFile", f"{folder}/model.onnx", "--MNNModel", f"{folder}/model.mnn"]
        subprocess.run([*convert, "-f", "ONNX", "--bizCode", "MNN", *files], check=True, capture_output=True)
        module = MNN.nn.load_module_from_file(f"{folder}/model.mnn", ["x"], ["y"])
        variable = MNN.expr.placeholder(list(x.shape), MNN.expr.NCHW)
        variable.write(x)
        output = module.forward([variable])
        output = output[0] if isinstance(output, (list, tuple)) else output
        numbers = np.array(MNN.expr.convert(output, MNN.expr.NCHW).read()).ravel()
    return numbers, ReferenceEvaluator(model).run(None, {"x": x})[0].ravel()


seen, exact = run("Softplus", [1, 20, 80, 88, 200, np.inf])
print(f"MNN {version}: Softplus of 1, 20, 80, 88, 200, infinity: {seen.round(3)}; exact {exact.round(3)}")
assert np.allclose(seen[:3], exact[:3], rtol=1e-5)
assert (seen[3:] == 87).all(), "large numbers pass now"
PYTHON
