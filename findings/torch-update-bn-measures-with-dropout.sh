#!/usr/bin/env bash
# PyTorch: update_bn measures the statistics with dropout switched on
#
# A good guess: update_bn, which computes the statistics that an averaged network is evaluated with, runs the
# network as in evaluation but for the batch norms.
# Seen: PyTorch 2.15.0 sets the whole network to training: behind a dropout of 0.5, ones have a running
# variance of 1, and in evaluation, which follows, a variance of 0.
# Why it matters here: the variance of evaluation is too large by p/(1 - p) times the mean square of what the
# dropout in front passes; set the dropouts to evaluation first, and measure by hand.
# Needs Python 3.11 or newer; installs torch==2.15.0, numpy==2.4.6 in a temporary folder.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.15.0 numpy==2.4.6
"$work/venv/bin/python" -W ignore - <<'PYTHON'
import torch
from torch.optim.swa_utils import update_bn

torch.manual_seed(0)
network = torch.nn.Sequential(torch.nn.Dropout(0.5), torch.nn.BatchNorm1d(1)).eval()
update_bn([torch.ones(10_000, 1)] * 4, network)
seen = network[1].running_var.item()
evaluated = network[0](torch.ones(10_000, 1)).var().item()
print(f"PyTorch {torch.__version__}: running variance {seen:.3f}, variance in evaluation {evaluated}")
assert not network.training and network[1].num_batches_tracked.item() == 4
assert abs(seen - 1) < 0.05 and evaluated == 0, "dropout is off now"
PYTHON
