#!/usr/bin/env bash
# JAX: a Python callback inside jit runs with subnormals flushed to zero
#
# A good guess: numpy gives the same results in a callback as outside of it, because both run on the
# main thread of one process.
# Seen: jax 0.10.2 calls back on the main thread with flush-to-zero set: half of 2e-40 is 0 in the
# callback and 1e-40 outside.
# Why it matters here: a kernel that is called from JAX has another floating-point environment than
# the same kernel called from numpy.
# Needs Python 3.11 or newer; installs jax==0.10.2, jaxlib==0.10.2, numpy==2.4.6 in a temporary folder.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check jax==0.10.2 jaxlib==0.10.2 numpy==2.4.6
"$work/venv/bin/python" -W ignore - <<'PYTHON'
import threading
import jax, jax.numpy as jnp, numpy as np

tiny, seen = np.full(64, 2e-40, np.float32), []

def callback(x):
    seen.append((float((tiny * np.float32(0.5))[0]), threading.current_thread() is threading.main_thread()))
    return x

call = jax.jit(lambda x: jax.pure_callback(callback, jax.ShapeDtypeStruct(x.shape, x.dtype), x))
call(jnp.ones(3)).block_until_ready()
outside = float((tiny * np.float32(0.5))[0])
inside, main_thread = seen[0]
print(f"jax {jax.__version__}: half of 2e-40 is {inside:.3g} in the callback (main thread: {main_thread}), {outside:.3g} outside")
assert outside > 0 and inside == 0, "the callback keeps subnormals"
PYTHON
