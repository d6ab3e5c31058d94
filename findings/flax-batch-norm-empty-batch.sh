#!/usr/bin/env bash
# flax: an empty batch makes the running statistics NaN for good
#
# A good guess: a training batch without samples changes nothing, as in PyTorch, or is an error.
# Seen: flax 0.12.8 returns an empty output without an error, and the running mean and variance are
# NaN from then on.
# Why it matters here: the last part of a data set that was filtered to nothing ends a training run;
# an import must look for NaN.
# Needs Python 3.11 or newer; installs flax==0.12.8, jax==0.10.2, jaxlib==0.10.2, numpy==2.4.6 in a temporary folder.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check flax==0.12.8 jax==0.10.2 jaxlib==0.10.2 numpy==2.4.6
"$work/venv/bin/python" -W ignore - <<'PYTHON'
import flax, flax.linen as nn, jax, numpy as np

layer = nn.BatchNorm(use_running_average=False, momentum=0.9)
variables = layer.init(jax.random.PRNGKey(0), np.ones((2, 1), np.float32))
y, state = layer.apply(variables, np.ones((0, 1), np.float32), mutable=["batch_stats"])
mean, var = (float(state["batch_stats"][name][0]) for name in ("mean", "var"))
print(f"flax {flax.__version__}: output of shape {y.shape}, running mean {mean}, running variance {var}")
assert mean != mean and var != var, "an empty batch leaves numbers now"
PYTHON
