#!/usr/bin/env bash
# baal: ConsistentDropout keeps its mask when the network is set to eval() again
#
# A good guess: eval() draws a new mask, because the layer's eval() resets it.
# Seen: baal 2.1.0: PyTorch's eval() of a network sets the mode of its layers by train(False), so that the
# layer's own eval() is never called: four rounds of train() and eval() evaluate with one mask, and only
# eval() of the layer itself, or another shape, draws a new one.
# Why it matters here: every round of Monte-Carlo dropout measures the same thinned network, and the spread
# between rounds is 0.
# Needs Python 3.11 or newer; installs baal==2.1.0, torch==2.15.0, numpy==2.4.6 in a temporary folder.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check baal==2.1.0 torch==2.15.0 numpy==2.4.6
"$work/venv/bin/python" -W ignore - <<'PYTHON'
import importlib.metadata

import torch
from baal.bayesian.consistent_dropout import patch_module

torch.manual_seed(0)
network = patch_module(torch.nn.Sequential(torch.nn.Identity(), torch.nn.Dropout(0.5)))
x = torch.ones(1, 32)


def masks(module, rounds=4):
    seen = []
    for _ in range(rounds):
        module.train()
        network(x)
        module.eval()
        seen.append(tuple((network(x) == 0).flatten().tolist()))
    return len(set(seen))


whole, layer = masks(network), masks(network[1])
print(f"baal {importlib.metadata.version('baal')}: four rounds of train() and eval(): of the network {whole} mask, of the layer {layer} masks")
assert layer == 4
assert whole == 1, "the mask is drawn anew now"
PYTHON
