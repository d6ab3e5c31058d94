#!/usr/bin/env bash
# PyTorch: dropout of bf16 values scales by a number that was rounded first
#
# A good guess: kept values are multiplied by 1/(1-p) = 1.1111 and the product is rounded once, so
# that the mean over many values is right.
# Seen: PyTorch 2.15.0 rounds the scale to bf16 first: 1.109375, 0.16 % too small for every element
# alike, which no averaging removes.
# Why it matters here: a comparison of half precision dropout with PyTorch has to allow for a
# systematic error.
# Needs Python 3.11 or newer; installs torch==2.15.0, numpy==2.4.6 in a temporary folder.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.15.0 numpy==2.4.6
"$work/venv/bin/python" -W ignore - <<'PYTHON'
import torch

torch.manual_seed(0)
y = torch.nn.functional.dropout(torch.full((1000,), 255.0, dtype=torch.bfloat16), 0.1).max().item()
once = torch.tensor(255 / 0.9, dtype=torch.bfloat16).item()
twice = torch.tensor(255 * 1.109375, dtype=torch.bfloat16).item()
print(f"PyTorch {torch.__version__}: 255 becomes {y}; 255/0.9 rounded once is {once}, with the scale rounded first {twice}")
assert once == 284 and y == twice != once, "the scale is not rounded first any more"
PYTHON
