#!/usr/bin/env bash
# NNGeometry: the derivative by a batch norm's weight is that of eps 1e-5
#
# A good guess: the Jacobian of a network is that of PyTorch's autograd: eps is an attribute of the layer.
# Seen: NNGeometry 0.4, in evaluation mode: the input of the weight's derivative is normalised without the
# layer's eps, with PyTorch's default of 1e-5: for eps 1 and a variance of 1 the entries of the Fisher matrix
# are 2.5 instead of 1.25. Those of the layer before it are right.
# Why it matters here: networks from Keras have an eps of 1e-3, and channels with small variances get a
# curvature that is many times too large.
# Needs Python 3.11 or newer; installs nngeometry==0.4, torch==2.15.0, numpy==2.4.6 in a temporary folder.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check nngeometry==0.4 torch==2.15.0 numpy==2.4.6
"$work/venv/bin/python" -W ignore - <<'PYTHON'
import importlib.metadata

import torch
from nngeometry.metrics import FIM
from nngeometry.object import PMatDense
from torch.utils.data import DataLoader, TensorDataset

x, found = torch.tensor([[1.0], [2.0]]), {}
for eps in 1e-5, 1.0:
    network = torch.nn.Sequential(torch.nn.Linear(1, 1), torch.nn.BatchNorm1d(1, eps=eps)).eval()
    with torch.no_grad():
        network[0].weight.fill_(1.0)
        network[0].bias.zero_()
    data = DataLoader(TensorDataset(x), batch_size=2)
    fisher = FIM(model=network, loader=data, representation=PMatDense, variant="regression", device="cpu")
    squares = []
    for row in x:
        gradient = torch.autograd.grad(network(row[None]).sum(), network[1].weight)[0]
        squares.append(gradient.item() ** 2)
    found[eps] = fisher.get_diag()[2].item(), sum(squares) / 2
print(f"NNGeometry {importlib.metadata.version('nngeometry')}: the weight's entry and autograd's, by eps: {found}")
assert abs(found[1e-5][0] - found[1e-5][1]) < 1e-3
assert abs(found[1.0][1] - 1.25) < 1e-5 and abs(found[1.0][0] - 2.5) < 1e-3, "eps is that of the layer now"
PYTHON
