#!/usr/bin/env bash
# Paddle: a batch norm of one value per channel returns its input, without weight and bias
#
# A good guess: one value is its own mean, so that the output in training is the bias, as in Keras and
# flax, or an error, as in PyTorch.
# Seen: paddlepaddle 3.3.1 on the CPU: with weight 3 and bias 7 a training batch of one sample 5, 8
# comes out as 5, 8, and the running statistics stay. In evaluation it is 3x + 7.
# Why it matters here: the last batch of an epoch with one sample goes through another network than all
# others, with gradients to match; drop such a batch, or here give `Biased` a variance of 0.
# Needs Python 3.11 or newer; installs paddlepaddle==3.3.1 in a temporary folder.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check paddlepaddle==3.3.1
"$work/venv/bin/python" -W ignore - <<'PYTHON'
import numpy as np, paddle

norm = paddle.nn.BatchNorm1D(2)
norm.weight.set_value(np.full(2, 3, np.float32))
norm.bias.set_value(np.full(2, 7, np.float32))
x = paddle.to_tensor([[5.0, 8.0]])
training = norm(x).numpy()[0]
evaluation = norm.eval()(x).numpy()[0] if (norm._mean.numpy() == 0).all() else None
print(f"paddle {paddle.__version__}: {x.numpy()[0]} becomes {training} in training, {evaluation} in evaluation")
assert np.abs(evaluation - [22, 31]).max() < 1e-2
assert (training == [5, 8]).all(), "weight and bias are used now"
PYTHON
