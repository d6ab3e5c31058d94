#!/usr/bin/env bash
# torchregularize: DropBlock2D and StochasticDepth scale neither in training nor in evaluation
#
# A good guess: either training divides by the keep probability, or evaluation multiplies by it, so that both
# have one mean.
# Seen: torchregularize 0.1.0: DropBlock2D keeps about 0.82 of the ones for drop_prob 0.2, as ones, and
# StochasticDepth adds its branch in half of the steps for 0.5; both pass all of it in evaluation.
# Why it matters here: a network evaluates with larger activations than it was trained with, by 1/(1 - p); to
# go on with this crate's dropout, multiply the next weights by the keep probability once.
# Needs Python 3.11 or newer; installs torchregularize==0.1.0, torch==2.15.0, numpy==2.4.6 in a temporary
# folder.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check torchregularize==0.1.0 torch==2.15.0 numpy==2.4.6
"$work/venv/bin/python" -W ignore - <<'PYTHON'
import importlib.metadata

import torch
from torchregularize import DropBlock2D, StochasticDepth

torch.manual_seed(0)
x = torch.ones(64, 1, 32, 32)
block = DropBlock2D(block_size=3, drop_prob=0.2)
blocks = block(x)
kept, block_evaluated = blocks.max().item(), block.eval()(x).mean().item()
depth = StochasticDepth(survival_prob=0.5)
branch = torch.stack([depth(torch.zeros(1), torch.ones(1)) for step in range(1000)])
depth_evaluated = depth.eval()(torch.zeros(1), torch.ones(1)).item()
print(f"torchregularize {importlib.metadata.version('torchregularize')}: mean of ones in training and in evaluation: DropBlock2D {blocks.mean().item():.3f}, {block_evaluated}; StochasticDepth {branch.mean().item():.3f}, {depth_evaluated}")
assert block_evaluated == depth_evaluated == 1
assert kept == 1 and 0.75 < blocks.mean().item() < 0.88, "DropBlock2D scales now"
assert branch.max().item() == 1 and 0.4 < branch.mean().item() < 0.6, "StochasticDepth scales now"
PYTHON
