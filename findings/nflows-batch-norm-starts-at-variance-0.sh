#!/usr/bin/env bash
# nflows: a new batch norm evaluates with a variance of 0
#
# A good guess: the running variance starts at 1, as in PyTorch, on which the library stands: a layer that
# was never trained leaves its input nearly as it is.
# Seen: nflows 0.14, BatchNorm: mean and variance start at 0, with a momentum of 0.1 and without a
# correction: a new layer in evaluation mode multiplies by 316, the inverse root of eps, and after one batch
# of 1, 2, 3, 6, whose unbiased variance is 4.67, the running variance is 0.467. Training, too, divides by
# the unbiased variance.
# Why it matters here: the statistics of a flow that was trained for n steps are 1 - 0.9^n times what they
# are averages of: divide by that once, before they are taken over.
# Needs Python 3.11 or newer; installs nflows==0.14, torch==2.15.0, numpy==2.4.6 in a temporary folder.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check nflows==0.14 torch==2.15.0 numpy==2.4.6
"$work/venv/bin/python" -W ignore - <<'PYTHON'
import importlib.metadata

import torch
from nflows.transforms.normalization import BatchNorm

x = torch.tensor([[1.0], [2.0], [3.0], [6.0]])
new = BatchNorm(1).eval()(x)[0][0].item()
layer = BatchNorm(1)
trained = layer(x)[0].flatten()
print(f"nflows {importlib.metadata.version('nflows')}: a new layer makes {new:.1f} of 1; after one batch the running variance is {layer.running_var.item():.4f}, the batch's {x.var().item():.4f}")
assert layer.momentum == 0.1 and abs(new - 1e-5**-0.5) < 0.1, "a new layer has another variance now"
assert abs(layer.running_var.item() - 0.1 * x.var().item()) < 1e-5
assert torch.allclose(trained, ((x - 3) / (x.var() + 1e-5).sqrt()).flatten(), atol=1e-4)
PYTHON
