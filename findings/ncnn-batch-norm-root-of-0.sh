#!/usr/bin/env bash
# ncnn: a batch norm whose variance and eps are 0 divides by 1e-4
#
# A good guess: a channel that never varied, with the eps of 0 that a BatchNorm of ncnn has unless
# its file names another, gives an infinity or NaN, and so nobody ships it; or the engine adds some
# eps of its own under the root everywhere.
# Seen: ncnn 1.0.20261020 replaces a root of exactly 0 by 1e-4, and nothing else: the gain is 1e4 for
# a variance of 0, and 1e5 for one of 1e-10.
# Why it matters here: fold_into_previous refuses a variance plus eps of 0, and a fold that has to
# agree with ncnn takes a variance of 1e-8 there.
# Needs Python 3.11; installs ncnn==1.0.20261020, numpy==2.4.6 in a temporary folder.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check ncnn==1.0.20261020 numpy==2.4.6
"$work/venv/bin/python" -W ignore - "$work" <<'PYTHON'
import sys
import ncnn, numpy as np

folder = sys.argv[1]
with open(f"{folder}/net.param", "w") as file:
    file.write("7767517\n2 2\nInput data 0 1 x\nBatchNorm bn 1 1 x y 0=2\n")
# Slope, mean, variance and bias of two channels.
np.float32([1, 1, 0, 0, 0, 1e-10, 0, 0]).tofile(f"{folder}/net.bin")
network = ncnn.Net()
assert network.load_param(f"{folder}/net.param") == 0 and network.load_model(f"{folder}/net.bin") == 0
extractor = network.create_extractor()
extractor.input("x", ncnn.Mat(np.ones((2, 1, 1), np.float32)).clone())
gains = np.array(extractor.extract("y")[1]).ravel()
print(f"ncnn {ncnn.__version__}: without an eps, a variance of 0 has a gain of {gains[0]:.6g}, and one of 1e-10 of {gains[1]:.6g}")
assert abs(gains[0] - 1e4) < 1, "a root of 0 is not 1e-4 any more"
assert abs(gains[1] - 1e5) < 10, "a variance of 1e-10 is not taken as it is"
PYTHON
