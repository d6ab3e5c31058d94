"""flax's BatchNorm, relu and Dropout in float64 are exact next to the layer, with the mask that flax draws."""

import flax.nnx
import jax
import jax.numpy as jnp
import numpy
import pytest

import normdrop_jax

U = 2.0**-24
EPS, MOMENTUM = 1e-5, 0.1
SHAPES = [((256, 32), -1), ((64, 8, 8, 16), -1), ((32, 24, 9, 7), 1)]


def exactly(shape, channel_axis, p, key, x, weight, bias, residual, dy, evaluation):
    """y, new running mean and variance, gradients and the kept elements by flax in float64."""
    with jax.enable_x64(True):
        wide = lambda array: jnp.asarray(numpy.asarray(array, numpy.float64))
        dropout = flax.nnx.Dropout(p)

        def function(x, weight, bias, residual):
            norm = flax.nnx.BatchNorm(weight.size, axis=channel_axis, epsilon=EPS, momentum=1 - MOMENTUM, use_running_average=evaluation,
                                      use_fast_variance=False, rngs=flax.nnx.Rngs(0))  # fmt: skip
            norm.scale, norm.bias = flax.nnx.Param(weight), flax.nnx.Param(bias)
            norm.mean, norm.var = (flax.nnx.BatchStat(jnp.full(weight.shape, value)) for value in (0.5, 2.0))
            y = dropout(jax.nn.relu(norm(x) + residual), rngs=key)
            return y, (norm.mean[...], norm.var[...])

        y, back, (mean, var) = jax.vjp(function, *map(wide, (x, weight, bias, residual)), has_aux=True)
        keep = dropout(jnp.ones(shape), rngs=key) != 0
        return tuple(numpy.asarray(array) for array in (y, mean, var, *back(wide(dy)), keep))


@pytest.mark.parametrize("evaluation", [False, True])
@pytest.mark.parametrize("mean", [0.0, 3.0, 100.0])
@pytest.mark.parametrize("shape, channel_axis", SHAPES)
def test_equal_to_flax_within_the_bounds(shape, channel_axis, mean, evaluation):
    p, channels = 0.5, shape[channel_axis]
    axis = channel_axis % len(shape)
    generator = numpy.random.default_rng(len(shape) + axis + int(mean))
    x = (generator.standard_normal(shape) + mean).astype(numpy.float32)
    residual, dy = (generator.standard_normal(shape).astype(numpy.float32) for _ in range(2))
    weight, bias = (generator.standard_normal(channels).astype(numpy.float32) for _ in range(2))
    y, new_mean, new_var, dx, dw, db, dr, keep = exactly(shape, channel_axis, p, jax.random.key(5), x, weight, bias, residual, dy, evaluation)

    layer = normdrop_jax.Layer("relu", p, eps=EPS, momentum=MOMENTUM, running_var="biased", channel_axis=channel_axis)
    mask = numpy.packbits(keep.reshape(-1), bitorder="little")
    running = normdrop_jax.Running(jnp.full(channels, 0.5), jnp.full(channels, 2.0))
    run = (lambda *a: (layer.eval(a[0], running, *a[1:3], mask=mask, residual=a[3]), running)) if evaluation else (
        lambda *a: layer.train(a[0], *a[1:3], running, mask=mask, residual=a[3]))  # fmt: skip
    found, back, new = jax.jit(lambda x, w, b, r: jax.vjp(run, x, w, b, r, has_aux=True))(x, weight, bias, residual)
    grads = back(dy)

    # The scales of docs/bounds.md, per channel.
    along = tuple(i for i in range(len(shape)) if i != axis)
    wide = lambda array: numpy.expand_dims(numpy.asarray(array, numpy.float64), along)
    center, variance = (wide(numpy.full(channels, 0.5)), wide(numpy.full(channels, 2.0))) if evaluation else (
        x.astype(float).mean(along, keepdims=True), x.astype(float).var(along, keepdims=True))  # fmt: skip
    inv_std = 1 / numpy.sqrt(variance + numpy.float32(EPS))
    size = numpy.maximum(abs((x - center) * inv_std), 1)
    g = abs(dr)
    slope = abs(wide(weight)) * inv_std
    average = lambda values: values.mean(along, keepdims=True)
    scales = {
        "y": (found, y, (abs(wide(weight)) * size + abs(wide(bias)) + abs(residual)) / (1 - p), 4),
        "dx": (grads[0], dx, slope * g if evaluation else slope * (g + average(g) + size * average(g * size)), 2 if evaluation else 5),
        "d_weight": (grads[1], dw, (g * size).sum(along), 5),
        "d_bias": (grads[2], db, g.sum(along), 3),
        "d_residual": (grads[3], dr, g, 1),
    }
    if not evaluation:
        scales["running mean"] = (new.mean, new_mean, numpy.maximum(abs(new_mean), 1), 2)
        scales["running var"] = (new.var, new_var, new_var, 8)
    for name, (result, exact, scale, bound) in scales.items():
        error = abs(numpy.asarray(result, numpy.float64) - exact)
        worst = (error / numpy.where(scale == 0, numpy.where(error == 0, 1, numpy.nan), scale)).max() / U
        print(f"{name} {worst:.2f} u")
        assert worst <= bound, (name, worst)
    assert (numpy.asarray(found)[~keep].view(numpy.uint32) == 0).all(), "a dropped element is +0.0"


def test_the_numbers_would_notice_float32():
    """flax in float32 is not within the bounds where the mean is a hundred standard deviations: the test above can fail."""
    generator = numpy.random.default_rng(0)
    x = (generator.standard_normal((256, 32)) + 100).astype(numpy.float32)
    norm = flax.nnx.BatchNorm(32, epsilon=EPS, use_running_average=False, rngs=flax.nnx.Rngs(0))
    exact = (x - x.astype(float).mean(0)) / numpy.sqrt(x.astype(float).var(0) + EPS)
    error = lambda y: (abs(numpy.asarray(y, float) - exact) / numpy.maximum(abs(exact), 1)).max() / U
    assert error(normdrop_jax.Layer(eps=EPS).train(x)[0]) <= 4
    assert error(norm(x)) > 40
