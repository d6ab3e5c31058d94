#!/usr/bin/env bash
# bayesian-torch: BatchNorm2dLayer works for 1, 3 and 4 images, and not for 2
#
# A good guess: the size of the batch makes no difference to a batch norm of images.
# Seen: bayesian-torch 0.5.0 tells a batch from the pair (batch, divergence) by len(): a batch of two is taken
# for the pair, and its first image is refused as "expected 4D input (got 3D input)", in evaluation mode, too.
# Why it matters here: a last batch of two images ends an epoch or an evaluation with an error that names the
# wrong shape.
# Needs Python 3.11 or newer; installs bayesian-torch==0.5.0, torch==2.15.0, numpy==2.4.6 in a temporary
# folder.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check bayesian-torch==0.5.0 torch==2.15.0 numpy==2.4.6
"$work/venv/bin/python" -W ignore - <<'PYTHON'
import importlib.metadata

import torch
from bayesian_torch.layers import BatchNorm2dLayer

layer, reference = BatchNorm2dLayer(3).eval(), torch.nn.BatchNorm2d(3).eval()
seen = {}
for images in (1, 2, 3, 4):
    x = torch.ones(images, 3, 2, 2)
    assert reference(x).shape == x.shape
    try:
        seen[images] = str(tuple(layer(x).shape))
    except ValueError as error:
        seen[images] = str(error)
print(f"bayesian-torch {importlib.metadata.version('bayesian-torch')}, images and output:", seen)
assert all(seen[images] == f"({images}, 3, 2, 2)" for images in (1, 3, 4))
assert "got 3D" in seen[2], "two images pass now"
PYTHON
