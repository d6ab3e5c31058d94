"""The package against the header, and the mistakes that can be made with arrays."""

import ctypes
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy
import pytest

import normdrop
from normdrop import _library

HEADER = Path(__file__).resolve().parents[3] / "include/normdrop.h"
TYPES = {
    "uint32_t": ctypes.c_uint32, "int32_t": ctypes.c_int32, "uint64_t": ctypes.c_uint64, "size_t": ctypes.c_size_t,
    "float": ctypes.c_float, "double": ctypes.c_double, "uint64_t *": ctypes.c_void_p,
}


def header():
    return re.sub(r"//.*", "", HEADER.read_text())


def test_structs_are_those_of_the_header():
    found = dict(re.findall(r"typedef struct (\w+) \{(.*?)\} \1;", header(), re.S))
    numbers = {name for _, name in re.findall(r"typedef (\w+) (\w+);", header())}
    slices = {name for name in found if name.startswith("normdrop_slice")}
    assert found.keys() - slices == _library.STRUCTS.keys()
    for name in slices:
        assert re.findall(r"(\w+);", found[name]) == [field for field, _ in _library.Slice._fields_], name
    for name, struct in _library.STRUCTS.items():
        fields = []
        for kind, pointer, field in re.findall(r"(?:const )?(?:struct )?(\w+) (\*?)(\w+);", found[name]):
            if kind in slices:
                fields.append((field, _library.Slice))
            elif kind in numbers:
                fields.append((field, ctypes.c_int32 if kind == "normdrop_status" else ctypes.c_uint32))
            else:
                fields.append((field, TYPES[f"{kind} {pointer}".strip()]))
        assert fields == list(struct._fields_), name


def test_functions_and_names_are_those_of_the_header():
    assert set(re.findall(r"\bnormdrop_(\w+)\(", header())) == _library.FUNCTIONS.keys()
    for prefix, names in [("ACTIVATION", normdrop.ACTIVATIONS), ("GRANULARITY", normdrop.GRANULARITIES),
                          ("BACKEND", normdrop.BACKENDS)]:
        defined = re.findall(rf"#define NORMDROP_{prefix}_(\w+) (\d+)", header())
        assert [(name.lower(), int(number)) for name, number in defined] == [(name, i) for i, name in enumerate(names)]
    assert f"#define NORMDROP_ABI_VERSION {_library.ABI_VERSION}\n" in HEADER.read_text()


def test_the_library_introduces_itself():
    assert re.fullmatch(r"\d+\.\d+\.\d+", normdrop.library_version())
    assert os.path.basename(normdrop.library_path()).startswith("libnormdrop")
    assert normdrop.backend() in normdrop.BACKENDS[1:]
    assert normdrop.bernoulli(0.5) == (0.5, 2.0)


@pytest.mark.parametrize("path, said", [("/nowhere/libnormdrop.so", "is not the shared library"), (__file__, "is not the shared")])
def test_a_wrong_library_is_named(path, said):
    environment = os.environ | {"NORMDROP_LIBRARY": path, "PYTHONPATH": os.pathsep.join(sys.path)}
    run = subprocess.run([sys.executable, "-c", "import normdrop"], env=environment, capture_output=True, text=True)
    assert run.returncode == 1 and path in run.stderr and said in run.stderr


def floats(*shape):
    return numpy.zeros(shape, numpy.float32)


@pytest.fixture
def layer():
    return normdrop.Layer("NCHW", (2, 3, 4, 5), "relu", p=0.5)


@pytest.mark.parametrize("arguments, said", [
    (("NCWH", (1, 2, 3, 4)), "layout must be one of NC, "),
    (("NCHW", (1, 2, 3)), "must have the 4 dimensions NCHW, not (1, 2, 3)"),
    (("NC", (-1, 2)), "dimensions NC, not (-1, 2)"),
    (("NC", (1, 2), "ReLU"), "activation must be one of identity, relu, "),
    (("NC", (2**40, 2**40)), "does not fit a size_t"),
    (("NCL", (1, 2**40, 2**60)), "does not fit a size_t"),
    (("NCL", (2**40, 1, 2**40)), "does not fit a size_t"),
    (("NCL", (1, 1, 2**70)), "does not fit a size_t"),
])
def test_wrong_layers(arguments, said):
    with pytest.raises(ValueError, match=re.escape(said)):
        normdrop.Layer(*arguments)


@pytest.mark.parametrize("options, said", [
    ({"p": 1.5}, "p, the probability to drop, must be in [0, 1], but is 1.5"),
    ({"p": float("nan")}, "must be in [0, 1], but is nan"),
    ({"eps": -1}, "eps must be finite"),
    ({"momentum": 2}, "momentum must be in [0, 1], but is 2.0"),
    ({"slope": float("inf"), "activation": "leaky_relu"}, "slope must be finite, but is inf"),
    ({"granularity": "row"}, "granularity must be one of element, channel, sample, not 'row'"),
    ({"running_var": "exact"}, "running_var must be one of"),
    ({"backend": "sse"}, "backend must be one of"),
    ({"tasks": "many"}, "invalid literal"),
])
def test_wrong_options(options, said):
    with pytest.raises(ValueError, match=re.escape(said)):
        normdrop.Layer("NC", (4, 2), **options)


@pytest.mark.parametrize("x, kind, said", [
    ([1.0] * 120, TypeError, "x must be a numpy array, not list"),
    (numpy.zeros((2, 3, 4, 5)), TypeError, "x must be an array of float32, not float64"),
    (floats(2, 3, 5, 4), ValueError, "x must have the shape (2, 3, 4, 5), not (2, 3, 5, 4)"),
    (floats(2, 4, 5, 3).transpose(0, 3, 1, 2), ValueError, "x must be C-contiguous"),
])
def test_wrong_arrays(layer, x, kind, said):
    with pytest.raises(kind, match=re.escape(said)):
        layer.train(x)


def test_a_missing_array_is_named(layer):
    with pytest.raises(ValueError, match="input, expected 120, got 0"):
        layer.train(None)
    with pytest.raises(ValueError, match="running_var, expected 3, got 0"):
        layer.eval(floats(2, 3, 4, 5), floats(3), None)
    with pytest.raises(ValueError, match="give either saved"):
        layer.backward(floats(2, 3, 4, 5), floats(2, 3, 4, 5))
    with pytest.raises(ValueError, match="batches must be an array of one value"):
        layer.train(floats(2, 3, 4, 5), batches=numpy.zeros(2, numpy.uint64))


def test_refusals_of_the_library_are_told(layer):
    x = floats(2, 3, 4, 5)
    with pytest.raises(normdrop.NormdropError) as refused:
        layer.train(x, weight=floats(4))
    assert (refused.value.buffer, refused.value.expected, refused.value.actual) == ("weight", 3, 4)
    assert "weight, expected 3, got 4" in str(refused.value)
    with pytest.raises(normdrop.NormdropError, match="output and input"):
        layer.train(x, out=x)
    with pytest.raises(normdrop.NormdropError, match="mask, expected 15, got 14"):
        layer.train(x, mask=layer.mask(1)[:-1].copy())
    with pytest.raises(normdrop.NormdropError, match="not aligned"):
        memory = numpy.zeros(4 * 120 + 1, numpy.uint8)
        layer.train(memory[1:].view(numpy.float32).reshape(x.shape))
    with pytest.raises(normdrop.NormdropError, match="more than one value"):
        normdrop.Layer("NC", (1, 3)).train(floats(1, 3))


def test_what_is_read_only_is_not_written(layer):
    x = floats(2, 3, 4, 5)
    x.flags.writeable = False
    layer.train(x)
    with pytest.raises(ValueError, match="out would be written, but is read-only"):
        layer.eval(x, floats(3), floats(3), out=x)
