#!/usr/bin/env bash
# Brevitas: BatchNorm1dToQuantScaleBias of (N, C) scales the samples
#
# A good guess: the layer that takes a BatchNorm1d over accepts (N, C), as that does, and scales the columns.
# Seen: Brevitas 0.13.4 has the scale in the shape [1, C, 1] for every input: a batch of as many samples as
# channels becomes [1, C, C] with its rows scaled, one sample becomes [1, C, C], too, and other sizes are an
# error. (N, C, L) is right.
# Why it matters here: the batch norm behind a Linear is of this shape; add an axis of length 1 first.
# Needs Python 3.11 or newer; installs brevitas==0.13.4, torch==2.15.0, numpy==2.4.6 in a temporary folder.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check brevitas==0.13.4 torch==2.15.0 numpy==2.4.6
"$work/venv/bin/python" -W ignore - <<'PYTHON'
import importlib.metadata

import torch
from brevitas.nn import BatchNorm1dToQuantScaleBias

layer = BatchNorm1dToQuantScaleBias(3, weight_quant=None)
layer.weight.data = torch.tensor([1.0, 2, 3])
layer.bias.data.zero_()
with torch.no_grad():
    matrix, line = layer(torch.ones(3, 3)), layer(torch.ones(3, 3, 1))
    one = layer(torch.ones(1, 3))
print(f"Brevitas {importlib.metadata.version('brevitas')}: channels scaled by 1, 2, 3: (3, 3) becomes {matrix.tolist()}, (3, 3, 1) {line.squeeze(-1).tolist()}, (1, 3) the shape {list(one.shape)}")
assert line.squeeze(-1).tolist() == [[1, 2, 3]] * 3
assert matrix.tolist() == [[[1] * 3, [2] * 3, [3] * 3]] and one.shape == (1, 3, 3), "a matrix is scaled by columns now"
PYTHON
