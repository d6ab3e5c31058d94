#!/usr/bin/env bash
# e3nn-jax: Dropout drops the same features in every sample of a batch
#
# A good guess: each sample has a mask of its own; the documentation's formula has the index of the batch in
# it, and e3nn for PyTorch does it.
# Seen: e3nn-jax 0.21.0 draws one mask in the shape of the features and broadcasts it: 16 samples of 64
# features have one mask.
# Why it matters here: a gradient step removes units for the whole batch, and averages over a batch vary as if
# it had one sample; map the layer over the samples with a key for each.
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
x = e3nn_jax.IrrepsArray("64x0e", jnp.ones((16, 64)))
key = jax.random.PRNGKey(0)
together = drop.apply({}, None, key, x).array
apart = jax.vmap(lambda key, x: drop.apply({}, None, key, x))(jax.random.split(key, 16), x).array
masks = lambda y: len({tuple(row) for row in (y == 0).tolist()})
print(f"e3nn-jax {e3nn_jax.__version__}: masks of 16 samples: {masks(together)}; mapped over the samples: {masks(apart)}")
assert masks(apart) == 16 and 0.3 < float((together == 0).mean()) < 0.7
assert masks(together) == 1, "each sample has its mask now"
PYTHON
