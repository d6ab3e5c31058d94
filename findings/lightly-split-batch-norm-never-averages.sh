#!/usr/bin/env bash
# Lightly: SplitBatchNorm with momentum=None never moves its running statistics
#
# A good guess: None is the cumulative average, as in the BatchNorm2d that it is derived from.
# Seen: Lightly 1.6.0 takes None for 0: after training on data around 5 the running means are 0 and the
# running variances 1, where BatchNorm2d has 5.
# Why it matters here: evaluation does not normalise at all, and no message says so; set a momentum.
# Needs Python 3.11 or newer; installs lightly==1.6.0, torch==2.15.0, torchvision==0.29.2, numpy==2.4.6 in a
# temporary folder.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check lightly==1.6.0 torch==2.15.0 torchvision==0.29.2 numpy==2.4.6
"$work/venv/bin/python" -W ignore - <<'PYTHON'
import importlib.metadata

import torch
from lightly.models.batchnorm import SplitBatchNorm

torch.manual_seed(0)
usual, split, moving = torch.nn.BatchNorm2d(1, momentum=None), SplitBatchNorm(1, 2, momentum=None), SplitBatchNorm(1, 2, momentum=0.5)
for _ in range(10):
    batch = 5 + torch.randn(32, 1, 4, 4)
    for norm in (usual, split, moving):
        norm(batch)
show = lambda norm: norm.running_mean.tolist()
print(f"Lightly {importlib.metadata.version('lightly')}: running means of data around 5: BatchNorm2d(None) {show(usual)}, SplitBatchNorm(None) {show(split)}, SplitBatchNorm(0.5) {show(moving)}")
assert abs(show(usual)[0] - 5) < 0.1 and abs(show(moving)[0] - 5) < 0.2
assert show(split) == [0, 0] and split.running_var.tolist() == [1, 1], "the statistics are averaged now"
PYTHON
