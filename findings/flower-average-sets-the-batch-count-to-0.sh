#!/usr/bin/env bash
# Flower: FedAvg sets the number of batches to 0
#
# A good guess: the weighted average of whole numbers is rounded or a float: of 500 and 700 batches it is
# 600.
# Seen: flwr 1.42.0: the average in place, which FedAvg of flwr.server.strategy takes unless told otherwise,
# multiplies each array by n/total in the array's own type: a half is 0 as an integer, and
# num_batches_tracked is 0 for all numbers of clients above one. Without inplace it is 600.
# Why it matters here: with momentum=None, the first batch after a round replaces the running statistics; set
# the count again, or leave it out of the exchange.
# Needs Python 3.11 or newer; installs flwr==1.42.0, numpy==2.4.6 in a temporary folder.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check flwr==1.42.0 numpy==2.4.6
"$work/venv/bin/python" -W ignore - <<'PYTHON'
import importlib.metadata

import numpy as np
from flwr.common import Code, FitRes, Status, ndarrays_to_parameters, parameters_to_ndarrays
from flwr.server.strategy import FedAvg


def client(batches):
    parameters = ndarrays_to_parameters([np.array(batches), np.array([2.0], np.float32)])
    return None, FitRes(Status(Code.OK, ""), parameters, num_examples=10, metrics={})


found = []
for options in {}, {"inplace": False}:
    strategy = FedAvg(fit_metrics_aggregation_fn=lambda metrics: {}, **options)
    parameters, _ = strategy.aggregate_fit(1, [client(500), client(700)], [])
    batches, variance = parameters_to_ndarrays(parameters)
    assert variance.item() == 2
    found.append(batches.item())
print(f"Flower {importlib.metadata.version('flwr')}: average of 500 and 700 batches: {found[0]}; with inplace=False {found[1]}")
assert found == [0, 600], "whole numbers are averaged in another way now"
PYTHON
