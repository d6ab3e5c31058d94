"""The time of NormDrop beside the operators of ONNX Runtime that it replaces, in one process, in turn.

Usage: python compare_onnxruntime.py [--record]    --record writes results.md
"""

import os
import pathlib
import platform
import sys
import time

import numpy
import onnxruntime

sys.path.insert(0, str(pathlib.Path(__file__).parent / "tests"))
from graphs import batch_norm, model, node, session, statistics  # noqa: E402

from normdrop_onnxruntime import rewrite  # noqa: E402

ROUNDS = 15
SHAPES = [
    ("NC 256x1024", (256, 1024)),
    ("NCHW 1x64x112x112", (1, 64, 112, 112)),
    ("NCHW 1x256x14x14", (1, 256, 14, 14)),
    ("NCHW 16x64x56x56", (16, 64, 56, 56)),
    ("NCHW 16x256x14x14", (16, 256, 14, 14)),
]
DROPOUT = {"p": numpy.float32(0.1), "on": numpy.array(True)}


def cpu():
    for line in pathlib.Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.split(":")[1].strip()
    return platform.processor()


def runner(of, feed):
    """Runs a session into memory that it has already, as in the middle of a network."""
    binding = of.io_binding()
    for value in of.get_inputs():
        binding.bind_ortvalue_input(value.name, onnxruntime.OrtValue.ortvalue_from_numpy(feed[value.name]))
    of.run_with_iobinding(bound(of, binding, feed))
    return lambda: of.run_with_iobinding(binding)


def bound(of, binding, feed):
    [y] = of.run(None, {value.name: feed[value.name] for value in of.get_inputs()})
    binding.bind_ortvalue_output(of.get_outputs()[0].name, onnxruntime.OrtValue.ortvalue_from_numpy(y))
    return binding


def measured(sessions, feed, least=0.03):
    """The seconds of the fastest run of each session, measured in turn."""
    runs = [runner(of, feed) for of in sessions]
    best = [float("inf")] * len(runs)
    for _ in range(ROUNDS):
        for index, run in enumerate(runs):
            until = time.perf_counter() + least
            while (start := time.perf_counter()) < until:
                run()
                best[index] = min(best[index], time.perf_counter() - start)
    return best


def blocks(shape):
    """Graphs of batch norm and what follows it."""
    of, x = statistics(shape[1]), {"x": list(shape)}
    yield "ReLU", model([batch_norm(), node("Relu", "bn", "y")], x, {"y": list(shape)}, of)
    yield "SiLU", model([batch_norm(), node("Sigmoid", "bn", "s"), node("Mul", "bn s", "y")], x, {"y": list(shape)}, of)
    yield "GELU", model([batch_norm(), node("Gelu", "bn", "y")], x, {"y": list(shape)}, of)
    yield "residual, ReLU", model([batch_norm(), node("Add", "bn r", "s"), node("Relu", "s", "y")], x | {"r": list(shape)}, {"y": list(shape)}, of)
    yield "ReLU, dropout", model([batch_norm(), node("Relu", "bn", "z"), node("Dropout", "z p on", "y")], x, {"y": list(shape)}, of | DROPOUT)


def network(kind, dropout, batch, width, size):
    """Four convolutions of 3x3, each with batch norm and ReLU after it or before it."""
    generator = numpy.random.default_rng(0)
    constants, nodes, value = dict(DROPOUT), [], "x"
    for block in range(4):
        name = f"b{block}"
        constants |= statistics(width, generator, f"{name}.")
        constants[f"{name}.w"] = (generator.standard_normal((width, width, 3, 3)) / numpy.sqrt(9 * width)).astype(numpy.float32)
        rest = [(lambda source, target: node("Conv", f"{source} {name}.w", target, pads=[1, 1, 1, 1])),
                (lambda source, target: batch_norm(source, target, f"{name}.")), (lambda source, target: node("Relu", source, target))]  # fmt: skip
        rest = rest if kind == "after" else rest[1:] + rest[:1]
        if dropout:
            rest.insert(3 if kind == "after" else 2, lambda source, target: node("Dropout", f"{source} p on", target))
        for step, make in enumerate(rest):
            target = f"{name}.{step}"
            nodes.append(make(value, target))
            value = target
    nodes.append(node("Identity", value, "y"))
    if not dropout:
        del constants["p"], constants["on"]
    shape = [batch, width, size, size]
    return model(nodes, {"x": shape}, {"y": shape}, constants)


def main():
    lines = [
        f"Measured by `compare_onnxruntime.py` on {cpu()} with {os.cpu_count()} cores, onnxruntime {onnxruntime.__version__}, Python",
        f"{platform.python_version()}: the fastest run of {ROUNDS} rounds, in turn in one process, in which the machine had other work.",
        "",
        "## Batch norm and what follows it",
        "",
        "In ns an element, with the threads of the session. ONNX Runtime has all its optimizations, but keeps Dropout. p = 0.1.",
        "",
        "| tensor | after batch norm | ONNX Runtime, 1 thread | NormDrop, 1 thread | ONNX Runtime, 2 threads | NormDrop, 2 threads | ONNX Runtime / NormDrop, 1 thread | 2 threads |",
        "|---|---|---|---|---|---|---|---|",
    ]
    print("\n".join(lines), flush=True)

    def row(text):
        lines.append(text)
        print(text, flush=True)

    generator = numpy.random.default_rng(1)
    for name, shape in SHAPES:
        feed = {key: generator.standard_normal(shape, dtype=numpy.float32) for key in "xr"} | {"seed": numpy.array(1)}
        for follows, made in blocks(shape):
            ours = rewrite(made)
            assert not ours.left
            seconds = measured([of for threads in (1, 2) for of in (session(made, threads, ours=False, keep_dropout=True), session(ours.model, threads))], feed)
            cells = [f"{second / feed['x'].size * 1e9:.2f}" for second in seconds] + [f"{seconds[at] / seconds[at + 1]:.1f}" for at in (0, 2)]
            row(f"| {name} | {follows} | {' | '.join(cells)} |")
    for text in [
        "",
        "## Networks",
        "",
        "Four convolutions of 3x3 with as many channels as the input, on 1 thread, in microseconds. *Unfused* is ONNX Runtime without any",
        "optimization, *optimized* with all of them: it folds a batch norm after a convolution, keeps its own layout of images from one",
        "convolution to the next, and here keeps Dropout. *Rewritten* is what `rewrite` makes with `foldable=True`, with all optimizations.",
        "",
        "| input | batch norm, ReLU | dropout | unfused | optimized | rewritten | unfused / rewritten | optimized / rewritten |",
        "|---|---|---|---|---|---|---|---|",
    ]:
        row(text)
    for batch, width, size in ((1, 32, 56), (2, 64, 28)):
        for kind in ("after", "before"):
            for dropout in (False, True):
                made = network(kind, dropout, batch, width, size)
                feed = {"x": generator.standard_normal((batch, width, size, size), dtype=numpy.float32), "seed": numpy.array(1)}
                all_ours = rewrite(made, foldable=True)
                assert not all_ours.left
                seconds = measured([session(made, optimized=False, ours=False), session(made, ours=False, keep_dropout=True), session(all_ours.model)], feed)
                cells = [f"{second * 1e6:.0f}" for second in seconds] + [f"{seconds[at] / seconds[2]:.2f}" for at in (0, 1)]
                row(f"| {batch}x{width}x{size}x{size} | {kind} the convolution | {'p = 0.1' if dropout else 'none'} | {' | '.join(cells)} |")
    if "--record" in sys.argv[1:]:
        pathlib.Path(__file__).with_name("results.md").write_text("# NormDrop beside ONNX Runtime's own operators\n\n" + "\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
