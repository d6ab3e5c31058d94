#!/usr/bin/env bash
# Thinc: swish of -1e10 is -20.6
#
# A good guess: swish, x*sigmoid(x), is never below -0.28, and goes to 0 far below 0.
# Seen: thinc 9.1.1 takes the sigmoid of x cut to -20 to 20, which is at least 2e-9: swish of -1e10 is
# -20.6, of minus infinity minus infinity.
# Why it matters here: an activation that bounds what a batch norm with a small running variance lets
# through in other frameworks lets it through there.
# Needs Python 3.11 or newer; installs thinc==9.1.1, numpy==2.4.6 in a temporary folder.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check thinc==9.1.1 numpy==2.4.6
"$work/venv/bin/python" -W ignore - <<'PYTHON'
import importlib.metadata

import numpy as np
from thinc.api import NumpyOps

values = np.array([[-10, -20, -1e6, -1e10, -np.inf]], np.float32)
found = NumpyOps().swish(values)[0]
print(f"thinc {importlib.metadata.version('thinc')}: swish of {values[0]} is {found}")
assert abs(found[0] + 4.54e-4) < 1e-6
assert -21 < found[3] < -20 and np.isneginf(found[4]), "swish is bounded now"
PYTHON
