#!/usr/bin/env bash
# PyTorch: the second derivative by forward mode through a custom function is 0, silently
#
# A good guess: a torch.autograd.Function with a jvp in differentiable operations has a second
# derivative by jacfwd(jacfwd), as it has by jacrev(jacrev) and jacfwd(jacrev).
# Seen: PyTorch 2.15.0: for x*x at 3 jacfwd(jacfwd) is 0, and both other ways give 2.
# Why it matters here: whoever wraps a kernel in a Function with a jvp gives its users wrong
# Hessians, and no error; the package here raises instead.
# Needs Python 3.11 or newer; installs torch==2.15.0, numpy==2.4.6 in a temporary folder.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.15.0 numpy==2.4.6
"$work/venv/bin/python" -W ignore - <<'PYTHON'
import torch
from torch.func import jacfwd, jacrev

class Square(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(x):
        return x * x

    @staticmethod
    def setup_context(ctx, inputs, output):
        ctx.save_for_backward(*inputs)
        ctx.save_for_forward(*inputs)

    @staticmethod
    def backward(ctx, gradient):
        return 2 * ctx.saved_tensors[0] * gradient

    @staticmethod
    def jvp(ctx, tangent):
        return 2 * ctx.saved_tensors[0] * tangent

x = torch.tensor(3.0)
forward, backward, mixed = (way(x).item() for way in (jacfwd(jacfwd(Square.apply)), jacrev(jacrev(Square.apply)), jacfwd(jacrev(Square.apply))))
print(f"PyTorch {torch.__version__}: second derivative of x*x: forward twice {forward}, backward twice {backward}, mixed {mixed}")
assert backward == mixed == 2 and forward == 0, "forward mode twice has changed"
PYTHON
