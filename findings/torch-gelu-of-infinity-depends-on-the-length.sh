#!/usr/bin/env bash
# PyTorch: gelu of infinity is infinity alone, and NaN in company
#
# A good guess: an activation is computed for each element by itself: gelu of infinity is the same in
# a tensor of one element as in a longer one.
# Seen: PyTorch 2.15.0 on the CPU in f32: infinity in a tensor of one element, NaN in one of two or
# more. The largest f32 stays as it is in the first case, and becomes infinity in the second.
# Why it matters here: an evaluation of one element is no check of a longer one; an overflow in f32
# becomes NaN one layer earlier than the formula says.
# Needs Python 3.11 or newer; installs torch==2.15.0, numpy==2.4.6 in a temporary folder.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.15.0 numpy==2.4.6
"$work/venv/bin/python" -W ignore - <<'PYTHON'
import torch

gelu = torch.nn.functional.gelu
of = lambda value, length: gelu(torch.full((length,), value))
largest = torch.finfo(torch.float32).max
found = {length: (of(float("inf"), length)[0].item(), of(largest, length)[0].item()) for length in (1, 2, 64)}
print(f"PyTorch {torch.__version__}: gelu of infinity and of the largest f32 by length: {found}")
assert found[1] == (float("inf"), largest)
for length in (2, 64):
    assert torch.isnan(of(float("inf"), length)).all(), "an infinity stays one now"
    assert found[length][1] == float("inf")
PYTHON
