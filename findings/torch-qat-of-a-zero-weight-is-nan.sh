#!/usr/bin/env bash
# PyTorch: quantisation-aware training of a batch norm with weight 0 is NaN
#
# A good guess: a batch norm whose weight starts as 0, as the last one of a residual branch often does, gives
# 0 when it is prepared for quantisation-aware training, as it did before.
# Seen: PyTorch 2.15.0: the fused layer scales the convolution's weight by weight/deviation, and divides its
# output by the same number afterwards: 0/0. The first batch is NaN, its gradients are, and the running mean
# is from then on.
# Why it matters here: networks with a zero-initialised branch cannot be fine-tuned in 8 bits before that
# weight has moved; start with a small number, or fold later.
# Needs Python 3.11 or newer; installs torch==2.15.0, numpy==2.4.6 in a temporary folder.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.15.0 numpy==2.4.6
"$work/venv/bin/python" -W ignore - <<'PYTHON'
import torch, torch.ao.quantization as quantization


class Network(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.convolution, self.norm = torch.nn.Conv2d(1, 1, 1, bias=False), torch.nn.BatchNorm2d(1)

    def forward(self, x):
        return self.norm(self.convolution(x))


torch.manual_seed(0)
x, found = torch.randn(4, 1, 2, 2), {}
for weight in 0.0, 1.0:
    network = Network().train()
    torch.nn.init.constant_(network.norm.weight, weight)
    assert network(x).isfinite().all()
    fused = quantization.fuse_modules_qat(network, [["convolution", "norm"]])
    fused.qconfig = quantization.get_default_qat_qconfig("x86")
    prepared = quantization.prepare_qat(fused)
    output = prepared(x)
    found[weight] = output.isnan().all().item(), prepared.convolution.bn.running_mean.isnan().item()
print(f"PyTorch {torch.__version__}: output and running mean are NaN, by weight: {found}")
assert found[1.0] == (False, False)
assert found[0.0] == (True, True), "a weight of 0 is possible now"
PYTHON
