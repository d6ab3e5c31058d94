#!/usr/bin/env bash
# e3nn-jax: Dropout has one mask for all types of features with the same multiplicity
#
# A good guess: features of different types are dropped independently: scalars and vectors, even and odd.
# Seen: e3nn-jax 0.21.0 uses the key once for each type: of 64 even and 64 odd scalars, the same are dropped
# in both, and of 64 vectors, too. Types with another multiplicity differ.
# Why it matters here: a unit's scalar and its vector always go together, so that fewer networks are averaged
# than the masks seem to make.
# Needs Python 3.11 or newer; installs e3nn-jax==0.21.0, jax==0.10.2, jaxlib==0.10.2, dm-haiku==0.0.17,
# numpy==2.4.6 in a temporary folder.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check e3nn-jax==0.21.0 jax==0.10.2 jaxlib==0.10.2 dm-haiku==0.0.17 numpy==2.4.6
"$work/venv/bin/python" -W ignore - <<'PYTHON'
import e3nn_jax, haiku, jax, jax.numpy as jnp
from e3nn_jax.haiku import Dropout

drop = haiku.transform(lambda key, x: Dropout(0.5)(key, x))


def masks(irreps):
    """For each type, which of its features are dropped."""
    x = e3nn_jax.IrrepsArray(irreps, jnp.ones((1, e3nn_jax.Irreps(irreps).dim)))
    return [(chunk[0, :, 0] == 0).tolist() for chunk in drop.apply({}, None, jax.random.PRNGKey(0), x).chunks]


even, odd, vector = masks("64x0e + 64x0o + 64x1o")
first, second = masks("64x0e + 63x0o")
print(f"e3nn-jax {e3nn_jax.__version__}: 64 of each: even scalars and odd ones dropped alike: {even == odd}, vectors: {even == vector}; 64 and 63: {first[:63] == second}")
assert 16 < sum(even) < 48
assert even == odd == vector, "the types are independent now"
PYTHON
