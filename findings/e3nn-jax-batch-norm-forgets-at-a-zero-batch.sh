#!/usr/bin/env bash
# e3nn-jax: a batch that is known to be zero resets the running statistics
#
# A good guess: a batch in which a type of features is marked as zero moves its running statistics a little,
# by the momentum, or not at all.
# Seen: e3nn-jax 0.21.0 sets them to those of a new layer: after training on data around 5 with a variance of
# 4, one batch with zero_flags makes the mean 0 and the variance 1. The same zeros without the mark move them
# by the momentum.
# Why it matters here: a single such batch, as from a product that is zero by symmetry, loses all that was
# averaged.
# Needs Python 3.11 or newer; installs e3nn-jax==0.21.0, jax==0.10.2, jaxlib==0.10.2, dm-haiku==0.0.17,
# numpy==2.4.6 in a temporary folder.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check e3nn-jax==0.21.0 jax==0.10.2 jaxlib==0.10.2 dm-haiku==0.0.17 numpy==2.4.6
"$work/venv/bin/python" -W ignore - <<'PYTHON'
import e3nn_jax, haiku, jax, jax.numpy as jnp
from e3nn_jax.haiku import BatchNorm

model = haiku.without_apply_rng(haiku.transform_with_state(lambda x: BatchNorm(momentum=0.1)(x)))
data = e3nn_jax.IrrepsArray("1x0e", 5 + 2 * jax.random.normal(jax.random.PRNGKey(0), (256, 1)))
parameters, state = model.init(jax.random.PRNGKey(1), data)
for _ in range(100):
    _, state = model.apply(parameters, state, data)


def statistics(state):
    (module,) = state.values()
    return [round(module[name].item(), 3) for name in ("running_mean", "running_var")]


zeros = jnp.zeros((256, 1))
marked, plain = (model.apply(parameters, state, e3nn_jax.IrrepsArray("1x0e", zeros, zero_flags=flags))[1] for flags in ((True,), (False,)))
print(f"e3nn-jax {e3nn_jax.__version__}: running mean and variance {statistics(state)}, after zeros {statistics(plain)}, after zeros that are marked {statistics(marked)}")
assert statistics(state)[0] > 4.5 and statistics(plain)[0] > 4
assert statistics(marked) == [0, 1], "the statistics are kept now"
PYTHON
