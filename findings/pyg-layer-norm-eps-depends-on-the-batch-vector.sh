#!/usr/bin/env bash
# PyTorch Geometric: LayerNorm adds eps under the root only when it is given a batch vector
#
# A good guess: a graph alone gives the same with batch=None as with a batch vector of zeros, and eps is
# added to the variance, as the documentation of the layer says.
# Seen: PyTorch Geometric 2.8.1, LayerNorm(mode="graph"), which is the default: without a batch vector
# it divides by std + eps, with one by sqrt(var + eps). Features of deviation 1e-3 come out with a
# deviation of 0.99 without, and of 0.30 with.
# Why it matters here: a network that is trained on batches of graphs and used on single ones computes
# something else there; this crate and `Stored::EpsOutside` tell the two forms apart.
# Needs Python 3.11 or newer; installs torch-geometric==2.8.1, torch==2.15.0, numpy==2.4.6 in a
# temporary folder.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check torch-geometric==2.8.1 torch==2.15.0 numpy==2.4.6
"$work/venv/bin/python" -W ignore - <<'PYTHON'
import torch, torch_geometric
from torch_geometric.nn import LayerNorm

torch.manual_seed(0)
x = torch.randn(1000, 4) * 1e-3
norm = LayerNorm(4)
alone, batched = norm(x).std().item(), norm(x, torch.zeros(1000, dtype=torch.long)).std().item()
print(f"torch_geometric {torch_geometric.__version__}, LayerNorm(mode={norm.mode!r}, eps={norm.eps}): deviation 1e-3 becomes {alone:.3f} without a batch vector, {batched:.3f} with one of zeros")
assert norm.mode == "graph" and abs(alone - 0.99) < 0.01
assert abs(batched - 0.30) < 0.01, "both are one now"
PYTHON
