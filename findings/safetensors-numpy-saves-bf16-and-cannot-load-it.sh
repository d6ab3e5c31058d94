#!/usr/bin/env bash
# safetensors: numpy saves bfloat16, and cannot load it
#
# A good guess: what safetensors.numpy.save writes, safetensors.numpy.load of the same version reads.
# Seen: safetensors 0.8.0 writes an array of ml_dtypes.bfloat16 as BF16, and its load ends with
# KeyError: 'BF16'. The file is right: the bits are there.
# Why it matters here: the numpy package takes ml_dtypes.bfloat16; its weights go out by safetensors,
# and come back only through another reader or through the bytes.
# Needs Python 3.11 or newer; installs safetensors==0.8.0, ml_dtypes==0.6.0, numpy==2.4.6 in a temporary folder.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check safetensors==0.8.0 ml_dtypes==0.6.0 numpy==2.4.6
"$work/venv/bin/python" -W ignore - <<'PYTHON'
import ml_dtypes, numpy as np, safetensors, safetensors.numpy

weight = np.array([0.5, -3.0], ml_dtypes.bfloat16)
data = safetensors.numpy.save({"weight": weight})
assert b'"BF16"' in data and data.endswith(weight.tobytes())
try:
    found = safetensors.numpy.load(data)
except KeyError as error:
    print(f"safetensors {safetensors.__version__}: saved as BF16; load: KeyError: {error}")
else:
    raise SystemExit(f"bfloat16 is loaded now: {found}")
PYTHON
