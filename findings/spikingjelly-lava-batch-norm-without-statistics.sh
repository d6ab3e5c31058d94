#!/usr/bin/env bash
# SpikingJelly: a Lava batch norm with track_running_stats=False multiplies by 8
#
# A good guess: without running statistics a batch norm normalises with the batch, as PyTorch's does.
# Seen: SpikingJelly 2.0.0, lava_exchange.BatchNorm2d: it normalises with the running statistics that it
# started with, mean 0 and variance 0, in training, too: 1, 2, 3, 6 become 8, 16, 24, 48, which is the largest
# scale that its 3 bits of exponent allow.
# Why it matters here: the option that turns the statistics off turns the normalisation off.
# Needs Python 3.11 or newer; installs spikingjelly==2.0.0, torch==2.15.0, numpy==2.4.6 in a temporary folder.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check spikingjelly==2.0.0 torch==2.15.0 numpy==2.4.6
"$work/venv/bin/python" -W ignore - <<'PYTHON'
import importlib.metadata

import torch
from spikingjelly.activation_based.lava_exchange import BatchNorm2d

x = torch.tensor([1.0, 2, 3, 6]).view(4, 1, 1, 1)
tracked, untracked = BatchNorm2d(1)(x).flatten().tolist(), BatchNorm2d(1, track_running_stats=False)(x).flatten().tolist()
print(f"SpikingJelly {importlib.metadata.version('spikingjelly')}: 1, 2, 3, 6 in training: with running statistics {tracked}, without {untracked}")
assert tracked == [-1, -0.5, 0, 1.5]
assert untracked == [8, 16, 24, 48], "the batch is normalised now"
PYTHON
