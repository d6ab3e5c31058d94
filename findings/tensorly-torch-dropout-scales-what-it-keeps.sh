#!/usr/bin/env bash
# TensorLy-Torch: the dropout of a Tucker tensor scales modes that it does not drop
#
# A good guess: a mode that is too small to be dropped from (min_dim) is neither dropped nor scaled.
# Seen: TensorLy-Torch 0.5.0 scales by 1/(1 - p) for each mode, dropped or not: with p = 0.5 and three modes
# of rank 3, which the default min_dim of 3 leaves whole, nothing is dropped and every number is 8 times as
# large.
# Why it matters here: in training the weights are 8 times those of evaluation, so that a batch norm behind
# them stores variances that are 64 times too large for evaluation.
# Needs Python 3.11 or newer; installs tensorly-torch==0.5.0, tensorly==0.10.0, packaging==26.4,
# torch==2.15.0, numpy==2.4.6 in a temporary folder.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check tensorly-torch==0.5.0 tensorly==0.10.0 packaging==26.4 torch==2.15.0 numpy==2.4.6
"$work/venv/bin/python" -W ignore - <<'PYTHON'
import importlib.metadata

import tltorch, torch
from tltorch.tensor_hooks import remove_tensor_dropout, tensor_dropout

torch.manual_seed(0)


def ratio(rank):
    tensor = tltorch.FactorizedTensor.new((8, 8, 8), rank=(rank,) * 3, factorization="Tucker").normal_()
    with torch.no_grad():
        whole = tensor.to_tensor()
        tensor = tensor_dropout(tensor, p=0.5).train()
        mean = sum(tensor().to_tensor() for _ in range(rounds)) / rounds
    return ((mean * whole).sum() / (whole * whole).sum()).item()


rounds = 500
small, large = ratio(3), ratio(6)
print(f"TensorLy-Torch {importlib.metadata.version('tensorly-torch')}: mean over {rounds} masks relative to the whole tensor: modes of rank 3, kept {small:.3f}; of rank 6, dropped {large:.3f}")
assert 0.7 < large < 1.4
assert abs(small - 8) < 1e-3, "kept modes are not scaled now"
PYTHON
