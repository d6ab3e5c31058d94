"""A layer in a thread whose floating-point environment another library has changed: JAX and TensorFlow call back on threads that
flush subnormal numbers to 0, and `torch.set_flush_denormal` does it to the caller's own.

The environment is that of the C library, of which Linux on x86-64 is known here.
"""

import ctypes
import platform
import struct
import sys

import numpy
import pytest

import normdrop

pytestmark = pytest.mark.skipif(
    not (sys.platform == "linux" and platform.machine() == "x86_64"), reason="the layout of fenv_t is not known here"
)

# MXCSR: flush-to-zero and denormals-are-zero; each rounding mode with both; to zero, with nothing masked but inexact results and
# underflow. The last has no flags, the others all.
FLUSH = 0x8040
ENVIRONMENTS = [FLUSH | 0x1F80 | 0x3F, *(FLUSH | mode << 13 | 0x1F80 | 0x3F for mode in (1, 2, 3)), 0x6000 | 0x1800]


# Mean and variance of a new layer, by the number of channels.
RUNNING = {channels: (numpy.zeros(channels, numpy.float32), numpy.ones(channels, numpy.float32)) for channels in (7, 16)}


class Environment:
    """Another environment, while it is entered; `kept` says whether it was there at the end."""

    def __init__(self, mxcsr):
        self.mxcsr = mxcsr
        self.libm = ctypes.CDLL("libm.so.6")
        self.before = ctypes.create_string_buffer(32)

    def __enter__(self):
        self.libm.fegetenv(self.before)
        self.libm.fesetenv(self.before.raw[:28] + struct.pack("<I", self.mxcsr))
        return self

    def __exit__(self, *_):
        now = ctypes.create_string_buffer(32)
        self.libm.fegetenv(now)
        self.libm.fesetenv(self.before)
        self.kept = struct.unpack_from("<I", now, 28)[0] == self.mxcsr


def calls(layer, evaluation, x, small, mask):
    y, _ = layer.train(x, mask=mask)
    return [y, evaluation.eval(small, *RUNNING[small.shape[1]])]


@pytest.mark.parametrize("mxcsr", ENVIRONMENTS)
@pytest.mark.parametrize("layout, shape", [("NC", (64, 7)), ("NCL", (5, 16, 70))])
def test_the_bits_are_the_same_and_the_environment_is_as_before(layout, shape, mxcsr):
    x = numpy.random.default_rng(0).standard_normal(shape, dtype=numpy.float32) * numpy.float32(1e30)
    small = (numpy.arange(x.size, dtype=numpy.uint32).reshape(shape) + 1).view(numpy.float32)
    layer = normdrop.Layer(layout, shape, activation="gelu", p=0.3)
    evaluation = normdrop.Layer(layout, shape, eps=0.0)
    mask = layer.mask(7)
    expected = calls(layer, evaluation, x, small, mask)
    assert expected[1].tobytes() == small.tobytes(), "subnormal numbers are evaluated as they are"
    fresh = normdrop.Layer(layout, shape, activation="gelu", p=0.3)
    environment = Environment(mxcsr)
    with environment:
        found = calls(fresh, evaluation, x, small, mask)
    assert environment.kept
    assert [values.tobytes() for values in found] == [values.tobytes() for values in expected]
