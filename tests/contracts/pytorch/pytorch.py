#!/usr/bin/env python3
"""Golden vectors for normdrop, made by running PyTorch on the CPU.

How to run it
-------------

    python -m venv venv
    venv/bin/pip install torch numpy
    venv/bin/python pytorch.py --output pytorch.json

Nothing but `torch` and `numpy` is needed, and no GPU.  The run takes some
seconds.  The versions of torch and numpy which made a file are written into
it (`torch`, `numpy`).  Random numbers come from a generator seeded with the
name of the case, so adding a case leaves the others as they were, and two runs
with the same versions on one machine give the same bytes.  The number of
threads is set to one and the instruction set to AVX2, since both change the
low bits of PyTorch's results; another machine may still differ in them.  The
known differences are asserted, so the script stops where they are not found
(on a CPU without fused multiply-add a constant 7.0 does normalise to 0, say).

What is in the file
-------------------

One object: `format` (the number 1), `torch`, `numpy`, `cpu_capability`,
`threads`, `cases`, `activations` and `known_differences`.

Floats are kept exactly:

* `*_bits`: f32 values as hexadecimal u32 bit patterns of eight digits, joined
  by spaces ("3f800000 bf000000").  Every NaN is written as 7fc00000.
* `*_f64`: f64 values as shortest decimals which read back exactly, joined by
  spaces; "nan", "inf" and "-inf" may occur.

The empty string is an empty array; null is a value which does not exist.
Arrays with one value per element are in memory order, that is [outer,
channels, inner] row-major; the others have one value per channel.

A case computes

    z = batch_norm(x)                     "statistics": "batch" or "fixed"
    z = batch_norm(x) + residual          if there is "residual_bits"
    a = activation(z)                     "activation": a name of ACTIVATIONS
    y = where(keep, a / keep_probability, 0)      if "keep_mask" is not null

and the gradients of sum(y * grad_output).  `keep_probability` is not 1 - p but
what normdrop has: round((1 - p) * 2^32) / 2^32; its reciprocal is `scale`
(null for p = 1, where y is all zeros and no division takes place).  In the few
cases where `dropout` is "multiply", y is that of torch.nn.functional.dropout,
i.e. a * (keep / keep_probability), which lets a dropped NaN through.

Some fields are only there where they say something.  `slope_bits` is the slope
of a leaky relu, which PyTorch was given as this f32 in both precisions.  With
`residual_bits` go `grad_residual_bits` and `grad_residual_f64`.  `granularity`
is "channel" where y is that of torch.nn.functional.dropout1d, dropout2d or
dropout3d, whichever has the dimensions of x, and "sample" where it is that of
`stochastic_depth` below; then `keep_mask` has one character per channel of a
sample, [n, channels], or per sample, as the zeros of the output show, and
`mask_bytes` are the same bits as numpy.packbits packs them, little end first,
in hexadecimal.

`statistics` is "batch" when the mean and variance are those of x, and "fixed"
when they are the running ones.  `mode` only says how a module would get there:
"train" (batch statistics), "eval" (fixed, no dropout, or batch if there are no
running statistics), "frozen" (fixed, dropout still on).

`momentum` is the setting of the module, with null for the cumulative average;
`momentum_used` is the number that PyTorch was given for the update, or null if
nothing was updated.  `sequence` names the run of successive batches to which a
case belongs (null for most) and `sequence_index` counts them from 1.

The `*_f64` fields of a case are the same calculation by PyTorch in float64,
from the same f32 inputs.  Those with one value per element are null in the
larger cases to keep the file small.  In float64 PyTorch is still not exact.

If PyTorch raised an exception the results are null and `error` holds its type
and message; it is null everywhere else.

`activations` has an object per activation with its values (`output`) and
derivatives (`derivative`, the gradient of a grad_output of 1) at the numbers
`input_bits`, in both precisions.  Each number fills a tensor of 64 elements, so
that the results are those of PyTorch's vector code.

`known_differences` lists behaviours of PyTorch which normdrop need not copy,
each observed during the run: `name`, `what` (prose), `cases` (names of cases
which show it; each of them lists the name under `known_differences` in turn)
and `observed` (strings by name; those ending in `_bits` and `_f64` as above,
the rest is for reading).
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import zlib
from dataclasses import dataclass
from typing import Callable, Optional

# Before torch is loaded: the instruction set decides the low bits.
os.environ.setdefault("ATEN_CPU_CAPABILITY", "avx2")

import numpy as np
import torch
import torch.nn.functional as F

FORMAT = 1
NAN = float("nan")
INF = float("inf")
CUT = 1 << 32

# Cases with more elements than this have no per-element float64 results.
F64_ELEMENTS = 280

# No input to an activation is nearer to one of its kinks than this (unless a
# case puts it there): else the gradient would depend on the last bit.
KINK_MARGIN = 1e-4

# The functions, given z and the slope of a leaky relu or the alpha of an ELU.
ACTIVATIONS = {
    "identity": lambda z, slope: z,
    "relu": lambda z, slope: F.relu(z),
    "relu6": lambda z, slope: F.relu6(z),
    "leaky_relu": F.leaky_relu,
    "hard_swish": lambda z, slope: F.hardswish(z),
    "sigmoid": lambda z, slope: torch.sigmoid(z),
    "tanh": lambda z, slope: torch.tanh(z),
    "silu": lambda z, slope: F.silu(z),
    "gelu_tanh": lambda z, slope: F.gelu(z, approximate="tanh"),
    "gelu": lambda z, slope: F.gelu(z),
    "elu": F.elu,
    "selu": lambda z, slope: F.selu(z),
    "mish": lambda z, slope: F.mish(z),
    "softplus": lambda z, slope: F.softplus(z),
}

# Where their derivatives jump.
KINKS = {
    "relu": (0.0,),
    "leaky_relu": (0.0,),
    "relu6": (0.0, 6.0),
    "hard_swish": (-3.0, 3.0),
    "elu": (0.0,),
    "selu": (0.0,),
}

# Those beside identity and relu: name in a case, activation, slope, and what
# the drawn weights and biases are multiplied by and biases have added, so that
# z is on all sides of the kinks.
OTHER_ACTIVATIONS = (
    ("relu6", "relu6", None, (3.0, 3.0)),
    ("leaky_relu_0.01", "leaky_relu", float(np.float32(0.01)), (1.0, 0.0)),
    ("leaky_relu_0.2", "leaky_relu", float(np.float32(0.2)), (1.0, 0.0)),
    ("hard_swish", "hard_swish", None, (3.0, 0.0)),
    ("sigmoid", "sigmoid", None, (2.0, 0.0)),
    ("tanh", "tanh", None, (2.0, 0.0)),
    ("silu", "silu", None, (2.0, 0.0)),
    ("gelu_tanh", "gelu_tanh", None, (2.0, 0.0)),
    ("gelu", "gelu", None, (2.0, 0.0)),
    ("elu_1", "elu", 1.0, (2.0, 0.0)),
    ("elu_0.7", "elu", float(np.float32(0.7)), (2.0, 0.0)),
    ("selu", "selu", None, (2.0, 0.0)),
    ("mish", "mish", None, (2.0, 0.0)),
    ("softplus", "softplus", None, (2.0, 0.0)),
)


# Writing numbers


def bits(values):
    """f32 values (array or tensor, any shape) as bit patterns; None stays."""
    if values is None:
        return None
    if isinstance(values, torch.Tensor):
        values = values.detach().numpy()
    values = np.array(values)
    assert values.dtype == np.float32, values.dtype
    words = values.reshape(-1).view(np.uint32)
    words[np.isnan(values.reshape(-1))] = 0x7FC00000
    return " ".join(f"{word:08x}" for word in words)


def doubles(values):
    """f64 values as shortest decimals; None stays."""
    if values is None:
        return None
    if isinstance(values, torch.Tensor):
        values = values.detach().numpy()
    values = np.asarray(values)
    assert values.dtype == np.float64, values.dtype
    return " ".join(repr(value) for value in values.reshape(-1).tolist())


def same(a, b):
    """Whether two f32 tensors have the same bits, all NaNs being alike."""
    return bits(a) == bits(b)


# Layouts


def to_torch(layout, array):
    """The tensor with channels second, as PyTorch wants it, of an array in
    memory order.  Channels-last arrays are permuted, not copied."""
    tensor = torch.from_numpy(array)
    if layout == "NHWC":
        tensor = tensor.permute(0, 3, 1, 2)
    return tensor


def to_memory(layout, tensor):
    """The reverse of `to_torch`, as a tensor contiguous in memory order."""
    if layout == "NHWC":
        tensor = tensor.permute(0, 2, 3, 1)
    return tensor.detach().contiguous()


# Cases


@dataclass
class Case:
    """What a case asks for.  `dims` are the dimensions in memory order."""

    name: str
    layout: str
    dims: tuple
    mode: str = "train"
    activation: str = "identity"
    p: Optional[float] = None  # None: no dropout
    eps: float = 1e-5
    momentum: Optional[float] = 0.1
    momentum_used: Optional[float] = None  # None: `momentum`
    weight: bool = True
    bias: bool = True
    tracked: bool = True
    dropout: str = "where"
    # "channel" and "sample" need dropout "multiply".
    granularity: str = "element"
    slope: Optional[float] = None
    residual: bool = False
    # What weights and biases are multiplied by, and what biases have added.
    affine: tuple = (1.0, 0.0)
    # Changes the inputs in place once they are drawn.
    edit: Optional[Callable] = None
    # Overrides the drawn running statistics.
    running: Optional[tuple] = None
    sequence: Optional[str] = None
    sequence_index: Optional[int] = None
    known: tuple = ()

    @property
    def shape(self):
        """(outer, channels, inner)"""
        if self.layout == "NHWC":
            return (int(np.prod(self.dims[:3])), self.dims[3], 1)
        return (self.dims[0], self.dims[1], int(np.prod(self.dims[2:])))

    @property
    def statistics(self):
        return "batch" if self.mode == "train" or not self.tracked else "fixed"

    @property
    def keep_probability(self):
        return None if self.p is None else round((1.0 - self.p) * CUT) / CUT

    @property
    def update(self):
        """The momentum with which the running statistics are updated."""
        if self.statistics == "fixed" or not self.tracked:
            return None
        return self.momentum if self.momentum_used is None else self.momentum_used


@dataclass
class Inputs:
    """Drawn f32 arrays: x, grad, mask and residual with the dims of the case,
    the others with one value per channel."""

    x: np.ndarray
    grad: np.ndarray
    mask: Optional[np.ndarray]
    weight: Optional[np.ndarray]
    bias: Optional[np.ndarray]
    mean: Optional[np.ndarray]
    var: Optional[np.ndarray]
    residual: Optional[np.ndarray]


@dataclass
class Results:
    """Tensors in memory order, or None where there is nothing."""

    y: torch.Tensor
    z: torch.Tensor
    saved_mean: Optional[torch.Tensor]
    saved_inv_std: Optional[torch.Tensor]
    mean: Optional[torch.Tensor]
    var: Optional[torch.Tensor]
    grad_input: torch.Tensor
    grad_weight: Optional[torch.Tensor]
    grad_bias: Optional[torch.Tensor]
    grad_residual: Optional[torch.Tensor]


def stochastic_depth(x, p):
    """torchvision.ops.stochastic_depth(x, p, mode="row"): drops samples."""
    survival = 1.0 - p
    noise = torch.empty([x.shape[0]] + [1] * (x.ndim - 1), dtype=x.dtype).bernoulli_(survival)
    if survival > 0.0:
        noise.div_(survival)
    return x * noise


def real_dropout(case, x):
    """What PyTorch itself makes of x in a "multiply" case.  The case decides
    the seed, so the mask is always the same one."""
    torch.manual_seed(zlib.crc32(case.name.encode()))
    if case.granularity == "element":
        return F.dropout(x, case.p, training=True)
    if case.granularity == "sample":
        return stochastic_depth(x, case.p)
    by_dimensions = {3: F.dropout1d, 4: F.dropout2d, 5: F.dropout3d}
    return by_dimensions[x.ndim](x, case.p, training=True)


def real_dropout_mask(case):
    """The mask of that, one value per element."""
    ones = to_torch(case.layout, np.ones(case.dims, np.float32))
    return to_memory(case.layout, real_dropout(case, ones) != 0).numpy()


def mask_of_granules(case, mask):
    """The mask with one value per channel of a sample or per sample."""
    if case.granularity == "element":
        return mask
    # In PyTorch's order, since the positions of a sample may be before its
    # channels in memory.
    kept = to_torch(case.layout, mask).numpy()
    first = (0,) * (kept.ndim - (2 if case.granularity == "channel" else 1))
    granules = kept[(...,) + first]
    assert (kept == granules.reshape(granules.shape + (1,) * len(first))).all(), case.name
    assert case.p == 1.0 or 0 < granules.sum() < granules.size, case.name
    return granules


def draw(case):
    """Inputs for the case, from its name alone."""
    channels = case.shape[1]
    per_channel = (channels, 1) if case.layout != "NHWC" else (channels,)
    for salt in range(1000):
        random = np.random.Generator(np.random.PCG64([zlib.crc32(case.name.encode()), salt]))

        def normal(shape, scale=1.0, offset=0.0):
            return (random.standard_normal(shape) * scale + offset).astype(np.float32)

        # Each channel has its own offset and spread.
        x = random.standard_normal(case.dims)
        offset = random.uniform(-1.0, 1.0, per_channel)
        spread = random.uniform(0.5, 2.0, per_channel)
        flat = x if case.layout == "NHWC" else x.reshape(case.shape)
        x = (flat * spread + offset).reshape(case.dims).astype(np.float32)
        grad = normal(case.dims)
        weight, bias = normal(channels, 0.5, 1.0), normal(channels, 0.5)
        mean = normal(channels, 0.5)
        var = random.uniform(0.5, 2.0, channels).astype(np.float32)
        keep = None
        if case.p is not None:
            keep = random.random(case.dims) >= case.p
            if case.dropout == "multiply":
                keep = real_dropout_mask(case)
        if case.running is not None:
            mean, var = (np.array(v, np.float32) for v in case.running)
        factor, shift = (np.float32(value) for value in case.affine)
        weight, bias = weight * factor, bias * factor + shift
        residual = normal(case.dims) if case.residual else None
        inputs = Inputs(
            x,
            grad,
            keep,
            weight if case.weight else None,
            bias if case.bias else None,
            mean if case.tracked else None,
            var if case.tracked else None,
            residual,
        )
        if case.edit is not None:
            case.edit(case, inputs)
            return inputs
        raises = case.statistics == "batch" and x.size == channels
        kinks = KINKS.get(case.activation, ())
        if x.size == 0 or raises or not kinks:
            return inputs
        z = run(case, inputs, torch.float64).z
        if all((z - kink).abs().min() > KINK_MARGIN for kink in kinks):
            return inputs
    raise RuntimeError(f"{case.name}: no inputs far enough from the kinks")


def run(case, inputs, dtype):
    """Runs PyTorch on the inputs in the given type."""

    def tensor(array):
        return None if array is None else torch.from_numpy(array).to(dtype)

    def leaf(array):
        return None if array is None else tensor(array).clone().requires_grad_()

    batch = case.statistics == "batch"
    momentum = 0.0 if case.update is None else case.update
    x = to_torch(case.layout, inputs.x).to(dtype).detach().requires_grad_()
    weight, bias = leaf(inputs.weight), leaf(inputs.bias)
    mean, var = tensor(inputs.mean), tensor(inputs.var)
    # Tensors which share memory with the inputs must not be updated.
    mean, var = (None if v is None else v.clone() for v in (mean, var))

    z = F.batch_norm(x, mean, var, weight, bias, batch, momentum, case.eps)

    saved_mean = saved_inv_std = None
    if batch and x.numel() != 0:
        again, saved_mean, saved_inv_std = torch.native_batch_norm(
            x.detach(),
            None if weight is None else weight.detach(),
            None if bias is None else bias.detach(),
            None,
            None,
            True,
            momentum,
            case.eps,
        )
        if dtype == torch.float32:
            assert same(again, z), case.name

    residual = None
    if inputs.residual is not None:
        residual = to_torch(case.layout, inputs.residual).to(dtype).detach().requires_grad_()
        z = z + residual
    a = ACTIVATIONS[case.activation](z, case.slope)
    y = a
    if case.p is not None:
        keep = to_torch(case.layout, inputs.mask)
        keep_probability = case.keep_probability
        if case.dropout == "where":
            # 1.0 for p = 1: nothing is kept, and 0 / 0 would reach the
            # gradients.
            kept = a / (keep_probability or 1.0)
            y = torch.where(keep, kept, torch.zeros((), dtype=dtype))
        else:
            y = a * (keep.to(dtype) / (keep_probability or 1.0))
            if dtype == torch.float32:
                real = real_dropout(case, a)
                assert same(real, y), case.name
                y = real

    grad = to_torch(case.layout, inputs.grad).to(dtype)
    y.backward(grad)

    return Results(
        to_memory(case.layout, y),
        to_memory(case.layout, z),
        saved_mean,
        saved_inv_std,
        mean,
        var,
        to_memory(case.layout, x.grad),
        None if weight is None else weight.grad,
        None if bias is None else bias.grad,
        None if residual is None else to_memory(case.layout, residual.grad),
    )


def record(case, inputs=None):
    """The JSON object of a case, and its results (None if torch raised)."""
    if inputs is None:
        inputs = draw(case)
    before = bits(inputs.mean), bits(inputs.var)
    error = results = exact = None
    try:
        results = run(case, inputs, torch.float32)
        exact = run(case, inputs, torch.float64)
    except (ValueError, RuntimeError) as raised:
        error = f"{type(raised).__name__}: {raised}"
    assert before == (bits(inputs.mean), bits(inputs.var)), case.name

    def single(name):
        return None if results is None else bits(getattr(results, name))

    def double(name, per_element=False):
        if exact is None or (per_element and inputs.x.size > F64_ELEMENTS):
            return None
        return doubles(getattr(exact, name))

    if case.update is None and results is not None:
        assert before == (single("mean"), single("var")), case.name

    outer, channels, inner = case.shape
    keep = case.keep_probability
    mask = None if inputs.mask is None else mask_of_granules(case, inputs.mask)
    recorded = {
        "name": case.name,
        "mode": case.mode,
        "shape": {
            "outer": outer,
            "channels": channels,
            "inner": inner,
            "layout": case.layout,
            "dims": list(case.dims),
        },
        "eps": case.eps,
        "momentum": case.momentum,
        "momentum_used": case.update,
        "sequence": case.sequence,
        "sequence_index": case.sequence_index,
        "statistics": case.statistics,
        "activation": case.activation,
        "dropout": "off" if case.p is None else case.dropout,
        "p": 0.0 if case.p is None else case.p,
        "keep_probability": 1.0 if keep is None else keep,
        "scale": 1.0 if keep is None else (1.0 / keep if keep else None),
        "keep_mask": (
            None if mask is None else "".join("1" if k else "0" for k in mask.reshape(-1))
        ),
        "known_differences": list(case.known),
        "error": error,
        "weight_bits": bits(inputs.weight),
        "bias_bits": bits(inputs.bias),
        "running_mean_before_bits": before[0],
        "running_var_before_bits": before[1],
        "running_mean_after_bits": single("mean"),
        "running_var_after_bits": single("var"),
        "input_bits": bits(inputs.x),
        "grad_output_bits": bits(inputs.grad),
        "output_bits": single("y"),
        "saved_mean_bits": single("saved_mean"),
        "saved_inv_std_bits": single("saved_inv_std"),
        "grad_input_bits": single("grad_input"),
        "grad_weight_bits": single("grad_weight"),
        "grad_bias_bits": single("grad_bias"),
        "output_f64": double("y", True),
        "saved_mean_f64": double("saved_mean"),
        "saved_inv_std_f64": double("saved_inv_std"),
        "running_mean_after_f64": double("mean"),
        "running_var_after_f64": double("var"),
        "grad_input_f64": double("grad_input", True),
        "grad_weight_f64": double("grad_weight"),
        "grad_bias_f64": double("grad_bias"),
    }
    if case.slope is not None:
        recorded["slope_bits"] = bits(np.float32(case.slope))
    if case.residual:
        recorded["residual_bits"] = bits(inputs.residual)
        recorded["grad_residual_bits"] = single("grad_residual")
        recorded["grad_residual_f64"] = double("grad_residual", True)
    if case.granularity != "element":
        recorded["granularity"] = case.granularity
        recorded["mask_bytes"] = np.packbits(mask.reshape(-1), bitorder="little").tobytes().hex()
    return recorded, results


# Edits


def channel(case, array, index):
    """A view of one channel, of shape (outer, inner)."""
    view = array.reshape(case.shape)[:, index, :]
    assert np.shares_memory(view, array)
    return view


def put(index, value, where=(0, 0)):
    """Puts a value at one place of one channel of x."""

    def edit(case, inputs):
        channel(case, inputs.x, index)[where] = value

    return edit


def fill(*values):
    """Fills the first channels of x with constants."""

    def edit(case, inputs):
        for index, value in enumerate(values):
            channel(case, inputs.x, index)[...] = value

    return edit


def transform(function):
    """Applies a function to x, in float64."""

    def edit(case, inputs):
        inputs.x[...] = function(inputs.x.astype(np.float64)).astype(np.float32)

    return edit


def together(*edits):
    def edit(case, inputs):
        for each in edits:
            each(case, inputs)

    return edit


def put_running(index, mean, var):
    """Puts running statistics into one channel."""

    def edit(case, inputs):
        inputs.mean[index], inputs.var[index] = mean, var

    return edit


def zero_weight(index):
    """A channel whose weight and bias are zero: z is zero."""

    def edit(case, inputs):
        inputs.weight[index] = inputs.bias[index] = 0.0

    return edit


def by_keep(array, kept, dropped):
    """Puts the values of `kept` at the first elements in memory which are kept,
    and those of `dropped` at the first which are dropped.  `array` is the name
    of a field of the inputs."""

    def edit(case, inputs):
        target = getattr(inputs, array).reshape(-1)
        mask = inputs.mask.reshape(-1)
        for state, values in ((True, kept), (False, dropped)):
            places = np.flatnonzero(mask == state)[: len(values)]
            assert len(places) == len(values), case.name
            target[places] = values

    return edit


NONFINITE = (NAN, INF, -INF)


def cases():
    """All cases but the cumulative averages."""
    relu = {"activation": "relu"}

    # Batch statistics, no dropout.
    yield Case("train_nc_2x1", "NC", (2, 1))
    yield Case("train_nc_5x3_relu", "NC", (5, 3), **relu)
    yield Case("train_nc_33x16", "NC", (33, 16))
    yield Case("train_nc_17x17_relu", "NC", (17, 17), **relu)
    yield Case("train_nc_32x17", "NC", (32, 17))
    yield Case("train_ncl_8x3x4", "NCL", (8, 3, 4))
    yield Case("train_ncl_3x1x50_relu", "NCL", (3, 1, 50), **relu)
    yield Case("train_ncl_2x17x4_relu", "NCL", (2, 17, 4), **relu)
    yield Case("train_ncl_1x16x50", "NCL", (1, 16, 50))
    yield Case("train_nchw_3x16x2x2", "NCHW", (3, 16, 2, 2))
    yield Case("train_nchw_2x1x7x7", "NCHW", (2, 1, 7, 7))
    yield Case("train_nchw_2x3x7x7_relu", "NCHW", (2, 3, 7, 7), **relu)
    yield Case("train_nchw_2x3x5x10", "NCHW", (2, 3, 5, 10))
    yield Case("train_nhwc_2x4x4x3_relu", "NHWC", (2, 4, 4, 3), **relu)
    yield Case("train_nhwc_1x3x11x16", "NHWC", (1, 3, 11, 16))
    yield Case("train_nhwc_2x2x2x17", "NHWC", (2, 2, 2, 17))
    yield Case("train_nhwc_2x3x3x1", "NHWC", (2, 3, 3, 1))
    yield Case("train_eps_1e-3", "NC", (9, 3), eps=1e-3)
    yield Case("train_zero_weight_relu", "NC", (9, 3), edit=zero_weight(1), **relu)

    # Batch statistics, dropout.
    yield Case("train_nc_33x3_p0.1_relu", "NC", (33, 3), p=0.1, **relu)
    yield Case("train_nc_16x17_p0.5", "NC", (16, 17), p=0.5)
    yield Case("train_nc_4x16_p0.1", "NC", (4, 16), p=0.1)
    yield Case("train_ncl_3x16x4_p0.1_relu", "NCL", (3, 16, 4), p=0.1, **relu)
    yield Case("train_ncl_4x1x50_p0.5_relu", "NCL", (4, 1, 50), p=0.5, **relu)
    yield Case("train_nchw_2x3x7x7_p0.5_relu", "NCHW", (2, 3, 7, 7), p=0.5, **relu)
    yield Case("train_nchw_2x17x2x2_p0.1", "NCHW", (2, 17, 2, 2), p=0.1)
    yield Case("train_nchw_2x17x7x7_p0.1_relu", "NCHW", (2, 17, 7, 7), p=0.1, **relu)
    yield Case("train_nhwc_2x3x3x16_p0.5_relu", "NHWC", (2, 3, 3, 16), p=0.5, **relu)
    yield Case("train_nhwc_1x4x4x17_p0.1", "NHWC", (1, 4, 4, 17), p=0.1)

    # Fixed statistics, no dropout.
    fixed = {"mode": "eval"}
    yield Case("eval_nc_2x17", "NC", (2, 17), **fixed)
    yield Case("eval_nc_1x3_relu", "NC", (1, 3), **fixed, **relu)
    yield Case("eval_nc_33x3_relu", "NC", (33, 3), **fixed, **relu)
    yield Case("eval_ncl_2x3x50_relu", "NCL", (2, 3, 50), **fixed, **relu)
    yield Case("eval_ncl_3x16x4", "NCL", (3, 16, 4), **fixed)
    yield Case("eval_nchw_2x3x7x7", "NCHW", (2, 3, 7, 7), **fixed)
    yield Case("eval_nhwc_2x2x2x16_relu", "NHWC", (2, 2, 2, 16), **fixed, **relu)
    yield Case("eval_nhwc_1x3x3x17", "NHWC", (1, 3, 3, 17), **fixed)

    # Fixed statistics, dropout and gradients.
    frozen = {"mode": "frozen"}
    yield Case("frozen_nc_17x3_p0.5_relu", "NC", (17, 3), p=0.5, **frozen, **relu)
    yield Case("frozen_nc_3x16_p0.1", "NC", (3, 16), p=0.1, **frozen)
    yield Case("frozen_ncl_2x17x4_p0.1_relu", "NCL", (2, 17, 4), p=0.1, **frozen, **relu)
    yield Case("frozen_ncl_3x1x50_p0.5", "NCL", (3, 1, 50), p=0.5, **frozen)
    yield Case("frozen_nchw_2x3x7x7_p0.5_relu", "NCHW", (2, 3, 7, 7), p=0.5, **frozen, **relu)
    yield Case("frozen_nhwc_2x2x2x17_p0.1_relu", "NHWC", (2, 2, 2, 17), p=0.1, **frozen, **relu)

    # With and without weight, bias and running statistics.
    for affine, weight, bias in (
        ("weight_only", True, False),
        ("bias_only", False, True),
        ("neither", False, False),
    ):
        some = {"weight": weight, "bias": bias}
        yield Case(f"train_{affine}", "NC", (8, 3), **some)
        yield Case(f"train_{affine}_p0.5_relu", "NCL", (3, 3, 4), p=0.5, **some, **relu)
        yield Case(f"train_{affine}_nhwc_relu", "NHWC", (2, 2, 2, 3), **some, **relu)
        yield Case(f"eval_{affine}_relu", "NC", (4, 3), **fixed, **some, **relu)
        yield Case(f"frozen_{affine}_p0.5", "NCL", (2, 3, 4), p=0.5, **frozen, **some)
    yield Case("train_untracked", "NC", (8, 3), tracked=False)
    yield Case("train_untracked_p0.5_relu", "NCHW", (2, 3, 2, 2), p=0.5, tracked=False, **relu)
    yield Case("eval_untracked", "NCL", (3, 3, 4), mode="eval", tracked=False)
    yield Case("train_untracked_neither", "NC", (5, 17), tracked=False, weight=False, bias=False)

    # Momentum; it is 0.1 elsewhere.
    for momentum in (0.0, 1.0, 0.25):
        yield Case(f"momentum_{momentum}", "NC", (6, 3), momentum=momentum)
        yield Case(f"momentum_{momentum}_nchw", "NCHW", (2, 3, 2, 2), momentum=momentum)
    poisoned = ("running_statistics_poisoned",)
    for momentum in (0.0, 1.0):
        yield Case(
            f"momentum_{momentum}_nan_running",
            "NC",
            (6, 3),
            momentum=momentum,
            edit=together(put_running(1, NAN, NAN), put_running(2, INF, INF)),
            known=poisoned if momentum == 1.0 else (),
        )
        yield Case(
            f"momentum_{momentum}_nan_batch",
            "NC",
            (6, 3),
            momentum=momentum,
            edit=together(put(1, NAN), put(2, INF)),
            known=poisoned if momentum == 0.0 else (),
        )

    # Dropout at the ends.
    yield Case("p0_train_relu", "NC", (6, 3), p=0.0, **relu)
    yield Case("p0_frozen", "NCL", (2, 3, 4), p=0.0, **frozen)
    yield Case("p1_train_relu", "NC", (6, 3), p=1.0, **relu, known=("dropout_p1",))
    yield Case("p1_train_nchw", "NCHW", (2, 3, 2, 2), p=1.0, known=("dropout_p1",))
    yield Case("p1_frozen", "NCL", (2, 3, 4), p=1.0, **frozen, known=("dropout_p1",))
    yield Case(
        "p1_frozen_nonfinite_input",
        "NC",
        (6, 3),
        p=1.0,
        **frozen,
        edit=together(put(0, NAN), put(1, INF)),
        known=("dropout_p1", "zero_gradient_times_nan"),
    )

    # Nothing.
    empty = ("empty_input",)
    yield Case("empty_train_nc", "NC", (0, 3), known=empty)
    yield Case("empty_train_ncl_p0.5_relu", "NCL", (0, 3, 4), p=0.5, **relu, known=empty)
    yield Case("empty_train_nhwc", "NHWC", (0, 2, 2, 3), known=empty)
    yield Case("empty_train_inner", "NCL", (2, 3, 0), known=empty)
    yield Case("empty_eval_nchw", "NCHW", (0, 3, 2, 2), **fixed, known=empty)

    # NaN and infinity in one channel.
    for layout, dims in (
        ("NC", (9, 17)),
        ("NCL", (2, 3, 50)),
        ("NCHW", (2, 3, 2, 2)),
        ("NHWC", (2, 2, 2, 17)),
    ):
        low = layout.lower()
        yield Case(f"nan_channel_{low}", layout, dims, edit=put(1, NAN))
        yield Case(f"inf_channel_{low}", layout, dims, edit=put(1, INF))
    yield Case("minus_inf_channel_nc", "NC", (9, 3), edit=put(1, -INF))
    yield Case("nan_channel_p0.5_relu", "NC", (9, 3), p=0.5, **relu, edit=put(1, NAN))
    both = together(put(0, NAN), put(1, INF), put(2, -INF))
    gate = ("relu_gradient_at_nan",)
    yield Case("nan_train_relu", "NC", (9, 3), edit=put(1, NAN), **relu, known=gate)
    yield Case("nonfinite_eval", "NC", (4, 3), **fixed, edit=both)
    yield Case("nonfinite_eval_relu", "NC", (4, 3), **fixed, **relu, edit=both, known=gate)
    yield Case("nonfinite_eval_ncl_relu", "NCL", (2, 3, 4), **fixed, **relu, edit=both, known=gate)
    yield Case("nan_running_eval", "NC", (4, 3), **fixed, edit=put_running(1, NAN, 1.0))
    dropped = ("zero_gradient_times_nan",)
    yield Case(
        "nonfinite_frozen_p0.5",
        "NCL",
        (2, 3, 4),
        p=0.5,
        **frozen,
        edit=by_keep("x", NONFINITE, NONFINITE),
        known=dropped,
    )
    yield Case(
        "nonfinite_frozen_p0.5_relu",
        "NCL",
        (2, 3, 4),
        p=0.5,
        **frozen,
        **relu,
        edit=by_keep("x", NONFINITE, NONFINITE),
        known=dropped + gate,
    )
    yield Case(
        "nonfinite_gradient_dropped_p0.5",
        "NC",
        (8, 3),
        p=0.5,
        edit=by_keep("grad", (), NONFINITE),
    )

    # What torch.nn.functional.dropout really does: multiply.
    multiplied = ("dropout_multiplies",)
    yield Case("multiply_train_p0.5_relu", "NC", (8, 3), p=0.5, dropout="multiply", **relu)
    yield Case(
        "multiply_nonfinite_frozen_p0.5",
        "NCL",
        (2, 3, 4),
        p=0.5,
        dropout="multiply",
        **frozen,
        edit=by_keep("x", NONFINITE, NONFINITE),
        known=multiplied + dropped,
    )
    yield Case(
        "multiply_nan_channel_train_p0.5",
        "NC",
        (8, 3),
        p=0.5,
        dropout="multiply",
        edit=put(1, NAN),
        known=multiplied,
    )
    yield Case(
        "multiply_nonfinite_gradient_frozen_p0.5",
        "NC",
        (8, 3),
        p=0.5,
        dropout="multiply",
        **frozen,
        edit=by_keep("grad", (), NONFINITE),
        known=multiplied,
    )

    # Data for which the variance is hard.
    offset = {"edit": transform(lambda x: x + 1e3), "known": ("mean_summed_in_f32",)}
    yield Case("offset_1e3_nc", "NC", (33, 3), **offset)
    yield Case("offset_1e3_ncl", "NCL", (3, 1, 50), **offset)
    yield Case("offset_1e3_nchw", "NCHW", (2, 2, 7, 7), **offset)
    yield Case("offset_1e3_nhwc", "NHWC", (2, 4, 4, 3), **offset)
    yield Case("offset_1e3_p0.5", "NC", (32, 3), p=0.5, **offset)
    constant = {"edit": fill(7.0, 0.1), "known": ("constant_channel_not_zero",)}
    yield Case("constant_nc", "NC", (32, 3), **constant)
    yield Case("constant_ncl", "NCL", (1, 3, 50), **constant)
    yield Case("constant_nchw_relu", "NCHW", (2, 3, 2, 2), **relu, **constant)
    yield Case("constant_nhwc", "NHWC", (2, 4, 4, 3), **constant)
    plain = {"weight": False, "bias": False}
    yield Case("constant_neither", "NC", (8, 3), **plain, **constant)
    large = {"edit": transform(lambda x: x * 1e30), "known": ("variance_overflows",)}
    yield Case("large_1e30_nc", "NC", (8, 3), **large)
    yield Case("large_1e30_nchw", "NCHW", (2, 3, 2, 2), **large)
    yield Case("large_1e30_nhwc", "NHWC", (2, 2, 2, 3), **large)
    huge = {
        "edit": transform(lambda x: 3e38 + 3e37 * np.tanh(x)),
        "known": ("sum_overflows",),
    }
    yield Case("large_3e38_nc", "NC", (8, 3), **huge)
    yield Case("large_3e38_nchw", "NCHW", (2, 3, 2, 2), **huge)

    # One value per channel.
    one = ("single_value_per_channel",)
    yield Case("single_value_nc", "NC", (1, 3), known=one)
    yield Case("single_value_nchw", "NCHW", (1, 3, 1, 1), known=one)
    yield Case("single_value_p0.5_relu", "NC", (1, 3), p=0.5, **relu, known=one)

    # The other activations.
    for name, activation, slope, affine in OTHER_ACTIVATIONS:
        other = {"activation": activation, "slope": slope, "affine": affine}
        yield Case(f"train_nc_6x17_{name}", "NC", (6, 17), **other)
        yield Case(f"train_nchw_2x2x4x5_p0.5_{name}", "NCHW", (2, 2, 4, 5), p=0.5, **other)
        yield Case(f"eval_nc_5x3_{name}", "NC", (5, 3), **fixed, **other)
        yield Case(
            f"frozen_nchw_2x3x2x2_p0.5_{name}", "NCHW", (2, 3, 2, 2), p=0.5, **frozen, **other
        )

    # Something added before the activation.
    added = {"residual": True}
    yield Case("residual_train_nc_relu", "NC", (9, 3), **added, **relu)
    yield Case("residual_train_nchw", "NCHW", (2, 3, 4, 5), **added)
    yield Case("residual_train_nchw_p0.5_relu", "NCHW", (2, 3, 3, 3), p=0.5, **added, **relu)
    yield Case("residual_train_nhwc_p0.1", "NHWC", (2, 2, 2, 17), p=0.1, **added)
    yield Case("residual_train_neither_relu", "NCL", (3, 3, 4), **added, **plain, **relu)
    yield Case("residual_eval_nc_relu", "NC", (5, 3), **fixed, **added, **relu)
    yield Case("residual_eval_nchw", "NCHW", (2, 3, 2, 2), **fixed, **added)
    yield Case(
        "residual_frozen_nchw_p0.5_relu", "NCHW", (2, 2, 5, 5), p=0.5, **frozen, **added, **relu
    )
    yield Case("residual_frozen_nc_p0.1", "NC", (6, 3), p=0.1, **frozen, **added)
    yield Case(
        "residual_nonfinite_frozen_p0.5_relu",
        "NCL",
        (2, 3, 4),
        p=0.5,
        **frozen,
        **added,
        **relu,
        edit=by_keep("residual", NONFINITE, NONFINITE),
        known=gate,
    )

    # Dropout of whole channels, and of whole samples.
    channels = {"dropout": "multiply", "granularity": "channel"}
    yield Case("dropout1d_train_ncl_p0.5_relu", "NCL", (4, 3, 5), p=0.5, **channels, **relu)
    yield Case("dropout1d_frozen_ncl_p0.25", "NCL", (4, 3, 5), p=0.25, **frozen, **channels)
    yield Case("dropout2d_train_nchw_p0.5_relu", "NCHW", (3, 3, 5, 5), p=0.5, **channels, **relu)
    yield Case("dropout2d_train_nhwc_p0.25", "NHWC", (4, 2, 2, 3), p=0.25, **channels)
    yield Case(
        "dropout2d_frozen_nhwc_p0.5_relu",
        "NHWC",
        (3, 2, 3, 5),
        p=0.5,
        **frozen,
        **channels,
        **relu,
    )
    yield Case(
        "dropout2d_residual_train_nchw_p0.5_relu",
        "NCHW",
        (4, 3, 2, 2),
        p=0.5,
        **channels,
        **added,
        **relu,
    )
    yield Case(
        "dropout2d_nonfinite_frozen_nchw_p0.5",
        "NCHW",
        (4, 3, 2, 2),
        p=0.5,
        **frozen,
        **channels,
        edit=by_keep("x", NONFINITE, NONFINITE),
        known=multiplied + dropped,
    )
    yield Case(
        "dropout3d_train_ncdhw_p0.25_relu", "NCDHW", (3, 3, 2, 3, 3), p=0.25, **channels, **relu
    )
    samples = {"dropout": "multiply", "granularity": "sample"}
    yield Case("drop_path_train_nc_p0.5", "NC", (9, 3), p=0.5, **samples)
    yield Case("drop_path_train_nchw_p0.25_relu", "NCHW", (5, 2, 5, 5), p=0.25, **samples, **relu)
    yield Case("drop_path_train_nhwc_p0.5_relu", "NHWC", (6, 2, 2, 3), p=0.5, **samples, **relu)
    yield Case("drop_path_frozen_ncl_p0.25", "NCL", (5, 3, 4), p=0.25, **frozen, **samples)
    yield Case(
        "drop_path_p1_train_nchw", "NCHW", (3, 3, 2, 2), p=1.0, **samples, known=("dropout_p1",)
    )


def cumulative():
    """Three batches with momentum=None, next to the module itself."""
    channels = 3
    module = torch.nn.BatchNorm1d(channels, momentum=None)
    running = (np.zeros(channels), np.ones(channels))
    for k in (1, 2, 3):
        case = Case(
            f"cumulative_{k}_of_3",
            "NC",
            (4 + k, channels),
            momentum=None,
            momentum_used=1.0 / k,
            running=running,
            sequence="cumulative",
            sequence_index=k,
        )
        inputs = draw(case)
        recorded, results = record(case, inputs)
        module(torch.from_numpy(inputs.x))
        assert int(module.num_batches_tracked) == k
        assert same(module.running_mean, results.mean)
        assert same(module.running_var, results.var)
        running = (results.mean.numpy(), results.var.numpy())
        yield recorded


def check_other_channels():
    """A NaN or infinity in one channel leaves the others alone: the same
    inputs with a finite value in its place give the same bits there."""
    for case in cases():
        if not case.name.startswith(("nan_channel", "inf_channel")):
            continue
        inputs = draw(case)
        spoilt = run(case, inputs, torch.float32)
        channel(case, inputs.x, 1)[0, 0] = 1.0
        whole = run(case, inputs, torch.float32)
        others = [c for c in range(case.shape[1]) if c != 1]
        for name in ("y", "grad_input"):
            a, b = (
                getattr(r, name).numpy().reshape(case.shape)[:, others, :] for r in (spoilt, whole)
            )
            assert bits(a) == bits(b), (case.name, name)
        for name in ("mean", "var", "saved_mean", "saved_inv_std", "grad_weight", "grad_bias"):
            a, b = (getattr(r, name).numpy()[others] for r in (spoilt, whole))
            assert bits(a) == bits(b), (case.name, name)


# Single values


def values_and_derivatives(name, slope, x):
    """An activation and its derivative at each element of x."""
    leaf = x.clone().requires_grad_()
    y = ACTIVATIONS[name](leaf, slope)
    y.backward(torch.ones_like(y))
    return y.detach(), leaf.grad


# Numbers at, next to and between the kinks, and on the way to infinity.
POINTS = (
    [0.0, 1e-45, 1e-40, 2.0**-126, 1e-20, 1e-3, 0.1, 0.5, 1.0, 1.5, 2.0, 2.5]
    + [3.0 - 2.0**-22, 3.0, 3.0 + 2.0**-22, 4.0, 5.0]
    + [6.0 - 2.0**-21, 6.0, 6.0 + 2.0**-21, 8.0, 10.0, 15.0, 20.0, 50.0, 88.0, 90.0, 100.0, 104.0]
    + [1e4, 1e10, 1e20, 1e30, 3.4e38, INF]
)
POINTS = np.array([sign * point for point in POINTS for sign in (1.0, -1.0)] + [NAN], np.float32)


def activations():
    """The table of every activation but the identity."""
    x = torch.from_numpy(POINTS)
    for name, activation, slope, _ in (("relu", "relu", None, ()),) + OTHER_ACTIVATIONS:
        table = {
            "name": name,
            "activation": activation,
            "slope_bits": None if slope is None else bits(np.float32(slope)),
            "input_bits": bits(x),
        }
        for write, suffix, points in ((bits, "bits", x), (doubles, "f64", x.double())):
            repeated = values_and_derivatives(activation, slope, points.repeat_interleave(64))
            for field, values in zip(("output", "derivative"), repeated):
                rows = values.reshape(-1, 64)
                assert all(same(row.float(), row[:1].float().expand(64)) for row in rows), name
                table[f"{field}_{suffix}"] = write(rows[:, 0].contiguous())
        yield table


# Known differences


def f32(*values):
    return torch.tensor(values, dtype=torch.float32)


def normalise(x):
    """native_batch_norm of x with its own statistics, nothing else."""
    return torch.native_batch_norm(x, None, None, None, None, True, 0.1, 1e-5)


def number(value):
    return repr(float(value))


HASH_FORMULA = (
    "x[i] = f32(offset + 3.4641016151377544 * "
    "((i * 2654435761 mod 2^32) / 2^32 - 0.5)), i the index in memory"
)


def hashed(shape, offset):
    """Data of HASH_FORMULA: standard deviation about 1, easily made again."""
    i = np.arange(int(np.prod(shape)), dtype=np.uint64)
    u = ((i * np.uint64(2654435761)) % np.uint64(CUT)) / float(CUT)
    x = (offset + 3.4641016151377544 * (u - 0.5)).astype(np.float32)
    return torch.from_numpy(x.reshape(shape))


def worst(x):
    """Greatest errors of y, mean and inv_std, and channel 0, against float64."""
    y, mean, inv_std = normalise(x)
    y64, mean64, inv_std64 = normalise(x.double())
    return {
        "y": (y - y64).abs().max().item(),
        "mean": (mean - mean64).abs().max().item(),
        "inv_std": ((inv_std - inv_std64) / inv_std64).abs().max().item(),
        "mean0": mean[0:1],
        "inv_std0": inv_std[0:1],
        "mean0_f64": mean64[0:1],
        "inv_std0_f64": inv_std64[0:1],
    }


def outcome(program):
    """Runs a program in another process, as it may crash: its last line of
    output, the last line of its errors or the signal which ended it."""
    preamble = (
        "import torch\n"
        "import torch.nn.functional as F\n"
        "torch.set_num_threads(1)\n"
        "x = torch.empty(0, 3, requires_grad=True)\n"
        "w, b = (torch.ones(3, requires_grad=True) for _ in range(2))\n"
        "mean, var = torch.full((3,), 0.5), torch.full((3,), 2.0)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", preamble + program], capture_output=True, text=True
    )
    if done.returncode < 0:
        return f"process ended by {signal.Signals(-done.returncode).name}"
    text = done.stderr if done.returncode else done.stdout
    return text.strip().splitlines()[-1]


def known_differences(recorded):
    """Runs each of the behaviours and describes it.  An assertion fails if a
    later PyTorch no longer has it."""
    recorded = {case["name"]: case for case in recorded}

    def floats(name, field):
        words = recorded[name][field].split()
        return np.array([int(w, 16) for w in words], np.uint32).view(np.float32)

    def entry(name, what, **observed):
        names = [n for n, c in recorded.items() if name in c["known_differences"]]
        assert all(isinstance(value, str) for value in observed.values()), name
        return {"name": name, "what": what, "cases": names, "observed": observed}

    # Constant channels
    y = {}
    for value in (7.0, 0.1, 123.456, 1e3):
        for n in (8, 32, 4096):
            y[value, n] = normalise(torch.full((n, 1), value))
    assert y[7.0, 8][0].abs().max() > 0
    yield entry(
        "constant_channel_not_zero",
        "A channel of one constant has variance 0 and should normalise to 0 (y = bias). "
        "PyTorch evaluates x * alpha + beta with alpha = inv_std * weight and beta = bias - "
        "mean * alpha. With a fused multiply-add x * alpha is exact while beta was rounded, "
        "and that rounding, of a number 316 times as large as x, remains: 7.0 gives 3.05e-5. "
        "Without it (ATEN_CPU_CAPABILITY=default) 7.0 does give 0. Where the f32 mean is "
        "itself not the constant (0.1 with 32 rows) the variance is not 0 either.",
        **{
            f"max_abs_y_of_{value}_in_{n}_rows": number(result[0].abs().max())
            for (value, n), result in y.items()
            if n != 4096
        },
    )
    result = y[123.456, 4096]
    assert result[0].abs().max() > 0.1
    yield entry(
        "constant_channel_large_batch",
        "The same with 4096 rows of [N, C] data: the mean is summed one row after another "
        "in f32, so its error grows with the rows. A constant 123.456 normalises to about "
        "-0.85 instead of 0.",
        input="4096 rows, 1 channel, all 123.456",
        value_bits=bits(f32(123.456)),
        output_bits=bits(result[0][:1]),
        mean_bits=bits(result[1]),
        inv_std_bits=bits(result[2]),
        inv_std_f64=doubles(normalise(torch.full((4096, 1), 123.456).double())[2]),
        max_abs_y_of_7=number(y[7.0, 4096][0].abs().max()),
        max_abs_y_of_0_1=number(y[0.1, 4096][0].abs().max()),
        max_abs_y_of_1000=number(y[1e3, 4096][0].abs().max()),
    )

    # Offset data
    observed = {"formula": HASH_FORMULA}
    for offset in (1e3, 1e4):
        for shape, last in (
            ((33, 16), False),
            ((4096, 16), False),
            ((65536, 3), False),
            ((64, 3, 32, 32), False),
            ((64, 3, 32, 32), True),
        ):
            if last:
                # The formula's index runs over the memory, channels last.
                n, c, h, w = shape
                x = hashed((n, h, w, c), offset).permute(0, 3, 1, 2)
            else:
                x = hashed(shape, offset)
            got = worst(x)
            key = f"offset_{offset:g}_{'x'.join(map(str, shape))}{'_channels_last' * last}"
            observed[key] = (
                f"max abs error of y {got['y']:.3g}, of mean {got['mean']:.3g}, "
                f"max relative error of inv_std {got['inv_std']:.3g}"
            )
            for name in ("mean0", "inv_std0"):
                observed[f"{key}_{name}_bits"] = bits(got[name])
                observed[f"{key}_{name}_f64"] = doubles(got[f"{name}_f64"])
    assert worst(hashed((65536, 3), 1e4))["y"] > 0.1
    yield entry(
        "mean_summed_in_f32",
        "For [N, C] and channels-last data PyTorch sums the rows one by one in f32. With "
        "standard deviation 1 and an offset of 1e3 or 1e4 the mean loses digits as the "
        "number of rows grows, and the variance about the wrong mean is wrong as well. The "
        "contiguous [N, C, H, W] kernel sums pairwise and is right to within the rounding "
        "of mean * alpha. Channel 0 of each is given, with its values in float64 PyTorch.",
        **observed,
    )

    # Threads and layouts
    x = hashed((4096, 16), 1e3)
    one = normalise(x)
    torch.set_num_threads(2)
    two = normalise(x)
    torch.set_num_threads(1)
    assert not same(one[0], two[0])
    yield entry(
        "threads_change_the_result",
        "The partial sums of the [N, C] kernel are one per thread, so the result depends on "
        "the number of threads, by far more than rounding with offset data.",
        input=f"4096 rows, 16 channels, offset 1e3; {HASH_FORMULA}",
        one_thread_mean_bits=bits(one[1]),
        two_threads_mean_bits=bits(two[1]),
        mean_f64=doubles(normalise(x.double())[1]),
        max_abs_difference_of_y=number((one[0] - two[0]).abs().max()),
    )
    x = hashed((8, 3, 7, 7), 1e3)
    first, last = normalise(x), normalise(x.contiguous(memory_format=torch.channels_last))
    assert not same(first[0].contiguous(), last[0].contiguous())
    yield entry(
        "layout_changes_the_result",
        "The same [N, C, H, W] tensor gives different results when it is stored " "channels-last.",
        input=f"[8, 3, 7, 7] contiguous, offset 1e3; {HASH_FORMULA}",
        channels_first_mean_bits=bits(first[1]),
        channels_last_mean_bits=bits(last[1]),
        mean_f64=doubles(normalise(x.double())[1]),
        max_abs_difference_of_y=number((first[0] - last[0]).abs().max()),
    )

    # Overflow
    name = "large_1e30_nc"
    assert (floats(name, "saved_inv_std_bits") == 0).all()
    z = run(find_case(name), draw(find_case(name)), torch.float64).z
    yield entry(
        "variance_overflows",
        "Data of the order of 1e30 have a variance of 1e60. PyTorch rounds it to f32, "
        "infinity, so that inv_std is 0, y is the bias and grad_input is 0. The inv_std of "
        "1e-30 would fit into f32; only the running variance is rightly infinite. The same "
        "starts at a spread of about 1.8e19.",
        saved_inv_std_bits=recorded[name]["saved_inv_std_bits"],
        saved_inv_std_f64=recorded[name]["saved_inv_std_f64"],
        running_var_after_bits=recorded[name]["running_var_after_bits"],
        max_abs_z_f64=doubles(z.abs().max()),
    )
    name = "large_3e38_nc"
    assert not np.isfinite(floats(name, "output_bits")).any()
    yield entry(
        "sum_overflows",
        "Finite data near the largest f32: their sum overflows in f32, the mean is infinite "
        "and the output NaN.",
        output_bits=recorded[name]["output_bits"],
        saved_mean_bits=recorded[name]["saved_mean_bits"],
        saved_mean_f64=recorded[name]["saved_mean_f64"],
    )

    # Dropout
    x = f32(NAN, INF, -INF, 1.0, -1.0, 0.0).repeat(4)
    torch.manual_seed(1)
    keep = F.dropout(torch.ones(24), 0.5, True) != 0
    torch.manual_seed(1)
    leaf = x.clone().requires_grad_()
    y = F.dropout(leaf, 0.5, True)
    grad = f32(1.0, 1.0, NAN, INF, -INF, -1.0).repeat(4)
    y.backward(grad)
    assert torch.isnan(y[~keep & ~torch.isfinite(x)]).all()
    assert torch.isnan(leaf.grad[~keep & ~torch.isfinite(grad)]).all()
    assert torch.signbit(y[~keep & (x == -1)]).any()
    yield entry(
        "dropout_multiplies",
        "torch.nn.functional.dropout is x * (keep / (1 - p)): a dropped NaN or infinity "
        "becomes NaN instead of 0, a dropped negative value becomes -0, and a dropped NaN or "
        'infinity among the gradients becomes NaN. Cases with dropout "multiply" do this, '
        "the others select.",
        p="0.5",
        keep_mask="".join("1" if k else "0" for k in keep),
        input_bits=bits(x),
        output_bits=bits(y),
        grad_output_bits=bits(grad),
        grad_input_bits=bits(leaf.grad),
    )
    leaf = x[:6].clone().requires_grad_()
    y = F.dropout(leaf, 1.0, True)
    y.backward(grad[:6])
    naive = f32(1.0, 2.0).requires_grad_()
    torch.where(torch.zeros(2, dtype=torch.bool), naive / 0.0, torch.zeros(())).sum().backward()
    assert torch.isnan(y[:3]).all() and torch.isnan(naive.grad).all()
    yield entry(
        "dropout_p1",
        "With p = 1 everything is dropped. torch.nn.functional.dropout multiplies by zeros: "
        "NaN and infinities become NaN, negative values -0, gradients alike. Written as "
        "where(keep, x / (1 - p), 0) the output is 0 but the gradients are 0 / 0 = NaN. The "
        "cases here leave the division out, so that y, grad_input and grad_bias are 0.",
        input_bits=bits(x[:6]),
        dropout_output_bits=bits(y),
        dropout_grad_output_bits=bits(grad[:6]),
        dropout_grad_input_bits=bits(leaf.grad),
        where_grad_input_bits=bits(naive.grad),
    )

    # NaN and the gradient
    name = "nonfinite_frozen_p0.5"
    mask = np.array([k == "1" for k in recorded[name]["keep_mask"]])
    assert (floats(name, "output_bits")[~mask] == 0).all()
    name = "p1_frozen_nonfinite_input"
    assert np.isnan(floats(name, "grad_weight_bits")[:2]).all()
    yield entry(
        "zero_gradient_times_nan",
        "With fixed statistics grad_weight is the sum of gradient * xhat. If x is NaN or "
        "infinite at an element which was dropped the gradient there is 0 and y does not "
        "depend on x, but 0 * NaN makes grad_weight of the channel NaN (and with p = 1 too).",
        p1_grad_weight_bits=recorded[name]["grad_weight_bits"],
        p1_grad_input_bits=recorded[name]["grad_input_bits"],
        p1_output_bits=recorded[name]["output_bits"],
    )
    x = f32(NAN, 0.0, -0.0, 1.0, -1.0)
    leaf = x.clone().requires_grad_()
    y = F.relu(leaf)
    y.backward(f32(5.0, 5.0, 5.0, 5.0, NAN))
    assert leaf.grad[0] == 5.0 and torch.signbit(y[2]) and leaf.grad[4] == 0.0
    yield entry(
        "relu_gradient_at_nan",
        "relu(NaN) is NaN and passes the gradient (the test is x <= 0 for closing, not x > 0 "
        "for opening). relu(-0.0) is -0.0. A closed relu selects 0, so a NaN gradient stops "
        "there.",
        input_bits=bits(x),
        output_bits=bits(y),
        grad_output_bits=bits(f32(5.0, 5.0, 5.0, 5.0, NAN)),
        grad_input_bits=bits(leaf.grad),
    )

    # The other activations
    def at(activation, points, slope=None):
        """What an activation gives at points, in 64 elements each and alone."""
        x = f32(*points)
        observed = {f"{activation}_input_bits": bits(x)}
        many = values_and_derivatives(activation, slope, x.repeat_interleave(64))
        y, derivative = (values[::64].contiguous() for values in many)
        alone = [values_and_derivatives(activation, slope, x[i : i + 1]) for i in range(len(x))]
        exact = values_and_derivatives(activation, slope, x.double())
        observed[f"{activation}_output_bits"] = bits(y)
        observed[f"{activation}_derivative_bits"] = bits(derivative)
        observed[f"{activation}_derivative_alone_bits"] = bits(torch.cat([d for _, d in alone]))
        observed[f"{activation}_output_f64"] = doubles(exact[0])
        observed[f"{activation}_derivative_f64"] = doubles(exact[1])
        return observed, y, derivative

    observed = {}
    for activation, slope in (("relu6", None), ("leaky_relu", 0.2), ("hard_swish", None)):
        seen, y, derivative = at(activation, (NAN,), slope)
        assert torch.isnan(y).all()
        assert torch.isnan(derivative).all() == (activation == "hard_swish")
        observed.update(seen)
    assert observed["hard_swish_derivative_alone_bits"] == bits(f32(1.0))
    yield entry(
        "activation_gradient_at_nan",
        "The gradient at z = NaN. relu6 has 0 in its vector code and 1 in the code for the last "
        "few elements of a tensor, hardswish NaN and 1, leaky_relu the slope. The value is NaN in "
        "all of them.",
        **observed,
    )
    observed = {}
    for activation in ("hard_swish", "silu", "gelu_tanh", "gelu", "mish"):
        seen, y, derivative = at(activation, (-INF, INF))
        assert torch.isnan(y[0]) and (torch.isnan(y[1]) if activation == "gelu" else y[1] == INF)
        assert torch.isnan(derivative).all() != (activation == "hard_swish")
        observed.update(seen)
    yield entry(
        "activation_at_infinities",
        "hardswish, silu, gelu and mish of -inf are infinity times 0, NaN, instead of 0; the "
        "gradients of silu, gelu and mish at both infinities are NaN instead of 0 and 1. The f32 of "
        "gelu (by erf) is NaN at +inf, too.",
        **observed,
    )
    seen, y, derivative = at("hard_swish", (3.4e38,))
    assert y[0] == INF
    yield entry(
        "hard_swish_overflows",
        "hardswish multiplies by 6 before it divides by 6, so that values above 5.7e37 become "
        "infinite in f32.",
        **seen,
    )
    observed, y, _ = at("silu", (-88.0, -90.0, -100.0))
    seen, sigmoid, _ = at("sigmoid", (-88.0, -90.0, -100.0))
    assert y[1:].tolist() == [0.0, 0.0] and sigmoid[1:].tolist() == [0.0, 0.0] and y[0] < 0.0
    yield entry(
        "sigmoid_flushes_to_zero",
        "1 / (1 + exp(-z)) is 0 where exp(-z) overflows, from -88.8 on; the sigmoid function is "
        "above the smallest f32 down to -103.9, and silu down to -108.",
        **observed,
        **seen,
    )
    seen, y, derivative = at("gelu_tanh", (-4.0, -5.0, -6.0, -8.0))
    assert abs(y[1] / -2.2917961972623857e-07 - 1) > 0.1 and y[3] == 0.0
    yield entry(
        "gelu_tanh_cancels",
        "0.5 * z * (1 + tanh(...)) loses all digits of large negative z, since tanh is next to -1: "
        "-5 is wrong by 30 per cent in f32, and from -6 on the result is 0. Its float64 has half "
        "the digits of -5, and 0 from -8 on.",
        **seen,
    )
    seen, y, _ = at("gelu", (-5.0, -6.0, -8.0, -10.0))
    assert abs(y[0] / -1.4332578593959696e-06 - 1) > 0.1 and y[2] == 0.0
    yield entry(
        "gelu_cancels",
        "0.5 * z * (1 + erf(...)) loses all digits of large negative z, since erf is next to -1: -5 "
        "is wrong by 17 per cent in f32, and from -6 on the result is 0. Its float64 has lost most "
        "digits of -8, and is 0 from -9 on.",
        **seen,
    )
    seen, y, derivative = at("gelu", (3.4e38,))
    assert y[0] == INF
    yield entry(
        "gelu_overflows",
        "The vector code of gelu multiplies by 1 + erf, which is 2, before it halves, so that values "
        "above 1.7e38 become infinite in f32.",
        **seen,
    )
    seen, y, derivative = at("gelu_tanh", (-1e20, 1e20))
    assert torch.isnan(derivative).all()
    yield entry(
        "gelu_tanh_gradient_overflows",
        "The square of z in the derivative of the tanh gelu overflows from 1.8e19 on, and infinity times 0 "
        "makes the gradient NaN instead of 0 and 1.",
        **seen,
    )
    seen, y, derivative = at("tanh", (-8.0, -10.0))
    assert derivative[1] == 0.0
    yield entry(
        "tanh_gradient_cancels",
        "The gradient of tanh is 1 - y * y from the rounded y: 6 per cent off at -8, and 0 from -9.1 "
        "on.",
        **seen,
    )

    # Running statistics
    def update(running, data, momentum):
        mean, var = f32(running), f32(running)
        F.batch_norm(f32(*data).reshape(-1, 1), mean, var, None, None, True, momentum)
        return mean, var

    observed = {}
    for label, running, data, momentum in (
        ("momentum_0_batch_nan", 2.0, (NAN, 1.0), 0.0),
        ("momentum_0_batch_inf", 2.0, (INF, 1.0), 0.0),
        ("momentum_0_running_nan", NAN, (3.0, 1.0), 0.0),
        ("momentum_1_running_nan", NAN, (3.0, 1.0), 1.0),
        ("momentum_1_running_inf", INF, (3.0, 1.0), 1.0),
    ):
        mean, var = update(running, data, momentum)
        observed[f"{label}_running_mean_after_bits"] = bits(mean)
        observed[f"{label}_running_var_after_bits"] = bits(var)
        assert not torch.isfinite(mean) and not torch.isfinite(var)
    yield entry(
        "running_statistics_poisoned",
        "running = momentum * batch + (1 - momentum) * running without regard to the ends: "
        "with momentum 0 a NaN or infinity in the batch still makes the running statistics "
        "NaN (0 * NaN), and with momentum 1 (also the first step of the cumulative average) "
        "running statistics which are NaN or infinite never recover.",
        **observed,
    )
    observed = {}
    for momentum in (NAN, -1.0, 2.0):
        mean, var = update(1.0, (3.0, 1.0), momentum)
        observed[f"momentum_{momentum}_running_mean_after_bits"] = bits(mean)
    x = f32(1.0, 2.0).reshape(2, 1)
    y = F.batch_norm(x, f32(1.0), f32(-1.0), training=False)
    observed["eval_running_var_minus_1_output_bits"] = bits(y)
    y = F.batch_norm(x, f32(1.0), f32(0.0), training=False, eps=0.0)
    observed["eval_eps_0_running_var_0_output_bits"] = bits(y)
    for eps in (0.0, -0.5):
        for training in (True, False):
            try:
                F.batch_norm(x, f32(0.0), f32(1.0), training=training, eps=eps)
                text = "accepted"
            except ValueError as raised:
                text = f"ValueError: {raised}"
            observed[f"eps_{eps}_{'training' if training else 'eval'}"] = text
    yield entry(
        "settings_not_checked",
        "momentum may be NaN, negative or greater than 1 without an error. With fixed "
        "statistics eps may be 0, and a running variance with var + eps <= 0 gives NaN for "
        "the channel without an error. A bad eps in training and a bad probability of "
        "dropout do raise.",
        **observed,
    )

    # Sizes
    mean, var = torch.zeros(3), torch.ones(3)
    y, _, inv_std = torch.native_batch_norm(
        f32(1.0, 3.0, 123.456).reshape(1, 3), None, None, mean, var, True, 0.1, 1e-5
    )
    assert torch.isnan(var).all()
    message = recorded["single_value_nc"]["error"]
    assert message is not None
    yield entry(
        "single_value_per_channel",
        "Batch statistics of one value per channel: batch_norm raises. The "
        "torch.native_batch_norm under it does not; it gives nearly 0 and sets the running "
        "variance to NaN (0 / 0 in the unbiased variance).",
        error=message,
        native_input_bits=bits(f32(1.0, 3.0, 123.456)),
        native_output_bits=bits(y),
        native_inv_std_bits=bits(inv_std),
        native_running_var_after_bits=bits(var),
    )
    observed = {}
    for call, text in (
        ("batch_norm", "F.batch_norm(x, mean, var, w, b, {}, 0.1, 1e-5)"),
        ("native_batch_norm", "torch.native_batch_norm(x, w, b, mean, var, {}, 0.1, 1e-5)[0]"),
    ):
        for training in (True, False):
            observed[f"{call}_{'training' if training else 'eval'}_backward"] = outcome(
                f"y = {text.format(training)}\n"
                "y.sum().backward()\n"
                "print('grad_weight', w.grad.tolist(), 'grad_bias', b.grad.tolist(), "
                "'running', mean.tolist(), var.tolist())\n"
            )
    yield entry(
        "empty_input",
        "batch_norm of an empty batch works in training too: an empty output, zero "
        "gradients, running statistics left alone, no error about one value per channel. "
        "native_batch_norm under it raises in training, and with fixed statistics its "
        "backward divides by zero in integers and takes the process with it.",
        **observed,
    )


def find_case(name):
    """The case of that name."""
    return next(case for case in cases() if case.name == name)


def main():
    parser = argparse.ArgumentParser(
        description="Writes the golden vectors of PyTorch for normdrop."
    )
    parser.add_argument(
        "-o", "--output", default="pytorch.json", help="file to write (%(default)s)"
    )
    output = parser.parse_args().output

    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    torch.set_default_dtype(torch.float32)

    check_other_channels()
    recorded = [record(case)[0] for case in cases()] + list(cumulative())
    names = [case["name"] for case in recorded]
    assert len(set(names)) == len(names)
    differences = list(known_differences(recorded))
    declared = {name for case in recorded for name in case["known_differences"]}
    assert declared <= {difference["name"] for difference in differences}

    document = {
        "format": FORMAT,
        "torch": torch.__version__,
        "numpy": np.__version__,
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "threads": torch.get_num_threads(),
        "cases": recorded,
        "activations": list(activations()),
        "known_differences": differences,
    }
    text = json.dumps(document, indent=1, allow_nan=False) + "\n"
    with open(output, "w", encoding="ascii", newline="\n") as file:
        file.write(text)
    print(f"{output}: {len(recorded)} cases, {len(differences)} differences, {len(text)} bytes")


if __name__ == "__main__":
    main()
