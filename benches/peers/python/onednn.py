"""oneDNN: batch norm alone, which is what it has, with scale and shift, through its C interface.

    onednn.py LIBRARY plain|last|blocked

LIBRARY is a `libdnnl.so.3`. The layouts are N, C, H, W; channels last; and blocks of 16 channels, nChw16c. The same
workload can be had in each, so each is a peer of its own. Outputs and statistics are buffers that are used again, as a
framework on oneDNN would; running statistics are the caller's business and not kept.
"""

import ctypes
import math
import sys
from ctypes import byref, c_char_p, c_float, c_int, c_int64, c_size_t, c_uint, c_void_p

import numpy

from peer import EPS, serve

# From dnnl_types.h, stable within version 3.
CPU, F32 = 1, 3
FORWARD_TRAINING, BACKWARD = 64, 128
USE_SCALE, USE_SHIFT = 2, 4
SRC, DST, MEAN, VARIANCE, SCALE, SHIFT = 1, 17, 49, 50, 51, 52
DIFF_SRC, DIFF_DST, DIFF_SCALE, DIFF_SHIFT = 129, 145, 255, 256
ALLOCATE = c_void_p(-1)


class Version(ctypes.Structure):
    _fields_ = [("major", c_int), ("minor", c_int), ("patch", c_int), ("hash", c_char_p), ("cpu", c_uint), ("gpu", c_uint)]


class Argument(ctypes.Structure):
    _fields_ = [("arg", c_int), ("memory", c_void_p)]


def check(status):
    if status != 0:
        raise RuntimeError(f"oneDNN returned status {status}")


def tag(name):
    """The number of a layout. It may differ between versions, so it is looked up by name."""
    library.dnnl_fmt_tag2str.restype = c_char_p
    return next(number for number in range(1, 2000) if library.dnnl_fmt_tag2str(number) == name.encode())


def described(dims, layout):
    descriptor = c_void_p()
    dims = (c_int64 * 12)(*dims)
    check(library.dnnl_memory_desc_create_with_tag(byref(descriptor), sum(d > 0 for d in dims), dims, F32, tag(layout)))
    return descriptor


def memory(descriptor, low, high):
    """Memory with uniform values, made by the library at an alignment it likes."""
    handle = c_void_p()
    check(library.dnnl_memory_create(byref(handle), descriptor, engine, ALLOCATE))
    data = c_void_p()
    check(library.dnnl_memory_get_data_handle(handle, byref(data)))
    library.dnnl_memory_desc_get_size.restype = c_size_t
    count = library.dnnl_memory_desc_get_size(descriptor) // 4
    values = numpy.ctypeslib.as_array((c_float * count).from_address(data.value))
    values[:] = numpy.random.default_rng(1).uniform(low, high, count)
    memories.append(handle)
    return handle


def primitive(descriptor):
    handle = c_void_p()
    check(library.dnnl_primitive_create(byref(handle), descriptor))
    return handle


def call(handle, arguments):
    arguments = (Argument * len(arguments))(*(Argument(arg, memory.value) for arg, memory in arguments.items()))

    def run():
        check(library.dnnl_primitive_execute(handle, stream, len(arguments), arguments))
        check(library.dnnl_stream_wait(stream))

    return run


def make_ops(layout, dims):
    while memories:
        check(library.dnnl_memory_destroy(memories.pop()))
    n, channels, *spatial = dims
    height = math.prod(spatial[:-1]) if spatial else 1
    width = spatial[-1] if spatial else 1
    data = described([n, channels, height, width], {"plain": "abcd", "last": "acdb", "blocked": "aBcd16b"}[own_layout])
    vector = described([channels], "a")
    flags = USE_SCALE | USE_SHIFT

    forward = c_void_p()
    check(library.dnnl_batch_normalization_forward_primitive_desc_create(
        byref(forward), engine, FORWARD_TRAINING, data, data, c_float(EPS), c_uint(flags), None))
    backward = c_void_p()
    check(library.dnnl_batch_normalization_backward_primitive_desc_create(
        byref(backward), engine, BACKWARD, data, data, data, c_float(EPS), c_uint(flags), forward, None))

    shared = {
        SRC: memory(data, -1, 2), MEAN: memory(vector, 0, 1), VARIANCE: memory(vector, 0.5, 1.5),
        SCALE: memory(vector, 0.5, 1.5),
    }
    step = call(primitive(forward), shared | {SHIFT: memory(vector, -0.5, 0.5), DST: memory(data, 0, 1)})
    step()
    return {
        "norm-forward": step,
        "norm-backward": call(primitive(backward), shared | {
            DIFF_DST: memory(data, -1, 1), DIFF_SRC: memory(data, 0, 1),
            DIFF_SCALE: memory(vector, 0, 1), DIFF_SHIFT: memory(vector, 0, 1),
        }),
    }


library, own_layout = ctypes.CDLL(sys.argv[1]), sys.argv[2]
memories = []
engine, stream = c_void_p(), c_void_p()
check(library.dnnl_engine_create(byref(engine), CPU, c_size_t(0)))
check(library.dnnl_stream_create(byref(stream), engine, c_uint(1)))
library.dnnl_version.restype = ctypes.POINTER(Version)
version = library.dnnl_version().contents
serve(f"{version.major}.{version.minor}.{version.patch}", make_ops)
