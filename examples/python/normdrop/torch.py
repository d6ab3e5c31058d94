"""The layer as a PyTorch module: batch norm, activation and dropout in one call, forward and
backward, on the CPU.

    import torch
    from normdrop.torch import NormDrop

    network = torch.nn.Sequential(torch.nn.Conv2d(3, 64, 3), NormDrop(64, "relu", p=0.1), ...)

It stands for `BatchNorm`, an activation and `Dropout`, and its state has the names of `BatchNorm`,
so that a `state_dict` fits both. Between forward and backward it keeps a mask's seed, not the mask;
with "relu", or dropout alone, a bit for each element instead of the mask and the residual.
"""

import copy
import operator
import sys
from typing import Any, Callable, Literal, Optional, SupportsIndex, Union

import torch
import torch.fx
from torch.nn.modules.batchnorm import _BatchNorm, _LazyNormBase
from torch.nn.parameter import UninitializedBuffer, UninitializedParameter
from torch.overrides import handle_torch_function, has_torch_function

from . import Activation, Granularity, Layer, fold_into_previous
from . import _torch_ops as ops

__all__ = ["LazyNormDrop", "NormDrop", "fuse", "normdrop"]

_DTYPES = (torch.float32, torch.bfloat16, torch.float16)

_Activation = Union[Activation, Literal["prelu"]]


def _check(name: str, tensor: Any, x: torch.Tensor, shape: torch.Size) -> None:
    if tensor is None:
        return
    if not isinstance(tensor, torch.Tensor):
        raise TypeError(f"{name} must be a tensor, not {type(tensor).__name__}")
    if tensor.device.type not in ("cpu", "meta") or tensor.dtype not in _DTYPES:
        raise TypeError(
            f"{name} must be a float32 tensor (or bfloat16 or float16) on the CPU, not {tensor.dtype} on {tensor.device}"
        )
    if tensor.device != x.device:
        raise TypeError(f"{name} is on {tensor.device}, and x is on {x.device}")
    if tensor.shape != shape:
        raise ValueError(f"{name} must have the shape {tuple(shape)}, not {tuple(tensor.shape)}")


def _float(tensor: Optional[torch.Tensor]) -> Optional[torch.Tensor]:
    # Not a conversion that does nothing: a graph that is traced would have it.
    return tensor if tensor is None or tensor.dtype == torch.float32 else tensor.float()


def _seed(seed: Union[SupportsIndex, torch.Tensor], device: torch.device) -> torch.Tensor:
    if isinstance(seed, torch.Tensor):
        if seed.numel() != 1 or seed.dtype.is_floating_point or seed.dtype.is_complex or seed.dtype == torch.bool:
            raise TypeError(f"seed must be a whole number or a tensor of one, not {tuple(seed.shape)} of {seed.dtype}")
        return seed.reshape(())
    # bool is a subclass of int, and True as a seed is a mistake.
    if isinstance(seed, bool) or not hasattr(type(seed), "__index__"):
        raise TypeError(f"seed must be a whole number or a tensor of one, not {type(seed).__name__}")
    seed = operator.index(seed)
    if not 0 <= seed < 2**64:
        raise ValueError(f"seed must be at least 0 and below 2**64, not {seed}")
    return torch.tensor(seed, dtype=torch.int64 if seed < 2**63 else torch.uint64, device=device)


def _again() -> bool:
    """Whether this is a forward pass that is repeated within a backward pass, by
    `torch.utils.checkpoint`.
    """
    # What is compiled is not repeated in Python. A graph task is a running backward pass;
    # torch.utils.checkpoint asks the same way.
    return not torch.compiler.is_compiling() and torch._C._current_graph_task_id() != -1


def normdrop(x: torch.Tensor, running_mean: Optional[torch.Tensor] = None, running_var: Optional[torch.Tensor] = None,
             weight: Optional[torch.Tensor] = None, bias: Optional[torch.Tensor] = None, *, residual: Optional[torch.Tensor] = None,
             training: bool = True, activation: _Activation = "identity", p: float = 0.0, dropout: Optional[bool] = None,
             seed: Union[SupportsIndex, torch.Tensor, None] = None, batches: Optional[torch.Tensor] = None,
             running_mean_tail: Optional[torch.Tensor] = None, eps: float = 1e-5, momentum: Optional[float] = 0.1,
             slope: Union[float, torch.Tensor] = 0.01, alpha: float = 1.0, granularity: Granularity = "element", tasks: int = 1) -> torch.Tensor:
    """`dropout(act(batch_norm(x) + residual))`, differentiable any number of times.

    `x` is `[N, C]`, `[N, C, L]`, `[N, C, H, W]` or `[N, C, D, H, W]`, `residual` has its shape and is added before the
    `activation`, and `weight`, `bias`, `running_mean` and `running_var` are `[C]`.

    As `torch.nn.functional.batch_norm`, with its `eps` and `momentum`: with `training` the statistics are those of the batch, and
    the running ones are updated if they are given. `batches`, a tensor of one whole number, counts
    the updates, and with `momentum=None` the running statistics are the mean of all batches. Where
    `torch.utils.checkpoint` repeats a forward pass, nothing is updated a second time.
    `running_mean_tail`, zeros at first, holds what `running_mean` as a float32 leaves out.

    Dropout, with the probability `p` to drop, is on while training unless `dropout` says otherwise. Its `seed`, at least 0 and below
    2**64, is drawn from PyTorch's generator unless it is given, as a number or a tensor. The mask of
    a seed is in the order of the memory: the same values in `torch.channels_last` have another one.
    `granularity`, `slope`, `alpha` and `tasks` are those of `normdrop.Layer`.

    With "prelu", `slope` is a tensor, `[C]` or `[1]`, and gets its gradient. `torch.nn.functional.prelu` comes after the layer then,
    which is the same function because dropout multiplies by a number above 0; a dropped element is 0 with the sign of its slope.

    `x` and `residual` may be bfloat16 or float16. They are read where they are, everything in between
    is computed in float32, and the output, which has the type of x, and the gradients are rounded
    once. Parameters and statistics of these types are converted.
    """
    tensors = (x, running_mean, running_var, weight, bias, residual, running_mean_tail, slope)
    if has_torch_function(tensors):
        overridden: torch.Tensor = handle_torch_function(
            normdrop, tensors, x, running_mean, running_var, weight, bias, residual=residual, training=training,
            activation=activation, p=p, dropout=dropout, seed=seed, batches=batches, running_mean_tail=running_mean_tail, eps=eps,
            momentum=momentum, slope=slope, alpha=alpha, granularity=granularity, tasks=tasks,
        )
        return overridden
    if not isinstance(x, torch.Tensor) or x.dim() not in ops.FIRST:
        raise ValueError("x must be a tensor [N, C], [N, C, L], [N, C, H, W] or [N, C, D, H, W]")
    _check("x", x, x, x.shape)
    _check("residual", residual, x, x.shape)
    state = {"running_mean": running_mean, "running_mean_tail": running_mean_tail, "running_var": running_var}
    for name, tensor in {"weight": weight, "bias": bias, **state}.items():
        _check(name, tensor, x, x.shape[1:2])
    if running_mean_tail is not None and any(tensor is None or tensor.dtype != torch.float32 for tensor in state.values()):
        raise TypeError("running_mean_tail is for a running_mean and running_var in float32")
    if activation == "prelu":
        if not isinstance(slope, torch.Tensor):
            raise TypeError(f"with prelu, slope must be a tensor, not {type(slope).__name__}")
        if slope.shape not in (x.shape[1:2], (1,)):
            raise ValueError(f"slope must have the shape ({x.shape[1]},) or (1,), not {tuple(slope.shape)}")
        _check("slope", slope, x, slope.shape)
        # Halves become float32 before, so that they are rounded once, after PReLU.
        linear = normdrop(
            x.float(), running_mean, running_var, weight, bias, residual=_float(residual), training=training, p=p, dropout=dropout, seed=seed, batches=batches,
            running_mean_tail=running_mean_tail, eps=eps, momentum=momentum, granularity=granularity, tasks=tasks,
        )
        return torch.nn.functional.prelu(linear, slope.float()).to(x.dtype)
    if isinstance(slope, torch.Tensor):
        raise TypeError(f"with {activation}, slope must be a number; a tensor of slopes is for prelu")
    p = float(p)
    drawn = None if seed is None else _seed(seed, x.device)
    if not (training if dropout is None else dropout) or p == 0:
        drawn = None
    elif drawn is None:
        # Drawn here, so that torch.manual_seed decides about masks as well.
        drawn = torch.randint(2**63 - 1, (), device=x.device)
    options = (drawn, activation, granularity, p, float(eps), float(slope), float(alpha), int(tasks))
    gated = ops.gated(activation, drawn)
    if residual is not None and residual.dtype != x.dtype:
        # The operators have one type for both. A type that has the values of both loses nothing.
        common = torch.promote_types(x.dtype, residual.dtype)
        given, x, residual = x.dtype, x.to(common), residual.to(common)
    else:
        given = x.dtype
    inputs = (x, *map(_float, (weight, bias)), residual, *map(_float, state.values()))
    if not training:
        if running_mean is None or running_var is None:
            raise ValueError("without batch statistics, running_mean and running_var are needed")
        y: torch.Tensor = ops.evaluate(*inputs, *options, gated)[0]
        return y if y.dtype == given else y.to(given)
    tracked = running_mean is not None or running_var is not None
    if momentum is None and tracked and batches is None:
        raise ValueError("momentum=None, the mean of all batches, needs their number, batches")
    if not tracked:
        # Not used, so that it is no reason to refuse anything.
        momentum = 0.0
    cumulative = batches if momentum is None else None
    y, _, _, running, _ = ops.train(*inputs, cumulative, *options, 0.0 if momentum is None else float(momentum), gated)
    if tracked and not _again():
        try:
            for tensor, new in zip([tensor for tensor in state.values() if tensor is not None], running):
                tensor.copy_(new)
        except RuntimeError as error:
            if "vmap" not in str(error):
                raise
            raise RuntimeError(
                "in torch.vmap each part of the batch has running statistics of its own, and there is one tensor for all of them: "
                "set track_running_stats=False, or see torch.func.replace_all_batch_norm_modules_"
            ) from error
        if batches is not None:
            batches.add_(1)
    return y if y.dtype == given else y.to(given)


def _called_by(*functions: str) -> bool:
    """Whether the caller of the attribute's getter is one of these functions of PyTorch.

    They take any `_BatchNorm` apart by its attributes and call no method of it, so that a module
    can only know them by name.
    """
    return not torch.compiler.is_compiling() and sys._getframe(2).f_code.co_name in functions


class _QConfig:
    """The attribute that `convert_sync_batchnorm` looks for; no other attribute of a module is
    asked for by that function alone.

    Without `__set__`, so that a value that is stored in the module comes first.
    """

    def __get__(self, layer: "Optional[NormDrop]", owner: "Optional[type[NormDrop]]" = None) -> Any:
        # What is converted in evaluation may be trained afterwards.
        if layer is not None and _called_by("convert_sync_batchnorm") and (layer.frozen or layer._has_more_than_batch_norm(layer.p)):
            raise RuntimeError(
                "SyncBatchNorm.convert_sync_batchnorm would replace NormDrop by a batch norm without its activation, its dropout, "
                "its mean_tail, and frozen; normdrop.distributed.SyncNormDrop.convert keeps them"
            )
        raise AttributeError("qconfig")


class NormDrop(_BatchNorm):
    """Batch norm, an activation and dropout over the channels of `[N, C, ...]`.

    The arguments are those of `torch.nn.BatchNorm2d`, the activation (of `normdrop.ACTIVATIONS`)
    and those of dropout: `p`, and `granularity`, "element" for `Dropout`, "channel" for
    `Dropout1d`, `2d` and `3d`, "sample" for stochastic depth. They are attributes as well, and what
    is set after construction counts from the next call on.

    The activation may be "prelu" as well, `torch.nn.PReLU`. Its parameter is `slope`: one value for all channels, 0.25 unless `slope`
    is another number, or those of a tensor of `num_features` values.

    `train()` and `eval()` do what they do for `BatchNorm` and `Dropout`. `frozen = True` trains
    with the running statistics, as fine-tuning does; `dropout = True` keeps dropping in evaluation:
    Monte-Carlo dropout.

    It is a `_BatchNorm` to everything that asks: `torch.optim.swa_utils.update_bn`,
    `torch.func.replace_all_batch_norm_modules_`, mixed precision of FSDP, loops that freeze batch
    norm. `eval()` on the layer alone, as in such loops, turns its dropout off as well; `frozen =
    True` does not.

    A running mean in one float32 stops moving within `2**-24*abs(mean)/momentum` of its limit, here
    as in PyTorch. With `mean_tail=True` the layer has one more buffer, `running_mean_tail`, and
    evaluation stays as exact as training where the mean is large beside the standard deviation. It
    is in the `state_dict`, as evaluation would change after loading otherwise; a `state_dict`
    without it loads as zeros. Set it to 0 where you write `running_mean` yourself.
    """

    running_mean_tail: Optional[torch.Tensor]

    def __init__(self, num_features: int, activation: _Activation = "identity", p: float = 0.0, *, eps: float = 1e-5,
                 momentum: Optional[float] = 0.1, affine: bool = True, track_running_stats: bool = True, bias: bool = True,
                 granularity: Granularity = "element", slope: Union[float, torch.Tensor, None] = None, alpha: float = 1.0, tasks: int = 1, mean_tail: bool = False,
                 device: Union[torch.device, str, None] = None, dtype: Optional[torch.dtype] = None) -> None:
        if mean_tail and dtype not in (None, torch.float32):
            raise TypeError(f"mean_tail is for running statistics in float32, not {dtype}")
        if dtype is not None and dtype not in _DTYPES:
            raise TypeError(f"dtype must be float32, bfloat16 or float16, not {dtype}")
        # Mistakes belong here and not into the first batch. The momentum is looked at where it is
        # used, in training.
        if activation == "prelu":
            slopes = torch.as_tensor(0.25 if slope is None else slope, dtype=dtype or torch.get_default_dtype(), device=device).detach()
            slopes = slopes.reshape(1) if slopes.dim() == 0 else slopes.clone()
            if slopes.shape not in ((1,), (num_features,)) and num_features:
                raise ValueError(f"slope must have one value or {num_features}, not the shape {tuple(slopes.shape)}")
            known: Activation = "identity"
            number = 0.01
        elif isinstance(slope, torch.Tensor):
            raise TypeError(f"with {activation}, slope must be a number; a tensor of slopes is for prelu")
        else:
            known = activation
            number = 0.01 if slope is None else slope
        Layer("NC", (2, num_features), known, p=p, eps=eps, granularity=granularity, slope=number, alpha=alpha, tasks=tasks)
        super().__init__(num_features, eps, momentum, affine, track_running_stats, device, dtype)
        if not bias:
            self.register_parameter("bias", None)
        mean = self.running_mean if mean_tail else None
        self.register_buffer("running_mean_tail", None if mean is None else torch.zeros_like(mean))
        self.activation: _Activation = activation
        self.p = p
        self.granularity: Granularity = granularity
        self.slope: Union[float, torch.Tensor] = torch.nn.Parameter(slopes) if activation == "prelu" else number
        self.alpha = alpha
        self.tasks = tasks
        self.frozen = False
        self.dropout: Optional[bool] = None

    qconfig = _QConfig()

    @property
    def eps(self) -> float:
        """What is added to the variance."""
        if _called_by("fuse_conv_bn_eval", "fuse_linear_bn_eval") and self._has_more_than_batch_norm(self.dropout and self.p):
            raise RuntimeError(
                "torch.nn.utils.fusion would lose the activation, dropout=True and mean_tail of NormDrop; normdrop.torch.fuse keeps the "
                "activation and mean_tail"
            )
        return self._eps

    @eps.setter
    def eps(self, eps: float) -> None:
        self._eps = eps

    def _has_more_than_batch_norm(self, dropping: object) -> bool:
        return bool(self.activation != "identity" or dropping or self.running_mean_tail is not None)

    def forward(self, x: torch.Tensor, residual: Optional[torch.Tensor] = None) -> torch.Tensor:
        """The layer on `x`, `[N, C, ...]`, with a `residual` of its shape, or without."""
        proxy: Any = x
        if isinstance(proxy, torch.fx.Proxy):
            # A leaf of the graph, as the modules of torch.nn are: it still follows train() and
            # eval().
            tracer: Any = proxy.tracer
            node: torch.Tensor = tracer.create_proxy("call_module", tracer.path_of_module(self), (x, residual), {})
            return node
        tracked = self.running_mean is not None or self.running_var is not None
        if self.frozen and not tracked:
            raise ValueError("a frozen layer needs running statistics, and this one has none")
        training = not tracked or (self.training and not self.frozen)
        # As in BatchNorm: what is not tracked any more is left alone in training, and used in
        # evaluation; and without a counter there is no mean of all batches.
        used = not training or self.track_running_stats
        mean, var = (self.running_mean, self.running_var) if used else (None, None)
        momentum = 0.0 if self.momentum is None and self.num_batches_tracked is None else self.momentum
        return normdrop(
            x, mean, var, self.weight, self.bias, residual=residual, training=training, activation=self.activation, p=self.p,
            dropout=self.training if self.dropout is None else self.dropout, batches=self.num_batches_tracked,
            running_mean_tail=None if mean is None else self.running_mean_tail, eps=self._eps, momentum=momentum, slope=self.slope, alpha=self.alpha,
            granularity=self.granularity, tasks=self.tasks,
        )

    def reset_running_stats(self) -> None:
        """The running statistics of a new layer; refused while it is frozen, as nothing would move
        them away from there.
        """
        # Not there yet while the base class is made.
        if self.__dict__.get("frozen", False):
            raise RuntimeError("the running statistics of a frozen layer are not reset: set frozen = False first")
        super().reset_running_stats()
        tail = self._buffers.get("running_mean_tail")
        if tail is not None:
            tail.zero_()

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *others: Any) -> None:
        # What is stored of a BatchNorm, or of a layer without the tail, has a running mean of one
        # float32.
        key = prefix + "running_mean_tail"
        if self.running_mean_tail is not None and prefix + "running_mean" in state_dict and key not in state_dict:
            state_dict[key] = torch.zeros_like(state_dict[prefix + "running_mean"])
        super()._load_from_state_dict(state_dict, prefix, *others)

    def extra_repr(self) -> str:
        slope = f"{len(self.slope)} learned" if isinstance(self.slope, torch.Tensor) else self.slope
        return (
            f"{self.num_features}, {self.activation!r}, p={self.p}, eps={self._eps}, momentum={self.momentum}, affine={self.affine}, "
            f"bias={self.bias is not None}, track_running_stats={self.track_running_stats}, granularity={self.granularity!r}, "
            f"slope={slope}, alpha={self.alpha}, tasks={self.tasks}, mean_tail={self.running_mean_tail is not None}, frozen={self.frozen}, dropout={self.dropout}"
        )


class LazyNormDrop(_LazyNormBase, NormDrop):
    """A `NormDrop` that takes its `num_features` from the first batch, as
    `torch.nn.LazyBatchNorm2d` does.
    """

    cls_to_become = NormDrop

    def __init__(self, activation: _Activation = "identity", p: float = 0.0, *, affine: bool = True, track_running_stats: bool = True,
                 bias: bool = True, mean_tail: bool = False, device: Union[torch.device, str, None] = None,
                 dtype: Optional[torch.dtype] = None, eps: float = 1e-5, momentum: Optional[float] = 0.1,
                 granularity: Granularity = "element", slope: Union[float, torch.Tensor, None] = None, alpha: float = 1.0, tasks: int = 1) -> None:
        # Past the constructor of _LazyNormBase, which knows no other arguments than those of
        # BatchNorm.
        super(_LazyNormBase, self).__init__(
            0, activation, p, affine=False, track_running_stats=False, bias=False, device=device, dtype=dtype, eps=eps,
            momentum=momentum, granularity=granularity, slope=slope, alpha=alpha, tasks=tasks,
        )
        self.affine, self.track_running_stats = affine, track_running_stats
        # Their stubs have no arguments.
        parameter: Any = UninitializedParameter
        buffer: Any = UninitializedBuffer
        if affine:
            self.weight = parameter(device=device, dtype=dtype)
            if bias:
                self.bias = parameter(device=device, dtype=dtype)
        if track_running_stats:
            for name in ("running_mean", "running_var", *(("running_mean_tail",) if mean_tail else ())):
                setattr(self, name, buffer(device=device, dtype=dtype))
            self.num_batches_tracked = torch.tensor(0, device=device)

    def initialize_parameters(self, x: torch.Tensor, residual: Optional[torch.Tensor] = None) -> None:
        """Makes the parameters for the channels of `x`; `residual` has no part in that."""
        if isinstance(self.running_mean_tail, UninitializedBuffer):
            self.running_mean_tail.materialize((x.shape[1],))
        super().initialize_parameters(x)
        # The base class sets the number only if the tensors are not there; a state_dict that was
        # loaded before the first batch has filled them.
        self.num_features = next(
            (tensor.shape[0] for tensor in (self.weight, self.running_mean) if tensor is not None), x.shape[1]
        )


_ACTIVATIONS: dict[str, Callable[[], torch.nn.Module]] = {
    "relu": torch.nn.ReLU, "relu6": torch.nn.ReLU6, "hard_swish": torch.nn.Hardswish, "sigmoid": torch.nn.Sigmoid,
    "tanh": torch.nn.Tanh, "silu": torch.nn.SiLU, "gelu_tanh": lambda: torch.nn.GELU(approximate="tanh"), "gelu": torch.nn.GELU,
    "selu": torch.nn.SELU, "mish": torch.nn.Mish, "softplus": torch.nn.Softplus,
}


def _array(tensor: Optional[torch.Tensor]) -> Any:
    return None if tensor is None else tensor.detach().float().contiguous().numpy()


def fuse(linear: torch.nn.Module, layer: NormDrop) -> torch.nn.Module:
    """A linear or convolution layer that does the work of the `NormDrop` after it, for evaluation,
    and the activation behind it.

    As `torch.nn.utils.fusion.fuse_conv_bn_eval`, for `Linear`, `Conv1d` to `3d` and
    `ConvTranspose1d` to `3d` with any groups: both must be in evaluation, and neither is changed.
    Returns one module: the new layer, followed by the activation if there is one.
    """
    # Of several classes, whose attributes Module does not have.
    module: Any = linear
    transposed = isinstance(linear, torch.nn.modules.conv._ConvTransposeNd)
    if not transposed and not isinstance(linear, (torch.nn.Linear, torch.nn.modules.conv._ConvNd)):
        raise TypeError(f"{type(linear).__name__} is no linear or convolution layer")
    if not isinstance(layer, NormDrop):
        raise TypeError(f"{type(layer).__name__} is no NormDrop")
    if module._parameters.get("weight") is None:
        raise ValueError(
            "the weight is computed from other parameters: make it a parameter first, by torch.nn.utils.parametrize.remove_parametrizations"
        )
    if module.training or layer.training:
        raise ValueError("layers are fused for evaluation: call eval() first")
    if layer.running_mean is None or layer.running_var is None:
        raise ValueError("a layer without running statistics cannot be fused")
    if layer.dropout and layer.p:
        raise ValueError("a layer that drops in evaluation, dropout=True, cannot be fused")
    axes = {2: "", 3: "L", 4: "HW", 5: "DHW"}[module.weight.dim()]
    outputs = module.out_channels if axes else module.out_features
    if outputs != layer.num_features:
        raise ValueError(f"{outputs} outputs and {layer.num_features} features do not fit")
    weight = module.weight.detach().float().contiguous().clone()
    bias = torch.zeros(outputs) if module.bias is None else module.bias.detach().float().clone()
    mean, mean_tail, var, scale, shift = map(
        _array, (layer.running_mean, layer.running_mean_tail, layer.running_var, layer.weight, layer.bias)
    )
    fold_into_previous(
        weight.numpy(), bias.numpy(), mean, var, layout=("IO" if transposed else "OI") + axes, groups=module.groups if axes else 1,
        weight=scale, shift=shift, eps=layer._eps, running_mean_tail=mean_tail,
    )
    fused = copy.deepcopy(linear)
    for name, tensor in (("weight", weight), ("bias", bias)):
        setattr(fused, name, torch.nn.Parameter(tensor.to(module.weight.dtype), module.weight.requires_grad))
    if layer.activation == "identity":
        return fused
    slope = layer.slope
    if isinstance(slope, torch.Tensor):
        slopes = slope.detach().to(module.weight.dtype)
        prelu = torch.nn.PReLU(len(slopes), device=slopes.device, dtype=slopes.dtype)
        prelu.weight = torch.nn.Parameter(slopes.clone(), slope.requires_grad)
        return torch.nn.Sequential(fused, prelu).eval()
    make = {
        **_ACTIVATIONS, "leaky_relu": lambda: torch.nn.LeakyReLU(slope), "elu": lambda: torch.nn.ELU(layer.alpha),
    }[layer.activation]
    return torch.nn.Sequential(fused, make()).eval()
