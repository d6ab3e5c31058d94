#!/usr/bin/env bash
# torchinfo, thop: a summary sets a frozen batch norm to training
#
# A good guess: a summary leaves every layer in the mode in which it was: it only looks.
# Seen: torchinfo 1.8.0 and thop 0.1.1 remember the mode of the whole network and restore it with train(),
# which sets every layer: a batch norm that was frozen with eval() trains afterwards. fvcore's
# FlopCountAnalysis restores each.
# Why it matters here: a network that is summarised after freezing is fine-tuned with the batch's statistics,
# and its running statistics move; freeze after the summary.
# Needs Python 3.11 or newer; installs torchinfo==1.8.0, thop==0.1.1.post2209072238,
# fvcore==0.1.5.post20221221, torch==2.15.0, numpy==2.4.6 in a temporary folder.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check torchinfo==1.8.0 thop==0.1.1.post2209072238 fvcore==0.1.5.post20221221 torch==2.15.0 numpy==2.4.6
"$work/venv/bin/python" -W ignore - <<'PYTHON'
import importlib.metadata

import thop, torch, torchinfo
from fvcore.nn import FlopCountAnalysis

tools = {
    "torchinfo": lambda network, x: torchinfo.summary(network, input_data=x, verbose=0),
    "thop": lambda network, x: thop.profile(network, (x,), verbose=False),
    "fvcore": lambda network, x: FlopCountAnalysis(network, x).total(),
}
seen = {}
for name, tool in tools.items():
    network = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.BatchNorm1d(2)).train()
    network[1].eval()
    tool(network, torch.ones(4, 2))
    assert network.training
    seen[name] = network[1].training
print("the frozen batch norm trains afterwards:", {f"{name} {importlib.metadata.version(name)}": trains for name, trains in seen.items()})
assert not seen["fvcore"]
assert seen["torchinfo"] and seen["thop"], "the layer stays frozen now"
PYTHON
