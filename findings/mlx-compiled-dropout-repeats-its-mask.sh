#!/usr/bin/env bash
# MLX: a compiled function with dropout drops the same elements in every call
#
# A good guess: mx.compile changes the speed and not the result, so a compiled training step draws a
# new mask in every call, as the same step does without mx.compile.
# Seen: MLX 0.32.4 takes the state of the global generator for a constant of the trace unless
# mx.random.state is passed as inputs and as outputs: eight calls give one mask.
# Why it matters here: a compiled training step without that argument trains a fixed part of the
# network, and the loss does not show it.
# Needs Python 3.11 or newer; installs mlx==0.32.4, mlx-cpu==0.32.4 in a temporary folder.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check mlx==0.32.4 mlx-cpu==0.32.4
"$work/venv/bin/python" -W ignore - <<'PYTHON'
import importlib.metadata
from functools import partial

import mlx.core as mx, mlx.nn as nn

drop, x = nn.Dropout(0.5), mx.ones((64,))
plain = mx.compile(lambda values: drop(values))
stated = partial(mx.compile, inputs=mx.random.state, outputs=mx.random.state)(lambda values: drop(values))
masks = lambda function: len({tuple(function(x).tolist()) for _ in range(8)})
found = {"not compiled": masks(drop), "compiled": masks(plain), "compiled with the state": masks(stated)}
print(f"MLX {importlib.metadata.version('mlx')}: different masks in eight calls: {found}")
assert found["not compiled"] == found["compiled with the state"] == 8
assert found["compiled"] == 1, "a compiled function draws anew now"
PYTHON
