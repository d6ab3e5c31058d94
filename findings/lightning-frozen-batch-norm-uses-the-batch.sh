#!/usr/bin/env bash
# Lightning: a batch norm that a fine-tuning callback froze normalises with the batch in training
#
# A good guess: freeze(train_bn=False) makes a batch norm a constant map: in training as in evaluation
# it normalises with its running statistics.
# Seen: lightning 2.6.6, BaseFinetuning.freeze: it switches off the gradients and track_running_stats.
# In training mode 1, 2, 3, 6 with the running mean 0 and variance 1 become -1.07 to 1.60, and in
# evaluation mode they stay.
# Why it matters here: the head is trained on features that are normalised otherwise than those of
# evaluation; put the batch norms into evaluation mode, which is what evaluation is here.
# Needs Python 3.11 or newer; installs lightning==2.6.6, torch==2.15.0, numpy==2.4.6 in a temporary
# folder.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check lightning==2.6.6 torch==2.15.0 numpy==2.4.6
"$work/venv/bin/python" -W ignore - <<'PYTHON'
import lightning, torch
from lightning.pytorch.callbacks import BaseFinetuning

norm, x = torch.nn.BatchNorm1d(1), torch.tensor([[1.0], [2], [3], [6]])
backbone = torch.nn.Sequential(norm)
BaseFinetuning.freeze(backbone, train_bn=False)
training, evaluation = backbone.train()(x), backbone.eval()(x)
print(f"lightning {lightning.__version__}: frozen, {x.flatten().tolist()} become {training.flatten().numpy().round(2)} in training, {evaluation.flatten().numpy().round(2)} in evaluation")
assert not any(parameter.requires_grad for parameter in norm.parameters()) and norm.running_mean.item() == 0
assert (evaluation - x).abs().max() < 1e-3
assert abs(training[0].item() + 1.069) < 1e-3, "a frozen batch norm uses its running statistics now"
PYTHON
