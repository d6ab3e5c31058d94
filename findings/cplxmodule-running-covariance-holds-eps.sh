#!/usr/bin/env bash
# cplxmodule: the running covariance of a complex batch norm has eps in it
#
# A good guess: the running covariance is that of the data, and eps is added where it is inverted.
# Seen: cplxmodule 2022.6 adds eps to both variances before they are averaged, and not in evaluation: with
# eps 0.5 and momentum 1, a batch with variances of 3.5 and 1 is stored as 4 and 1.5, and another eps changes
# nothing in evaluation.
# Why it matters here: a file has no variances below eps, and adding eps once more makes the outputs too
# small; take it off first.
# Needs Python 3.11 or newer; installs cplxmodule==2022.6, torch==2.15.0, numpy==2.4.6 in a temporary folder.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check cplxmodule==2022.6 torch==2.15.0 numpy==2.4.6
"$work/venv/bin/python" -W ignore - <<'PYTHON'
import importlib.metadata

import torch
from cplxmodule import Cplx
from cplxmodule.nn import CplxBatchNorm1d

layer = CplxBatchNorm1d(1, eps=0.5, momentum=1.0)
x = Cplx(torch.tensor([[1.0], [2.0], [3.0], [6.0]]), torch.tensor([[1.0], [-1.0], [1.0], [-1.0]]))
layer(x)
stored = layer.running_var.flatten().tolist()
layer.eval()
first = layer(x).real
layer.eps = 100.0
print(f"cplxmodule {importlib.metadata.version('cplxmodule')}: stored variances {stored[0]:.4f} and {stored[3]:.4f}, the batch's {x.real.var(correction=0).item()} and {x.imag.var(correction=0).item()}")
assert abs(stored[0] - 4) < 1e-5 and abs(stored[3] - 1.5) < 1e-5, "eps is not stored now"
assert torch.equal(first, layer(x).real), "evaluation uses eps now"
PYTHON
