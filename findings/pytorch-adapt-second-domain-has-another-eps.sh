#!/usr/bin/env bash
# PyTorch Adapt: a batch norm's second domain has another eps and momentum
#
# A good guess: convert_bn_to_adabn gives the new domain the settings of the batch norm that is converted.
# Seen: PyTorch Adapt 0.0.83 keeps the old layer for domain 0, and makes a new one for domain 1 with the
# number of channels alone: eps is 1e-5 and momentum 0.1, whatever the old ones are.
# Why it matters here: a network with eps 1e-3 evaluates the two domains with two formulas, and averages them
# at two speeds.
# Needs Python 3.11 or newer; installs pytorch-adapt==0.0.83, torch==2.15.0, torchvision==0.29.2, numpy==2.4.6
# in a temporary folder.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check pytorch-adapt==0.0.83 torch==2.15.0 torchvision==0.29.2 numpy==2.4.6
"$work/venv/bin/python" -W ignore - <<'PYTHON'
import importlib.metadata

import torch
from pytorch_adapt.layers.adaptive_batch_norm import convert_bn_to_adabn

network = torch.nn.Sequential(torch.nn.BatchNorm2d(1, eps=0.001, momentum=0.01))
convert_bn_to_adabn(network, affine_domain=None, bn_type=torch.nn.BatchNorm2d)
seen = [(norm.eps, norm.momentum) for norm in network[0].bns]
x = torch.full((1, 1, 1, 1), 0.01)
for norm in network[0].bns:
    norm.running_var.fill_(1e-4)
with torch.no_grad():
    outputs = [network.eval()[0](x, domain=domain).item() for domain in (0, 1)]
print(f"PyTorch Adapt {importlib.metadata.version('pytorch-adapt')}: eps and momentum by domain {seen}; 0.01 with variance 1e-4 becomes {outputs[0]:.3f} and {outputs[1]:.3f}")
assert seen[0] == (0.001, 0.01) and abs(outputs[0] - 0.3015) < 1e-3
assert seen[1] == (1e-5, 0.1) and abs(outputs[1] - 0.9535) < 1e-3, "the settings are taken over now"
PYTHON
