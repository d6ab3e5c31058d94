#!/usr/bin/env bash
# Pyro: batch norm makes 0.7 of what PyTorch makes 1
#
# A good guess: a batch is divided by its biased deviation, with which its variance becomes 1, as in
# PyTorch's layer with the same momentum and eps; the unbiased one is for the running variance alone.
# Seen: pyro-ppl 1.9.2, transforms.BatchNorm divides by the unbiased deviation in training, too: a batch of 1
# and 3 becomes -0.707 and 0.707 instead of -1 and 1. A batch of one sample is NaN without an error.
# Why it matters here: to train the layer on here, multiply the weight by the root of (n - 1)/n of its batch
# size; evaluation needs nothing.
# Needs Python 3.11 or newer; installs pyro-ppl==1.9.2, torch==2.15.0, numpy==2.4.6 in a temporary folder.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check pyro-ppl==1.9.2 torch==2.15.0 numpy==2.4.6
"$work/venv/bin/python" -W ignore - <<'PYTHON'
import pyro, torch
from pyro.distributions.transforms import BatchNorm

x = torch.tensor([[1.0], [3.0]])
seen = BatchNorm(1)._inverse(x).flatten().tolist()
same = torch.nn.BatchNorm1d(1)(x).flatten().tolist()
alone = BatchNorm(1)._inverse(x[:1]).item()
print(f"Pyro {pyro.__version__}: {seen}, PyTorch {same}; one sample: {alone}")
assert all(abs(a - b) < 1e-4 for a, b in zip(same, (-1, 1)))
assert all(abs(a - b) < 1e-4 for a, b in zip(seen, (-(0.5**0.5), 0.5**0.5))), "the deviation is the biased one now"
assert alone != alone
PYTHON
