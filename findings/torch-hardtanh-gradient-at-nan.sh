#!/usr/bin/env bash
# PyTorch: hardtanh passes a NaN on and gives it an ordinary gradient of 1
#
# A good guess: where the output is NaN, the gradient is NaN, so that a step shows that something is
# wrong.
# Seen: PyTorch 2.15.0: hardtanh(NaN) is NaN with a gradient of 1.
# Why it matters here: a NaN in one activation does not reach the weights before it, and the loss
# alone shows it.
# Needs Python 3.11 or newer; installs torch==2.15.0, numpy==2.4.6 in a temporary folder.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.15.0 numpy==2.4.6
"$work/venv/bin/python" -W ignore - <<'PYTHON'
import torch
from torch.nn import functional

z = torch.tensor([float("nan")], requires_grad=True)
y = functional.hardtanh(z)
y.sum().backward()
print(f"PyTorch {torch.__version__}: hardtanh(NaN) is {y.item()}, with a gradient of {z.grad.item()}")
assert y.item() != y.item() and z.grad.item() == 1, "the gradient is NaN now"
PYTHON
