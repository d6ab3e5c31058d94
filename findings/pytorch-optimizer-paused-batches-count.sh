#!/usr/bin/env bash
# pytorch-optimizer: batches with paused running statistics count in the cumulative average
#
# A good guess: disable_running_stats leaves a batch norm's running statistics as if the batch had not been:
# SAM uses it for its second pass.
# Seen: pytorch-optimizer 4.1.0 sets the momentum to 0, and PyTorch counts the batch all the same: with
# momentum=None, batches of 1 and 3, each followed by a paused pass, average to 1.667 and not to 2.
# Why it matters here: of the statistics that are averaged over all batches, the first batches weigh most, and
# more with every paused pass; here Average::Cumulative counts the batches that it averages.
# Needs Python 3.11 or newer; installs pytorch-optimizer==4.1.0, torch==2.15.0, numpy==2.4.6 in a temporary
# folder.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check pytorch-optimizer==4.1.0 torch==2.15.0 numpy==2.4.6
"$work/venv/bin/python" -W ignore - <<'PYTHON'
import importlib.metadata

import torch
from pytorch_optimizer import disable_running_stats, enable_running_stats


def mean(paused):
    norm = torch.nn.BatchNorm1d(1, momentum=None)
    for value in (1.0, 3.0):
        batch = torch.full((2, 1), value)
        norm(batch)
        if paused:
            disable_running_stats(norm)
            norm(batch)
            enable_running_stats(norm)
    return norm.running_mean.item(), norm.num_batches_tracked.item()


(right, two), (seen, counted) = mean(False), mean(True)
print(f"pytorch-optimizer {importlib.metadata.version('pytorch-optimizer')}: average of the batches 1 and 3: {right} of {two}, with a paused pass after each {seen:.4f} of {counted}")
assert (right, two) == (2, 2)
assert abs(seen - 5 / 3) < 1e-6 and counted == 4, "paused batches do not count now"
PYTHON
