#!/usr/bin/env bash
# JAX: standardize of 300, 400, 500, 600 in float16 is NaN
#
# A good guess: the function that makes mean 0 and variance 1 takes its sums in float32, as jnp.mean and
# jnp.var of the same library do: the variance of these halves is 12,496, the half nearest to 12,500.
# Seen: jax 0.10.2: jax.nn.standardize squares in float16, whose largest number is 65,504: the variance
# is infinity minus infinity, and the output NaN. In bfloat16 it is a number, and in float32 the right
# one. Given the mean and variance of jnp it is right in float16, too.
# Why it matters here: ordinary activations of a network in half precision are above 256 in front of a
# normalisation; this crate takes statistics in f32 and wider.
# Needs Python 3.11 or newer; installs jax==0.10.2, jaxlib==0.10.2, numpy==2.4.6 in a temporary folder.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check jax==0.10.2 jaxlib==0.10.2 numpy==2.4.6
"$work/venv/bin/python" -W ignore - <<'PYTHON'
import jax, jax.numpy as jnp, numpy as np

numbers = [300, 400, 500, 600]
found = {kind: np.array(jax.nn.standardize(jnp.array(numbers, kind)), np.float32) for kind in ("float16", "bfloat16", "float32")}
half = jnp.array(numbers, "float16")
given = np.array(jax.nn.standardize(half, mean=half.mean(), variance=half.var()), np.float32)
print(f"jax {jax.__version__}: {numbers} standardized: {found}; variance {half.var()}, given that {given}")
right = (np.array(numbers) - 450) / np.std(numbers)
assert np.abs(found["float32"] - right).max() < 1e-3 and np.abs(given - right).max() < 1e-2 and np.isfinite(found["bfloat16"]).all()
assert np.isnan(found["float16"]).all(), "the squares are taken in float32 now"
PYTHON
