#!/usr/bin/env bash
# PyTorch: forward mode through a custom operator gives a derivative of 0, silently
#
# A good guess: an operator of torch.library.custom_op that has only a backward formula is refused
# by forward mode, as other operators without one are.
# Seen: PyTorch 2.15.0: torch.func.jvp of such an operator for x*x at 3 returns the value 9 and the
# tangent 0 instead of 6.
# Why it matters here: whoever makes a kernel a custom operator, as is recommended for
# torch.compile, gives users of forward mode wrong derivatives.
# Needs Python 3.11 or newer; installs torch==2.15.0, numpy==2.4.6 in a temporary folder.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.15.0 numpy==2.4.6
"$work/venv/bin/python" -W ignore - <<'PYTHON'
import torch

@torch.library.custom_op("demo::square", mutates_args=())
def square(x: torch.Tensor) -> torch.Tensor:
    return x * x

def setup(ctx, inputs, output):
    ctx.save_for_backward(*inputs)

square.register_autograd(lambda ctx, gradient: 2 * ctx.saved_tensors[0] * gradient, setup_context=setup)
square.register_fake(lambda x: torch.empty_like(x))
value, tangent = torch.func.jvp(square, (torch.tensor(3.0),), (torch.tensor(1.0),))
x = torch.tensor(3.0, requires_grad=True)
square(x).backward()
print(f"PyTorch {torch.__version__}: x*x at 3: value {value}, by backward {x.grad}, by forward mode {tangent}")
assert x.grad == 6 and tangent == 0, "forward mode is refused, or right, now"
PYTHON
