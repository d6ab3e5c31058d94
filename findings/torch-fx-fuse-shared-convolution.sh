#!/usr/bin/env bash
# PyTorch: torch.fx fuses a batch norm into a convolution that is used a second time without it
#
# A good guess: fuse looks whether another part of the network uses the convolution, and leaves it,
# as it does where the output of one call has two users.
# Seen: PyTorch 2.15.0, torch.fx.experimental.optimization.fuse: conv(norm(conv(x))) has both calls of
# the one convolution fused: with a variance of 0.25 the output 2 becomes 4, without a warning.
# Why it matters here: weights that are shared by two calls can be folded only if both calls have the
# batch norm behind them; compare a fused network with the original.
# Needs Python 3.11 or newer; installs torch==2.15.0, numpy==2.4.6 in a temporary folder.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.15.0 numpy==2.4.6
"$work/venv/bin/python" -W ignore - <<'PYTHON'
import torch
from torch.fx.experimental.optimization import fuse


class Shared(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.norm = torch.nn.Conv1d(1, 1, 1, bias=False), torch.nn.BatchNorm1d(1)
        torch.nn.init.ones_(self.conv.weight)
        self.norm.running_var.fill_(0.25)

    def forward(self, x):
        return self.conv(self.norm(self.conv(x)))


model, x = Shared().eval(), torch.ones(1, 1, 1)
with torch.no_grad():
    before, after = model(x).item(), fuse(model)(x).item()
print(f"PyTorch {torch.__version__}: output {before:.4f} before fuse, {after:.4f} after")
assert abs(before - 2) < 1e-3
assert abs(after - 4) < 1e-3, "a shared convolution is left now"
PYTHON
