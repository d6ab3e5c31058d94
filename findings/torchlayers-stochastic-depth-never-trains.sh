#!/usr/bin/env bash
# torchlayers: StochasticDepth never runs its layer in training
#
# A good guess: the layer runs with the probability p of survival, as the documentation says: nine times in
# ten for 0.9.
# Seen: torchlayers 0.1.1: it asks whether a random number between 0 and 1 is true, which all but 0 are: in
# 1000 steps of training the input is returned each time, and the layer has no gradient. Evaluation runs it,
# times p.
# Why it matters here: the branch is evaluated with its initial weights; a network that was trained so has to
# be trained again with another layer.
# Needs Python 3.11 or newer; installs torchlayers==0.1.1, torch==2.15.0, numpy==2.4.6 in a temporary folder.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check torchlayers==0.1.1 torch==2.15.0 numpy==2.4.6
"$work/venv/bin/python" -W ignore - <<'PYTHON'
import importlib.metadata

import torch, torchlayers

torch.manual_seed(0)
branch = torch.nn.Linear(1, 1, bias=False)
torch.nn.init.constant_(branch.weight, 3.0)
layer = torchlayers.StochasticDepth(branch, p=0.9)
outputs = {layer(torch.ones(1, 1)).item() for step in range(1000)}
evaluated = layer.eval()(torch.ones(1, 1)).item()
print(f"torchlayers {importlib.metadata.version('torchlayers')}: outputs of 1000 steps of training {outputs}, evaluation {evaluated:.2f}")
assert abs(evaluated - 2.7) < 1e-6
assert outputs == {1.0}, "the layer runs in training now"
PYTHON
