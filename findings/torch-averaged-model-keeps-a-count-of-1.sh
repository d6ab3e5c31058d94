#!/usr/bin/env bash
# PyTorch: the average of 100 networks has seen 1 batch
#
# A good guess: AveragedModel with use_buffers=True averages the number of batches of a batch norm too, or
# takes the last: about 50 or 100.
# Seen: PyTorch 2.15.0: each step adds the difference divided by the number of networks, as an integer: 1/2,
# 1/3 and so on are 0, and the count stays at 1. By an exponential average with decay 0.9 it is 90.
# Why it matters here: with momentum=None, the first batch of further training weighs a half: running means
# of 5 become 2.5 after one batch of zeros. Set the count, or Average::Cumulative's here, from the trained
# network.
# Needs Python 3.11 or newer; installs torch==2.15.0, numpy==2.4.6 in a temporary folder.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.15.0 numpy==2.4.6
"$work/venv/bin/python" -W ignore - <<'PYTHON'
import torch
from torch.optim.swa_utils import AveragedModel

torch.manual_seed(0)
network = torch.nn.BatchNorm1d(1, momentum=None)
averaged = AveragedModel(network, use_buffers=True)
for step in range(100):
    network(5 + torch.randn(8, 1))
    averaged.update_parameters(network)
layer = averaged.module
count, before = layer.num_batches_tracked.item(), layer.running_mean.item()
layer.train()
layer(torch.zeros(8, 1))
print(f"PyTorch {torch.__version__}: after {network.num_batches_tracked.item()} batches the average has a count of {count}; its mean of {before:.2f} is {layer.running_mean.item():.2f} after one batch of zeros")
assert network.num_batches_tracked.item() == 100
assert count == 1, "the count is averaged or copied now"
assert abs(before - 5) < 0.1 and abs(layer.running_mean.item() - before / 2) < 0.01
PYTHON
