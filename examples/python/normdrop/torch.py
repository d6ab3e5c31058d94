"""The layer as a PyTorch module: batch norm, activation and dropout in one call, forward and backward, on the CPU.

    import torch
    from normdrop.torch import NormDrop

    network = torch.nn.Sequential(torch.nn.Conv2d(3, 64, 3), NormDrop(64, "relu", p=0.1), ...)

It stands for `BatchNorm`, an activation and `Dropout`, and its state has the names of `BatchNorm`, so that a `state_dict` fits both.
Between forward and backward it keeps a mask's seed, not the mask.
"""

import functools

import numpy
import torch

from . import Layer, Saved

__all__ = ["NormDrop", "normdrop"]

# By the number of dimensions: channels first, and the memory order of torch.channels_last and channels_last_3d.
_FIRST = {2: "NC", 3: "NCL", 4: "NCHW", 5: "NCDHW"}
_LAST = {4: ("NHWC", torch.channels_last), 5: ("NDHWC", torch.channels_last_3d)}


@functools.lru_cache(maxsize=256)
def _layer(layout, shape, activation, options):
    return Layer(layout, shape, activation, **dict(options))


class _Order:
    """The memory order of a call's tensors, and how they look to numpy."""

    def __init__(self, x):
        layout, memory = _LAST.get(x.dim(), (None, None))
        self.last = memory is not None and not x.is_contiguous() and x.is_contiguous(memory_format=memory)
        self.layout = layout if self.last else _FIRST[x.dim()]
        self.memory = memory if self.last else torch.contiguous_format
        self.shape = tuple(x.permute(0, *range(2, x.dim()), 1).shape) if self.last else tuple(x.shape)

    def view(self, tensor):
        """The memory of a tensor, in this order; a copy only if it is in another one."""
        if tensor is None:
            return None
        tensor = tensor.detach().contiguous(memory_format=self.memory)
        return (tensor.permute(0, *range(2, tensor.dim()), 1) if self.last else tensor).numpy()

    def tensor(self, array):
        """The other way round."""
        if array is None:
            return None
        tensor = torch.from_numpy(array)
        return tensor.permute(0, tensor.dim() - 1, *range(1, tensor.dim() - 1)) if self.last else tensor


def _numpy(tensor):
    return None if tensor is None else tensor.detach().contiguous().numpy()


def _check(name, tensor, shape=None):
    if tensor is None:
        return
    if tensor.device.type != "cpu" or tensor.dtype != torch.float32:
        raise TypeError(f"{name} must be a float32 tensor on the CPU, not {tensor.dtype} on {tensor.device}")
    if shape is not None and tensor.shape != shape:
        raise ValueError(f"{name} must have the shape {tuple(shape)}, not {tuple(tensor.shape)}")


class _Function(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, weight, bias, residual, running_mean, running_var, batches, batch_statistics, seed, activation, options):
        order = _Order(x)
        layer = _layer(order.layout, order.shape, activation, options)
        arguments = {"weight": _numpy(weight), "bias": _numpy(bias), "residual": order.view(residual)}
        arguments["mask"] = None if seed is None else layer.mask(seed)
        mean, var = _numpy(running_mean), _numpy(running_var)
        if batch_statistics:
            counter = None if batches is None else batches.numpy().view(numpy.uint64)
            y, saved = layer.train(order.view(x), running_mean=mean, running_var=var, batches=counter, **arguments)
            statistics = [torch.from_numpy(values) for values in saved]
            for written in (running_mean, running_var, batches):
                # Autograd must know, or the backward pass of an earlier evaluation would take the new ones unasked.
                if written is not None:
                    torch.autograd.graph.increment_version(written)
        else:
            y = layer.eval(order.view(x), mean, var, **arguments)
            statistics = [running_mean, running_var]
        ctx.save_for_backward(x, weight, bias, residual, *statistics)
        ctx.order, ctx.layer, ctx.seed = order, layer, seed
        return order.tensor(y)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad):
        x, weight, bias, residual, *statistics = ctx.saved_tensors
        order, layer = ctx.order, ctx.layer
        if len(statistics) == 3:
            statistics = {"saved": Saved(*(values.numpy() for values in statistics))}
        else:
            statistics = dict(zip(("running_mean", "running_var"), map(_numpy, statistics)))
        wanted = ctx.needs_input_grad
        gradients = layer.backward(
            order.view(grad), order.view(x), **statistics, weight=_numpy(weight), bias=_numpy(bias), residual=order.view(residual),
            # A pure function of its seed: made again instead of kept.
            mask=None if ctx.seed is None else layer.mask(ctx.seed),
            input_gradient=wanted[0], parameter_gradients=wanted[1] or wanted[2], residual_gradient=wanted[3],
        )
        d_weight = torch.from_numpy(gradients.weight) if wanted[1] else None
        d_bias = torch.from_numpy(gradients.bias) if wanted[2] else None
        return order.tensor(gradients.input), d_weight, d_bias, order.tensor(gradients.residual), *(None,) * 7


# A compiler that traces Python would look for tensors where there are addresses; this call stays as it is between the parts
# that torch.compile makes.
@torch.compiler.disable
def normdrop(x, running_mean=None, running_var=None, weight=None, bias=None, *, residual=None, training=True, activation="identity",
             p=0.0, dropout=None, seed=None, batches=None, **options):
    """`dropout(act(batch_norm(x) + residual))`, differentiable.

    As `torch.nn.functional.batch_norm`: with `training` the statistics are those of the batch, and the running ones are updated if
    they are given. Dropout is on while training unless `dropout` says otherwise; its seed is drawn from PyTorch's generator unless
    it is given. `options` are those of `normdrop.Layer`: eps, momentum, slope, granularity, tasks.
    """
    if not isinstance(x, torch.Tensor) or x.dim() not in _FIRST:
        raise ValueError("x must be a tensor [N, C], [N, C, L], [N, C, H, W] or [N, C, D, H, W]")
    _check("x", x)
    _check("residual", residual, x.shape)
    for name, tensor in (("weight", weight), ("bias", bias), ("running_mean", running_mean), ("running_var", running_var)):
        _check(name, tensor, x.shape[1:2])
    for name, tensor in (("running_mean", running_mean), ("running_var", running_var)):
        if tensor is not None and not tensor.is_contiguous():
            raise ValueError(f"{name} must be contiguous, as it is updated where it is")
    if not training and (running_mean is None or running_var is None):
        raise ValueError("without batch statistics, running_mean and running_var are needed")
    if (training if dropout is None else dropout) and p > 0:
        # Drawn here, so that torch.manual_seed decides about masks as well.
        seed = int(torch.randint(-(2**63), 2**63 - 1, ())) % 2**64 if seed is None else seed
    else:
        seed = None
    options = tuple(sorted({"p": p, **options}.items()))
    return _Function.apply(x, weight, bias, residual, running_mean, running_var, batches, training, seed, activation, options)


class NormDrop(torch.nn.Module):
    """Batch norm, an activation and dropout over the channels of `[N, C, ...]`.

    The arguments are those of `torch.nn.BatchNorm2d`, the activation (of `normdrop.ACTIVATIONS`) and those of dropout: `p`, and
    `granularity`, "element" for `Dropout`, "channel" for `Dropout1d`, `2d` and `3d`, "sample" for stochastic depth.

    `train()` and `eval()` do what they do for `BatchNorm` and `Dropout`. `frozen = True` trains with the running statistics, as
    fine-tuning does; `dropout = True` keeps dropping in evaluation: Monte-Carlo dropout.
    """

    def __init__(self, num_features, activation="identity", p=0.0, *, eps=1e-5, momentum=0.1, affine=True, track_running_stats=True,
                 granularity="element", slope=0.01, tasks=1):
        super().__init__()
        self.num_features, self.activation, self.p, self.momentum = num_features, activation, p, momentum
        self.options = {"eps": eps, "granularity": granularity, "slope": slope, "tasks": tasks}
        if momentum is not None:
            self.options["momentum"] = momentum
        # Mistakes belong here and not into the first batch.
        Layer("NC", (2, num_features), activation, p=p, **self.options)
        self.frozen, self.dropout = False, None
        for name, start in (("weight", torch.ones), ("bias", torch.zeros)):
            self.register_parameter(name, torch.nn.Parameter(start(num_features)) if affine else None)
        for name, start in (("running_mean", torch.zeros), ("running_var", torch.ones)):
            self.register_buffer(name, start(num_features) if track_running_stats else None)
        self.register_buffer("num_batches_tracked", torch.tensor(0) if track_running_stats else None)

    def forward(self, x, residual=None):
        tracked = self.running_mean is not None
        batch_statistics = not tracked or (self.training and not self.frozen)
        y = normdrop(
            x, self.running_mean, self.running_var, self.weight, self.bias, residual=residual, training=batch_statistics,
            activation=self.activation, p=self.p, dropout=self.training if self.dropout is None else self.dropout,
            batches=self.num_batches_tracked if batch_statistics and self.momentum is None else None, **self.options,
        )
        if batch_statistics and tracked and self.momentum is not None:
            self.num_batches_tracked.add_(1)
        return y

    def extra_repr(self):
        options = ", ".join(f"{name}={value}" for name, value in self.options.items())
        return f"{self.num_features}, {self.activation!r}, p={self.p}, {options}"
