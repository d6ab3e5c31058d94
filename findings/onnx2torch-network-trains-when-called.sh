#!/usr/bin/env bash
# onnx2torch: a converted inference network normalises with the batch when it is called
#
# A good guess: an ONNX file whose batch norm has training_mode 0 becomes a module that computes the
# same numbers: the mode is in the file.
# Seen: onnx2torch 1.5.15: convert() returns the module in training mode: 1, 2, 3, 6 with the mean 0 and
# the variance 1 become -1.07 to 1.60, and the running mean moves, so that it is another one even after
# eval().
# Why it matters here: a comparison of the converted network with the file fails at first, and then, in
# evaluation mode, still fails; call eval() before anything else.
# Needs Python 3.11 or newer; installs onnx2torch==1.5.15, onnx==1.23.2, torchvision==0.29.2,
# torch==2.15.0, numpy==2.4.6 in a temporary folder.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check onnx2torch==1.5.15 onnx==1.23.2 torchvision==0.29.2 torch==2.15.0 numpy==2.4.6
"$work/venv/bin/python" -W ignore - <<'PYTHON'
import importlib.metadata

import numpy as np, torch
from onnx import TensorProto, helper, numpy_helper
from onnx2torch import convert

constants = [numpy_helper.from_array(np.array([number], np.float32), name) for name, number in zip("sbmv", (1, 0, 0, 1))]
shapes = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [4, 1]) for name in "xy"]
node = helper.make_node("BatchNormalization", list("xsbmv"), ["y"], training_mode=0)
model = helper.make_model(helper.make_graph([node], "g", shapes[:1], shapes[1:], constants), opset_imports=[helper.make_opsetid("", 15)], ir_version=8)
network, x = convert(model), torch.tensor([[1.0], [2], [3], [6]])
with torch.no_grad():
    called, later, right = network(x), network.eval()(x), convert(model).eval()(x)
print(f"onnx2torch {importlib.metadata.version('onnx2torch')}: {x.flatten().tolist()} become {called.flatten().numpy().round(2)}, after eval() {later.flatten().numpy().round(2)}, with eval() first {right.flatten().numpy().round(2)}")
assert (right - x).abs().max() < 1e-3
assert abs(called[0].item() + 1.069) < 1e-3 and abs(later[0].item() - 0.599) < 1e-2, "it evaluates now"
PYTHON
