"""normdrop for numpy: `y = dropout(act(batchnorm(x) + residual))`, forward and backward, on arrays of float32, float16 and
bfloat16.

    import numpy, normdrop

    layer = normdrop.Layer("NCHW", (8, 16, 32, 32), activation="relu", p=0.1)
    x = numpy.random.default_rng(1).normal(size=(8, 16, 32, 32)).astype(numpy.float32)
    mask = layer.mask(seed=42)
    y, saved = layer.train(x, mask=mask)
    gradients = layer.backward(numpy.ones_like(x), x, saved, mask=mask)

Arrays are read and written where they are: they must be of the types below and C-contiguous, and what is not is refused, not
copied. `normdrop.torch` has the layer as a PyTorch module.

The arrays of all calls, for a layer with C channels:

    x, residual, grad, out       float32, float16 or `ml_dtypes.bfloat16`, the shape of the layer, each of a type of its own; a
                                 result is that of float32, rounded once, and has the type of x unless there is an `out`
    weight, bias                 float32 [C]; 1 and 0 if left out
    running_mean, running_var    float32 [C]; a new layer starts with zeros and ones
    running_mean_tail            float32 [C]; the exact running mean minus `running_mean`, zeros at first
    saved                        `Saved`: three arrays [C] that the forward call makes for the backward call
    mask                         uint8 [layer.mask_len], a bit for each element (or channel, or sample): 1 is kept.
                                 `numpy.packbits(keep, bitorder="little")` makes one
    gates                        uint8 [layer.gates_len], a bit for each element: 1 if it is kept and the derivative of the
                                 activation is 1, not 0. A forward call writes them, `gates=mask` in the place of the mask,
                                 and the backward call needs no mask and no residual then
    moments                      float64 [3*C]: the count, mean and sum of squared deviations of each channel of a part
    sums                         float64 [2*C]: the sums of g and of g*xhat over a part, for each channel
    batches                      uint64 [1]: the number of batches so far
    lengths, valid               of padded batches, sequences of different lengths in one array: the number of valid positions
                                 of each sample, integers; or uint8 [(samples*positions + 7)//8], a bit for each position of
                                 each sample, 1 if it is valid, as `numpy.packbits(valid, bitorder="little")` makes them
"""

from __future__ import annotations

import ctypes
import inspect
import math
from collections.abc import Iterable, Sequence
from typing import Any, Literal, NamedTuple, Optional, Protocol, SupportsFloat, SupportsIndex, TypeVar, Union

import numpy
from numpy.typing import NDArray

from . import _library
from ._arguments import SIZE_BITS, array as _array, choice, element_of, integer, real, real32, sequence
from ._library import NormdropError
from ._untraced import untraced

__version__ = "0.1.0"

__all__ = [
    "ACTIVATIONS", "BACKENDS", "GATED", "GRANULARITIES", "Generator", "Gradients", "LAYOUTS", "Layer", "Noise", "NormdropError", "RUNNING_VARIANCES", "Saved",
    "__version__", "backend", "bernoulli", "fill_mask", "first_min_pooled", "fold_into_next", "fold_into_previous", "fold_padding",
    "into_running", "library_path", "library_version", "merge_moments", "merge_sums", "seed_for",
]

Activation = Literal["identity", "relu", "relu6", "leaky_relu", "hard_swish", "sigmoid", "tanh", "silu", "gelu_tanh",
                     "gelu", "elu", "selu", "mish", "softplus"]
Granularity = Literal["element", "channel", "sample"]
Backend = Literal["fastest", "portable", "avx2", "avx512"]
RunningVariance = Literal["unbiased", "biased"]
StoredForm = Literal["eps_outside", "deviation", "inverse_deviation", "sums"]
Layout = Literal["NC", "NCL", "NCHW", "NCDHW", "NLC", "NHWC", "NDHWC"]

Bits = NDArray[numpy.uint8]
Floats = NDArray[numpy.float32]
Doubles = NDArray[numpy.float64]
Counter = NDArray[numpy.uint64]
# An array of the shape of the layer; of bfloat16, for which numpy has no type, a type checker knows nothing.
Tensor = Union[NDArray[numpy.float32], NDArray[numpy.float16]]
_Element = TypeVar("_Element", numpy.float32, numpy.float16)
# What `float` takes, but for text.
Real = Union[SupportsFloat, SupportsIndex]

ACTIVATIONS: tuple[Activation, ...] = (
    "identity", "relu", "relu6", "leaky_relu", "hard_swish", "sigmoid", "tanh", "silu", "gelu_tanh", "gelu", "elu", "selu", "mish",
    "softplus",
)
GATED: tuple[Activation, ...] = ("identity", "relu")
"""The activations that have gates."""
GRANULARITIES: tuple[Granularity, ...] = ("element", "channel", "sample")
BACKENDS: tuple[Backend, ...] = ("fastest", "portable", "avx2", "avx512")
RUNNING_VARIANCES: tuple[RunningVariance, ...] = ("unbiased", "biased")
LAYOUTS: tuple[Layout, ...] = ("NC", "NCL", "NCHW", "NCDHW", "NLC", "NHWC", "NDHWC")


class Saved(NamedTuple):
    """What the forward call saves for the backward call, a value for each of the C channels. All are 0 for a channel
    without values.
    """

    mean: Floats
    """The mean of the batch, rounded: float32 [C]."""
    mean_tail: Floats
    """The exact mean minus `mean`: float32 [C]."""
    inv_std: Doubles
    """1/sqrt(var + eps): float64 [C]."""


class Gradients(NamedTuple):
    """The gradients of a backward call. What was not asked for is None."""

    input: Optional[NDArray[Any]]
    """The type of x, the shape of the layer."""
    weight: Optional[Floats]
    """float32 [C]."""
    bias: Optional[Floats]
    """float32 [C]."""
    residual: Optional[NDArray[Any]]
    """The type of the residual, or of x if that is not given; the shape of the layer."""


class Generator(Protocol):
    """What `Layer.mask_from` takes: a `numpy.random.Generator`, or anything that draws integers as it does."""

    def integers(self, low: int, high: int, *, dtype: type[numpy.uint32]) -> Any:
        """An integer that is at least `low` and below `high`, as a `dtype`."""


class Noise:
    """Noise by which an array is multiplied, in the place of dropout: factors with the mean 1. `Noise.gaussian`,
    `Noise.gaussian_dropout` and `Noise.uniform` make one. It cannot be changed, and equal noises are equal.

    A factor is a pure function of the seed, the noise and the index of the element, the same on every machine. It follows a
    training call of a layer of `p=0`, on the output, and is the first step backward, on the gradient of the output, with the
    same seed. Evaluation has no noise.
    """

    __slots__ = ("_noise",)
    _noise: _library.CNoise

    def __init__(self) -> None:
        raise TypeError("Noise.gaussian, Noise.gaussian_dropout and Noise.uniform make noise")

    @classmethod
    @untraced
    def gaussian(cls, sigma: Real) -> Noise:
        """The factor `1 + sigma*n`, where n is normal with the standard deviation 1. `sigma` is in [0, 2**64]."""
        return cls._of(0, width=real32("sigma", sigma))

    @classmethod
    @untraced
    def gaussian_dropout(cls, p: Real) -> Noise:
        """Gaussian noise with the variance that dropout with the probability `p` gives, as `GaussianDropout(p)` of Keras: a
        standard deviation of `sqrt(p/(1 - p))`. `p` is in [0, 1), and must not round to 1.
        """
        return cls._of(1, p=real("p", p))

    @classmethod
    @untraced
    def uniform(cls, half_width: Real) -> Noise:
        """The factor `1 + half_width*u`, where u is uniform in (-1, 1): "Uout" (arXiv 1801.05134). `half_width` is in [0, 2**64].
        """
        return cls._of(2, width=real32("half_width", half_width))

    @classmethod
    def _of(cls, law: int, p: float = 0.0, width: float = 0.0) -> Noise:
        noise = object.__new__(cls)
        object.__setattr__(noise, "_noise", _library.CNoise(version=_library.ABI_VERSION, law=law, p=p, width=width))
        # A wrong number is refused here, and not only where it is used.
        _library.call("noise_apply", noise._noise, 0, 0, numpy.empty(0, numpy.float32))
        return noise

    @untraced
    def apply(self, values: Floats, seed: SupportsIndex, first: SupportsIndex = 0) -> Floats:
        """Multiplies `values`, float32 of any shape, by the factors of the elements from `first` on, in place, and returns it.
        `seed` and `first` are integers from 0 to 2**64 - 1. Ones become the factors.
        """
        array = _array("values", values, numpy.float32, written=True, optional=False)
        _library.call("noise_apply", self._noise, integer("seed", seed), integer("first", first), array)
        return values

    def _numbers(self) -> tuple[int, float, float]:
        return self._noise.law, self._noise.p, self._noise.width

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError("noise cannot be changed: make another one")

    def __eq__(self, other: object) -> bool:
        return self._numbers() == other._numbers() if isinstance(other, Noise) else NotImplemented

    def __hash__(self) -> int:
        return hash(self._numbers())

    def __repr__(self) -> str:
        law, p, width = self._numbers()
        return f"Noise.{('gaussian', 'gaussian_dropout', 'uniform')[law]}({p if law == 1 else float(str(numpy.float32(width)))!r})"

    def __reduce__(self) -> tuple[Any, ...]:
        return _noise, self._numbers()


def _noise(law: int, p: float, width: float) -> Noise:
    """What a pickled noise is made with."""
    return Noise._of(law, p, width)


def library_path() -> str:
    """The file of the shared library."""
    return _library.path


def library_version() -> str:
    """The version of the shared library."""
    version: bytes = _library.library.normdrop_version()
    return version.decode()


def backend() -> Backend:
    """The fastest instruction set that this CPU has, of `BACKENDS`."""
    number: int = _library.library.normdrop_backend_detect()
    return BACKENDS[number]


@untraced
def bernoulli(p: Real) -> tuple[float, float]:
    """The exact keep probability for the probability `p` to drop, and what kept elements are multiplied by."""
    keep = _library.CKeep(version=_library.ABI_VERSION)
    _library.call("bernoulli_keep", real("p", p), keep)
    return keep.probability, keep.scale


@untraced
def fill_mask(p: Real, seed: SupportsIndex, bits: SupportsIndex, first: SupportsIndex = 0) -> Bits:
    """A part of a mask: `bits` bits from bit `first` on, as `numpy.packbits(bitorder="little")` has them.

    `p` is the probability to drop. `seed` and `first` are integers from 0 to 2**64 - 1, and so is the last bit,
    `first + bits - 1`. The result is uint8 [(bits + 7)//8].
    """
    seed, bits, first = integer("seed", seed), integer("bits", bits, SIZE_BITS), integer("first", first)
    if first + bits > 2**64:
        raise ValueError(f"first + bits must be at most 2**64, not {first + bits}")
    mask = numpy.empty(_library.library.normdrop_mask_len(bits), numpy.uint8)
    _library.call("bernoulli_fill", real("p", p), seed, first, bits, mask)
    return mask


@untraced
def seed_for(root: SupportsIndex, layer: SupportsIndex = 0, step: SupportsIndex = 0, rank: SupportsIndex = 0) -> int:
    """The seed of one mask of a training run, from the run's one seed `root`: of a `layer`, a `step` and a `rank`, all integers
    from 0 to 2**64 - 1. Calls that differ in one of them never give the same seed; sums such as `root + layer + step` do.
    """
    numbers = (("root", root), ("layer", layer), ("step", step), ("rank", rank))
    seed: int = _library.library.normdrop_seed_for(*(integer(name, number) for name, number in numbers))
    return seed


@untraced
def merge_moments(into: Doubles, moments: Doubles) -> None:
    """Merges the `moments` of one part of a batch into those of another: afterwards `into` has the moments of both.

    Both are float64 [3*C]. A part of zeros is one without values. In another order of the parts the last bits are others.
    """
    _merge("moments", into, moments)


@untraced
def merge_sums(into: Doubles, sums: Doubles) -> None:
    """Merges the `sums` of one part of a batch into those of another: `into += sums`. Both are float64 [2*C]."""
    _merge("sums", into, sums)


def _merge(name: str, into: Doubles, values: Doubles) -> None:
    into = _array("into", into, numpy.float64, written=True, optional=False)
    _library.call(f"merge_{name}", into, _array(name, values, numpy.float64, optional=False))


@untraced
def fold_into_previous(weights: Floats, bias: Floats | None, running_mean: Floats, running_var: Floats, *, layout: str, groups: SupportsIndex = 1,
                       weight: Floats | None = None, shift: Floats | None = None, eps: Real = 1e-5,
                       running_mean_tail: Floats | None = None) -> None:
    """Folds batch norm into the linear or convolution layer directly before it, in place.

    `weights` and `bias` (or None) are those of that layer; `weight` and `shift` the weight and bias of the batch norm,
    `running_mean`, `running_mean_tail`, `running_var` and `eps` its statistics. All arrays are float32; those of the batch
    norm have a value for each of its channels, and `bias` one for each output.

    Nothing may stand between the two layers. Weights below 2**-126, of channels that training has switched off, are written
    as they are: where they slow the layer down, `weights[abs(weights) < numpy.finfo(numpy.float32).tiny] = 0`.

    `layout` names the dimensions of `weights`: O outputs, I inputs, the axes D, H, W or L of the kernel, M the multiplier of a
    depthwise convolution. It has no default, because a wrong one of the same shape cannot be noticed:

        "OI"                        PyTorch Linear, TFLite fully connected, ONNX Gemm with transB
        "IO"                        Keras and flax Dense, ONNX MatMul and Gemm
        "OIL", "OIHW", "OIDHW"      PyTorch Conv1d, Conv2d, Conv3d, ONNX Conv, also depthwise
        "IOL", "IOHW", "IODHW"      PyTorch ConvTranspose1d, 2d, 3d, ONNX ConvTranspose
        "LIO", "HWIO", "DHWIO"      Keras and flax Conv; flax ConvTranspose
        "LOI", "HWOI", "DHWOI"      Keras Conv1DTranspose, 2D, 3D; flax ConvTranspose with transpose_kernel
        "LIM", "HWIM"               Keras DepthwiseConv1D, 2D
        "OHWI"                      TFLite Conv2D, TransposeConv

    `groups` is that of the layer: one of the dimensions O and I then is that of one group, as the framework has it.
    """
    _fold("fold_into_previous", weights, bias, running_mean, running_mean_tail, running_var, layout, groups, weight, shift, eps)


@untraced
def fold_into_next(weights: Floats, bias: Floats | None, running_mean: Floats, running_var: Floats, *, layout: str, groups: SupportsIndex = 1,
                   weight: Floats | None = None, shift: Floats | None = None, eps: Real = 1e-5,
                   running_mean_tail: Floats | None = None) -> None:
    """Folds batch norm into the linear or convolution layer after it, in place. The arguments are those of `fold_into_previous`:
    `weights`, `bias` and `layout` of the weight layer, its `groups`; `running_mean`, `running_mean_tail`, `running_var`, `weight`, `shift`
    and `eps` of the batch norm, whose channels are the inputs here.

    Exact only where nothing but dropout and a flattening stands between the two layers, and where every output sees every
    tap: not with zero padding and not for most transposed convolutions, unless the batch norm shifts nothing. Zero padding of
    the network becomes a padding with the values of `fold_padding`.

    After a flattening, give the weights the axes of the image. This is a view: the array itself is written.

        linear.reshape(out, c, h, w), layout="OIHW"        NCHW, flatten, PyTorch Linear
        linear.reshape(out, h, w, c), layout="OHWI"        NHWC, flatten, PyTorch Linear
        dense.reshape(h, w, c, out), layout="HWIO"         NHWC, flatten, Keras Dense
        dense.reshape(c, h, w, out), layout="IHWO"         NCHW, flatten, ONNX MatMul
    """
    _fold("fold_into_next", weights, bias, running_mean, running_mean_tail, running_var, layout, groups, weight, shift, eps)


@untraced
def fold_padding(running_mean: Floats, running_var: Floats, *, weight: Floats | None = None, shift: Floats | None = None,
                 eps: Real = 1e-5, running_mean_tail: Floats | None = None) -> Floats:
    """The values with which a network pads instead of zeros after `fold_into_next`, one for each channel of the batch norm, which
    maps them to 0: `running_mean + running_mean_tail - shift*sqrt(running_var + eps)/weight`. The arguments are those of
    `fold_into_next`.

    A channel whose `weight` is 0 and whose `shift` is not has no such value, and is refused.
    """
    padding = numpy.empty(running_mean.shape, numpy.float32)
    call = _library.CFold(
        eps=real32("eps", eps), weight=_floats("weight", weight), bias=_floats("shift", shift),
        running_mean=_floats("running_mean", running_mean), running_var=_floats("running_var", running_var),
        running_mean_tail=_floats("running_mean_tail", running_mean_tail),
    )
    _library.call("fold_padding", call, padding)
    return padding


@untraced
def first_min_pooled(weight: Floats) -> int | None:
    """The first channel whose max-pooling between a batch norm and the layer after it has to become min-pooling after
    `fold_into_next`: the first one with a `weight` below 0; None if max-pooling stays."""
    channel = ctypes.c_size_t()
    _library.call("first_min_pooled", _floats("weight", weight), channel)
    return channel.value if channel.value < weight.size else None


# The forms of stored statistics: their numbers in C begin with 1.
_STORED_FORMS = ("eps_outside", "deviation", "inverse_deviation", "sums")


@untraced
def into_running(form: StoredForm, mean: Floats, spread: Floats, *, eps: Real = 0.0, factor: Real = 1.0) -> float:
    """Turns the statistics of another program into a running mean and a running variance, in place, and returns the `eps` that
    belongs to them. `mean` and `spread` have a value for each channel; `form` says what `spread` is:

        "eps_outside"          1/(sqrt(spread) + eps): Darknet, eps 1e-6
        "deviation"            a standard deviation
        "inverse_deviation"    an inverse one: `invstd` of PyTorch and cuDNN
        "sums"                 sums that `factor` divides: blobs 0, 1 and 2 of Caffe, eps 1e-5

    A negative spread, and one of 0 with nothing added to it, is refused; sums may be negative.
    """
    form_number = choice("form", form, _STORED_FORMS) + 1
    stored = _library.CStored(
        version=_library.ABI_VERSION, form=form_number, factor=real32("factor", factor), eps=real32("eps", eps),
    )
    running_eps = ctypes.c_float()
    _library.call("into_running", stored, _floats("mean", mean, True), _floats("spread", spread, True), running_eps)
    return running_eps.value


# The orders of weights by their numbers in C, K for the axes of the kernel, and which dimension has all groups.
_WEIGHT_ORDERS = {
    "OI": (1, "O"), "OIK": (1, "O"), "OKI": (2, "O"), "IOK": (3, "I"), "IKO": (4, "I"), "IO": (5, "O"), "KIO": (5, "O"),
    "KOI": (6, "I"),
}


def _weight_shape(shape: tuple[int, ...], layout: str, groups: int) -> tuple[int, int, int, int, int]:
    """The order, outputs, inputs, taps and groups of weights."""
    axes = "".join(letter for letter in layout if letter in "DHWL")
    kind = layout.replace(axes, "K") if axes else layout
    if kind not in _WEIGHT_ORDERS and kind != "KIM" or len(set(layout)) != len(layout):
        raise ValueError(f"layout must name the dimensions of the weights, such as OI, OIHW or HWIO, not {layout!r}")
    if len(layout) != len(shape):
        raise ValueError(f"weights must have the {len(layout)} dimensions {layout}, not {shape}")
    sizes = dict(zip(layout, shape))
    taps = _product(sizes[axis] for axis in axes)
    if kind == "KIM":
        if groups not in (1, sizes["I"]):
            raise ValueError(f"groups of a depthwise convolution are its {sizes['I']} inputs, not {groups}")
        return 5, sizes["I"] * sizes["M"], sizes["I"], taps, max(sizes["I"], 1)
    if groups < 1 or groups != 1 and not axes:
        raise ValueError(f"groups must be at least 1, and 1 for a linear layer, not {groups}")
    order, whole = _WEIGHT_ORDERS[kind]
    outputs, inputs = (_product((sizes[side], 1 if side == whole else groups)) for side in "OI")
    return order, outputs, inputs, taps, groups


def _fold(name: str, weights: Floats, bias: Floats | None, running_mean: Floats, running_mean_tail: Floats | None,
          running_var: Floats, layout: str, given_groups: SupportsIndex, weight: Floats | None, shift: Floats | None, eps: Real) -> None:
    _array("weights", weights, numpy.float32, written=True, optional=False)
    order, outputs, inputs, taps, groups = _weight_shape(weights.shape, layout, integer("groups", given_groups, SIZE_BITS))
    call = _library.CFold(
        eps=real32("eps", eps), order=order, outputs=outputs, inputs=inputs, taps=taps, groups=groups,
        weight=_floats("weight", weight), bias=_floats("shift", shift),
        running_mean=_floats("running_mean", running_mean), running_var=_floats("running_var", running_var),
        running_mean_tail=_floats("running_mean_tail", running_mean_tail),
        weights=weights, weights_bias=_floats("bias", bias, True),
    )
    _library.call(name, call)


def _floats(name: str, array: Floats | None, written: bool = False) -> Any:
    return _array(name, array, numpy.float32, written=written)


class Layer:
    """The fused layer for one shape. It holds no data, cannot be changed, and may be used by several threads at once.

    `layout` is one of `LAYOUTS`, N samples and C channels, and `shape` that of the tensors. `activation` is one of `ACTIVATIONS`,
    with the `slope` of "leaky_relu" and the `alpha` of "elu". `p` is the probability to drop, and `granularity` what one bit of
    the mask drops. `eps` and `momentum` are PyTorch's; `running_var` is "unbiased", as in PyTorch, or "biased", as in Keras, flax
    and ONNX. `backend` is one of `BACKENDS`, which all give the same bits. More `tasks` than one use threads, and need a library
    built with `--features capi,rayon`, as that of a wheel is; a child of `fork`, whose parent has used them, works all tasks by
    itself.

    All arguments are attributes, and so are `channels`, `mask_bits`, the bits of a mask, and `mask_len`, its bytes; `gates_len`,
    the bytes of gates, and `has_gates`, whether the activation has gates, as "identity" and "relu" have. Layers with equal
    arguments are equal, and a layer can be copied and pickled.

    `help(normdrop)` lists the arrays of the calls, their types and shapes. Each call checks all of them before it writes
    anything.
    """

    layout: Layout
    shape: tuple[int, ...]
    activation: Activation
    p: float
    eps: float
    momentum: float
    slope: float
    alpha: float
    granularity: Granularity
    running_var: RunningVariance
    backend: Backend
    tasks: int
    channels: int
    mask_bits: int
    mask_len: int
    gates_len: int
    has_gates: bool
    _layer: _library.CLayer
    _lengths: _library.CLengths

    @untraced
    def __init__(self, layout: Layout, shape: Sequence[SupportsIndex], activation: Activation = "identity", *, p: Real = 0.0,
                 eps: Real = 1e-5, momentum: Real = 0.1, slope: Real = 0.01, alpha: Real = 1.0,
                 granularity: Granularity = "element", running_var: RunningVariance = "unbiased", backend: Backend = "fastest", tasks: SupportsIndex = 1) -> None:
        if not isinstance(layout, str) or layout not in LAYOUTS:
            raise ValueError(f"layout must be one of {', '.join(LAYOUTS)}, not {layout!r}")
        shape = sequence("shape", shape)
        if len(shape) != len(layout):
            raise ValueError(f"shape must have the {len(layout)} dimensions {layout}, not {shape}")
        # ctypes would cut what does not fit, also the sizes of a tensor without elements.
        sizes = tuple(integer(f"{dimension} of shape", size, SIZE_BITS) for dimension, size in zip(layout, shape))
        for name, value, values in (
            ("activation", activation, ACTIVATIONS), ("granularity", granularity, GRANULARITIES),
            ("running_var", running_var, RUNNING_VARIANCES), ("backend", backend, BACKENDS),
        ):
            choice(name, value, values)
        self._set(
            layout=layout, shape=sizes, activation=activation, p=real("p", p), eps=real32("eps", eps),
            momentum=real("momentum", momentum), slope=real32("slope", slope), alpha=real32("alpha", alpha),
            granularity=granularity, running_var=running_var, backend=backend, tasks=max(integer("tasks", tasks, 32), 1),
        )

    def _set(self, **arguments: Any) -> None:
        """Sets the attributes: the arguments, the structs of C, and what these say."""
        values = vars(self)
        values.update(arguments)
        shape, axis = self.shape, self.layout.index("C")
        layer, lengths = _library.CLayer(), _library.CLengths(version=_library.ABI_VERSION)
        _library.library.normdrop_layer_init(layer, _library.ABI_VERSION)
        layer.activation = ACTIVATIONS.index(self.activation)
        layer.outer = _product(shape[:axis])
        layer.channels = shape[axis]
        layer.inner = _product(shape[axis + 1:])
        layer.positions = 1 if axis == 1 else _product(shape[1:-1])
        layer.momentum, layer.p, layer.eps = self.momentum, self.p, self.eps
        layer.slope, layer.alpha = self.slope, self.alpha
        layer.granularity = GRANULARITIES.index(self.granularity)
        layer.running_variance = RUNNING_VARIANCES.index(self.running_var)
        layer.backend = BACKENDS.index(self.backend)
        layer.tasks = self.tasks
        _library.call("layer_lengths", layer, lengths)
        values.update(_layer=layer, _lengths=lengths, channels=lengths.channels, mask_bits=lengths.mask_bits,
                      mask_len=lengths.mask, gates_len=(lengths.elements + 7) // 8, has_gates=self.activation in GATED)

    def __setattr__(self, name: str, value: object) -> None:
        if name in (*_ARGUMENTS, *_DERIVED):
            raise AttributeError(f"{name} of a layer cannot be changed: make another Layer")
        super().__setattr__(name, value)

    def __delattr__(self, name: str) -> None:
        if name in (*_ARGUMENTS, *_DERIVED):
            raise AttributeError(f"{name} of a layer cannot be deleted")
        super().__delattr__(name)

    def _arguments(self) -> dict[str, Any]:
        return {name: vars(self)[name] for name in _ARGUMENTS}

    def __eq__(self, other: object) -> bool:
        return self._arguments() == other._arguments() if isinstance(other, type(self)) and type(self) is type(other) else NotImplemented

    def __hash__(self) -> int:
        return hash(tuple(self._arguments().values()))

    def __repr__(self) -> str:
        arguments = [repr(self.layout), repr(self.shape), repr(self.activation)]
        arguments += [f"{name}={vars(self)[name]!r}" for name, usual in _OPTIONS.items() if vars(self)[name] != usual]
        return f"{type(self).__name__}({', '.join(arguments)})"

    def __getstate__(self) -> dict[str, Any]:
        # The structs are those of one version of the library and of one machine.
        return {name: value for name, value in vars(self).items() if name not in _DERIVED}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self._set(**state)

    @untraced
    def mask(self, seed: SupportsIndex, out: Bits | None = None) -> Bits:
        """The dropout mask of a seed: uint8 [mask_len], a bit for each element, 1 if it is kept.

        `seed` is an integer from 0 to 2**64 - 1, and all that the mask depends on beside `p`, the same on every machine. With
        `out`, an array of that type and length, the mask is written there.
        """
        mask = numpy.empty(self.mask_len, numpy.uint8) if out is None else out
        seed = integer("seed", seed)
        _library.call("fill_mask", self._layer, seed, _array("out", mask, numpy.uint8, written=True))
        return mask

    @untraced
    def drop_padding(self, lengths: Iterable[SupportsIndex], mask: Bits) -> Bits:
        """Clears the bits of padded elements in a mask, in place, so that all calls give 0 there; returns the mask.

        `lengths` has an integer for each sample: the positions from the first on that are not padding. `mask`, uint8 [mask_len],
        must have a bit for each element, and may be that of `p=0`. The gradient of the input needs `clear_padding`, too.
        """
        array = _array("mask", mask, numpy.uint8, written=True, optional=False)
        _library.call("drop_padding", self._layer, _lengths(lengths), array)
        return mask

    @untraced
    def clear_padding(self, lengths: Iterable[SupportsIndex], values: NDArray[_Element]) -> NDArray[_Element]:
        """Sets the padding of `values`, an array of float32 or halves of the shape of this layer, to 0, in place, and returns it.

        `lengths` has an integer for each sample: the positions from the first on that are not padding. See `drop_padding`.
        """
        array = self._tensor("values", values, True)
        _library.call(f"clear_padding{_half(array)}", self._layer, _lengths(lengths), array)
        return values

    @untraced
    def apply_noise(self, noise: Noise, seed: SupportsIndex, values: Floats) -> Floats:
        """Multiplies `values`, float32 of the shape of the layer, by `noise`, in place, and returns it: forward on the output of
        a layer of `p=0`, and backward on the gradient of the output, with the same `seed`, an integer from 0 to 2**64 - 1.
        """
        if not isinstance(noise, Noise):
            raise TypeError(f"noise must be a normdrop.Noise, not {type(noise).__name__}")
        array = self._singles("values", values)
        _library.call("apply_noise", self._layer, noise._noise, integer("seed", seed), array)
        return values

    @untraced
    def alpha_dropout(self, values: Floats, mask: Bits) -> Floats:
        """Alpha dropout of `values`, float32 of the shape of the layer, in place, and returns it: dropout for "selu", which leaves
        a mean of 0 and a variance of 1 as they are, with `p` of the layer.

        `mask` is uint8 [mask_len]. A layer of `granularity="channel"` has PyTorch's FeatureAlphaDropout. The training call
        before it is that of a layer of `p=0`.
        """
        _library.call("alpha_dropout", self._layer, _array("mask", mask, numpy.uint8, optional=False), self._singles("values", values))
        return values

    @untraced
    def alpha_dropout_backward(self, grad: Floats, mask: Bits) -> Floats:
        """The gradient of `alpha_dropout`: `grad`, float32 of the shape of the layer, the gradient of the output of alpha
        dropout, becomes that of its input, in place, and is returned. `mask` is uint8 [mask_len], that of the forward call.
        """
        _library.call(
            "alpha_dropout_backward", self._layer, _array("mask", mask, numpy.uint8, optional=False), self._singles("grad", grad)
        )
        return grad

    @untraced
    def prelu(self, values: Floats, slope: Floats) -> Floats:
        """PReLU of `values`, float32 of the shape of the layer, in place, and returns it: negative values are multiplied by the
        slope of their channel. It follows any forward call of a layer of "identity", with dropout or without.

        `slope` is float32 [C], or [1] for all channels.
        """
        slope = _array("slope", slope, numpy.float32, optional=False)
        _library.call("prelu", self._layer, slope, self._singles("values", values))
        return values

    @untraced
    def prelu_gradient(self, values: Floats, grad: Floats, slope: Floats) -> tuple[Floats, Floats]:
        """The gradients of `prelu`: that of its input, and that of the slopes, float32 of the shape of `slope`.

        `values`, float32 of the shape of the layer, is what went into `prelu`: the forward call once more, as `apply` of a training
        call makes it. It becomes the gradient, in place, which `backward` of the layer then takes for its `grad`. `grad` is the
        gradient of the output of `prelu`.
        """
        array = _array("slope", slope, numpy.float32, optional=False)
        d_slope = numpy.empty(numpy.shape(slope), numpy.float32)
        grad = _array("grad", grad, numpy.float32, shape=self.shape, optional=False)
        scratch = numpy.empty(self._lengths.prelu_scratch)
        _library.call("prelu_gradient", self._layer, array, grad, self._singles("values", values), d_slope, scratch)
        return values, d_slope

    @untraced
    def mask_from(self, generator: Generator) -> Bits:
        """A mask, uint8 [mask_len], from a `generator` of the caller, such as `numpy.random.Generator`."""
        failed: list[BaseException] = []

        def word(_: object) -> int:
            try:
                return 0 if failed else integer("a word", generator.integers(0, 1 << 32, dtype=numpy.uint32), 32)
            except BaseException as error:  # No exception can leave through C, and none may be lost.
                failed.append(error)
                return 0

        mask = numpy.empty(self.mask_len, numpy.uint8)
        _library.call("fill_mask_with", self._layer, _library.Next(word), None, mask)
        if failed:
            raise failed[0]
        return mask

    @untraced
    def train(self, x: NDArray[_Element], *, weight: Floats | None = None, bias: Floats | None = None, running_mean: Floats | None = None,
              running_var: Floats | None = None, running_mean_tail: Floats | None = None, batches: Counter | None = None,
              mask: Bits | None = None, gates: Bits | None = None, residual: Tensor | None = None,
              out: NDArray[_Element] | None = None, lengths: Iterable[SupportsIndex] | None = None,
              valid: Bits | None = None) -> tuple[NDArray[_Element], Saved]:
        """Training forward: the output, and what `backward` needs. Updates the running statistics.

            x                    float32 or a half, the shape of the layer
            weight, bias         float32 [C], 1 and 0 if left out
            running_mean,        float32 [C], both updated in place, or both left out; a new layer starts with zeros
            running_var          and ones
            running_mean_tail    float32 [C], updated in place, zeros at first
            batches              uint64 [1], incremented: the running statistics are the mean of all batches then
            mask                 uint8 [mask_len]; needed if `p` is above 0: a layer of `p=0` trains without dropout
            gates                uint8 [gates_len]: where the gates are written, for `backward`, if `has_gates`; `gates=mask`
                                 overwrites a mask of elements
            residual             float32 or a half, the shape of the layer: added before the activation
            out                  float32 or a half, the shape of the layer: where the output is written, not `x` itself
            lengths, valid       of a padded batch: an integer for each sample, or uint8, a bit for each position; then the
                                 statistics are those of the valid positions, the output is 0 in the padding, and what the
                                 arrays have in the padding is never read

        An empty batch, or one without a valid position, leaves the running statistics as they are, and what it saves is 0.

        `running_mean_tail` holds what `running_mean` as a float32 leaves out. Without it the running mean stops within
        `2**-24 * abs(mean) / momentum` of its limit; with it, evaluation stays as exact as training where the mean is up to
        1e7 standard deviations. Where it is used it belongs to `running_mean` in every call.
        """
        y, saved = self._like(out, x), self._new_saved()
        self._run(
            "train", _library.CTrain, self._lengths.train_scratch, **self._parameters(weight, bias),
            **self._running(running_mean, running_mean_tail, running_var, True), **_counter(batches), mask=_mask(mask),
            gates=_gates(gates, True), input=self._tensor("x", x), residual=self._optional("residual", residual),
            output=self._tensor("out", y, True), **_saved(saved, True), masked=self._masked(lengths, valid),
        )
        return y, saved

    @untraced
    def eval(self, x: NDArray[_Element], running_mean: Floats, running_var: Floats, *, running_mean_tail: Floats | None = None,
             weight: Floats | None = None, bias: Floats | None = None, mask: Bits | None = None, gates: Bits | None = None,
             residual: Tensor | None = None, out: NDArray[_Element] | None = None, lengths: Iterable[SupportsIndex] | None = None,
             valid: Bits | None = None) -> NDArray[_Element]:
        """Evaluation forward with the running statistics: the output.

            x                            float32 or a half, the shape of the layer
            running_mean, running_var    float32 [C]
            running_mean_tail            float32 [C], if training had one
            weight, bias                 float32 [C], 1 and 0 if left out
            mask                         uint8 [mask_len]: Monte-Carlo dropout; if left out, dropout is off
            gates                        uint8 [gates_len]: where the gates are written, as in `train`, for a layer that is
                                         frozen; with them, a layer of `p` above 0 needs a mask, and `out` is not `x`
            residual                     float32 or a half, the shape of the layer: added before the activation
            out                          float32 or a half, the shape of the layer: where the output is written; `out=x` is in place
            lengths, valid               of a padded batch, as in `train`: the output is 0 in the padding; not in place
        """
        y = self._like(out, x)
        self._run(
            "eval", _library.CEval, self._lengths.eval_scratch, **self._parameters(weight, bias),
            **self._running(running_mean, running_mean_tail, running_var), mask=_mask(mask), gates=_gates(gates, True),
            input=self._tensor("x", x), residual=self._optional("residual", residual), output=self._tensor("out", y, True),
            masked=self._masked(lengths, valid),
        )
        return y

    @untraced
    def prepare(self, running_mean: Floats, running_var: Floats, *, running_mean_tail: Floats | None = None,
                weight: Floats | None = None, bias: Floats | None = None) -> Doubles:
        """Running statistics and parameters in the form that calls compute with, for many calls with the same: a float64 array,
        which `eval_prepared`, and `backward` and `reduce` with `prepared`, take in place of them. The results are the same bits,
        and small calls are several times faster.

            running_mean,       float32 [C], as in `eval`
            running_var,
            running_mean_tail
            weight, bias        float32 [C], as in `eval`

        The array is a copy: after a change of the statistics or parameters, prepare again. It serves every layer with as many
        channels.
        """
        prepared = numpy.empty(self._lengths.prepared)
        call = _library.CPrepare(
            **self._parameters(weight, bias), **self._running(running_mean, running_mean_tail, running_var), prepared=prepared
        )
        _library.call("prepare", self._layer, call)
        return prepared

    @untraced
    def eval_prepared(self, x: NDArray[_Element], prepared: Doubles, *, mask: Bits | None = None, residual: Tensor | None = None,
                      out: NDArray[_Element] | None = None) -> NDArray[_Element]:
        """`eval` with prepared statistics: the output.

            x, mask, residual   as in `eval`
            prepared            what `prepare` returned
            out                 float32 or a half, the shape of the layer: where the output is written; `out=x` is in place
        """
        y = self._like(out, x)
        self._run(
            "eval", _library.CEval, self._lengths.eval_scratch, prepared=_prepared(prepared), mask=_mask(mask),
            input=self._tensor("x", x), residual=self._optional("residual", residual), output=self._tensor("out", y, True),
        )
        return y

    @untraced
    def backward(self, grad: Tensor, x: Tensor, saved: Saved | None = None, *, running_mean: Floats | None = None,
                 running_var: Floats | None = None, running_mean_tail: Floats | None = None,
                 prepared: Doubles | None = None, weight: Floats | None = None, bias: Floats | None = None,
                 mask: Bits | None = None, gates: Bits | None = None, residual: Tensor | None = None, out: Tensor | None = None,
                 input_gradient: bool = True, residual_gradient: bool = False, parameter_gradients: bool = True,
                 lengths: Iterable[SupportsIndex] | None = None, valid: Bits | None = None) -> Gradients:
        """The gradients, through the batch statistics in `saved` or past the running ones.

            grad                   float32 or a half, the shape of the layer: the gradient of the output
            x, residual, weight,   as in the forward call
            bias, mask
            gates                  uint8 [gates_len], what the forward call wrote there; with them, mask and residual are not used, and
                                   the gradients are the same bits; so they are without bias, if it is below 2**68
            saved                  what `train` returned; or instead, after `eval`,
            running_mean,          float32 [C], as in the forward call
            running_var,
            running_mean_tail
            prepared               what `prepare` returned, instead of those and of weight and bias
            out                    float32 or a half, the shape of the layer: where the gradient of x is written; `out=grad` is in place
            input_gradient,        whether the result has the gradient of x, of the residual, and those of weight and
            residual_gradient,     bias; it has None instead
            parameter_gradients
            lengths, valid         of a padded batch, as in the forward call: the sums are those over valid positions, and the
                                   gradients of x and of the residual are 0 in the padding; not in place
        """
        dx = self._like(out, x) if input_gradient else None
        d_residual = self._like(None, x if residual is None else residual) if residual_gradient else None
        d_weight, d_bias = (self._new_channels(), self._new_channels()) if parameter_gradients else (None, None)
        self._run(
            "backward", _library.CBackward, self._lengths.backward_scratch, **self._parameters(weight, bias),
            **self._statistics(saved, running_mean, running_mean_tail, running_var, prepared), mask=_mask(mask), gates=_gates(gates),
            input=self._tensor("x", x),
            residual=self._optional("residual", residual), grad_output=self._tensor("grad", grad),
            grad_input=self._optional("out", dx, True), grad_residual=self._optional("d_residual", d_residual, True),
            grad_weight=_floats("d_weight", d_weight, True), grad_bias=_floats("d_bias", d_bias, True),
            masked=self._masked(lengths, valid),
        )
        return Gradients(dx, d_weight, d_bias, d_residual)

    # Batches in parts. The shape of the layer is that of the part.

    @untraced
    def moments(self, x: Tensor) -> Doubles:
        """The moments of a part of a batch, `x`, float32 or halves of the shape of the layer: C counts, C means and C sums of squared
        deviations, float64 [3*C].
        """
        moments, scratch = numpy.empty(self._lengths.moments), numpy.empty(self._lengths.train_scratch)
        array = self._tensor("x", x)
        _library.call(f"moments{_half(array)}", self._layer, array, moments, scratch)
        return moments

    @untraced
    def check_moments(self, moments: Doubles) -> None:
        """Refuses `moments` of all parts of a batch, float64 [3*C], whose mean or variance does not fit a float32: those of a
        batch with a NaN or with values beyond 1e19, which `finish` would average into the running statistics.
        """
        _library.call("check_moments", self._layer, _array("moments", moments, numpy.float64, optional=False))

    @untraced
    def finish(self, moments: Doubles, *, running_mean: Floats | None = None, running_var: Floats | None = None,
               running_mean_tail: Floats | None = None, batches: Counter | None = None) -> Saved:
        """The statistics of a batch from the moments of all its parts. Updates the running statistics as `train` does.

            moments              float64 [3*C], those of all parts, merged by `merge_moments`
            running_mean,        float32 [C], updated in place, or left out
            running_var,
            running_mean_tail
            batches              uint64 [1], incremented: the running statistics are the mean of all batches then

        A channel without values in any part leaves its running statistics as they are, and what it saves is 0.
        """
        saved = self._new_saved()
        call = _library.CFinish(
            moments=_array("moments", moments, numpy.float64, optional=False),
            **self._running(running_mean, running_mean_tail, running_var, True), **_counter(batches), **_saved(saved, True),
        )
        _library.call("finish", self._layer, call)
        return saved

    @untraced
    def apply(self, x: NDArray[_Element], saved: Saved, *, weight: Floats | None = None, bias: Floats | None = None, mask: Bits | None = None,
              gates: Bits | None = None, residual: Tensor | None = None, out: NDArray[_Element] | None = None) -> NDArray[_Element]:
        """The output of a part, with the statistics of the whole batch.

            x               float32 or a half, the shape of the layer, which is that of the part
            saved           what `finish` returned
            weight, bias    float32 [C], 1 and 0 if left out
            mask            uint8 [mask_len], that of the part; needed if `p` is above 0
            gates           uint8 [gates_len]: where the gates of the part are written, as in `train`
            residual        float32 or a half, the shape of the layer: added before the activation
            out             float32 or a half, the shape of the layer: where the output is written, not `x` itself
        """
        y = self._like(out, x)
        self._run(
            "apply", _library.CApply, self._lengths.eval_scratch, **self._parameters(weight, bias), **_saved(saved),
            mask=_mask(mask), gates=_gates(gates, True), input=self._tensor("x", x),
            residual=self._optional("residual", residual), output=self._tensor("out", y, True),
        )
        return y

    @untraced
    def reduce(self, grad: Tensor, x: Tensor, saved: Saved | None = None, *, running_mean: Floats | None = None,
               running_var: Floats | None = None, running_mean_tail: Floats | None = None,
               prepared: Doubles | None = None, weight: Floats | None = None, bias: Floats | None = None,
               mask: Bits | None = None, gates: Bits | None = None, residual: Tensor | None = None) -> Doubles:
        """The sums over a part that gradients are made of: C sums of g, then C sums of g*xhat, float64 [2*C].

            grad                   float32 or a half, the shape of the layer: the gradient of the part's output
            x, residual, weight,   as in the forward call of the part
            bias, mask
            gates                  uint8 [gates_len], those of the part, as in `backward`
            saved                  what `finish` returned; or instead, after `eval`,
            running_mean,          float32 [C], as in the forward call
            running_var,
            running_mean_tail
            prepared               what `prepare` returned, instead of those and of weight and bias
        """
        sums = numpy.empty(self._lengths.sums)
        self._run(
            "reduce", _library.CReduce, self._lengths.backward_scratch, **self._parameters(weight, bias),
            **self._statistics(saved, running_mean, running_mean_tail, running_var, prepared), mask=_mask(mask), gates=_gates(gates),
            input=self._tensor("x", x),
            residual=self._optional("residual", residual), grad_output=self._tensor("grad", grad), sums=sums,
        )
        return sums

    @untraced
    def finish_gradients(self, sums: Doubles) -> tuple[Floats, Floats]:
        """The gradients of weight and bias, float32 [C] each, from the `sums` of all parts, merged, float64 [2*C]."""
        d_weight, d_bias = self._new_channels(), self._new_channels()
        sums = _array("sums", sums, numpy.float64, optional=False)
        _library.call("finish_gradients", self._layer, sums, d_weight, d_bias)
        return d_weight, d_bias

    @untraced
    def apply_gradient(self, grad: Tensor, x: Tensor, saved: Saved, sums: Doubles, samples: Real, *, weight: Floats | None = None,
                       bias: Floats | None = None, mask: Bits | None = None, gates: Bits | None = None, residual: Tensor | None = None,
                       out: Tensor | None = None, residual_gradient: bool = False) -> Gradients:
        """The gradients of the elements of a part; those of weight and bias are None, because `finish_gradients` has them.

            grad                   float32 or a half, the shape of the layer: the gradient of the part's output
            x, residual, weight,   as in the forward call of the part
            bias, mask
            gates                  uint8 [gates_len], those of the part, as in `backward`
            saved                  what `finish` returned
            sums                   float64 [2*C], those of all parts, merged by `merge_sums`
            samples                the number of values per channel of the whole batch: the first of its moments
            out                    float32 or a half, the shape of the layer: where the gradient of x is written, not `grad` itself
            residual_gradient      whether the result has the gradient of the residual; it has None instead
        """
        dx = self._like(out, x)
        d_residual = self._like(None, x if residual is None else residual) if residual_gradient else None
        self._run(
            "apply_gradient", _library.CApplyGradient, self._lengths.backward_scratch, **self._parameters(weight, bias),
            **_saved(saved), samples=real("samples", samples), sums=_array("sums", sums, numpy.float64, optional=False),
            mask=_mask(mask), gates=_gates(gates), input=self._tensor("x", x), residual=self._optional("residual", residual),
            grad_output=self._tensor("grad", grad), grad_input=self._tensor("out", dx, True),
            grad_residual=self._optional("d_residual", d_residual, True),
        )
        return Gradients(dx, None, None, d_residual)

    def _run(self, name: str, struct: type[_library.Call], scratch_len: int, masked: _library.CMasked | None = None, **fields: Any) -> None:
        # Scratch of its own for each call, so that threads can share the layer.
        if masked is None:
            _library.call(name, self._layer, struct(**fields, scratch=numpy.empty(scratch_len)))
        else:
            call = struct(**fields, scratch=numpy.empty(self._lengths.masked_scratch))
            _library.call(f"{name}_masked", self._layer, call, masked)

    def _masked(self, lengths: Iterable[SupportsIndex] | None, valid: Bits | None) -> _library.CMasked | None:
        """Which positions are valid, if the call is one over valid positions."""
        if lengths is None and valid is None:
            return None
        if lengths is not None and valid is not None:
            raise ValueError("give either lengths or valid")
        return _library.CMasked(
            lengths=None if lengths is None else _lengths(lengths), validity=_array("valid", valid, numpy.uint8),
            workspace=numpy.empty(self._lengths.masked_workspace, numpy.float32),
        )

    def _like(self, out: NDArray[Any] | None, like: object) -> NDArray[Any]:
        """Where a result is written: `out`, or a new array of the type of another one, whose own type is still to be checked."""
        if out is not None:
            return out
        is_half = isinstance(like, numpy.ndarray) and element_of(like.dtype) != 0
        return numpy.empty(self.shape, like.dtype if is_half and isinstance(like, numpy.ndarray) else numpy.float32)

    def _new_channels(self) -> Floats:
        return numpy.empty(self.channels, numpy.float32)

    def _new_saved(self) -> Saved:
        """What a call saves, with the values of channels that it does not write: those without values."""
        floats = numpy.zeros((2, self.channels), numpy.float32)
        return Saved(floats[0], floats[1], numpy.zeros(self.channels))

    def _tensor(self, name: str, array: Tensor, written: bool = False) -> Any:
        return _array(name, array, numpy.float32, shape=self.shape, written=written, optional=False, halves=True)

    def _optional(self, name: str, array: Tensor | None, written: bool = False) -> Any:
        return _array(name, array, numpy.float32, shape=self.shape, written=written, halves=True)

    def _singles(self, name: str, array: Floats) -> Any:
        return _array(name, array, numpy.float32, shape=self.shape, written=True, optional=False)

    def _parameters(self, weight: Floats | None, bias: Floats | None) -> dict[str, Any]:
        return {"weight": _floats("weight", weight), "bias": _floats("bias", bias)}

    def _running(self, mean: Floats | None, mean_tail: Floats | None, var: Floats | None, written: bool = False) -> dict[str, Any]:
        return {
            "running_mean": _floats("running_mean", mean, written),
            "running_mean_tail": _floats("running_mean_tail", mean_tail, written),
            "running_var": _floats("running_var", var, written),
        }

    def _statistics(self, saved: Saved | None, running_mean: Floats | None, running_mean_tail: Floats | None,
                    running_var: Floats | None, prepared: Doubles | None) -> dict[str, Any]:
        if prepared is not None:
            if any(given is not None for given in (saved, running_mean, running_mean_tail, running_var)):
                raise ValueError("give either prepared, which has statistics in it, or others")
            return {"statistics": 2, "prepared": _prepared(prepared)}
        if (saved is None) == (running_mean is None):
            raise ValueError("give either saved, the statistics of the batch, or running_mean and running_var")
        if saved is None:
            return {"statistics": 1, **self._running(running_mean, running_mean_tail, running_var)}
        if running_mean_tail is not None or running_var is not None:
            raise ValueError("give either saved, the statistics of the batch, or running_mean and running_var, not some of both")
        return {"statistics": 0, **_saved(saved)}


# The arguments of a layer, which make it what it is; the last ones with their usual values, which `repr` leaves out.
_OPTIONS = {
    name: parameter.default for name, parameter in inspect.signature(Layer).parameters.items()
    if parameter.kind is parameter.KEYWORD_ONLY
}
_ARGUMENTS = ("layout", "shape", "activation", *_OPTIONS)
_DERIVED = ("_layer", "_lengths", "channels", "mask_bits", "mask_len", "gates_len", "has_gates")


def _saved(saved: Saved, written: bool = False) -> dict[str, Any]:
    try:
        mean, mean_tail, inv_std = saved
    except (TypeError, ValueError):
        raise TypeError(
            f"saved must be what train or finish gave: mean, mean_tail and inv_std, not {type(saved).__name__}"
        ) from None
    return {
        "saved_mean": _floats("saved.mean", mean, written),
        "saved_mean_tail": _floats("saved.mean_tail", mean_tail, written),
        "saved_inv_std": _array("saved.inv_std", inv_std, numpy.float64, written=written),
    }


def _half(array: NDArray[Any]) -> str:
    """The end of the name of a function of C that takes such an array."""
    return "_half" if element_of(array.dtype) else ""


def _prepared(prepared: Doubles) -> Any:
    return _array("prepared", prepared, numpy.float64, optional=False)


def _mask(mask: Bits | None) -> Any:
    return _array("mask", mask, numpy.uint8)


def _gates(gates: Bits | None, written: bool = False) -> Any:
    return _array("gates", gates, numpy.uint8, written=written)


def _counter(batches: Counter | None) -> dict[str, Any]:
    counter = _array("batches", batches, numpy.uint64, written=True)
    if batches is not None and batches.size != 1:
        raise ValueError(f"batches must be an array of one value, not of {batches.size}")
    return {"batches": counter}


def _lengths(lengths: Iterable[SupportsIndex]) -> NDArray[numpy.uintp]:
    numbered = enumerate(sequence("lengths", lengths))
    return numpy.array([integer(f"lengths[{i}]", length, SIZE_BITS) for i, length in numbered], numpy.uintp)


def _product(sizes: Iterable[int]) -> int:
    product = math.prod(sizes)
    if product >= 2**SIZE_BITS:
        raise ValueError("the product of the dimensions does not fit a size_t")
    return product
