#!/usr/bin/env bash
# tinygrad: Tensor.training = True changes nothing
#
# A good guess: the attribute that switched batch norm and dropout to training in the releases before
# does so, or setting it raises.
# Seen: tinygrad 0.14.0 takes the assignment, reads True back, and drops nothing; a batch norm
# normalises with its running statistics and leaves them. Context(TRAINING=1) switches.
# Why it matters here: a script that trained with an older tinygrad trains without dropout and without
# statistics, and only the result shows it.
# Needs Python 3.11 or newer; installs tinygrad==0.14.0 in a temporary folder.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check tinygrad==0.14.0
"$work/venv/bin/python" -W ignore - <<'PYTHON'
import importlib.metadata, os

os.environ["DEV"] = "PYTHON"
from tinygrad import Context, Tensor, nn


def trained():
    norm = nn.BatchNorm(1)
    y = norm(Tensor([[1.0], [2.0], [3.0], [6.0]])).tolist()
    dropped = Tensor([1.0] * 64).dropout(0.5).tolist().count(0.0)
    return dropped, y[0][0] < 0


Tensor.training = True
by_attribute = trained()
with Context(TRAINING=1):
    by_context = trained()
print(f"tinygrad {importlib.metadata.version('tinygrad')}: dropped elements of 64 and normalised by the batch: {by_attribute} by the attribute, {by_context} by the context")
assert 10 < by_context[0] < 54 and by_context[1]
assert by_attribute == (0, False), "the attribute is heard now"
PYTHON
