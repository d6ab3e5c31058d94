#!/usr/bin/env bash
# bayesian-torch: Dropout returns the first sample of a batch
#
# A good guess: Dropout takes a batch and returns a batch, as PyTorch's does, or refuses what it does not
# expect.
# Seen: bayesian-torch 0.5.0: it expects the pair (batch, divergence) of a Bayesian layer, and takes element 0
# of whatever it gets: of a batch of three rows, the output is the first row and the number 0, in both modes.
# Why it matters here: behind an ordinary layer, the network goes on with one sample, which broadcasting hides
# until the loss; put PyTorch's dropout there.
# Needs Python 3.11 or newer; installs bayesian-torch==0.5.0, torch==2.15.0, numpy==2.4.6 in a temporary
# folder.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check bayesian-torch==0.5.0 torch==2.15.0 numpy==2.4.6
"$work/venv/bin/python" -W ignore - <<'PYTHON'
import importlib.metadata

import torch
from bayesian_torch.layers import Dropout

x = torch.arange(6.0).view(3, 2)
dropout = Dropout(0.5).eval()
alone, divergence = dropout(x)
pair, _ = dropout((x, 0))
print(f"bayesian-torch {importlib.metadata.version('bayesian-torch')}: Dropout of {x.tolist()} in evaluation mode: {alone.tolist()} and {divergence}; of the pair: {pair.tolist()}")
assert torch.equal(pair, x)
assert torch.equal(alone, x[0]), "a batch passes now"
PYTHON
