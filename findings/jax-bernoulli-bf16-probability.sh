#!/usr/bin/env bash
# JAX: bernoulli rounds a bf16 probability, and the uniform numbers too, before it draws
#
# A good guess: keeping with probability 0.99 drops 1 %, or at worst the 1.17 % that 0.99 as bf16
# says.
# Seen: jax 0.10.2: 0.99 as bfloat16 is 0.98828125, the uniform numbers are of the same type, and
# 0.78 % are dropped.
# Why it matters here: a hand-written dropout in a mixed-precision network drops at another rate
# than its number says.
# Needs Python 3.11 or newer; installs jax==0.10.2, jaxlib==0.10.2, numpy==2.4.6 in a temporary folder.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check jax==0.10.2 jaxlib==0.10.2 numpy==2.4.6
"$work/venv/bin/python" -W ignore - <<'PYTHON'
import jax, jax.numpy as jnp

count, key = 1 << 22, jax.random.PRNGKey(1)
dropped = lambda p: 1 - float(jax.random.bernoulli(key, p, (count,)).mean())
f32, bf16 = dropped(jnp.float32(0.99)), dropped(jnp.bfloat16(0.99))
print(f"jax {jax.__version__}: dropped {100 * f32:.3f} % with an f32 of 0.99, {100 * bf16:.3f} % with a bf16")
assert abs(f32 - 0.01) < 3e-4
assert abs(bf16 - 0.00776) < 3e-4, "a bf16 probability is drawn otherwise now"
PYTHON
