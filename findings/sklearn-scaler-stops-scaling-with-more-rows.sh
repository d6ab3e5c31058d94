#!/usr/bin/env bash
# scikit-learn: StandardScaler stops scaling a column when there are more rows of it
#
# A good guess: whether a column is constant, and keeps its scale, is a question of its deviation, in units
# of its last digit perhaps: ten times the rows make no difference.
# Seen: scikit-learn 1.9.1: the bound for a constant column grows with the number of rows: times in seconds
# around 1.7e9 with a deviation of 0.02, which is 80,000 units in the last place, are scaled by 0.02 up to
# 10,000 rows, and by 1 for 100,000, though the variance that is stored next to it is right.
# Why it matters here: the same data standardised in another number of rows is 50 times smaller; take var_,
# not scale_, where statistics are taken over.
# Needs Python 3.11 or newer; installs scikit-learn==1.9.1, numpy==2.4.6 in a temporary folder.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check scikit-learn==1.9.1 numpy==2.4.6
"$work/venv/bin/python" -W ignore - <<'PYTHON'
import numpy as np, sklearn
from sklearn.preprocessing import StandardScaler

found = {}
for rows in 100, 10_000, 100_000:
    x = 1.7e9 + 0.02 * np.random.default_rng(0).normal(size=(rows, 1))
    scaler = StandardScaler().fit(x)
    found[rows] = float(scaler.scale_[0])
    assert abs(scaler.var_[0] ** 0.5 - 0.02) < 0.002
print(f"scikit-learn {sklearn.__version__}: scale by number of rows: {found}")
assert all(abs(found[rows] - 0.02) < 0.002 for rows in (100, 10_000))
assert found[100_000] == 1, "the column is scaled now"
PYTHON
