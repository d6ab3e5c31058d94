"""normdrop for numpy: `y = dropout(act(batchnorm(x) + residual))`, forward and backward, on float32 arrays.

    import numpy, normdrop

    layer = normdrop.Layer("NCHW", (8, 16, 32, 32), activation="relu", p=0.1)
    x = numpy.random.default_rng(1).normal(size=(8, 16, 32, 32)).astype(numpy.float32)
    mask = layer.mask(seed=42)
    y, saved = layer.train(x, mask=mask)
    gradients = layer.backward(numpy.ones_like(x), x, saved, mask=mask)

Arrays are read and written where they are: they must be float32 (masks uint8, moments and sums float64) and C-contiguous, and
what is not is refused, not copied. `normdrop.torch` has the layer as a PyTorch module.
"""

import ctypes
import operator
from collections import namedtuple

import numpy

from . import _library
from ._library import NormdropError

__all__ = [
    "ACTIVATIONS", "BACKENDS", "GRANULARITIES", "Gradients", "Layer", "NormdropError", "Saved", "backend", "bernoulli",
    "fill_mask", "fold_into_next", "fold_into_previous", "library_path", "library_version", "merge_moments", "merge_sums",
]

ACTIVATIONS = ("identity", "relu", "relu6", "leaky_relu", "hard_swish", "sigmoid", "tanh", "silu", "gelu")
GRANULARITIES = ("element", "channel", "sample")
BACKENDS = ("fastest", "portable", "avx2", "avx512")
LAYOUTS = ("NC", "NCL", "NCHW", "NCDHW", "NLC", "NHWC", "NDHWC")

# What the forward call saves for the backward call: two float32 arrays and a float64 array, a value per channel each.
Saved = namedtuple("Saved", "mean mean_tail inv_std")
# The gradients of a backward call; None where none was asked for.
Gradients = namedtuple("Gradients", "input weight bias residual")


def library_path():
    """The file of the shared library."""
    return _library.path


def library_version():
    """The version of the shared library."""
    return _library.library.normdrop_version().decode()


def backend():
    """The fastest instruction set that this CPU has, of `BACKENDS`."""
    return BACKENDS[_library.library.normdrop_backend_detect()]


def bernoulli(p):
    """The exact keep probability for a probability to drop, and what kept elements are multiplied by."""
    keep = _library.CKeep(version=_library.ABI_VERSION)
    _library.call("bernoulli_keep", p, ctypes.byref(keep))
    return keep.probability, keep.scale


def fill_mask(p, seed, bits, first=0):
    """A part of a mask: `bits` bits from bit `first` on, as `numpy.packbits(bitorder="little")` has them."""
    mask = numpy.empty(_library.library.normdrop_mask_len(bits), numpy.uint8)
    _library.call("bernoulli_fill", p, seed, first, bits, _slice(mask))
    return mask


def merge_moments(into, moments):
    """Merges the moments of one part of a batch into those of another."""
    _library.call("merge_moments", _array("into", into, numpy.float64, True), _array("moments", moments, numpy.float64))


def merge_sums(into, sums):
    """Merges the sums of one part of a batch into those of another."""
    _library.call("merge_sums", _array("into", into, numpy.float64, True), _array("sums", sums, numpy.float64))


def fold_into_previous(weights, bias, running_mean, running_var, *, layout, groups=1, weight=None, shift=None, eps=1e-5):
    """Folds batch norm into the linear or convolution layer directly before it, in place.

    `weights` and `bias` (or None) are those of that layer; `weight` and `shift` the weight and bias of the batch norm.
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
    _fold("fold_into_previous", weights, bias, running_mean, running_var, layout, groups, weight, shift, eps)


def fold_into_next(weights, bias, running_mean, running_var, *, layout, groups=1, weight=None, shift=None, eps=1e-5):
    """Folds batch norm into the linear or convolution layer after it, in place. The arguments are those of `fold_into_previous`.

    Exact only where nothing but dropout and a flattening stands between the two layers, and where every output sees every
    tap: not with zero padding and not for most transposed convolutions, unless the batch norm shifts nothing. Zero padding of
    the network becomes a padding of `running_mean - shift*sqrt(running_var + eps)/weight` per channel; where `weight` is 0 and
    `shift` is not, there is no such value.

    After a flattening, give the weights the axes of the image. This is a view: the array itself is written.

        linear.reshape(out, c, h, w), layout="OIHW"        NCHW, flatten, PyTorch Linear
        linear.reshape(out, h, w, c), layout="OHWI"        NHWC, flatten, PyTorch Linear
        dense.reshape(h, w, c, out), layout="HWIO"         NHWC, flatten, Keras Dense
        dense.reshape(c, h, w, out), layout="IHWO"         NCHW, flatten, ONNX MatMul
    """
    _fold("fold_into_next", weights, bias, running_mean, running_var, layout, groups, weight, shift, eps)


# The orders of weights by their numbers in C, K for the axes of the kernel, and which dimension has all groups.
_WEIGHT_ORDERS = {
    "OI": (1, "O"), "OIK": (1, "O"), "OKI": (2, "O"), "IOK": (3, "I"), "IKO": (4, "I"), "IO": (5, "O"), "KIO": (5, "O"),
    "KOI": (6, "I"),
}


def _weight_shape(shape, layout, groups):
    """The order, outputs, inputs, taps and groups of weights."""
    axes = "".join(letter for letter in layout if letter in "DHWL")
    kind = layout.replace(axes, "K") if axes else layout
    if kind not in _WEIGHT_ORDERS and kind != "KIM" or len(set(layout)) != len(layout):
        raise ValueError(f"layout must name the dimensions of the weights, such as OI, OIHW or HWIO, not {layout!r}")
    if len(layout) != len(shape):
        raise ValueError(f"weights must have the {len(layout)} dimensions {layout}, not {shape}")
    groups = operator.index(groups)
    sizes = dict(zip(layout, shape))
    taps = _product(sizes[axis] for axis in axes)
    if kind == "KIM":
        if groups not in (1, sizes["I"]):
            raise ValueError(f"groups of a depthwise convolution are its {sizes['I']} inputs, not {groups}")
        return 5, sizes["I"] * sizes["M"], sizes["I"], taps, max(sizes["I"], 1)
    if groups < 1 or groups != 1 and not axes:
        raise ValueError(f"groups must be at least 1, and 1 for a linear layer, not {groups}")
    order, whole = _WEIGHT_ORDERS[kind]
    outputs, inputs = (_size(sizes[side] * (1 if side == whole else groups)) for side in "OI")
    return order, outputs, inputs, taps, _size(groups)


def _fold(name, weights, bias, running_mean, running_var, layout, groups, weight, shift, eps):
    memory = _floats("weights", weights, True)
    order, outputs, inputs, taps, groups = _weight_shape(numpy.shape(weights), layout, groups)
    call = _library.CFold(
        version=_library.ABI_VERSION, eps=eps, order=order, outputs=outputs, inputs=inputs, taps=taps, groups=groups,
        weight=_floats("weight", weight), bias=_floats("shift", shift),
        running_mean=_floats("running_mean", running_mean), running_var=_floats("running_var", running_var),
        weights=memory, weights_bias=_floats("bias", bias, True),
    )
    _library.call(name, ctypes.byref(call))


def _slice(array):
    return _library.Slice(array.ctypes.data, array.size)


def _array(name, array, dtype, written=False):
    """The memory of an array that may be missing, after a look at what C cannot see."""
    if array is None:
        return _library.Slice(None, 0)
    if not isinstance(array, numpy.ndarray):
        raise TypeError(f"{name} must be a numpy array, not {type(array).__name__}")
    if array.dtype != dtype:
        raise TypeError(f"{name} must be an array of {numpy.dtype(dtype).name}, not {array.dtype.name}")
    if not array.flags.c_contiguous:
        raise ValueError(f"{name} must be C-contiguous; numpy.ascontiguousarray makes a copy that is")
    if written and not array.flags.writeable:
        raise ValueError(f"{name} would be written, but is read-only")
    return _slice(array)


def _floats(name, array, written=False):
    return _array(name, array, numpy.float32, written)


def _index(name, value, values):
    try:
        return values.index(value)
    except ValueError:
        raise ValueError(f"{name} must be one of {', '.join(values)}, not {value!r}") from None


class Layer:
    """The fused layer for one shape. It holds no data, and may be used by several threads at once.

    `layout` is one of `LAYOUTS`, N samples and C channels, and `shape` that of the tensors. `p` is the probability to drop, and
    `granularity` what one bit of the mask drops. The other arguments are PyTorch's; `running_var` is "unbiased", as in PyTorch, or
    "biased", as in Keras, flax and ONNX. More `tasks` than one use threads, and need a library built with `--features capi,rayon`.
    """

    def __init__(self, layout, shape, activation="identity", *, p=0.0, eps=1e-5, momentum=0.1, slope=0.01,
                 granularity="element", running_var="unbiased", backend="fastest", tasks=1):
        shape = tuple(int(size) for size in shape)
        if layout not in LAYOUTS:
            raise ValueError(f"layout must be one of {', '.join(LAYOUTS)}, not {layout!r}")
        if len(shape) != len(layout) or min(shape, default=0) < 0:
            raise ValueError(f"shape must have the {len(layout)} dimensions {layout}, not {shape}")
        self.layout, self.shape = layout, shape
        axis = layout.index("C")
        inner = _product(shape[axis + 1:])
        positions = 1 if axis == 1 else _product(shape[1:-1])
        self._layer = _library.CLayer()
        _library.library.normdrop_layer_init(ctypes.byref(self._layer), _library.ABI_VERSION)
        self._layer.activation = _index("activation", activation, ACTIVATIONS)
        # Without any samples the tensor is empty, and ctypes would cut what does not fit.
        self._layer.outer = _size(_product(shape[:axis]))
        self._layer.channels = _size(shape[axis])
        self._layer.inner = _size(inner)
        self._layer.positions = _size(positions)
        self._layer.momentum, self._layer.p, self._layer.eps, self._layer.slope = momentum, p, eps, slope
        self._layer.granularity = _index("granularity", granularity, GRANULARITIES)
        self._layer.running_variance = _index("running_var", running_var, ("unbiased", "biased"))
        self._layer.backend = _index("backend", backend, BACKENDS)
        self._layer.tasks = min(max(int(tasks), 1), 2**32 - 1)
        self._pointer = ctypes.byref(self._layer)
        self._lengths = _library.CLengths(version=_library.ABI_VERSION)
        _library.call("layer_lengths", self._pointer, ctypes.byref(self._lengths))
        self.channels = self._lengths.channels
        self.mask_bits, self.mask_len = self._lengths.mask_bits, self._lengths.mask

    def mask(self, seed, out=None):
        """The dropout mask of a seed, a pure function of it: `mask_len` bytes."""
        mask = numpy.empty(self.mask_len, numpy.uint8) if out is None else out
        _library.call("fill_mask", self._pointer, seed % 2**64, _array("out", mask, numpy.uint8, True))
        return mask

    def mask_from(self, generator):
        """A mask from a generator of the caller, such as `numpy.random.Generator`."""
        failed = []

        def word(_):
            try:
                return int(generator.integers(0, 1 << 32, dtype=numpy.uint32))
            except Exception as error:  # An exception must not leave through C.
                failed.append(error)
                return 0

        mask = numpy.empty(self.mask_len, numpy.uint8)
        _library.call("fill_mask_with", self._pointer, _library.Next(word), None, _slice(mask))
        if failed:
            raise failed[0]
        return mask

    def train(self, x, *, weight=None, bias=None, running_mean=None, running_var=None, batches=None, mask=None, residual=None,
              out=None):
        """Training forward: the output, and what `backward` needs. Updates the running statistics.

        With `batches`, a uint64 array of one value, the running statistics are the mean of all batches.
        """
        y = self._like(out)
        saved = self._new_saved()
        call = _library.CTrain(
            version=_library.ABI_VERSION, **self._parameters(weight, bias), **self._running(running_mean, running_var, True),
            batches=_counter(batches), mask=_array("mask", mask, numpy.uint8), input=self._tensor("x", x),
            residual=self._tensor("residual", residual), output=self._tensor("out", y, True), **_saved(saved, True),
        )
        self._run("train", call, self._lengths.train_scratch)
        return y, saved

    def eval(self, x, running_mean, running_var, *, weight=None, bias=None, mask=None, residual=None, out=None):
        """Evaluation forward with the running statistics; `out=x` is in place. With a mask: Monte-Carlo dropout."""
        y = self._like(out)
        call = _library.CEval(
            version=_library.ABI_VERSION, **self._parameters(weight, bias), **self._running(running_mean, running_var),
            mask=_array("mask", mask, numpy.uint8), input=self._tensor("x", x), residual=self._tensor("residual", residual),
            output=self._tensor("out", y, True),
        )
        self._run("eval", call, self._lengths.eval_scratch)
        return y

    def backward(self, grad, x, saved=None, *, running_mean=None, running_var=None, weight=None, bias=None, mask=None,
                 residual=None, out=None, input_gradient=True, residual_gradient=False, parameter_gradients=True):
        """The gradients, through the batch statistics in `saved` or past the running ones. `out=grad` is in place."""
        dx = self._like(out) if input_gradient else None
        d_residual = self._like(None) if residual_gradient else None
        d_weight, d_bias = (self._new_channels(), self._new_channels()) if parameter_gradients else (None, None)
        call = _library.CBackward(
            version=_library.ABI_VERSION, **self._parameters(weight, bias), **self._statistics(saved, running_mean, running_var),
            mask=_array("mask", mask, numpy.uint8), input=self._tensor("x", x), residual=self._tensor("residual", residual),
            grad_output=self._tensor("grad", grad), grad_input=self._tensor("out", dx, True),
            grad_residual=self._tensor("d_residual", d_residual, True), grad_weight=_floats("d_weight", d_weight, True),
            grad_bias=_floats("d_bias", d_bias, True),
        )
        self._run("backward", call, self._lengths.backward_scratch)
        return Gradients(dx, d_weight, d_bias, d_residual)

    # Batches in parts. The shape of the layer is that of the part.

    def moments(self, x):
        """The moments of a part of a batch: counts, means, sums of squared deviations."""
        moments = numpy.empty(self._lengths.moments)
        scratch = numpy.empty(self._lengths.train_scratch)
        _library.call("moments", self._pointer, self._tensor("x", x), _slice(moments), _slice(scratch))
        return moments

    def finish(self, moments, *, running_mean=None, running_var=None, batches=None):
        """The statistics of a batch from the moments of all its parts. Updates the running statistics."""
        saved = self._new_saved()
        call = _library.CFinish(
            version=_library.ABI_VERSION, moments=_array("moments", moments, numpy.float64),
            **self._running(running_mean, running_var, True), batches=_counter(batches), **_saved(saved, True),
        )
        _library.call("finish", self._pointer, ctypes.byref(call))
        return saved

    def apply(self, x, saved, *, weight=None, bias=None, mask=None, residual=None, out=None):
        """The output of a part, with the statistics of the whole batch."""
        y = self._like(out)
        call = _library.CApply(
            version=_library.ABI_VERSION, **self._parameters(weight, bias), **_saved(saved),
            mask=_array("mask", mask, numpy.uint8), input=self._tensor("x", x), residual=self._tensor("residual", residual),
            output=self._tensor("out", y, True),
        )
        self._run("apply", call, self._lengths.eval_scratch)
        return y

    def reduce(self, grad, x, saved=None, *, running_mean=None, running_var=None, weight=None, bias=None, mask=None, residual=None):
        """The sums over a part that gradients are made of."""
        sums = numpy.empty(self._lengths.sums)
        call = _library.CReduce(
            version=_library.ABI_VERSION, **self._parameters(weight, bias), **self._statistics(saved, running_mean, running_var),
            mask=_array("mask", mask, numpy.uint8), input=self._tensor("x", x), residual=self._tensor("residual", residual),
            grad_output=self._tensor("grad", grad), sums=_slice(sums),
        )
        self._run("reduce", call, self._lengths.backward_scratch)
        return sums

    def finish_gradients(self, sums):
        """The gradients of weight and bias from the sums over the whole batch."""
        d_weight, d_bias = self._new_channels(), self._new_channels()
        _library.call("finish_gradients", self._pointer, _array("sums", sums, numpy.float64), _slice(d_weight), _slice(d_bias))
        return d_weight, d_bias

    def apply_gradient(self, grad, x, saved, sums, samples, *, weight=None, bias=None, mask=None, residual=None, out=None,
                       residual_gradient=False):
        """The gradients of the elements of a part. `samples` is the number of values per channel of the whole batch."""
        dx = self._like(out)
        d_residual = self._like(None) if residual_gradient else None
        call = _library.CApplyGradient(
            version=_library.ABI_VERSION, **self._parameters(weight, bias), **_saved(saved), samples=samples,
            sums=_array("sums", sums, numpy.float64), mask=_array("mask", mask, numpy.uint8), input=self._tensor("x", x),
            residual=self._tensor("residual", residual), grad_output=self._tensor("grad", grad),
            grad_input=self._tensor("out", dx, True), grad_residual=self._tensor("d_residual", d_residual, True),
        )
        self._run("apply_gradient", call, self._lengths.backward_scratch)
        return Gradients(dx, None, None, d_residual)

    def _run(self, name, call, scratch_len):
        # Of its own for each call, so that threads can share the layer.
        scratch = numpy.empty(scratch_len)
        call.scratch = _slice(scratch)
        _library.call(name, self._pointer, ctypes.byref(call))

    def _like(self, out):
        return numpy.empty(self.shape, numpy.float32) if out is None else out

    def _new_channels(self):
        return numpy.empty(self.channels, numpy.float32)

    def _new_saved(self):
        return Saved(self._new_channels(), self._new_channels(), numpy.empty(self.channels))

    def _tensor(self, name, array, written=False):
        slice_ = _floats(name, array, written)
        # As many elements in another order would not be an error in C.
        if array is not None and array.shape != self.shape:
            raise ValueError(f"{name} must have the shape {self.shape}, not {array.shape}")
        return slice_

    def _parameters(self, weight, bias):
        return {"weight": _floats("weight", weight), "bias": _floats("bias", bias)}

    def _running(self, mean, var, written=False):
        return {"running_mean": _floats("running_mean", mean, written), "running_var": _floats("running_var", var, written)}

    def _statistics(self, saved, running_mean, running_var):
        if (saved is None) == (running_mean is None):
            raise ValueError("give either saved, the statistics of the batch, or running_mean and running_var")
        if saved is None:
            return {"statistics": 1, **self._running(running_mean, running_var)}
        return {"statistics": 0, **_saved(saved)}


def _saved(saved, written=False):
    return {
        "saved_mean": _floats("saved.mean", saved.mean, written),
        "saved_mean_tail": _floats("saved.mean_tail", saved.mean_tail, written),
        "saved_inv_std": _array("saved.inv_std", saved.inv_std, numpy.float64, written),
    }


def _counter(batches):
    if batches is None:
        return None
    if batches.size != 1:
        raise ValueError(f"batches must be an array of one value, not of {batches.size}")
    return _array("batches", batches, numpy.uint64, True).values


def _product(sizes):
    product = 1
    for size in sizes:
        product *= size
    return product


def _size(size):
    if size >= 2**(8 * ctypes.sizeof(ctypes.c_size_t)):
        raise ValueError("the product of the dimensions does not fit a size_t")
    return size
