"""flax's BatchNorm, relu and Dropout in float64 are exact next to the layer, with the mask that flax draws."""

import flax.nnx
import jax
import jax.numpy as jnp
import numpy
import pytest

import normdrop_jax
import normdrop_jax.flax

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
@pytest.mark.parametrize("mean, dtype", [(0.0, "float32"), (3.0, "float32"), (100.0, "float32"), (3.0, "bfloat16"), (3.0, "float16")])
@pytest.mark.parametrize("shape, channel_axis", SHAPES)
def test_equal_to_flax_within_the_bounds(shape, channel_axis, mean, dtype, evaluation):
    """Of halves, half a unit in the last place of the type comes on top."""
    p, channels = 0.5, shape[channel_axis]
    axis = channel_axis % len(shape)
    generator = numpy.random.default_rng(len(shape) + axis + int(mean))
    x = (generator.standard_normal(shape) + mean).astype(numpy.float32)
    residual, dy = (generator.standard_normal(shape).astype(numpy.float32) for _ in range(2))
    # As the type has them; flax in float64 gets the same numbers.
    x, residual, dy = (array.astype(jnp.dtype(dtype)).astype(numpy.float32) for array in (x, residual, dy))
    weight, bias = (generator.standard_normal(channels).astype(numpy.float32) for _ in range(2))
    y, new_mean, new_var, dx, dw, db, dr, keep = exactly(shape, channel_axis, p, jax.random.key(5), x, weight, bias, residual, dy, evaluation)

    layer = normdrop_jax.Layer("relu", p, eps=EPS, momentum=MOMENTUM, running_var="biased", channel_axis=channel_axis)
    mask = numpy.packbits(keep.reshape(-1), bitorder="little")
    running = normdrop_jax.Running(jnp.full(channels, 0.5), jnp.full(channels, 2.0))
    run = (lambda *a: (layer.eval(a[0], running, *a[1:3], mask=mask, residual=a[3]), running)) if evaluation else (
        lambda *a: layer.train(a[0], *a[1:3], running, mask=mask, residual=a[3]))  # fmt: skip
    found, back, new = jax.jit(lambda x, w, b, r: jax.vjp(run, x, w, b, r, has_aux=True))(
        x.astype(jnp.dtype(dtype)), weight, bias, residual.astype(jnp.dtype(dtype)))
    grads = back(dy.astype(jnp.dtype(dtype)))
    assert found.dtype == grads[0].dtype == grads[3].dtype == dtype

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
        # Half a unit in the last place of the largest that the result of float32 may be.
        size = abs(exact) + bound * U * scale
        digits, least = {"bfloat16": (8, -133), "float16": (11, -24), "float32": (None, None)}[str(result.dtype)]
        rounding = 0 if digits is None else numpy.exp2(numpy.maximum(numpy.frexp(size)[1] - digits, least) - 1.0)
        error = numpy.maximum(error - rounding, 0)
        worst = (error / numpy.where(scale == 0, numpy.where(error == 0, 1, numpy.nan), scale)).max() / U
        print(f"{dtype} {name} {worst:.2f} u")
        assert worst <= bound, (name, worst)
    assert (numpy.asarray(found, numpy.float32)[~keep].view(numpy.uint32) == 0).all(), "a dropped element is +0.0"


def test_the_numbers_would_notice_float32():
    """flax in float32 is not within the bounds where the mean is a hundred standard deviations: the test above can fail."""
    generator = numpy.random.default_rng(0)
    x = (generator.standard_normal((256, 32)) + 100).astype(numpy.float32)
    norm = flax.nnx.BatchNorm(32, epsilon=EPS, use_running_average=False, rngs=flax.nnx.Rngs(0))
    exact = (x - x.astype(float).mean(0)) / numpy.sqrt(x.astype(float).var(0) + EPS)
    error = lambda y: (abs(numpy.asarray(y, float) - exact) / numpy.maximum(abs(exact), 1)).max() / U
    assert error(normdrop_jax.Layer(eps=EPS).train(x)[0]) <= 4
    assert error(norm(x)) > 40


class Network(flax.nnx.Module):
    """A linear layer, and batch norm, relu and dropout of flax or of normdrop."""

    def __init__(self, fused, rngs):
        self.linear = flax.nnx.Linear(4, 16, rngs=rngs)
        self.norm = normdrop_jax.flax.NormDrop(16, "relu", 0.25, rngs=rngs) if fused else flax.nnx.BatchNorm(16, rngs=rngs)
        self.dropout = flax.nnx.data(None) if fused else flax.nnx.Dropout(0.25, rngs=rngs)

    def __call__(self, x):
        x = self.norm(self.linear(x))
        return x if self.dropout is None else self.dropout(jax.nn.relu(x))


def test_the_module_is_what_flax_has():
    """The module has flax's parameters and statistics, moves the statistics as flax does, drops in training alone, and draws a new
    mask in each call, inside `flax.nnx.jit` and `flax.nnx.grad`."""
    x = jnp.asarray(numpy.random.default_rng(0).standard_normal((64, 4), dtype=numpy.float32)) + 1
    models = [Network(fused, flax.nnx.Rngs(0)) for fused in (True, False)]
    shapes = [{path: leaf.shape for path, leaf in flax.nnx.to_flat_state(flax.nnx.state(model, (flax.nnx.Param, flax.nnx.BatchStat)))} for model in models]
    assert shapes[0] == shapes[1]

    @flax.nnx.jit
    def step(model):
        loss = lambda model: (model(x) ** 2).mean()
        value, grads = flax.nnx.value_and_grad(loss)(model)
        return value, grads

    for model in models:
        model.train()
    first, second = step(models[0]), step(models[0])
    assert first[0] != second[0], "a new mask"
    assert all((leaf[...] != 0).any() for leaf in jax.tree.leaves(first[1], is_leaf=lambda leaf: isinstance(leaf, flax.nnx.Variable))[:2])
    for _ in range(2):
        step(models[1])
    for name in ("mean", "var"):
        numpy.testing.assert_allclose(getattr(models[0].norm, name)[...], getattr(models[1].norm, name)[...], rtol=1e-5, atol=1e-6)
    for model in models:
        model.eval()
    numpy.testing.assert_allclose(models[0](x), models[1](x), rtol=1e-5, atol=1e-6)
    assert (models[0](x) == models[0](x)).all()


def test_the_module_of_given_masks_and_residuals():
    x = jnp.asarray(numpy.random.default_rng(0).standard_normal((32, 3), dtype=numpy.float32))
    module = normdrop_jax.flax.NormDrop(3, p=0.5, use_scale=False, use_bias=False, rngs=flax.nnx.Rngs(0))
    mask = module.layer.mask(x.shape, 5)
    expected = module.layer.train(x, residual=2 * x, mask=mask)[0]
    assert (module(x, 2 * x, mask=mask) == expected).all()
