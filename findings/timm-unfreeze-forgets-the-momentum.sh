#!/usr/bin/env bash
# timm: freeze and unfreeze of a network set the momentum of its batch norms to 0.1
#
# A good guess: unfreeze undoes freeze: a batch norm is afterwards what it was before.
# Seen: timm 1.0.31: timm.utils.freeze makes a layer without a momentum of each BatchNorm2d, and
# unfreeze makes a new batch norm of that: eps stays at 1e-3, and the momentum of 0.01 becomes the
# default of 0.1. A cumulative average, momentum None, becomes 0.1 as well.
# Why it matters here: running statistics follow the last batches ten times as fast after fine-tuning in
# two stages; set the momentum again.
# Needs Python 3.11 or newer; installs timm==1.0.31, torchvision==0.29.2, torch==2.15.0, numpy==2.4.6 in
# a temporary folder.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check timm==1.0.31 torchvision==0.29.2 torch==2.15.0 numpy==2.4.6
"$work/venv/bin/python" -W ignore - <<'PYTHON'
import timm, torch
from timm.utils import freeze, unfreeze

found = []
for momentum in 0.01, None:
    network = torch.nn.Sequential(torch.nn.Conv2d(1, 1, 1), torch.nn.BatchNorm2d(1, eps=1e-3, momentum=momentum))
    freeze(network)
    frozen = type(network[1]).__name__
    unfreeze(network)
    found.append(network[1].momentum)
    assert type(network[1]) is torch.nn.BatchNorm2d and network[1].eps == 1e-3
print(f"timm {timm.__version__}: momentum 0.01 is {found[0]} after freeze ({frozen}) and unfreeze, None is {found[1]}")
assert found == [0.1, 0.1], "the momentum is kept now"
PYTHON
