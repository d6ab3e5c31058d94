#!/usr/bin/env bash
# TorchRL: the correction of BatchRenorm1d grows for ever after its warm-up
#
# A good guess: the correction by the running statistics is off for warmup_steps and then on, so that
# training normalises as evaluation does, within the bounds of r and d.
# Seen: torchrl 0.14.1 multiplies the correction by steps // warmup_steps and never limits the count of
# steps: with a warm-up of 10 and fixed statistics of 0 and 1, the outputs of a batch of mean 3 have the
# mean 3 at step 10, as in evaluation, 6 at step 20 and 12 at step 40.
# Why it matters here: with the default of 10,000 steps a run of 100,000 ends with a correction of ten
# times its size; a layer of this crate in evaluation gives what was meant after the warm-up.
# Needs Python 3.11 or newer; installs torchrl==0.14.1, torch==2.15.0, numpy==2.4.6 in a temporary
# folder.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check torchrl==0.14.1 torch==2.15.0 numpy==2.4.6
"$work/venv/bin/python" -W ignore - <<'PYTHON'
import importlib.metadata

import torch
from torchrl.modules import BatchRenorm1d

norm, x = BatchRenorm1d(1, momentum=0.0, warmup_steps=10), torch.tensor([[1.0], [2], [3], [6]])
mean = []
for step in range(41):
    mean.append(norm(x).mean().item())
evaluation = norm.eval()(x).mean().item()
print(f"torchrl {importlib.metadata.version('torchrl')}: mean of the outputs {mean[9]:.2f} in step 9, {mean[10]:.2f} in step 10, {mean[20]:.2f} in step 20, {mean[40]:.2f} in step 40; evaluation {evaluation:.2f}")
assert abs(mean[9]) < 1e-3 and abs(mean[10] - evaluation) < 1e-3
assert abs(mean[20] - 2 * mean[10]) < 1e-3 and abs(mean[40] - 4 * mean[10]) < 1e-3, "the warm-up ends now"
PYTHON
