#!/usr/bin/env bash
# PyArrow: a safe cast of 70,000 to half gives infinity
#
# A good guess: a cast is safe unless safe=False is passed: it refuses a number that the new type
# does not have, as a cast of integers to float does for 2^24 + 1.
# Seen: PyArrow 26.0.1: integers are cast to half without that check: 2049 becomes 2048 and 70,000
# becomes infinity, with no error.
# Why it matters here: sums and counts that are stored next to half weights overflow silently; a
# check for infinities is the reader's.
# Needs Python 3.11 or newer; installs pyarrow==26.0.1, numpy==2.4.6 in a temporary folder.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check pyarrow==26.0.1 numpy==2.4.6
"$work/venv/bin/python" -W ignore - <<'PYTHON'
import pyarrow as pa

half = pa.array([2048, 2049, 70_000]).cast(pa.float16(), safe=True).to_pylist()
try:
    single = pa.array([2**24 + 1]).cast(pa.float32(), safe=True).to_pylist()
except pa.ArrowInvalid as error:
    single = str(error)
print(f"PyArrow {pa.__version__}: 2048, 2049, 70000 as half: {[float(value) for value in half]}; 2^24 + 1 as float: {single}")
assert "not in range" in single
assert [float(value) for value in half] == [2048, 2048, float("inf")], "the cast to half is checked now"
PYTHON
