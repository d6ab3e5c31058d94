#!/usr/bin/env bash
# timm: DropBlock with probability 0.1 drops more than 0.9 of a small image
#
# A good guess: drop_prob is the share of the elements that is dropped, or a bit less, as in torchvision.
# Seen: timm 1.0.31, drop_block_2d with blocks of 7 on images of 7 by 7: 0.1 drops 0.92 of the elements, and
# 0.3 all of them, so that the output is 0. torchvision 0.29.2 drops 0.1 and 0.3.
# Why it matters here: the number of a network's configuration is not the rate that it was trained
# with where the image is not much larger than the block, as in a network's last stage.
# Needs Python 3.11 or newer; installs timm==1.0.31, torchvision==0.29.2, torch==2.15.0, numpy==2.4.6 in a temporary folder.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check timm==1.0.31 torchvision==0.29.2 torch==2.15.0 numpy==2.4.6
"$work/venv/bin/python" -W ignore - <<'PYTHON'
import timm, torch, torchvision
from timm.layers import drop_block_2d
from torchvision.ops import drop_block2d

torch.manual_seed(0)
x = torch.ones(64, 64, 7, 7)
share = lambda y: (y == 0).float().mean().item()
seen, other = ([share(drop(x, p, 7)) for p in (0.1, 0.3)] for drop in (drop_block_2d, drop_block2d))
print(f"timm {timm.__version__}: 0.1 drops {seen[0]:.3f}, 0.3 drops {seen[1]:.3f}; torchvision {torchvision.__version__}: {other[0]:.3f}, {other[1]:.3f}")
assert abs(other[0] - 0.1) < 0.03 and abs(other[1] - 0.3) < 0.03
assert seen[0] > 0.85 and seen[1] > 0.99, "the rate is the probability now"
PYTHON
