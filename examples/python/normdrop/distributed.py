"""Synchronised batch norm for `torch.distributed`: the statistics are those of the batches of all processes together.

    from normdrop.distributed import SyncNormDrop

    network = SyncNormDrop.convert(network)                             # each NormDrop in it
    network = torch.nn.parallel.DistributedDataParallel(network)

On the CPU, with the backend gloo; `torch.nn.SyncBatchNorm` is for GPUs alone. Every process gets the same bits of the statistics,
in every run, because each merges the moments of all processes in the order of their ranks.
"""

from typing import Any, Optional

import numpy
import torch
import torch.distributed
from torch.autograd.function import once_differentiable

from . import Granularity, Saved, fill_mask, merge_moments, merge_sums
from . import _torch_ops as ops
from .torch import NormDrop, _Activation, _again, _array, _check, _float

__all__ = ["SyncNormDrop"]

Group = Any  # torch.distributed.ProcessGroup, which a PyTorch without torch.distributed does not have


def _gathered(values: "numpy.ndarray[Any, numpy.dtype[numpy.float64]]", group: Group) -> Any:
    """The values of every process, a row each in the order of ranks."""
    part = torch.from_numpy(values)
    parts = [torch.empty_like(part) for _ in range(torch.distributed.get_world_size(group))]
    torch.distributed.all_gather(parts, part, group=group)
    return torch.stack(parts).numpy()


class _Sync(torch.autograd.Function):
    """The training call of this process' part of a batch."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, weight: Any, bias: Any, residual: Any, state: Any, group: Group, seed: Any,
                options: Any, momentum: Any) -> torch.Tensor:
        order: Any = ops._Order(x)
        options = (*options[:2], ops.probability(options[2], seed), *options[3:])
        layer = order.layer(*options[:4], momentum or 0.0, *options[4:])
        moments = layer.moments(order.array(x))
        # The samples of the part, and a seed as it is, not converted: nothing is computed with what is gathered.
        own = numpy.array([x.shape[0], 0.0])
        own[1:].view(numpy.int64)[0] = -1 if seed is None else seed
        every = _gathered(numpy.concatenate([moments, own]), group)
        merged = numpy.zeros_like(moments)
        for part in every:
            merge_moments(merged, part[:-2].copy())
        saved = layer.finish(merged, **state)

        mask = None
        if seed is not None:
            # One mask for the whole batch, that of the first process' seed, of which this is a part.
            rank = torch.distributed.get_rank(group)
            before = int(every[:rank, -2].sum())
            a_sample = {"element": x[:1].numel() if len(x) else 0, "channel": x.shape[1], "sample": 1}[options[1]]
            mask = fill_mask(options[2], every[:1, -1].view(numpy.int64)[0], layer.mask_bits, first=before * a_sample)
        y: torch.Tensor
        y, out = order.like(x)
        # In a function there is no gradient mode: whether there will be a backward call is in what needs a gradient.
        gates = ops.gates_of(layer, mask) if layer.has_gates and any(ctx.needs_input_grad) else None
        layer.apply(
            order.array(x), saved, weight=_array(weight), bias=_array(bias), residual=order.array(residual), mask=mask, gates=gates, out=out
        )
        # Gates, or a mask, are a bit for each element. With gates, nothing else is needed.
        ctx.save_for_backward(x, weight, bias, None if layer.has_gates else residual)
        ctx.layer, ctx.order, ctx.group, ctx.saved, ctx.gates, ctx.mask = layer, order, group, saved, gates, mask
        ctx.samples = merged[0] if len(merged) else 0.0
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: torch.Tensor) -> Any:
        x, weight, bias, residual = ctx.saved_tensors
        layer, order = ctx.layer, ctx.order
        arrays = {"weight": _array(weight), "bias": _array(bias), "residual": order.array(residual)}
        arrays.update({"gates": ctx.gates} if layer.has_gates else {"mask": ctx.mask})
        grad, values = order.array(grad), order.array(x)
        saved: Saved = ctx.saved
        sums = layer.reduce(grad, values, saved, **arrays)
        # The gradients of the parameters are those of the part: data-parallel training adds up those of all processes.
        d_weight, d_bias = (torch.from_numpy(values) for values in layer.finish_gradients(sums))
        merged = numpy.zeros_like(sums)
        for part in _gathered(sums, ctx.group):
            merge_sums(merged, part)
        dx, out = order.like(x)
        d_residual = None
        if ctx.samples > 0:
            gradients = layer.apply_gradient(
                grad, values, saved, merged, ctx.samples, **arrays, out=out, residual_gradient=ctx.needs_input_grad[3],
            )
            d_residual = None if gradients.residual is None else order.tensor(gradients.residual)
        elif ctx.needs_input_grad[3]:
            d_residual = torch.empty_like(x)  # without elements
        needed = ctx.needs_input_grad
        return dx if needed[0] else None, d_weight if needed[1] else None, d_bias if needed[2] else None, d_residual, *(None,) * 5


class SyncNormDrop(NormDrop):
    """A `NormDrop` whose training statistics are those of the batches of all processes of `process_group` together.

    The arguments are those of `NormDrop`, and `process_group`, all processes by default. As in `torch.nn.SyncBatchNorm`, every
    process of the group has to make the call, a process with an empty batch as well; the gradients of weight and bias are those of
    the process' own batch, which `DistributedDataParallel` averages; and evaluation, frozen training and a single process need no
    other process.

    Tensors of bfloat16 and float16 are read and written as they are, with the results of float32, rounded once, as in `NormDrop`.
    What the processes exchange is float64 in any case.

    The batches of the processes may have different numbers of samples. The mask is that of the whole batch, in the order of ranks,
    from the seed of the first process: with the same seed, the same elements are dropped for every number of processes.

    There are first derivatives only. In a function given to `torch.compile` a call ends the graph.
    """

    def __init__(self, num_features: int, activation: _Activation = "identity", p: float = 0.0, *, eps: float = 1e-5,
                 momentum: Optional[float] = 0.1, affine: bool = True, track_running_stats: bool = True, bias: bool = True,
                 granularity: Granularity = "element", slope: Any = None, alpha: float = 1.0, tasks: int = 1, mean_tail: bool = False,
                 device: Any = None, dtype: Optional[torch.dtype] = None, process_group: Group = None) -> None:
        super().__init__(
            num_features, activation, p, eps=eps, momentum=momentum, affine=affine, track_running_stats=track_running_stats,
            bias=bias, granularity=granularity, slope=slope, alpha=alpha, tasks=tasks, mean_tail=mean_tail, device=device, dtype=dtype,
        )
        self.process_group = process_group

    @classmethod
    def convert(cls, module: torch.nn.Module, process_group: Group = None) -> torch.nn.Module:
        """The `module` with a `SyncNormDrop` of `process_group` for each `NormDrop`, with its parameters, statistics and options, as
        `torch.nn.SyncBatchNorm.convert_sync_batchnorm` does it for `BatchNorm`.
        """
        if isinstance(module, NormDrop) and not isinstance(module, SyncNormDrop):
            if type(module) is not NormDrop:
                # A lazy layer, or one whose own methods would be lost.
                raise TypeError(f"convert takes NormDrop alone, not {type(module).__name__}; a LazyNormDrop becomes one by its first batch")
            converted = cls.__new__(cls)
            vars(converted).update(vars(module))
            converted.process_group = process_group
            return converted
        # Not named_children, which has a layer that is used twice only once.
        for name, child in module._modules.items():
            if child is not None:
                module._modules[name] = cls.convert(child, process_group)
        return module

    def forward(self, x: torch.Tensor, residual: Optional[torch.Tensor] = None) -> torch.Tensor:
        """The layer on this process' part `x` of the batch, `[N, C, ...]`, with a `residual` of its shape, or without."""
        alone = not torch.distributed.is_initialized() or torch.distributed.get_world_size(self.process_group) == 1
        if alone or not self.training or self.frozen:
            return super().forward(x, residual)
        y: torch.Tensor = self._synchronised(x, residual)
        return y

    @torch.compiler.disable  # type: ignore[untyped-decorator]
    def _synchronised(self, x: torch.Tensor, residual: Optional[torch.Tensor]) -> torch.Tensor:
        if not isinstance(x, torch.Tensor) or x.dim() not in ops.FIRST:
            raise ValueError("x must be a tensor [N, C], [N, C, L], [N, C, H, W] or [N, C, D, H, W]")
        _check("x", x, x, x.shape)
        _check("residual", residual, x, x.shape)
        if x.shape[1] != self.num_features:
            raise ValueError(f"x must have {self.num_features} channels, not {x.shape[1]}")
        dropping = self.p != 0 and (self.training if self.dropout is None else self.dropout)
        seed = int(torch.randint(2**63 - 1, ())) if dropping else None
        state: dict[str, Any] = {}
        tracked = self.running_mean is not None and self.track_running_stats and not _again()
        buffers = {"running_mean": self.running_mean, "running_var": self.running_var, "running_mean_tail": self.running_mean_tail}
        counter = self.num_batches_tracked
        if tracked:
            state = {name: _array(buffer).copy() for name, buffer in buffers.items() if buffer is not None}
            if self.momentum is None and counter is not None:
                state["batches"] = ops._counter(counter)
        slopes = self.slope if isinstance(self.slope, torch.Tensor) else None
        # PReLU comes after the layer, as in NormDrop.
        activation, slope = (self.activation, float(self.slope)) if slopes is None else ("identity", 0.01)
        options = (activation, self.granularity, float(self.p), float(self._eps), slope, float(self.alpha), int(self.tasks))
        momentum = 0.0 if not tracked or self.momentum is None and counter is None else self.momentum
        given = x.dtype
        if slopes is not None:
            # Rounded once, after PReLU.
            x, residual = x.float(), _float(residual)
        if residual is not None and residual.dtype != x.dtype:
            # As in NormDrop: a type that has the values of both loses nothing.
            common = torch.promote_types(x.dtype, residual.dtype)
            x, residual = x.to(common), residual.to(common)
        y: torch.Tensor = _Sync.apply(
            x, *map(_float, (self.weight, self.bias)), residual, state, self.process_group, seed, options, momentum
        )
        if tracked:
            for name, buffer in buffers.items():
                if buffer is not None:
                    buffer.copy_(torch.from_numpy(state[name]))
            if counter is not None:
                counter.add_(1)
        if slopes is not None:
            y = torch.nn.functional.prelu(y, slopes.float())
        return y if y.dtype == given else y.to(given)
