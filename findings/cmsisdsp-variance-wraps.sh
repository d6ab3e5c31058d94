#!/usr/bin/env bash
# CMSIS-DSP: the q15 variance of 0.87 and -0.87 in turn is -0.99
#
# A good guess: results that do not fit q15 or q31 saturate, as they do in arm_std_q15 and in the
# library's sums and products.
# Seen: CMSIS-DSP 1.10.1 built for the host (cmsisdsp): the unbiased variance of four values is 1.009,
# and arm_var_q15 and arm_var_q31 wrap to -0.991. Of the same values arm_std_q15 is 0.99997, and
# arm_std_q31 is 0.
# Why it matters here: variances that a microcontroller estimated in fixed point for a batch norm may be
# negative, and the same data in q31 has a deviation of 0.
# Needs Python 3.11 or newer; installs cmsisdsp==1.10.1, numpy==2.4.6 in a temporary folder.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check cmsisdsp==1.10.1 numpy==2.4.6
"$work/venv/bin/python" -W ignore - <<'PYTHON'
import importlib.metadata

import cmsisdsp, numpy as np

values = np.array([0.87, -0.87, 0.87, -0.87], np.float32)
q15, q31 = cmsisdsp.arm_float_to_q15(values), cmsisdsp.arm_float_to_q31(values)
variances = cmsisdsp.arm_var_q15(q15) / 2**15, cmsisdsp.arm_var_q31(q31) / 2**31
deviations = cmsisdsp.arm_std_q15(q15) / 2**15, cmsisdsp.arm_std_q31(q31) / 2**31
print(f"CMSIS-DSP {importlib.metadata.version('cmsisdsp')}: variance in q15 and q31 {variances}, deviation {deviations}; exact {values.var(ddof=1):.4f}")
assert deviations[0] > 0.999 and deviations[1] == 0
assert all(-1 < variance < -0.98 for variance in variances), "a variance saturates now"
PYTHON
