#!/usr/bin/env bash
# tinygrad: relu6 of a billion is 0
#
# A good guess: relu6 is min(max(x, 0), 6), which is exact: 6 for every number above 6.
# Seen: tinygrad 0.14.0 subtracts relu(x - 6) from relu(x): 6 up to about 2^24, then what rounding
# leaves; 0 for 1e9, and NaN for infinity. hardswish, which is made of it, is 0 for 1e9, too.
# Why it matters here: a batch norm whose running variance is near 0 makes such numbers, and the
# activation that should bound them drops them instead.
# Needs Python 3.11 or newer; installs tinygrad==0.14.0 in a temporary folder.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check tinygrad==0.14.0
"$work/venv/bin/python" -W ignore - <<'PYTHON'
import importlib.metadata, math, os

os.environ["DEV"] = "PYTHON"
from tinygrad import Tensor

values = [7.0, 1e6, 1e9, math.inf]
found = Tensor(values).relu6().tolist()
swish = Tensor([1e9]).hardswish().item()
print(f"tinygrad {importlib.metadata.version('tinygrad')}: relu6 of {values} is {found}, hardswish of 1e9 {swish}")
assert found[:2] == [6, 6]
assert found[2] == 0 and math.isnan(found[3]) and swish == 0, "relu6 is exact now"
PYTHON
