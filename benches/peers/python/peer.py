"""What the Python peers have in common: they serve requests of the Rust program on standard input, one a line.

A peer first writes its version as a line of JSON. Then every request is answered by one line of JSON:

    open planar|last N C [...]   make the tensors of a workload, of this shape in the order N, C, ...; forget older ones
    time OP WARM COUNT           run an op WARM times, then COUNT times; the answer is the CPU seconds of the latter

CPU time of the process, because other programs share the core: time in which it waited for the core is not in it, and
threads of its own are. With one core and one thread it is otherwise the time of a clock on the wall.
"""

import gc
import json
import sys
import time

# The probability to drop, the weight of new statistics in running ones, and what is added to the variance.
P, MOMENTUM, EPS = 0.1, 0.1, 1e-5


def serve(version, make_ops):
    """Answers until the input ends. `make_ops(layout, dims)` gives a function without arguments for each op."""
    answer(version)
    ops = {}
    for line in sys.stdin:
        match line.split():
            case ["open", layout, *dims]:
                ops = None
                gc.collect()
                ops = make_ops(layout, [int(dim) for dim in dims])
                # A collection would fall into some sample at random.
                gc.collect()
                gc.disable()
                answer(None)
            case ["time", op, warm, count]:
                answer(seconds(ops[op], int(warm), int(count)))
            case other:
                sys.exit(f"no request: {other}")


def answer(value):
    print(json.dumps(value), flush=True)


def seconds(call, warm, count):
    for _ in range(warm):
        call()
    start = time.process_time_ns()
    for _ in range(count):
        call()
    return (time.process_time_ns() - start) / 1e9
