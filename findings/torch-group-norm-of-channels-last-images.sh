#!/usr/bin/env bash
# PyTorch: GroupNorm of an image far from 0 is 1300 in one memory format and 4 in the other
#
# A good guess: GroupNorm normalises to deviation 1, and the memory format of its input decides its
# speed only; for a contiguous image it does, at a mean of 1e4, too.
# Seen: torch 2.15.0 on the CPU: normal values plus 1e4, [2, 8, 64, 64] in 2 groups: contiguous, the
# outputs have the deviation 1.000; with channels last they go up to more than 1000, because some
# variances come out as 0.
# Why it matters here: images that are not centred, converted to channels last for speed, end as noise;
# this crate computes every layout from differences to the mean.
# Needs Python 3.11 or newer; installs torch==2.15.0, numpy==2.4.6 in a temporary folder.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.15.0 numpy==2.4.6
"$work/venv/bin/python" -W ignore - <<'PYTHON'
import torch

torch.manual_seed(0)
norm, x = torch.nn.GroupNorm(2, 8), torch.randn(2, 8, 64, 64) + 1e4
plain, last = norm(x), norm(x.contiguous(memory_format=torch.channels_last))
far = norm(x.double().contiguous(memory_format=torch.channels_last).float().contiguous())
print(f"torch {torch.__version__.split('+')[0]}: deviation {plain.std().item():.4f} and largest output {plain.abs().max().item():.1f} contiguous; {last.std().item():.1f} and {last.abs().max().item():.1f} channels last")
assert abs(plain.std().item() - 1) < 1e-3 and torch.equal(plain, far)
assert last.abs().max() > 100, "the memory format does not matter now"
PYTHON
