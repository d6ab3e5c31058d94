#!/usr/bin/env bash
# flax: batch norm takes the variance as E[x^2] - E[x]^2 unless told otherwise
#
# A good guess: the running variance of values with mean 10,000 and variance 1 is 1.
# Seen: flax 0.12.8 stores 8.0 by default. With use_fast_variance=False it stores 0.9989, which is
# right.
# Why it matters here: running statistics that are taken over from flax are wrong for channels whose
# mean is many standard deviations from 0.
# Needs Python 3.11 or newer; installs flax==0.12.8, jax==0.10.2, jaxlib==0.10.2, numpy==2.4.6 in a temporary folder.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check flax==0.12.8 jax==0.10.2 jaxlib==0.10.2 numpy==2.4.6
"$work/venv/bin/python" -W ignore - <<'PYTHON'
import flax, flax.linen as nn, jax, numpy as np

x = (1e4 + np.random.default_rng(0).normal(size=(65536, 1))).astype(np.float32)

def running_variance(**options):
    layer = nn.BatchNorm(use_running_average=False, momentum=0.0, **options)
    variables = layer.init(jax.random.PRNGKey(0), x)
    _, state = layer.apply(variables, x, mutable=["batch_stats"])
    return float(state["batch_stats"]["var"][0])

exact, fast, slow = x.astype(np.float64).var(), running_variance(), running_variance(use_fast_variance=False)
print(f"flax {flax.__version__}: exact {exact:.4f}, by default {fast:.4f}, use_fast_variance=False {slow:.4f}")
assert abs(slow / exact - 1) < 1e-3
assert not 0.5 < fast / exact < 2, "the default has become accurate"
PYTHON
