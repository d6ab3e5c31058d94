#!/usr/bin/env bash
# skrl: one row makes the running variance NaN for good
#
# A good guess: the running moments of rows that come one at a time are those of all rows together: a single
# row adds its distance from the mean, and a variance of 0 of its own.
# Seen: skrl 2.1.1, RunningStandardScaler merges in the unbiased variance of each batch, which is 0/0 for one
# row: with a single environment the variance is NaN after the first step, and all outputs are. Two rows, 1
# and 3, count with a variance of 2 instead of 1.
# Why it matters here: a scaler that worked with 4096 environments has no value with one; statistics from it
# are to be looked at for NaN, and are too large for small batches.
# Needs Python 3.11 or newer; installs skrl==2.1.1, torch==2.15.0, numpy==2.4.6 in a temporary folder.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check skrl==2.1.1 torch==2.15.0 numpy==2.4.6
"$work/venv/bin/python" -W ignore - <<'PYTHON'
import importlib.metadata

import torch
from skrl.resources.preprocessors.torch import RunningStandardScaler

one, two = RunningStandardScaler(size=1, device="cpu"), RunningStandardScaler(size=1, device="cpu")
output = one(torch.tensor([[1.0]]), train=True).item()
two(torch.tensor([[1.0], [3.0]]), train=True)
seen = two.running_variance.item()
# The scaler starts as one row of mean 0 with a variance of 1.
right, skrls = [(1 + 2 * variance + 2**2 * 1 * 2 / 3) / 3 for variance in (1, 2)]
print(f"skrl {importlib.metadata.version('skrl')}: variance after one row {one.running_variance.item()}, output {output}; after two rows {seen:.4f} instead of {right:.4f}")
assert one.running_variance.isnan().all() and output != output, "one row has a variance now"
assert abs(seen - skrls) < 1e-6
PYTHON
