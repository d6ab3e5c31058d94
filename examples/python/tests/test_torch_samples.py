"""The samples with which PyTorch tests its own batch norm, dropout and instance norm, run through
this package.

They come with PyTorch, in `torch.testing._internal`: the operators' samples (`op_db`), the modules'
and their errors (`module_db`). What the layer cannot express is counted below by its reason, and so
is what it refuses; a count that changes is a failure, because either PyTorch has new samples or the
layer does something else. The counts are those of PyTorch 2.15.
"""

import collections
import copy

import numpy
import pytest

from conftest import missing

try:
    import torch
    # PyTorch's test utilities need it, and PyTorch does not install it.
    import expecttest
except ImportError:
    missing("torch", "PyTorch or expecttest is not installed")

from torch.testing._internal.common_methods_invocations import op_db
from torch.testing._internal.common_modules import module_db

import normdrop
from normdrop.torch import NormDrop
from normdrop.torch import normdrop as function

ALPHA = "alpha dropout sets dropped elements to a value of its own and shifts the others; here they are 0"
INSTANCE = "instance norm has statistics for each sample; their mean, which it tracks, is not that of a batch"
BACKWARD = "native_dropout_backward takes a mask of bytes and any scale; here the scale is that of p"
ONE_DIMENSION = "a batch norm without a channel dimension"
NOT_EXPRESSED = {ALPHA: 36, INSTANCE: 9 + 36, BACKWARD: 9, ONE_DIMENSION: 4}
# Batch norm, dropout, modules.
EXPRESSED = {"batch norm": 49, "dropout": 45, "module": 44, "error": 12}
# Of them, refused as documented: the momentum is in [0, 1].
REFUSED = 7


def samples():
    """Every sample: the kind, what to run, and the sample; the kind is the reason where the layer
    cannot express it.
    """
    for operator in op_db:
        name = operator.name
        if not any(part in name for part in ("dropout", "batch_norm", "instance_norm")):
            continue
        torch.manual_seed(0)
        for sample in operator.sample_inputs("cpu", torch.float32, requires_grad=True):
            if "alpha" in name:
                kind = ALPHA
            elif "instance" in name:
                kind = INSTANCE
            elif name == "native_dropout_backward":
                kind = BACKWARD
            elif "dropout" in name:
                kind = "dropout"
            else:
                kind = ONE_DIMENSION if sample.input.dim() < 2 else "batch norm"
            yield kind, operator, sample
    for module in module_db:
        name = module.module_cls.__name__
        if "BatchNorm" not in name and "InstanceNorm" not in name and "Dropout" not in name:
            continue
        for training in (True, False):
            arguments = {"device": "cpu", "dtype": torch.float32, "requires_grad": True, "training": training}
            for sample in module.module_inputs_func(module, **arguments):
                yield INSTANCE if "Instance" in name else "module", module, (sample, training)
        if module.module_error_inputs_func is not None and "BatchNorm" in name:
            for training in (True, False):
                arguments["training"] = training
                for sample in module.module_error_inputs_func(module, **arguments):
                    yield "error", module, (sample, training)


ALL = list(samples())


def double(value):
    if isinstance(value, torch.Tensor) and value.is_floating_point():
        return value.detach().double().requires_grad_(value.requires_grad)
    return value


def batch_norm_arguments(name, sample):
    """Those of a sample of any of the five operators, by name."""
    state, parameters, flags = ["running_mean", "running_var"], ["weight", "bias"], ["training", "momentum", "eps"]
    if name == "nn.functional.batch_norm":
        order = state + parameters
    elif name == "_batch_norm_with_update":
        order = parameters + state + flags[1:]
    elif len(sample.args) == 5:
        order = parameters + flags
    else:
        order = parameters + state + flags
    found = {"training": name == "_batch_norm_with_update", **dict(zip(order, sample.args)), **sample.kwargs}
    assert len(sample.args) <= len(order) and not set(found) - {*state, *parameters, *flags}
    return found


def compare(name, ours, theirs, given, exact):
    """Outputs and gradients against those of PyTorch in float64."""
    torch.testing.assert_close(ours.double(), theirs, rtol=1e-5, atol=1e-5)
    grad = torch.randn_like(ours)
    ours_of = [tensor for tensor in given if tensor is not None and tensor.requires_grad]
    exact_of = [tensor for tensor in exact if tensor is not None and tensor.requires_grad]
    assert len(ours_of) == len(exact_of) and ours_of, name
    for got, wanted in zip(torch.autograd.grad(ours, ours_of, grad), torch.autograd.grad(theirs, exact_of, grad.double())):
        torch.testing.assert_close(got.double(), wanted, rtol=1e-4, atol=1e-4)


def run_batch_norm(operator, sample):
    arguments = batch_norm_arguments(operator.name, sample)
    running = [arguments.get(name) for name in ("running_mean", "running_var")]
    copies = [None if each is None else each.clone() for each in running]
    parameters = [arguments.get(name) for name in ("weight", "bias")]
    options = {name: arguments[name] for name in ("training", "momentum", "eps") if name in arguments}
    call = lambda: function(sample.input, *copies, *parameters, **options)
    if options["training"] and running[0] is not None and not 0 <= options.get("momentum", 0.1) <= 1:
        with pytest.raises(ValueError, match="momentum"):
            call()
        assert all(torch.equal(*pair) for pair in zip(running, copies))
        return False
    y = call()
    exact = [double(sample.input), *map(double, sample.args)]
    theirs = operator.op(*exact, **sample.kwargs)
    theirs = theirs[0] if isinstance(theirs, tuple) else theirs
    # By name again: the order of the operators differs.
    of = dict(zip(map(id, sample.args), exact[1:]))
    compare(operator.name, y, theirs, [sample.input, *parameters], [exact[0], *(of.get(id(each)) for each in parameters)])
    for each, before in zip(copies, running):
        if before is not None:
            torch.testing.assert_close(each.double(), of[id(before)], rtol=1e-5, atol=1e-5)
    return True


def run_dropout(operator, sample):
    """Dropout alone is the layer in evaluation with the statistics of a normalised batch, eps = 0,
    and its dropout turned on.
    """
    # The defaults of all three.
    p, training = sample.kwargs.get("p", 0.5), sample.kwargs.get("training", True)
    assert not sample.args and not set(sample.kwargs) - {"p", "training"}
    x, elements = sample.input.detach(), operator.name == "nn.functional.dropout"
    # Elements as they are in memory, whatever the shape; four dimensions are channels without a
    # batch to dropout3d.
    whole = x.reshape(1, -1) if elements else x[None] if operator.name == "nn.functional.dropout3d" and x.dim() == 4 else x
    channels = whole.shape[1]
    y = function(
        whole, torch.zeros(channels), torch.ones(channels), training=False, dropout=training, p=p, eps=0.0, seed=12,
        granularity="element" if elements else "channel",
    ).reshape(x.shape)
    if not training or p == 0:
        assert torch.equal(y, x)
        return True
    bits = whole.numel() if elements else whole.shape[0] * channels
    keep = numpy.unpackbits(normdrop.fill_mask(p, 12, bits), count=bits, bitorder="little").astype(bool)
    keep = torch.from_numpy(keep).reshape(whole.shape if elements else (*whole.shape[:2], *(1,) * (whole.dim() - 2)))
    scale = 1 / (1 - p) if p < 1 else 0.0
    assert torch.equal(y, torch.where(keep, whole * scale, 0.0).reshape(x.shape))
    # PyTorch draws another mask, of as many bits, and does the same with it.
    theirs = operator.op(x, p=p, training=True)
    kept = (theirs != 0).reshape(*keep.shape[: 2], -1)
    assert torch.equal(kept.any(-1), kept.all(-1))
    assert torch.equal(theirs, torch.where(theirs == 0, 0.0, x * scale))
    return True


def constructor(sample, training):
    names = ("num_features", "eps", "momentum", "affine", "track_running_stats")
    arguments = {**dict(zip(names, sample.constructor_input.args)), **sample.constructor_input.kwargs}
    return NormDrop(**arguments).train(training)


def run_module(module, sample, training):
    ours = constructor(sample, training)
    theirs = module.module_cls(*sample.constructor_input.args, **sample.constructor_input.kwargs).double().train(training)
    (x,) = sample.forward_input.args
    for network in (ours, theirs):
        torch.manual_seed(1)
        for parameter in network.parameters():
            parameter.data.copy_(torch.randn(parameter.shape))
        if network.running_var is not None:
            network.running_var.copy_(torch.rand(network.running_var.shape) + 0.5)
            network.running_mean.copy_(torch.randn(network.running_mean.shape))
    before, exact = copy.deepcopy(ours.state_dict()), double(x)
    compare(module.name, ours(x), theirs(exact), [x, *ours.parameters()], [exact, *theirs.parameters()])
    if x.numel() == 0:
        # As documented: nothing is known of an empty batch, and PyTorch stores NaN.
        for name in ("running_mean", "running_var"):
            assert torch.equal(ours.state_dict()[name], before[name])
        return True
    for (name, got), wanted in zip(ours.state_dict().items(), theirs.state_dict().values()):
        torch.testing.assert_close(got.double(), wanted.double(), rtol=1e-5, atol=1e-5, msg=name)
    return True


def run_error(module, sample, training):
    """What PyTorch refuses is refused, by the constructor or by the call; but eps = 0 is good in
    evaluation.
    """
    (x,), eps = sample.module_error_input.forward_input.args, sample.module_error_input.constructor_input.kwargs["eps"]
    if eps == 0 and not training:
        y = constructor(sample.module_error_input, training)(x)
        assert torch.equal(y, x)
        return True
    with pytest.raises(sample.error_type, match="eps"):
        constructor(sample.module_error_input, training)(x)
    return True


RUN = {"batch norm": run_batch_norm, "dropout": run_dropout}


def test_pytorchs_own_samples():
    done, refused = collections.Counter(), 0
    for kind, what, sample in ALL:
        if kind in NOT_EXPRESSED:
            continue
        if kind in RUN:
            refused += not RUN[kind](what, sample)
        else:
            {"module": run_module, "error": run_error}[kind](what, *sample)
        done[kind] += 1
    assert done == EXPRESSED
    assert refused == REFUSED


def test_what_cannot_be_expressed_is_what_is_written_down():
    assert collections.Counter(kind for kind, _, _ in ALL if kind not in EXPRESSED) == NOT_EXPRESSED
