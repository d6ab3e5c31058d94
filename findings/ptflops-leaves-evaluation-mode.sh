#!/usr/bin/env bash
# ptflops: a network whose operations were counted trains on without dropout
#
# A good guess: counting operations puts the network back into the mode in which it was, as thop does.
# Seen: ptflops 0.7.5 leaves a network that was in training mode in evaluation mode: its dropout drops
# nothing, and its batch norm stays at the running statistics.
# Why it matters here: a training loop that calls train() once, before the count, trains another network
# without an error. Call train() behind the count.
# Needs Python 3.11 or newer; installs ptflops==0.7.5, thop==0.1.1.post2209072238, torch==2.15.0, numpy==2.4.6 in a temporary folder.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check ptflops==0.7.5 thop==0.1.1.post2209072238 torch==2.15.0 numpy==2.4.6
"$work/venv/bin/python" -W ignore - <<'PYTHON'
import importlib.metadata

import ptflops, thop, torch


def after(count):
    norm, dropout = torch.nn.BatchNorm1d(4), torch.nn.Dropout(0.5)
    model = torch.nn.Sequential(norm, dropout).train()
    count(model)
    seen = norm.num_batches_tracked.item()
    model(torch.arange(256.0).view(64, 4))
    return model.training, norm.num_batches_tracked.item() - seen, (dropout(torch.ones(1000)) == 0).any().item()


seen = after(lambda model: ptflops.get_model_complexity_info(model, (4,), print_per_layer_stat=False))
other = after(lambda model: thop.profile(model, (torch.ones(2, 4),), verbose=False))
for name, (training, batches, drops) in (("ptflops", seen), ("thop", other)):
    print(f"{name} {importlib.metadata.version(name)}: afterwards training is {training}, the batch norm tracks {batches} batches of 1, dropout drops: {drops}")
assert other == (True, 1, True)
assert seen == (False, 0, False), "the mode is put back now"
PYTHON
