#!/usr/bin/env bash
# Numba: the compiled mean of 2^25 ones is 0.5
#
# A good guess: a compiled function returns what NumPy returns, but for the last digits: np.mean of ones is
# 1.
# Seen: Numba 0.68.1 adds one element after the other in the type of the array: a sum of float32 stays at
# 2^24, so that the mean of 2^25 ones is 0.5, and their variance 0.25. NumPy, which adds in pairs, has 1 and
# 0.
# Why it matters here: running statistics of large images by compiled code are wrong without a warning; here
# sums are f64. Ask for a sum of dtype float64.
# Needs Python 3.11 or newer; installs numba==0.68.1, numpy==2.4.6 in a temporary folder.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check numba==0.68.1 numpy==2.4.6
"$work/venv/bin/python" -W ignore - <<'PYTHON'
import numba, numpy as np

mean, variance = numba.njit(lambda x: np.mean(x)), numba.njit(lambda x: np.var(x))
x = np.ones(2**25, np.float32)
found, numpys = (mean(x), variance(x)), (np.mean(x), np.var(x))
print(f"Numba {numba.__version__}: mean and variance {float(found[0])}, {float(found[1])}; NumPy {numpys[0]}, {numpys[1]}")
assert numpys == (1, 0)
assert found == (0.5, 0.25), "the sum is another one now"
PYTHON
