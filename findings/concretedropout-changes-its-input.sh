#!/usr/bin/env bash
# concretedropout: a training step drops the caller's own batch
#
# A good guess: a dropout layer returns a new tensor, unless it is called in place by name.
# Seen: concretedropout 0.2.1, its PyTorch layers: mask and scale are written into the input: a batch of ones
# holds about 0 and 1/(1 - p) after the call, in training mode; in evaluation mode it stays.
# Why it matters here: a data set that is kept in memory loses elements in each epoch, and a skip connection
# around the layer adds the dropped values; pass a copy.
# Needs Python 3.11 or newer; installs concretedropout==0.2.1, torch==2.15.0, numpy==2.4.6 in a temporary
# folder.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check concretedropout==0.2.1 torch==2.15.0 numpy==2.4.6
"$work/venv/bin/python" -W ignore - <<'PYTHON'
import importlib.metadata

import torch
from concretedropout.pytorch import ConcreteLinearDropout

torch.manual_seed(0)
layer, linear = ConcreteLinearDropout(init_min=0.5, init_max=0.5), torch.nn.Linear(64, 1)
usual, trained, evaluated = (torch.ones(1, 64) for _ in range(3))
torch.nn.Dropout(0.5)(usual)
layer.train()(trained, linear)
layer.eval()(evaluated, linear)
dropped = int((trained < 0.1).sum())
print(f"concretedropout {importlib.metadata.version('concretedropout')}: of 64 ones in the caller's batch, {dropped} are near 0 after a training call, and the largest is {trained.max():.3f}")
assert torch.equal(usual, torch.ones(1, 64)) and torch.equal(evaluated, torch.ones(1, 64))
assert dropped > 10 and abs(trained.max().item() - 2) < 0.1, "the input stays now"
PYTHON
