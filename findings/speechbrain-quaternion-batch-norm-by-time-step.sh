#!/usr/bin/env bash
# SpeechBrain: QBatchNorm has statistics for each time step, and its buffers grow to the batch's length
#
# A good guess: for (batch, time, channels), which its documentation names, the statistics are per channel, as
# in the same library's CBatchNorm.
# Seen: SpeechBrain 1.1.2 averages over the batch alone: after a batch of 5 time steps the running mean of 4
# channels has the shape [5, 4], replacing the registered one of 4; a batch of 7 time steps then fails, and so
# does loading the file into a new layer.
# Why it matters here: such a file has no mean per channel to take over; average over the time steps first.
# Needs Python 3.11 or newer; installs speechbrain==1.1.2, torch==2.15.0, torchaudio==2.11.1, numpy==2.4.6 in
# a temporary folder.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check speechbrain==1.1.2 torch==2.15.0 torchaudio==2.11.1 numpy==2.4.6
"$work/venv/bin/python" -W ignore - <<'PYTHON'
import importlib.metadata

import torch
from speechbrain.nnet.complex_networks.c_normalization import CBatchNorm
from speechbrain.nnet.quaternion_networks.q_normalization import QBatchNorm


def fails(call):
    try:
        call()
    except RuntimeError:
        return True
    return False


torch.manual_seed(0)
quaternion, complex_ = QBatchNorm(input_size=4), CBatchNorm(input_size=4)
before = tuple(quaternion.running_mean.shape)
quaternion(torch.randn(6, 5, 4)), complex_(torch.randn(6, 5, 4))
after, other = tuple(quaternion.running_mean.shape), tuple(complex_.moving_mean.shape)
quaternion.eval()
longer = fails(lambda: quaternion(torch.randn(6, 7, 4)))
loading = fails(lambda: QBatchNorm(input_size=4).load_state_dict(quaternion.state_dict()))
print(f"SpeechBrain {importlib.metadata.version('speechbrain')}: running mean of QBatchNorm {before}, after a batch {after}; of CBatchNorm {other}; 7 steps fail: {longer}, loading fails: {loading}")
assert before == other == (4,)
assert after == (5, 4) and longer and loading, "the statistics are per channel now"
PYTHON
