"""The layer against the formulas in float64, on random shapes, and without any copy."""

import math
import multiprocessing
import os
import pickle
import re
import signal
import threading
import time

import numpy
import pytest

import normdrop
from conftest import missing
from normdrop._arguments import BFLOAT16

# In units of 2^-24 of the scale of each result; the crate's documentation promises 4 and 5, the rest is for the activation.
U = 2.0**-24

LAYOUTS = [("NC", 2), ("NCL", 3), ("NCHW", 4), ("NCDHW", 5), ("NLC", 3), ("NHWC", 4), ("NDHWC", 5)]


def act(name, z, slope=0.25, alpha=0.75):
    with numpy.errstate(over="ignore"):
        return {
            "identity": lambda: z,
            "relu": lambda: numpy.maximum(z, 0),
            "relu6": lambda: numpy.clip(z, 0, 6),
            "leaky_relu": lambda: numpy.where(z > 0, z, slope * z),
            "hard_swish": lambda: z * numpy.clip(z + 3, 0, 6) / 6,
            "sigmoid": lambda: 1 / (1 + numpy.exp(-z)),
            "tanh": lambda: numpy.tanh(z),
            "silu": lambda: z / (1 + numpy.exp(-z)),
            "gelu_tanh": lambda: z / 2 * (1 + numpy.tanh(numpy.sqrt(2 / numpy.pi) * (z + 0.044715 * z**3))),
            "gelu": lambda: z / 2 * (1 + numpy.vectorize(math.erf)(z / math.sqrt(2))),
            "elu": lambda: numpy.where(z > 0, z, alpha * numpy.expm1(z)),
            "selu": lambda: 1.0507009873554805 * numpy.where(z > 0, z, 1.6732632423543772 * numpy.expm1(z)),
            "mish": lambda: z * numpy.tanh(numpy.log1p(numpy.exp(z))),
            "softplus": lambda: numpy.log1p(numpy.exp(z)),
        }[name]()


def slope_of(name, z):
    return (act(name, z + 1e-5) - act(name, z - 1e-5)) / 2e-5


def unpacked(layer, mask):
    """The mask as numpy unpacks it, in the shape of the tensor."""
    if mask is None:
        return numpy.ones(layer.shape, bool)
    bits = numpy.unpackbits(mask, count=layer.mask_bits, bitorder="little").astype(bool)
    return bits.reshape(layer.shape)


class Problem:
    def __init__(self, layout, dimensions, activation, seed, p=0.3):
        random = numpy.random.default_rng(seed)
        self.shape = tuple(random.integers(2, 9, dimensions))
        self.layer = normdrop.Layer(layout, self.shape, activation, p=p, slope=0.25, alpha=0.75)
        self.axis = layout.index("C")
        channels = self.shape[self.axis]
        new = lambda *shape: random.normal(size=shape).astype(numpy.float32)
        self.x, self.grad, self.residual = new(*self.shape) + 3, new(*self.shape), new(*self.shape)
        self.parameters = {"weight": new(channels), "bias": new(channels)}
        self.running = {"running_mean": new(channels), "running_var": new(channels) ** 2 + numpy.float32(0.5)}
        self.mask = self.layer.mask(seed)

    def along(self, values):
        """Values per channel, to be combined with a tensor."""
        shape = [1] * len(self.shape)
        shape[self.axis] = -1
        return numpy.asarray(values, numpy.float64).reshape(shape)

    def reference(self, statistics=None):
        """Output and gradients by the formulas."""
        others = tuple(axis for axis in range(len(self.shape)) if axis != self.axis)
        x, grad = self.x.astype(numpy.float64), self.grad.astype(numpy.float64)
        mean, var = statistics or (x.mean(others), x.var(others))
        inv_std = 1 / numpy.sqrt(self.along(var) + numpy.float32(1e-5))
        xhat = (x - self.along(mean)) * inv_std
        weight, bias = self.along(self.parameters["weight"]), self.along(self.parameters["bias"])
        z = xhat * weight + bias + self.residual
        keep, scale = unpacked(self.layer, self.mask), 1 / (1 - self.layer._layer.p)
        name = normdrop.ACTIVATIONS[self.layer._layer.activation]
        y = numpy.where(keep, act(name, z) * scale, 0)
        g = numpy.where(keep, slope_of(name, z) * scale * grad, 0)
        d_bias, d_weight = g.sum(others), (g * xhat).sum(others)
        rest = 0 if statistics else (self.along(d_bias) + xhat * self.along(d_weight)) / (x.size / x.shape[self.axis])
        return y, normdrop.Gradients(weight * inv_std * (g - rest), d_weight, d_bias, g)


def close(got, wanted, tolerance=2e-5):
    numpy.testing.assert_allclose(got, wanted, rtol=tolerance, atol=tolerance)


def same(got, wanted):
    """The same bits."""
    numpy.testing.assert_array_equal(got.view(numpy.uint8), wanted.view(numpy.uint8))


def check_gradients(got, wanted):
    assert len(got) == len(wanted)
    for one, other in zip(got, wanted):
        close(one, other)


@pytest.mark.parametrize("activation", normdrop.ACTIVATIONS)
@pytest.mark.parametrize("layout, dimensions", LAYOUTS)
def test_train_eval_and_their_gradients(layout, dimensions, activation):
    problem = Problem(layout, dimensions, activation, seed=dimensions)
    layer, arguments = problem.layer, {**problem.parameters, "mask": problem.mask, "residual": problem.residual}
    y, gradients = problem.reference()
    got, saved = layer.train(problem.x, **arguments)
    close(got, y)
    check_gradients(layer.backward(problem.grad, problem.x, saved, residual_gradient=True, **arguments), gradients)

    y, gradients = problem.reference(tuple(problem.running.values()))
    close(layer.eval(problem.x, **problem.running, **arguments), y)
    check_gradients(layer.backward(problem.grad, problem.x, **problem.running, residual_gradient=True, **arguments), gradients)


@pytest.mark.parametrize("p", [0.0, 0.3])
@pytest.mark.parametrize("activation", normdrop.ACTIVATIONS)
@pytest.mark.parametrize("layout, dimensions", LAYOUTS)
def test_gates_take_the_place_of_mask_residual_and_bias(layout, dimensions, activation, p):
    problem = Problem(layout, dimensions, activation, seed=dimensions, p=p)
    layer, x, grad = problem.layer, problem.x, problem.grad
    assert layer.has_gates == (activation in ("identity", "relu"))
    mask = problem.mask if p else None
    arguments = {**problem.parameters, "mask": mask, "residual": problem.residual}
    gates = numpy.full(layer.gates_len, 0xA5, numpy.uint8)
    y, saved = layer.train(x, **arguments)
    if not layer.has_gates:
        for refused in (lambda: layer.train(x, **arguments, gates=gates), lambda: layer.backward(grad, x, saved, gates=gates)):
            with pytest.raises(normdrop.NormdropError, match="RELU have gates"):
                refused()
        return
    same(layer.train(x, **arguments, gates=gates)[0], y)
    is_open = unpacked(layer, mask) & ((y != 0) if activation == "relu" else True)
    same(gates, numpy.packbits(is_open.reshape(-1), bitorder="little"))
    wanted = layer.backward(grad, x, saved, residual_gradient=True, **arguments)
    weight = problem.parameters["weight"]
    given = {"weight": weight, "gates": gates}
    for got, other in zip(layer.backward(grad, x, saved, residual_gradient=True, **given), wanted):
        same(got, other)
    if p:
        # In the place of the mask.
        over = mask.copy()
        same(layer.train(x, **{**arguments, "mask": over}, gates=over)[0], y)
        same(over, gates)

    # In phases, and past the running statistics.
    of_part = numpy.zeros_like(gates)
    same(layer.apply(x, saved, **arguments, gates=of_part), y)
    same(of_part, gates)
    sums = layer.reduce(grad, x, saved, **arguments)
    same(layer.reduce(grad, x, saved, **given), sums)
    samples = x.size // layer.channels
    same(layer.apply_gradient(grad, x, saved, sums, samples, **given).input,
         layer.apply_gradient(grad, x, saved, sums, samples, **arguments).input)
    y = layer.eval(x, **problem.running, **arguments)
    same(layer.eval(x, **problem.running, **arguments, gates=gates), y)
    wanted = layer.backward(grad, x, **problem.running, residual_gradient=True, **arguments)
    for got, other in zip(layer.backward(grad, x, **problem.running, residual_gradient=True, **given), wanted):
        same(got, other)


def test_gates_that_a_call_cannot_take():
    layer = normdrop.Layer("NCL", (4, 5, 7), "relu", p=0.5, granularity="channel")
    x = numpy.ones((4, 5, 7), numpy.float32)
    gates, mask = numpy.zeros(layer.gates_len, numpy.uint8), layer.mask(1)
    with pytest.raises(normdrop.NormdropError, match="gates must have 18 bytes, but has 17"):
        layer.train(x, mask=mask, gates=gates[1:].copy())
    with pytest.raises(normdrop.NormdropError, match="one bit per element"):
        layer.train(x, mask=gates, gates=gates)
    gates.flags.writeable = False
    with pytest.raises(ValueError, match="gates would be written, but is read-only"):
        layer.train(x, mask=mask, gates=gates)


@pytest.mark.parametrize("layout, dimensions", LAYOUTS)
def test_prepared_statistics_give_the_same_bits(layout, dimensions):
    problem = Problem(layout, dimensions, "gelu", seed=dimensions)
    layer, residual = problem.layer, problem.residual
    tail = problem.running["running_mean"] * numpy.float32(2.0**-26)
    given = {**problem.parameters, **problem.running, "running_mean_tail": tail}
    prepared = layer.prepare(**given)
    for mask in (None, problem.mask):
        calls = {"mask": mask, "residual": residual}
        expected = layer.eval(problem.x, **given, **calls)
        assert (layer.eval_prepared(problem.x, prepared, **calls) == expected).all()
        values = problem.x.copy()
        assert layer.eval_prepared(values, prepared, out=values, **calls) is values
        assert (values == expected).all()
        gradients = layer.backward(problem.grad, problem.x, residual_gradient=True, **given, **calls)
        again = layer.backward(problem.grad, problem.x, prepared=prepared, residual_gradient=True, **calls)
        assert all((one == other).all() for one, other in zip(again, gradients, strict=True))
        sums = layer.reduce(problem.grad, problem.x, **given, **calls)
        assert (layer.reduce(problem.grad, problem.x, prepared=prepared, **calls) == sums).all()
    # A copy: what changes later is not in it.
    given["weight"] += 1
    assert (layer.eval_prepared(problem.x, prepared, residual=residual, mask=problem.mask) == expected).all()
    assert (layer.prepare(**given) != prepared).any()


def test_what_was_not_prepared_is_refused():
    layer = normdrop.Layer("NC", (2, 3))
    x = numpy.ones((2, 3), numpy.float32)
    prepared = layer.prepare(numpy.zeros(3, numpy.float32), numpy.ones(3, numpy.float32))
    with pytest.raises(normdrop.NormdropError, match="as many channels as the layer has, 3"):
        layer.eval_prepared(x, numpy.zeros_like(prepared))
    with pytest.raises(normdrop.NormdropError, match=f"prepared must have {len(prepared)} values, but has 4"):
        layer.eval_prepared(x, numpy.zeros(4))
    with pytest.raises(TypeError, match="prepared"):
        layer.eval_prepared(x, None)
    with pytest.raises(ValueError, match="either prepared"):
        layer.backward(x, x, layer.train(x)[1], prepared=prepared)
    with pytest.raises(normdrop.NormdropError, match="channel 1 is -1.0"):
        layer.prepare(numpy.zeros(3, numpy.float32), numpy.float32([1, -1, 1]))


def test_the_mask_is_what_numpy_packs():
    layer = normdrop.Layer("NC", (50, 7), p=0.5)
    mask = layer.mask(11)
    keep = unpacked(layer, mask)
    assert (numpy.packbits(keep, bitorder="little") == mask).all()
    x = numpy.random.default_rng(0).normal(size=(50, 7)).astype(numpy.float32)
    y, _ = layer.train(x, mask=numpy.packbits(keep, bitorder="little"))
    assert ((y == 0) == ~keep).all()
    # A part of it alone, and the same seed again.
    assert (numpy.unpackbits(normdrop.fill_mask(0.5, 11, 100, first=33), count=100, bitorder="little").astype(bool)
            == keep.ravel()[33:133]).all()
    assert (layer.mask(11, out=numpy.empty_like(mask)) == mask).all()
    assert (layer.mask(12) != mask).any()


def test_masks_of_channels_and_samples():
    x = numpy.random.default_rng(0).normal(size=(6, 4, 4, 5)).astype(numpy.float32)
    for granularity, axes in [("channel", (1, 2)), ("sample", (1, 2, 3))]:
        layer = normdrop.Layer("NHWC", x.shape, p=0.5, granularity=granularity)
        y, _ = layer.train(x, mask=layer.mask(3))
        dropped = y == 0
        assert (dropped.all(axes) == dropped.any(axes)).all() and dropped.any() and not dropped.all()


def test_seeds_of_layers_steps_and_ranks():
    assert normdrop.seed_for(42, 3, 1000, 7) == normdrop.seed_for(42, layer=3, step=1000, rank=7) == 0xA1F2A979A5169AD1
    assert normdrop.seed_for(0) == 0x238275BC38FCBE91
    assert normdrop.seed_for(*[2**64 - 1] * 4) == 0xDD2E126981C8585F
    assert normdrop.seed_for(numpy.int64(42), numpy.uint8(3), 1000, 7) == 0xA1F2A979A5169AD1
    seeds = {normdrop.seed_for(5, layer, step, rank) for layer in range(8) for step in range(100) for rank in range(4)}
    assert len(seeds) == 8 * 100 * 4
    for name in ("root", "layer", "step", "rank"):
        with pytest.raises(ValueError, match=f"{name} must be at least 0"):
            normdrop.seed_for(**{"root": 1, name: -1})
        with pytest.raises(TypeError, match=f"{name} must be an integer"):
            normdrop.seed_for(**{"root": 1, name: 1.5})


@pytest.mark.parametrize("layout", ["NLC", "NCL"])
def test_padded_sequences(layout):
    """The recipe of the crate's guide, against a layer that has the valid rows alone."""
    random = numpy.random.default_rng(1)
    lengths, positions, channels = numpy.array([4, 0, 7, 1, 5]), 7, 3
    shape = (5, positions, channels) if layout == "NLC" else (5, channels, positions)
    valid = (numpy.arange(positions) < lengths[:, None])[:, :, None] | numpy.zeros((1, 1, channels), bool)
    valid = valid if layout == "NLC" else valid.transpose(0, 2, 1)
    x, grad, residual = random.normal(size=(3, *shape)).astype(numpy.float32)
    # Anything may be in the padding; of x, anything finite.
    x[~valid], grad[~valid], residual[~valid] = 1e9, numpy.nan, numpy.inf
    parameters = {name: random.normal(size=channels).astype(numpy.float32) for name in ("weight", "bias")}
    rows = lambda array: numpy.ascontiguousarray((array if layout == "NLC" else array.transpose(0, 2, 1))[
        valid if layout == "NLC" else valid.transpose(0, 2, 1)].reshape(-1, channels))

    layer = normdrop.Layer(layout, shape, "relu")
    mask = layer.drop_padding(lengths, layer.mask(0))
    assert (unpacked(layer, mask) == valid).all()
    moments = numpy.zeros(3 * channels)
    for sequence, length in zip(x if layout == "NLC" else x.transpose(0, 2, 1), lengths.tolist()):
        part = normdrop.Layer("NC", (length, channels)).moments(numpy.ascontiguousarray(sequence[:length]))
        normdrop.merge_moments(moments, part)
    saved = layer.finish(moments)
    arguments = {"residual": residual, "mask": mask, **parameters}
    y = layer.apply(x, saved, **arguments)
    sums = layer.reduce(grad, x, saved, **arguments)
    d_weight, d_bias = layer.finish_gradients(sums)
    gradients = layer.apply_gradient(grad, x, saved, sums, moments[0], residual_gradient=True, **arguments)
    assert not (gradients.input[~valid] == 0).all()
    dx = layer.clear_padding(lengths, gradients.input)
    assert dx is gradients.input
    for array in (y, dx, gradients.residual):
        assert (array[~valid] == 0).all() and not numpy.signbit(array[~valid]).any()

    alone = normdrop.Layer("NC", (int(lengths.sum()), channels), "relu")
    expected_y, expected_saved = alone.train(rows(x), residual=rows(residual), **parameters)
    expected = alone.backward(rows(grad), rows(x), expected_saved, residual=rows(residual), residual_gradient=True, **parameters)
    for got, wanted in [(rows(y), expected_y), (rows(dx), expected.input), (rows(gradients.residual), expected.residual),
                        (d_weight, expected.weight), (d_bias, expected.bias)]:
        numpy.testing.assert_allclose(got, wanted, rtol=1e-5, atol=2e-6)


def test_wrong_lengths_of_sequences():
    layer = normdrop.Layer("NLC", (2, 3, 4))
    values, mask = numpy.ones((2, 3, 4), numpy.float32), layer.mask(0)
    for lengths, kind, said in [
        ([3], normdrop.NormdropError, "lengths must have 2 values, but has 1"),
        ([], normdrop.NormdropError, "lengths must have 2 values, but has 0"),
        ([3, 4], normdrop.NormdropError, "a sequence is longer than the tensor has positions: that of sample 1 is 4, of 3"),
        ([3, -1], ValueError, r"lengths\[1\] must be at least 0"),
        ([1.5, 2], TypeError, r"lengths\[0\] must be an integer"),
    ]:
        for call, array in ((layer.clear_padding, values), (layer.drop_padding, mask)):
            with pytest.raises(kind, match=said):
                call(lengths, array)
    with pytest.raises(ValueError, match="values must have the shape"):
        layer.clear_padding([3, 3], values.reshape(2, 4, 3))
    with pytest.raises(TypeError, match="values must be"):
        layer.clear_padding([3, 3], None)
    with pytest.raises(normdrop.NormdropError, match="mask with one bit per element"):
        channels = normdrop.Layer("NLC", (2, 3, 4), p=0.5, granularity="channel")
        channels.drop_padding([3, 3], channels.mask(0))
    assert (values == 1).all() and (mask == 255).all()


def bfloat16():
    """The type of arrays of bfloat16: that of ml_dtypes, which is not needed for anything else."""
    try:
        import ml_dtypes
    except ImportError:
        return None
    return numpy.dtype(ml_dtypes.bfloat16)


HALVES = [numpy.dtype(numpy.float16), BFLOAT16] + ([] if bfloat16() is None else [bfloat16()])


def rounded(values, dtype):
    """Float32 values in a type of halves, rounded once, to nearest even."""
    if dtype == numpy.float16 or dtype.name == "bfloat16":
        with numpy.errstate(over="ignore"):
            return values.astype(dtype)
    bits = values.view(numpy.uint32)
    return ((bits + 0x7FFF + (bits >> 16 & 1)) >> 16).astype(numpy.uint16).view(dtype)


def widened(array):
    """Halves as float32, exactly."""
    if array.dtype == numpy.uint16:
        return (array.astype(numpy.uint32) << 16).view(numpy.float32)
    return array.astype(numpy.float32)


@pytest.mark.parametrize("activation", ["relu", "gelu"])
@pytest.mark.parametrize("layout, shape", [("NCHW", (4, 3, 5, 7)), ("NC", (37, 19)), ("NLC", (5, 9, 3))])
@pytest.mark.parametrize("dtype", HALVES, ids=str)
def test_halves_give_what_float32_gives_rounded_once(dtype, layout, shape, activation):
    """Each call, to the bit; and by that the bounds of float32 and half a unit of the half type."""
    random = numpy.random.default_rng(3)
    layer = normdrop.Layer(layout, shape, activation, p=0.25)
    channels = layer.channels
    x, residual, grad = (rounded(array, dtype) for array in random.normal(size=(3, *shape)).astype(numpy.float32))
    x32, residual32, grad32 = widened(x), widened(residual), widened(grad)
    parameters = {name: random.normal(size=channels).astype(numpy.float32) for name in ("weight", "bias")}
    running = [{name: numpy.ones(channels, numpy.float32) for name in ("running_mean", "running_var")} for _ in range(2)]
    mask = layer.mask(5)

    def same(halves, floats):
        assert halves.dtype == dtype and halves.dtype.metadata == dtype.metadata and floats.dtype == numpy.float32
        assert (halves.view(numpy.uint16) == rounded(floats, dtype).view(numpy.uint16)).all()

    y, saved = layer.train(x, residual=residual, mask=mask, **parameters, **running[0])
    y32, saved32 = layer.train(x32, residual=residual32, mask=mask, **parameters, **running[1])
    same(y, y32)
    for one, other in [*zip(saved, saved32), *((running[0][name], running[1][name]) for name in running[0])]:
        assert (one == other).all()
    arguments = {"mask": mask, "residual_gradient": True, **parameters}
    gradients = layer.backward(grad, x, saved, residual=residual, **arguments)
    gradients32 = layer.backward(grad32, x32, saved, residual=residual32, **arguments)
    same(gradients.input, gradients32.input)
    same(gradients.residual, gradients32.residual)
    assert (gradients.weight == gradients32.weight).all() and (gradients.bias == gradients32.bias).all()
    in_place = grad.copy()
    assert layer.backward(in_place, x, saved, residual=residual, **arguments, out=in_place).input is in_place
    same(in_place, gradients32.input)

    # Types are mixed: a float32 output is not rounded.
    assert (layer.eval(x, **running[0], out=numpy.empty(shape, numpy.float32)) == layer.eval(x32, **running[0])).all()
    same(layer.eval(x32, **running[0], out=numpy.empty(shape, dtype)), layer.eval(x32, **running[0]))
    prepared = layer.prepare(**running[0], **parameters)
    values = x.copy()
    assert layer.eval_prepared(values, prepared, out=values) is values
    same(values, layer.eval_prepared(x32, prepared))

    moments = layer.moments(x)
    assert (moments == layer.moments(x32)).all()
    same(layer.apply(x, saved, mask=mask), layer.apply(x32, saved, mask=mask))
    sums = layer.reduce(grad, x, saved, mask=mask)
    assert (sums == layer.reduce(grad32, x32, saved, mask=mask)).all()
    parts = layer.apply_gradient(grad, x, saved, sums, moments[0], mask=mask, residual_gradient=True)
    parts32 = layer.apply_gradient(grad32, x32, saved, sums, moments[0], mask=mask, residual_gradient=True)
    same(parts.input, parts32.input)
    same(parts.residual, parts32.residual)
    if layout == "NLC":
        cleared = layer.clear_padding([9, 0, 3, 4, 8], x.copy())
        same(cleared, layer.clear_padding([9, 0, 3, 4, 8], x32.copy()))


@pytest.mark.parametrize("dtype", HALVES, ids=str)
def test_halves_are_within_half_a_unit_of_float64(dtype):
    """Against the formulas in float64: half a unit of the half type, and the bound of float32."""
    random = numpy.random.default_rng(4)
    x, grad = (rounded(array, dtype) for array in random.normal(3, 2, size=(2, 1000, 5)).astype(numpy.float32))
    layer = normdrop.Layer("NC", (1000, 5), "relu")
    y, saved = layer.train(x)
    dx = layer.backward(grad, x, saved).input
    exact, exact_grad = widened(x).astype(float), widened(grad).astype(float)
    inv_std = 1 / numpy.sqrt(exact.var(axis=0) + float(numpy.float32(1e-5)))
    xhat = (exact - exact.mean(axis=0)) * inv_std
    g = numpy.where(xhat > 0, exact_grad, 0)
    exact_dx = inv_std * (g - g.mean(axis=0) - xhat * (g * xhat).mean(axis=0))
    digits = 11 if dtype == numpy.float16 else 8
    scale = numpy.maximum(abs(xhat), 1)
    for got, wanted, bound in [(y, numpy.maximum(xhat, 0), 4 * U * scale), (dx, exact_dx, 5 * U * 8 * scale * inv_std)]:
        unit = 2.0 ** (numpy.floor(numpy.log2(abs(wanted) + 1e-30)) + 1 - digits)
        off = abs(widened(got).astype(float) - wanted)
        # A value next to a power of two is rounded in the units of the larger side.
        assert (off <= 0.5 * unit * (1 + 2.0**-10) + bound + 2.0**-25).all()
        assert (off > 0.3 * unit).mean() > 0.1, "halves are not this exact"


@pytest.mark.parametrize("layout", ["NLC", "NCL"])
@pytest.mark.parametrize("given", ["lengths", "valid"])
def test_calls_over_the_valid_positions(layout, given):
    """Against a layer that has the valid rows alone; nothing of the padding is read."""
    random = numpy.random.default_rng(2)
    lengths, positions, channels = [4, 0, 7, 1, 5], 7, 3
    shape = (5, positions, channels) if layout == "NLC" else (5, channels, positions)
    is_valid = numpy.arange(positions) < numpy.array(lengths)[:, None]
    if given == "valid":
        is_valid = random.random((5, positions)) < 0.5
    arguments = {"lengths": lengths} if given == "lengths" else {"valid": numpy.packbits(is_valid, bitorder="little")}
    x, grad, residual = random.normal(size=(3, *shape)).astype(numpy.float32)
    rows = lambda array: numpy.ascontiguousarray((array if layout == "NLC" else array.transpose(0, 2, 1))[is_valid])
    padding = lambda array: (array if layout == "NLC" else array.transpose(0, 2, 1))[~is_valid]
    for array in (x, grad, residual):
        (array if layout == "NLC" else array.transpose(0, 2, 1))[~is_valid] = numpy.nan
    parameters = {name: random.normal(size=channels).astype(numpy.float32) for name in ("weight", "bias")}
    running = {name: numpy.ones(channels, numpy.float32) for name in ("running_mean", "running_var")}
    alone_running = {name: array.copy() for name, array in running.items()}
    layer, alone = normdrop.Layer(layout, shape, "silu"), normdrop.Layer("NC", (int(is_valid.sum()), channels), "silu")

    y, saved = layer.train(x, residual=residual, **parameters, **running, **arguments)
    gradients = layer.backward(grad, x, saved, residual=residual, residual_gradient=True, **parameters, **arguments)
    alone_y, alone_saved = alone.train(rows(x), residual=rows(residual), **parameters, **alone_running)
    expected = alone.backward(rows(grad), rows(x), alone_saved, residual=rows(residual), residual_gradient=True, **parameters)
    out = numpy.full(shape, numpy.nan, numpy.float32)
    assert layer.eval(x, residual=residual, **parameters, **running, **arguments, out=out) is out
    for array in (y, out, gradients.input, gradients.residual):
        assert (padding(array) == 0).all() and not numpy.signbit(padding(array)).any()
    for got, wanted in [
        (rows(y), alone_y), (rows(gradients.input), expected.input), (rows(gradients.residual), expected.residual),
        (gradients.weight, expected.weight), (gradients.bias, expected.bias), (saved.mean, alone_saved.mean),
        (saved.inv_std, alone_saved.inv_std), *((running[name], alone_running[name]) for name in running),
    ]:
        numpy.testing.assert_allclose(got, wanted, rtol=1e-5, atol=2e-6)
    # Fixed statistics are the same for both, and so are the bits.
    assert (rows(out) == alone.eval(rows(x), residual=rows(residual), **parameters, **running)).all()


def test_wrong_valid_positions():
    layer, x = normdrop.Layer("NLC", (2, 3, 4)), numpy.ones((2, 3, 4), numpy.float32)
    for arguments, kind, said in [
        ({"lengths": [3]}, normdrop.NormdropError, "lengths must have 2 values, but has 1"),
        ({"lengths": [3, 4]}, normdrop.NormdropError, "a sequence is longer than the tensor has positions: that of sample 1 is 4, of 3"),
        ({"lengths": 3}, TypeError, "lengths must be a sequence of integers"),
        ({"valid": numpy.zeros(2, numpy.uint8)}, normdrop.NormdropError, "validity must have 1 bytes, but has 2"),
        ({"valid": numpy.ones((2, 3), bool)}, TypeError, "valid must be an array of uint8, not bool: numpy.packbits"),
        ({"lengths": [3, 2], "valid": numpy.zeros(1, numpy.uint8)}, ValueError, "give either lengths or valid"),
        ({"lengths": [3, 2], "residual": x.astype(numpy.float16)}, normdrop.NormdropError, "a masked call is given halves"),
        ({"lengths": [3, 2], "out": x}, normdrop.NormdropError, "overlaps another one: output and input"),
    ]:
        with pytest.raises(kind, match=said):
            layer.train(x, **arguments)
    channel = numpy.ones(4, numpy.float32)
    with pytest.raises(normdrop.NormdropError, match="overlaps another one: output and input"):
        layer.eval(x, channel, channel, lengths=[3, 2], out=x)
    with pytest.raises(normdrop.NormdropError, match="overlaps another one: grad_input and grad_output"):
        layer.backward(x, x.copy(), running_mean=channel, running_var=channel, lengths=[3, 2], out=x)
    assert (x == 1).all()


def test_noise():
    ones = lambda *shape: numpy.ones(shape, numpy.float32)
    layer, uniform = normdrop.Layer("NC", (100, 90)), normdrop.Noise.uniform(0.5)
    y = ones(100, 90)
    assert layer.apply_noise(uniform, 42, y) is y
    assert abs(y.mean() - 1) < 0.01 and abs(y - 1).max() <= 0.5 and abs(y.var() - 1 / 12) < 0.003
    # Any part alone, from any element on; another seed is another noise.
    assert (uniform.apply(ones(200), 42, first=4000) == y.ravel()[4000:4200]).all()
    assert (uniform.apply(ones(9000), 43) != y.ravel()).mean() > 0.99
    normal, dropout = normdrop.Noise.gaussian(0.5), normdrop.Noise.gaussian_dropout(0.2)
    factors = normal.apply(ones(9000), 1)
    # sqrt(0.2/0.8) is 0.5; the keep probability is a multiple of 2^-32.
    assert numpy.allclose(factors, dropout.apply(ones(9000), 1), rtol=0, atol=1e-6)
    assert abs(factors.mean() - 1) < 0.02 and abs(factors.var() - 0.25) < 0.02
    assert (abs(factors - 1) > 1).mean() > 0.03, "a normal variate is beyond two standard deviations in 4.6 % of cases"
    assert (normdrop.Noise.uniform(0).apply(y.copy(), 5) == y).all()
    # Backward with the same seed: the derivative of x*factor is factor.
    assert (layer.apply_noise(normal, 1, ones(100, 90)).ravel() == factors).all()

    assert repr(dropout) == "Noise.gaussian_dropout(0.2)" and repr(uniform) == "Noise.uniform(0.5)"
    assert pickle.loads(pickle.dumps(normal)) == normal != uniform and len({normal, normdrop.Noise.gaussian(0.5), dropout}) == 2
    for make, kind, said in [
        (lambda: normdrop.Noise(), TypeError, "make noise"),
        (lambda: normdrop.Noise.uniform(-0.5), normdrop.NormdropError, "width of noise must be in .*, but is -0.5"),
        (lambda: normdrop.Noise.gaussian("1"), TypeError, "sigma must be a real number"),
        (lambda: normdrop.Noise.gaussian_dropout(1), normdrop.NormdropError, "but is inf"),
        (lambda: normdrop.Noise.gaussian_dropout(2), normdrop.NormdropError, "must be in .0, 1., but is 2"),
        (lambda: setattr(normal, "_noise", None), AttributeError, "cannot be changed"),
        (lambda: uniform.apply(numpy.ones(3), 1), TypeError, "values must be an array of float32"),
        (lambda: uniform.apply(ones(3), -1), ValueError, "seed must be at least 0"),
        (lambda: layer.apply_noise(0.5, 1, y), TypeError, "noise must be a normdrop.Noise, not float"),
        (lambda: layer.apply_noise(uniform, 1, ones(90, 100)), ValueError, "values must have the shape"),
    ]:
        with pytest.raises(kind, match=said):
            make()


@pytest.mark.parametrize("granularity", ["element", "channel"])
def test_alpha_dropout(granularity):
    layer = normdrop.Layer("NCL", (40, 5, 30), "selu", p=0.3, granularity=granularity)
    x = numpy.random.default_rng(1).normal(size=layer.shape).astype(numpy.float32)
    mask = layer.mask(7)
    bits = numpy.unpackbits(mask, bitorder="little")[:layer.mask_bits].astype(bool)
    kept = numpy.broadcast_to(bits.reshape(layer.shape if granularity == "element" else (40, 5, 1)), layer.shape)
    alpha, p = 1.7580993408473766, 0.3
    a = 1 / numpy.sqrt((alpha**2 * p + 1) * (1 - p))
    y = x.copy()
    assert layer.alpha_dropout(y, mask) is y
    numpy.testing.assert_allclose(y, numpy.where(kept, a * x.astype(float) + alpha * a * p, -alpha * a * (1 - p)), rtol=1e-6, atol=1e-6)
    assert abs(y.mean()) < 0.1 and abs(y.var() - 1) < 0.15
    grad = x.copy()
    assert layer.alpha_dropout_backward(grad, mask) is grad
    numpy.testing.assert_allclose(grad, numpy.where(kept, a * x.astype(float), 0), rtol=1e-6)
    with pytest.raises(TypeError, match="mask must be a numpy array, not NoneType"):
        layer.alpha_dropout(y, None)
    with pytest.raises(normdrop.NormdropError, match=f"mask must have {layer.mask_len} bytes"):
        layer.alpha_dropout(y, mask[:-1].copy())


@pytest.mark.parametrize("layout, shape", [("NCL", (6, 5, 30)), ("NLC", (6, 30, 5))])
def test_prelu(layout, shape):
    layer = normdrop.Layer(layout, shape, "identity", p=0.25)
    rng = numpy.random.default_rng(1)
    x, dy = (rng.normal(size=shape).astype(numpy.float32) for _ in range(2))
    slope = numpy.array([0.25, -0.5, 0, 2, 0.1], numpy.float32)
    axis = shape.index(5, 1)
    by_channel = slope.reshape([5 if number == axis else 1 for number in range(3)])
    mask = layer.mask(7)
    linear, saved = layer.train(x, mask=mask)
    y = linear.copy()
    assert layer.prelu(y, slope) is y
    assert (y == numpy.where(linear < 0, by_channel * linear, linear)).all()

    g, d_slope = layer.prelu_gradient(linear.copy(), dy, slope)
    assert (g == numpy.where(linear > 0, dy, by_channel * dy)).all()
    summands = numpy.where(linear < 0, linear.astype(float) * dy, 0)
    numpy.testing.assert_allclose(d_slope, summands.sum(tuple(number for number in range(3) if number != axis)), rtol=1e-5)
    # The rest of the backward call is that of the layer.
    leaky = normdrop.Layer(layout, shape, "leaky_relu", p=0.25, slope=0.25)
    g, d_slope = layer.prelu_gradient(linear.copy(), dy, numpy.array([0.25], numpy.float32))
    numpy.testing.assert_allclose(d_slope, [summands.sum()], rtol=1e-5)
    for found, expected in zip(layer.backward(g, x, saved, mask=mask), leaky.backward(dy, x, saved, mask=mask)):
        assert (found is None and expected is None) or (found == expected).all()
    with pytest.raises(normdrop.NormdropError, match="slope must have 5"):
        layer.prelu(y, slope[:2].copy())


def test_masks_from_a_generator():
    layer = normdrop.Layer("NC", (1000, 10), p=0.25)
    mask = layer.mask_from(numpy.random.default_rng(5))
    assert (mask == layer.mask_from(numpy.random.default_rng(5))).all()
    assert abs(unpacked(layer, mask).mean() - 0.75) < 0.03

    class Broken:
        def integers(self, *_, **__):
            raise RuntimeError("no more numbers")

    with pytest.raises(RuntimeError, match="no more numbers"):
        layer.mask_from(Broken())

    class Stopped:
        def integers(self, *_, **__):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        layer.mask_from(Stopped())

    class TooLarge:
        def integers(self, *_, **__):
            return 2**32

    with pytest.raises(ValueError, match="a word must be at least 0 and below"):
        layer.mask_from(TooLarge())


def test_nothing_is_copied():
    problem = Problem("NCHW", 4, "silu", seed=1, p=0)
    layer, out = problem.layer, numpy.empty(problem.shape, numpy.float32)
    before = {name: values.copy() for name, values in problem.running.items()}
    y, saved = layer.train(problem.x, out=out, **problem.running)
    assert y is out
    close(problem.running["running_mean"], 0.9 * before["running_mean"] + 0.1 * saved.mean)
    apart = layer.eval(problem.x, **problem.running)
    values = problem.x.copy()
    assert layer.eval(values, **problem.running, out=values) is values
    assert (values == apart).all()
    apart = layer.backward(problem.grad, problem.x, saved)
    values = problem.grad.copy()
    assert (layer.backward(values, problem.x, saved, out=values).input == apart.input).all()
    assert layer.backward(values, problem.x, saved, input_gradient=False, parameter_gradients=False) == (None,) * 4


def test_a_layer_that_drops_does_not_train_without_a_mask():
    problem = Problem("NC", 2, "relu", seed=1)
    layer, x, grad, out = problem.layer, problem.x, problem.grad, numpy.full_like(problem.x, 7)
    _, saved = layer.train(x, mask=layer.mask(1))
    for call in (
        lambda: layer.train(x, out=out), lambda: layer.backward(grad, x, saved, out=out), lambda: layer.apply(x, saved, out=out),
        lambda: layer.reduce(grad, x, saved), lambda: layer.apply_gradient(grad, x, saved, numpy.zeros(2 * len(problem.parameters["bias"])), len(x), out=out),
    ):
        with pytest.raises(normdrop.NormdropError, match="needs a mask: fill one, or set p to 0; p is 0.3") as refused:
            call()
        assert refused.value.buffer == "mask"
    assert (out == 7).all()
    layer.eval(x, **problem.running)


def test_the_mean_of_all_batches():
    random = numpy.random.default_rng(2)
    layer, batches = normdrop.Layer("NC", (32, 3)), numpy.zeros(1, numpy.uint64)
    mean, var, means = numpy.full(3, numpy.nan, numpy.float32), numpy.full(3, numpy.nan, numpy.float32), []
    for _ in range(5):
        _, saved = layer.train(random.normal(size=(32, 3)).astype(numpy.float32), running_mean=mean, running_var=var,
                               batches=batches)
        means.append(saved.mean)
    assert batches == 5
    close(mean, numpy.mean(means, 0), 1e-6)


def test_statistics_of_other_programs():
    mean, spread = numpy.array([3, 8], numpy.float32), numpy.array([4, 2], numpy.float32)
    assert normdrop.into_running("sums", mean, spread, eps=1e-3, factor=8) == numpy.float32(1e-3)
    assert mean.tolist() == [0.375, 1] and spread.tolist() == [0.5, 0.25]
    for form, wanted in (("eps_outside", [1, 2.25]), ("deviation", [0.0625, 1]), ("inverse_deviation", [16, 1])):
        spread[:] = 0.25, 1
        assert normdrop.into_running(form, mean, spread, eps=0.5) == 0
        assert spread.tolist() == wanted, form
    spread[1] = -1
    with pytest.raises(normdrop.NormdropError, match="that of channel 1 is -1"):
        normdrop.into_running("deviation", mean, spread)
    with pytest.raises(ValueError, match="form must be one of eps_outside, deviation"):
        normdrop.into_running("variance", mean, spread)
    assert spread.tolist() == [16, -1] and mean.tolist() == [0.375, 1]
    of = lambda *weight: normdrop.first_min_pooled(numpy.array(weight, numpy.float32))
    assert (of(1, 0, -0.0), of(), of(1, -1e-40, -1)) == (None, None, 1)


@pytest.mark.parametrize("phases", [False, True])
def test_the_running_mean_as_a_pair(phases):
    """The cumulative average of {99999, 100001} and then of {100004, 100006}: a float32 alone stops at 100000."""
    layer, count = normdrop.Layer("NC", (2, 1)), 10000
    ends = {}
    for tail in (None, numpy.zeros(1, numpy.float32)):
        batches = numpy.zeros(1, numpy.uint64)
        running = {"running_mean": numpy.zeros(1, numpy.float32), "running_var": numpy.ones(1, numpy.float32)}
        for values in ([99999, 100001], [100004, 100006]):
            x = numpy.array(values, numpy.float32).reshape(2, 1)
            moments = layer.moments(x)
            for _ in range(count):
                if phases:
                    layer.finish(moments, **running, running_mean_tail=tail, batches=batches)
                else:
                    layer.train(x, **running, running_mean_tail=tail, batches=batches)
        assert batches == 2 * count
        ends[tail is not None] = float(running["running_mean"][0]) + (0 if tail is None else float(tail[0]))
    assert ends[True] == pytest.approx(100002.5, rel=1e-9) and abs(ends[False] - 100002.5) > 1


def test_the_tail_of_the_running_mean_counts_in_every_call():
    """A mean of 2**24 + 0.25 is two float32: the calls with fixed statistics are those around 0 with its rest, 0.25."""
    random = numpy.random.default_rng(3)
    layer = normdrop.Layer("NC", (16, 3), "tanh", p=0.25)
    far, near = numpy.full(3, 2.0**24, numpy.float32), numpy.zeros(3, numpy.float32)
    x = random.integers(-3, 4, (16, 3)).astype(numpy.float32)
    tail, var, grad = numpy.full(3, 0.25, numpy.float32), numpy.full(3, 4, numpy.float32), x[::-1].copy()
    # Even numbers beside 2**24 are float32.
    pair, around_0 = {"running_mean": far, "running_mean_tail": tail, "running_var": var}, {"running_mean": tail, "running_var": var}
    mask = layer.mask(2)
    close(layer.eval(far + 2 * x, **pair, mask=mask), layer.eval(2 * x, **around_0, mask=mask), 1e-6)
    for call in ("backward", "reduce"):
        got = getattr(layer, call)(grad, far + 2 * x, **pair, mask=mask)
        wanted = getattr(layer, call)(grad, 2 * x, **around_0, mask=mask)
        for one, other in zip(got, wanted) if call == "backward" else [(got, wanted)]:
            if one is not None:
                close(one, other, 1e-6)
    plain, tailed = [numpy.ones((2, 3), numpy.float32), near[:2].copy()], [numpy.ones((2, 3), numpy.float32), near[:2].copy()]
    normdrop.fold_into_next(*plain, tail, var, layout="OI")
    normdrop.fold_into_next(*tailed, near, var, layout="OI", running_mean_tail=tail)
    assert all((one == other).all() for one, other in zip(plain, tailed)) and plain[1].all()
    assert (normdrop.fold_padding(tail, var) == normdrop.fold_padding(near, var, running_mean_tail=tail)).all()
    padding = normdrop.fold_padding(tail, var, weight=var, shift=-var, eps=0)
    # (x - 0.25)/2*4 - 4 is 0.
    assert (padding == 2.25).all()
    with pytest.raises(ValueError, match="padding"):
        normdrop.fold_padding(tail, var, weight=near, shift=var)
    plain, tailed = [numpy.ones((3, 2), numpy.float32), near.copy()], [numpy.ones((3, 2), numpy.float32), near.copy()]
    normdrop.fold_into_previous(*plain, tail, var, layout="OI")
    normdrop.fold_into_previous(*tailed, near, var, layout="OI", running_mean_tail=tail)
    assert all((one == other).all() for one, other in zip(plain, tailed)) and plain[1].all()
    # And training moves it as it moves the mean: with momentum 1 the pair is the mean of the batch.
    layer, tail = normdrop.Layer("NC", (16, 3), momentum=1), near.copy()
    _, saved = layer.train(far + 2 * x, running_mean=far, running_mean_tail=tail, running_var=var)
    assert (far == saved.mean).all() and (tail == saved.mean_tail).all() and tail.any()


def test_a_batch_in_parts():
    problem = Problem("NCL", 3, "gelu", seed=4, p=0)
    layer, x, grad = problem.layer, problem.x, problem.grad
    n, c, l = problem.shape
    y, saved = layer.train(x, mask=None, **problem.parameters)
    whole = layer.backward(grad, x, saved, **problem.parameters)
    parts = [(normdrop.Layer("NCL", (1, c, l), "gelu"), slice(i, i + 1)) for i in range(n)]
    moments = numpy.zeros(3 * c)
    for part, rows in parts:
        normdrop.merge_moments(moments, part.moments(x[rows]))
    merged = parts[0][0].finish(moments)
    close(merged.inv_std, saved.inv_std, 1e-6)
    close(numpy.concatenate([part.apply(x[rows], merged, **problem.parameters) for part, rows in parts]), y)
    sums = numpy.zeros(2 * c)
    for part, rows in parts:
        normdrop.merge_sums(sums, part.reduce(grad[rows], x[rows], merged, **problem.parameters))
    check_gradients(parts[0][0].finish_gradients(sums), whole[1:3])
    dx = [part.apply_gradient(grad[rows], x[rows], merged, sums, n * l, **problem.parameters).input for part, rows in parts]
    close(numpy.concatenate(dx), whole.input)


@pytest.mark.parametrize("before", [True, False])
def test_folding(before):
    random = numpy.random.default_rng(8)
    new = lambda *shape: random.normal(size=shape).astype(numpy.float32)
    weights, bias, mean, weight, shift, x = new(6, 4), new(6), new(6 if before else 4), None, None, new(10, 4)
    var = numpy.abs(new(*mean.shape)) + numpy.float32(0.5)
    weight, shift = new(*mean.shape), new(*mean.shape)
    layer = normdrop.Layer("NC", (10, mean.size))
    norm = lambda values: layer.eval(numpy.ascontiguousarray(values), mean, var, weight=weight, bias=shift)
    wanted = norm(x @ weights.T + bias) if before else norm(x) @ weights.T + bias
    fold = normdrop.fold_into_previous if before else normdrop.fold_into_next
    with pytest.raises(normdrop.NormdropError, match="no bias"):
        fold(weights, None, mean, var, shift=shift, layout="OI")
    with pytest.raises(normdrop.NormdropError, match="plus eps must be above 0: .*that of channel 0 is -"):
        fold(weights, bias, mean, -var, layout="OI")
    with pytest.raises(TypeError, match="layout"):
        fold(weights, bias, mean, var, weight=weight, shift=shift)
    dense, dense_bias = numpy.ascontiguousarray(weights.T), bias.copy()
    fold(weights, bias, mean, var, weight=weight, shift=shift, layout="OI")
    close(x @ weights.T + bias, wanted)
    fold(dense, dense_bias, mean, var, weight=weight, shift=shift, layout="IO")
    assert (dense.T == weights).all() and (dense_bias == bias).all()


# Where the output and the input of each weight are along the dimensions of a layout.
@pytest.mark.parametrize("layout, shape, groups, output, inputs", [
    ("OIL", (4, 3, 2), 2, lambda o, i, l: o, lambda o, i, l: o // 2 * 3 + i),
    ("OHWI", (4, 2, 3, 3), 2, lambda o, h, w, i: o, lambda o, h, w, i: o // 2 * 3 + i),
    ("IOHW", (6, 2, 2, 3), 2, lambda i, o, h, w: i // 3 * 2 + o, lambda i, o, h, w: i),
    ("ILO", (6, 5, 2), 2, lambda i, l, o: i // 3 * 2 + o, lambda i, l, o: i),
    ("DHWIO", (2, 1, 2, 3, 4), 2, lambda d, h, w, i, o: o, lambda d, h, w, i, o: o // 2 * 3 + i),
    ("HWOI", (2, 3, 4, 5), 1, lambda h, w, o, i: o, lambda h, w, o, i: i),
    ("HWIM", (2, 3, 4, 2), 1, lambda h, w, i, m: i * 2 + m, lambda h, w, i, m: i),
    ("HWIM", (2, 3, 4, 2), 4, lambda h, w, i, m: i * 2 + m, lambda h, w, i, m: i),
])
def test_layouts_of_weights(layout, shape, groups, output, inputs):
    places = numpy.indices(shape)
    for fold, channel in [(normdrop.fold_into_previous, output(*places)), (normdrop.fold_into_next, inputs(*places))]:
        channels = int(channel.max()) + 1
        weights, zeros, ones = (numpy.full(size, value, numpy.float32) for size, value in [(shape, 1), (channels, 0), (channels, 1)])
        fold(weights, None, zeros, ones, layout=layout, groups=groups, eps=0, weight=numpy.arange(channels, dtype=numpy.float32) + 2)
        assert (weights == channel + 2).all()


@pytest.mark.parametrize("layout, shape, groups, said", [
    ("OHIW", (2, 2, 2, 2), 1, "layout must name the dimensions of the weights, such as OI, OIHW or HWIO, not 'OHIW'"),
    ("OIHH", (2, 2, 2, 2), 1, "layout must name"),
    ("NCHW", (2, 2, 2, 2), 1, "layout must name"),
    ("", (2,), 1, "layout must name"),
    ("OIHW", (2, 2, 2), 1, "weights must have the 4 dimensions OIHW, not (2, 2, 2)"),
    ("OI", (2, 2), 2, "groups must be at least 1, and 1 for a linear layer, not 2"),
    ("OIL", (2, 2, 2), 0, "groups must be at least 1, and 1 for a linear layer, not 0"),
    ("OIL", (2, 2, 2), 3, "groups must divide inputs and outputs"),
    ("HWIM", (2, 2, 3, 2), 2, "groups of a depthwise convolution are its 3 inputs, not 2"),
    ("OIL", (2, 2, 2), 2**63, "does not fit a size_t"),
])
def test_wrong_layouts_of_weights(layout, shape, groups, said):
    bias, statistics = numpy.zeros(2, numpy.float32), numpy.ones(2, numpy.float32)
    with pytest.raises(ValueError, match=re.escape(said)):
        normdrop.fold_into_previous(numpy.ones(shape, numpy.float32), bias, statistics, statistics, layout=layout, groups=groups)


def test_threads_share_a_layer():
    problem = Problem("NCHW", 4, "tanh", seed=9, p=0)
    wanted, _ = problem.layer.train(problem.x)
    wrong = []

    def work():
        for _ in range(50):
            wrong.extend([] if (problem.layer.train(problem.x)[0] == wanted).all() else [1])

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def threaded(**options):
    """A layer that uses threads and is large enough to, and its input; the library may be built without threads."""
    x = numpy.random.default_rng(1).normal(size=(32, 64, 900)).astype(numpy.float32)
    try:
        return normdrop.Layer("NCL", x.shape, "silu", tasks=3, **options), x
    except normdrop.NormdropError as refused:
        assert "built with the feature rayon" in str(refused)
        missing("threads", "the library is built without the feature rayon")


def test_tasks_change_no_bit():
    several, x = threaded()
    assert (several.train(x)[0] == normdrop.Layer("NCL", x.shape, "silu").train(x)[0]).all()


def worker(work):
    """Calls a function in a forked child, a second time in one of that, and gives its exit status; a child that hangs is ended."""
    child = os.fork()
    if child == 0:
        status = 1
        try:
            status = 0 if work() else 2
        finally:
            os._exit(status)
    end = time.monotonic() + 60
    while time.monotonic() < end:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.01)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return "the child hangs"


# Python warns of a fork beside threads, which is what is tested here.
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork")
@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork")
@pytest.mark.parametrize("call", ["train", "backward", "mask"])
def test_tasks_in_a_forked_child(call):
    """A child has the memory of the threads of its parent, but not the threads: waiting for one would never end."""
    layer, x = threaded(p=0.5)
    results = {
        "train": lambda: layer.train(x, mask=layer.mask(3))[0],
        "backward": lambda: layer.backward(x, x, layer.train(x, mask=layer.mask(3))[1], mask=layer.mask(3)).input,
        "mask": lambda: layer.mask(3),
    }
    wanted = results[call]()
    work = lambda: (results[call]() == wanted).all()
    assert worker(work) == 0
    # A child of a child, after the child has used its threads, if it has any.
    assert worker(lambda: work() and worker(work) == 0) == 0
    # The parent still has its threads.
    assert work()


def sum_of(seed):
    layer, x = threaded(p=0.5)
    return float(layer.train(x, mask=layer.mask(seed))[0].sum(dtype=numpy.float64))


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork")
@pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="there is no fork")
def test_tasks_in_the_workers_of_a_pool():
    wanted = [sum_of(seed) for seed in range(4)]
    with multiprocessing.get_context("fork").Pool(2) as pool:
        assert pool.map_async(sum_of, range(4)).get(timeout=120) == wanted


def test_empty_tensors():
    layer = normdrop.Layer("NHWC", (0, 4, 4, 3), "relu", p=0.5)
    x = numpy.empty((0, 4, 4, 3), numpy.float32)
    y, saved = layer.train(x, mask=layer.mask(1))
    assert y.shape == x.shape
    gradients = layer.backward(x, x, saved, mask=layer.mask(1))
    assert (gradients.weight == 0).all() and (gradients.bias == 0).all()
    assert all((values == 0).all() and values.size == 3 for values in saved)


def test_a_batch_that_does_not_fit_is_found_before_it_is_averaged():
    layer, x = normdrop.Layer("NC", (4, 3)), numpy.random.default_rng(4).normal(size=(4, 3)).astype(numpy.float32)
    layer.check_moments(layer.moments(x))
    for value, buffer in [(numpy.nan, "running_mean"), (1e30, "running_var")]:
        x[1, 2] = value
        with pytest.raises(normdrop.NormdropError) as refused:
            layer.check_moments(layer.moments(x))
        assert refused.value.buffer == buffer and refused.value.actual == 2


def test_a_momentum_is_needed_by_what_uses_it_alone():
    layer, usual = normdrop.Layer("NC", (4, 3), momentum=-1), normdrop.Layer("NC", (4, 3))
    x = numpy.random.default_rng(4).normal(size=(4, 3)).astype(numpy.float32)
    running = {"running_mean": numpy.ones(3, numpy.float32), "running_var": numpy.full(3, 2, numpy.float32)}
    assert (layer.eval(x, **running) == usual.eval(x, **running)).all()
    assert (layer.backward(x, x, **running).input == usual.backward(x, x, **running).input).all()
    assert (layer.train(x)[0] == usual.train(x)[0]).all()
    with pytest.raises(normdrop.NormdropError, match="momentum"):
        layer.train(x, **running)
    assert (running["running_mean"] == 1).all()


def test_saved_values_of_channels_without_values():
    """A channel that no part has values of: what is saved of it is 0, and its running statistics stay as they are."""
    layer, x = normdrop.Layer("NC", (5, 3)), numpy.random.default_rng(4).normal(size=(5, 3)).astype(numpy.float32)
    moments, running = layer.moments(x), {name: numpy.full(3, 7, numpy.float32) for name in ("running_mean", "running_var")}
    whole = layer.finish(moments)
    moments[1::3] = 0
    for _ in range(20):
        saved = layer.finish(moments, **running)
        for some, all_ in zip(saved, whole):
            assert some[1] == 0 and (some[::2] == all_[::2]).all()
        assert running["running_mean"][1] == running["running_var"][1] == 7


@pytest.mark.parametrize("layout, shape", [
    ("NC", (4, 3)), ("NC", (0, 3)), ("NC", (4, 0)), ("NCL", (4, 3, 0)), ("NCL", (0, 0, 0)), ("NHWC", (2, 0, 4, 3)), ("NCHW", (2, 3, 4, 5)),
])
def test_no_memory_is_handed_out_as_it_came(layout, shape, monkeypatch):
    """All arrays that are made start as NaN, or as bytes of 165; none of that may be in a result."""
    def full(shape, dtype=numpy.float64):
        return numpy.full(shape, 165 if dtype == numpy.uint8 else numpy.nan, dtype)

    monkeypatch.setattr(normdrop.numpy, "empty", full)
    layer = normdrop.Layer(layout, shape, "gelu", p=0.5)
    x, channels = numpy.ones(shape, numpy.float32), layer.channels
    x += numpy.arange(x.size, dtype=numpy.float32).reshape(shape)
    running = {"running_mean": numpy.zeros(channels, numpy.float32), "running_var": numpy.ones(channels, numpy.float32)}
    mask = layer.mask(3)
    y, saved = layer.train(x, mask=mask)
    moments = layer.moments(x)
    finished, sums = layer.finish(moments), layer.reduce(x, x, saved, mask=mask)
    results = [
        mask, layer.mask_from(numpy.random.default_rng(1)), normdrop.fill_mask(0.5, 1, layer.mask_bits), y, *saved, moments,
        *finished, sums, layer.eval(x, **running, mask=mask), layer.apply(x, finished, mask=mask),
        *layer.backward(x, x, saved, mask=mask, residual_gradient=True),
        *layer.backward(x, x, **running, mask=mask, residual_gradient=True), *layer.finish_gradients(sums),
        *[values for values in layer.apply_gradient(x, x, saved, sums, 40, mask=mask, residual_gradient=True)
          if values is not None],
    ]
    assert len(results) == 26
    for result in results:
        if result.dtype == numpy.uint8:
            assert not result.size or (numpy.unpackbits(result, bitorder="little")[layer.mask_bits:] == 0).all()
        else:
            assert numpy.isfinite(result).all()
