#!/usr/bin/env bash
# River: the exponentially weighted variance of numbers around 1e8 is negative
#
# A good guess: EWVar is computed from differences to the mean, as River's Var is, and is never below 0.
# Seen: River 0.26.1 subtracts the squared mean from the mean of squares: for f64 numbers of mean 1e8 and
# deviation 1 more than a third of the variances after an update are below 0. Var has 1.
# Why it matters here: a running variance of sensor counts or times is used under a root; this crate's
# Running averages variances, each from differences to the mean.
# Needs Python 3.11 or newer; installs river==0.26.1, numpy==2.4.6 in a temporary folder.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check river==0.26.1 numpy==2.4.6
"$work/venv/bin/python" -W ignore - <<'PYTHON'
import random

import river
from river import stats

random.seed(1)
moving, whole, below = stats.EWVar(0.1), stats.Var(), 0
for _ in range(1000):
    x = random.gauss(1e8, 1)
    moving.update(x), whole.update(x)
    below += moving.get() < 0
print(f"river {river.__version__}: EWVar below 0 after {below} of 1000 numbers; Var {whole.get():.3f}")
assert abs(whole.get() - 1) < 0.1
assert below > 333, "EWVar is computed from differences now"
PYTHON
