#!/usr/bin/env bash
# MNN: ReLU of minus infinity is NaN
#
# A good guess: it is 0, as for every other negative number, and as in ONNX.
# Seen: MNN 3.6.1 on x86-64, a converted ONNX model: minus infinity becomes NaN, in vectors of any length, and
# NaN becomes 0. -3.4e38 becomes 0, and LeakyRelu keeps minus infinity.
# Why it matters here: a number that is masked with minus infinity before the activation spreads NaN there,
# and a NaN that should have shown an error is gone.
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


seen, exact = run("Relu", [1, -1, -3.4e38, -np.inf, np.nan])
leaky, _ = run("LeakyRelu", [-np.inf, 1])
print(f"MNN {version}: Relu of 1, -1, -3.4e38, -infinity, NaN: {seen}; exact {exact}; LeakyRelu of -infinity: {leaky[0]}")
assert seen[:3].tolist() == [1, 0, 0] and leaky[0] == -np.inf and exact[3] == 0
assert np.isnan(seen[3]) and seen[4] == 0, "minus infinity becomes 0 now"
PYTHON
