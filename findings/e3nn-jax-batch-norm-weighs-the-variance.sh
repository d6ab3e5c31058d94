#!/usr/bin/env bash
# e3nn, e3nn-jax: the two batch norms have different formulas for eps
#
# A good guess: the layers of the two libraries, which one group writes, give the same numbers with the same
# settings.
# Seen: e3nn 0.6.0 divides by the root of variance + eps, as PyTorch does; e3nn-jax 0.21.0 by the root of (1 -
# eps) * variance + eps, which is 1 for a variance of 1. With eps 0.5, 1 and 3 become -0.816 and 0.816 in the
# one, and -1 and 1 in the other.
# Why it matters here: weights that are taken over evaluate to other numbers, most for variances far above 1
# and a large eps; multiply the weight by 1/sqrt(1 - eps), and use eps/(1 - eps).
# Needs Python 3.11 or newer; installs e3nn==0.6.0, e3nn-jax==0.21.0, jax==0.10.2, jaxlib==0.10.2,
# dm-haiku==0.0.17, torch==2.15.0, numpy==2.4.6 in a temporary folder.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check e3nn==0.6.0 e3nn-jax==0.21.0 jax==0.10.2 jaxlib==0.10.2 dm-haiku==0.0.17 torch==2.15.0 numpy==2.4.6
"$work/venv/bin/python" -W ignore - <<'PYTHON'
import e3nn, e3nn.nn, e3nn_jax, haiku, jax, jax.numpy as jnp, torch
from e3nn_jax.haiku import BatchNorm

values, eps = [[1.0], [3.0]], 0.5
with torch.no_grad():
    pytorch = e3nn.nn.BatchNorm("1x0e", eps=eps)(torch.tensor(values)).flatten().tolist()
model = haiku.without_apply_rng(haiku.transform_with_state(lambda x: BatchNorm(eps=eps)(x)))
x = e3nn_jax.IrrepsArray("1x0e", jnp.array(values))
output, _ = model.apply(*model.init(jax.random.PRNGKey(0), x), x)
on_jax = output.array.flatten().tolist()
print(f"1 and 3 with eps 0.5: e3nn {e3nn.__version__} {pytorch}, e3nn-jax {e3nn_jax.__version__} {on_jax}")
assert abs(pytorch[1] - 1.5**-0.5) < 1e-5
assert abs(on_jax[1] - 1) < 1e-5, "the formulas agree now"
PYTHON
