"""normdrop in ONNX Runtime: `y = dropout(act(batchnorm(x) + residual))` as one operator, and a rewriter of graphs that puts it in.

    import onnx, onnxruntime
    from normdrop_onnxruntime import rewrite, session_options

    rewritten = rewrite(onnx.load("model.onnx"))
    print(rewritten)                                # what was replaced, what was left, and why
    session = onnxruntime.InferenceSession(rewritten.model.SerializeToString(), session_options())

`rewrite` replaces BatchNormalization with what follows it: Add of a residual, an activation, and Dropout whose `training_mode`
is true. Such a Dropout, which ONNX Runtime itself would remove, becomes Monte-Carlo dropout: the graph has a new input, `seed`,
an int64 of no dimensions, and every mask is a pure function of this number and of the number of the layer. `monte_carlo` runs a
session with one seed after the other.

The operator is `NormDrop` of the domain `normdrop`, version 1. The README has its inputs and attributes.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy
from numpy.typing import NDArray

from ._rewrite import DOMAIN, OPERATOR, Left, Replaced, Rewritten, rewrite

__version__ = "0.1.0"

__all__ = [
    "DOMAIN", "Left", "MonteCarlo", "OPERATOR", "Replaced", "Rewritten", "__version__", "library_path", "monte_carlo", "rewrite", "session_options",
]  # fmt: skip


def library_path() -> str:
    """The shared library with the operator, for `SessionOptions.register_custom_ops_library` in any language of ONNX Runtime.

    The environment variable NORMDROP_ONNXRUNTIME_LIBRARY names another one.
    """
    path = os.environ.get("NORMDROP_ONNXRUNTIME_LIBRARY") or str(Path(__file__).with_name("libnormdrop_onnxruntime.so"))
    if not Path(path).is_file():
        raise FileNotFoundError(f"{path} is missing: install the package with pip, or name the library by NORMDROP_ONNXRUNTIME_LIBRARY")
    return path


def session_options() -> Any:
    """New options of a session, an `onnxruntime.SessionOptions`, with which the session knows the operator."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.register_custom_ops_library(library_path())
    return options


class MonteCarlo(NamedTuple):
    """What a network answers over many masks. Both have the output's shape, in float64."""

    mean: NDArray[numpy.float64]
    """The mean of the answers, which is the prediction."""
    deviation: NDArray[numpy.float64]
    """Their standard deviation over the masks (divided by the number of masks minus one), which says how much the answer depends on
    the units that were there; zeros for one mask."""


def monte_carlo(session: Any, feed: Mapping[str, Any], masks: int, *, seed: str = "seed", first: int = 0) -> list[MonteCarlo]:
    """Runs `session` on `feed` with `masks` seeds, from the number `first` on: a `MonteCarlo` for each output.

    `seed` is the name of the input that `rewrite` has added.
    """
    if masks < 1:
        raise ValueError(f"masks must be at least 1, not {masks}")
    totals: list[list[NDArray[numpy.float64]]] = []
    for number in range(masks):
        outputs = session.run(None, {**feed, seed: numpy.array(first + number, numpy.int64)})
        for index, output in enumerate(outputs):
            values = numpy.asarray(output, numpy.float64)
            if number == 0:
                totals.append([values, numpy.zeros_like(values)])
                continue
            # Welford's update: the mean, and the sum of squared deviations from it.
            mean, squares = totals[index]
            deviation = values - mean
            mean = mean + deviation / (number + 1)
            totals[index] = [mean, squares + deviation * (values - mean)]
    return [MonteCarlo(mean, numpy.sqrt(squares / max(masks - 1, 1))) for mean, squares in totals]
