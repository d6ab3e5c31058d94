#!/usr/bin/env bash
# nnabla: batch norm of values around 1000 with a deviation of 1 is NaN
#
# A good guess: 1000 standard deviations from 0 cost digits of the variance, and f32 has enough of them
# for a number of the right size.
# Seen: nnabla 1.39.0: in training, with 65,536 values per channel, two of three channels get a
# negative running variance, and all of their outputs are NaN.
# Why it matters here: statistics that nnabla stored may be negative or far too large, without an error.
# This crate's evaluation refuses a variance that eps does not lift above 0.
# Needs Python 3.10, for which nnabla's last release has a wheel; installs nnabla==1.39.0, numpy==1.26.4 in
# a temporary folder. PYTHON names another interpreter than python3.10.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"${PYTHON:-python3.10}" -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check nnabla==1.39.0 numpy==1.26.4
"$work/venv/bin/python" -W ignore - <<'PYTHON'
import numpy as np
import nnabla
import nnabla.parametric_functions as PF


def train(mean):
    """The running variances with which batch norm goes on, and which channels of its output have a NaN."""
    values = (np.random.default_rng(0).normal(size=(65536, 3)) + mean).astype(np.float32)
    nnabla.clear_parameters()
    y = PF.batch_normalization(nnabla.Variable.from_numpy_array(values), axes=[1], decay_rate=0.0, batch_stat=True)
    y.forward()
    var = nnabla.get_parameters(grad_only=False)["bn/var"].d.ravel()
    print(f"around {mean}: exact {values.astype(np.float64).var(0)}, nnabla {var}, NaN {np.isnan(y.d).any(0)}")
    return var, np.isnan(y.d).all(0)


var, nan = train(1)
assert np.allclose(var, 1, atol=0.02) and not nan.any(), "around 1, too"
var, nan = train(1000)
assert (var < 0).any() and np.array_equal(var < 0, nan), "the behaviour has changed"
PYTHON
