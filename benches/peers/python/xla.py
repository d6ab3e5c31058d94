"""JAX: what flax's `BatchNorm`, `relu` or nothing, and `Dropout` compute, each direction compiled as a whole.

The statistics are flax's default, the mean of squares less the square of the mean, which is the fast one.
"""

import jax
import jax.numpy as jnp
import numpy

from peer import EPS, MOMENTUM, P, serve


def make_ops(layout, dims):
    n, channels, *spatial = dims
    if layout == "last":
        shape, axis = (n, *spatial, channels), len(dims) - 1
    else:
        shape, axis = tuple(dims), 1
    reduced = tuple(other for other in range(len(dims)) if other != axis)
    per_channel = [1] * len(dims)
    per_channel[axis] = channels

    def norm(x, weight, bias, running):
        mean = x.mean(reduced)
        var = jnp.maximum(0.0, (x * x).mean(reduced) - mean * mean)
        factor = weight * jax.lax.rsqrt(var + EPS)
        y = (x - mean.reshape(per_channel)) * factor.reshape(per_channel) + bias.reshape(per_channel)
        running = tuple((1 - MOMENTUM) * old + MOMENTUM * new for old, new in zip(running, (mean, var)))
        return y, running

    def layer(x, weight, bias, running, key, activation):
        y, running = norm(x, weight, bias, running)
        y = activation(y)
        keep = jax.random.bernoulli(key, 1 - P, y.shape)
        return jnp.where(keep, y / (1 - P), 0.0), running

    def forward(activation):
        @jax.jit
        def forward(inputs, running, key):
            key, now = jax.random.split(key)
            y, pullback, running = jax.vjp(lambda *inputs: layer(*inputs, running, now, activation), *inputs, has_aux=True)
            return y, pullback, running, key

        return forward

    @jax.jit
    def norm_forward(inputs, running):
        return jax.vjp(lambda *inputs: norm(*inputs, running), *inputs, has_aux=True)

    backward = jax.jit(lambda pullback, grad_output: pullback(grad_output))

    rng = numpy.random.default_rng(1)

    def uniform(low, high, shape):
        return jnp.asarray(rng.uniform(low, high, shape).astype(numpy.float32))

    inputs = (uniform(-1, 2, shape), uniform(0.5, 1.5, channels), uniform(-0.5, 0.5, channels))
    grad_output = uniform(-1, 1, shape)
    state = {"running": (jnp.zeros(channels), jnp.ones(channels)), "key": jax.random.key(1)}

    def with_dropout(forward):
        def step():
            y, saved, state["running"], state["key"] = forward(inputs, state["running"], state["key"])
            jax.block_until_ready((y, saved))

        pullback = forward(inputs, state["running"], state["key"])[1]
        return step, lambda: jax.block_until_ready(backward(pullback, grad_output))

    def norm_step():
        y, saved, state["running"] = norm_forward(inputs, state["running"])
        jax.block_until_ready((y, saved))

    norm_pullback = norm_forward(inputs, state["running"])[1]
    plain, plain_backward = with_dropout(forward(lambda y: y))
    relu, relu_backward = with_dropout(forward(jax.nn.relu))
    return {
        "forward": plain,
        "backward": plain_backward,
        "relu-forward": relu,
        "relu-backward": relu_backward,
        "norm-forward": norm_step,
        "norm-backward": lambda: jax.block_until_ready(backward(norm_pullback, grad_output)),
    }


jax.config.update("jax_platforms", "cpu")
serve(jax.__version__, make_ops)
