#!/usr/bin/env bash
# e2cnn: NormBatchNorm divides by the running variance in training, too
#
# A good guess: in training the batch is divided by its own deviation, so that the output has a deviation of
# 1 from the first step on.
# Seen: e2cnn 0.2.3 updates the running variance, and divides by that in both modes, with no gradient through
# it: the first batch of a new layer with a deviation of 10 comes out with 3.0, and only after dozens of
# steps with 1.
# Why it matters here: a network with it starts with large activations, and its gradients are those of a
# constant scale; a training step here gives other numbers.
# Needs Python 3.11 or newer; installs e2cnn==0.2.3, torch==2.15.0, numpy==2.4.6 in a temporary folder.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check e2cnn==0.2.3 torch==2.15.0 numpy==2.4.6
"$work/venv/bin/python" -W ignore - <<'PYTHON'
import importlib.metadata

import torch
from e2cnn import gspaces, nn

torch.manual_seed(0)
space = gspaces.Rot2dOnR2(4)
fields = nn.FieldType(space, [space.irrep(1)])
layer = nn.NormBatchNorm(fields)
x = nn.GeometricTensor(10 * torch.randn(64, 2, 4, 4), fields)
found = [layer(x).tensor.std().item() for step in range(60)]
print(f"e2cnn {importlib.metadata.version('e2cnn')}: deviation of the output in training step 1: {found[0]:.2f}, 10: {found[9]:.2f}, 60: {found[59]:.2f}")
assert abs(found[59] - 1) < 0.02
assert 2.8 < found[0] < 3.3 and found[0] > found[9] > found[59], "the batch is divided by its own deviation now"
PYTHON
