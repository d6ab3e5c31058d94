#!/usr/bin/env bash
# torch-uncertainty: MCBatchNorm1d has one mean and one variance for all channels
#
# A good guess: a batch norm over [N, C, L] has statistics for each channel.
# Seen: torch-uncertainty 0.13.0: MCBatchNorm1d averages over the axes 0, -2 and -1, which are those of
# images: of [N, C, L] these are all three. Two channels around 0 and 100 are stored as the mean 50 and the
# variance 2,500 both. MCBatchNorm2d of the same numbers as images stores 0 and 100. The wrapper that converts
# networks makes the 2-D layer alone, so that the 1-D one is only used by hand.
# Why it matters here: the sampled statistics of a 1-D network make its channels -1 and 1 instead of 0.
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
from torch_uncertainty.layers.mc_batch_norm import MCBatchNorm1d, MCBatchNorm2d

torch.manual_seed(0)
x = torch.randn(16, 2, 8) + torch.tensor([0.0, 100]).view(2, 1)
line, image = MCBatchNorm1d(2, num_estimators=1).eval(), MCBatchNorm2d(2, num_estimators=1).eval()
outputs, _ = line(x), image(x.unsqueeze(-1))
print(f"torch-uncertainty {importlib.metadata.version('torch-uncertainty')}: means and variances of [N, C, L] {line.means.tolist()} {line.vars.tolist()}, "
      f"of [N, C, L, 1] {image.means.tolist()} {image.vars.tolist()}; outputs of [N, C, L] around {outputs.mean((0, 2)).tolist()}")
assert image.means[0, 0].abs() < 1 and (image.means[0, 1] - 100).abs() < 1
assert (line.means - 50).abs().max() < 1 and line.vars.min() > 2000, "each channel has its statistics now"
PYTHON
