#!/usr/bin/env bash
# torch-uncertainty: PackedLayerNorm normalises all members of an ensemble together
#
# A good guess: the packed layer norm normalises each member's features on their own: the members are
# independent.
# Seen: torch-uncertainty 0.13.0: unless first=True is set, which is meant for the layer that reads the raw
# inputs, the whole row is one group: of the members (1, 2, 3, 4) and (100, 200, 300, 400), the first becomes
# -0.85 to -0.83.
# Why it matters here: one member's scale decides what is left of the others; with first=True each is
# normalised alone.
# Needs Python 3.11 or newer; installs torch-uncertainty[cpu]==0.13.0, lightning==2.6.6, timm==1.0.31,
# torch==2.15.0, torchvision==0.29.2, numpy==2.4.6 in a temporary folder.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check 'torch-uncertainty[cpu]==0.13.0' lightning==2.6.6 timm==1.0.31 torch==2.15.0 torchvision==0.29.2 numpy==2.4.6
"$work/venv/bin/python" -W ignore - <<'PYTHON'
import importlib.metadata

import torch
from torch_uncertainty.layers.packed import PackedLayerNorm

x = torch.tensor([[1.0, 2, 3, 4, 100, 200, 300, 400]])
alone = torch.nn.functional.layer_norm(x.view(2, 4), (4,)).view(1, 8)
with torch.no_grad():
    packed = PackedLayerNorm(4, num_estimators=2, alpha=2)(x)
    first = PackedLayerNorm(8, num_estimators=2, alpha=1, first=True)(x)
show = lambda y: [round(number, 2) for number in y.flatten().tolist()]
print(f"torch-uncertainty {importlib.metadata.version('torch-uncertainty')}: members alone {show(alone)}, PackedLayerNorm {show(packed)}, with first=True {show(first)}")
assert torch.allclose(first, alone, atol=1e-5)
assert packed[0, :4].max() < -0.8, "the members are independent now"
PYTHON
