#!/usr/bin/env bash
# PyTorch: a cumulative batch norm that loaded statistics without their count forgets them in one batch
#
# A good guess: a state dict without num_batches_tracked is refused by a strict load, or the layer
# counts the statistics that it loaded as something.
# Seen: torch 2.15.0: a strict load of weight, bias, running_mean and running_var succeeds with all keys
# matched and the count 0. With momentum=None the first batch then has a weight of 1: a running mean of
# 5 becomes the mean of that batch, and with a count it would have moved by a small part.
# Why it matters here: other programs' files have four numbers per channel; `Average::Cumulative` here
# takes the count from the caller, and `Stored` files need it written down.
# Needs Python 3.11 or newer; installs torch==2.15.0, numpy==2.4.6 in a temporary folder.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.15.0 numpy==2.4.6
"$work/venv/bin/python" -W ignore - <<'PYTHON'
import torch

norm = torch.nn.BatchNorm1d(1, momentum=None)
stored = {"weight": torch.ones(1), "bias": torch.zeros(1), "running_mean": torch.full((1,), 5.0), "running_var": torch.ones(1)}
print(norm.load_state_dict(stored, strict=True), "count", norm.num_batches_tracked.item())
before = norm.running_mean.item()
norm(torch.tensor([[-1.0], [1.0]]))
after = norm.running_mean.item()
counted = torch.nn.BatchNorm1d(1, momentum=None)
counted.load_state_dict(stored | {"num_batches_tracked": torch.tensor(99)})
counted(torch.tensor([[-1.0], [1.0]]))
print(f"torch {torch.__version__.split('+')[0]}: the running mean {before:g} is {after:g} after one batch of mean 0, with a count of 99 {counted.running_mean.item():.2f}")
assert before == 5 and abs(counted.running_mean.item() - 4.95) < 1e-5
assert after == 0, "the statistics count now"
PYTHON
