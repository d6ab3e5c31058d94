#!/usr/bin/env bash
# PyTorch: fuse_conv_bn_eval folds the wrong channels of a transposed convolution, silently
#
# A good guess: the function knows the kind of the convolution that it is handed, and folds the
# batch norm into its output channels.
# Seen: PyTorch 2.15.0 takes the first axis of the weight for the outputs unless transpose=True is
# passed as well: with as many inputs as outputs the result has the right shape and is wrong. With
# transpose=True and two groups it raises.
# Why it matters here: a folded network is to be compared with the unfolded one; here each kind of
# layer has its row in the table of the fold.
# Needs Python 3.11 or newer; installs torch==2.15.0, numpy==2.4.6 in a temporary folder.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.15.0 numpy==2.4.6
"$work/venv/bin/python" -W ignore - <<'PYTHON'
import torch
from torch.nn.utils.fusion import fuse_conv_bn_eval

torch.manual_seed(0)
norm = torch.nn.BatchNorm2d(4).eval()
norm.running_var.copy_(torch.tensor([1.0, 4.0, 9.0, 16.0]))
x = torch.randn(1, 4, 5, 5)

def error(groups, transpose):
    layer = torch.nn.ConvTranspose2d(4, 4, 3, groups=groups).eval()
    try:
        return (fuse_conv_bn_eval(layer, norm, transpose)(x) - norm(layer(x))).abs().max().item()
    except RuntimeError:
        return "RuntimeError"

default, told, grouped = error(1, False), error(1, True), error(2, True)
print(f"PyTorch {torch.__version__}: error by default {default:.3f}, with transpose=True {told:.1e}, in two groups {grouped}")
assert default > 0.01 and told < 1e-5 and grouped == "RuntimeError", "the fusion has changed"
PYTHON
