#!/usr/bin/env bash
# MLX: after unfreeze() of a model its optimizer changes the running statistics
#
# A good guess: running statistics are never trained, because BatchNorm keeps them frozen, and its
# own unfreeze() keeps them so.
# Seen: MLX 0.32.4: unfreeze() of a model that holds the layer does not call that of the layer: the
# running mean and variance are trainable then. In evaluation mode they get gradients, and a step of
# AdamW moves a running variance of 100 to 99.3.
# Why it matters here: the usual freeze() and unfreeze() of fine-tuning ruins the statistics that a
# fold takes over, without an error; the trained running variance may end below 0.
# Needs Python 3.11 or newer; installs mlx==0.32.4, mlx-cpu==0.32.4 in a temporary folder.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check mlx==0.32.4 mlx-cpu==0.32.4
"$work/venv/bin/python" -W ignore - <<'PYTHON'
import importlib.metadata

import mlx.core as mx, mlx.nn as nn, mlx.optimizers as optimizers

model = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm(2))
norm = model.layers[1]
norm.running_var = mx.array([100.0, 100.0])
before = sorted(norm.trainable_parameters())
model.freeze()
model.unfreeze()
after = sorted(norm.trainable_parameters())
model.eval()
loss = nn.value_and_grad(model, lambda x: model(x).square().mean())
optimizers.AdamW(learning_rate=0.1, weight_decay=0.1).update(model, loss(mx.array([[1.0, 2.0], [3.0, 4.0]]))[1])
moved = norm.running_var.tolist()
print(f"MLX {importlib.metadata.version('mlx')}: trainable before {before}, after {after}; running variance {moved}")
assert before == ["bias", "weight"]
assert after == ["bias", "running_mean", "running_var", "weight"], "the statistics stay frozen now"
assert all(98 < variance < 99.9 for variance in moved)
PYTHON
