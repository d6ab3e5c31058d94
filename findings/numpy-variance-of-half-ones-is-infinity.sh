#!/usr/bin/env bash
# NumPy: the variance of 100,000 ones in float16 is infinity
#
# A good guess: a mean of float16 is taken in float32, as numpy documents it, and the variance, which begins
# with a mean, is too: 0.
# Seen: NumPy 2.4.6: np.mean of 100,000 ones is 1, and np.var and np.std are infinity: their mean is a sum in
# float16, which ends at 65,504. np.nanmean, too, is infinity, without a NaN in the array. With
# dtype=np.float32 all are right.
# Why it matters here: statistics of half-precision activations by NumPy need the dtype; here they are taken
# in f32 and wider.
# Needs Python 3.11 or newer; installs numpy==2.4.6 in a temporary folder.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check numpy==2.4.6
"$work/venv/bin/python" -W ignore - <<'PYTHON'
import numpy as np

x = np.ones(100_000, np.float16)
with np.errstate(all="ignore"):
    found = {"mean": np.mean(x), "var": np.var(x), "std": np.std(x), "nanmean": np.nanmean(x)}
found = {name: float(value) for name, value in found.items()}
right = np.var(x, dtype=np.float32), np.nanmean(x, dtype=np.float32)
print(f"NumPy {np.__version__}: {found}; in float32: var {right[0]}, nanmean {right[1]}")
assert found["mean"] == 1 and right == (0, 1)
assert all(found[name] == np.inf for name in ("var", "std", "nanmean")), "the sums are wider now"
PYTHON
