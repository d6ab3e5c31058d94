#!/usr/bin/env bash
# Avalanche: replace_bn_with_brn leaves the batch norms of a Sequential
#
# A good guess: it replaces every BatchNorm2d of a network by BatchRenorm2D: it walks through all modules.
# Seen: Avalanche 0.6.0 looks for layers in dir(module), and PyTorch's dir() leaves names out that start with
# a digit, which are those in Sequential and ModuleList: of two batch norms, the named one is replaced alone.
# Why it matters here: part of a network, as the shortcuts of a ResNet, goes on with another layer; count
# them.
# Needs Python 3.11 or newer; installs avalanche-lib==0.6.0, torch==2.15.0, torchvision==0.29.2, numpy==2.4.6
# in a temporary folder.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check avalanche-lib==0.6.0 torch==2.15.0 torchvision==0.29.2 numpy==2.4.6
"$work/venv/bin/python" -W ignore - <<'PYTHON'
import importlib.metadata

import torch
from avalanche.training.utils import replace_bn_with_brn

network = torch.nn.Module()
network.named, network.listed = torch.nn.BatchNorm2d(1), torch.nn.Sequential(torch.nn.Conv2d(1, 1, 1), torch.nn.BatchNorm2d(1))
replace_bn_with_brn(network)
seen = type(network.named).__name__, type(network.listed[1]).__name__
print(f"Avalanche {importlib.metadata.version('avalanche-lib')}: replace_bn_with_brn: a layer with a name becomes {seen[0]}, one in a Sequential {seen[1]}")
assert seen[0] == "BatchRenorm2D"
assert seen[1] == "BatchNorm2d", "both are replaced now"
PYTHON
