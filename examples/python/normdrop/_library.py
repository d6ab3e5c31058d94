"""The shared library and the structs of its header, `include/normdrop.h`."""

from __future__ import annotations

import ctypes
import ctypes.util
import os
from ctypes import (
    CFUNCTYPE, POINTER, Structure, byref, c_char_p, c_double, c_float, c_int32, c_size_t, c_uint32, c_uint64, c_void_p,
)
from pathlib import Path
from typing import Any, List, Tuple

import numpy
from numpy.typing import NDArray

from ._arguments import element_of

ABI_VERSION = 1


class Slice(Structure):
    """A pointer and a number of values: `normdrop_slice_*` and `normdrop_slice_mut_*` are all like that.

    A slice does not keep the memory that it is of. So the address of an array is taken in two places only: here, where the
    array is an argument of the call that needs it, and in a `Call`, which keeps it.
    """

    _fields_ = [("values", c_void_p), ("len", c_size_t)]

    @classmethod
    def from_param(cls, array: NDArray[Any]) -> Slice:
        """What ctypes hands over where a function takes a slice and is given an array."""
        return cls(array.ctypes.data, array.size)


class Halves(Structure):
    """Like a slice, of elements of 16 bits, with the number of their type."""

    _fields_ = [("values", c_void_p), ("len", c_size_t), ("element", c_uint32)]

    @classmethod
    def from_param(cls, array: NDArray[Any]) -> Halves:
        return cls(array.ctypes.data, array.size, element_of(array.dtype))


class Call(Structure):
    """A struct with buffers, made of arrays, which it keeps as long as it lives. Without an array a buffer is empty."""

    def __init__(self, **fields: Any) -> None:
        super().__init__(version=ABI_VERSION)
        self.given = fields
        for name, value in fields.items():
            if not isinstance(value, numpy.ndarray):
                if value is not None:
                    setattr(self, name, value)
            elif name == "batches":
                self.batches = value.ctypes.data
            elif element_of(value.dtype):
                setattr(self, f"{name}_half", Halves.from_param(value))
            else:
                setattr(self, name, Slice.from_param(value))


class CLayer(Structure):
    _fields_ = [
        ("version", c_uint32), ("activation", c_uint32), ("outer", c_size_t), ("channels", c_size_t),
        ("inner", c_size_t), ("positions", c_size_t), ("momentum", c_double), ("p", c_double), ("eps", c_float),
        ("slope", c_float), ("alpha", c_float), ("granularity", c_uint32), ("running_variance", c_uint32), ("backend", c_uint32),
        ("tasks", c_uint32),
    ]


class CError(Structure):
    _fields_ = [
        ("version", c_uint32), ("status", c_int32), ("buffer", c_uint32), ("other", c_uint32), ("expected", c_size_t),
        ("actual", c_size_t), ("value", c_double),
    ]


class CLengths(Structure):
    _fields_ = [("version", c_uint32)] + [
        (name, c_size_t)
        for name in (
            "elements", "channels", "mask_bits", "mask", "eval_scratch", "train_scratch", "backward_scratch", "scratch",
            "moments", "sums", "prepared", "masked_scratch", "masked_workspace", "prelu_scratch",
        )
    ]


class CKeep(Structure):
    _fields_ = [("version", c_uint32), ("scale", c_float), ("threshold", c_uint64), ("probability", c_double)]


class CNoise(Structure):
    _fields_ = [("version", c_uint32), ("law", c_uint32), ("p", c_double), ("width", c_float)]


class CStored(Structure):
    _fields_ = [("version", c_uint32), ("form", c_uint32), ("factor", c_float), ("eps", c_float)]


# The names and types of the fields of a struct.
Fields = List[Tuple[str, Any]]


def _slices(*names: str) -> Fields:
    return [(name, Slice) for name in names]


def _halves(*names: str) -> Fields:
    return [(f"{name}_half", Halves) for name in names]


_PARAMETERS = _slices("weight", "bias")
_RUNNING = _slices("running_mean", "running_mean_tail", "running_var")
_SAVED = _slices("saved_mean", "saved_mean_tail", "saved_inv_std")
_VERSION: Fields = [("version", c_uint32)]


class CTrain(Call):
    _fields_ = (
        _VERSION + _PARAMETERS + _RUNNING + [("batches", c_void_p)] + _slices("mask", "gates", "input", "residual", "output")
        + _SAVED + _slices("scratch") + _halves("input", "residual", "output")
    )


class CEval(Call):
    _fields_ = (
        _VERSION + _PARAMETERS + _RUNNING + _slices("mask", "gates", "input", "residual", "output", "scratch", "prepared")
        + _halves("input", "residual", "output")
    )


class CPrepare(Call):
    _fields_ = _VERSION + _PARAMETERS + _RUNNING + _slices("prepared")


class CBackward(Call):
    _fields_ = (
        _VERSION + [("statistics", c_uint32)] + _PARAMETERS + _RUNNING + _SAVED
        + _slices(
            "mask", "gates", "input", "residual", "grad_output", "grad_input", "grad_residual", "grad_weight", "grad_bias", "scratch",
            "prepared",
        )
        + _halves("input", "residual", "grad_output", "grad_input", "grad_residual")
    )


class CFinish(Call):
    _fields_ = _VERSION + _slices("moments") + _RUNNING + [("batches", c_void_p)] + _SAVED


class CApply(Call):
    _fields_ = (
        _VERSION + _PARAMETERS + _SAVED + _slices("mask", "gates", "input", "residual", "output", "scratch")
        + _halves("input", "residual", "output")
    )


class CReduce(Call):
    _fields_ = (
        _VERSION + [("statistics", c_uint32)] + _PARAMETERS + _RUNNING + _SAVED
        + _slices("mask", "gates", "input", "residual", "grad_output", "sums", "scratch", "prepared")
        + _halves("input", "residual", "grad_output")
    )


class CApplyGradient(Call):
    _fields_ = (
        _VERSION + _PARAMETERS + _SAVED + [("samples", c_double)]
        + _slices("sums", "mask", "gates", "input", "residual", "grad_output", "grad_input", "grad_residual", "scratch")
        + _halves("input", "residual", "grad_output", "grad_input", "grad_residual")
    )


class CFold(Call):
    _fields_ = (
        _VERSION + [("eps", c_float), ("order", c_uint32)]
        + [(name, c_size_t) for name in ("outputs", "inputs", "taps", "groups")] + _PARAMETERS
        + _RUNNING + _slices("weights", "weights_bias")
    )


class CMasked(Call):
    _fields_ = _VERSION + _slices("lengths", "validity", "workspace")


# The structs by the names of the header; a test compares them with it.
STRUCTS: dict[str, type[Structure]] = {
    "normdrop_layer": CLayer, "normdrop_error": CError, "normdrop_lengths": CLengths, "normdrop_keep": CKeep,
    "normdrop_train_call": CTrain, "normdrop_eval_call": CEval, "normdrop_prepare_call": CPrepare,
    "normdrop_backward_call": CBackward, "normdrop_finish_call": CFinish, "normdrop_apply_call": CApply, "normdrop_reduce_call": CReduce,
    "normdrop_apply_gradient_call": CApplyGradient, "normdrop_fold_call": CFold,
    "normdrop_masked": CMasked, "normdrop_noise": CNoise, "normdrop_stored": CStored,
}

Next = CFUNCTYPE(c_uint32, c_void_p)

_LAYER, _ERROR = POINTER(CLayer), POINTER(CError)
FUNCTIONS: dict[str, tuple[Any, list[Any]]] = {
    "abi_version": (c_uint32, []),
    "version": (c_char_p, []),
    "status_text": (c_char_p, [c_int32]),
    "buffer_name": (c_char_p, [c_uint32]),
    "backend_detect": (c_uint32, []),
    "backend_is_available": (c_int32, [c_uint32]),
    "backend_name": (c_char_p, [c_uint32]),
    "layer_init": (c_int32, [_LAYER, c_uint32]),
    "layer_lengths": (c_int32, [_LAYER, POINTER(CLengths), _ERROR]),
    "mask_len": (c_size_t, [c_size_t]),
    "fill_mask": (c_int32, [_LAYER, c_uint64, Slice, _ERROR]),
    "fill_mask_with": (c_int32, [_LAYER, Next, c_void_p, Slice, _ERROR]),
    "bernoulli_keep": (c_int32, [c_double, POINTER(CKeep), _ERROR]),
    "bernoulli_fill": (c_int32, [c_double, c_uint64, c_uint64, c_size_t, Slice, _ERROR]),
    "bernoulli_fill_with": (c_int32, [c_double, Next, c_void_p, c_size_t, Slice, _ERROR]),
    "seed_for": (c_uint64, [c_uint64, c_uint64, c_uint64, c_uint64]),
    "drop_padding": (c_int32, [_LAYER, Slice, Slice, _ERROR]),
    "clear_padding": (c_int32, [_LAYER, Slice, Slice, _ERROR]),
    "clear_padding_half": (c_int32, [_LAYER, Slice, Halves, _ERROR]),
    "apply_noise": (c_int32, [_LAYER, POINTER(CNoise), c_uint64, Slice, _ERROR]),
    "noise_apply": (c_int32, [POINTER(CNoise), c_uint64, c_uint64, Slice, _ERROR]),
    "alpha_dropout": (c_int32, [_LAYER, Slice, Slice, _ERROR]),
    "alpha_dropout_backward": (c_int32, [_LAYER, Slice, Slice, _ERROR]),
    "prelu": (c_int32, [_LAYER, Slice, Slice, _ERROR]),
    "prelu_gradient": (c_int32, [_LAYER, Slice, Slice, Slice, Slice, Slice, _ERROR]),
    "train": (c_int32, [_LAYER, POINTER(CTrain), _ERROR]),
    "train_masked": (c_int32, [_LAYER, POINTER(CTrain), POINTER(CMasked), _ERROR]),
    "eval_masked": (c_int32, [_LAYER, POINTER(CEval), POINTER(CMasked), _ERROR]),
    "backward_masked": (c_int32, [_LAYER, POINTER(CBackward), POINTER(CMasked), _ERROR]),
    "eval": (c_int32, [_LAYER, POINTER(CEval), _ERROR]),
    "prepare": (c_int32, [_LAYER, POINTER(CPrepare), _ERROR]),
    "backward": (c_int32, [_LAYER, POINTER(CBackward), _ERROR]),
    "moments": (c_int32, [_LAYER, Slice, Slice, Slice, _ERROR]),
    "moments_half": (c_int32, [_LAYER, Halves, Slice, Slice, _ERROR]),
    "merge_moments": (c_int32, [Slice, Slice, _ERROR]),
    "check_moments": (c_int32, [_LAYER, Slice, _ERROR]),
    "finish": (c_int32, [_LAYER, POINTER(CFinish), _ERROR]),
    "apply": (c_int32, [_LAYER, POINTER(CApply), _ERROR]),
    "reduce": (c_int32, [_LAYER, POINTER(CReduce), _ERROR]),
    "merge_sums": (c_int32, [Slice, Slice, _ERROR]),
    "finish_gradients": (c_int32, [_LAYER, Slice, Slice, Slice, _ERROR]),
    "apply_gradient": (c_int32, [_LAYER, POINTER(CApplyGradient), _ERROR]),
    "fold_into_previous": (c_int32, [POINTER(CFold), _ERROR]),
    "fold_into_next": (c_int32, [POINTER(CFold), _ERROR]),
    "fold_padding": (c_int32, [POINTER(CFold), Slice, _ERROR]),
    "first_min_pooled": (c_int32, [Slice, POINTER(c_size_t), _ERROR]),
    "into_running": (c_int32, [POINTER(CStored), Slice, Slice, POINTER(c_float), _ERROR]),
}


def _candidates() -> list[str]:
    """Where the library may be: what the environment says, in a wheel, beside this repository's sources, installed."""
    named = os.environ.get("NORMDROP_LIBRARY")
    if named:
        # Whoever names a file wants that one and no other.
        return [named]
    names = ["libnormdrop.so", "libnormdrop.dylib", "normdrop.dll"]
    here = Path(__file__).resolve().parent
    folders = [here]
    root = here.parents[2]
    if (root / "include/normdrop.h").exists():
        folders.append(Path(os.environ.get("CARGO_TARGET_DIR", root / "target")) / "release")
    found = ctypes.util.find_library("normdrop")
    return [str(folder / name) for folder in folders for name in names if (folder / name).exists()] + ([found] if found else [])


def _load() -> tuple[ctypes.CDLL, str]:
    candidates = _candidates()
    if not candidates:
        raise ImportError(
            "the shared library of normdrop was not found. `pip install` of this folder builds it. Without an installation, build it in the "
            "root of the repository with\n"
            "    cargo rustc --release --features capi,half-precision,rayon --crate-type cdylib\n"
            "or install it with `cargo cinstall`, or name the file in the environment variable NORMDROP_LIBRARY"
        )
    try:
        library = ctypes.CDLL(candidates[0])
        library.normdrop_abi_version.restype = c_uint32
    except (OSError, AttributeError) as error:
        raise ImportError(f"{candidates[0]} is not the shared library of normdrop: {error}") from error
    version: int = library.normdrop_abi_version()
    if version != ABI_VERSION:
        raise ImportError(f"{candidates[0]} has the interface {version}, and this package is for {ABI_VERSION}")
    for name, (result, arguments) in FUNCTIONS.items():
        try:
            function = getattr(library, f"normdrop_{name}")
        except AttributeError:
            raise ImportError(f"{candidates[0]} has no function normdrop_{name}: build the library of this version") from None
        function.restype, function.argtypes = result, arguments
    return library, candidates[0]


library, path = _load()


class NormdropError(ValueError):
    """A call that was refused; nothing was written.

    `status` is the number that the library returned, `buffer` the name of the buffer at fault or None, `other` that of the
    buffer that it overlaps or None, `expected` and `actual` what it should have been and was, and `value` the number that
    is out of its range.
    """

    # Where callers find it, so that a traceback names that.
    __module__ = "normdrop"

    status: int = 0
    buffer: str | None = None
    other: str | None = None
    expected: int = 0
    actual: int = 0
    value: float = 0.0


# What follows the text of a status. The numbers are those of `NORMDROP_STATUS_*`; what they mean is in the header.
_LENGTH = 6
_DETAILS = {
    1: ": {buffer}",
    2: ": {buffer} has {actual}, not {expected}",
    3: ": {buffer} is {actual} past a multiple of {expected}",
    4: ": {buffer} has {actual}",
    5: ": {buffer} and {other}",
    7: ": {expected} times {actual}",
    8: ": {actual} positions, outer is {expected}",
    9: ": {actual}", 14: ": {actual}", 15: ": {actual}", 16: ": {actual}", 17: ", not {actual}", 18: ": {actual}", 23: ": {actual}",
    10: ", but is {value}", 11: ", but is {value}", 12: ", but is {value}", 13: ", but is {value}",
    20: ": channel {actual}",
    21: ": that of channel {actual} is {value}",
    22: ": {buffer}[{actual}]",
    24: ", but are {actual}",
    25: ": that of sample {value:.0f} is {actual}, of {expected}",
    27: ": {buffer} have {expected} a channel, and here {actual} in all",
    28: ", but channel {actual} has {value}",
    29: "; p is {value}",
    30: ", {expected}",
    31: ", but is {value}",
    33: ": {buffer} and {other}",
    34: ", but is {value}",
    35: ": {actual}",
    36: ": {actual}",
    37: ": {actual}",
}


def _refusal(error: CError) -> NormdropError:
    """The exception of a `CError`. Its text is all that the exception is made of, so that it can be copied and sent to
    another process, as `multiprocessing` does.
    """
    buffer, other = _name(error.buffer), _name(error.other)
    text: str = library.normdrop_status_text(error.status).decode()
    detail = _DETAILS.get(error.status, "")
    if error.status == _LENGTH:
        unit = "bytes" if buffer in ("mask", "gates", "validity") else "values"
        text = f"{buffer} must have {'at least ' if buffer in ('scratch', 'workspace') else ''}{error.expected} {unit}, but has {error.actual}"
    refusal = NormdropError(
        text + detail.format(buffer=buffer, other=other, expected=error.expected, actual=error.actual, value=error.value)
    )
    refusal.status, refusal.buffer, refusal.other = error.status, buffer, other
    refusal.expected, refusal.actual, refusal.value = error.expected, error.actual, error.value
    return refusal


def _name(buffer: int) -> str | None:
    name: bytes | None = library.normdrop_buffer_name(buffer) if buffer else None
    return None if name is None else name.decode()


def call(name: str, *arguments: Any) -> None:
    """Calls a function of the library whose last argument is the error, with structs and with arrays for slices."""
    error = CError(version=ABI_VERSION)
    status = getattr(library, f"normdrop_{name}")(*arguments, byref(error))
    if status:
        error.status = status
        raise _refusal(error)
