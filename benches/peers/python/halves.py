#!/usr/bin/env python3
"""What libraries make of tensors of halves: batch norm far from zero, and dropout. Errors, not times.

    python halves.py            a table of the libraries that this Python has: torch, tensorflow, flax, normdrop

normdrop is examples/python, installed by pip or on PYTHONPATH with its library named by NORMDROP_LIBRARY. README.md says what
each column is. Every library gets the same numbers, rounded to the half type, and float64 on these numbers is exact.
"""

import importlib
import os

import ml_dtypes
import numpy

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("KERAS_BACKEND", "tensorflow")

TYPES = {"bfloat16": ml_dtypes.bfloat16, "float16": numpy.float16}
# Samples, height and width, channels: the first batch norm of a ResNet, with a quarter of its channels.
SHAPE = (32, 112, 112, 16)
EPS = 1e-5
LIBRARIES = []


def library(name, module):
    """Registers a function that gives the version, batch norm and dropout of a library, if that is there."""

    def register(make):
        LIBRARIES.append((name, module, make))
        return make

    return register


@library("*exact in float64, rounded once*", "numpy")
def exactly(_):
    def norm(x, last):
        axes = tuple(axis for axis in range(x.ndim) if axis != (x.ndim - 1 if last else 1))
        wide = x.astype(float)
        centred = wide - wide.mean(axes, keepdims=True)
        return (centred / numpy.sqrt((centred**2).mean(axes, keepdims=True) + EPS)).astype(x.dtype)

    def dropout(x, p):
        keep = numpy.random.default_rng(1).random(x.shape) >= p
        return numpy.where(keep, x.astype(float) / (1 - p), 0).astype(x.dtype)

    return "", norm, dropout


@library("normdrop", "normdrop")
def of_normdrop(normdrop):
    def norm(x, last):
        layout, shape = ("NHWC", x.shape) if last else ("NCHW", x.shape)
        return normdrop.Layer(layout, shape, "identity", eps=EPS).train(x)[0]

    def dropout(x, p):
        zero, one = numpy.zeros(x.shape[1], numpy.float32), numpy.ones(x.shape[1], numpy.float32)
        # Statistics of 0 and 1 and an eps of 0 leave the values as they are.
        layer = normdrop.Layer("NC", x.shape, "identity", p=p, eps=0.0)
        return layer.eval(x, zero, one, mask=layer.mask(1))

    return normdrop.__version__, norm, dropout


@library("PyTorch", "torch")
def of_torch(torch):
    def tensor(x):
        bits = torch.from_numpy(numpy.ascontiguousarray(x).view(numpy.int16))
        return bits.view(torch.float16 if x.dtype == numpy.float16 else torch.bfloat16)

    def array(y, dtype):
        return y.detach().contiguous().view(torch.int16).numpy().view(dtype)

    def norm(x, last):
        module = torch.nn.BatchNorm2d(x.shape[-1 if last else 1], eps=EPS)
        # With parameters of float32, as under autocast.
        y = module(tensor(x).permute(0, 3, 1, 2) if last else tensor(x))
        return array(y.permute(0, 2, 3, 1) if last else y, x.dtype)

    def dropout(x, p):
        torch.manual_seed(1)
        return array(torch.nn.functional.dropout(tensor(x), p), x.dtype)

    return torch.__version__, norm, dropout


@library("Keras on TensorFlow, `mixed_bfloat16` and `mixed_float16`", "tensorflow")
def of_keras(tensorflow):
    import keras

    def norm(x, last):
        layer = keras.layers.BatchNormalization(axis=-1 if last else 1, epsilon=EPS, dtype=f"mixed_{x.dtype.name}")
        return layer(tensorflow.constant(x), training=True).numpy()

    def dropout(x, p):
        return keras.layers.Dropout(p, seed=1, dtype=f"mixed_{x.dtype.name}")(tensorflow.constant(x), training=True).numpy()

    return f"{keras.__version__}, {tensorflow.__version__}", norm, dropout


@library("flax", "flax.nnx")
def of_flax(nnx):
    import flax
    import jax.numpy as jnp

    def norm(x, last):
        axis = -1 if last else 1
        module = nnx.BatchNorm(x.shape[axis], axis=axis, epsilon=EPS, dtype=x.dtype, use_running_average=False, rngs=nnx.Rngs(0))
        return numpy.asarray(module(jnp.asarray(x)))

    def dropout(x, p):
        return numpy.asarray(nnx.Dropout(p, rngs=nnx.Rngs(1))(jnp.asarray(x)))

    return flax.__version__, norm, dropout


def inv_std_error(norm, dtype, last):
    """The largest relative error over the channels of the slope of y by x, where the mean is about a thousand deviations."""
    generator = numpy.random.default_rng(0)
    x = (generator.standard_normal(SHAPE) + generator.uniform(900, 1100, SHAPE[-1])).astype(dtype)
    given = x if last else numpy.ascontiguousarray(numpy.moveaxis(x, -1, 1))
    y = numpy.asarray(norm(given, last), numpy.float64)
    y = y if last else numpy.moveaxis(y, 1, -1)
    x, y = x.astype(float).reshape(-1, SHAPE[-1]), y.reshape(-1, SHAPE[-1])
    centred = x - x.mean(0)
    slope = (y * centred).sum(0) / (centred**2).sum(0)
    error = slope * numpy.sqrt(x.var(0) + EPS) - 1
    return error[abs(error).argmax()] if numpy.isfinite(error).all() else numpy.nan


def kept_factor(dropout, dtype, p):
    """The mean factor of the kept elements, of numbers in [1, 2)."""
    x = numpy.random.default_rng(0).uniform(1, 2, (1024, 1024)).astype(dtype)
    y = numpy.asarray(dropout(x, p))
    kept = y != 0
    return y[kept].astype(float).sum() / x[kept].astype(float).sum()


def dropped(dropout, dtype, p):
    """The share of elements that are dropped, of four million."""
    return (numpy.asarray(dropout(numpy.ones((2048, 2048), dtype), p)) == 0).mean()


def main():
    print("| | type | slope, NCHW | slope, NHWC | factor of kept, p = 0.1 | dropped, p = 0.01 | dropped, p = 0.1 |")
    print("|---|---|--:|--:|--:|--:|--:|")
    for name, module, make in LIBRARIES:
        try:
            version, norm, dropout = make(importlib.import_module(module))
        except ModuleNotFoundError:
            continue
        for kind, dtype in TYPES.items():
            cells = []
            for last in (False, True):
                try:
                    cells.append(f"{inv_std_error(norm, numpy.dtype(dtype), last):+.1%}")
                except Exception as error:  # A library that refuses a layout says so in its cell.
                    cells.append(type(error).__name__)
            cells.append(f"{kept_factor(dropout, dtype, 0.1):.4f}")
            cells += [f"{dropped(dropout, dtype, p):.3%}" for p in (0.01, 0.1)]
            print(f"| {' '.join([name, version]).strip()} | {kind} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
