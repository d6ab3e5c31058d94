#!/usr/bin/env bash
# SpeechBrain: BatchNorm1d with combine_batch_time mixes the channels of a 4-D batch
#
# A good guess: for (batch, time, a, channels) each channel, the last axis as in 3-D, is normalised by itself.
# Seen: SpeechBrain 1.1.2 reshapes to (batch * time, channels, a) where the axes have to be swapped: with a =
# 3, two channels around 0 and 100 have the running means 33 and 67, and the outputs stay around -0.94 and
# 0.94. Of 3-D batches both become 0.
# Why it matters here: the layer runs without an error, and its statistics are those of a mixture of the
# channels.
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
from speechbrain.nnet.normalization import BatchNorm1d

torch.manual_seed(0)
x = torch.randn(8, 5, 3, 2) + torch.tensor([0.0, 100])


def seen(batch):
    layer = BatchNorm1d(input_size=2, momentum=1.0, combine_batch_time=True)
    return layer(batch).flatten(0, -2).mean(0).tolist(), layer.norm.running_mean.tolist()


three, four = seen(x.flatten(1, 2)), seen(x)
show = lambda numbers: [round(number, 2) for number in numbers]
print(f"SpeechBrain {importlib.metadata.version('speechbrain')}: means of the outputs and running means: 3-D {show(three[0])} {show(three[1])}, 4-D {show(four[0])} {show(four[1])}")
assert max(map(abs, three[0])) < 1e-3 and abs(three[1][1] - 100) < 1
assert four[0][1] > 0.9 and abs(four[1][0] - 33.3) < 1 and abs(four[1][1] - 66.7) < 1, "the channels are apart now"
PYTHON
