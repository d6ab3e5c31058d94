#!/usr/bin/env bash
# PyTorch: convert_sync_batchnorm removes the ReLU from the batch norms of timm
#
# A good guess: the conversion changes how statistics are shared, and not what a network computes: in
# evaluation the outputs stay.
# Seen: torch 2.15.0 with timm 1.0.31: timm's BatchNormAct2d is a subclass of BatchNorm2d with an
# activation in it. The conversion makes a SyncBatchNorm of it, keeps the ReLU as a child that nothing
# calls, and prints it with the layer: -1 is 0 before, and -1 after. timm's converter of the same name
# keeps it.
# Why it matters here: many networks of timm lose their activations when they are trained on several
# devices by the usual line; a file for this crate then says relu where none was.
# Needs Python 3.11 or newer; installs timm==1.0.31, torchvision==0.29.2, torch==2.15.0, numpy==2.4.6 in
# a temporary folder.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check timm==1.0.31 torchvision==0.29.2 torch==2.15.0 numpy==2.4.6
"$work/venv/bin/python" -W ignore - <<'PYTHON'
import copy

import timm, torch
from timm.layers import BatchNormAct2d, convert_sync_batchnorm

layer, x = torch.nn.Sequential(BatchNormAct2d(1)).eval(), torch.full((1, 1, 1, 1), -1.0)
before = layer(x).item()
converted = torch.nn.SyncBatchNorm.convert_sync_batchnorm(copy.deepcopy(layer)).eval()
after, by_timm = converted(x).item(), convert_sync_batchnorm(copy.deepcopy(layer)).eval()(x).item()
print(f"torch {torch.__version__.split('+')[0]}, timm {timm.__version__}: -1 becomes {before:g}, after the conversion {after:.4f}, after timm's {by_timm:g}; children {[name for name, _ in converted[0].named_children()]}")
assert before == 0 and by_timm == 0 and isinstance(converted[0].act, torch.nn.ReLU)
assert abs(after + 1) < 1e-4, "the activation is kept now"
PYTHON
