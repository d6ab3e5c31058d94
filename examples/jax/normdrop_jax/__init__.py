"""Fused batch norm, activation and dropout for JAX on the CPU: `y = dropout(act(batchnorm(x) + residual))`.

A `Layer` is the settings. It holds no array, is hashable, and can be a static argument of `jax.jit`. Its calls are custom calls
of XLA into the C library of the Rust crate normdrop, work inside `jax.jit`, and have a gradient by `jax.custom_vjp`.

Arrays are float32, and tensors float32, bfloat16 or float16; C is the number of channels:

    x, residual, y           the shape of the tensor; channels in `channel_axis`, samples in the first axis; one type for all three
    weight, bias             [C], or None: 1 and 0
    running                  a `Running` of arrays [C]
    seed                     an int from 0 to 2**64 - 1, or uint32 [2], its high and its low word, or a key of `jax.random.key`
    mask                     uint8 [`layer.mask_len(shape)`]: bit i % 8 of byte i / 8 is 1 if element i is kept

Of halves every result is that of float32, rounded once to nearest even; parameters, statistics and their gradients are float32.

Wrong types and shapes are refused when a call is traced, wrong numbers when it runs.
"""

from __future__ import annotations

import ctypes
import dataclasses
import functools
import math
import pathlib
import platform
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy

__all__ = ["ACTIVATIONS", "GRANULARITIES", "RUNNING_VARIANCES", "Layer", "Running", "keep_memory", "seed_words"]
__version__ = "0.1.0"

ACTIVATIONS = ("identity", "relu", "relu6", "leaky_relu", "hard_swish", "sigmoid", "tanh", "silu", "gelu_tanh", "gelu", "elu",
               "selu", "mish", "softplus")  # fmt: skip
GRANULARITIES = ("element", "channel", "sample")
RUNNING_VARIANCES = ("unbiased", "biased")
# The activations whose derivative is 0 or 1: the forward call writes it as one bit an element, and the backward call needs no more.
GATED = ("identity", "relu")
# The types of tensors.
FLOATS = ("float32", "bfloat16", "float16")

_path = pathlib.Path(__file__).parent / "libnormdrop_jax.so"
if not _path.exists():
    raise ImportError(f"{_path} is not there: install the package, `pip install ./examples/jax`; Python in its folder finds only its sources")
_library = ctypes.CDLL(str(_path))
for _name in ("train", "eval", "backward", "mask"):
    _handler = getattr(_library, f"normdrop_jax_{_name}")
    jax.ffi.register_ffi_target(f"normdrop_jax_{_name}", jax.ffi.pycapsule(_handler), platform="cpu")


class Running(NamedTuple):
    """Running statistics. `mean_tail` is the exact running mean minus `mean`: with it, evaluation is as exact as training even if
    means are large relative to the standard deviation."""

    mean: jax.Array
    var: jax.Array
    mean_tail: jax.Array | None = None


def seed_words(seed: Any) -> jax.Array:
    """A seed as uint32 [2], its high and its low word: an int, such words, or a key, whose words are
    `jax.random.bits(key, (2,), "uint32")`."""
    if isinstance(seed, int):
        if not 0 <= seed < 1 << 64:
            raise ValueError(f"seed must be from 0 to 2**64 - 1, not {seed}")
        return jnp.asarray(numpy.array([seed >> 32, seed & 0xFFFFFFFF], numpy.uint32))
    dtype = getattr(seed, "dtype", None)
    if dtype is not None and jax.dtypes.issubdtype(dtype, jax.dtypes.prng_key) and seed.shape == ():
        return jax.random.bits(seed, (2,), "uint32")
    if dtype == numpy.uint32 and seed.shape == (2,):
        return jnp.asarray(seed)
    raise TypeError(f"seed must be an int, uint32 [2] or one key of jax.random.key, not {_describe(seed)}")


def keep_memory() -> bool:
    """Tells the allocator of the C library to keep all memory that is freed, for the next step: whether it could be told.

    XLA allocates the results of each step anew, and memory that comes from the system is filled with zeros first, which takes about as
    long as a training step of this layer. In the first ten steps or so the heap still grows now and then. The setting is for the whole
    process and until its end: a program holds the most memory that it has ever had at once. It is glibc's; elsewhere nothing is done,
    and the result is False.
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    mallopt = ctypes.CDLL(None).mallopt
    trim_threshold, top_pad, mmap_max = -1, -2, -4
    # No block is mapped on its own, nothing is given back, and the heap grows by 256 MiB at a time.
    return all(mallopt(option, value) for option, value in ((mmap_max, 0), (trim_threshold, 0x7FFFFFFF), (top_pad, 1 << 28)))


@dataclasses.dataclass(frozen=True)
class Layer:
    """The settings of a layer. `p` is the probability to drop, and `granularity` what one bit of the mask drops. `eps` and
    `momentum` are PyTorch's: the weight of the new value is `momentum`, and flax's `momentum` is 1 minus it. `running_var` is
    "unbiased", as in PyTorch, or "biased", as in flax. `slope` is that of "leaky_relu", `alpha` that of "elu". `channel_axis` is
    -1, as in flax, or 1. A call is cut into `tasks` tasks, None: as many as XLA has threads. They run on threads of normdrop's own,
    which wait otherwise, and a small tensor has one; the bits are the same at every number.
    """

    activation: str = "identity"
    p: float = 0.0
    _: dataclasses.KW_ONLY
    eps: float = 1e-5
    momentum: float = 0.1
    slope: float = 0.01
    alpha: float = 1.0
    granularity: str = "element"
    running_var: str = "unbiased"
    channel_axis: int = -1
    tasks: int | None = None

    def __post_init__(self) -> None:
        for name, values in (("activation", ACTIVATIONS), ("granularity", GRANULARITIES), ("running_var", RUNNING_VARIANCES), ("channel_axis", (-1, 1))):
            if getattr(self, name) not in values:
                raise ValueError(f"{name} must be one of {', '.join(map(str, values))}, not {getattr(self, name)!r}")
        if not 0 <= self.p <= 1:
            raise ValueError(f"p must be in [0, 1], not {self.p}")
        if not 0 <= self.momentum <= 1:
            raise ValueError(f"momentum must be in [0, 1], not {self.momentum}")
        if not 0 <= self.eps < math.inf:
            raise ValueError(f"eps must be finite and not negative, not {self.eps}")
        if self.tasks is not None and not (isinstance(self.tasks, int) and 1 <= self.tasks <= 1024):
            raise ValueError(f"tasks must be an integer from 1 to 1024, or None, not {self.tasks}")

    def without_dropout(self) -> Layer:
        """The same layer with a `p` of 0."""
        return dataclasses.replace(self, p=0.0)

    def running(self, channels: int) -> Running:
        """The running statistics of a new layer."""
        return Running(jnp.zeros(channels, "float32"), jnp.ones(channels, "float32"), jnp.zeros(channels, "float32"))

    def mask_len(self, shape: tuple[int, ...]) -> int:
        """The bytes of a mask for a tensor of `shape`."""
        return (self._mask_bits(shape) + 7) // 8

    def mask(self, shape: tuple[int, ...], seed: Any) -> jax.Array:
        """The mask of `seed`, uint8 [mask_len(shape)], the same on every machine."""
        result = jax.ShapeDtypeStruct((self.mask_len(shape),), jnp.uint8)
        return _ffi("mask", result)(seed_words(seed), **self._settings(shape, dropout=True))

    def train(self, x: jax.Array, weight: jax.Array | None = None, bias: jax.Array | None = None, running: Running | None = None, *,
              seed: Any = None, mask: jax.Array | None = None, residual: jax.Array | None = None) -> tuple[jax.Array, Running | None]:
        """The training call, with the statistics of the batch: `y`, and `running` after the batch, or None if there is none.

        If `p` is above 0, it needs `seed` or `mask`. It has gradients of `x`, `weight`, `bias` and `residual`; to everything else,
        the new running statistics among it, it is constant.
        """
        arrays = self._check(x, weight, bias, running, residual)
        y, new = _train(self, *arrays, *self._dropout(x.shape, seed, mask, needed=self.p > 0))
        return y, jax.lax.stop_gradient(new)

    def eval(self, x: jax.Array, running: Running, weight: jax.Array | None = None, bias: jax.Array | None = None, *, seed: Any = None,
             mask: jax.Array | None = None, residual: jax.Array | None = None) -> jax.Array:
        """The evaluation call, with running statistics, which are constants to the gradient. Dropout is off unless there is a
        `seed` or a `mask`: Monte-Carlo dropout, or training with frozen statistics."""
        if running is None:
            raise TypeError("eval needs running statistics")
        return _eval(self, *self._check(x, weight, bias, running, residual), *self._dropout(x.shape, seed, mask, needed=False))

    def _channels(self, shape: tuple[int, ...]) -> int:
        if len(shape) < 2:
            raise ValueError(f"x must have at least two dimensions, samples and channels, not shape {shape}")
        return shape[self.channel_axis]

    def _mask_bits(self, shape: tuple[int, ...]) -> int:
        channels = self._channels(shape)
        return {"element": math.prod(shape), "channel": shape[0] * channels, "sample": shape[0]}[self.granularity]

    def _settings(self, shape: tuple[int, ...], dropout: bool) -> dict[str, Any]:
        """The attributes of a handler: the C library's layer. Without dropout, or without elements, `p` does not matter."""
        last = self.channel_axis == -1
        dropout = dropout and self._mask_bits(shape) != 0
        return dict(
            outer=numpy.int64(math.prod(shape[:-1]) if last else shape[0]), channels=numpy.int64(self._channels(shape)),
            inner=numpy.int64(1 if last else math.prod(shape[2:])), positions=numpy.int64(math.prod(shape[1:-1]) if last else 1),
            activation=numpy.int32(ACTIVATIONS.index(self.activation)), granularity=numpy.int32(GRANULARITIES.index(self.granularity)),
            running_variance=numpy.int32(RUNNING_VARIANCES.index(self.running_var)), tasks=numpy.int32(self.tasks or 0),
            momentum=numpy.float64(self.momentum), p=numpy.float64(self.p if dropout else 0.0), eps=numpy.float32(self.eps),
            slope=numpy.float32(self.slope), alpha=numpy.float32(self.alpha),
        )  # fmt: skip

    def _check(self, x: Any, weight: Any, bias: Any, running: Any, residual: Any) -> tuple[Any, ...]:
        _check("x", x, None, *FLOATS)
        channels = self._channels(x.shape)
        for name, array in (("weight", weight), ("bias", bias)):
            if array is not None:
                _check(name, array, (channels,))
        if residual is not None:
            _check("residual", residual, x.shape, str(x.dtype))
        if running is not None:
            if not isinstance(running, Running):
                raise TypeError(f"running must be a normdrop_jax.Running, not {_describe(running)}")
            for name, array in zip(Running._fields, running):
                if array is not None or name != "mean_tail":
                    _check(f"running.{name}", array, (channels,))
        return x, weight, bias, running, residual

    def _dropout(self, shape: tuple[int, ...], seed: Any, mask: Any, needed: bool) -> tuple[Any, Any]:
        if seed is not None and mask is not None:
            raise TypeError("seed and mask are given: one of them is the mask")
        if mask is not None:
            _check("mask", mask, (self.mask_len(shape),), "uint8")
        elif seed is not None:
            seed = seed_words(seed)
        elif needed:
            raise TypeError(f"train needs a seed or a mask, because p is {self.p}")
        return seed, mask

    def _bits_len(self, shape: tuple[int, ...], dropout: bool) -> int:
        """The bytes that a forward call keeps for the backward call: gates, or the mask, or nothing."""
        if self.activation == "relu" or (dropout and self.activation in GATED):
            return (math.prod(shape) + 7) // 8
        return self.mask_len(shape) if dropout else 0


def _describe(value: Any) -> str:
    if hasattr(value, "dtype") and hasattr(value, "shape"):
        return f"{value.dtype} {list(value.shape)}"
    return type(value).__name__


def _check(name: str, array: Any, shape: tuple[int, ...] | None, *dtypes: str) -> None:
    dtypes = dtypes or ("float32",)
    # A name is equal to its type, but only for the types that numpy has by themselves.
    if not hasattr(array, "dtype") or str(array.dtype) not in dtypes:
        raise TypeError(f"{name} must be an array of {' or '.join(dtypes)}, not {_describe(array)}")
    if shape is not None and array.shape != shape:
        raise ValueError(f"{name} must have the shape {list(shape)}, not {list(array.shape)}")


def _ffi(name: str, results: Any) -> Any:
    # Under vmap the calls run one after the other: each member has statistics of its own.
    return jax.ffi.ffi_call(f"normdrop_jax_{name}", results, vmap_method="sequential")


def _given(array: Any, dtype: str = "float32") -> Any:
    """The array, or one without elements, which is how a handler knows that there is none."""
    return jnp.zeros(0, dtype) if array is None else array


def _floats(*shape: int) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(shape, jnp.float32)


def _like(array: Any) -> jax.ShapeDtypeStruct:
    return _floats(0) if array is None else jax.ShapeDtypeStruct(array.shape, array.dtype)


def _forward_arguments(x: Any, weight: Any, bias: Any, running: Any, residual: Any, seed: Any, mask: Any) -> tuple[Any, ...]:
    mean, var, tail = running or (None, None, None)
    floats = (x, weight, bias, mean, tail, var, residual)
    return (*map(_given, floats), _given(seed, "uint32"), _given(mask, "uint8"))


def _run_train(layer: Layer, bits: int, *arrays: Any) -> tuple[Any, ...]:
    x, _, _, running, _, seed, mask = arrays
    channels = layer._channels(x.shape)
    mean, var, tail = running or (None, None, None)
    results = (_like(x), _floats(channels), _floats(channels), jax.ShapeDtypeStruct((channels, 2), jnp.uint32),
               _like(mean), _like(tail), _like(var), jax.ShapeDtypeStruct((bits,), jnp.uint8))  # fmt: skip
    dropout = seed is not None or mask is not None
    y, *saved, new_mean, new_tail, new_var, bits = _ffi("train", results)(*_forward_arguments(*arrays), **layer._settings(x.shape, dropout))
    new = None if running is None else Running(new_mean, new_var, None if tail is None else new_tail)
    return y, new, saved, bits


def _run_eval(layer: Layer, bits: int, *arrays: Any) -> tuple[Any, ...]:
    x, *_, seed, mask = arrays
    results = (_like(x), jax.ShapeDtypeStruct((bits,), jnp.uint8))
    dropout = seed is not None or mask is not None
    return tuple(_ffi("eval", results)(*_forward_arguments(*arrays), **layer._settings(x.shape, dropout)))


def _run_backward(layer: Layer, dropout: bool, grad: Any, x: Any, weight: Any, bias: Any, mean: Any, tail: Any, var: Any, inv_std: Any,
                  residual: Any, bits: Any) -> tuple[Any, ...]:
    gated = layer.activation in GATED
    # Gates are all that the backward call needs of the residual.
    read = None if gated else residual
    results = (_like(x), _like(weight), _like(bias), _like(residual))
    floats = map(_given, (grad, x, weight, bias, mean, tail, var))
    grads = _ffi("backward", results)(*floats, _given(inv_std, "uint32"), _given(read), bits, **layer._settings(x.shape, dropout))
    return tuple(None if array is None else grad for array, grad in zip((x, weight, bias, residual), grads))


def _kept(layer: Layer, arrays: tuple[Any, ...]) -> tuple[Any, ...]:
    """What the backward call needs of the forward call's arrays."""
    x, weight, bias, _, residual, seed, mask = arrays
    # Of a residual that is not read, shape and type of the gradient are those of `x`.
    return x, weight, bias, (x if residual is not None and layer.activation in GATED else residual), seed is not None or mask is not None


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _train(layer: Layer, *arrays: Any) -> Any:
    return _run_train(layer, 0, *arrays)[:2]


def _train_forward(layer: Layer, *arrays: Any) -> Any:
    *_, seed, mask = arrays
    y, new, saved, bits = _run_train(layer, layer._bits_len(arrays[0].shape, seed is not None or mask is not None), *arrays)
    return (y, new), (_kept(layer, arrays), saved, bits)


def _train_backward(layer: Layer, kept: Any, grads: Any) -> Any:
    (x, weight, bias, residual, dropout), (mean, tail, inv_std), bits = kept
    dx, dw, db, dr = _run_backward(layer, dropout, grads[0], x, weight, bias, mean, tail, None, inv_std, residual, bits)
    return dx, dw, db, None, dr, None, None


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _eval(layer: Layer, *arrays: Any) -> Any:
    return _run_eval(layer, 0, *arrays)[0]


def _eval_forward(layer: Layer, *arrays: Any) -> Any:
    *_, seed, mask = arrays
    y, bits = _run_eval(layer, layer._bits_len(arrays[0].shape, seed is not None or mask is not None), *arrays)
    return y, (_kept(layer, arrays), arrays[3], bits)


def _eval_backward(layer: Layer, kept: Any, grad: Any) -> Any:
    (x, weight, bias, residual, dropout), running, bits = kept
    dx, dw, db, dr = _run_backward(layer, dropout, grad, x, weight, bias, running.mean, running.mean_tail, running.var, None, residual, bits)
    return dx, dw, db, None, dr, None, None


_train.defvjp(_train_forward, _train_backward)
_eval.defvjp(_eval_forward, _eval_backward)
