"""The time of a training step of batch norm, ReLU and dropout: normdrop beside flax, in one process, in turn.

A step is y and the gradients of x, weight and bias, with a new mask, inside `jax.jit`. Beside it, the same calls of the library
from numpy, without JAX and into memory that is there already, if the package for numpy is found.

Usage: python compare_flax.py [--record]    --record writes results.md
"""

import os
import pathlib
import platform
import sys
import time

import flax
import flax.nnx
import jax
import jax.numpy as jnp
import numpy

import normdrop_jax

try:
    import normdrop
except ImportError:
    normdrop = None

P = 0.1
# The layout, the shape, and the axis of the channels.
SHAPES = [
    ("NC", (256, 1024), -1),
    ("NHWC", (16, 56, 56, 64), -1),
    ("NHWC", (16, 14, 14, 256), -1),
    ("NCHW", (32, 64, 56, 56), 1),
    ("NCHW", (16, 256, 14, 14), 1),
    ("NC", (32, 64), -1),
]
CASES = [(shape, dtype, train) for dtype in ("float32", "bfloat16") for shape in SHAPES for train in (True, False) if train or dtype == "float32"]
# The cases that are measured again with memory that is kept.
KEPT = [case for case in CASES if case[1] == "float32" and case[2] and numpy.prod(case[0][1]) >= 1 << 19]
ROUNDS = 15


def cpu():
    for line in pathlib.Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.split(":")[1].strip()
    return platform.processor()


def by_flax(axis):
    def function(x, weight, bias, mean, var, key, train):
        norm = flax.nnx.BatchNorm(weight.size, axis=axis, dtype=x.dtype, use_running_average=not train, rngs=flax.nnx.Rngs(0))
        norm.scale, norm.bias, norm.mean, norm.var = flax.nnx.Param(weight), flax.nnx.Param(bias), flax.nnx.BatchStat(mean), flax.nnx.BatchStat(var)
        y = jax.nn.relu(norm(x))
        return flax.nnx.Dropout(P)(y, rngs=key) if train else y, (norm.mean[...], norm.var[...])

    return function


def by_normdrop(axis, tasks):
    layer = normdrop_jax.Layer("relu", P, momentum=0.01, running_var="biased", channel_axis=axis, tasks=tasks)

    def function(x, weight, bias, mean, var, key, train):
        running = normdrop_jax.Running(mean, var)
        if not train:
            return layer.eval(x, running, weight, bias), running
        y, new = layer.train(x, weight, bias, running, seed=key)
        return y, new[:2]

    return function


def step(function, train):
    def training(x, dy, weight, bias, mean, var, key):
        y, back, new = jax.vjp(lambda x, w, b: function(x, w, b, mean, var, key, True), x, weight, bias, has_aux=True)
        return y, new, back(dy)

    return jax.jit(training if train else lambda x, dy, weight, bias, mean, var, key: function(x, weight, bias, mean, var, key, False)[0])


def by_library(layout, arrays, train):
    """The calls of a step on one thread, without JAX."""
    x, dy, weight, bias, mean, var = map(numpy.array, arrays)
    layer = normdrop.Layer(layout, x.shape, "relu", p=P, momentum=0.01, running_var="biased")
    y, dx, seeds = numpy.empty_like(x), numpy.empty_like(x), iter(range(1 << 62))

    def run():
        if not train:
            return layer.eval(x, mean, var, weight=weight, bias=bias, out=y)
        mask = layer.mask(next(seeds))
        _, saved = layer.train(x, weight=weight, bias=bias, running_mean=mean, running_var=var, mask=mask, gates=mask, out=y)
        return layer.backward(dy, x, saved, weight=weight, bias=bias, gates=mask, out=dx)

    return run


def measured(layout, shape, axis, dtype, train):
    """The best seconds of each, measured in turn."""
    generator = numpy.random.default_rng(0)
    x, dy = (jnp.asarray(generator.standard_normal(shape, dtype=numpy.float32), dtype) for _ in range(2))
    channels = shape[axis]
    arguments = (x, dy, jnp.ones(channels), jnp.zeros(channels), jnp.zeros(channels), jnp.ones(channels), jax.random.key(0))

    def by_jax(function):
        compiled = step(function, train)
        return lambda: jax.block_until_ready(compiled(*arguments))

    runs = [by_jax(function) for function in (by_flax(axis), by_normdrop(axis, None), by_normdrop(axis, 1))]
    if normdrop is not None:
        runs.append(by_library(layout, arguments[:-1], train))
    best = [float("inf")] * len(runs)
    repeats = max(1, 200_000 // x.size)
    for _ in range(ROUNDS):
        for i, run in enumerate(runs):
            run()
            start = time.perf_counter()
            for _ in range(repeats):
                run()
            best[i] = min(best[i], (time.perf_counter() - start) / repeats)
    return x.size, best


def table(cases):
    yield "| tensor | call | flax | normdrop | normdrop, `tasks=1` | the library alone, one thread | flax / normdrop | flax / normdrop, `tasks=1` |"
    yield "|---|---|---|---|---|---|---|---|"
    for (layout, shape, axis), dtype, train in cases:
        size, seconds = measured(layout, shape, axis, dtype, train)
        cells = [f"{second / size * 1e9:.2f}" for second in seconds] + [""] * (4 - len(seconds))
        cells += [f"{seconds[0] / second:.1f}" for second in seconds[1:3]]
        name = f"{layout} {'x'.join(map(str, shape))}" + (", bfloat16" if dtype == "bfloat16" else "")
        yield f"| {name} | {'training step' if train else 'evaluation'} | {' | '.join(cells)} |"


def main():
    lines = [
        "# normdrop beside flax",
        "",
        f"Measured by `compare_flax.py` on {cpu()} with {os.cpu_count()} cores, jax {jax.__version__}, flax {flax.__version__}, Python",
        f"{platform.python_version()}: the best of {ROUNDS} rounds, in turn in one process, in which the machine may have had other work.",
        "",
        "A training step is `y`, the new running statistics and the gradients of `x`, `weight` and `bias`, with a new",
        f"mask (p = {P}), inside `jax.jit`. flax runs on all cores, and so does normdrop by default. Times in ns an element. In JAX the",
        "results are new memory in each step; the library alone is called by numpy, and writes into arrays that are there.",
        "",
    ]
    print("\n".join(lines), flush=True)

    def add(more):
        for line in more:
            print(line, flush=True)
            lines.append(line)

    add(table(CASES))
    if normdrop_jax.keep_memory():
        add(["", "The larger training steps again, after `normdrop_jax.keep_memory()`, which flax has the use of as well:", ""])
        add(table(KEPT))
    if "--record" in sys.argv[1:]:
        pathlib.Path(__file__).with_name("results.md").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
