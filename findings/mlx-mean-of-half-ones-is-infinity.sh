#!/usr/bin/env bash
# MLX: the mean of 100,000 ones is infinity in float16, and 1 in bfloat16
#
# A good guess: a mean is of the type of the array, and its sum is not: 1 in both.
# Seen: mlx 0.32.4 divides a sum that has been rounded to the array's type: 100,000 is infinity in float16,
# whose largest number is 65,504, and bfloat16 has it. mx.var of such ones is infinity in float16, too.
# Why it matters here: means over large images in half precision overflow though no value is above 1; here
# sums of halves are f32 and wider. Convert first.
# Needs Python 3.11 or newer; installs mlx[cpu]==0.32.4, numpy==2.4.6 in a temporary folder.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check mlx[cpu]==0.32.4 numpy==2.4.6
"$work/venv/bin/python" -W ignore - <<'PYTHON'
import importlib.metadata

import mlx.core as mx

found = {}
for kind in mx.float16, mx.bfloat16, mx.float32:
    x = mx.ones(100_000, dtype=kind)
    found[str(kind).split(".")[-1]] = mx.mean(x).item(), mx.var(x).item()
print(f"MLX {importlib.metadata.version('mlx')}: mean and variance of 100,000 ones: {found}")
assert found["float32"] == (1, 0) and found["bfloat16"][0] == 1
assert found["float16"][0] == float("inf"), "the sum is wider now"
PYTHON
