#!/usr/bin/env bash
# PyTorch: track_running_stats = False on an existing layer still evaluates with running statistics
#
# A good guess: setting the attribute does what the argument of the constructor does: evaluation
# normalises with the statistics of the batch.
# Seen: PyTorch 2.15.0: a layer that was made without the argument and has the attribute set later
# stops to update its buffers, and evaluation goes on to use them: 1, 2, 3, 6 stay as they are. Made
# with the argument it gives -1.07, -0.53, 0, 1.60.
# Why it matters here: a change that is meant for test-time adaptation has no effect there; what a
# stored layer does depends on its buffers and not on the attribute.
# Needs Python 3.11 or newer; installs torch==2.15.0, numpy==2.4.6 in a temporary folder.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.15.0 numpy==2.4.6
"$work/venv/bin/python" -W ignore - <<'PYTHON'
import torch

x = torch.tensor([[1.0], [2.0], [3.0], [6.0]])
made, changed = torch.nn.BatchNorm1d(1, track_running_stats=False), torch.nn.BatchNorm1d(1)
changed.track_running_stats = False
changed(x)
of_batch, of_buffers = made.eval()(x).flatten(), changed.eval()(x).flatten()
print(f"PyTorch {torch.__version__}: made without: {of_batch.tolist()}, switched off: {of_buffers.tolist()}")
assert torch.allclose(of_batch, torch.tensor([-1.069, -0.535, 0, 1.604]), atol=1e-3)
assert changed.running_mean.item() == 0 and changed.running_var.item() == 1
assert torch.allclose(of_buffers, x.flatten(), atol=1e-3), "the attribute decides now"
PYTHON
