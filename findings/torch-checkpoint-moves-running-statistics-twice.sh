#!/usr/bin/env bash
# PyTorch: a batch norm inside a checkpoint counts every batch twice
#
# A good guess: checkpointing trades memory for time and changes no result: the recomputed forward
# pass leaves no trace.
# Seen: PyTorch 2.15.0, use_reentrant=False: after one forward and backward pass num_batches_tracked
# is 2, and the running mean has moved by 0.19 of the way instead of 0.1.
# Why it matters here: running statistics of a checkpointed network follow the last batches more
# closely than its momentum says.
# Needs Python 3.11 or newer; installs torch==2.15.0, numpy==2.4.6 in a temporary folder.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.15.0 numpy==2.4.6
"$work/venv/bin/python" -W ignore - <<'PYTHON'
import torch
from torch.utils.checkpoint import checkpoint

layer, x = torch.nn.BatchNorm1d(1), torch.tensor([[9.0], [11.0]], requires_grad=True)
checkpoint(layer, x, use_reentrant=False).sum().backward()
count, mean = layer.num_batches_tracked.item(), layer.running_mean.item()
print(f"PyTorch {torch.__version__}: one step, num_batches_tracked {count}, running mean {mean:.3f} (once: 1.000)")
assert count == 2 and abs(mean - 1.9) < 1e-3, "the recomputation leaves no trace now"
PYTHON
