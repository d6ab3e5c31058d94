#!/usr/bin/env bash
# haiku: the state of init already holds the statistics of its example batch
#
# A good guess: a new batch norm starts with mean 0 and variance 1, or with zeros, whatever the
# batch is whose shape init is given.
# Seen: with dm-haiku 0.0.17 on JAX 0.10.2, `average` of the new state is the mean and the variance
# of the example batch, while `counter` and `hidden` are 0. An evaluation without a single training
# step normalises with them, and the first training step forgets them.
# Why it matters here: `average` of a state that was never trained looks like running statistics,
# and is not a state from which training goes on.
# Needs Python 3.11; installs dm-haiku==0.0.17, jax==0.10.2, numpy==2.4.6 in a temporary folder.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check dm-haiku==0.0.17 jax==0.10.2 numpy==2.4.6
"$work/venv/bin/python" -W ignore - <<'PYTHON'
import haiku, jax, jax.numpy as jnp

bn = haiku.transform_with_state(lambda x: haiku.BatchNorm(True, True, decay_rate=0.9, name="bn")(x, is_training=True))
params, new = bn.init(jax.random.key(0), jnp.array([[1.0], [2.0], [3.0], [6.0]]))
state = {name: float(value.ravel()[0]) for name, value in new["bn/~/var_ema"].items()}
_, trained = bn.apply(params, new, None, jnp.array([[0.0], [10.0]]))
after = float(trained["bn/~/var_ema"]["average"].ravel()[0])
print(f"haiku {haiku.__version__}: a new state of 1, 2, 3, 6 has {state}; after a batch of 0, 10 the variance is {after}")
assert state == {"average": 3.5, "counter": 0, "hidden": 0}, "a new state does not hold the batch any more"
assert abs(after - 25) < 1e-4, "the first step does not forget it any more"
PYTHON
