#!/usr/bin/env bash
# SpikingJelly: a Lava batch norm stores the variance times n/(n + 1)
#
# A good guess: the running variance is the batch's, biased or unbiased: times 1 or n/(n - 1).
# Seen: SpikingJelly 2.0.0, lava_exchange.BatchNorm2d with momentum 1: after 1, 2, 3, 6, whose biased variance
# is 3.5, it is 2.8, that is 3.5 times 4/5. It is one number for all channels, too, and includes the distances
# of their means.
# Why it matters here: small batches are stored as less spread than they were; multiply by (n + 1)/n first.
# Needs Python 3.11 or newer; installs spikingjelly==2.0.0, torch==2.15.0, numpy==2.4.6 in a temporary folder.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check spikingjelly==2.0.0 torch==2.15.0 numpy==2.4.6
"$work/venv/bin/python" -W ignore - <<'PYTHON'
import importlib.metadata

import torch
from spikingjelly.activation_based.lava_exchange import BatchNorm2d

x = torch.tensor([1.0, 2, 3, 6]).view(4, 1, 1, 1)
layer = BatchNorm2d(1, momentum=1.0)
layer(x)
seen, biased, unbiased = layer.running_var.item(), x.var(correction=0).item(), x.var().item()
print(f"SpikingJelly {importlib.metadata.version('spikingjelly')}: running variance {seen:.4f}; biased {biased:.4f}, unbiased {unbiased:.4f}")
assert layer.running_mean.item() == 3
assert abs(seen - biased * 4 / 5) < 1e-5, "the variance is another one now"
PYTHON
