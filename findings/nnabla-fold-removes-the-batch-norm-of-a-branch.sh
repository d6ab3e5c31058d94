#!/usr/bin/env bash
# nnabla: folding removes a batch norm whose convolution has a second user, and leaves the weights
#
# A good guess: where the output of a convolution is used without its batch norm, too, folding leaves
# both as they are.
# Seen: nnabla 1.39.0, BatchNormalizationFoldingModifier: the convolution is left, as it has two users,
# and the batch norm behind it is removed: c + norm(c) with a gain of 3 is 20 before and 10 after,
# without a warning. Without the branch it is 15, before and after.
# Why it matters here: residual connections around a batch norm have this form; the fold of this crate
# takes the weights of one layer and changes nothing around it.
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

def outputs(branch):
    nnabla.clear_parameters()
    x = nnabla.Variable((1, 1, 1, 1))
    c = PF.convolution(x, 2, (1, 1))
    norm = PF.batch_normalization(c, batch_stat=False, eps=1e-9)
    y = F.relu(c + norm if branch else norm)
    values = {"beta": 0, "gamma": 3, "mean": 0, "var": 1, "W": 5, "b": 0}
    for name, parameter in nnabla.get_parameters(grad_only=False).items():
        parameter.d = values[name.split("/")[-1]]
    x.d = 1
    y.forward()
    before = y.d.ravel()[0].item()
    folded = converters.GraphConverter(converters.BatchNormalizationFoldingModifier(opposite=False)).convert(y)
    folded.forward()
    return before, folded.d.ravel()[0].item()

plain, branch = outputs(False), outputs(True)
print(f"nnabla {nnabla.__version__}, before and after folding: norm(c) {plain}, c + norm(c) {branch}")
assert np.abs(np.array(plain) - 15).max() < 1e-3 and abs(branch[0] - 20) < 1e-3
assert branch[1] == 10, "the batch norm of a branch is kept now"
PYTHON
