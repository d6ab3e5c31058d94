#!/usr/bin/env bash
# jaxonnxruntime: every Dropout node draws the same mask, in every run
#
# A good guess: a Dropout node in training mode without a seed draws another mask in each run, and two nodes
# draw two masks.
# Seen: jaxonnxruntime 0.3.0 takes 0 for the missing seed, with a fixed key: two nodes of one shape have one
# mask, and all runs have it.
# Why it matters here: training in that runtime always removes the same units, and Monte-Carlo dropout has a
# spread of 0; give each node a seed of its own, which tells the nodes apart and not the runs.
# Needs Python 3.11 or newer; installs jaxonnxruntime==0.3.0, jax==0.10.2, jaxlib==0.10.2, absl-py==2.5.1,
# onnx==1.23.2, numpy==2.4.6 in a temporary folder.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check jaxonnxruntime==0.3.0 jax==0.10.2 jaxlib==0.10.2 absl-py==2.5.1 onnx==1.23.2 numpy==2.4.6
"$work/venv/bin/python" -W ignore - <<'PYTHON'
import importlib.metadata

import numpy as np
from jaxonnxruntime.backend import Backend
from onnx import TensorProto, helper, numpy_helper


def masks(*seeds):
    """The masks of a Dropout(0.5) for each seed, in three runs."""
    constants = [numpy_helper.from_array(np.float32(0.5), "ratio"), numpy_helper.from_array(np.array(True), "training")]
    names = [f"y{i}" for i in range(len(seeds))]
    nodes = [helper.make_node("Dropout", ["x", "ratio", "training"], [name], **seed) for name, seed in zip(names, seeds)]
    value = lambda name: helper.make_tensor_value_info(name, TensorProto.FLOAT, [64])
    graph = helper.make_graph(nodes, "graph", [value("x")], [value(name) for name in names], constants)
    prepared = Backend.prepare(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8))
    return {tuple((np.asarray(output) == 0).tolist()) for _ in range(3) for output in prepared.run({"x": np.ones(64, np.float32)})}


without, seeded = masks({}, {}), masks({"seed": 1}, {"seed": 2})
print(f"jaxonnxruntime {importlib.metadata.version('jaxonnxruntime')}: masks of two nodes in three runs: without a seed {len(without)}, with the seeds 1 and 2 {len(seeded)}")
assert len(seeded) == 2
assert len(without) == 1, "the masks differ now"
PYTHON
