#!/usr/bin/env bash
# HDF5: 65505 stored as a half is infinity
#
# A good guess: a number is rounded to the nearest half, so that those below 65520 become 65504, the
# largest one, as in NumPy and in hardware.
# Seen: HDF5 2.0.0 of h5py 3.16.0 makes infinities of all numbers above 65504, and rounds the others to the
# nearest: 2049 becomes 2048. It says so neither when writing nor when reading.
# Why it matters here: a variance or an activation that was cut off at the largest half in f32, plus a
# rounding, comes back as infinity; this crate's conversions give 65504. Convert before storing.
# Needs Python 3.11 or newer; installs h5py==3.16.0, numpy==2.4.6 in a temporary folder.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check h5py==3.16.0 numpy==2.4.6
"$work/venv/bin/python" -W ignore - <<'PYTHON'
import io

import h5py, numpy as np

numbers = np.array([2049, 65503, 65504, 65505, 65519, 65520], np.float32)
with h5py.File(io.BytesIO(), "w") as file:
    stored = file.create_dataset("stored", (len(numbers),), dtype="f2")
    stored[:] = numbers
    written = stored[:].tolist()
    read = file.create_dataset("singles", data=numbers).astype("f2")[:].tolist()
expected = numbers.astype(np.float16).tolist()
print(f"h5py {h5py.__version__}, HDF5 {h5py.version.hdf5_version}: {numbers.tolist()} stored as halves are {written}, NumPy has {expected}")
assert expected == [2048, 65504, 65504, 65504, 65504, float("inf")]
assert written == read == [2048, 65504, 65504, float("inf"), float("inf"), float("inf")], "halves are rounded first now"
PYTHON
