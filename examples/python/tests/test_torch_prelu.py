"""PReLU in the PyTorch module against `torch.nn.PReLU` after batch norm and dropout, all in float64."""

import copy

import numpy
import pytest

from conftest import missing

try:
    import torch
except ImportError:
    missing("torch", "PyTorch is not installed")

import normdrop
from normdrop.torch import LazyNormDrop, NormDrop, fuse
from normdrop.torch import normdrop as function

U = 2.0**-24
P, SEED = 0.3, 7


def expected(layer, x, residual, grad, mode):
    """The output and all gradients, in float64: batch norm, `torch.nn.PReLU`, dropout with the mask of the seed."""
    norm = torch.nn.BatchNorm2d(x.shape[1], dtype=torch.float64)
    prelu = torch.nn.PReLU(layer.slope.numel(), dtype=torch.float64)
    with torch.no_grad():
        prelu.weight.copy_(layer.slope)
        for name in ("weight", "bias", "running_mean", "running_var"):
            getattr(norm, name).copy_(getattr(layer, name))
    norm.eps = float(numpy.float32(layer.eps))
    norm.train(mode == "train")
    x, residual = (tensor.detach().double().requires_grad_() for tensor in (x, residual))
    value = prelu(norm(x) + residual)
    if mode != "eval":
        bits = numpy.unpackbits(normdrop.fill_mask(P, SEED, x.numel()), count=x.numel(), bitorder="little")
        keep = torch.from_numpy(bits.astype(bool).reshape(x.shape))
        value = torch.where(keep, value * float(numpy.float32(normdrop.bernoulli(P)[1])), torch.zeros((), dtype=torch.float64))
    value.backward(grad.double())
    return value, {"x": x.grad, "residual": residual.grad, "slope": prelu.weight.grad, "weight": norm.weight.grad, "bias": norm.bias.grad}


@pytest.mark.parametrize("mode", ["train", "frozen", "eval"])
@pytest.mark.parametrize("slopes", [1, 5])
def test_it_is_prelu_after_batch_norm_and_before_dropout(slopes, mode):
    torch.manual_seed(slopes)
    layer = NormDrop(5, "prelu", P, slope=torch.randn(slopes))
    with torch.no_grad():
        for tensor in (layer.weight, layer.bias, layer.running_mean):
            tensor.normal_()
        layer.running_var.uniform_(0.5, 1.5)
    x, residual, grad = (torch.randn(4, 5, 7, 3) for _ in range(3))
    value, gradients = expected(layer, x, residual, grad, mode)
    x.requires_grad_()
    residual.requires_grad_()
    y = function(
        x, layer.running_mean, layer.running_var, layer.weight, layer.bias, residual=residual, training=mode == "train", activation="prelu",
        p=P, dropout=mode != "eval", seed=SEED, slope=layer.slope,
    )
    y.backward(grad)
    found = {"x": x.grad, "residual": residual.grad, **{name: getattr(layer, name).grad for name in ("slope", "weight", "bias")}}
    assert (y.detach().double() - value.detach()).abs().max() < 32 * U
    assert all(float(gradient.abs().min()) > 0 for gradient in (gradients["slope"], gradients["weight"])), "the slopes do something"
    for name, gradient in gradients.items():
        assert found[name].shape == gradient.shape
        error = (found[name].double() - gradient).abs().max()
        assert error < 64 * U * max(float(gradient.abs().max()), 1), name


def test_the_module_is_the_function_and_learns_its_slopes():
    torch.manual_seed(3)
    layer = NormDrop(5, "prelu", P)
    assert layer.slope.tolist() == [0.25] and "slope='" not in repr(layer) and "slope=1 learned" in repr(layer)
    assert set(layer.state_dict()) == {"weight", "bias", "slope", "running_mean", "running_var", "num_batches_tracked"}
    x, state = torch.randn(6, 5), torch.get_rng_state()
    y = layer(x)
    torch.set_rng_state(state)
    other = NormDrop(5, "identity", P)
    assert torch.equal(y, torch.nn.functional.prelu(other(x), layer.slope))
    y.sum().backward()
    before = copy.deepcopy(layer)
    torch.optim.SGD(layer.parameters(), 0.1).step()
    assert layer.slope.item() == pytest.approx(0.25 - 0.1 * layer.slope.grad.item())
    assert layer.slope.item() != before.slope.item()
    before.load_state_dict(layer.state_dict())
    assert torch.equal(before.slope, layer.slope)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_halves_are_rounded_once(dtype):
    torch.manual_seed(4)
    single = NormDrop(5, "prelu", P, slope=torch.tensor([0.3, 0.1, -0.7, 0.25, 1.3]))
    half = copy.deepcopy(single)
    x, grad = torch.randn(6, 5).to(dtype), torch.randn(6, 5).to(dtype)
    state, outputs, gradients = torch.get_rng_state(), [], []
    for layer, x in ((single, x.float()), (half, x.clone())):
        torch.set_rng_state(state)
        x.requires_grad_()
        y = layer(x)
        y.backward(grad.to(y.dtype))
        outputs.append(y)
        gradients.append(x.grad)
    assert outputs[1].dtype == gradients[1].dtype == dtype
    assert torch.equal(outputs[1], outputs[0].to(dtype)) and torch.equal(gradients[1], gradients[0].to(dtype))
    assert torch.equal(half.slope.grad, single.slope.grad)


def test_a_fused_layer_has_the_slopes():
    torch.manual_seed(5)
    linear, layer = torch.nn.Linear(3, 4), NormDrop(4, "prelu", slope=torch.randn(4))
    layer(linear(torch.randn(9, 3)))
    network = torch.nn.Sequential(linear, layer).eval()
    x = torch.randn(9, 3)
    assert torch.allclose(fuse(linear, layer)(x), network(x), atol=1e-6)


def test_a_lazy_layer_and_second_derivatives():
    layer = LazyNormDrop("prelu", slope=torch.full((5,), 0.5))
    layer(torch.randn(4, 5))
    assert layer.slope.shape == (5,) and type(layer) is NormDrop
    x = torch.randn(4, 5, requires_grad=True)
    first = torch.autograd.grad(layer(x).square().sum(), x, create_graph=True)[0]
    assert torch.autograd.grad(first.square().sum(), layer.slope)[0].abs().sum() > 0


def test_wrong_slopes():
    with pytest.raises(ValueError, match="slope must have one value or 5, not the shape"):
        NormDrop(5, "prelu", slope=torch.ones(4))
    with pytest.raises(TypeError, match="with relu, slope must be a number"):
        NormDrop(5, "relu", slope=torch.ones(5))
    x = torch.randn(4, 5)
    with pytest.raises(TypeError, match="with prelu, slope must be a tensor, not float"):
        function(x, activation="prelu", slope=0.25)
    with pytest.raises(ValueError, match="slope must have the shape"):
        function(x, activation="prelu", slope=torch.ones(4))
    with pytest.raises(TypeError, match="with identity, slope must be a number"):
        function(x, slope=torch.ones(5))
