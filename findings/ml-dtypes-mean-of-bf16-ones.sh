#!/usr/bin/env bash
# ml_dtypes: NumPy's mean of 4096 ones in bf16 is 0.0625
#
# A good guess: NumPy sums bf16 in f32, as it does the mean of float16.
# Seen: ml_dtypes 0.6.0 with NumPy 2.4.6: the sum stays at 256, where bf16 has no 257, so that the
# mean of 4096 ones is 0.0625, and their variance is not 0. In float16 the mean is 1.
# Why it matters here: statistics of a bf16 array from JAX or from a file are wrong without a warning;
# pass dtype=numpy.float32, or use this crate's, which sums bf16 in f32.
# Needs Python 3.11 or newer; installs ml_dtypes==0.6.0, numpy==2.4.6 in a temporary folder.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check ml_dtypes==0.6.0 numpy==2.4.6
"$work/venv/bin/python" -W ignore - <<'PYTHON'
import ml_dtypes, numpy as np

bf16, half = np.ones(4096, ml_dtypes.bfloat16), np.ones(4096, np.float16)
print(f"ml_dtypes {ml_dtypes.__version__}, numpy {np.__version__}: sum of 4096 ones {bf16.sum()}, mean {bf16.mean()}, variance {bf16.var()}; mean in float16 {half.mean()}, mean with dtype=float32 {bf16.mean(dtype=np.float32)}")
assert half.mean() == 1 and bf16.mean(dtype=np.float32) == 1
assert bf16.mean() == 0.0625 and bf16.var() != 0, "bf16 is summed in f32 now"
PYTHON
