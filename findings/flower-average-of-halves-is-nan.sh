#!/usr/bin/env bash
# Flower: the average of halves that are all 1 is NaN
#
# A good guess: the average of two clients' arrays of ones is 1, in any type that has a 1.
# Seen: flwr 1.42.0, aggregate of flwr.server.strategy, which FedAvgM, and FedAvg with inplace=False, use,
# multiplies each array by the number of examples in the array's own type, and divides afterwards: float16
# ends at 65,504, and 40,000 examples at two clients make infinity divided by infinity. A weight of 100 needs
# 700 examples.
# Why it matters here: a round trip of running statistics or weights in half precision loses them, and small
# weights are rounded at another place; send float32.
# Needs Python 3.11 or newer; installs flwr==1.42.0, numpy==2.4.6 in a temporary folder.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check flwr==1.42.0 numpy==2.4.6
"$work/venv/bin/python" -W ignore - <<'PYTHON'
import importlib.metadata

import numpy as np
from flwr.server.strategy.aggregate import aggregate

found = {}
for kind in np.float16, np.float32:
    ones, = aggregate([([np.ones(1, kind)], 40000)] * 2)
    hundred, = aggregate([([np.full(1, 100, kind)], 700), ([np.full(1, 100, kind)], 1)])
    found[kind.__name__] = ones.item(), hundred.item()
print(f"Flower {importlib.metadata.version('flwr')}: averages of ones and of hundreds: {found}")
assert found["float32"] == (1, 100)
assert not np.isfinite(found["float16"]).any(), "halves are averaged without an overflow now"
PYTHON
