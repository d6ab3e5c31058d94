#!/usr/bin/env bash
# PyTorch: fuse_modules folds a batch norm of the middle axis into the last axis of a linear layer
#
# A good guess: a batch norm behind a linear layer is folded for two axes, (N, C). With three, the linear
# layer's features are the last axis and the batch norm's channels the middle one, and fuse refuses.
# Seen: PyTorch 2.15.0, torch.ao.quantization.fuse_modules and torch.fx.experimental.optimization.fuse,
# look at the numbers only: with as many channels as features the axes are taken for the same, and an
# input [1, 2, 2] gives the transposed scales, without a warning.
# Why it matters here: fold by the axis, not by the count; this crate's layers name the layout of the
# channels.
# Needs Python 3.11 or newer; installs torch==2.15.0, numpy==2.4.6 in a temporary folder.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.15.0 numpy==2.4.6
"$work/venv/bin/python" -W ignore - <<'PYTHON'
import torch
from torch.ao.quantization import fuse_modules
from torch.fx.experimental.optimization import fuse

model = torch.nn.Sequential(torch.nn.Linear(2, 2, bias=False), torch.nn.BatchNorm1d(2, eps=0)).eval()
with torch.no_grad():
    model[0].weight.copy_(torch.eye(2))
    model[1].running_var[1] = 0.25
    x = torch.ones(1, 2, 2)
    before, modules, graph = (made(x)[0].tolist() for made in (model, fuse_modules(model, [["0", "1"]]), fuse(model)))
print(f"PyTorch {torch.__version__}: {before} before, {modules} by fuse_modules, {graph} by torch.fx")
assert before == [[1, 1], [2, 2]]
assert modules == graph == [[1, 2], [1, 2]], "three axes are told apart now"
PYTHON
