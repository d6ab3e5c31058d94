#!/usr/bin/env bash
# torch-uncertainty: no gradient passes a MCBatchNorm2d in training mode
#
# A good guess: in training mode the layer is an ordinary batch norm, as its documentation says, with
# gradients.
# Seen: torch-uncertainty 0.13.0: its forward pass is wrapped in no_grad: the output needs no gradient, so
# that neither the layer's weight nor any layer before it is trained.
# Why it matters here: a network that is trained with these layers, which MCBatchNorm(convert=False) asks for,
# trains only what is behind the last of them, without an error; train with BatchNorm2d and convert
# afterwards.
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
from torch_uncertainty.layers.mc_batch_norm import MCBatchNorm2d

torch.manual_seed(0)
x = torch.randn(4, 2, 3, 3)


def gradients(norm):
    network = torch.nn.Sequential(torch.nn.Conv2d(2, 2, 1), norm, torch.nn.Flatten(), torch.nn.Linear(18, 1)).train()
    network(x).square().sum().backward()
    return [name for name, parameter in network.named_parameters() if parameter.grad is not None]


usual, sampled = gradients(torch.nn.BatchNorm2d(2)), gradients(MCBatchNorm2d(2, num_estimators=2))
print(f"torch-uncertainty {importlib.metadata.version('torch-uncertainty')}: parameters with a gradient: BatchNorm2d {usual}, MCBatchNorm2d {sampled}")
assert len(usual) == 6
assert sampled == ["3.weight", "3.bias"], "gradients pass now"
PYTHON
