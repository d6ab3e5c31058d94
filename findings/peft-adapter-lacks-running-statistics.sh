#!/usr/bin/env bash
# PEFT: a saved adapter lacks the running statistics that its training moved
#
# A good guess: what training changed is in the adapter's file, so that the base model with the loaded
# adapter gives the outputs of the trained one; and disable_adapter() gives the base model's.
# Seen: PEFT 0.21.2: the frozen base model's batch norms still move their running statistics in
# training, and save_pretrained() leaves them out: the loaded model has the running mean 0, and the
# trained one 3, even with its adapter disabled.
# Why it matters here: freeze the statistics while an adapter is trained, as this crate's evaluation
# does, or save the batch norms with it by modules_to_save.
# Needs Python 3.11 or newer; installs peft==0.21.2, transformers==5.24.0, torch==2.15.0, numpy==2.4.6 in a temporary folder.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check peft==0.21.2 transformers==5.24.0 torch==2.15.0 numpy==2.4.6
WORK="$work/adapter" "$work/venv/bin/python" -W ignore - <<'PYTHON'
import copy, os

import peft, torch

torch.manual_seed(0)
base = torch.nn.Sequential(torch.nn.BatchNorm1d(2), torch.nn.Linear(2, 2)).eval()
model = peft.get_peft_model(copy.deepcopy(base), peft.LoraConfig(target_modules=["1"], r=1)).train()
x = torch.randn(64, 2) + 3
for _ in range(100):
    model(x)
model.eval().save_pretrained(os.environ["WORK"])
loaded = peft.PeftModel.from_pretrained(copy.deepcopy(base), os.environ["WORK"]).eval()
with torch.no_grad():
    mean = lambda model: model.base_model.model[0].running_mean.mean().item()
    apart = (model(x) - loaded(x)).abs().max().item()
    with model.disable_adapter():
        disabled = (model(x) - base(x)).abs().max().item()
print(f"peft {peft.__version__}: running mean {mean(model):.2f} trained, {mean(loaded):.2f} loaded; outputs apart by {apart:.2f}; with the adapter disabled {disabled:.2f} from the base model")
assert abs(mean(model) - 3) < 0.3
assert mean(loaded) == 0 and apart > 0.5 and disabled > 0.5, "the statistics are saved or frozen now"
PYTHON
