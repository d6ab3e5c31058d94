#!/usr/bin/env bash
# PyTorch: skip_init leaves the running statistics as they were in memory
#
# A good guess: skip_init leaves the parameters without values, as it says: the buffers, which no
# initialisation of weights touches, are 0, 1 and the count 0.
# Seen: PyTorch 2.15.0 makes the layer without memory and gives it memory afterwards: mean, variance and the
# number of batches, too, are whatever was there; with PyTorch's own option to fill new memory they are NaN
# and 2^63 - 1.
# Why it matters here: a file of parameters alone, which older tools write, is loaded into that, and
# evaluation is chance; call reset_running_stats() first.
# Needs Python 3.11 or newer; installs torch==2.15.0, numpy==2.4.6 in a temporary folder.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.15.0 numpy==2.4.6
"$work/venv/bin/python" -W ignore - <<'PYTHON'
import torch

torch.use_deterministic_algorithms(True)
torch.utils.deterministic.fill_uninitialized_memory = True
layer = torch.nn.utils.skip_init(torch.nn.BatchNorm1d, 1)
found = layer.running_mean.item(), layer.running_var.item(), layer.num_batches_tracked.item()
plain = torch.nn.BatchNorm1d(1)
print(f"PyTorch {torch.__version__}: mean, variance, count: {found}")
assert (plain.running_mean.item(), plain.running_var.item(), plain.num_batches_tracked.item()) == (0, 1, 0)
assert found[0] != found[0] and found[1] != found[1] and found[2] == 2**63 - 1, "the buffers have their values now"
layer.reset_running_stats()
assert (layer.running_mean.item(), layer.running_var.item(), layer.num_batches_tracked.item()) == (0, 1, 0)
PYTHON
