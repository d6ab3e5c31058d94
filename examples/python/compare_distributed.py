#!/usr/bin/env python3
"""Measures synchronised batch norm on the CPU: what a training step costs more if its statistics are those of all processes.

    python compare_distributed.py [PROCESSES]      prints a table for 2 processes, or as many as are named

A step is forward and backward of batch norm, ReLU and dropout with p = 0.1, in each process on a part of the batch, on one thread:
by PyTorch's three modules and by `NormDrop`, which know only their part, and by `SyncNormDrop`. All three in turn, each begun
together by all processes; the time is that on the clock, until the first process is done, and the best of many rounds counts.
`torch.nn.SyncBatchNorm` is asked, too.
"""

import sys
import tempfile
import time

import torch
import torch.distributed as dist

from normdrop.distributed import SyncNormDrop
from normdrop.torch import NormDrop

WORKLOADS = {"NC 256x1024": (256, 1024), "NCHW 16x64x56x56": (16, 64, 56, 56), "NCHW 16x256x14x14": (16, 256, 14, 14), "NC 32x64": (32, 64)}
SECONDS = 10
P = 0.1


def theirs_of(norm, channels):
    return torch.nn.Sequential(norm(channels), torch.nn.ReLU(), torch.nn.Dropout(P))


def milliseconds(modules, shape):
    x, grad = torch.randn(shape, requires_grad=True), torch.randn(shape)
    best = [float("inf")] * len(modules)
    go_on, end = torch.ones(1), time.perf_counter() + SECONDS
    while go_on:
        for i, module in enumerate(modules):
            x.grad = None
            module.zero_grad()
            dist.barrier()
            start = time.perf_counter()
            module(x).backward(grad)
            best[i] = min(best[i], time.perf_counter() - start)
        # All processes stop after the same round.
        go_on[0] = time.perf_counter() < end
        dist.broadcast(go_on, 0)
    return [1e3 * step for step in best]


def work(rank, folder, processes):
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=processes)
    if rank == 0:
        print(f"PyTorch {torch.__version__}, {processes} processes; the shape is that of a part\n")
        print("| workload | PyTorch's modules, ms | `NormDrop`, ms | `SyncNormDrop`, ms |\n|---|---|---|---|")
    for name, shape in WORKLOADS.items():
        norm = torch.nn.BatchNorm1d if len(shape) == 2 else torch.nn.BatchNorm2d
        times = milliseconds([theirs_of(norm, shape[1]), NormDrop(shape[1], "relu", P), SyncNormDrop(shape[1], "relu", P)], shape)
        if rank == 0:
            print(f"| {name} | " + " | ".join(f"{step:.3g}" for step in times) + " |", flush=True)
    try:
        torch.nn.SyncBatchNorm(64)(torch.randn(32, 64))
        answer = "runs here"
    except (RuntimeError, ValueError) as error:
        answer = f"does not run on a CPU: {error}"
    if rank == 0:
        print(f"\ntorch.nn.SyncBatchNorm {answer}")
    dist.barrier()
    dist.destroy_process_group()


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        processes = int(sys.argv[1]) if len(sys.argv) > 1 else 2
        torch.multiprocessing.spawn(work, (folder, processes), nprocs=processes)
