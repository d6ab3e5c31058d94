#!/usr/bin/env bash
# ema-pytorch: forward_eval normalises with the batch and moves the running statistics
#
# A good guess: forward_eval, by its name and its comment, sets evaluation mode for the call.
# Seen: ema-pytorch 0.8.3: it restores the mode afterwards and never sets it: 1, 2, 3, 6 of a new batch norm
# become -1.07 to 1.60, and the averaged running mean moves from 0 to 0.3.
# Why it matters here: the averaged network is measured with the statistics and the dropout masks of training,
# and each measurement moves its running statistics; call eval() on the averaged model first.
# Needs Python 3.11 or newer; installs ema-pytorch==0.8.3, torch==2.15.0, numpy==2.4.6 in a temporary folder.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check ema-pytorch==0.8.3 torch==2.15.0 numpy==2.4.6
"$work/venv/bin/python" -W ignore - <<'PYTHON'
import importlib.metadata

import torch
from ema_pytorch import EMA

x = torch.tensor([[1.0], [2], [3], [6]])
average = EMA(torch.nn.BatchNorm1d(1))
named, mean = average.forward_eval(x).flatten(), average.ema_model.running_mean.item()
other = EMA(torch.nn.BatchNorm1d(1))
other.ema_model.eval()
right = other.forward_eval(x).flatten()
print(f"ema-pytorch {importlib.metadata.version('ema-pytorch')}: forward_eval of 1, 2, 3, 6: {[round(y, 3) for y in named.tolist()]}, running mean {mean:.2f}; with eval() first {[round(y, 3) for y in right.tolist()]}")
assert (right - x.flatten()).abs().max() < 1e-3 and other.ema_model.running_mean.item() == 0
assert abs(named[0].item() + 1.069) < 1e-3 and abs(mean - 0.3) < 1e-6, "forward_eval evaluates now"
PYTHON
