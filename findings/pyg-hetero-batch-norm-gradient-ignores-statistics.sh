#!/usr/bin/env bash
# PyTorch Geometric: the gradient of HeteroBatchNorm takes the batch's statistics for constants
#
# A good guess: with one type HeteroBatchNorm is BatchNorm, forward and backward.
# Seen: PyTorch Geometric 2.8.1 computes mean and variance without gradients: of 1, 2, 3, 6 the first output's
# gradient is 0.53, 0, 0, 0 with HeteroBatchNorm and 0.25, -0.21, -0.13, 0.10 with BatchNorm.
# Why it matters here: the sum over the batch of a batch norm's gradient is 0, and here it is not, so that the
# layers before it are pushed along directions that the normalisation removes.
# Needs Python 3.11 or newer; installs torch-geometric==2.8.1, torch==2.15.0, numpy==2.4.6 in a temporary
# folder.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check torch-geometric==2.8.1 torch==2.15.0 numpy==2.4.6
"$work/venv/bin/python" -W ignore - <<'PYTHON'
import torch, torch_geometric
from torch_geometric.nn import BatchNorm, HeteroBatchNorm


def gradient(layer, *types):
    x = torch.tensor([[1.0], [2], [3], [6]], requires_grad=True)
    output = layer(x, *types)
    return output.detach().flatten(), torch.autograd.grad(output[0, 0], x)[0].flatten()


(usual, right), (typed, seen) = gradient(BatchNorm(1)), gradient(HeteroBatchNorm(1, num_types=1), torch.zeros(4, dtype=torch.long))
print(f"PyTorch Geometric {torch_geometric.__version__}: gradient of the first output: BatchNorm {right.numpy().round(3)}, HeteroBatchNorm {seen.numpy().round(3)}")
assert torch.allclose(usual, typed, atol=1e-4) and right.sum().abs() < 1e-6
assert seen[0] > 0.5 and not seen[1:].any(), "the statistics have a gradient now"
PYTHON
