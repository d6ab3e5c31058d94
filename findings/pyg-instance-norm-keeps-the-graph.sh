#!/usr/bin/env bash
# PyTorch Geometric: the running statistics of InstanceNorm hold the graph of every training step
#
# A good guess: running statistics are updated without gradients, as in PyTorch, and as the same layer
# does without a batch vector.
# Seen: PyTorch Geometric 2.8.1, InstanceNorm(track_running_stats=True) called with a batch vector:
# afterwards running_mean has a gradient function, so that each step's graph stays in memory, a copy of
# the layer fails, and a backward pass in evaluation mode fails, too.
# Why it matters here: memory grows with every step; statistics taken over from such a layer have to be
# detached first.
# Needs Python 3.11 or newer; installs torch-geometric==2.8.1, torch==2.15.0, numpy==2.4.6 in a temporary folder.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check torch-geometric==2.8.1 torch==2.15.0 numpy==2.4.6
"$work/venv/bin/python" -W ignore - <<'PYTHON'
import copy

import torch, torch_geometric


def fails(call):
    try:
        call()
    except RuntimeError:
        return True
    return False


def after(batch):
    torch.manual_seed(0)
    linear, norm = torch.nn.Linear(2, 2), torch_geometric.nn.InstanceNorm(2, track_running_stats=True)
    loss = lambda: norm(linear(torch.randn(4, 2)), batch).square().sum()
    for _ in range(3):
        loss().backward()
    copying = fails(lambda: copy.deepcopy(norm))
    norm.eval()
    return norm.running_mean.requires_grad, copying, fails(lambda: loss().backward())


one, several = after(None), after(torch.tensor([0, 0, 1, 1]))
for name, (held, copying, backward) in (("without a batch vector", one), ("with one", several)):
    print(f"PyTorch Geometric {torch_geometric.__version__} {name}: running mean requires grad {held}, copy fails {copying}, backward in evaluation fails {backward}")
assert one == (False, False, False)
assert several == (True, True, True), "the statistics are detached now"
PYTHON
