#!/usr/bin/env bash
# torchgpipe: a deferred batch norm stores the biased variance
#
# A good guess: DeferredBatchNorm, which gathers the micro-batches of a pipeline, stores what PyTorch's batch
# norm stores of the whole mini-batch.
# Seen: torchgpipe 0.0.7 stores the mean of the squares less the squared mean, which is the biased variance:
# with momentum 1, two micro-batches of 1, 2 and 3, 6 give 3.5, and the layer that it was converted from
# 4.67. For data around 10,000 with a deviation of 1 it is 0 for the seed below.
# Why it matters here: a pipeline of small mini-batches evaluates with another variance than the same network
# without it; RunningVariance::Biased takes its file on.
# Needs Python 3.11 or newer; installs torchgpipe==0.0.7, torch==2.15.0, numpy==2.4.6 in a temporary folder.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check torchgpipe==0.0.7 torch==2.15.0 numpy==2.4.6
"$work/venv/bin/python" -W ignore - <<'PYTHON'
import importlib.metadata

import torch
from torchgpipe.batchnorm import DeferredBatchNorm

x = torch.tensor([1.0, 2.0, 3.0, 6.0]).view(4, 1, 1)
plain = torch.nn.BatchNorm1d(1, momentum=1.0)
plain(x)
deferred = DeferredBatchNorm.convert_deferred_batch_norm(torch.nn.BatchNorm1d(1, momentum=1.0), chunks=2)
for part in x.split(2):
    deferred(part)
far = DeferredBatchNorm.convert_deferred_batch_norm(torch.nn.BatchNorm1d(1, momentum=1.0), chunks=1)
far(1e4 + torch.randn(4096, 1, 1, generator=torch.Generator().manual_seed(0)))
print(f"torchgpipe {importlib.metadata.version('torchgpipe')}: running variance {deferred.running_var.item():.4f}, PyTorch {plain.running_var.item():.4f}; far from 0 {far.running_var.item()} instead of 1")
assert deferred.running_mean.item() == 3 and abs(plain.running_var.item() - 14 / 3) < 1e-5
assert abs(deferred.running_var.item() - 3.5) < 1e-5, "the variance is the unbiased one now"
PYTHON
