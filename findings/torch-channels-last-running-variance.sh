#!/usr/bin/env bash
# PyTorch: the memory format of a batch decides whether its running variance is right
#
# A good guess: channels_last is a matter of speed; the statistics of the same numbers are the same
# up to rounding.
# Seen: PyTorch 2.15.0 on the CPU sums a contiguous batch in f64 and a channels_last batch in f32:
# with a mean of 1e6 and a variance of 1 the running variance is about 1 in one case and more than
# 28,000 in the other.
# Why it matters here: statistics of a network that was trained in channels_last are not to be
# trusted where channels are far from 0.
# Needs Python 3.11 or newer; installs torch==2.15.0, numpy==2.4.6 in a temporary folder.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.15.0 numpy==2.4.6
"$work/venv/bin/python" -W ignore - <<'PYTHON'
import torch

torch.manual_seed(0)
x = (1e6 + torch.randn(16, 4, 64, 64, dtype=torch.float64)).float()

def running_variance(x):
    layer = torch.nn.BatchNorm2d(4, momentum=1.0)
    layer(x)
    return layer.running_var.tolist()

exact = x.double().var(dim=(0, 2, 3)).tolist()
contiguous, last = running_variance(x), running_variance(x.contiguous(memory_format=torch.channels_last))
print(f"PyTorch {torch.__version__}: exact {exact}\ncontiguous {contiguous}\nchannels_last {last}")
assert all(abs(a / b - 1) < 1e-3 for a, b in zip(contiguous, exact))
assert all(a > 100 * b for a, b in zip(last, exact)), "channels_last has become accurate"
PYTHON
