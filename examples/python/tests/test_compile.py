"""Layers beside PyTorch, without its module: in functions that `torch.compile` compiles, which traces Python and must leave
the calls of C alone, and with its numbers.
"""

import os
import subprocess
import sys

import numpy
import pytest

import normdrop
from conftest import missing

try:
    import torch
except ImportError:
    missing("torch", "PyTorch is not installed")

SHAPE = (8, 300, 3)
LAYER = normdrop.Layer("NCL", SHAPE, "silu", p=0.3)


def train(x, grad):
    mask = LAYER.mask(7)
    running = {"running_mean": numpy.zeros(300, numpy.float32), "running_var": numpy.ones(300, numpy.float32)}
    y, saved = LAYER.train(x * 2, mask=mask, residual=grad + 1, **running)
    gradients = LAYER.backward(grad + 1, x * 2, saved, mask=mask, residual=grad + 1, residual_gradient=True)
    return y + 1, *saved, *gradients, *running.values()


def evaluate(x, grad):
    mean, var = x[0, :, 0] * 2, numpy.abs(x[1, :, 1]) + 1
    y = LAYER.eval(x * 2, mean, var, weight=mean + 1, bias=var + 1)
    gradients = LAYER.backward(grad * 2, x * 2, running_mean=mean, running_var=var, residual_gradient=True)
    return y + 1, *gradients


def parts(x, grad):
    moments = LAYER.moments(x * 2)
    normdrop.merge_moments(moments, LAYER.moments(grad + 1))
    saved, mask = LAYER.finish(moments), LAYER.mask(7)
    sums = LAYER.reduce(grad + 1, x * 2, saved, mask=mask)
    normdrop.merge_sums(sums, sums * 2)
    dx = LAYER.apply_gradient(grad + 1, x * 2, saved, sums + 1, 48, mask=mask).input
    return moments + 1, LAYER.apply(x * 2, saved, mask=mask), dx, *LAYER.finish_gradients(sums * 2)


def made_inside(x, grad):
    layer = normdrop.Layer("NCL", x.shape, "relu", p=0.5, granularity="channel")
    masks = layer.mask(1), layer.mask_from(numpy.random.default_rng(2)), normdrop.fill_mask(0.5, 3, 100, first=5)
    return layer.train(x + grad, mask=masks[1])[0], *masks, numpy.array(normdrop.bernoulli(0.25))


def folded(x, grad):
    weights, mean, var = x[:, :, 0] * 2, x[0, :, 1] * 2, numpy.abs(x[1, :, 1]) + 1
    bias = grad[:, 0, 0] + 1
    normdrop.fold_into_next(weights, bias, mean, var, layout="OI")
    return weights + 1, bias + 1


def tensors(x, grad):
    """From tensors to arrays and back, as a network does it."""
    x, grad = torch.from_numpy(x), torch.from_numpy(grad)
    y, saved = LAYER.train((x * 2).numpy(), mask=LAYER.mask(7))
    dx = LAYER.backward((grad + torch.from_numpy(y)).numpy(), (x * 2).numpy(), saved, mask=LAYER.mask(7)).input
    return (torch.from_numpy(y) * 2).numpy(), (torch.from_numpy(dx) + x).numpy()


FUNCTIONS = [train, evaluate, parts, made_inside, folded, tensors]


def inputs():
    random = numpy.random.default_rng(1)
    return tuple(random.normal(size=SHAPE).astype(numpy.float32) for _ in range(2))


def check(function, backend):
    """The results are those without a compiler, bit for bit, and no line of the package is in a compiled graph."""
    graphs = []

    def recording(graph, examples):
        graphs.append(graph)
        return torch._dynamo.lookup_backend(backend)(graph, examples)

    torch._dynamo.reset()
    wanted, compiled = function(*inputs()), torch.compile(function, backend=recording)
    for _ in range(3):
        found = compiled(*inputs())
        assert len(found) == len(wanted)
        for one, other in zip(found, wanted):
            numpy.testing.assert_array_equal(one, other)
            assert one.shape == other.shape and one.dtype == other.dtype
    package = os.path.dirname(normdrop.__file__)
    traces = [node.stack_trace or "" for graph in graphs for node in graph.graph.nodes if node.op == "call_function"]
    assert traces and not [trace for trace in traces if package in trace]


@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
@pytest.mark.parametrize("function", FUNCTIONS)
def test_a_compiled_function_computes_the_same(function, backend):
    check(function, backend)


def test_a_call_ends_the_graph_by_name():
    with pytest.raises(torch._dynamo.exc.Unsupported, match=r"Layer\.mask(.|\n)*the addresses of arrays"):
        torch.compile(train, backend="eager", fullgraph=True)(*inputs())


def test_memory_is_kept_until_c_has_returned():
    """In a process that gives every array of a page or more back to the system at once: one that C still uses would end it."""
    environment = os.environ | {
        "MALLOC_MMAP_THRESHOLD_": "4096", "MALLOC_PERTURB_": "165", "PYTHONPATH": os.pathsep.join(sys.path),
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    run = subprocess.run([sys.executable, "-X", "faulthandler", __file__], env=environment, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr[-2000:]


def test_tensors_of_one_number_are_numbers():
    layer = normdrop.Layer("NC", (torch.tensor(20), 3), p=torch.tensor(0.5))
    assert layer == normdrop.Layer("NC", (20, 3), p=0.5)
    assert (layer.mask(torch.tensor(3)) == layer.mask(3)).all()
    for wrong in (torch.tensor(True), torch.tensor(3.0), torch.tensor([3])):
        with pytest.raises(TypeError, match="seed must be an integer, not Tensor"):
            layer.mask(wrong)
    for wrong in (torch.tensor(True), torch.tensor(1j), torch.tensor([0.5])):
        with pytest.raises(TypeError, match="p must be a real number, not Tensor"):
            normdrop.Layer("NC", (20, 3), p=wrong)
    with pytest.raises(TypeError, match="x must be a numpy array, not Tensor"):
        layer.train(torch.zeros(20, 3))


if __name__ == "__main__":
    for each in FUNCTIONS:
        check(each, "eager")
