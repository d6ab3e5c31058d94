#!/usr/bin/env bash
# Gymnasium: an observation that is always 1000 has a variance of 100
#
# A good guess: the variance of observations that are all 1000 is 0, or what is left of a start of 1 with a
# small weight, 0.0001.
# Seen: Gymnasium 1.4.0, RunningMeanStd of NormalizeObservation starts as 0.0001 samples of mean 0, and their
# distance counts squared: after one observation of 1000 the variance is 99.98, after ten 10.0, after a
# thousand 0.1. Stable-Baselines3 has the same numbers.
# Why it matters here: a feature far from 0 is scaled down for its first thousands of steps; running
# statistics that are taken over from it hold that, too. Average::Cumulative here starts with nothing.
# Needs Python 3.11 or newer; installs gymnasium==1.4.0, numpy==2.4.6 in a temporary folder.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check gymnasium==1.4.0 numpy==2.4.6
"$work/venv/bin/python" -W ignore - <<'PYTHON'
import gymnasium, numpy as np
from gymnasium.wrappers.utils import RunningMeanStd

moments, found = RunningMeanStd(shape=(1,)), {}
for step in range(1, 1001):
    moments.update(np.array([[1000.0]]))
    if step in (1, 10, 1000):
        found[step] = round(moments.var.item(), 3)
print(f"Gymnasium {gymnasium.__version__}: variance of observations that are all 1000: {found}; mean {moments.mean.item():.4f}")
assert abs(found[1] - 99.98) < 0.01 and abs(found[10] - 10) < 0.01 and abs(found[1000] - 0.1) < 0.001, "a constant has another variance now"
PYTHON
