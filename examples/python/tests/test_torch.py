"""The PyTorch module against PyTorch, within the documented bounds, on random shapes.

PyTorch computes the exact results, in float64 from the same float32 numbers, and its autograd the exact gradients. The bounds are
those of the crate: 4 u for the output and 5 u for the gradient of the input, with u = 2^-24, of the scales that
`tests/contracts/accuracy.rs` states.
"""

import copy
import io

import numpy
import pytest

torch = pytest.importorskip("torch")

import normdrop
from normdrop.torch import NormDrop
from normdrop.torch import normdrop as function

U = 2.0**-24
SLOPE = 0.25
ACTIVATIONS = {
    "identity": lambda z: z,
    "relu": torch.relu,
    "relu6": torch.nn.functional.relu6,
    "leaky_relu": lambda z: torch.nn.functional.leaky_relu(z, SLOPE),
    "hard_swish": torch.nn.functional.hardswish,
    "sigmoid": torch.sigmoid,
    "tanh": torch.tanh,
    "silu": torch.nn.functional.silu,
    "gelu": lambda z: torch.nn.functional.gelu(z, approximate="tanh"),
}
# The largest slope and curvature of each activation that rounds, as `normdrop_reference::activation` has them.
STEEPEST = {"leaky_relu": 1, "relu6": 1, "hard_swish": 1.5, "sigmoid": 0.25, "tanh": 1, "silu": 1.1, "gelu": 1.13}
CURVATURE = {"hard_swish": 1 / 3, "sigmoid": 0.0963, "tanh": 0.77, "silu": 0.5, "gelu": 0.8}


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
        self.layer = NormDrop(self.channels, activation, p=0.0 if plain else 0.3, slope=SLOPE, eps=1e-5)
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
        seed = int(torch.randint(-(2**63), 2**63 - 1, ()))
        last = self.x.dim() > 3 and not self.x.is_contiguous()
        shape = (self.x.shape[0], *self.x.shape[2:], self.x.shape[1]) if last else tuple(self.x.shape)
        bits = numpy.unpackbits(normdrop.fill_mask(self.layer.p, seed % 2**64, self.x.numel()), count=self.x.numel(),
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
            if activation in ("relu", "relu6", "leaky_relu", "hard_swish"):
                for kink in {"relu": (0,), "leaky_relu": (0,), "relu6": (0, 6), "hard_swish": (-3, 3)}[activation]:
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


def test_a_compiled_network_computes_the_same():
    torch.manual_seed(4)
    network = torch.nn.Sequential(torch.nn.Linear(5, 8), NormDrop(8, "silu", p=0.3), torch.nn.Linear(8, 2))
    compiled, gradients = torch.compile(copy.deepcopy(network), backend="eager"), []
    for each in (network, compiled):
        torch.manual_seed(5)
        x = torch.randn(16, 5, requires_grad=True)
        y = each(x)
        y.sum().backward()
        gradients.append((y, x.grad))
    torch.testing.assert_close(*gradients)


def test_a_layer_can_be_copied_and_stored():
    layer, x = NormDrop(3, "relu"), torch.randn(6, 3)
    stored = io.BytesIO()
    torch.save(layer, stored)
    stored.seek(0)
    for other in (copy.deepcopy(layer), torch.load(stored, weights_only=False)):
        assert torch.equal(other(x), copy.deepcopy(layer)(x))


@pytest.mark.parametrize("arguments, kind, said", [
    ((torch.zeros(4, 3, dtype=torch.float64),), TypeError, "x must be a float32 tensor on the CPU, not torch.float64 on cpu"),
    ((torch.zeros(4, 3, device="meta"),), TypeError, "on meta"),
    ((torch.zeros(3),), ValueError, "x must be a tensor"),
    ((numpy.zeros((4, 3), numpy.float32),), ValueError, "x must be a tensor"),
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
