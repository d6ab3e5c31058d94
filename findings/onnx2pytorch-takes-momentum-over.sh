#!/usr/bin/env bash
# onnx2pytorch: a batch norm from ONNX follows its last batch by nine tenths
#
# A good guess: a converter turns ONNX's momentum, the weight of the old statistics (0.9), into
# PyTorch's, the weight of the new ones (0.1), as onnx2torch does.
# Seen: onnx2pytorch 0.6.0 takes the number over: momentum is 0.9, and a training batch with mean 3
# moves a running mean of 0 to 2.7.
# Why it matters here: evaluation is right until the network is trained on; after that its running
# statistics are those of the last batch or two.
# Needs Python 3.11 or newer; installs onnx2pytorch==0.6.0, onnx==1.23.2, torch==2.15.0, numpy==2.4.6 in a temporary folder.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check onnx2pytorch==0.6.0 onnx==1.23.2 torch==2.15.0 numpy==2.4.6
"$work/venv/bin/python" -W ignore - <<'PYTHON'
import importlib.metadata

import numpy as np, torch
from onnx import TensorProto, helper, numpy_helper
from onnx2pytorch import ConvertModel

inputs = {"scale": 1, "bias": 0, "mean": 0, "variance": 1}
node = helper.make_node("BatchNormalization", ["x", *inputs], ["y"], momentum=0.9)
constants = [numpy_helper.from_array(np.full(1, value, np.float32), name) for name, value in inputs.items()]
x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, [4, 1]) for name in "xy")
made = helper.make_model(helper.make_graph([node], "graph", [x], [y], constants), opset_imports=[helper.make_opsetid("", 15)], ir_version=8)
model = ConvertModel(made, experimental=True).train()
norm = next(module for module in model.modules() if isinstance(module, torch.nn.modules.batchnorm._BatchNorm))
norm.train()(torch.tensor([[1.0], [2.0], [3.0], [6.0]]))
print(f"onnx2pytorch {importlib.metadata.version('onnx2pytorch')}: momentum {norm.momentum:.1f}, running mean {norm.running_mean.item():.4f} after a batch of mean 3")
assert abs(norm.momentum - 0.9) < 1e-6, "momentum is converted now"
assert abs(norm.running_mean.item() - 2.7) < 1e-4
PYTHON
