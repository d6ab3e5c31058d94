"""The checks of arguments that C cannot make: of types, and of numbers that ctypes would cut without a word."""

from __future__ import annotations

import ctypes
import math
import operator
import reprlib
from typing import Any, Iterable, TypeVar

import numpy

T = TypeVar("T")

SIZE_BITS = 8 * ctypes.sizeof(ctypes.c_size_t)


def choice(name: str, value: object, values: tuple[str, ...]) -> int:
    """The number of a name in a tuple of names."""
    if not isinstance(value, str) or value not in values:
        raise ValueError(f"{name} must be one of {', '.join(values)}, not {value!r}")
    return values.index(value)


def integer(name: str, value: Any, bits: int = 64) -> int:
    """An integer from 0 to `2**bits - 1`, of any type that Python takes as an index: `numpy.int64` or a tensor of one
    integer, for example, but not 4.9, "4" or True.
    """
    try:
        number = None if _is_no_number(value) else operator.index(value)
    except TypeError:
        number = None
    if number is None:
        raise TypeError(f"{name} must be an integer, not {_described(value)}")
    if not 0 <= number < 2**bits:
        raise ValueError(f"{name} must be at least 0 and below 2**{bits}, not {number}")
    return number


def sequence(name: str, values: Iterable[T]) -> tuple[T, ...]:
    """The values of a sequence, each still to be checked."""
    try:
        return tuple(values)
    except TypeError:
        raise TypeError(f"{name} must be a sequence of integers, not {_described(values)}") from None


def real(name: str, value: Any) -> float:
    """A float from any real number, but not from True, from text or from the real part of a complex number."""
    number = hasattr(type(value), "__float__") or hasattr(type(value), "__index__")
    if isinstance(value, (numpy.generic, numpy.ndarray)):
        number = value.dtype.kind in "iuf"
    if number and not _is_no_number(value) and not isinstance(value, complex):
        try:
            return float(value)
        except OverflowError:
            raise ValueError(f"{name} must fit a float64, not {reprlib.repr(value)}") from None
        except (TypeError, ValueError, RuntimeError):
            pass
    raise TypeError(f"{name} must be a real number, not {_described(value)}")


def real32(name: str, value: Any) -> float:
    """A float that C holds as a float32: the one with the fewest digits of those that round to the same float32."""
    value = real(name, value)
    rounded = ctypes.c_float(value).value
    if math.isfinite(value) and (math.isinf(rounded) or (rounded == 0) != (value == 0)):
        raise ValueError(f"{name} must fit a float32, not {value}")
    return float(str(numpy.float32(rounded)))


# The type of arrays of bfloat16 where there is no ml_dtypes, which has a type for them: their bits, with a note.
BFLOAT16: Any = numpy.dtype(numpy.uint16, metadata={"element": "bfloat16"})

# The numbers of `NORMDROP_ELEMENT_*`.
_ELEMENTS = {"float16": 1, "bfloat16": 2}


def element_of(dtype: numpy.dtype[Any]) -> int:
    """The number of the type of halves, or 0 of any other type."""
    if dtype.itemsize != 2:
        return 0
    noted: dict[str, Any] = dict(dtype.metadata or {})
    return _ELEMENTS.get(noted.get("element", dtype.name), 0)


def array(name: str, value: Any, dtype: type[numpy.generic], *, shape: tuple[int, ...] | None = None, written: bool = False,
          optional: bool = True, halves: bool = False) -> Any:
    """An array that C can read, or write, where it is. C checks its length, its alignment and that it overlaps no other
    array; here is checked what C does not see. With `halves`, it may be one of float16 or bfloat16, too.
    """
    if value is None and optional:
        return None
    if not isinstance(value, numpy.ndarray):
        raise TypeError(f"{name} must be a numpy array, not {type(value).__name__}")
    if isinstance(value, numpy.ma.MaskedArray):
        raise TypeError(f"{name} must be an array without a mask, not {type(value).__name__}: fill in its masked values")
    if value.dtype != dtype and not (halves and value.dtype.isnative and element_of(value.dtype)):
        wanted = numpy.dtype(dtype).name + (", float16 or bfloat16" if halves else "")
        raise TypeError(f"{name} must be an array of {wanted}, not {_of_dtype(value.dtype, dtype)}")
    # As many elements in another order would not be an error in C.
    if shape is not None and value.shape != shape:
        raise ValueError(f"{name} must have the shape {shape}, not {value.shape}")
    if not value.flags.c_contiguous:
        raise ValueError(f"{name} must be C-contiguous; numpy.ascontiguousarray makes a copy that is")
    if written and not value.flags.writeable:
        raise ValueError(f"{name} would be written, but is read-only")
    return value


def _of_dtype(found: numpy.dtype[Any], wanted: type[numpy.generic]) -> str:
    """What an array has instead of the dtype that is wanted, and what to do where that is not obvious."""
    if found.newbyteorder("=") == wanted:
        return f"{found.str}, the byte order of other machines: astype(numpy.{numpy.dtype(wanted).name}) converts it"
    if found == bool and wanted == numpy.uint8:
        return 'bool: numpy.packbits(..., bitorder="little") makes bits of it'
    return str(found)


def _is_no_number(value: object) -> bool:
    """Whether something is a truth value or has dimensions: of Python, of numpy or of PyTorch."""
    return isinstance(value, bool) or getattr(value, "ndim", 0) != 0 or str(getattr(value, "dtype", "")).endswith("bool")


def _described(value: object) -> str:
    return f"{type(value).__name__} ({reprlib.repr(value)})"
