#!/usr/bin/env bash
# JAX: the gradient of gelu at 1e20 is NaN, and its value is right
#
# A good guess: far above 0 gelu is x and its gradient 1: where the value is finite and right, the gradient
# is, too.
# Seen: jax 0.10.2: gelu in its default form, by tanh, gives 1e20 with a gradient of NaN in f32, because
# the derivative of the cube in it overflows. With approximate=False the gradient is 1.
# Why it matters here: one outlier behind a batch norm with a small running variance makes all
# gradients before it NaN, while the loss and all activations are finite.
# Needs Python 3.11 or newer; installs jax==0.10.2, jaxlib==0.10.2, numpy==2.4.6 in a temporary folder.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check jax==0.10.2 jaxlib==0.10.2 numpy==2.4.6
"$work/venv/bin/python" -W ignore - <<'PYTHON'
import jax, jax.numpy as jnp

x = jnp.float32(1e20)
value, gradient = jax.value_and_grad(jax.nn.gelu)(x)
exact = jax.grad(lambda v: jax.nn.gelu(v, approximate=False))(x)
print(f"jax {jax.__version__}: gelu of 1e20 is {value}, its gradient {gradient}; without the approximation {exact}")
assert value == x and exact == 1
assert jnp.isnan(gradient), "the gradient is finite now"
PYTHON
