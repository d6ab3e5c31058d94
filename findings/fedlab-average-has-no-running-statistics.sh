#!/usr/bin/env bash
# FedLab: the averaged network has the running statistics of a new one
#
# A good guess: the model that a server averages from its clients' models can be evaluated: all that a
# client's network has learnt is exchanged.
# Seen: FedLab 1.3.0, SerializationTool: parameters are exchanged, and buffers are not: after two clients
# trained on data around 5, the server's batch norm has the mean 0 and the variance 1, and its output for 5 is
# about 5 where each client has about 0.
# Why it matters here: the server's evaluation is that of an untrained normalisation, without an error;
# average mean and variance, and the means' spread, apart from the parameters.
# Needs Python 3.11 or newer; installs fedlab==1.3.0, torch==2.15.0, torchvision==0.29.2, numpy==2.4.6 in a
# temporary folder.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check fedlab==1.3.0 torch==2.15.0 torchvision==0.29.2 numpy==2.4.6
"$work/venv/bin/python" -W ignore - <<'PYTHON'
import importlib.metadata

import torch
from fedlab.utils.aggregator import Aggregators
from fedlab.utils.serialization import SerializationTool

torch.manual_seed(0)
server = torch.nn.Sequential(torch.nn.BatchNorm1d(1))
clients = [torch.nn.Sequential(torch.nn.BatchNorm1d(1)) for _ in range(2)]
for client in clients:
    SerializationTool.deserialize_model(client, SerializationTool.serialize_model(server))
    for _ in range(100):
        client(5 + torch.randn(64, 1))
average = Aggregators.fedavg_aggregate([SerializationTool.serialize_model(client) for client in clients])
SerializationTool.deserialize_model(server, average)
means = [network[0].running_mean.item() for network in (*clients, server)]
outputs = [network.eval()(torch.tensor([[5.0]])).item() for network in (*clients, server)]
print(f"FedLab {importlib.metadata.version('fedlab')}: running means of two clients and the server {[round(mean, 2) for mean in means]}, outputs for 5 {[round(output, 2) for output in outputs]}; numbers exchanged: {average.numel()}")
assert all(abs(mean - 5) < 0.2 for mean in means[:2])
assert means[2] == 0 and abs(outputs[2] - 5) < 0.01, "the statistics are exchanged now"
PYTHON
