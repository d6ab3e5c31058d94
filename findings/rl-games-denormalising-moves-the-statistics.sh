#!/usr/bin/env bash
# rl_games: turning normalised values back moves the running statistics
#
# A good guess: denorm=True only computes x * deviation + mean: statistics are learnt from data, in the other
# direction.
# Seen: rl_games 1.6.5, RunningMeanStd in training mode updates its statistics with whatever it is given
# before it looks at the direction: after data of mean 5 and variance 4, a call with 1000 normalised zeros
# moves the mean to 2.5 and the variance to 8.
# Why it matters here: in training mode a loop that normalises and turns back averages data with normalised
# data; set it to evaluation for the way back.
# Needs Python 3.11 or newer; installs rl-games==1.6.5, torch==2.15.0, numpy==2.4.6 in a temporary folder.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check rl-games==1.6.5 torch==2.15.0 numpy==2.4.6
"$work/venv/bin/python" -W ignore - <<'PYTHON'
import importlib.metadata

import torch
from rl_games.algos_torch.running_mean_std import RunningMeanStd

torch.manual_seed(0)
layer = RunningMeanStd((1,))
layer(5 + 2 * torch.randn(1000, 1))
before = layer.running_mean.item(), layer.running_var.item()
layer(torch.zeros(1000, 1), denorm=True)
after = layer.running_mean.item(), layer.running_var.item()
layer.eval()
layer(torch.zeros(1000, 1), denorm=True)
print(f"rl_games {importlib.metadata.version('rl-games')}: mean and variance {before[0]:.3f}, {before[1]:.3f} before and {after[0]:.3f}, {after[1]:.3f} after values were turned back")
assert (layer.running_mean.item(), layer.running_var.item()) == after
assert abs(before[0] - 5) < 0.3 and abs(after[0] - before[0] / 2) < 0.01 and after[1] > 7, "the way back leaves the statistics alone now"
PYTHON
