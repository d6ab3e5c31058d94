#!/usr/bin/env bash
# MMCV: fuse_conv_bn folds a batch norm into a convolution across the ReLU between them
#
# A good guess: a batch norm is folded only into the layer whose output it takes, so in convolution,
# ReLU, batch norm it stays where it is.
# Seen: MMCV 2.2.0 (mmcv-lite) remembers the last convolution that it met in the order of definition,
# and forgets it at nothing but a batch norm: Sequential(Conv2d, ReLU, BatchNorm2d) loses its batch
# norm, and its own ConvModule with order ("norm", "act", "conv") too. The outputs are others, without a
# warning.
# Why it matters here: a network with normalisation behind the activation, or before the convolution,
# gives other numbers after the fusion that speeds it up; fold by the graph, or compare the outputs.
# Needs Python 3.11 or newer; installs mmcv-lite==2.2.0, mmengine==0.10.7, torch==2.15.0, numpy==2.4.6
# in a temporary folder.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check mmcv-lite==2.2.0 mmengine==0.10.7 torch==2.15.0 numpy==2.4.6
"$work/venv/bin/python" -W ignore - <<'PYTHON'
import copy, importlib.metadata

import torch
from mmcv.cnn import ConvModule, fuse_conv_bn

torch.manual_seed(0)
x = torch.randn(2, 1, 3, 3)
after = torch.nn.Sequential(torch.nn.Conv2d(1, 1, 1), torch.nn.ReLU(), torch.nn.BatchNorm2d(1)).eval()
before = ConvModule(1, 1, 1, norm_cfg=dict(type="BN"), order=("norm", "act", "conv")).eval()
plain = torch.nn.Sequential(torch.nn.Conv2d(1, 1, 1), torch.nn.BatchNorm2d(1), torch.nn.ReLU()).eval()
errors = []
for model in after, before, plain:
    for layer in model.modules():
        if isinstance(layer, torch.nn.BatchNorm2d):
            layer.running_mean.fill_(0.5)
    errors.append((fuse_conv_bn(copy.deepcopy(model))(x) - model(x)).abs().max().item())
print(f"MMCV {importlib.metadata.version('mmcv-lite')}: outputs change by {errors[0]:.2f} behind a ReLU, by {errors[1]:.2f} in a ConvModule that normalises first, by {errors[2]:.0e} directly behind the convolution")
assert errors[2] < 1e-5
assert errors[0] > 0.1 and errors[1] > 0.1, "the ReLU is noticed now"
PYTHON
