#!/usr/bin/env bash
# Paddle: a batch norm with use_global_stats=False moves its running statistics in evaluation mode
#
# A good guess: eval() stops a layer from learning: if it normalises with the batch because
# use_global_stats=False asks for it, it leaves the running statistics.
# Seen: paddlepaddle 3.3.1: after eval() a batch of mean 3 moves the running mean from 0 to 0.3 with
# momentum 0.9. Without use_global_stats it stays 0.
# Why it matters here: a model that is only evaluated, and saved afterwards, has the statistics of the
# test data in its file; take them from the file of the training.
# Needs Python 3.11 or newer; installs paddlepaddle==3.3.1 in a temporary folder.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check paddlepaddle==3.3.1
"$work/venv/bin/python" -W ignore - <<'PYTHON'
import paddle

x, means = paddle.to_tensor([[1.0], [2.0], [3.0], [6.0]]), []
for option in None, False:
    norm = paddle.nn.BatchNorm1D(1, use_global_stats=option)
    norm.eval()
    with paddle.no_grad():
        norm(x)
    means.append(norm._mean.item())
print(f"paddle {paddle.__version__}: the running mean after an evaluation is {means[0]:.2f} by default, {means[1]:.2f} with use_global_stats=False")
assert means[0] == 0
assert abs(means[1] - 0.3) < 1e-5, "evaluation leaves the statistics now"
PYTHON
