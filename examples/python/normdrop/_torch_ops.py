"""The layer as operators of PyTorch, `normdrop::train`, `eval` and `backward`, with the formulas
that autograd needs.

Operators, not a `torch.autograd.Function` alone: `torch.compile`, `torch.export` and
`torch.jit.trace` write an operator into their graphs as it is, where they would follow a function
down to the addresses of its buffers; and a graph draws a new seed in each run.
`torch.library.custom_op` would be shorter, but what it makes fails in `torch.func.grad`, and gives
a tangent of 0 in forward mode, without a word (PyTorch 2.15). The operators write nothing but their
results: `normdrop.torch` stores the running statistics that `train` returns.
"""

import functools
import math

import numpy
import torch

from . import GATED, Layer, Saved, bernoulli
from ._arguments import BFLOAT16

# By the number of dimensions: channels first, and the memory order of torch.channels_last and
# channels_last_3d.
FIRST = {2: "NC", 3: "NCL", 4: "NCHW", 5: "NCDHW"}
LAST = {4: ("NHWC", torch.channels_last), 5: ("NDHWC", torch.channels_last_3d)}

_STATE = "Tensor? running_mean, Tensor? running_mean_tail, Tensor? running_var"
_TENSORS = "Tensor x, Tensor? weight, Tensor? bias, Tensor? residual"
_OPTIONS = "Tensor? seed, str activation, str granularity, float p, float eps, float slope, float alpha, int tasks"
_library = torch.library.Library("normdrop", "DEF")
for _schema in (
    f"train({_TENSORS}, {_STATE}, Tensor? batches, {_OPTIONS}, float momentum, bool gated)"
    " -> (Tensor, Tensor, Tensor, Tensor, Tensor)",
    f"eval({_TENSORS}, {_STATE}, {_OPTIONS}, bool gated) -> (Tensor, Tensor)",
    f"backward(Tensor grad, {_TENSORS}, Tensor? gates, Tensor? means, Tensor? inv_std, {_STATE}, {_OPTIONS}, int wanted)"
    " -> (Tensor, Tensor, Tensor, Tensor)",
    "keep(Tensor x, Tensor seed, str granularity, float p) -> Tensor",
    "open(Tensor x, Tensor gates) -> Tensor",
):
    _library.define(_schema, tags=(torch.Tag.pt2_compliant_tag,))
_train, _eval, _backward, _keep, _open = (
    getattr(torch.ops.normdrop, name).default for name in ("train", "eval", "backward", "keep", "open")
)

# The gradients that are wanted, as bits of one number.
INPUT, WEIGHT, BIAS, RESIDUAL = 1, 2, 4, 8


@functools.lru_cache(maxsize=256)
def _layer(layout, shape, activation, granularity, p, eps, momentum, slope, alpha, tasks):
    return Layer(
        layout, shape, activation, granularity=granularity, p=p, eps=eps, momentum=momentum, slope=slope, alpha=alpha,
        tasks=tasks
    )


class _Order:
    """The memory order of a call's tensors, and how they look to numpy."""

    def __init__(self, x):
        layout, memory = LAST.get(x.dim(), (None, None))
        self.last = memory is not None and not x.is_contiguous() and x.is_contiguous(memory_format=memory)
        self.layout = layout if self.last else FIRST[x.dim()]
        self.memory = memory if self.last else torch.contiguous_format
        self.shape = (x.shape[0], *x.shape[2:], x.shape[1]) if self.last else tuple(x.shape)

    def layer(self, activation, granularity, p, eps, momentum, slope, alpha, tasks):
        return _layer(self.layout, self.shape, activation, granularity, p, eps, momentum, slope, alpha, tasks)

    def array(self, tensor):
        """The memory of a tensor, in this order; a copy only if it is in another one."""
        if tensor is None:
            return None
        tensor = tensor.detach().contiguous(memory_format=self.memory)
        tensor = tensor.permute(0, *range(2, tensor.dim()), 1) if self.last else tensor
        # numpy has no bfloat16.
        return tensor.view(torch.int16).numpy().view(BFLOAT16) if tensor.dtype == torch.bfloat16 else tensor.numpy()

    def tensor(self, array):
        """The other way round."""
        is_bfloat16 = array.dtype == BFLOAT16
        tensor = torch.from_numpy(array.view(numpy.int16)).view(torch.bfloat16) if is_bfloat16 else torch.from_numpy(array)
        return tensor.permute(0, tensor.dim() - 1, *range(1, tensor.dim() - 1)) if self.last else tensor

    def like(self, x):
        """A new tensor for a result, and its memory."""
        tensor = torch.empty_like(x, memory_format=self.memory)
        return tensor, self.array(tensor)


def _numpy(tensor):
    return None if tensor is None else tensor.detach().contiguous().numpy()


def _running(mean, mean_tail, var):
    names = ("running_mean", "running_mean_tail", "running_var")
    return dict(zip(names, map(_numpy, (mean, mean_tail, var))))


def probability(p, seed):
    """The `p` of a call. Without a seed nothing is dropped, and a layer that drops would ask for a
    mask; a `p` that is no probability is left for the layer to refuse.
    """
    return 0.0 if seed is None and 0 <= p <= 1 else p


def _mask(layer, seed):
    """The mask of a seed, a pure function of it: made again for the backward pass instead of kept.
    """
    if seed is None:
        return None
    # Not int(seed), which refuses a uint64 of 2**63 and more.
    value = seed.numpy().item()
    if value < 0:
        raise ValueError(f"seed must be at least 0 and below 2**64, not {value}")
    return layer.mask(value)


def gated(activation, seed):
    """Whether a forward call writes gates for its backward call: a bit for each element, with which
    it needs neither the residual nor the mask again. Without an activation and without dropout all
    would be 1.
    """
    return torch.is_grad_enabled() and activation in GATED and (activation != "identity" or seed is not None)


def gates_of(layer, mask):
    """Where a forward call writes its gates: over a mask of elements, which nobody reads again."""
    of_elements = mask is not None and layer.mask_bits == math.prod(layer.shape)
    return mask if of_elements else numpy.empty(layer.gates_len, numpy.uint8)


def _new_gates(x, gated):
    return x.new_empty((x.numel() + 7) // 8 if gated else 0, dtype=torch.uint8)


def _counter(batches):
    """The number of batches so far, whatever the type of its tensor is: files have int32 and
    float64.
    """
    if batches.numel() != 1:
        raise ValueError(f"num_batches_tracked must have one value, not {batches.numel()}")
    value = batches.item()
    if not math.isfinite(value) or value != int(value) or value < 0:
        raise ValueError(f"num_batches_tracked must be a whole number that is not negative, not {value}")
    return numpy.array([int(value)], numpy.uint64)


@torch.library.impl(_library, "train", "CPU")
def _(x, weight, bias, residual, running_mean, running_mean_tail, running_var, batches, seed, activation, granularity, p, eps, slope,
      alpha, tasks, momentum, gated):
    """The output; mean and mean_tail of the batch, `[2, C]`; its inv_std in float64; the new
    running statistics that were given, a row each; the gates, if `gated`.

    With `batches`, the batches so far, the running statistics are the mean of all batches, and
    `momentum` is not used.
    """
    order = _Order(x)
    layer = order.layer(activation, granularity, probability(p, seed), eps, momentum, slope, alpha, tasks)
    running = _running(running_mean, running_mean_tail, running_var)
    new = {name: values.copy() for name, values in running.items() if values is not None}
    y, out = order.like(x)
    mask = _mask(layer, seed)
    gates = gates_of(layer, mask) if gated else None
    _, saved = layer.train(
        order.array(x), weight=_numpy(weight), bias=_numpy(bias), residual=order.array(residual), mask=mask, gates=gates,
        batches=None if batches is None else _counter(batches), out=out, **new,
    )
    means = torch.from_numpy(numpy.stack([saved.mean, saved.mean_tail]))
    new = numpy.stack(list(new.values())) if new else numpy.empty((0, x.shape[1]), numpy.float32)
    return y, means, torch.from_numpy(saved.inv_std), torch.from_numpy(new), torch.from_numpy(gates) if gated else _new_gates(x, False)


@torch.library.register_fake("normdrop::train", lib=_library)
def _(x, weight, bias, residual, running_mean, running_mean_tail, running_var, *others):
    channels = x.shape[1]
    new = sum(statistic is not None for statistic in (running_mean, running_mean_tail, running_var))
    return (
        torch.empty_like(x, memory_format=_Order(x).memory), x.new_empty((2, channels), dtype=torch.float32),
        x.new_empty(channels, dtype=torch.float64), x.new_empty((new, channels), dtype=torch.float32), _new_gates(x, others[-1]),
    )


@torch.library.impl(_library, "eval", "CPU")
def _(x, weight, bias, residual, running_mean, running_mean_tail, running_var, seed, activation, granularity, p, eps, slope, alpha,
      tasks, gated):
    """The output, with the running statistics; the gates, if `gated`."""
    order = _Order(x)
    # The momentum is that of no running statistics, and any will do.
    layer = order.layer(activation, granularity, probability(p, seed), eps, 0.0, slope, alpha, tasks)
    y, out = order.like(x)
    mask = _mask(layer, seed)
    gates = gates_of(layer, mask) if gated else None
    layer.eval(
        order.array(x), **_running(running_mean, running_mean_tail, running_var), weight=_numpy(weight), bias=_numpy(bias),
        residual=order.array(residual), mask=mask, gates=gates, out=out,
    )
    return y, torch.from_numpy(gates) if gated else _new_gates(x, False)


@torch.library.register_fake("normdrop::eval", lib=_library)
def _(x, *others):
    return torch.empty_like(x, memory_format=_Order(x).memory), _new_gates(x, others[-1])


def _no_floats(x, channels=0):
    return x.new_empty(channels, dtype=torch.float32)


@torch.library.impl(_library, "backward", "CPU")
def _(grad, x, weight, bias, residual, gates, means, inv_std, running_mean, running_mean_tail, running_var, seed, activation, granularity, p,
      eps, slope, alpha, tasks, wanted):
    """The gradients of x, weight, bias and residual; without elements where `wanted` lacks their
    bit.

    The statistics are those of the batch (`means`, `inv_std`), or the running ones. With `gates`,
    neither the residual nor the seed is used.
    """
    order = _Order(x)
    layer = order.layer(activation, granularity, probability(p, seed), eps, 0.0, slope, alpha, tasks)
    if means is None:
        statistics = _running(running_mean, running_mean_tail, running_var)
    else:
        statistics = {"saved": Saved(*_numpy(means), _numpy(inv_std))}
    dx, out = order.like(x) if wanted & INPUT else (x.new_empty(0), None)
    gradients = layer.backward(
        order.array(grad), order.array(x), **statistics, weight=_numpy(weight), bias=_numpy(bias), residual=order.array(residual),
        mask=None if gates is not None else _mask(layer, seed), gates=_numpy(gates), out=out, input_gradient=bool(wanted & INPUT),
        parameter_gradients=bool(wanted & (WEIGHT | BIAS)), residual_gradient=bool(wanted & RESIDUAL),
    )
    return (
        dx,
        torch.from_numpy(gradients.weight) if wanted & WEIGHT else _no_floats(x),
        torch.from_numpy(gradients.bias) if wanted & BIAS else _no_floats(x),
        order.tensor(gradients.residual) if wanted & RESIDUAL else x.new_empty(0),
    )


@torch.library.register_fake("normdrop::backward", lib=_library)
def _(grad, x, *others):
    wanted, memory = others[-1], _Order(x).memory

    def like(bit):
        return torch.empty_like(x, memory_format=memory) if wanted & bit else x.new_empty(0)

    return like(INPUT), *(_no_floats(x, x.shape[1] if wanted & bit else 0) for bit in (WEIGHT, BIAS)), like(RESIDUAL)


@torch.library.impl(_library, "keep", "CPU")
def _(x, seed, granularity, p):
    """The mask of a seed as a bool for each element, channel or sample of x, in a shape that
    broadcasts with it.
    """
    order = _Order(x)
    layer = order.layer("identity", granularity, p, 1e-5, 0.0, 0.0, 0.0, 1)
    bits = numpy.unpackbits(_mask(layer, seed), count=layer.mask_bits, bitorder="little").astype(bool)
    if granularity == "element":
        return order.tensor(bits.reshape(order.shape))
    return torch.from_numpy(bits.reshape(_gated_shape(x, granularity)))


@torch.library.register_fake("normdrop::keep", lib=_library)
def _(x, seed, granularity, p):
    if granularity == "element":
        return torch.empty_like(x, dtype=torch.bool, memory_format=_Order(x).memory)
    return x.new_empty(_gated_shape(x, granularity), dtype=torch.bool)


def _gated_shape(x, granularity):
    gated = 2 if granularity == "channel" else 1
    return (*x.shape[:gated], *(1,) * (x.dim() - gated))


@torch.library.impl(_library, "open", "CPU")
def _(x, gates):
    """Gates as a bool for each element of x."""
    order = _Order(x)
    bits = numpy.unpackbits(_numpy(gates), count=x.numel(), bitorder="little").astype(bool)
    return order.tensor(bits.reshape(order.shape))


@torch.library.register_fake("normdrop::open", lib=_library)
def _(x, gates):
    return torch.empty_like(x, dtype=torch.bool, memory_format=_Order(x).memory)


# Derivatives. Those of `train` in forward mode, and those of `backward`, are their formulas in
# operations of PyTorch on float64. As these have derivatives, too, there are third ones and so on.


def _slope_of(z, activation, slope, alpha):
    """The derivative of an activation, differentiable itself."""
    if activation == "identity":
        return torch.ones_like(z)
    if activation == "relu":
        return (z > 0).to(z.dtype)
    if activation == "relu6":
        return ((z > 0) & (z < 6)).to(z.dtype)
    if activation == "leaky_relu":
        return torch.where(z > 0, 1.0, slope).to(z.dtype)
    if activation == "hard_swish":
        return torch.where(z > 3, 1.0, torch.where(z < -3, 0.0, z / 3 + 0.5))
    if activation == "tanh":
        return 1 - torch.tanh(z).square()
    if activation == "elu":
        return torch.where(z > 0, 1.0, alpha * torch.exp(torch.minimum(z, z.new_zeros(()))))
    if activation == "selu":
        below = 1.6732632423543772 * torch.exp(torch.minimum(z, z.new_zeros(())))
        return 1.0507009873554805 * torch.where(z > 0, 1.0, below)
    if activation == "mish":
        tanh = torch.tanh(torch.nn.functional.softplus(z))
        return tanh + z * (1 - tanh.square()) * torch.sigmoid(z)
    if activation == "gelu":
        density = torch.exp(-0.5 * z.square()) / math.sqrt(2 * math.pi)
        return 0.5 * torch.erfc(-z / math.sqrt(2)) + z * density
    if activation == "gelu_tanh":
        # That of 0.5*z*(1 + tanh(inner)), with inner = sqrt(2/pi)*(z + 0.044715*z^3).
        root = math.sqrt(2 / math.pi)
        tanh = torch.tanh(root * (z + 0.044715 * z**3))
        return 0.5 * (1 + tanh) + 0.5 * z * (1 - tanh.square()) * root * (1 + 3 * 0.044715 * z.square())
    sigmoid = torch.sigmoid(z)
    if activation == "softplus":
        return sigmoid
    if activation == "sigmoid":
        return sigmoid * (1 - sigmoid)
    assert activation == "silu", activation
    return sigmoid * (1 + z * (1 - sigmoid))


class _Formulas:
    """The layer on paper, in float64: `statistics` are the running ones, or None for those of the
    batch. With `gates`, the residual is not needed.
    """

    def __init__(self, x, weight, bias, residual, gates, statistics, seed, activation, granularity, p, eps, slope, alpha):
        self.shape = (-1, *(1,) * (x.dim() - 2))
        self.axes = [axis for axis in range(x.dim()) if axis != 1]
        # max: there is nothing to divide in an empty batch.
        self.samples = max(x.numel() // max(x.shape[1], 1), 1)
        self.batch = statistics is None
        self.scale = 1.0 if seed is None else bernoulli(p)[1]
        if gates is not None:
            self.mask = _open(x, gates)
        else:
            self.mask = None if seed is None else _keep(x, seed, granularity, p)
        x = x.double()
        if self.batch:
            mean = self.mean(x)
            var = self.mean((x - mean).square())
        else:
            mean, mean_tail, var = (None if values is None else self.along(values) for values in statistics)
            mean = mean if mean_tail is None else mean + mean_tail
        self.inv_std = 1 / torch.sqrt(var + float(numpy.float32(eps)))
        self.xhat = (x - mean) * self.inv_std
        self.weight = 1.0 if weight is None else self.along(weight)
        if gates is not None:
            # What is open has a slope of 1.
            self.slope = 1.0
            return
        z = self.xhat * self.weight
        if bias is not None:
            z = z + self.along(bias)
        if residual is not None:
            z = z + residual.double()
        self.slope = _slope_of(z, activation, slope, alpha)

    def along(self, values):
        return values.double().reshape(self.shape)

    def mean(self, values):
        return self.along(values.sum(self.axes) / self.samples)

    def dropout(self, values):
        return values if self.mask is None else torch.where(self.mask, values * self.scale, 0.0)

    def gradients(self, grad):
        """Those of x, weight, bias and residual."""
        g = self.dropout(self.slope * grad.double())
        dx = self.weight * self.inv_std * self.centred(g)
        return dx, (g * self.xhat).sum(self.axes), g.sum(self.axes), g

    def tangent(self, x, weight, bias, residual):
        """That of the output, where some of the given ones are None."""
        z = 0.0
        if x is not None:
            z = z + self.weight * self.inv_std * self.centred(x.double())
        if weight is not None:
            z = z + self.xhat * self.along(weight)
        if bias is not None:
            z = z + self.along(bias)
        if residual is not None:
            z = z + residual.double()
        return self.dropout(self.slope * z)

    def centred(self, values):
        """What is left of some values by the derivative of the normalisation, which is its own
        transpose.
        """
        return values - self.mean(values) - self.xhat * self.mean(values * self.xhat) if self.batch else values


class _Forward(torch.autograd.Function):
    """The derivatives of `train` and `eval`, whose arguments begin and whose options follow in the
    same way.
    """

    @staticmethod
    def jvp(ctx, *tangents):
        *tensors, mean, mean_tail, var, seed = ctx.saved_tensors
        statistics = None if mean is None else (mean, mean_tail, var)
        formulas = _Formulas(*tensors, None, statistics, seed, *ctx.options[:-1])
        return formulas.tangent(*tangents[:4]).to(tensors[0].dtype), *(None,) * ctx.others

    @classmethod
    def derivatives(cls, ctx, grad):
        wanted = sum(bit for bit, needed in zip((INPUT, WEIGHT, BIAS, RESIDUAL), ctx.needs_input_grad) if needed)
        *tensors, seed = ctx.saved_tensors
        gradients = backward(grad, *tensors, seed, *ctx.options, wanted)
        return (gradient if wanted & bit else None for bit, gradient in zip((INPUT, WEIGHT, BIAS, RESIDUAL), gradients))

    @classmethod
    def save(cls, ctx, x, weight, bias, residual, gates, is_gated, *statistics, state, seed):
        """Keeps what the derivatives need: forward mode everything, for as long as the call lasts,
        and the backward call the residual only if it needs `z`.
        """
        ctx.save_for_forward(x, weight, bias, residual, *state, seed)
        needs_z = ctx.options[0] not in GATED or ctx.options[0] != "identity" and not is_gated
        ctx.save_for_backward(x, weight, bias, residual if needs_z else None, gates if is_gated else None, *statistics, *state, seed)


class _Train(_Forward):
    @staticmethod
    def forward(*inputs):
        with torch._C._AutoDispatchBelowAutograd():
            return _train(*inputs)

    @staticmethod
    def setup_context(ctx, inputs, output):
        x, weight, bias, residual, _, _, _, _, seed, *ctx.options, _, is_gated = inputs
        _, means, inv_std, running, gates = output
        ctx.mark_non_differentiable(means, inv_std, running, gates)
        ctx.others = 4
        _Train.save(ctx, x, weight, bias, residual, gates, is_gated, means, inv_std, state=(None,) * 3, seed=seed)

    @staticmethod
    def backward(ctx, grad, *_):
        return *_Train.derivatives(ctx, grad), *(None,) * 14

    @staticmethod
    def vmap(info, in_dims, *inputs):
        return _one_by_one(train, info, in_dims, *inputs)


class _Eval(_Forward):
    @staticmethod
    def forward(*inputs):
        with torch._C._AutoDispatchBelowAutograd():
            return _eval(*inputs)

    @staticmethod
    def setup_context(ctx, inputs, output):
        x, weight, bias, residual, mean, mean_tail, var, seed, *ctx.options, is_gated = inputs
        ctx.mark_non_differentiable(output[1])
        ctx.others = 1
        _Eval.save(ctx, x, weight, bias, residual, output[1], is_gated, None, None, state=(mean, mean_tail, var), seed=seed)

    @staticmethod
    def backward(ctx, grad, _):
        return *_Eval.derivatives(ctx, grad), *(None,) * 12

    @staticmethod
    def vmap(info, in_dims, *inputs):
        return _one_by_one(evaluate, info, in_dims, *inputs)


class _Backward(torch.autograd.Function):
    @staticmethod
    def forward(*inputs):
        with torch._C._AutoDispatchBelowAutograd():
            return _backward(*inputs)

    @staticmethod
    def setup_context(ctx, inputs, output):
        *tensors, gates, _, _, mean, mean_tail, var, seed = inputs[:12]
        *ctx.options, _, ctx.wanted = inputs[12:]
        ctx.mark_non_differentiable(*(gradient for i, gradient in enumerate(output) if not ctx.wanted >> i & 1))
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(*tensors, gates, mean, mean_tail, var, seed)
        ctx.save_for_forward(*tensors, gates, mean, mean_tail, var, seed)

    @staticmethod
    def formulas(ctx, results):
        """The gradients of these numbers as a function of the tensors that are there, these
        tensors, and their numbers.
        """
        *tensors, gates, mean, mean_tail, var, seed = ctx.saved_tensors
        statistics = None if mean is None else (mean, mean_tail, var)
        given = [i for i, tensor in enumerate(tensors) if tensor is not None]

        def gradients(*values):
            values = dict(zip(given, values))
            grad, *others = (values.get(i) for i in range(5))
            gradients = _Formulas(*others, gates, statistics, seed, *ctx.options).gradients(grad)
            return tuple(gradients[i].to(others[0].dtype if 1 << i & (INPUT | RESIDUAL) else torch.float32) for i in results)

        return gradients, tuple(tensors[i] for i in given), given

    @staticmethod
    def backward(ctx, *cotangents):
        asked = [i for i, cotangent in enumerate(cotangents) if cotangent is not None]
        gradients, tensors, given = _Backward.formulas(ctx, asked)
        _, pullback = torch.func.vjp(gradients, *tensors)
        found = dict(zip(given, pullback(tuple(cotangents[i] for i in asked))))
        return *(found.get(i) if ctx.needs_input_grad[i] else None for i in range(5)), *(None,) * 15

    @staticmethod
    def jvp(ctx, *tangents):
        wanted = [i for i in range(4) if ctx.wanted >> i & 1]
        gradients, tensors, given = _Backward.formulas(ctx, wanted)
        tangents = tuple(
            torch.zeros_like(tensor) if tangents[i] is None else tangents[i] for i, tensor in zip(given, tensors)
        )
        found = dict(zip(wanted, torch.func.jvp(gradients, tensors, tangents)[1]))
        return tuple(found.get(i) for i in range(4))

    @staticmethod
    def vmap(info, in_dims, *inputs):
        return _one_by_one(backward, info, in_dims, *inputs)


def _one_by_one(operator, info, in_dims, *inputs):
    """The rule of `torch.vmap`: one call after the other, as the statistics, and often the mask,
    are those of one of them.
    """
    results = [
        operator(*(
            argument if dimension is None else argument.select(dimension, i) for argument, dimension in zip(inputs, in_dims)
        ))
        for i in range(info.batch_size)
    ]
    if isinstance(results[0], tuple):
        return tuple(torch.stack(each) for each in zip(*results)), (0,) * len(results[0])
    return torch.stack(results), 0


def _differentiated(function):
    """The kernel that comes before the one for the CPU: nothing but it where nothing is
    differentiated.
    """

    def kernel(*inputs):
        if torch.is_grad_enabled() or torch.autograd.forward_ad._current_level >= 0:
            return function.apply(*inputs)
        return function.forward(*inputs)

    return kernel


for _name, _function in (("train", _Train), ("eval", _Eval), ("backward", _Backward)):
    _library.impl(_name, _differentiated(_function), "Autograd")
for _name, _operator in (("keep", _keep), ("open", _open)):
    torch.library.register_vmap(f"normdrop::{_name}", functools.partial(_one_by_one, _operator), lib=_library)


def _front(operator, function):
    """An operator as it is called: the transforms of `torch.func` take functions, and everything
    else operators.
    """

    def call(*inputs):
        if not torch.compiler.is_compiling() and torch._C._are_functorch_transforms_active():
            transforms = [interpreter.key() for interpreter in torch._C._functorch.get_interpreter_stack()]
            if transforms.count(torch._C._functorch.TransformType.Jvp) > 1:
                # PyTorch 2.15 takes the jvp of any autograd.Function for a constant there, and its
                # second derivative for 0.
                raise NotImplementedError(
                    "forward mode within forward mode, as in jacfwd(jacfwd(f)); torch.func.hessian and jacrev(jacrev(f)) work"
                )
            return function.apply(*inputs)
        return operator(*inputs)

    return call


train, evaluate, backward = _front(_train, _Train), _front(_eval, _Eval), _front(_backward, _Backward)
