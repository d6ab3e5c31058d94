#!/usr/bin/env bash
# HypLL: a hyperbolic batch norm makes the bias of any single sample
#
# A good guess: in evaluation mode a batch norm uses running statistics, so that a sample's output does not
# depend on the others of its batch.
# Seen: HypLL 0.1.1: HBatchNorm has no running statistics and no mode: a sample alone in its batch is its own
# mean, and becomes the origin, which is the bias, whatever it is. The weight stands under the root: 4
# doubles the spread.
# Why it matters here: such a layer cannot be folded or taken over, as there is nothing to take; evaluate in
# large batches.
# Needs Python 3.11 or newer; installs hypll==0.1.1, torch==2.15.0, numpy==2.4.6 in a temporary folder.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check hypll==0.1.1 torch==2.15.0 numpy==2.4.6
"$work/venv/bin/python" -W ignore - <<'PYTHON'
import importlib.metadata

import torch
from hypll.manifolds.poincare_ball import Curvature, PoincareBall
from hypll.nn import HBatchNorm
from hypll.tensors import ManifoldTensor

manifold = PoincareBall(Curvature(1.0))
layer = HBatchNorm(2, manifold)
points = torch.tensor([[0.1, 0.2], [0.3, 0.1], [-0.2, 0.05]])
for step in range(20):
    layer(ManifoldTensor(points, manifold=manifold))
layer.eval()
together = layer(ManifoldTensor(points, manifold=manifold)).tensor.detach()
alone = torch.cat([layer(ManifoldTensor(row[None], manifold=manifold)).tensor.detach() for row in points])
print(f"HypLL {importlib.metadata.version('hypll')}: distance from the origin together {together.norm(dim=1).tolist()}, alone {alone.norm(dim=1).tolist()}; state: {list(layer.state_dict())}")
assert together.norm(dim=1).min() > 0.1
assert alone.norm(dim=1).max() < 0.01, "a single sample is evaluated with other statistics now"
PYTHON
