#!/usr/bin/env python3
"""Measures the layer against PyTorch's own: the time of a training step, in float32 and in bfloat16, what gates spare, and a
network that learns digits with either.

    python compare_torch.py            prints four tables
    python compare_torch.py --record   writes them to results.md

A step is forward and backward of batch norm, ReLU and dropout with p = 0.1, as `NormDrop` and as the three modules of PyTorch in a
row; both on the same tensors, in turn, on one thread. Times are CPU times of the process, and the best of many rounds counts: what
else the machine does can only add to it.
"""

import argparse
import datetime
import platform
import statistics
import sys
import time
from pathlib import Path

import numpy
import torch

import normdrop
from normdrop import _torch_ops
from normdrop.torch import NormDrop

HERE = Path(__file__).resolve().parent
WORKLOADS = {
    "A NC 256x1024": ((256, 1024), False),
    "B NC 4096x4096": ((4096, 4096), False),
    "C NCHW 32x64x56x56": ((32, 64, 56, 56), False),
    "D NCHW 32x256x14x14": ((32, 256, 14, 14), False),
    "E NHWC 32x56x56x64": ((32, 64, 56, 56), True),
    "F NCHW 8x512x7x7": ((8, 512, 7, 7), False),
    "G NC 32x64": ((32, 64), False),
    "H NCL 16x32x4096": ((16, 32, 4096), False),
}
BATCH_NORM = {2: torch.nn.BatchNorm1d, 3: torch.nn.BatchNorm1d, 4: torch.nn.BatchNorm2d}
P = 0.1


def theirs_of(shape):
    return torch.nn.Sequential(BATCH_NORM[len(shape)](shape[1]), torch.nn.ReLU(), torch.nn.Dropout(P))


def milliseconds(modules, shape, last, seconds, dtypes=None):
    """The best time of a step of each module, measured in turn, on tensors of its type."""
    tensors = [torch.randn(shape), torch.randn(shape)]
    if last:
        tensors = [tensor.contiguous(memory_format=torch.channels_last) for tensor in tensors]
    inputs = [[tensor.to(dtype) for tensor in tensors] for dtype in dtypes or [torch.float32] * len(modules)]
    best = [float("inf")] * len(modules)
    end, rounds = time.perf_counter() + seconds, 0
    while rounds < 3 or time.perf_counter() < end:
        for i, (module, (x, grad)) in enumerate(zip(modules, inputs)):
            x.requires_grad_().grad = None
            module.zero_grad()
            start = time.process_time()
            module(x).backward(grad)
            best[i] = min(best[i], time.process_time() - start)
        rounds += 1
    return [1e3 * step for step in best]


def speed(seconds):
    yield "| workload | PyTorch, ms | `NormDrop`, ms | ratio |"
    yield "|---|---|---|---|"
    for name, (shape, last) in WORKLOADS.items():
        theirs, ours = milliseconds([theirs_of(shape), NormDrop(shape[1], "relu", P)], shape, last, seconds)
        yield f"| {name} | {theirs:.3g} | {ours:.3g} | {theirs / ours:.1f} |"
        if name.startswith("G "):
            least = ours
    yield ""
    yield f"A step costs at least about {least:.1g} ms, which is Python: a tensor as small as G has nothing to gain."


def halves(seconds):
    yield "| workload, bfloat16 | PyTorch, ms | `NormDrop`, ms | ratio | `NormDrop` in float32, ms | float32 / bfloat16 |"
    yield "|---|---|---|---|---|---|"
    for name, (shape, last) in WORKLOADS.items():
        modules = [theirs_of(shape), NormDrop(shape[1], "relu", P), NormDrop(shape[1], "relu", P)]
        dtypes = [torch.bfloat16, torch.bfloat16, torch.float32]
        theirs, ours, single = milliseconds(modules, shape, last, seconds, dtypes)
        yield f"| {name} | {theirs:.3g} | {ours:.3g} | {theirs / ours:.1f} | {single:.3g} | {single / ours:.2f} |"


class Block(torch.nn.Module):
    """`NormDrop` behind a sum with a residual; without gates as with an activation that has none."""

    def __init__(self, shape, last, gates):
        super().__init__()
        residual = torch.randn(shape)
        self.residual = torch.nn.Parameter(residual.contiguous(memory_format=torch.channels_last) if last else residual)
        self.layer, self.gates = NormDrop(shape[1], "relu", P), gates

    def forward(self, x):
        gated = _torch_ops.gated
        if not self.gates:
            _torch_ops.gated = lambda *_: False
        try:
            return self.layer(x, self.residual)
        finally:
            _torch_ops.gated = gated


def kept(module, x):
    """The bytes that the graph keeps of a step besides `x`."""
    storages = {}

    def pack(tensor):
        storages[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        module(x)
    storages.pop(x.untyped_storage().data_ptr())
    return sum(storages.values())


def gates(seconds):
    yield "| workload, with a residual | kept, MiB | without gates | a step, ms | without gates | ratio |"
    yield "|---|---|---|---|---|---|"
    for name, (shape, last) in WORKLOADS.items():
        blocks = [Block(shape, last, gates) for gates in (True, False)]
        with_gates, without = milliseconds(blocks, shape, last, seconds)
        memory = [kept(block, torch.randn(shape, requires_grad=True)) / 2**20 for block in blocks]
        yield f"| {name} | {memory[0]:.3g} | {memory[1]:.3g} | {with_gates:.3g} | {without:.3g} | {without / with_gates:.2f} |"


# The network of examples/digits, its optimiser and its batches.
HIDDEN, BATCH, RATE, TEST, TRAIN = 128, 20, 1e-3, 1000, 200
LAYERS = {
    "PyTorch": lambda p: torch.nn.Sequential(torch.nn.BatchNorm1d(HIDDEN), torch.nn.ReLU(), torch.nn.Dropout(p)),
    "`NormDrop`": lambda p: NormDrop(HIDDEN, "relu", p),
}


def network(layer, p):
    sizes = [64, HIDDEN, HIDDEN, HIDDEN]
    blocks = [part for i, o in zip(sizes, sizes[1:]) for part in (torch.nn.Linear(i, o), layer(p))]
    return torch.nn.Sequential(*blocks, torch.nn.Linear(HIDDEN, 10))


def learn(layer, p, seed, epochs):
    """The loss of every step, and the share of right answers on images that the network has not seen."""
    table = torch.from_numpy(numpy.loadtxt(HERE.parent / "digits/digits.csv", numpy.float32, delimiter=","))
    torch.manual_seed(seed)
    table = table[torch.randperm(len(table))]
    pixels, labels = table[:, :64] / 16, table[:, 64].long()
    net = network(layer, p)
    optimiser = torch.optim.Adam(net.parameters(), RATE)
    shuffle, losses = torch.Generator().manual_seed(seed), []
    for _ in range(epochs):
        for batch in torch.randperm(TRAIN, generator=shuffle).split(BATCH):
            optimiser.zero_grad()
            loss = torch.nn.functional.cross_entropy(net(pixels[batch]), labels[batch])
            loss.backward()
            optimiser.step()
            losses.append(float(loss.detach()))
    net.eval()
    with torch.no_grad():
        right = (net(pixels[-TEST:]).argmax(1) == labels[-TEST:]).float().mean()
    return losses, float(right)


def digits(seeds, epochs):
    yield "| layer | p | loss at the end | right answers, % |"
    yield "|---|---|---|---|"
    for p in (0.0, 0.2):
        runs = {name: [learn(layer, p, seed, epochs) for seed in range(seeds)] for name, layer in LAYERS.items()}
        for name, results in runs.items():
            loss = statistics.mean(statistics.mean(losses[-TRAIN // BATCH:]) for losses, _ in results)
            right = [100 * right for _, right in results]
            yield f"| {name} | {p} | {loss:.4f} | {statistics.mean(right):.1f} ± {statistics.stdev(right):.1f} |"
        first = [abs(a - b) for (ours, _), (theirs, _) in zip(*runs.values()) for a, b in zip(ours[:20], theirs[:20])]
        if p == 0:
            # The same network, step for step: only rounding tells the two apart, and training enlarges it.
            yield f"| *difference in the first 20 steps, at most* | {p} | {max(first):.0e} | |"
            assert max(first) < 1e-4, "without dropout both train the same network"
        for name, results in runs.items():
            assert min(right for _, right in results) > 0.8, f"{name} does not learn"


def cpu():
    for line in Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []:
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.processor() or "an unknown CPU"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--record", action="store_true", help="write results.md")
    parser.add_argument("--seconds", type=float, default=5, help="for each workload (5)")
    parser.add_argument("--seeds", type=int, default=10, help="networks of each kind (10)")
    parser.add_argument("--epochs", type=int, default=30, help="for each network (30)")
    arguments = parser.parse_args()
    torch.set_num_threads(1)

    lines = [
        "# Against PyTorch",
        "",
        f"Written by `python compare_torch.py --record` on {datetime.date.today()}: {cpu()}, one thread; normdrop "
        f"{normdrop.library_version()}, backend {normdrop.backend()}; PyTorch {torch.__version__}, numpy {numpy.__version__}, Python "
        f"{platform.python_version()}.",
        "",
        "## The time of a step",
        "",
        f"Forward and backward of batch norm, ReLU and dropout with p = {P}, CPU time, the best of {arguments.seconds:g} seconds "
        "each: PyTorch's three modules in a row, and `NormDrop`.",
        "",
    ]
    print("\n".join(lines))
    for line in speed(arguments.seconds):
        print(line, flush=True)
        lines.append(line)
    title = [
        "",
        "## The time of a step in bfloat16",
        "",
        "The same step with `x`, `y` and their gradients in bfloat16 and parameters in float32, as under autocast; all three in turn.",
        "",
    ]
    print("\n".join(title))
    lines += title
    for line in halves(arguments.seconds):
        print(line, flush=True)
        lines.append(line)
    title = [
        "",
        "## Gates",
        "",
        "The same step with a residual that is added before the ReLU, by `NormDrop` with gates, as it is, and without, as with an "
        "activation that has none: the memory that the graph keeps for the backward pass besides x, and the time, both in turn.",
        "",
    ]
    print("\n".join(title))
    lines += title
    for line in gates(arguments.seconds):
        print(line, flush=True)
        lines.append(line)
    title = [
        "",
        "## A network that learns digits",
        "",
        f"That of `examples/digits`, three hidden layers of {HIDDEN}, trained in PyTorch on {TRAIN} images for {arguments.epochs} epochs and "
        f"tested on {TEST} others; means over {arguments.seeds} seeds, which are the same for both. With dropout the masks differ.",
        "",
    ]
    print("\n".join(title))
    lines += title
    for line in digits(arguments.seeds, arguments.epochs):
        print(line, flush=True)
        lines.append(line)
    if arguments.record:
        (HERE / "results.md").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    sys.exit(main())
