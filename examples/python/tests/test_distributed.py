"""Parts of a batch in several processes, gloo between them, against the whole batch in one.

Four processes; the first two and the first three are groups of their own. What a process computes comes back in a file.
"""

import sys
from datetime import timedelta
from pathlib import Path

import pytest
from conftest import missing

try:
    import torch
    import torch.distributed as dist
except ImportError:
    missing("torch", "PyTorch is not installed")
if not dist.is_available() or not dist.is_gloo_available():
    missing("torch", "this PyTorch has no gloo")

from normdrop.distributed import SyncNormDrop
from normdrop.torch import LazyNormDrop, NormDrop

CHANNELS = 5
# The samples of each process: unequal, one alone, none at the beginning, in the middle and at the end.
PARTS = {2: [(5, 2), (0, 3), (1, 1)], 3: [(1, 0, 6), (2, 3, 4)], 4: [(3, 1, 0, 4), (0, 2, 2, 0), (0, 0, 0, 0)]}
OPTIONS = {
    "plain": {},
    "all": {"activation": "gelu", "p": 0.3, "mean_tail": True, "momentum": 0.3, "eps": 1e-3},
    "relu": {"activation": "relu", "p": 0.5, "momentum": None, "granularity": "channel"},
    "stochastic depth": {"activation": "silu", "p": 0.5, "granularity": "sample", "bias": False},
    "prelu": {"activation": "prelu", "p": 0.3, "slope": torch.linspace(-0.3, 0.6, CHANNELS)},
    "no statistics": {"activation": "leaky_relu", "slope": 0.2, "track_running_stats": False, "affine": False},
}
SHAPES = {"NC": (), "NCHW": (3, 6), "channels last": (3, 6)}
CASES = [(parts, options, shape) for sizes in PARTS.values() for parts in sizes for options in OPTIONS for shape in SHAPES]
HALVES = [(parts, options, shape, dtype) for parts in ((5, 2), (1, 0, 6)) for options in ("all", "relu", "prelu", "no statistics") for shape in SHAPES
          for dtype in (torch.bfloat16, torch.float16)]


def tensors(parts, shape):
    """x, residual and the gradient of the output for the whole batch, far from zero as images are."""
    generator = torch.Generator().manual_seed(sum(parts) + 17)
    size = (sum(parts), CHANNELS, *SHAPES[shape])
    x, residual, grad = (torch.randn(size, generator=generator) for _ in range(3))
    made = [20 + 3 * x, residual, grad]
    return [tensor.contiguous(memory_format=torch.channels_last) if shape == "channels last" else tensor for tensor in made]


def layer_of(kind, options):
    layer = kind(CHANNELS, **OPTIONS[options])
    with torch.no_grad():
        for tensor, start in ((layer.weight, 0.5), (layer.bias, -1.0)):
            if tensor is not None:
                tensor.copy_(torch.linspace(start, start + 2, CHANNELS))
    return layer


def steps(layer, call, x, residual, grad):
    """Two training steps: everything that comes out."""
    found = {}
    for step in range(2):
        inputs = [(tensor + step).detach().requires_grad_() for tensor in (x, residual)]
        layer.zero_grad()
        y = call(*inputs)
        y.backward(grad)
        found[f"y {step}"], found[f"dx {step}"], found[f"dr {step}"] = y.detach(), inputs[0].grad, inputs[1].grad
        for name, parameter in layer.named_parameters():
            found[f"{name} {step}"] = parameter.grad.clone()
    found.update({f"buffer {name}": buffer.clone() for name, buffer in layer.named_buffers()})
    return found


def of_halves(layer, rows, parts, shape, dtype, seed):
    """A training step of halves, and one of the same numbers as float32: everything that comes out of each."""
    halves = [tensor[rows].to(dtype) for tensor in tensors(parts, shape)]
    before = {name: buffer.clone() for name, buffer in layer.named_buffers()}
    results = []
    for inputs in (halves, [tensor.float() for tensor in halves]):
        torch.manual_seed(seed)
        layer.zero_grad()
        x, residual = (tensor.detach().requires_grad_() for tensor in inputs[:2])
        y = layer(x, residual)
        y.backward(inputs[2])
        found = {"y": y.detach(), "dx": x.grad, "dr": residual.grad}
        found.update({name: parameter.grad.clone() for name, parameter in layer.named_parameters()})
        found.update({f"buffer {name}": buffer.clone() for name, buffer in layer.named_buffers()})
        results.append(found)
        for name, buffer in layer.named_buffers():
            buffer.copy_(before[name])
    return results


def network():
    torch.manual_seed(3)
    return torch.nn.Sequential(
        torch.nn.Conv2d(2, CHANNELS, 3), NormDrop(CHANNELS, "relu"), torch.nn.Flatten(), torch.nn.Linear(CHANNELS * 4, 3)
    )


def learn(network, x, target, whole, times):
    """Three steps of gradient descent by the loss that is a mean over the whole batch; `times` undoes an average."""
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
    for _ in range(3):
        optimizer.zero_grad()
        (torch.nn.functional.mse_loss(network(x), target, reduction="sum") * times / whole).backward()
        optimizer.step()
    return network.state_dict()


def samples():
    generator = torch.Generator().manual_seed(5)
    return torch.randn(9, 2, 4, 4, generator=generator), torch.randn(9, 3, generator=generator)


def work(rank, folder):
    """What one process does."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=4, timeout=timedelta(seconds=300))
    groups = {size: dist.new_group(list(range(size))) for size in PARTS}
    results = {}
    for case, (parts, options, shape) in enumerate(CASES):
        if rank >= len(parts):
            continue
        rows = slice(sum(parts[:rank]), sum(parts[:rank + 1]))
        layer = layer_of(SyncNormDrop, options)
        layer.process_group = groups[len(parts)]
        torch.manual_seed(case + 1000 * rank)
        results[case] = steps(layer, layer, *(tensor[rows] for tensor in tensors(parts, shape)))
    for case, (parts, options, shape, dtype) in enumerate(HALVES):
        if rank < len(parts):
            rows = slice(sum(parts[:rank]), sum(parts[:rank + 1]))
            layer = layer_of(SyncNormDrop, options)
            layer.process_group = groups[len(parts)]
            results["halves", case] = of_halves(layer, rows, parts, shape, dtype, case + 1000 * rank)
    # Other processes evaluate and train frozen without this one.
    layer = layer_of(SyncNormDrop, "all").eval()
    if rank == 0:
        x = tensors((3, 2), "NCHW")[0]
        plain = layer_of(NormDrop, "all").eval()
        assert torch.equal(layer(x), plain(x))
        layer.train().frozen = True
        layer.dropout = False
        assert torch.equal(layer(x), plain(x))
        layer, plain = (layer_of(kind, "no statistics").eval() for kind in (SyncNormDrop, NormDrop))
        assert torch.equal(layer(x), plain(x))
    # As a user has it, with all four.
    x, target = samples()
    rows = [slice(0, 4), slice(4, 5), slice(5, 5), slice(5, 9)][rank]
    parallel = torch.nn.parallel.DistributedDataParallel(SyncNormDrop.convert(network()))
    results["network"] = learn(parallel, x[rows], target[rows], len(x), dist.get_world_size())
    torch.save(results, f"{folder}/{rank}.pt")
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """What each of the four processes found."""
    folder = tmp_path_factory.mktemp("processes")
    sys.path.insert(0, str(Path(__file__).parent))
    torch.multiprocessing.spawn(work, (str(folder),), nprocs=4)
    return [torch.load(folder / f"{rank}.pt") for rank in range(4)]


def close(found, wanted, scale, what):
    assert found.shape == wanted.shape, what
    if wanted.numel():
        error = (found.double() - wanted.double()).abs().max()
        assert error <= 1e-6 * max(scale, 1.0), f"{what}: {error}"


@pytest.mark.parametrize("case", range(len(CASES)), ids=[" ".join(map(str, case)) for case in CASES])
def test_parts_give_what_the_whole_batch_gives(found, case):
    parts, options, shape = CASES[case]
    ranks = [found[rank][case] for rank in range(len(parts))]
    x, residual, grad = tensors(parts, shape)
    layer = layer_of(NormDrop, options)
    # The seeds that the first process draws.
    torch.manual_seed(case)
    wanted = steps(layer, layer, x, residual, grad)
    assert ranks[0].keys() == wanted.keys()
    for name, value in wanted.items():
        scale = value.abs().max().item() if value.numel() else 0.0
        values = [rank[name] for rank in ranks]
        if name.startswith(("y", "dx", "dr")):
            assert [len(value) for value in values] == list(parts)
            got = torch.cat(values)
            # The same elements are dropped.
            assert torch.equal(got == 0, value == 0) or options in ("plain", "no statistics") or not name.startswith(("y", "dr"))
            close(got, value, scale, name)
        elif name.startswith("buffer"):
            assert all(torch.equal(value, values[0]) for value in values), f"{name}: the processes differ"
            if "tail" in name:
                # Beside the mean that it belongs to.
                mean = "buffer running_mean"
                close(ranks[0][mean].double() + values[0].double(), wanted[mean].double() + value.double(), 1e-3 * wanted[mean].abs().max(), name)
            else:
                close(values[0], value, scale, name)
        else:
            close(torch.stack(values).sum(0), value, scale * sum(parts) ** 0.5, name)
    if options == "all" and sum(parts):
        assert ranks[0]["buffer num_batches_tracked"] == 2


@pytest.mark.parametrize("case", range(len(HALVES)), ids=[" ".join(map(str, case)) for case in HALVES])
def test_halves_are_float32_rounded_once(found, case):
    """To the bit, on every process. The statistics are those of the float32 values, unrounded."""
    parts, _, _, dtype = HALVES[case]
    for rank in range(len(parts)):
        halves, singles = found[rank]["halves", case]
        assert halves.keys() == singles.keys()
        for name, single in singles.items():
            half = halves[name]
            if name in ("y", "dx", "dr"):
                assert half.dtype == dtype and len(half) == parts[rank]
                single = single.to(dtype)
            assert torch.equal(half, single), name


def test_a_network_learns_as_from_the_whole_batch(found):
    x, target = samples()
    wanted = learn(network(), x, target, len(x), 1)
    for rank in found:
        for name, value in rank["network"].items():
            torch.testing.assert_close(value, wanted[name.removeprefix("module.")], rtol=2e-5, atol=2e-6)
            assert torch.equal(value, found[0]["network"][name]), f"{name}: the processes differ"


def test_convert_keeps_everything():
    plain = NormDrop(CHANNELS, "gelu", 0.25, momentum=None, granularity="channel", mean_tail=True)
    plain.frozen, plain.dropout = True, True
    lone = SyncNormDrop.convert(plain, "a group")
    assert type(lone) is SyncNormDrop and lone.process_group == "a group" and repr(lone) == "Sync" + repr(plain)
    assert lone.weight is plain.weight and lone.running_mean is plain.running_mean
    learned = SyncNormDrop.convert(layer_of(NormDrop, "prelu"))
    assert torch.equal(learned.slope, OPTIONS["prelu"]["slope"]) and "slope" in dict(learned.named_parameters())
    nested = SyncNormDrop.convert(torch.nn.Sequential(torch.nn.Linear(2, CHANNELS), torch.nn.Sequential(plain)))
    assert type(nested[1][0]) is SyncNormDrop and type(nested[0]) is torch.nn.Linear
    assert SyncNormDrop.convert(nested)[1][0] is nested[1][0]
    twice = SyncNormDrop.convert(torch.nn.Sequential(plain, torch.nn.ReLU(), plain))
    assert type(twice[0]) is type(twice[2]) is SyncNormDrop and twice[2].weight is plain.weight

    class Special(NormDrop):
        pass

    for refused in (LazyNormDrop(), Special(3)):
        with pytest.raises(TypeError, match=type(refused).__name__):
            SyncNormDrop.convert(torch.nn.Sequential(refused))


def test_one_process_needs_no_others():
    x, residual, grad = tensors((3, 2), "NCHW")
    results = []
    for kind in (SyncNormDrop, NormDrop):
        layer = layer_of(kind, "all")
        torch.manual_seed(1)
        results.append(steps(layer, layer, x, residual, grad))
    for name, value in results[0].items():
        assert torch.equal(value, results[1][name]), name
