#!/usr/bin/env bash
# MLX: a group of GroupNorm has every second channel, not the first half
#
# A good guess: of 4 channels in 2 groups the first two are one group, and the last two the other, as in the
# paper and in PyTorch.
# Seen: mlx 0.32.4, GroupNorm: unless pytorch_compatible=True is given, channels 0 and 2 are one group, and 1
# and 3 the other: 1, 2, 100, 300 become -1, -1, 1, 1 instead of -1, 1, -1, 1.
# Why it matters here: weights of other frameworks load without an error and evaluate to other numbers; give
# the option, or sort the channels.
# Needs Python 3.11 or newer; installs mlx[cpu]==0.32.4, numpy==2.4.6 in a temporary folder.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check mlx[cpu]==0.32.4 numpy==2.4.6
"$work/venv/bin/python" -W ignore - <<'PYTHON'
import importlib.metadata

import mlx.core as mx, mlx.nn as nn

x, found = mx.array([[1.0, 2.0, 100.0, 300.0]]), {}
for compatible in False, True:
    layer = nn.GroupNorm(2, 4, affine=False, pytorch_compatible=compatible)
    found[compatible] = [round(value) for value in layer(x)[0].tolist()]
print(f"MLX {importlib.metadata.version('mlx')}: by pytorch_compatible: {found}")
assert found[True] == [-1, 1, -1, 1]
assert found[False] == [-1, -1, 1, 1], "groups are of neighbours now"
PYTHON
