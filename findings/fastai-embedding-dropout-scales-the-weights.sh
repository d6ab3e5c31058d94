#!/usr/bin/env bash
# fastai: each evaluation of an EmbeddingDropout with a scale halves the embedding
#
# A good guess: the scale that EmbeddingDropout is called with is a factor of its output.
# Seen: fastai 2.8.12 multiplies in place: in training that is a masked copy, and in evaluation, or with a
# probability of 0, the embedding's own weights: three calls with a scale of 0.5 under no_grad leave 0.125 of
# all weights, those of other words, too. With gradients it is an error.
# Why it matters here: a network that was evaluated is another one than before; scale the output outside.
# Needs Python 3.11 or newer; installs fastai==2.8.12, torchvision==0.29.2, torch==2.15.0, numpy==2.4.6 in a
# temporary folder.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check fastai==2.8.12 torchvision==0.29.2 torch==2.15.0 numpy==2.4.6
"$work/venv/bin/python" -W ignore - <<'PYTHON'
import fastai, torch
from fastai.text.models.awdlstm import EmbeddingDropout

embedding = torch.nn.Embedding(3, 2)
torch.nn.init.ones_(embedding.weight)
layer = EmbeddingDropout(embedding, 0.5)
with torch.no_grad():
    layer(torch.tensor([0]), scale=0.5)
    trained = embedding.weight.unique().tolist()
    layer.eval()
    outputs = [layer(torch.tensor([0]), scale=0.5)[0, 0].item() for call in range(3)]
weights = embedding.weight.unique().tolist()
print(f"fastai {fastai.__version__}: outputs of three evaluations {outputs}; weights {trained} before and {weights} after")
assert trained == [1]
assert outputs == [0.5, 0.25, 0.125] and weights == [0.125], "the weights stay now"
PYTHON
