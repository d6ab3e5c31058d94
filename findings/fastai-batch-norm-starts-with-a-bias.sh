#!/usr/bin/env bash
# fastai: a new batch norm has a bias of 0.001
#
# A good guess: weight 1 and bias 0, as everywhere, and as in the layer of PyTorch that it makes.
# Seen: fastai 2.8.12: BatchNorm, InstanceNorm and the batch norms of ConvLayer and LinBnDrop start with
# a bias of 0.001. The class is that of PyTorch, and its reset_parameters() gives 0.
# Why it matters here: a residual branch whose last weight starts as 0 starts as 0.001 there, and a
# network that is built anew for this crate has to start with that bias to be the same one.
# Needs Python 3.11 or newer; installs fastai==2.8.12, torchvision==0.29.2, torch==2.15.0, numpy==2.4.6
# in a temporary folder.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check fastai==2.8.12 torchvision==0.29.2 torch==2.15.0 numpy==2.4.6
"$work/venv/bin/python" -W ignore - <<'PYTHON'
import fastai, torch
from fastai.layers import BatchNorm, ConvLayer, InstanceNorm, LinBnDrop

norms = [BatchNorm(1), InstanceNorm(1), ConvLayer(1, 1)[1], LinBnDrop(1, 1)[0]]
biases = [norm.bias.item() for norm in norms]
norm = BatchNorm(1)
norm.reset_parameters()
print(f"fastai {fastai.__version__}: {[type(norm).__name__ for norm in norms]} start with biases {[round(bias, 6) for bias in biases]}; after reset_parameters() {norm.bias.item():g}")
assert type(norms[0]) is torch.nn.BatchNorm2d and norm.bias.item() == 0
assert all(abs(bias - 1e-3) < 1e-9 for bias in biases), "the bias starts at 0 now"
PYTHON
