#!/usr/bin/env bash
# torchsummary: printing the summary of a network moves its running statistics
#
# A good guess: a summary reads shapes and counts weights, and leaves the network as it was, as that of
# torchinfo does.
# Seen: torchsummary 1.5.1 runs two random images through the network in the mode in which it is: the
# batch norm of a new network has seen one batch, and a running variance of 4 is 3.6.
# Why it matters here: a network that is summarised before its file is loaded loses nothing; one that
# is summarised behind it evaluates otherwise, and is saved so. Call eval() before it.
# Needs Python 3.11 or newer; installs torchsummary==1.5.1, torchinfo==1.8.0, torch==2.15.0, numpy==2.4.6 in a temporary folder.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check torchsummary==1.5.1 torchinfo==1.8.0 torch==2.15.0 numpy==2.4.6
"$work/venv/bin/python" -W ignore - <<'PYTHON'
import contextlib, importlib.metadata, io

import torch, torchinfo, torchsummary


def after(summary):
    norm = torch.nn.BatchNorm2d(1)
    norm.running_var.fill_(4)
    with contextlib.redirect_stdout(io.StringIO()):
        summary(torch.nn.Sequential(norm, torch.nn.ReLU()))
    return norm.num_batches_tracked.item(), norm.running_var.item()


torch.manual_seed(0)
other = after(lambda model: torchinfo.summary(model, (2, 1, 8, 8), verbose=0))
seen = after(lambda model: torchsummary.summary(model, (1, 8, 8), device="cpu"))
print(f"torchsummary {importlib.metadata.version('torchsummary')}: {seen[0]} batch seen, running variance {seen[1]:.2f}; torchinfo {torchinfo.__version__}: {other[0]} batches, {other[1]:.2f}")
assert other == (0, 4)
assert seen[0] == 1 and 3.6 < seen[1] < 3.65, "a summary leaves the network now"
PYTHON
