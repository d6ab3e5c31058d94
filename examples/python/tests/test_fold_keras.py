"""Batch norm folded into the layers of Keras, whose weights have other orders than PyTorch's, against the unfolded network.

Keras runs on PyTorch here, in float32: the comparison is as exact as that is, and a wrong order is far outside of it.
"""

import os

import numpy
import pytest

pytest.importorskip("torch")
os.environ.setdefault("KERAS_BACKEND", "torch")
keras = pytest.importorskip("keras")
layers = keras.layers

import normdrop

KINDS = [
    (layers.Dense(4), "IO", 1),
    (layers.Conv1D(4, 3), "LIO", 1),
    (layers.Conv2D(4, 3), "HWIO", 1),
    (layers.Conv2D(6, (3, 2), groups=2), "HWIO", 2),
    (layers.Conv3D(4, 2), "DHWIO", 1),
    (layers.DepthwiseConv1D(3, depth_multiplier=2), "LIM", 1),
    (layers.DepthwiseConv2D(3), "HWIM", 1),
    (layers.DepthwiseConv2D((3, 2), depth_multiplier=3), "HWIM", 1),
    (layers.Conv1DTranspose(4, 3), "LOI", 1),
    (layers.Conv2DTranspose(4, (3, 2), strides=2), "HWOI", 1),
    (layers.Conv2DTranspose(5, 3), "HWOI", 1),
    (layers.Conv3DTranspose(4, 2), "DHWOI", 1),
]
# The axes of the images: as many channels as most layers have outputs, so that a wrong order has the right shape.
SIZES = {"IO": (), "L": (9,), "H": (7, 6), "D": (4, 5, 4)}


def batch_norm(channels, dimensions, seed):
    random = numpy.random.default_rng(seed)
    made = layers.BatchNormalization()
    made.build((None,) * (dimensions - 1) + (channels,))
    gamma, beta, mean = random.normal(size=(3, channels))
    made.set_weights([gamma, beta, mean, random.uniform(0.25, 2, channels)])
    return made


def fold(function, weights, bias, norm, layout, groups=1):
    gamma, beta, mean, var = norm.get_weights()
    function(weights, bias, mean, var, layout=layout, groups=groups, weight=gamma, shift=beta, eps=norm.epsilon)


def output(*network, x):
    for layer in network:
        x = layer(x)
    return keras.ops.convert_to_numpy(x)


def images(layout, seed):
    size = SIZES["IO" if layout == "IO" else layout[0]]
    return numpy.random.default_rng(seed).normal(size=(2, *size, 4)).astype(numpy.float32)


def far(actual, wanted):
    return numpy.abs(actual - wanted).max() > 1e-4


@pytest.mark.parametrize("layer, layout, groups", KINDS, ids=lambda value: getattr(value, "name", str(value)))
def test_every_kind_of_layer(layer, layout, groups):
    x = images(layout, 1)
    layer.build(x.shape)
    kernel, bias = layer.get_weights()
    bias += numpy.random.default_rng(2).normal(size=bias.shape).astype(numpy.float32)
    after, before = batch_norm(bias.size, x.ndim, 3), batch_norm(4, x.ndim, 4)
    for norm, function in [(after, normdrop.fold_into_previous), (before, normdrop.fold_into_next)]:
        network = [layer, norm] if norm is after else [norm, layer]
        layer.set_weights([kernel, bias])
        wanted = output(*network, x=x)
        folded, folded_bias = kernel.copy(), bias.copy()
        fold(function, folded, folded_bias, norm, layout, groups)
        layer.set_weights([folded, folded_bias])
        # Of a transposed convolution, not every output sees every tap.
        assert far(output(layer, x=x), wanted) == (norm is before and "OI" in layout)


def test_the_layout_of_a_convolution_is_wrong_for_a_transposed_one():
    x, layer, norm = images("HWOI", 1), layers.Conv2DTranspose(4, 3), batch_norm(4, 4, 3)
    layer.build(x.shape)
    kernel, bias = layer.get_weights()
    wanted = output(layer, norm, x=x)
    for layout in ["HWOI", "HWIO"]:
        folded, folded_bias = kernel.copy(), bias.copy()
        fold(normdrop.fold_into_previous, folded, folded_bias, norm, layout)
        layer.set_weights([folded, folded_bias])
        assert far(output(layer, x=x), wanted) == (layout == "HWIO")


def test_a_separable_convolution():
    x = images("HWIM", 1)
    layer = layers.SeparableConv2D(5, 3, depth_multiplier=2)
    layer.build(x.shape)
    depthwise, pointwise, bias = layer.get_weights()
    after, before = batch_norm(5, 4, 3), batch_norm(4, 4, 4)
    wanted = output(before, layer, after, x=x)
    # After it, into the pointwise weights.
    fold(normdrop.fold_into_previous, pointwise, bias, after, "HWIO")
    # Before it, into the depthwise weights; their bias, for which there is no place, goes on into the pointwise weights.
    between = numpy.zeros(8, numpy.float32)
    fold(normdrop.fold_into_next, depthwise, between, before, "HWIM")
    zeros, ones = numpy.zeros(8, numpy.float32), numpy.ones(8, numpy.float32)
    normdrop.fold_into_next(pointwise, bias, zeros, ones, shift=between, eps=0, layout="HWIO")
    layer.set_weights([depthwise, pointwise, bias])
    assert not far(output(layer, x=x), wanted)


def test_a_dense_layer_after_a_flattening():
    x, norm, flatten, layer = images("HWIO", 1), batch_norm(4, 4, 3), layers.Flatten(), layers.Dense(5)
    layer.build((None, 7 * 6 * 4))
    kernel, bias = layer.get_weights()
    wanted = output(norm, flatten, layer, x=x)
    fold(normdrop.fold_into_next, kernel.reshape(7, 6, 4, 5), bias, norm, "HWIO")
    layer.set_weights([kernel, bias])
    assert not far(output(flatten, layer, x=x), wanted)
