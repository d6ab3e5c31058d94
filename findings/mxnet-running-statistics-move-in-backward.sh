#!/usr/bin/env bash
# MXNet: the running statistics move in the backward pass
#
# A good guess: a forward pass in training mode updates the running statistics, as in every other
# framework.
# Seen: with MXNet 1.9.1, gluon's BatchNorm has a running variance of 1 after a forward pass under
# autograd.record, and moves it only when backward of its output runs.
# Why it matters here: estimating the statistics anew by forward passes over the data, the usual
# recipe before a batch norm is folded, leaves MXNet's as they were, without a word.
# Needs Python 3.11; installs mxnet==1.9.1, numpy==1.23.5 in a temporary folder.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check mxnet==1.9.1 numpy==1.23.5
"$work/venv/bin/python" -W ignore - <<'PYTHON'
import numpy as np

np.bool = bool  # MXNet uses what later versions of numpy removed.
import mxnet

layer = mxnet.gluon.nn.BatchNorm(momentum=0.0, in_channels=1)
layer.initialize()
x = mxnet.nd.array([[1], [2], [3], [6]])
variances = []
with mxnet.autograd.record():
    y = layer(x)
y.wait_to_read()
variances.append(float(layer.running_var.data().asscalar()))
y.backward()
variances.append(float(layer.running_var.data().asscalar()))
print(f"MXNet {mxnet.__version__}: the running variance of 1, 2, 3, 6 is {variances[0]} after forward, {variances[1]} after backward")
assert variances[0] == 1 and abs(variances[1] - 3.5) < 1e-5, "the forward pass moves them now"
PYTHON
