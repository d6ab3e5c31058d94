"""PyTorch: `batch_norm`, `relu` or not, then `dropout`, as a training step calls them. Backward is autograd's, from a kept graph.

    pytorch.py [--compile] [--bf16]

With `--bf16` the input, the output and their gradients are bfloat16, and the parameters and statistics float32, as under autocast.
With `--compile` both directions are compiled by `torch.compile`, which fuses operations; it needs a C++ compiler.
"""

import functools
import sys

import torch
from torch.nn import functional

from peer import EPS, MOMENTUM, P, serve


def make_ops(layout, dims):
    channels = dims[1]
    memory = torch.channels_last if layout == "last" else torch.contiguous_format
    x = torch.empty(dims).uniform_(-1, 2).to(dtype).contiguous(memory_format=memory).requires_grad_()
    grad_output = torch.empty(dims).uniform_(-1, 1).to(dtype).contiguous(memory_format=memory)
    weight = torch.empty(channels).uniform_(0.5, 1.5).requires_grad_()
    bias = torch.empty(channels).uniform_(-0.5, 0.5).requires_grad_()
    mean, var = torch.zeros(channels), torch.ones(channels)

    def norm(x, weight, bias):
        return functional.batch_norm(x, mean, var, weight, bias, training=True, momentum=MOMENTUM, eps=EPS)

    def layer(x, weight, bias):
        return functional.dropout(norm(x, weight, bias), P, training=True)

    def relu_layer(x, weight, bias):
        # In place, as models have it: batch norm does not need its output again.
        return functional.dropout(functional.relu(norm(x, weight, bias), inplace=True), P, training=True)

    functions = {"": layer, "relu-": relu_layer, "norm-": norm}
    if compiled:
        torch.compiler.reset()
        functions = {name: torch.compile(function) for name, function in functions.items()}
    inputs = (x, weight, bias)

    def backward(output):
        return torch.autograd.grad(output, inputs, grad_output, retain_graph=True)

    ops = {}
    for name, function in functions.items():
        ops[name + "forward"] = functools.partial(function, *inputs)
        ops[name + "backward"] = functools.partial(backward, function(*inputs))
    return ops


compiled = "--compile" in sys.argv[1:]
dtype = torch.bfloat16 if "--bf16" in sys.argv[1:] else torch.float32
torch.set_num_threads(1)
torch.set_num_interop_threads(1)
if compiled:
    # The graph is kept and gone through again and again, so its buffers cannot be given away.
    from torch._functorch import config

    config.donated_buffer = False
mkl = "with MKL" if torch.backends.mkl.is_available() else "without MKL"
serve(f"{torch.__version__.split('+')[0]} {mkl}", make_ops)
