#!/usr/bin/env bash
# complexPyTorch: dropout with probability 0.5 makes a kept 1 a 4
#
# A good guess: the kept values are divided by the keep probability, as in PyTorch, so that the mean
# of the output is that of the input.
# Seen: complexPyTorch 0.4 divides twice: with 0.5 the ones that are kept become 4, and the mean of
# the output is 2. Evaluation leaves them 1.
# Why it matters here: a network trained so has seen activations of 1/(1-p) times the size that it sees
# in evaluation; with this crate's dropout it has to be trained again.
# Needs Python 3.11 or newer; installs complexPyTorch==0.4, torch==2.15.0, numpy==2.4.6 in a temporary folder.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check complexPyTorch==0.4 torch==2.15.0 numpy==2.4.6
"$work/venv/bin/python" -W ignore - <<'PYTHON'
import importlib.metadata

import torch
from complexPyTorch.complexLayers import ComplexDropout

torch.manual_seed(0)
ones = torch.ones(10_000, dtype=torch.complex64)
layer = ComplexDropout(0.5)
trained = layer(ones).real
evaluated = layer.eval()(ones).real
print(f"complexPyTorch {importlib.metadata.version('complexPyTorch')}: ones become {trained.unique().tolist()} in training, their mean {trained.mean().item():.2f}; evaluation {evaluated.unique().tolist()}")
assert evaluated.unique().tolist() == [1]
assert trained.unique().tolist() == [0, 4] and abs(trained.mean().item() - 2) < 0.2, "kept values are scaled once now"
PYTHON
