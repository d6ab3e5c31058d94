"""The package against the header, and the mistakes that can be made with arrays."""

import copy
import ctypes
import gc
import multiprocessing
import os
import pickle
import re
import shutil
import subprocess
import sys
import traceback
import weakref
from decimal import Decimal
from fractions import Fraction
from pathlib import Path

import numpy
import pytest

import normdrop
from normdrop import _library

# In the repository; in an sdist the crate is in a folder of its own.
HEADER = next(
    header for folder in (Path(__file__).resolve().parents[3], Path(__file__).resolve().parents[1] / "rust")
    if (header := folder / "include/normdrop.h").exists()
)
TYPES = {
    "uint32_t": ctypes.c_uint32, "int32_t": ctypes.c_int32, "uint64_t": ctypes.c_uint64, "size_t": ctypes.c_size_t,
    "float": ctypes.c_float, "double": ctypes.c_double, "uint64_t *": ctypes.c_void_p,
}


def floats(*shape):
    return numpy.zeros(shape, numpy.float32)


def header():
    return re.sub(r"/\*.*?\*/", "", HEADER.read_text(), flags=re.DOTALL)


def test_structs_are_those_of_the_header():
    found = dict(re.findall(r"typedef struct (\w+) \{(.*?)\} \1;", header(), re.S))
    numbers = {name for _, name in re.findall(r"typedef (\w+) (\w+);", header())}
    slices = {name: _library.Slice for name in found if name.startswith("normdrop_slice")}
    slices |= {name: _library.Halves for name in found if name.startswith("normdrop_halves")}
    assert found.keys() - slices.keys() == _library.STRUCTS.keys()
    for name, slice_ in slices.items():
        assert re.findall(r"(\w+);", found[name]) == [field for field, _ in slice_._fields_], name
    for name, struct in _library.STRUCTS.items():
        fields = []
        for kind, pointer, field in re.findall(r"(?:const )?(?:struct )?(\w+) (\*?)(\w+);", found[name]):
            if kind in slices:
                fields.append((field, slices[kind]))
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


def test_a_library_of_another_version_is_named(tmp_path):
    """An older library may have the same number of the interface and fewer functions."""
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("there is no C compiler")
    (tmp_path / "old.c").write_text(f"unsigned normdrop_abi_version(void) {{ return {_library.ABI_VERSION}; }}")
    old = str(tmp_path / "old.so")
    subprocess.run([compiler, "-shared", "-fPIC", "-o", old, str(tmp_path / "old.c")], check=True)
    environment = os.environ | {"NORMDROP_LIBRARY": old, "PYTHONPATH": os.pathsep.join(sys.path)}
    run = subprocess.run([sys.executable, "-c", "import normdrop"], env=environment, capture_output=True, text=True)
    assert run.returncode == 1 and f"ImportError: {old} has no function normdrop_" in run.stderr


@pytest.mark.parametrize("call, said", [
    (lambda layer: normdrop.Layer("NC", 4), "shape must be a sequence of integers, not int (4)"),
    (lambda layer: layer.drop_padding(5, layer.mask(0)), "lengths must be a sequence of integers, not int (5)"),
    (lambda layer: layer.clear_padding(None, floats(2, 3, 4, 5)), "lengths must be a sequence of integers, not NoneType (None)"),
    (lambda layer: layer.drop_padding([1, 2], None), "mask must be a numpy array, not NoneType"),
])
def test_arguments_that_are_left_out_or_single(layer, call, said):
    with pytest.raises(TypeError, match=re.escape(said)):
        call(layer)


@pytest.fixture
def layer():
    return normdrop.Layer("NCHW", (2, 3, 4, 5), "relu", p=0.5)


@pytest.mark.parametrize("arguments, said", [
    (("NCWH", (1, 2, 3, 4)), "layout must be one of NC, "),
    (("NCHW", (1, 2, 3)), "must have the 4 dimensions NCHW, not (1, 2, 3)"),
    (("NC", (-1, 2)), "N of shape must be at least 0 and below 2**64, not -1"),
    ((["NC"], (1, 2)), "layout must be one of NC, "),
    (("NC", (1, 2), "ReLU"), "activation must be one of identity, relu, "),
    (("NC", (2**40, 2**40)), "does not fit a size_t"),
    (("NCL", (1, 2**40, 2**60)), "does not fit a size_t"),
    (("NCL", (2**40, 1, 2**40)), "does not fit a size_t"),
    (("NCL", (1, 1, 2**70)), "L of shape must be at least 0 and below 2**64, not 1180591620717411303424"),
])
def test_wrong_layers(arguments, said):
    with pytest.raises(ValueError, match=re.escape(said)):
        normdrop.Layer(*arguments)


@pytest.mark.parametrize("options, said", [
    ({"p": 1.5}, "p, the probability to drop, must be in [0, 1], but is 1.5"),
    ({"p": float("nan")}, "must be in [0, 1], but is nan"),
    ({"eps": -1}, "eps must be finite"),
    ({"slope": float("inf"), "activation": "leaky_relu"}, "slope must be finite, but is inf"),
    ({"alpha": float("inf"), "activation": "elu"}, "alpha must be finite, but is inf"),
    ({"granularity": "row"}, "granularity must be one of element, channel, sample, not 'row'"),
    ({"running_var": "exact"}, "running_var must be one of"),
    ({"backend": "sse"}, "backend must be one of"),
    ({"tasks": -1}, "tasks must be at least 0 and below 2**32, not -1"),
    ({"tasks": 2**32}, "tasks must be at least 0 and below 2**32, not 4294967296"),
    ({"eps": 1e-50}, "eps must fit a float32, not 1e-50"),
    ({"slope": 1e39}, "slope must fit a float32, not 1e+39"),
    ({"alpha": 1e39}, "alpha must fit a float32, not 1e+39"),
    ({"momentum": 10**400}, "momentum must fit a float64, not 1000000"),
])
def test_wrong_options(options, said):
    with pytest.raises(ValueError, match=re.escape(said)):
        normdrop.Layer("NC", (4, 2), **options)


@pytest.mark.parametrize("value, kind", [
    (4.9, "float (4.9)"), ("4", "str ('4')"), (True, "bool (True)"), (numpy.bool_(True), "bool"), (4j, "complex (4j)"),
    (numpy.float64(4), "float64"), (numpy.array([4]), "ndarray"), (None, "NoneType (None)"), (Decimal(4), "Decimal"),
])
@pytest.mark.parametrize("call", [
    lambda value: normdrop.Layer("NC", (value, 3)),
    lambda value: normdrop.Layer("NC", (3, value)),
    lambda value: normdrop.Layer("NC", (3, 3), tasks=value),
    lambda value: normdrop.Layer("NC", (3, 3), p=0.5).mask(value),
    lambda value: normdrop.fill_mask(0.5, value, 8),
    lambda value: normdrop.fill_mask(0.5, 1, value),
    lambda value: normdrop.fill_mask(0.5, 1, 8, first=value),
])
def test_numbers_that_are_no_integers(call, value, kind):
    with pytest.raises(TypeError, match=r"must be an integer, not (numpy\.)?" + re.escape(kind)):
        call(value)


@pytest.mark.parametrize("kind", [int, numpy.int64, numpy.uint64, numpy.int8, lambda value: numpy.array(value)])
def test_integers_of_every_type(kind):
    layer = normdrop.Layer("NC", (kind(40), kind(3)), p=0.5, tasks=kind(1))
    assert layer == normdrop.Layer("NC", (40, 3), p=0.5)
    assert all(type(size) is int for size in layer.shape)
    assert (layer.mask(kind(5)) == layer.mask(5)).all()
    assert (normdrop.fill_mask(0.5, kind(5), kind(100), first=kind(20)) == normdrop.fill_mask(0.5, 5, 100, 20)).all()
    random = numpy.random.default_rng(1)
    assert layer.mask(random.integers(2**63)).shape == (15,)


@pytest.mark.parametrize("value", [-1, numpy.int64(-1), 2**64])
def test_integers_that_would_be_cut(value):
    layer, said = normdrop.Layer("NC", (4, 3), p=0.5), re.escape(f"must be at least 0 and below 2**64, not {value}")
    for call in (
        lambda: layer.mask(value), lambda: normdrop.fill_mask(0.5, value, 8), lambda: normdrop.fill_mask(0.5, 1, value),
        lambda: normdrop.fill_mask(0.5, 1, 8, first=value),
    ):
        with pytest.raises(ValueError, match=said):
            call()
    with pytest.raises(ValueError, match=re.escape("first + bits must be at most 2**64, not 18446744073709551617")):
        normdrop.fill_mask(0.5, 1, 8, first=2**64 - 7)
    # The last seed, the last bits.
    assert layer.mask(2**64 - 1).shape == normdrop.fill_mask(0.5, 2**64 - 1, 12, first=2**64 - 12).shape


@pytest.mark.parametrize("value, kind", [
    (True, "bool (True)"), (numpy.bool_(False), "bool"), ("0.5", "str ('0.5')"), (b"0", "bytes (b'0')"), (0.5j, "complex (0.5j)"),
    (numpy.complex64(0.5), "complex64"), (numpy.str_("0.5"), "str_"), (numpy.timedelta64(1), "timedelta64"),
    (numpy.array([0.5]), "ndarray"), (None, "NoneType (None)"), (memoryview(b"0"), "memoryview"),
])
@pytest.mark.parametrize("call", [
    lambda value: normdrop.Layer("NC", (3, 3), p=value),
    lambda value: normdrop.Layer("NC", (3, 3), eps=value),
    lambda value: normdrop.Layer("NC", (3, 3), momentum=value),
    lambda value: normdrop.Layer("NC", (3, 3), slope=value),
    lambda value: normdrop.bernoulli(value),
    lambda value: normdrop.fill_mask(value, 1, 8),
    lambda value: normdrop.Layer("NC", (3, 3)).apply_gradient(
        floats(3, 3), floats(3, 3), normdrop.Saved(floats(3), floats(3), numpy.ones(3)), numpy.zeros(6), value),
])
def test_numbers_that_are_not_real(call, value, kind):
    with pytest.raises(TypeError, match=r"must be a real number, not (numpy\.)?" + re.escape(kind)):
        call(value)


@pytest.mark.parametrize("kind", [float, numpy.float32, numpy.float64, numpy.float16, Decimal, Fraction, numpy.array])
def test_real_numbers_of_every_type(kind):
    layer = normdrop.Layer("NC", (2, 3), p=kind(0.5), eps=kind(0.25), momentum=kind(0.125), slope=kind(2), alpha=kind(2))
    assert layer == normdrop.Layer("NC", (2, 3), p=0.5, eps=0.25, momentum=0.125, slope=2, alpha=2)
    assert normdrop.bernoulli(kind(0.5)) == (0.5, 2.0)


@pytest.mark.parametrize("x, kind, said", [
    ([1.0] * 120, TypeError, "x must be a numpy array, not list"),
    (memoryview(numpy.zeros((2, 3, 4, 5), numpy.float32)), TypeError, "x must be a numpy array, not memoryview"),
    (numpy.float32(1), TypeError, "x must be a numpy array, not float32"),
    (floats(), ValueError, "x must have the shape (2, 3, 4, 5), not ()"),
    (numpy.zeros((2, 3, 4, 5)), TypeError, "x must be an array of float32, float16 or bfloat16, not float64"),
    (numpy.zeros((2, 3, 4, 5), object), TypeError, "x must be an array of float32, float16 or bfloat16, not object"),
    (numpy.zeros((2, 3, 4, 5), "f4,f4"), TypeError, "x must be an array of float32, float16 or bfloat16, not [('f0', '<f4')"),
    (floats(2, 3, 4, 5).astype(numpy.dtype("f4").newbyteorder()), TypeError,
     f"not {numpy.dtype('f4').newbyteorder().str}, the byte order of other machines: astype(numpy.float32) converts it"),
    (numpy.zeros((2, 3, 4, 5), numpy.uint16), TypeError, "x must be an array of float32, float16 or bfloat16, not uint16"),
    (numpy.zeros((2, 3, 4, 5), numpy.dtype("f2").newbyteorder()), TypeError, "x must be an array of float32, float16 or bfloat16, not"),
    (numpy.ma.masked_array(floats(2, 3, 4, 5), mask=True), TypeError, "x must be an array without a mask, not MaskedArray"),
    (floats(2, 3, 5, 4), ValueError, "x must have the shape (2, 3, 4, 5), not (2, 3, 5, 4)"),
    (floats(2, 4, 5, 3).transpose(0, 3, 1, 2), ValueError, "x must be C-contiguous"),
])
def test_wrong_arrays(layer, x, kind, said):
    with pytest.raises(kind, match=re.escape(said)):
        layer.train(x)


def test_a_missing_array_is_named(layer):
    x, saved = floats(2, 3, 4, 5), normdrop.Saved(floats(3), floats(3), numpy.ones(3))
    for name, call in [
        ("x", lambda: layer.train(None)), ("x", lambda: layer.eval(None, floats(3), floats(3))), ("x", lambda: layer.moments(None)),
        ("grad", lambda: layer.backward(None, x, saved)), ("grad", lambda: layer.reduce(None, x, saved)),
        ("x", lambda: layer.apply(None, saved)), ("sums", lambda: layer.apply_gradient(x, x, saved, None, 40)),
        ("sums", lambda: layer.finish_gradients(None)), ("moments", lambda: layer.finish(None)),
        ("into", lambda: normdrop.merge_sums(None, numpy.zeros(6))), ("sums", lambda: normdrop.merge_sums(numpy.zeros(6), None)),
        ("moments", lambda: normdrop.merge_moments(numpy.zeros(9), None)),
    ]:
        with pytest.raises(TypeError, match=f"^{name} must be a numpy array, not NoneType"):
            call()
    for wrong in (1, (floats(3), floats(3))):
        with pytest.raises(TypeError, match="saved must be what train or finish gave"):
            layer.apply(x, wrong)
    with pytest.raises(ValueError, match="running_var must have 3 values, but has 0"):
        layer.eval(floats(2, 3, 4, 5), floats(3), None)
    for arguments in ({}, {"saved": saved, "running_mean": floats(3), "running_var": floats(3)}, {"saved": saved, "running_var": floats(3)},
                      {"saved": saved, "running_mean_tail": floats(3)}):
        with pytest.raises(ValueError, match="give either saved"):
            layer.backward(floats(2, 3, 4, 5), floats(2, 3, 4, 5), **arguments)
    with pytest.raises(ValueError, match="batches must be an array of one value"):
        layer.train(floats(2, 3, 4, 5), batches=numpy.zeros(2, numpy.uint64))
    with pytest.raises(TypeError, match="batches must be a numpy array, not int"):
        layer.train(floats(2, 3, 4, 5), batches=3)
    with pytest.raises(TypeError, match="batches must be an array of uint64, not float64"):
        layer.train(floats(2, 3, 4, 5), batches=numpy.zeros(1))


def test_refusals_of_the_library_are_told(layer):
    x = floats(2, 3, 4, 5)
    with pytest.raises(normdrop.NormdropError) as refused:
        layer.train(x, weight=floats(4))
    assert (refused.value.buffer, refused.value.expected, refused.value.actual) == ("weight", 3, 4)
    assert "weight must have 3 values, but has 4" in str(refused.value)
    with pytest.raises(normdrop.NormdropError, match="output and input"):
        layer.train(x, out=x)
    with pytest.raises(normdrop.NormdropError, match="mask must have 15 bytes, but has 14"):
        layer.train(x, mask=layer.mask(1)[:-1].copy())
    with pytest.raises(normdrop.NormdropError, match="not aligned"):
        memory = numpy.zeros(4 * 120 + 1, numpy.uint8)
        layer.train(memory[1:].view(numpy.float32).reshape(x.shape))
    with pytest.raises(normdrop.NormdropError, match="more than one value"):
        normdrop.Layer("NC", (1, 3)).train(floats(1, 3), running_mean=floats(3), running_var=floats(3))
    with pytest.raises(normdrop.NormdropError, match="momentum"):
        normdrop.Layer("NC", (2, 3), momentum=2).train(floats(2, 3), running_mean=floats(3), running_var=floats(3))


def test_what_is_read_only_is_not_written(layer):
    x = floats(2, 3, 4, 5)
    x.flags.writeable = False
    layer.train(x, mask=layer.mask(1))
    with pytest.raises(ValueError, match="out would be written, but is read-only"):
        layer.eval(x, floats(3), floats(3), out=x)
    mask = numpy.zeros(15, numpy.uint8)
    mask.flags.writeable = False
    with pytest.raises(ValueError, match="out would be written, but is read-only"):
        layer.mask(1, out=mask)


def test_a_mask_of_truth_values_is_told_from_bits(layer):
    with pytest.raises(TypeError, match="mask must be an array of uint8, not bool: numpy.packbits"):
        layer.train(floats(2, 3, 4, 5), mask=numpy.ones((2, 3, 4, 5), bool))


def test_subclasses_of_arrays_are_arrays(tmp_path):
    layer, values = normdrop.Layer("NC", (4, 3)), numpy.random.default_rng(1).normal(size=(4, 3)).astype(numpy.float32)
    stored = numpy.memmap(tmp_path / "values", numpy.float32, "w+", shape=(4, 3))
    stored[:] = values
    for x in (stored, values.view(numpy.matrix), values.view(numpy.recarray)):
        assert (numpy.asarray(layer.train(x)[0]) == layer.train(values)[0]).all()


@pytest.mark.parametrize("first, second", [("x", "out"), ("residual", "out"), ("weight", "running_mean"), ("running_mean", "running_var")])
def test_what_is_written_overlaps_nothing(layer, first, second):
    sizes = {"x": (2, 3, 4, 5), "out": (2, 3, 4, 5), "residual": (2, 3, 4, 5), "weight": (3,), "running_mean": (3,), "running_var": (3,)}
    arrays = {name: floats(*sizes[name]) for name in {"x", "running_mean", "running_var", first, second}}
    # The last value of one is the first of the other.
    size = arrays[first].size
    memory = floats(2 * size - 1)
    arrays[first], arrays[second] = memory[:size].reshape(sizes[first]), memory[size - 1:].reshape(sizes[second])
    with pytest.raises(normdrop.NormdropError, match="overlaps"):
        layer.train(arrays.pop("x"), **arrays)


def test_a_refusal_can_be_copied_and_sent(layer):
    with pytest.raises(normdrop.NormdropError) as refused:
        layer.train(floats(2, 3, 4, 5), weight=floats(4))
    first = refused.value
    for other in (copy.copy(first), copy.deepcopy(first), pickle.loads(pickle.dumps(first))):
        assert type(other) is normdrop.NormdropError and str(other) == str(first) != ""
        assert (other.status, other.buffer, other.other, other.expected, other.actual, other.value) == (
            first.status, "weight", None, 3, 4, 0.0)
        assert other.status != 0


def test_a_traceback_names_the_error_as_callers_do(layer):
    with pytest.raises(ValueError) as refused:
        layer.mask(0, out=numpy.zeros(3, numpy.uint8))
    said = traceback.format_exception_only(refused.type, refused.value)
    assert said == ["normdrop.NormdropError: mask must have 15 bytes, but has 3\n"]


def refuse(_):
    normdrop.Layer("NC", (2, 3), p=2)


def test_a_refusal_of_a_worker_arrives():
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        with pytest.raises(normdrop.NormdropError, match="the probability to drop"):
            # A refusal that cannot be unpickled would be waited for.
            pool.map_async(refuse, [0]).get(timeout=60)


def test_a_layer_can_be_copied_and_pickled():
    layer = normdrop.Layer("NHWC", (2, 4, 5, 3), "leaky_relu", p=0.3, eps=1e-3, momentum=0.2, slope=0.1, alpha=0.2, granularity="channel",
                           running_var="biased", backend="portable")
    x = numpy.random.default_rng(1).normal(size=layer.shape).astype(numpy.float32)
    for other in (copy.copy(layer), copy.deepcopy(layer), *(pickle.loads(pickle.dumps(layer, n)) for n in range(2, 6)),
                  eval(repr(layer), vars(normdrop))):
        assert other is not layer and other == layer and hash(other) == hash(layer) and repr(other) == repr(layer)
        assert (other.mask(3) == layer.mask(3)).all() and other.mask_len == layer.mask_len
        for one, same in zip(layer.train(x, mask=layer.mask(3))[1], other.train(x, mask=other.mask(3))[1]):
            assert (one == same).all()
    assert pickle.loads(pickle.dumps(normdrop.fill_mask)) is normdrop.fill_mask
    assert (pickle.loads(pickle.dumps(layer.mask))(3) == layer.mask(3)).all()


def test_what_makes_layers_equal():
    layer = normdrop.Layer("NC", (4, 3))
    assert layer == normdrop.Layer("NC", [4, 3], "identity", p=0, eps=numpy.float32(1e-5), tasks=0) and layer != "layer"
    others = [
        normdrop.Layer("NC", (3, 4)), normdrop.Layer("NCL", (4, 3, 1)), normdrop.Layer("NC", (4, 3), "relu"),
        *(normdrop.Layer("NC", (4, 3), **option) for option in (
            {"p": 0.1}, {"eps": 1e-4}, {"momentum": 0.2}, {"slope": 0.2}, {"alpha": 0.2}, {"granularity": "sample"}, {"running_var": "biased"},
            {"backend": "portable"})),
    ]
    assert len({layer, *others}) == 12 and layer not in others
    assert repr(layer) == "Layer('NC', (4, 3), 'identity')"
    assert repr(others[4]) == "Layer('NC', (4, 3), 'identity', eps=0.0001)"


def test_a_layer_does_not_change():
    layer = normdrop.Layer("NC", (4, 3), p=0.25)
    assert (layer.layout, layer.shape, layer.p, layer.eps, layer.tasks) == ("NC", (4, 3), 0.25, 1e-5, 1)
    for name in ("p", "eps", "shape", "channels", "mask_len"):
        with pytest.raises(AttributeError, match=f"{name} of a layer cannot be changed: make another Layer"):
            setattr(layer, name, 1)
        with pytest.raises(AttributeError, match=f"{name} of a layer cannot be deleted"):
            delattr(layer, name)

    class Named(normdrop.Layer):
        pass

    named = Named("NC", (4, 3), p=0.25)
    named.name = "first"
    assert pickle.loads(pickle.dumps(normdrop.Layer("NC", (4, 3), p=0.25))) == layer != named
    assert copy.copy(named).name == "first" and copy.copy(named) == named


@pytest.mark.parametrize("struct", [each for each in _library.STRUCTS.values() if issubclass(each, _library.Call)])
def test_a_struct_keeps_its_arrays(struct):
    kinds = {name: numpy.uint64 if name == "batches" else numpy.float32 for name, kind in struct._fields_
             if kind in (_library.Slice, ctypes.c_void_p)}
    assert len(kinds) > 2
    arrays = {name: numpy.zeros(4, kind) for name, kind in kinds.items()}
    addresses = {name: array.ctypes.data for name, array in arrays.items()}
    kept = [weakref.ref(array) for array in arrays.values()]
    call = struct(**arrays)
    del arrays
    gc.collect()
    assert all(array() is not None for array in kept)
    for name, address in addresses.items():
        field = getattr(call, name)
        assert (field if name == "batches" else field.values) == address, name
    del call, field
    gc.collect()
    assert all(array() is None for array in kept)


def test_every_status_has_a_text_with_what_was_expected_and_what_came():
    """Each status of the header, by its number: the text is the library's, and every placeholder of it is filled."""
    statuses = re.findall(r"#define NORMDROP_STATUS_(\w+) (\d+)", header())
    assert len(statuses) > 20
    details = set(_library._DETAILS)
    for name, number in statuses:
        error = _library.CError(version=1, status=int(number), buffer=5, other=7, expected=12, actual=34, value=5.5)
        text = str(_library._refusal(error))
        assert text and "{" not in text and "unknown status" not in text, name
        details.discard(int(number))
        if name not in ("OK", "SINGLE_SAMPLE", "NULL", "NOT_AN_ELEMENT_MASK", "OVERLAP", "NOT_PREPARED", "NO_GATES", "TWO_BUFFERS"):
            assert "34" in text or "5.5" in text, f"{name}: {text}"
    assert not details, "a detail of a status that the header does not have"
