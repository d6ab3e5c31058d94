#!/usr/bin/env bash
# Lightly: get_norm_layer takes eps and momentum, and uses neither
#
# A good guess: options that are accepted are passed on to the batch norm that is made.
# Seen: Lightly 1.6.0: get_norm_layer(2, 0, eps=0.001, momentum=0.01) makes a BatchNorm2d with 1e-5 and 0.1,
# and with splits a SplitBatchNorm with 1e-5 and 0.1. SplitBatchNorm itself takes both.
# Why it matters here: a network that was to match another one's settings trains and evaluates with PyTorch's.
# Needs Python 3.11 or newer; installs lightly==1.6.0, torch==2.15.0, torchvision==0.29.2, numpy==2.4.6 in a
# temporary folder.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check lightly==1.6.0 torch==2.15.0 torchvision==0.29.2 numpy==2.4.6
"$work/venv/bin/python" -W ignore - <<'PYTHON'
import importlib.metadata

from lightly.models.batchnorm import SplitBatchNorm, get_norm_layer

options = dict(eps=0.001, momentum=0.01)
seen = {splits: (norm.eps, norm.momentum) for splits in (0, 2) for norm in [get_norm_layer(2, splits, **options)]}
direct = SplitBatchNorm(2, 2, **options)
print(f"Lightly {importlib.metadata.version('lightly')}: eps and momentum for {options}: get_norm_layer without and with splits {seen}, SplitBatchNorm {(direct.eps, direct.momentum)}")
assert (direct.eps, direct.momentum) == (0.001, 0.01)
assert seen == {0: (1e-5, 0.1), 2: (1e-5, 0.1)}, "the options are used now"
PYTHON
