#!/usr/bin/env bash
# safetensors: a transposed numpy array comes back with its elements in another order
#
# A good guess: save_file and load_file of numpy arrays are inverse to each other, or an array that
# is not contiguous is refused, as with PyTorch tensors.
# Seen: safetensors 0.8.0 stores the memory of a transposed array under the transposed shape: [[0,
# 3], [1, 4], [2, 5]] comes back as [[0, 1], [2, 3], [4, 5]].
# Why it matters here: a weight that was transposed for another framework is silently scrambled:
# numpy.ascontiguousarray first.
# Needs Python 3.11 or newer; installs safetensors==0.8.0, numpy==2.4.6 in a temporary folder.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check safetensors==0.8.0 numpy==2.4.6
"$work/venv/bin/python" -W ignore - <<'PYTHON'
import os, tempfile
import numpy as np, safetensors
from safetensors.numpy import load_file, save_file

weight = np.arange(6, dtype=np.float32).reshape(2, 3).T
with tempfile.TemporaryDirectory() as folder:
    path = os.path.join(folder, "weights.safetensors")
    save_file({"weight": weight}, path)
    back = load_file(path)["weight"]
print(f"safetensors {safetensors.__version__}: {weight.tolist()} comes back as {back.tolist()}")
assert back.shape == weight.shape and not np.array_equal(back, weight), "the elements are kept in order now"
PYTHON
