#!/usr/bin/env bash
# nnabla: folding a batch norm into the layer behind it only removes it where that layer is the last
#
# A good guess: BatchNormalizationFoldingModifier(opposite=True) moves a batch norm into the weights of
# the layer behind it, and the outputs stay.
# Seen: nnabla 1.39.0 leaves a layer alone whose output is that of the graph, and removes the batch norm
# in front of it all the same: 7 through a batch norm of gain 1 and mean 1 and a weight of 5 is 30
# before and 35 after, without a warning. With a ReLU at the end it is 30.
# Why it matters here: the last layer of a network often is a classifier behind a batch norm; compare
# the outputs of a fold, or fold here.
# Needs Python 3.10, for which nnabla's last release has a wheel; installs nnabla==1.39.0, numpy==1.26.4
# in a temporary folder. PYTHON names another interpreter than python3.10.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"${PYTHON:-python3.10}" -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check nnabla==1.39.0 numpy==1.26.4
"$work/venv/bin/python" -W ignore - <<'PYTHON'
import nnabla, numpy as np
import nnabla.experimental.graph_converters as converters, nnabla.functions as F, nnabla.parametric_functions as PF

def outputs(end):
    nnabla.clear_parameters()
    x = nnabla.Variable((1, 1, 1, 1))
    y = end(PF.convolution(PF.batch_normalization(x, batch_stat=False, eps=1e-9), 1, (1, 1)))
    values = {"beta": 0, "gamma": 1, "mean": 1, "var": 1, "W": 5, "b": 0}
    for name, parameter in nnabla.get_parameters(grad_only=False).items():
        parameter.d = values[name.split("/")[-1]]
    x.d = 7
    y.forward()
    before = y.d.item()
    folded = converters.GraphConverter(converters.BatchNormalizationFoldingModifier(opposite=True)).convert(y)
    folded.forward()
    return before, folded.d.item()

relu, last = outputs(F.relu), outputs(lambda y: y)
print(f"nnabla {nnabla.__version__}, before and after folding: with a ReLU at the end {relu}, without {last}")
assert np.abs(np.array(relu) - 30).max() < 1e-3 and abs(last[0] - 30) < 1e-3
assert last[1] == 35, "the last layer is folded now"
PYTHON
