"""The PyTorch module against PyTorch, within the documented bounds, on random shapes.

PyTorch computes the exact results, in float64 from the same float32 numbers, and its autograd the exact gradients. The bounds are
those of the crate: 4 u for the output and 5 u for the gradient of the input, with u = 2^-24, of the scales that
`tests/contracts/accuracy.rs` states.
"""

import copy
import gc
import io
import math
import shutil
import warnings
import weakref

import numpy
import pytest

from conftest import missing

try:
    import torch
except ImportError:
    missing("torch", "PyTorch is not installed")

import normdrop
from normdrop import _torch_ops as ops
from normdrop.torch import LazyNormDrop, NormDrop, fuse
from normdrop.torch import normdrop as function
from torch.nn.modules.batchnorm import _BatchNorm

U = 2.0**-24
SLOPE, ALPHA = 0.25, 0.75
ACTIVATIONS = {
    "identity": lambda z: z,
    "relu": torch.relu,
    "relu6": torch.nn.functional.relu6,
    "leaky_relu": lambda z: torch.nn.functional.leaky_relu(z, SLOPE),
    "hard_swish": torch.nn.functional.hardswish,
    "sigmoid": torch.sigmoid,
    "tanh": torch.tanh,
    "silu": torch.nn.functional.silu,
    "gelu_tanh": lambda z: torch.nn.functional.gelu(z, approximate="tanh"),
    "gelu": torch.nn.functional.gelu,
    "elu": lambda z: torch.nn.functional.elu(z, ALPHA),
    "selu": torch.nn.functional.selu,
    "mish": torch.nn.functional.mish,
    "softplus": torch.nn.functional.softplus,
}
# The largest slope and curvature of each activation that rounds, as `normdrop_reference::activation` has them.
STEEPEST = {"leaky_relu": 1, "relu6": 1, "hard_swish": 1.5, "sigmoid": 0.25, "tanh": 1, "silu": 1.1, "gelu_tanh": 1.13,
            "gelu": 1.13, "elu": 1, "selu": 1.7581, "mish": 1.09, "softplus": 1}
CURVATURE = {"hard_swish": 1 / 3, "sigmoid": 0.0963, "tanh": 0.77, "silu": 0.5, "gelu_tanh": 0.8, "gelu": 0.8, "elu": ALPHA,
             "selu": 1.7581, "mish": 0.645, "softplus": 0.25}


def random_shape(random, dimensions):
    return tuple(int(size) for size in random.integers(2, [None, 40, 20, 12, 8, 6][dimensions], dimensions))


def channels_last(x):
    return x.contiguous(memory_format=torch.channels_last if x.dim() == 4 else torch.channels_last_3d)


class Case:
    """A layer, its inputs, and what PyTorch in float64 makes of them."""

    def __init__(self, seed, dimensions, activation, mode, last=False, offset=0.0, plain=False):
        random, self.mode = numpy.random.default_rng(seed), mode
        torch.manual_seed(seed)
        shape = random_shape(random, dimensions)
        self.channels = shape[1]
        self.layer = NormDrop(self.channels, activation, p=0.0 if plain else 0.3, slope=SLOPE, alpha=ALPHA, eps=1e-5)
        for parameter in self.layer.parameters():
            parameter.data = torch.randn(self.channels)
        self.layer.running_mean.copy_(torch.randn(self.channels) + offset)
        self.layer.running_var.copy_(torch.rand(self.channels) + 0.5)
        # A little of every kind of value: dropout is on in training and with fixed statistics.
        self.layer.train(mode != "eval")
        self.layer.frozen = mode == "frozen"
        order = channels_last if last else lambda x: x
        self.x, self.residual, self.grad = (order(torch.randn(shape)) for _ in range(3))
        self.x += offset
        for tensor in (self.x, self.residual):
            tensor.requires_grad_()
        self.before = copy.deepcopy(self.layer)
        self.state = torch.get_rng_state()
        self.y = self.layer(self.x, self.residual)
        self.y.backward(self.grad)
        self.keep = self.mask()

    def mask(self):
        """The mask that the layer drew, made again from the seed that PyTorch's generator gave it."""
        if self.mode == "eval" or self.layer.p == 0:
            return torch.ones(self.x.shape, dtype=torch.bool)
        torch.set_rng_state(self.state)
        seed = int(torch.randint(2**63 - 1, ()))
        last = self.x.dim() > 3 and not self.x.is_contiguous()
        shape = (self.x.shape[0], *self.x.shape[2:], self.x.shape[1]) if last else tuple(self.x.shape)
        bits = numpy.unpackbits(normdrop.fill_mask(self.layer.p, seed, self.x.numel()), count=self.x.numel(),
                                bitorder="little")
        keep = torch.from_numpy(bits.astype(bool).reshape(shape))
        return keep.permute(0, keep.dim() - 1, *range(1, keep.dim() - 1)) if last else keep

    def check(self):
        eps, scale = float(numpy.float32(1e-5)), float(numpy.float32(normdrop.bernoulli(self.layer.p)[1]))
        scale = scale if self.mode != "eval" else 1.0
        activation = self.layer.activation
        x, residual, grad = (tensor.detach().double().requires_grad_() for tensor in (self.x, self.residual, self.grad))
        along = (slice(None), *(None,) * (x.dim() - 2))
        axes = [axis for axis in range(x.dim()) if axis != 1]
        weight, bias = (getattr(self.before, name).detach().double().requires_grad_() for name in ("weight", "bias"))
        batch = self.mode == "train"
        if batch:
            mean, var = x.mean(axes), x.var(axes, unbiased=False)
        else:
            mean, var = self.before.running_mean.double(), self.before.running_var.double()
        inv_std = 1 / torch.sqrt(var + eps)
        xhat = (x - mean[along]) * inv_std[along]
        z = xhat * weight[along] + bias[along] + residual
        z.retain_grad()
        value = ACTIVATIONS[activation](z)
        y = torch.where(self.keep, value * scale, torch.zeros((), dtype=torch.float64))
        (y * grad.detach()).sum().backward()

        with torch.no_grad():
            size = xhat.abs().clamp(min=1)
            z_scale = weight[along].abs() * size + bias[along].abs() + residual.abs()
            y_scale = z_scale
            if activation in STEEPEST:
                y_scale = STEEPEST[activation] * z_scale + 1.25 * value.abs()
            within("y", self.y, y, 4, y_scale * scale * self.keep)

            derivative = torch.where(self.keep & (grad != 0), z.grad / (scale * grad), 0).abs()
            slope_scale = derivative
            if activation == "leaky_relu":
                slope_scale = derivative * 4 / 3
            elif activation in CURVATURE:
                slope_scale = derivative + 7 / 3 * derivative.clamp(min=0.25) + CURVATURE[activation] * z_scale * 4 / 3
            g_scale = slope_scale * (scale * grad).abs() * self.keep
            d_bias, d_weight = g_scale.sum(axes), (g_scale * size).sum(axes)
            through = weight.abs() * inv_std
            samples = x.numel() / self.channels
            dx_scale = g_scale + ((d_bias[along] + size * d_weight[along]) / samples if batch else 0)
            # At a kink of the activation, rounding decides on the side.
            clear = torch.ones_like(z, dtype=torch.bool)
            kinks = {"relu": (0,), "leaky_relu": (0,), "relu6": (0, 6), "hard_swish": (-3, 3), "elu": (0,), "selu": (0,)}
            for kink in kinks.get(activation, ()):
                clear &= (z - kink).abs() > 16 * U * z_scale
            assert clear.float().mean() > 0.99
            if bool(clear.all()):
                within("dx", self.x.grad, x.grad, 5, dx_scale * through[along])
                within("d_residual", self.residual.grad, residual.grad, 3, g_scale)
                within("d_weight", self.layer.weight.grad, weight.grad, 5, d_weight)
                within("d_bias", self.layer.bias.grad, bias.grad, 3, d_bias)
            if batch:
                unbiased = var * samples / (samples - 1)
                of_mean = torch.maximum(mean.abs(), var.sqrt())
                before = self.before
                within("running_mean", self.layer.running_mean, 0.9 * before.running_mean.double() + 0.1 * mean, 2,
                       0.9 * before.running_mean.abs().double() + 0.1 * of_mean)
                within("running_var", self.layer.running_var, 0.9 * before.running_var.double() + 0.1 * unbiased, 8,
                       0.9 * before.running_var.double() + 0.1 * unbiased)
            else:
                assert torch.equal(self.layer.running_mean, self.before.running_mean)


def within(name, got, wanted, units, scale):
    error = (got.detach().double() - wanted.detach()).abs()
    # Underflow takes away at most some of the smallest float32.
    worst = float(((error - 2.0**-140) / (U * scale).clamp(min=2.0**-1000)).max())
    assert worst <= units, f"{name}: {worst} u, {units} are promised"


@pytest.mark.parametrize("mode", ["train", "eval", "frozen"])
@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("dimensions", [2, 3, 4, 5])
def test_equal_to_pytorch_within_the_bounds(dimensions, activation, mode):
    for seed in range(6):
        Case(100 * dimensions + seed, dimensions, activation, mode).check()


@pytest.mark.parametrize("mode", ["train", "eval", "frozen"])
@pytest.mark.parametrize("dimensions", [4, 5])
def test_channels_last_is_used_as_it_is(dimensions, mode):
    for seed in range(4):
        case = Case(seed, dimensions, "silu", mode, last=True)
        assert case.y.stride() == case.x.stride() == case.x.grad.stride()
        case.check()


@pytest.mark.parametrize("offset", [10.0, 1e3, 1e5])
def test_the_bounds_hold_far_from_zero(offset):
    for activation in ("identity", "relu", "gelu"):
        Case(3, 3, activation, "train", offset=offset).check()


def test_gradcheck_agrees_with_finite_differences():
    """Autograd's own check, on what float32 allows."""
    torch.manual_seed(0)
    x, weight, bias, residual = torch.randn(5, 3, 4), torch.rand(3) + 0.5, torch.randn(3), torch.randn(5, 3, 4)
    for tensor in (x, weight, bias, residual):
        tensor.requires_grad_()
    layer = lambda x, weight, bias, residual: function(x, None, None, weight, bias, residual=residual, activation="tanh", p=0.25, seed=7)
    with pytest.warns(UserWarning, match="double precision"):
        assert torch.autograd.gradcheck(layer, (x, weight, bias, residual), eps=1e-2, atol=2e-2, rtol=2e-2, nondet_tol=0.0)


def test_it_follows_a_batch_norm_with_its_state():
    """The same training steps and a `state_dict` that fits both ways."""
    torch.manual_seed(1)
    theirs, ours = torch.nn.BatchNorm2d(6), NormDrop(6)
    with torch.no_grad():
        theirs.weight.uniform_(0.5, 1.5)
        theirs.bias.normal_()
    ours.load_state_dict(theirs.state_dict())
    for _ in range(10):
        x = torch.randn(8, 6, 5, 5) * 2 + 1
        torch.testing.assert_close(ours(x), theirs(x))
    theirs.load_state_dict(ours.state_dict())
    assert int(ours.num_batches_tracked) == 10
    ours.eval(), theirs.eval()
    torch.testing.assert_close(ours(x), theirs(x))


def test_the_cumulative_average():
    torch.manual_seed(2)
    theirs, ours = torch.nn.BatchNorm1d(4, momentum=None), NormDrop(4, momentum=None)
    for _ in range(7):
        x = torch.randn(16, 4)
        torch.testing.assert_close(ours(x), theirs(x))
    torch.testing.assert_close(ours.state_dict(), theirs.state_dict())


def test_manual_seed_decides_about_masks():
    layer, x = NormDrop(8, "relu", p=0.5), torch.randn(64, 8)
    outputs = []
    for seed in (5, 5, 6):
        torch.manual_seed(seed)
        outputs.append(layer(x))
    assert torch.equal(outputs[0], outputs[1]) and not torch.equal(outputs[0], outputs[2])
    assert not torch.equal(layer(x), layer(x))
    layer.eval()
    assert torch.equal(layer(x), layer(x))
    layer.dropout = True
    assert not torch.equal(layer(x), layer(x))


def test_masks_of_channels_and_samples():
    x = torch.randn(16, 8, 4, 4)
    for granularity, axes in [("channel", (2, 3)), ("sample", (1, 2, 3))]:
        for memory in (torch.contiguous_format, torch.channels_last):
            y = NormDrop(8, p=0.5, granularity=granularity)(x.contiguous(memory_format=memory))
            dropped = y == 0
            assert torch.equal(dropped.all(axes[-1]), dropped.any(axes[-1]))
            assert torch.equal(dropped.flatten(len(x.shape) - len(axes)).all(-1), dropped.flatten(len(x.shape) - len(axes)).any(-1))
            assert dropped.any() and not dropped.all()


def test_only_what_is_asked_for_has_a_gradient():
    layer = NormDrop(4, "gelu", p=0.2)
    layer.requires_grad_(False)
    x, residual = torch.randn(8, 4), torch.randn(8, 4, requires_grad=True)
    layer(x, residual).sum().backward()
    assert x.grad is None and layer.weight.grad is None and residual.grad is not None
    with torch.no_grad():
        assert not layer(x).requires_grad


@pytest.fixture(params=[True, False])
def gated(request, monkeypatch):
    """Whether forward calls write gates, as they do where they can, or never."""
    if not request.param:
        monkeypatch.setattr(ops, "gated", lambda activation, seed: False)
    return request.param


def saved_bytes(call):
    """What `call` gives, and the bytes that the graph keeps for the backward pass, a memory counted once."""
    kept = {}

    def pack(tensor):
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        return call(), kept


@pytest.mark.parametrize("granularity", normdrop.GRANULARITIES)
@pytest.mark.parametrize("mode", ["train", "frozen"])
@pytest.mark.parametrize("activation", normdrop.GATED)
def test_gates_give_the_bits_of_a_call_without_them(activation, mode, granularity, monkeypatch):
    torch.manual_seed(14)
    running = (torch.randn(5), torch.rand(5) + 0.5)
    for shape, memory in [((7, 5), torch.contiguous_format), ((3, 5, 4, 7), torch.contiguous_format), ((3, 5, 4, 7), torch.channels_last)]:
        for p in (0.0, 0.4, 1.0):
            tensors = [torch.randn(shape).contiguous(memory_format=memory), torch.randn(5), torch.randn(5), torch.randn(shape)]
            grad, wanted = torch.randn(shape), None
            for gated in (True, False):
                with monkeypatch.context() as patched:
                    if not gated:
                        patched.setattr(ops, "gated", lambda activation, seed: False)
                    x, weight, bias, residual = given = [tensor.clone().requires_grad_() for tensor in tensors]
                    y = function(
                        x, *(running if mode == "frozen" else (None, None)), weight, bias, residual=residual, training=mode == "train",
                        activation=activation, p=p, dropout=True, seed=3, granularity=granularity,
                    )
                    found = [y.detach(), *torch.autograd.grad(y, given, grad)]
                if wanted is not None:
                    assert all(map(torch.equal, found, wanted))
                wanted = found


def test_a_residual_block_keeps_a_bit_in_place_of_the_residual(monkeypatch):
    """A block whose residual nobody else needs any more: it is freed after the forward pass."""
    torch.manual_seed(15)
    shape, elements = (4, 8, 16, 16), 4 * 8 * 16 * 16
    kept, found = {}, {}
    for activation, gated in (("relu", True), ("relu", False), ("identity", True), ("silu", True)):
        with monkeypatch.context() as patched:
            if not gated:
                patched.setattr(ops, "gated", lambda activation, seed: False)
            torch.manual_seed(16)
            layer, x = NormDrop(8, activation, p=0.1), torch.randn(shape, requires_grad=True)
            array = numpy.random.default_rng(1).normal(size=shape).astype(numpy.float32)
            alive, residual = weakref.ref(array), torch.from_numpy(array)
            y, memory = saved_bytes(lambda: layer(x, residual))
            del array, residual
            gc.collect()
            assert (alive() is None) == (activation != "silu" and (gated or activation == "identity"))
            kept[activation, gated] = sum(memory.values()) - 4 * elements  # x itself
            y.pow(2).sum().backward()
            found[activation, gated] = x.grad
    assert torch.equal(found["relu", True], found["relu", False])
    few = 1000  # the statistics and parameters of eight channels
    assert elements // 8 <= kept["relu", True] <= elements // 8 + few
    assert elements // 8 <= kept["identity", True] <= elements // 8 + few
    for without in (("relu", False), ("silu", True)):
        assert 4 * elements <= kept[without] <= 4 * elements + few


def test_nothing_is_kept_of_a_call_without_a_gradient():
    layer, x = NormDrop(8, "relu", p=0.1), torch.randn(4, 8)
    assert ops.gated("relu", None) and ops.gated("identity", 1) and not ops.gated("identity", None) and not ops.gated("silu", 1)
    with torch.no_grad():
        assert not ops.gated("relu", 1)
        assert not layer(x).requires_grad


def test_tensors_in_other_orders_are_understood():
    torch.manual_seed(3)
    x = torch.randn(6, 5, 4).transpose(0, 2)
    torch.testing.assert_close(NormDrop(5)(x), torch.nn.BatchNorm1d(5)(x))
    y = NormDrop(5)(x.requires_grad_())
    y.sum().backward()
    y = NormDrop(5)(x)
    y.backward(torch.ones(1, 1, 1).expand_as(y))


def test_statistics_that_changed_since_are_not_used_unasked():
    layer = NormDrop(3)
    layer.eval()
    y = layer(torch.randn(4, 3, requires_grad=True))
    layer.train()
    layer(torch.randn(4, 3))
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        y.sum().backward()


def network(activation="silu", p=0.3, last=False, **options):
    if last:
        layers = torch.nn.Conv2d(3, 8, 2), NormDrop(8, activation, p=p, **options), torch.nn.Conv2d(8, 2, 1)
    else:
        layers = torch.nn.Linear(5, 8), NormDrop(8, activation, p=p, **options), torch.nn.Linear(8, 2)
    return torch.nn.Sequential(*layers)


def steps(network, call, x, backward=lambda loss: loss.backward()):
    """Three steps of training: outputs, gradients and the state afterwards."""
    results = []
    for step in range(3):
        torch.manual_seed(step)
        x = x.detach().requires_grad_()
        y = call(x)
        backward(y.pow(3).sum())
        results += [y.detach(), x.grad]
    return results + [parameter.grad for parameter in network.parameters()] + list(network.buffers())


def equal(got, wanted):
    torch.testing.assert_close(got, wanted, rtol=0, atol=0)


@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
@pytest.mark.parametrize("mode", ["train", "frozen", "eval"])
@pytest.mark.parametrize("last", [False, True])
def test_a_compiled_network_computes_the_same(last, mode, backend):
    """In one graph, without a break, with the same masks; the shape is not part of it."""
    torch._dynamo.reset()
    torch.manual_seed(4)
    plain = network(last=last, granularity="channel" if last else "element")
    plain.train(mode != "eval")
    plain[1].frozen = mode == "frozen"
    compiled = copy.deepcopy(plain)
    call = torch.compile(compiled, backend=backend, fullgraph=True, dynamic=True)
    for batch in (16, 9):
        x = channels_last(torch.randn(batch, 3, 5, 5)) if last else torch.randn(batch, 5)
        equal(steps(compiled, call, x), steps(plain, plain, x))


@pytest.mark.skipif(shutil.which("g++") is None, reason="PyTorch's compiler needs one of C++")
def test_the_compiler_of_pytorch():
    """It draws random numbers in its own way, unless it is told to draw those of PyTorch."""
    torch._dynamo.reset()
    torch.manual_seed(4)
    plain, x = network(), torch.randn(16, 5)
    compiled = copy.deepcopy(plain)
    with torch._inductor.config.patch(fallback_random=True):
        got = steps(compiled, torch.compile(compiled, fullgraph=True), x)
    torch.testing.assert_close(got, steps(plain, plain, x), rtol=1e-4, atol=1e-5)
    layer, x = NormDrop(4, p=0.5), torch.randn(500, 4)
    call = torch.compile(layer, fullgraph=True)
    first, second = call(x), call(x)
    assert not torch.equal(first == 0, second == 0)
    assert 0.4 < float((first == 0).float().mean()) < 0.6 and int(layer.num_batches_tracked) == 2


@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
@pytest.mark.parametrize("forward", [False, True])
def test_compiled_autograd_computes_the_same(forward, backend):
    """The backward pass as a graph, whether the forward pass was one or not."""
    torch._dynamo.reset()
    torch.manual_seed(4)
    plain, x = network(), torch.randn(16, 5)
    compiled = copy.deepcopy(plain)

    def backward(loss):
        with torch._dynamo.compiled_autograd._enable(torch.compile(backend=backend, fullgraph=True)):
            loss.backward()

    call = torch.compile(compiled, backend=backend) if forward else compiled
    equal(steps(compiled, call, x, backward), steps(plain, plain, x))


def test_a_compiled_step_with_compiled_autograd():
    """The configuration, as it is set in a program that compiles its whole step."""
    torch._dynamo.reset()
    torch.manual_seed(4)
    plain, x = network(), torch.randn(16, 5)
    compiled = copy.deepcopy(plain)

    @torch.compile(backend="aot_eager")
    def step(x):
        y = compiled(x)
        y.pow(3).sum().backward()
        return y

    with torch._dynamo.config.patch(compiled_autograd=True):
        got = []
        for seed in range(3):
            torch.manual_seed(seed)
            x = x.detach().requires_grad_()
            got += [step(x).detach(), x.grad]
    got += [parameter.grad for parameter in compiled.parameters()] + list(compiled.buffers())
    equal(got, steps(plain, plain, x))


def samples_of_operators():
    """Inputs of the operators, for PyTorch's checks of what is registered for them."""
    for x in (torch.randn(6, 3), torch.randn(2, 3, 4), channels_last(torch.randn(2, 3, 4, 5)), torch.randn(3, 6).t()):
        for plain in (False, True):
            parameters = [None, None, None] if plain else [torch.randn(3), torch.randn(3), torch.randn_like(x)]
            for tensor in (x, *parameters):
                if tensor is not None:
                    tensor.requires_grad_()
            options = (None if plain else torch.tensor(7), "tanh", "channel", 0.25, 1e-5, 0.01, 1.0, 1)
            running = (None, None, None) if plain else (torch.randn(3), torch.randn(3) / 2**25, torch.rand(3))
            counter = None if plain else torch.tensor(3)
            operators = torch.ops.normdrop
            for is_gated in (False, True):
                options = (options[0], "relu" if is_gated else "tanh", *options[2:])
                gates = torch.randint(256, ((x.numel() + 7) // 8,), dtype=torch.uint8) if is_gated else None
                fixed = (torch.randn(3), None, torch.rand(3))
                yield operators.train.default, (x, *parameters, *running, counter, *options, 0.1, is_gated)
                yield operators.eval.default, (x, *parameters, *fixed, *options, is_gated)
                yield operators.backward.default, (torch.randn_like(x), x, *parameters, gates, None, None, *fixed, *options, 11)
            yield operators.open.default, (x, gates)
            if not plain:
                for granularity in normdrop.GRANULARITIES:
                    yield operators.keep.default, (x, torch.tensor(7), granularity, 0.25)


def test_what_is_registered_for_the_operators_fits_them():
    """Schemas, shapes and strides of fake tensors, derivatives, graphs with dynamic shapes: PyTorch's own check of operators."""
    torch.manual_seed(8)
    for operator, arguments in samples_of_operators():
        torch.library.opcheck(operator, arguments)


class Exact:
    """What the layer is, in differentiable operations of PyTorch on float64."""

    def __init__(self, x, activation, p, mode, seed=5, eps=1e-5):
        self.activation, self.mode, self.eps = activation, mode, float(numpy.float32(eps))
        self.axes = [axis for axis in range(x.dim()) if axis != 1]
        self.shape = (1, -1, *(1,) * (x.dim() - 2))
        bits = numpy.unpackbits(normdrop.fill_mask(p, seed, x.numel()), count=x.numel(), bitorder="little")
        self.keep, self.scale = torch.from_numpy(bits.astype(bool).reshape(x.shape)), normdrop.bernoulli(p)[1]
        self.mean, self.var = torch.randn(x.shape[1]), torch.rand(x.shape[1]) + 0.5

    def __call__(self, x, weight=None, bias=None, residual=None):
        x, along = x.double(), lambda values: values.double().reshape(self.shape)
        if self.mode == "train":
            mean, var = along(x.mean(self.axes)), along(x.var(self.axes, unbiased=False))
        else:
            mean, var = along(self.mean), along(self.var)
        z = (x - mean) / torch.sqrt(var + self.eps)
        z = z if weight is None else z * along(weight)
        z = z if bias is None else z + along(bias)
        z = z if residual is None else z + residual.double()
        return torch.where(self.keep, ACTIVATIONS[self.activation](z) * self.scale, 0.0)

    def ours(self, p, seed=5):
        running = (None, None) if self.mode == "train" else (self.mean, self.var)

        def call(x, weight=None, bias=None, residual=None):
            return function(x, *running, weight, bias, residual=residual, training=self.mode == "train", dropout=True, seed=seed,
                            activation=self.activation, p=p, slope=SLOPE, alpha=ALPHA, eps=1e-5)

        return call


def close(name, got, wanted, within):
    """Within some parts of the largest of the values: second derivatives cancel."""
    worst = float((got.double() - wanted.double()).abs().max() / wanted.abs().max().clamp(min=1e-30))
    assert worst <= within, f"{name}: {worst}"


@pytest.mark.parametrize("mode", ["train", "frozen"])
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_second_derivatives_are_those_of_pytorch_in_float64(activation, mode, gated):
    """Every one of the gradients, differentiated by everything that it depends on; with a mask, a residual and parameters."""
    if not gated and activation not in normdrop.GATED:
        return  # the same either way
    for seed, shape, parameters in [(0, (5, 3, 4), True), (1, (9, 2), True), (2, (4, 3), False)]:
        torch.manual_seed(seed)
        x, p = torch.randn(shape), 0.25
        exact = Exact(x, activation, p, mode)
        # Beyond each kink as well.
        weight = (torch.rand(shape[1]) + 0.5) * (6 if activation in ("relu6", "hard_swish") else 1)
        inputs = [x, weight, torch.randn(shape[1]), torch.randn(shape)] if parameters else [x]
        grad, cotangents = torch.randn(shape), [torch.randn_like(tensor) for tensor in inputs]
        found = []
        for layer, dtype in ((exact.ours(p), torch.float32), (exact, torch.float64)):
            given = [tensor.to(dtype).detach().requires_grad_() for tensor in inputs]
            to = grad.to(dtype).requires_grad_()
            first = torch.autograd.grad(layer(*given), given, to, create_graph=True)
            second = torch.autograd.grad(first, [to, *given], [each.to(dtype) for each in cotangents], allow_unused=True)
            found.append([torch.zeros_like(of) if each is None else each for each, of in zip(second, [to, *given])])
        for name, got, wanted in zip(("grad", "x", "weight", "bias", "residual"), *found):
            close(name, got, wanted, 2e-6)


@pytest.mark.parametrize("activation", ["identity", "relu", "silu"])
def test_hessians_of_a_function_of_the_output(activation):
    """Here the gradient that comes in needs no gradient, which has hidden the missing second derivative once."""
    torch.manual_seed(3)
    x, v = torch.randn(4, 3), torch.randn(4, 3)
    exact = Exact(x, activation, 0.0, "train")
    ours, theirs = lambda t: exact.ours(0.0)(t).pow(3).sum(), lambda t: exact(t).pow(3).sum()
    wanted = torch.autograd.functional.hessian(theirs, x.double())
    assert float(wanted.abs().max()) > 0.1
    close("hessian", torch.autograd.functional.hessian(ours, x), wanted, 1e-5)
    product = torch.autograd.functional.hvp(theirs, x.double(), v.double())[1]
    close("hvp", torch.autograd.functional.hvp(ours, x, v)[1], product, 1e-5)
    close("vhp", torch.autograd.functional.vhp(ours, x, v)[1], product, 1e-5)
    jacrev, jacfwd = torch.func.jacrev, torch.func.jacfwd
    for hessian in (torch.func.hessian, lambda f: jacrev(jacrev(f)), lambda f: jacrev(jacfwd(f))):
        close("torch.func", hessian(ours)(x), wanted, 1e-5)
    # PyTorch would say 0 for the derivative of a tangent.
    with pytest.raises(NotImplementedError, match="forward mode within forward mode"):
        jacfwd(jacfwd(ours))(x)


def test_a_gradient_penalty_can_be_trained():
    """The loss of WGAN-GP: a first derivative in the loss, through two layers, by the parameters."""
    torch.manual_seed(6)
    theirs = torch.nn.Sequential(torch.nn.Linear(5, 8), torch.nn.BatchNorm1d(8), torch.nn.SiLU(), torch.nn.Linear(8, 1)).double()
    ours = torch.nn.Sequential(torch.nn.Linear(5, 8), NormDrop(8, "silu"), torch.nn.Linear(8, 1))
    ours.load_state_dict({name.replace("3.", "2."): value.float() if value.is_floating_point() else value
                          for name, value in theirs.state_dict().items()})
    x, found = torch.randn(32, 5), []
    for network in (ours, theirs):
        given = x.to(network[0].weight.dtype).requires_grad_()
        gradient, = torch.autograd.grad(network(given).sum(), given, create_graph=True)
        ((gradient.norm(dim=1) - 1) ** 2).mean().backward()
        found.append([parameter.grad for parameter in network.parameters()][:-1])
    for got, wanted in zip(*found):
        # That of the first bias is 0: a batch norm follows.
        assert float((got - wanted).abs().max()) <= 3e-6


def test_third_derivatives():
    torch.manual_seed(7)
    x = torch.randn(6, 2)
    exact, found = Exact(x, "silu", 0.25, "train"), []
    for layer, of in ((exact.ours(0.25), x), (exact, x.double())):
        of = of.clone().requires_grad_()
        value = layer(of).pow(3).sum()
        for _ in range(3):
            value, = torch.autograd.grad(value.pow(2).sum(), of, create_graph=True)
        found.append(value.detach())
    close("third", *found, 1e-4)


def test_the_first_derivative_is_the_same_whether_there_is_a_second_or_not():
    torch.manual_seed(8)
    x = torch.randn(64, 8, requires_grad=True)
    gradients = [torch.autograd.grad(function(x, activation="gelu", p=0.2, seed=1).pow(2).sum(), x, create_graph=create)[0]
                 for create in (False, True)]
    assert torch.equal(*gradients)


@pytest.mark.parametrize("mode", ["train", "frozen"])
@pytest.mark.parametrize("activation", ["identity", "relu", "hard_swish", "gelu_tanh", "gelu", "elu", "selu", "mish", "softplus"])
def test_forward_mode(activation, mode):
    torch.manual_seed(9)
    x = torch.randn(5, 3, 4)
    exact = Exact(x, activation, 0.25, mode)
    inputs = (x, torch.rand(3) + 0.5, torch.randn(3), torch.randn_like(x))
    tangents = tuple(map(torch.randn_like, inputs))
    wanted = torch.func.jvp(exact, tuple(t.double() for t in inputs), tuple(t.double() for t in tangents))[1]
    close("jvp", torch.func.jvp(exact.ours(0.25), inputs, tangents)[1], wanted, 1e-6)
    with torch.autograd.forward_ad.dual_level():
        dual = exact.ours(0.25)(torch.autograd.forward_ad.make_dual(x, tangents[0]), *inputs[1:])
        tangent = torch.autograd.forward_ad.unpack_dual(dual).tangent
    wanted = torch.func.jvp(lambda x: exact(x, *inputs[1:]), (x.double(),), (tangents[0].double(),))[1]
    close("dual", tangent, wanted, 1e-6)


def test_vmap_is_one_layer_after_the_other():
    """Ensembles, and gradients of each; the mask of a seed that is given is the same for all, others are as vmap is told."""
    torch.manual_seed(10)
    x, weight = torch.randn(3, 6, 4), torch.rand(3, 4)
    layer = lambda x, weight: function(x, None, None, weight, activation="silu", p=0.25, seed=3)
    equal(torch.vmap(layer)(x, weight), torch.stack([layer(*each) for each in zip(x, weight)]))
    loss = torch.func.grad(lambda x, weight: layer(x, weight).pow(3).sum(), argnums=(0, 1))
    each = [loss(*each) for each in zip(x, weight)]
    equal(torch.vmap(loss)(x, weight), tuple(torch.stack(gradients) for gradients in zip(*each)))
    inside = torch.func.grad(lambda x: torch.vmap(layer)(x, weight).pow(3).sum())(x)
    equal(inside, torch.stack([gradient for gradient, _ in each]))

    drawn = lambda x: function(x, p=0.5)
    same = torch.vmap(drawn, randomness="same")(torch.ones(2, 50, 4).cumsum(1)) == 0
    different = torch.vmap(drawn, randomness="different")(torch.ones(2, 50, 4).cumsum(1)) == 0
    assert torch.equal(*same) and not torch.equal(*different)
    with pytest.raises(RuntimeError, match="randomness"):
        torch.vmap(drawn)(x)
    tracked = NormDrop(4)
    with pytest.raises(RuntimeError, match="track_running_stats=False"):
        torch.vmap(tracked)(x)
    assert torch.equal(tracked.running_mean, torch.zeros(4)) and int(tracked.num_batches_tracked) == 0
    torch.func.replace_all_batch_norm_modules_(tracked)
    equal(torch.vmap(tracked)(x), torch.stack([tracked(each) for each in x]))

    for layer in (NormDrop(4), torch.nn.BatchNorm1d(4)):
        with pytest.raises(RuntimeError, match="mutate a captured Tensor"):
            torch.func.grad(lambda x: layer(x).sum())(x[0])

    members = [NormDrop(4, "relu").eval() for _ in range(3)]
    for member in members:
        member.running_mean.normal_()
    parameters, buffers = torch.func.stack_module_state(members)
    for training in (False, True):
        base = copy.deepcopy(members[0]).train(training)
        member = lambda parameters, buffers, x: (torch.func.functional_call(base, (parameters, buffers), (x,)), buffers)
        y, state = torch.vmap(member)(parameters, buffers, x)
        equal(y, torch.stack([each.train(training)(of) for each, of in zip(members, x)]))
        equal(state["running_mean"], torch.stack([each.running_mean for each in members]))


def test_attributes_count_from_the_next_call():
    """Each one, set after construction, makes the layer that it would have made in the constructor."""
    start = {"activation": "leaky_relu", "p": 0.25, "eps": 1e-3, "momentum": 0.1, "granularity": "element", "slope": 0.1, "alpha": 1.0, "tasks": 1}
    later = {"activation": "tanh", "p": 0.75, "eps": 1.0, "momentum": 0.5, "granularity": "channel", "slope": 0.5, "alpha": 0.5, "tasks": 1}
    x = torch.randn(16, 4, 5)

    def result(layer):
        torch.manual_seed(0)
        y = layer(x)
        return y, layer.running_mean, layer.running_var

    before = result(NormDrop(4, **start))
    for name, value in later.items():
        first = {**start, "activation": "elu"} if name == "alpha" else start
        changed, made = NormDrop(4, **first), NormDrop(4, **{**first, name: value})
        unchanged = result(NormDrop(4, **first))
        result(changed)
        changed.reset_running_stats()
        setattr(changed, name, value)
        wanted = result(made)
        equal(result(changed), wanted)
        # tasks change no bit.
        assert name == "tasks" or any(not torch.equal(*pair) for pair in zip(wanted, unchanged)), name
        assert repr(value) in repr(changed)
    for name, value in (("frozen", True), ("dropout", False), ("track_running_stats", False)):
        layer = NormDrop(4, **start)
        setattr(layer, name, value)
        y, mean, _ = result(layer)
        assert torch.equal(mean, torch.zeros(4)) == (name != "dropout")
        assert not torch.equal(y, before[0]) or name == "track_running_stats"


def test_momentum_that_is_set_is_that_of_pytorch():
    """A number, no number any more, a number again."""
    torch.manual_seed(1)
    theirs, ours = torch.nn.BatchNorm1d(4, momentum=0.3), NormDrop(4, momentum=0.3)
    for momentum in (0.3, 0.5, None, None, 0.25, 1.0, 0.0):
        theirs.momentum = ours.momentum = momentum
        x = torch.randn(16, 4)
        torch.testing.assert_close(ours(x), theirs(x))
        torch.testing.assert_close(ours.state_dict(), theirs.state_dict())


def test_a_momentum_is_looked_at_where_it_is_used():
    """BatchNorm takes any; here a negative one is refused, but not in evaluation."""
    x = torch.randn(8, 4)
    layer = NormDrop(4, momentum=-0.5).eval()
    torch.testing.assert_close(layer(x), torch.nn.BatchNorm1d(4).eval()(x))
    assert torch.equal(function(x, torch.zeros(4), torch.ones(4), training=False, momentum=-1.0), function(x, torch.zeros(4), torch.ones(4), training=False))
    NormDrop(4, momentum=-0.5, track_running_stats=False)(x)
    with pytest.raises(ValueError, match="momentum"):
        layer.train()(x)
    assert int(layer.num_batches_tracked) == 0 and torch.equal(layer.running_mean, torch.zeros(4))


def test_wrong_attributes_are_refused_and_change_nothing():
    for name, value in (("p", 1.5), ("p", math.nan), ("eps", -1.0), ("activation", "swish"), ("granularity", "pixel")):
        layer = NormDrop(4)
        setattr(layer, name, value)
        with pytest.raises(ValueError):
            layer(torch.randn(8, 4))
        assert int(layer.num_batches_tracked) == 0 and torch.equal(layer.running_mean, torch.zeros(4))


def test_checkpoints_without_a_counter():
    """Files of format 1, and converted ones, load as BatchNorm loads them."""
    state = torch.nn.BatchNorm1d(4).state_dict()
    del state["num_batches_tracked"]
    for metadata in ({}, {"": {"version": 1}}):
        old = type(state)(state)
        old._metadata = metadata
        for assign in (False, True):
            for device in (None, "meta"):
                ours = NormDrop(4, device=device)
                if device is None:
                    ours.num_batches_tracked += 5
                if device is None or assign:
                    ours.load_state_dict(dict(old), assign=assign)
                    assert int(ours.num_batches_tracked) == (5 if device is None else 0)
    # A file of format 2 has it.
    for layer in (NormDrop(4), torch.nn.BatchNorm1d(4)):
        with pytest.raises(RuntimeError, match="num_batches_tracked"):
            layer.load_state_dict(state)


@pytest.mark.parametrize("counter", [
    torch.tensor(3.0, dtype=torch.float64), torch.tensor(3, dtype=torch.int32), torch.tensor([3]), torch.tensor(3.0),
    torch.tensor(3, dtype=torch.uint8),
])
@pytest.mark.parametrize("assign", [False, True])
def test_counters_of_other_types(counter, assign):
    """They are read as the numbers that they are."""
    torch.manual_seed(2)
    state, x = {**torch.nn.BatchNorm1d(4).state_dict(), "num_batches_tracked": counter.clone()}, torch.randn(8, 4)
    theirs, ours = torch.nn.BatchNorm1d(4, momentum=None), NormDrop(4, momentum=None)
    for layer in (theirs, ours):
        layer.load_state_dict(copy.deepcopy(state), assign=assign)
        layer(x)
        assert int(layer.num_batches_tracked) == 4
    torch.testing.assert_close(ours.running_mean, theirs.running_mean)
    torch.testing.assert_close(ours.running_mean, x.mean(0) / 4)


@pytest.mark.parametrize("counter", [torch.tensor(2.5), torch.tensor(math.nan), torch.tensor(-1), torch.tensor([1, 2])])
def test_counters_that_count_nothing(counter):
    layer = NormDrop(4, momentum=None)
    layer.num_batches_tracked = counter
    with pytest.raises(ValueError, match="num_batches_tracked"):
        layer(torch.randn(8, 4))
    assert torch.equal(layer.running_mean, torch.zeros(4))
    layer.num_batches_tracked = None
    # As in BatchNorm: without a counter there is no mean of all batches.
    layer(torch.randn(8, 4))
    assert torch.equal(layer.running_mean, torch.zeros(4))


def test_seeds():
    x = torch.ones(40, 30).cumsum(0)
    masks = [function(x, p=0.5, seed=seed) == 0 for seed in (
        5, numpy.int64(5), numpy.uint64(5), numpy.int32(5), numpy.array(5), torch.tensor(5), torch.tensor([5]),
        torch.tensor(5, dtype=torch.uint8), torch.tensor(5, dtype=torch.uint64),
    )]
    assert all(torch.equal(mask, masks[0]) for mask in masks)
    for seed in (0, 2**63 - 1, 2**63, 2**64 - 1, numpy.uint64(2**64 - 1)):
        bits = numpy.unpackbits(normdrop.fill_mask(0.5, int(seed), x.numel()), count=x.numel(), bitorder="little")
        assert numpy.array_equal(function(x, p=0.5, seed=seed).numpy() != 0, bits.reshape(x.shape))
    for seed in (-1, 2**64, numpy.int64(-1), torch.tensor(-1)):
        with pytest.raises(ValueError, match="seed must be at least 0 and below 2.*64"):
            function(x, p=0.5, seed=seed)
    for seed in (1.0, "1", True, numpy.float64(1), torch.tensor(1.0), torch.tensor([1, 2]), torch.tensor(True)):
        with pytest.raises(TypeError, match="seed must be a whole number or a tensor of one, not"):
            function(x, p=0.5, seed=seed)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_float32_rounded_once(dtype):
    torch.manual_seed(11)
    x, residual = torch.randn(8, 4, 3, 3).to(dtype), torch.randn(8, 4, 3, 3).to(dtype)
    grad = torch.randn(8, 4, 3, 3).to(dtype)
    for memory in (torch.contiguous_format, torch.channels_last):
        for whole in (False, True):
            ours, found = NormDrop(4, "silu", dtype=dtype if whole else None), []
            wide = copy.deepcopy(ours).float()
            for layer, to in ((ours, dtype), (wide, torch.float32)):
                given = [tensor.to(to, memory_format=memory).detach().requires_grad_() for tensor in (x, residual)]
                y = layer(*given)
                y.backward(grad.to(to))
                assert y.dtype == to and y.is_contiguous(memory_format=memory)
                found.append([y, *(tensor.grad for tensor in given), layer.weight.grad, layer.running_mean, layer.running_var])
            for got, wanted in zip(*found):
                equal(got, wanted.to(got.dtype))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("memory", [torch.contiguous_format, torch.channels_last])
def test_halves_are_read_and_written_where_they_are(monkeypatch, dtype, memory):
    """No copy in float32: the calls get the memory of the tensors, and the graph keeps halves."""
    given = {}
    for name in ("train", "backward", "eval"):
        original = getattr(normdrop.Layer, name)

        def recorded(layer, *arrays, name=name, original=original, **options):
            tensors = [*arrays[:2], options["out"]] if name == "backward" else [arrays[0], options.get("residual"), options["out"]]
            given[name] = [None if array is None else (array.ctypes.data, array.itemsize) for array in tensors]
            return original(layer, *arrays, **options)

        monkeypatch.setattr(normdrop.Layer, name, recorded)
    layer = NormDrop(4, "silu", p=0.25)
    x, residual = (torch.randn(8, 4, 3, 3).to(dtype, memory_format=memory).requires_grad_() for _ in range(2))
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda tensor: kept.append(tensor) or tensor, lambda tensor: tensor):
        y = layer(x, residual)
    assert given["train"] == [(tensor.data_ptr(), 2) for tensor in (x, residual, y)]
    assert [tensor.dtype for tensor in kept if tensor.shape == x.shape] == [dtype, dtype]
    grad = torch.randn(8, 4, 3, 3).to(dtype, memory_format=memory)
    dx, dr = torch.autograd.grad(y, (x, residual), grad)
    assert given["backward"] == [(tensor.data_ptr(), 2) for tensor in (grad, x, dx)]
    assert dx.dtype == dr.dtype == dtype
    layer.eval()
    with torch.no_grad():
        y = layer(x, residual)
    assert given["eval"] == [(tensor.data_ptr(), 2) for tensor in (x, residual, y)] and y.dtype == dtype


def test_types_of_x_and_of_the_residual_may_differ():
    torch.manual_seed(13)
    x, residual = torch.randn(8, 4).bfloat16(), torch.randn(8, 4)
    found = []
    for layer, to in ((NormDrop(4, "relu"), torch.bfloat16), (NormDrop(4, "relu"), torch.float32)):
        given = [x.detach().clone().to(to).requires_grad_(), residual.clone().requires_grad_()]
        y = layer(*given)
        y.backward(torch.ones_like(y))
        assert y.dtype == to and given[1].grad.dtype == torch.float32
        found.append([y, given[0].grad, given[1].grad])
    for got, wanted in zip(*found):
        equal(got, wanted.to(got.dtype))


@pytest.mark.parametrize("dtype, digits", [(torch.bfloat16, 8), (torch.float16, 11)])
def test_halves_are_within_half_a_unit_of_float64(dtype, digits):
    """Of the exact values of PyTorch in float64: half a unit of the half type, and the bound of float32."""
    torch.manual_seed(14)
    x, grad = (torch.randn(500, 6).mul(2).add(3).to(dtype) for _ in range(2))
    ours, exact = NormDrop(6, "relu"), torch.nn.BatchNorm1d(6, eps=float(numpy.float32(1e-5))).double()
    given = [x.clone().requires_grad_(), x.double().requires_grad_()]
    results = [ours(given[0]), torch.relu(exact(given[1]))]
    results[0].backward(grad)
    results[1].backward(grad.double())
    scale = exact(given[1]).detach().abs().clamp(min=1)
    for got, wanted, bound in [(*results, 4 * 2.0**-24 * scale), (given[0].grad, given[1].grad, 5 * 2.0**-24 * 8 * scale)]:
        wanted = wanted.detach()
        unit = torch.exp2(torch.floor(torch.log2(wanted.abs() + 1e-30)) + 1 - digits)
        off = (got.detach().double() - wanted).abs()
        assert (off <= 0.5 * unit * (1 + 2.0**-10) + bound + 2.0**-25).all()
        assert (off > 0.3 * unit).double().mean() > 0.1, "halves are not this exact"


def test_autocast():
    """As with BatchNorm: bfloat16 comes in and goes out, and the parameters stay in float32."""
    torch.manual_seed(12)
    ours = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3), NormDrop(8, "relu"), torch.nn.Conv2d(8, 2, 1))
    theirs = torch.nn.Sequential(ours[0], torch.nn.BatchNorm2d(8), torch.nn.ReLU(), ours[2])
    x, found = torch.randn(4, 3, 9, 9), []
    for network in (ours, theirs):
        network.zero_grad()
        with torch.autocast("cpu", torch.bfloat16):
            y = network(x)
        assert y.dtype == torch.bfloat16
        y.float().pow(2).mean().backward()
        found.append([y, ours[0].weight.grad.clone(), network[1].weight.grad])
        assert network[1].weight.grad.dtype == torch.float32
    torch.testing.assert_close(*found, rtol=0.05, atol=0.02)


def test_what_batch_norm_has():
    """Arguments, attributes and methods of BatchNorm2d."""
    for options in ({}, {"bias": False}, {"affine": False}, {"track_running_stats": False}, {"device": "meta"},
                    {"dtype": torch.bfloat16}, {"eps": 0.5, "momentum": None}):
        theirs, ours = torch.nn.BatchNorm2d(6, **options), NormDrop(6, **options)
        assert isinstance(ours, _BatchNorm)
        for name in ("num_features", "eps", "momentum", "affine", "track_running_stats"):
            assert getattr(ours, name) == getattr(theirs, name)
        assert [(name, tensor.dtype, tensor.device, tensor.shape) for name, tensor in ours.state_dict().items()] == [
            (name, tensor.dtype, tensor.device, tensor.shape) for name, tensor in theirs.state_dict().items()]
        if options.get("device") is None:
            x = torch.randn(4, 6, 3, 3).to(options.get("dtype"))
            within = dict.fromkeys(("rtol", "atol"), 0.01 if "dtype" in options else 1e-5)
            torch.testing.assert_close(ours(x), theirs(x), **within)
            torch.testing.assert_close(ours.eval()(x), theirs.eval()(x), **within)
            torch.testing.assert_close(ours.state_dict(), theirs.state_dict(), **within)
            ours.reset_running_stats()
            assert ours.running_mean is None or (not ours.running_mean.any() and int(ours.num_batches_tracked) == 0)
    with pytest.raises(TypeError, match="float64"):
        NormDrop(6, dtype=torch.float64)
    layer = NormDrop(6, "relu", device="meta")
    assert layer(torch.empty(4, 6, device="meta")).shape == (4, 6)
    with pytest.raises(TypeError, match="x is on cpu"):
        layer(torch.zeros(4, 6))
    layer = layer.to_empty(device="cpu")
    layer.reset_parameters()
    equal(list(layer.state_dict().values()), list(torch.nn.BatchNorm2d(6).state_dict().values()))
    layer.weight.data.mul_(3), layer.running_var.mul_(3)
    layer.reset_parameters()
    assert float(layer.weight.sum()) == float(layer.running_var.sum()) == 6


def test_tracking_that_is_turned_off_later():
    """As in BatchNorm: training leaves the statistics alone, and evaluation still uses them."""
    torch.manual_seed(13)
    theirs, ours = torch.nn.BatchNorm1d(4), NormDrop(4)
    for layer in (theirs, ours):
        layer.running_mean.fill_(2)
        layer.track_running_stats = False
    x = torch.randn(8, 4)
    for training in (True, False):
        torch.testing.assert_close(ours.train(training)(x), theirs.train(training)(x))
    torch.testing.assert_close(ours.state_dict(), theirs.state_dict())
    for layer in (theirs, ours):
        layer.running_mean = layer.running_var = None
    torch.testing.assert_close(ours(x), theirs(x))
    ours.frozen = True
    with pytest.raises(ValueError, match="frozen layer needs running statistics"):
        ours.train()(x)


def test_a_running_mean_with_a_tail_does_not_stop():
    """The mean of all batches is 100002.5; with one float32 it stays where its changes are rounded away."""
    results = []
    for mean_tail in (False, True):
        layer = NormDrop(1, momentum=None, mean_tail=mean_tail)
        with torch.no_grad():
            for middle in (100000, 100005):
                for _ in range(2000):
                    layer(torch.tensor([[middle - 1.0], [middle + 1.0]]))
        tail = float(layer.running_mean_tail) if mean_tail else 0.0
        results.append(abs(float(layer.running_mean.double()) + tail - 100002.5))
    assert results[0] > 0.1 and results[1] < 1e-4


def test_a_tail_is_used_wherever_the_running_mean_is():
    torch.manual_seed(22)
    x, grad, layer = torch.randn(16, 3) + 3e5, torch.randn(16, 3), NormDrop(3, "silu", mean_tail=True)
    for parameter in layer.parameters():
        parameter.data.uniform_(0.5, 1)
    mean = x.double().mean(0)
    layer.running_mean.copy_(mean), layer.running_mean_tail.copy_(mean - layer.running_mean.double())
    layer.running_var.copy_(x.double().var(0))
    assert float(layer.running_mean_tail.abs().max()) > 1e-3
    layer.frozen = True

    def exact(x):
        xhat = (x - mean) / torch.sqrt(layer.running_var.double() + float(numpy.float32(layer.eps)))
        return torch.nn.functional.silu(xhat * layer.weight.double() + layer.bias.double())

    for training in (True, False):
        found = []
        for call, of in ((layer.train(training), x), (exact, x.double())):
            of = of.clone().requires_grad_()
            y = call(of)
            first, = torch.autograd.grad(y, of, grad.to(of.dtype), create_graph=True)
            second, = torch.autograd.grad(first.pow(2).sum(), of)
            found.append((y.detach().double(), first.detach().double(), second.double()))
        torch.testing.assert_close(*found, rtol=1e-5, atol=1e-5)
    linear = torch.nn.Linear(3, 3).eval()
    linear.bias.data += mean.float()
    scale = layer.weight.double() / torch.sqrt(layer.running_var.double() + layer.eps)
    wanted = (linear.bias.double() - mean) * scale + layer.bias.double()
    torch.testing.assert_close(fuse(linear, layer.eval())[0].bias.double(), wanted, rtol=1e-5, atol=1e-5)

    stored, loaded = layer.state_dict(), NormDrop(3, "silu", mean_tail=True).eval()
    loaded.load_state_dict(stored)
    equal(loaded(x), layer(x))
    # One of a layer without the tail loads, and one with it does not where it would be lost.
    loaded.load_state_dict(torch.nn.BatchNorm1d(3).state_dict())
    assert not loaded.running_mean_tail.any()
    for other in (NormDrop(3), torch.nn.BatchNorm1d(3)):
        with pytest.raises(RuntimeError, match="running_mean_tail"):
            other.load_state_dict(stored)
    layer.frozen = False
    layer.reset_running_stats()
    assert not layer.running_mean_tail.any()
    torch.func.replace_all_batch_norm_modules_(layer)(x)
    assert NormDrop(3, mean_tail=True, track_running_stats=False).running_mean_tail is None
    lazy = LazyNormDrop(mean_tail=True)
    lazy(x)
    assert lazy.running_mean_tail.any() and repr(lazy) == repr(NormDrop(3, mean_tail=True))
    with pytest.raises(TypeError, match="float32"):
        NormDrop(3, mean_tail=True, dtype=torch.bfloat16)
    with pytest.raises(TypeError, match="running_mean_tail is for"):
        NormDrop(3, mean_tail=True).bfloat16()(x)
    with pytest.raises(TypeError, match="running_mean_tail is for"):
        function(x, running_mean_tail=torch.zeros(3))


def test_a_lazy_layer():
    torch.manual_seed(14)
    for options in ({}, {"bias": False}, {"affine": False}, {"track_running_stats": False}, {"dtype": torch.bfloat16}):
        lazy, x = LazyNormDrop("relu", 0.25, eps=0.5, granularity="channel", **options), torch.randn(6, 3, 4)
        assert repr(lazy).startswith("LazyNormDrop(0, 'relu'")
        torch.manual_seed(0)
        y = lazy(x, torch.zeros_like(x))
        assert type(lazy) is NormDrop and lazy.num_features == 3
        made = NormDrop(3, "relu", 0.25, eps=0.5, granularity="channel", **options)
        torch.manual_seed(0)
        equal(y, made(x, torch.zeros_like(x)))
        assert repr(lazy) == repr(made)
        equal(dict(lazy.state_dict()), dict(made.state_dict()))
    lazy = LazyNormDrop()
    lazy.load_state_dict(torch.nn.BatchNorm1d(5).state_dict())
    assert lazy.weight.shape == (5,)
    # After that the first batch has nothing to initialise, and the number of channels comes from the tensors.
    lazy(torch.randn(4, 5))
    assert lazy.num_features == 5
    x, linear = torch.randn(4, 3), torch.nn.Linear(3, 5).eval()
    torch.testing.assert_close(fuse(linear, lazy.eval())(x), lazy(linear(x)))


def test_update_bn():
    """Stochastic weight averaging: the statistics of a whole data set."""
    torch.manual_seed(15)
    theirs, ours = torch.nn.Sequential(torch.nn.BatchNorm1d(4), torch.nn.ReLU()), torch.nn.Sequential(NormDrop(4, "relu", p=0.5))
    data = [torch.randn(16, 4) + shift for shift in range(5)]
    for network in (theirs, ours):
        network(torch.randn(8, 4) * 9)
        network.eval()
        torch.optim.swa_utils.update_bn(data, network)
    torch.testing.assert_close(ours.state_dict(), theirs.state_dict())
    assert ours[0].momentum == 0.1 and not ours.training
    torch.testing.assert_close(ours[0].running_mean, torch.cat(data).mean(0))
    # Nothing would come back into these.
    ours[0].frozen = True
    with pytest.raises(RuntimeError, match="frozen"):
        torch.optim.swa_utils.update_bn(data, ours)
    torch.testing.assert_close(ours.state_dict(), theirs.state_dict())


def test_loops_that_freeze_batch_norm():
    """The usual one finds the layer and turns its dropout off as well; `frozen` keeps it."""
    network, x = torch.nn.Sequential(torch.nn.Linear(4, 4), NormDrop(4, p=0.5)), torch.randn(64, 4)
    for module in network.train().modules():
        if isinstance(module, _BatchNorm):
            module.eval()
            module.requires_grad_(False)
    torch.testing.assert_close(network(x), network[0](x), rtol=1e-4, atol=1e-4)
    network.train()
    network[1].frozen = True
    y = network(x)
    torch.testing.assert_close(y, torch.where(y == 0, 0, network[0](x) * 2), rtol=1e-4, atol=1e-4)
    assert 50 < int((y == 0).sum()) < 200 and torch.equal(network[1].running_mean, torch.zeros(4))


def test_a_synchronised_form_is_refused():
    """It would have neither activation nor dropout. A batch norm alone is one."""
    frozen = NormDrop(4)
    frozen.frozen = True
    for refused in (NormDrop(4, "relu"), NormDrop(4, p=0.5), NormDrop(4, mean_tail=True), frozen):
        for network in (torch.nn.Sequential(refused), torch.nn.Sequential(refused).eval()):
            with pytest.raises(RuntimeError, match="SyncNormDrop.convert"):
                torch.nn.SyncBatchNorm.convert_sync_batchnorm(network)
    converted = torch.nn.SyncBatchNorm.convert_sync_batchnorm(torch.nn.Sequential(NormDrop(4)))
    assert isinstance(converted[0], torch.nn.SyncBatchNorm)
    # The attribute that gives it away is otherwise one that is not there, until it is set.
    layer = NormDrop(4, "relu")
    assert not hasattr(layer, "qconfig") and getattr(layer, "qconfig", None) is None
    layer.qconfig = 3
    assert layer.qconfig == 3


def linear_layers():
    yield torch.nn.Linear(4, 6), torch.randn(5, 4)
    yield torch.nn.Linear(4, 6, bias=False), torch.randn(5, 4)
    for dimensions in (1, 2, 3):
        for transposed in ("", "Transpose"):
            for groups in (1, 2):
                kind = getattr(torch.nn, f"Conv{transposed}{dimensions}d")
                yield kind(4, 6, 3, groups=groups, bias=groups == 1), torch.randn(2, 4, *(4,) * dimensions)


def test_layers_are_fused_for_evaluation():
    torch.manual_seed(16)
    for linear, x in linear_layers():
        for activation in ACTIVATIONS:
            layer = NormDrop(6, activation, p=0.5, slope=SLOPE, alpha=ALPHA, affine=activation != "tanh")
            layer.running_mean.normal_(), layer.running_var.uniform_(0.5, 2)
            if layer.affine:
                layer.weight.data.normal_(), layer.bias.data.normal_()
            network = torch.nn.Sequential(linear, layer).eval()
            before = copy.deepcopy(network.state_dict())
            torch.testing.assert_close(fuse(linear, layer)(x), network(x), rtol=1e-4, atol=1e-5)
            equal(dict(network.state_dict()), dict(before))
    assert type(fuse(linear, NormDrop(6).eval())) is type(linear)


def test_fusions_that_would_lose_something_are_refused():
    conv, linear = torch.nn.Conv2d(3, 4, 1).eval(), torch.nn.Linear(3, 4).eval()
    layer = NormDrop(4, "relu").eval()
    for theirs, before in ((torch.nn.utils.fusion.fuse_conv_bn_eval, conv), (torch.nn.utils.fusion.fuse_linear_bn_eval, linear)):
        with pytest.raises(RuntimeError, match="normdrop.torch.fuse keeps the activation"):
            theirs(before, layer)
        for plain in (NormDrop(4), NormDrop(4, p=0.5)):
            torch.testing.assert_close(theirs(before, plain.eval()).weight, fuse(before, plain).weight)
        with pytest.raises(RuntimeError, match="and mean_tail"):
            theirs(before, NormDrop(4, mean_tail=True).eval())
    dropping = NormDrop(4, p=0.5).eval()
    dropping.dropout = True
    broken = NormDrop(4).eval()
    broken.running_var[2] = -1
    for refused in (dropping, broken, NormDrop(4), NormDrop(5).eval(), NormDrop(4, track_running_stats=False).eval()):
        with pytest.raises(ValueError):
            fuse(conv, refused)
    with pytest.raises(TypeError, match="ReLU is no linear or convolution layer"):
        fuse(torch.nn.ReLU().eval(), layer)
    with pytest.raises(TypeError, match="BatchNorm2d is no NormDrop"):
        fuse(conv, torch.nn.BatchNorm2d(4).eval())
    for computed in (torch.nn.utils.parametrizations.weight_norm, torch.nn.utils.spectral_norm):
        with pytest.raises(ValueError, match="the weight is computed from other parameters"):
            fuse(computed(torch.nn.Conv2d(3, 4, 1)).eval(), layer)
    from torch.fx.experimental import optimization

    # That of torch.fx knows exact types alone, and leaves the layer as it is.
    network = torch.nn.Sequential(conv, layer)
    x = torch.randn(2, 3, 4, 4)
    torch.testing.assert_close(optimization.fuse(network)(x), network(x))


def test_a_traced_network_draws_new_masks():
    torch.manual_seed(17)
    plain, x = torch.nn.Sequential(torch.nn.Linear(5, 8), NormDrop(8, p=0.5)), torch.randn(50, 5)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        traced = torch.jit.trace(copy.deepcopy(plain), x, check_trace=False)
    plain(x)
    for seed in range(3):
        results = []
        for network in (plain, traced):
            torch.manual_seed(seed)
            results.append(network(x))
        equal(*results)
    equal(dict(traced.state_dict()), dict(plain.state_dict()))
    assert not torch.equal(traced(x) == 0, traced(x) == 0)


def test_a_script_is_refused():
    with pytest.raises(Exception, match="normdrop"):
        torch.jit.script(NormDrop(3))


@pytest.mark.parametrize("mode", ["train", "eval"])
def test_an_exported_network_computes_the_same(mode):
    torch.manual_seed(18)
    plain, x = network(p=0.5).train(mode == "train"), torch.randn(16, 5)
    exported = torch.export.export(copy.deepcopy(plain), (x,), dynamic_shapes=({0: torch.export.Dim("batch", min=2)},))
    stored = io.BytesIO()
    torch.export.save(exported, stored)
    stored.seek(0)
    loaded = torch.export.load(stored).module()
    for batch in (16, 7):
        results = []
        for each in (plain, loaded):
            torch.manual_seed(19)
            results.append(each(torch.ones(batch, 5).cumsum(0)))
        equal(*results)
    equal(dict(loaded.named_buffers()), dict(plain.named_buffers()))


def test_a_symbolic_graph_has_the_layer_as_it_is():
    """A leaf, as a BatchNorm is: it still follows train() and eval(). The function is one call."""
    plain, x = network(p=0.5), torch.randn(16, 5)
    graph = torch.fx.symbolic_trace(plain)
    assert [node.target for node in graph.graph.nodes if node.op == "call_module"] == ["0", "1", "2"]
    for training in (True, False):
        results = []
        for each in (plain, graph):
            torch.manual_seed(20)
            results.append(each.train(training)(x))
        equal(*results)

    class Block(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = NormDrop(5, "relu")

        def forward(self, x):
            return function(self.layer(x, x), activation="tanh")

    block = Block()
    equal(torch.fx.symbolic_trace(block)(x), block(x))


@pytest.mark.parametrize("reentrant", [False, True])
@pytest.mark.parametrize("behind", [False, True])
def test_a_checkpoint_updates_the_running_statistics_once(behind, reentrant):
    """The batch is the same when its forward pass is repeated, and so is the mask. BatchNorm counts it twice."""
    torch.manual_seed(21)
    layers = [torch.nn.Linear(5, 8), NormDrop(8, "silu", p=0.5)] + ([torch.nn.Linear(8, 8), torch.nn.Tanh()] if behind else [])
    plain = torch.nn.Sequential(*layers)
    kept, x = copy.deepcopy(plain), torch.randn(16, 5)
    call = lambda x: torch.utils.checkpoint.checkpoint(kept, x, use_reentrant=reentrant)
    equal(steps(kept, call, x), steps(plain, plain, x))
    assert int(kept[1].num_batches_tracked) == 3

    theirs = torch.nn.Sequential(torch.nn.Linear(5, 8), torch.nn.BatchNorm1d(8), torch.nn.Tanh())
    torch.utils.checkpoint.checkpoint(theirs, x.requires_grad_(), use_reentrant=reentrant).sum().backward()
    assert int(theirs[1].num_batches_tracked) == 2, "PyTorch has mended it: take out what is said about it"


def test_a_checkpoint_around_what_is_compiled_and_inside():
    x = torch.randn(16, 8)
    outside, inside = NormDrop(8, p=0.5), NormDrop(8, p=0.5)
    compiled = torch.compile(outside, backend="aot_eager")
    torch.utils.checkpoint.checkpoint(compiled, x.requires_grad_(), use_reentrant=False).sum().backward()
    # The graph is run again as it is, with its updates; the README says so.
    assert int(outside.num_batches_tracked) == 2

    def function(x):
        return torch.utils.checkpoint.checkpoint(inside, x, use_reentrant=False)

    torch.compile(function, backend="aot_eager")(x).sum().backward()
    assert int(inside.num_batches_tracked) == 1


def test_a_layer_can_be_copied_and_stored():
    layer, x = NormDrop(3, "relu"), torch.randn(6, 3)
    stored = io.BytesIO()
    torch.save(layer, stored)
    stored.seek(0)
    for other in (copy.deepcopy(layer), torch.load(stored, weights_only=False)):
        assert torch.equal(other(x), copy.deepcopy(layer)(x))


@pytest.mark.parametrize("arguments, kind, said", [
    ((torch.zeros(4, 3, dtype=torch.float64),), TypeError, "on the CPU, not torch.float64 on cpu"),
    ((torch.zeros(4, 3, device="meta"),), TypeError, "on meta"),
    ((torch.zeros(3),), ValueError, "x must be a tensor"),
    ((numpy.zeros((4, 3), numpy.float32),), ValueError, "x must be a tensor"),
    ((torch.zeros(4, 3), numpy.zeros((4, 3), numpy.float32)), TypeError, "residual must be a tensor, not ndarray"),
    ((torch.zeros(4, 2),), ValueError, "weight must have the shape (2,), not (3,)"),
    ((torch.zeros(4, 3), torch.zeros(3, 4)), ValueError, "residual must have the shape (4, 3), not (3, 4)"),
    ((torch.zeros(1, 3),), ValueError, "more than one value per channel"),
])
def test_wrong_inputs(arguments, kind, said):
    layer = NormDrop(3)
    with pytest.raises(kind) as refused:
        layer(*arguments)
    assert said in str(refused.value)
    assert int(layer.num_batches_tracked) == 0 and float(layer.running_mean.abs().sum()) == 0


def test_wrong_layers():
    with pytest.raises(ValueError, match="activation must be one of"):
        NormDrop(3, "swish")
    with pytest.raises(ValueError, match="must be in .0, 1."):
        NormDrop(3, p=2)
    with pytest.raises(ValueError, match="running_mean and running_var are needed"):
        function(torch.zeros(4, 3), training=False)
