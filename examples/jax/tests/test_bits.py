"""The bits of a call by XLA are those of the same call by numpy, on the main thread, which flushes nothing."""

import ctypes
import importlib.util
import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import normdrop
import numpy
import pytest

import normdrop_jax

SHAPES = [((64, 7), -1, "NC"), ((6, 5, 4, 33), -1, "NHWC"), ((5, 16, 9, 8), 1, "NCHW")]


def data(shape, channels, dtype="float32"):
    """Normal numbers; channel 0 of subnormal ones, without a bias, channel 1 of large ones. With weight, bias, dy, of which channel 2
    is subnormal, and a residual."""
    small, large = (3e-7, 1e3) if dtype == "float16" else (3e-39, 1e30)
    generator = numpy.random.default_rng(1)
    x, dy, residual = (generator.standard_normal(shape, dtype=numpy.float32) for _ in range(3))
    weight, bias = (generator.standard_normal(channels, dtype=numpy.float32) for _ in range(2))
    of, of_gradient = (numpy.moveaxis(array, -1 if shape[-1] == channels else 1, 0) for array in (x, dy))
    of[0] *= numpy.float32(small)
    of[1] *= numpy.float32(large)
    of_gradient[2] *= numpy.float32(small)
    bias[0] = 0
    # ml_dtypes has bfloat16 for numpy, and comes with JAX.
    x, dy, residual = (array.astype(jnp.dtype(dtype)) for array in (x, dy, residual))
    return x, weight, bias, dy, residual


def bits(array):
    array = numpy.asarray(array)
    return array.dtype.str, array.tobytes()


@pytest.fixture(scope="module")
def keeps_subnormals(tmp_path_factory):
    """The handler of environment.cc, in jit."""
    library = tmp_path_factory.mktemp("handler") / "environment.so"
    command = [os.environ.get("CXX", "c++"), "-std=c++17", "-fPIC", "-shared", f"-isystem{jax.ffi.include_dir()}", "environment.cc", "-o", library]
    subprocess.run(command, check=True, cwd=os.path.dirname(__file__))
    handler = ctypes.CDLL(str(library)).keeps_subnormals
    jax.ffi.register_ffi_target("keeps_subnormals", jax.ffi.pycapsule(handler), platform="cpu")
    return jax.jit(lambda: jax.ffi.ffi_call("keeps_subnormals", jax.ShapeDtypeStruct((1,), jnp.float32))())


def half_is_kept():
    """The same in numpy, from inside a callback."""
    return numpy.array([(numpy.array([0x00800000], numpy.uint32).view(numpy.float32) * numpy.float32(0.5)).view(numpy.uint32)[0] != 0], numpy.float32)


def test_xla_flushes_subnormal_numbers_and_this_thread_does_not(keeps_subnormals):
    """What the other tests of this file stand on: otherwise they show nothing."""
    assert half_is_kept()[0] == 1
    found = {"a handler": float(keeps_subnormals()[0]),
             "a callback": float(jax.jit(lambda: jax.pure_callback(half_is_kept, jax.ShapeDtypeStruct((1,), jnp.float32)))()[0])}
    print("subnormal numbers are kept by", {name: bool(kept) for name, kept in found.items()})
    assert set(found.values()) == {0.0}


def by_numpy(layout, shape, activation, seed, arrays, residual):
    """Training with gradients, frozen training with gradients, and evaluation, by numpy: a list of arrays."""
    x, weight, bias, dy, _ = arrays
    layer = normdrop.Layer(layout, shape, activation, p=0.25 if seed is not None else 0.0)
    channels = layer.channels
    mean, tail, var = numpy.full(channels, 0.5, numpy.float32), numpy.full(channels, 1e-8, numpy.float32), numpy.full(channels, 2, numpy.float32)
    mask = layer.mask(seed) if seed is not None else None
    fixed = dict(running_mean=mean.copy(), running_mean_tail=tail.copy(), running_var=var.copy())
    y, saved = layer.train(x, weight=weight, bias=bias, running_mean=mean, running_mean_tail=tail, running_var=var, mask=mask, residual=residual)
    results = [y, mean, var, tail]
    grads = layer.backward(dy, x, saved, residual_gradient=residual is not None, weight=weight, bias=bias, mask=mask, residual=residual)
    results += [grads.input, grads.weight, grads.bias] + ([grads.residual] if residual is not None else [])
    results.append(layer.eval(x, fixed["running_mean"], fixed["running_var"], running_mean_tail=fixed["running_mean_tail"], weight=weight, bias=bias,
                              mask=mask, residual=residual))
    grads = layer.backward(dy, x, residual_gradient=residual is not None, weight=weight, bias=bias, mask=mask, residual=residual, **fixed)
    return results + [grads.input, grads.weight, grads.bias] + ([grads.residual] if residual is not None else [])


def by_jax(channel_axis, activation, seed, arrays, residual, tasks=None):
    """The same in one jit."""
    layer = normdrop_jax.Layer(activation, p=0.25 if seed is not None else 0.0, channel_axis=channel_axis, tasks=tasks)

    @jax.jit
    def step(x, weight, bias, dy, residual):
        channels = weight.shape[0]
        running = normdrop_jax.Running(jnp.full(channels, 0.5), jnp.full(channels, 2.0), jnp.full(channels, 1e-8))
        primals = (x, weight, bias) + ((residual,) if residual is not None else ())
        y, back, new = jax.vjp(lambda x, w, b, r=None: layer.train(x, w, b, running, seed=seed, residual=r), *primals, has_aux=True)
        z, fixed_back = jax.vjp(lambda x, w, b, r=None: layer.eval(x, running, w, b, seed=seed, residual=r), *primals)
        return [y, *new, *back(dy), z, *fixed_back(dy)]

    x, weight, bias, dy, _ = arrays
    return step(x, weight, bias, dy, residual)


@pytest.mark.parametrize("activation", normdrop_jax.ACTIVATIONS)
@pytest.mark.parametrize("shape, channel_axis, layout", SHAPES)
def test_the_bits_inside_jit_are_those_of_numpy(shape, channel_axis, layout, activation):
    arrays = data(shape, shape[channel_axis])
    for seed, residual in ((None, None), (0xFEDCBA9876543210, None), (7, arrays[4])):
        expected = by_numpy(layout, shape, activation, seed, arrays, residual)
        found = by_jax(channel_axis, activation, seed, arrays, residual)
        assert len(expected) == len(found)
        assert [bits(array) for array in found] == [bits(array) for array in expected]


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
@pytest.mark.parametrize("activation", ["relu", "gelu"])
@pytest.mark.parametrize("shape, channel_axis, layout", SHAPES)
def test_halves_are_float32_rounded_once_and_the_bits_of_numpy(shape, channel_axis, layout, activation, dtype):
    """The results for elements are rounded, the others are those of float32. numpy converts on a thread that flushes nothing."""
    x, weight, bias, dy, residual = data(shape, shape[channel_axis], dtype)
    wide = [array.astype(numpy.float32) for array in (x, weight, bias, dy, residual)]
    for seed, with_residual in ((None, False), (7, True)):
        arrays = [(of[0], weight, bias, of[3], of[4]) for of in ((x, weight, bias, dy, residual), wide)]
        found, single = (by_jax(channel_axis, activation, seed, of, of[4] if with_residual else None) for of in arrays)
        expected = [numpy.asarray(array) for array in single]
        expected = [array.astype(x.dtype) if array.shape == shape else array for array in expected]
        assert {str(array.dtype) for array in found if array.shape == shape} == {dtype}
        assert [bits(array) for array in found] == [bits(array) for array in expected]
        by_library = by_numpy(layout, shape, activation, seed, arrays[0], residual if with_residual else None)
        assert [bits(array) for array in found] == [bits(array) for array in by_library]


def test_the_bits_are_the_same_with_tasks():
    shape = (16, 64, 32, 32)
    arrays = data(shape, 64)
    expected = by_numpy("NCHW", shape, "relu", 7, arrays, None)
    for tasks in (None, 1, 3):
        assert [bits(array) for array in by_jax(1, "relu", 7, arrays, None, tasks=tasks)] == [bits(array) for array in expected]


def test_a_call_uses_the_cores_unless_tasks_says_otherwise():
    """The first call that is cut starts the library's threads."""
    program = """if True:
        import os, sys, jax, jax.numpy as jnp, normdrop_jax
        x = jnp.ones((64, 64, 64, 8))
        layer = normdrop_jax.Layer("relu", tasks=eval(sys.argv[1]))
        counts = []
        for step in (jax.jit(lambda x: x + 1), jax.jit(lambda x: layer.train(x)[0])):
            step(x).block_until_ready()
            counts.append(len(os.listdir("/proc/self/task")))
        print(counts[1] - counts[0])
    """
    started = [int(subprocess.run([sys.executable, "-P", "-c", program, tasks], check=True, capture_output=True, text=True).stdout)
               for tasks in ("1", "None")]
    assert started[0] == 0
    assert (started[1] > 0) == (len(os.sched_getaffinity(0)) > 1)


@pytest.mark.parametrize("granularity", normdrop_jax.GRANULARITIES)
@pytest.mark.parametrize("shape, channel_axis, layout", SHAPES)
@pytest.mark.parametrize("activation", ["relu", "silu"])
def test_masks_and_their_granularity(activation, shape, channel_axis, layout, granularity):
    x, *_, dy, _ = data(shape, shape[channel_axis])
    reference = normdrop.Layer(layout, shape, activation, p=0.3, granularity=granularity)
    layer = normdrop_jax.Layer(activation, p=0.3, granularity=granularity, channel_axis=channel_axis)
    mask = reference.mask(1 << 63)
    assert bits(layer.mask(shape, 1 << 63)) == bits(mask)
    y, saved = reference.train(x, mask=mask)
    dx = reference.backward(dy, x, saved, mask=mask).input
    for dropout in (dict(seed=1 << 63), dict(mask=mask)):
        found, back = jax.vjp(lambda x: layer.train(x, **dropout)[0], x)
        assert bits(found) == bits(y)
        assert bits(back(dy)[0]) == bits(dx)
        assert bits(jax.jit(lambda x: layer.train(x, **dropout)[0])(x)) == bits(y)


@pytest.mark.parametrize("shape, channel_axis, layout", SHAPES)
def test_the_bits_inside_a_callback_are_those_of_numpy(shape, channel_axis, layout):
    """The package for numpy, called back by JAX on a thread that flushes."""
    arrays = data(shape, shape[channel_axis])
    expected = by_numpy(layout, shape, "gelu", 7, arrays, None)
    found = []

    def callback(*arrays):
        kept = half_is_kept()
        found.extend(by_numpy(layout, shape, "gelu", 7, [numpy.array(array) for array in arrays], None))
        return kept

    kept = jax.jit(lambda *arrays: jax.pure_callback(callback, jax.ShapeDtypeStruct((1,), jnp.float32), *arrays))(*arrays)
    assert float(kept[0]) == 0, "this callback flushes"
    assert [bits(array) for array in found] == [bits(array) for array in expected]


def test_subnormal_numbers_are_evaluated_as_they_are():
    x = (numpy.arange(512, dtype=numpy.uint32).reshape(64, 8) + 1).view(numpy.float32)
    layer = normdrop_jax.Layer(eps=0.0)
    y = jax.jit(layer.eval)(x, layer.running(8))
    assert bits(y) == bits(x)
