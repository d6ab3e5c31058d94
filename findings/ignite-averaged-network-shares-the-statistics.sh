#!/usr/bin/env bash
# Ignite: loading a file into the averaged network changes the trained one
#
# A good guess: EMAHandler keeps a copy of the network: after a step its running statistics are those of the
# network, in memory of their own.
# Seen: pytorch-ignite 0.5.5 assigns the buffers in its default mode, so that both networks have one and the
# same memory: load_state_dict on the averaged network sets the running statistics of the network in
# training, too.
# Why it matters here: to look at an older average in the middle of training resets the statistics of the
# training; copy the network first.
# Needs Python 3.11 or newer; installs pytorch-ignite==0.5.5, torch==2.15.0, numpy==2.4.6 in a temporary
# folder.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check pytorch-ignite==0.5.5 torch==2.15.0 numpy==2.4.6
"$work/venv/bin/python" -W ignore - <<'PYTHON'
import ignite, torch
from ignite.engine import Engine
from ignite.handlers import EMAHandler

torch.manual_seed(0)
network = torch.nn.BatchNorm1d(1, momentum=1.0)
older = {name: value.clone() for name, value in network.state_dict().items()}
handler = EMAHandler(network, momentum=0.1)
engine = Engine(lambda engine, batch: network(batch).sum().item())
handler.attach(engine)
engine.run([5 + torch.randn(64, 1)])
before = network.running_mean.item()
handler.ema_model.load_state_dict(older)
print(f"Ignite {ignite.__version__}: the trained network's running mean is {before:.2f}, and {network.running_mean.item()} after the averaged one was loaded")
assert abs(before - 5) < 0.5
assert network.running_mean.item() == 0 and network.running_var.item() == 1, "the two have their own statistics now"
PYTHON
