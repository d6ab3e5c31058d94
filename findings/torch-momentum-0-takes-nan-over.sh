#!/usr/bin/env bash
# PyTorch: a batch norm with momentum 0 takes a NaN over into its running statistics
#
# A good guess: with momentum 0 the new value has no weight, and the running statistics stay as they
# are.
# Seen: PyTorch 2.15.0 computes 1*running + 0*NaN, which is NaN: one bad batch ruins the statistics
# that momentum 0 was meant to freeze.
# Why it matters here: momentum 0 does not freeze a batch norm there; here it leaves the running
# statistics untouched.
# Needs Python 3.11 or newer; installs torch==2.15.0, numpy==2.4.6 in a temporary folder.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.15.0 numpy==2.4.6
"$work/venv/bin/python" -W ignore - <<'PYTHON'
import torch

layer = torch.nn.BatchNorm1d(1, momentum=0.0)
layer(torch.tensor([[1.0], [2.0]]))
good = layer.running_mean.item()
layer(torch.tensor([[float("nan")], [1.0]]))
bad = layer.running_mean.item()
print(f"PyTorch {torch.__version__}: running mean {good} after a good batch, {bad} after a batch with a NaN")
assert good == 0 and bad != bad, "momentum 0 leaves the statistics alone now"
PYTHON
