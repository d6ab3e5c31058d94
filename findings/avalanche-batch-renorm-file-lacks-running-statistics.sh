#!/usr/bin/env bash
# Avalanche: the file of a BatchRenorm2D lacks the running statistics
#
# A good guess: the running mean and deviation are buffers, as in BatchNorm2d, and are in the state dict.
# Seen: Avalanche 0.6.0: they are plain attributes: the state dict has gamma and beta alone, and a new layer
# that loads it strictly evaluates with a mean of 1 and a deviation of 0, which it starts with: infinity.
# Why it matters here: a checkpoint of a converted network cannot be evaluated nor taken over; save
# running_avg_mean and running_avg_std (a deviation with eps in it, not a variance) next to it.
# Needs Python 3.11 or newer; installs avalanche-lib==0.6.0, torch==2.15.0, torchvision==0.29.2, numpy==2.4.6
# in a temporary folder.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check avalanche-lib==0.6.0 torch==2.15.0 torchvision==0.29.2 numpy==2.4.6
"$work/venv/bin/python" -W ignore - <<'PYTHON'
import importlib.metadata

import torch
from avalanche.models.batch_renorm import BatchRenorm2D

torch.manual_seed(0)
x = 5 + 2 * torch.randn(64, 1, 4, 4)
trained, loaded = BatchRenorm2D(1, momentum=1.0), BatchRenorm2D(1)
trained(x)
loaded.load_state_dict(trained.state_dict())
with torch.no_grad():
    right, seen = trained.eval()(x), loaded.eval()(x)
names = list(trained.state_dict())
print(f"Avalanche {importlib.metadata.version('avalanche-lib')}: state dict {names}; mean and deviation {trained.running_avg_mean.item():.2f} {trained.running_avg_std.item():.2f}, "
      f"loaded {loaded.running_avg_mean.item()} {loaded.running_avg_std.item()}; largest output {right.abs().max():.2f}, loaded {seen.abs().max()}")
assert right.abs().max() < 6
assert names == ["gamma", "beta"] and seen.abs().max() == float("inf"), "the file has the statistics now"
PYTHON
