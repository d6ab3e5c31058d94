#!/usr/bin/env bash
# Opacus: ModuleValidator.fix loses the weight, the bias and the eps of a batch norm
#
# A good guess: the group norm that replaces a batch norm takes over what both layers have: the weight
# and bias of each channel, and eps.
# Seen: Opacus 1.6.0 makes a new group norm: a weight of 3 is 1, a bias of 7 is 0, an eps of 1e-3 is
# 1e-5, without a warning. The other layers keep their weights.
# Why it matters here: a pretrained network starts its private training with all norms as new ones; copy
# the parameters over.
# Needs Python 3.11 or newer; installs opacus==1.6.0, torch==2.15.0, numpy==2.4.6 in a temporary folder.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check opacus==1.6.0 torch==2.15.0 numpy==2.4.6
"$work/venv/bin/python" -W ignore - <<'PYTHON'
import opacus, torch
from opacus.validators import ModuleValidator

conv, norm = torch.nn.Conv2d(1, 32, 1), torch.nn.BatchNorm2d(32, eps=1e-3)
with torch.no_grad():
    conv.weight.fill_(5), norm.weight.fill_(3), norm.bias.fill_(7)
fixed_conv, fixed = ModuleValidator.fix(torch.nn.Sequential(conv, norm))
print(f"opacus {opacus.__version__}: {type(fixed).__name__} with weight {fixed.weight[0].item():g}, bias {fixed.bias[0].item():g}, eps {fixed.eps:g}; convolution {fixed_conv.weight[0].item():g}")
assert isinstance(fixed, torch.nn.GroupNorm) and (fixed_conv.weight == 5).all()
assert (fixed.weight == 1).all() and (fixed.bias == 0).all() and fixed.eps == 1e-5, "the parameters are taken over now"
PYTHON
