#!/usr/bin/env bash
# OpenCV: Darknet's eps is added under the root, and Darknet adds it outside
#
# A good guess: a reader of Darknet's files computes what Darknet does, (x - mean)/(sqrt(var) +
# 1e-6).
# Seen: OpenCV 4.14.0 computes (x - mean)/sqrt(var + 1e-6). A rolling variance of 1e-6 has a gain of
# 707 there, and of 999 in Darknet (its normalize_cpu).
# Why it matters here: a channel that hardly varied differs by 40 % between the two, and OpenCV is
# no reference for an import of such a file.
# Needs Python 3.11; installs opencv-python-headless==4.14.0.94, numpy==2.4.6 in a temporary folder.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check opencv-python-headless==4.14.0.94 numpy==2.4.6
"$work/venv/bin/python" -W ignore - <<'PYTHON'
import os, tempfile
import cv2, numpy as np

cfg = """[net]
channels=1
height=1
width=1

[convolutional]
batch_normalize=1
filters=1
size=1
stride=1
pad=0
activation=linear
"""
# Version 0.2.5, images seen; bias, scale, rolling mean, rolling variance, weight.
weights = np.int32([0, 2, 5, 0, 0]).tobytes() + np.float32([0, 1, 0, 1e-6, 1]).tobytes()
with tempfile.TemporaryDirectory() as folder:
    paths = [os.path.join(folder, name) for name in ("network.cfg", "network.weights")]
    for path, content in zip(paths, (cfg.encode(), weights)):
        with open(path, "wb") as file:
            file.write(content)
    network = cv2.dnn.readNetFromDarknet(*paths)
network.setInput(np.ones((1, 1, 1, 1), np.float32))
gain = float(network.forward().ravel()[0])
print(f"OpenCV {cv2.__version__}: a variance of 1e-6 has a gain of {gain:.1f}; 1/(sqrt(1e-6) + 1e-6) is 999.0")
assert abs(gain - 707.1) < 1, "eps is not under the root any more"
PYTHON
