#!/usr/bin/env bash
# TorchRL: the running variance of BatchRenorm1d is twice the variance for two long sequences
#
# A good guess: the unbiased variance of [2, C, 1000] has 2000 values per channel, and differs from the
# biased one by a factor of 2000/1999, as in PyTorch.
# Seen: torchrl 0.14.1 multiplies by N/(N - 1) with the N of the first axis alone: normal values of
# shape [2, 1, 1000] have a running variance of 2, and as [2000, 1] of 1. One sequence gives a division
# by 0.
# Why it matters here: activations in evaluation are too small by sqrt(2); a running variance taken over
# from it has to be multiplied by (N - 1)/N.
# Needs Python 3.11 or newer; installs torchrl==0.14.1, torch==2.15.0, numpy==2.4.6 in a temporary
# folder.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check torchrl==0.14.1 torch==2.15.0 numpy==2.4.6
"$work/venv/bin/python" -W ignore - <<'PYTHON'
import importlib.metadata

import torch
from torchrl.modules import BatchRenorm1d

torch.manual_seed(0)
x = torch.randn(2, 1, 1000)
variances = []
for batch in x, x.reshape(2000, 1):
    norm = BatchRenorm1d(1, momentum=1.0)
    norm(batch)
    variances.append(norm.running_var.item())
right = x.var().item()
print(f"torchrl {importlib.metadata.version('torchrl')}: running variance {variances[0]:.4f} as [2, 1, 1000], {variances[1]:.4f} as [2000, 1]; the unbiased variance is {right:.4f}")
assert abs(variances[1] - right) < 1e-5
assert abs(variances[0] / right - 2 * 1999 / 2000) < 1e-4, "all values of a channel are counted now"
PYTHON
