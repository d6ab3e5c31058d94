#!/usr/bin/env bash
# PyTorch: Dropout1d of [N, C] drops whole samples
#
# A good guess: a matrix is N samples of C channels, as BatchNorm1d and Linear take it, and
# Dropout1d drops channels.
# Seen: PyTorch 2.15.0 takes the matrix for one sample [C, L] without a batch: every row is kept or
# dropped whole, without a warning.
# Why it matters here: a network of linear layers with Dropout1d trains on fewer samples, not on
# fewer channels; the same granularity here is that of samples.
# Needs Python 3.11 or newer; installs torch==2.15.0, numpy==2.4.6 in a temporary folder.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.15.0 numpy==2.4.6
"$work/venv/bin/python" -W ignore - <<'PYTHON'
import torch

torch.manual_seed(0)
y = torch.nn.Dropout1d(0.5)(torch.ones(64, 32))
whole, dropped = all(row.unique().numel() == 1 for row in y), int((y[:, 0] == 0).sum())
print(f"PyTorch {torch.__version__}: every row is kept or dropped whole: {whole}; dropped rows: {dropped} of 64")
assert whole and 0 < dropped < 64, "channels are dropped now"
PYTHON
