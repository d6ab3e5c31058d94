#!/usr/bin/env python3
"""PyTorch's own samples of PReLU, with what it made of them, and `torch.nn.PReLU` after batch norm.

    python -m venv venv
    venv/bin/pip install torch numpy expecttest
    venv/bin/python prelu.py --output prelu.json

The samples are the `OpInfo` of torch.testing, `nn.functional.prelu`, without
those of no element. After them come `BatchNorm1d` (training) and `PReLU`, with
a slope for each channel and with one. Each runs in float32 and, from the same
f32 inputs, in float64.

Floats are written as pytorch.py does: `*_bits` are f32 bit patterns, `*_f64`
shortest decimals, both in memory order.
"""

import argparse
import json
import os

os.environ.setdefault("ATEN_CPU_CAPABILITY", "avx2")

import torch
from torch.testing._internal.common_methods_invocations import op_db

NETWORKS = (((8, 3), 3), ((8, 3), 1), ((4, 5, 6), 5), ((2, 3, 4, 5), 3), ((2, 3, 4, 5), 1))


def bits(values):
    return " ".join(f"{word & 0xFFFFFFFF:08x}" for word in values.reshape(-1).view(torch.int32).tolist())


def decimals(values):
    return " ".join(repr(value) for value in values.reshape(-1).tolist())


def loss_weights(values):
    """The gradient of the output: small numbers of either sign."""
    return ((torch.arange(values.numel()) % 7 - 3) / 4).to(values.dtype).reshape(values.shape)


def prelu(values, slope):
    values, slope = values.clone().requires_grad_(), slope.clone().requires_grad_()
    output = torch.nn.functional.prelu(values, slope)
    grads = torch.autograd.grad(output, (values, slope), loss_weights(output))
    return [output.detach(), *grads]


def network(values, slope, weight, bias):
    """Batch norm with batch statistics, and PReLU."""
    leaves = [tensor.clone().requires_grad_() for tensor in (values, slope, weight, bias)]
    values, slope, weight, bias = leaves
    z = torch.nn.functional.batch_norm(values, None, None, weight, bias, True, 0.1, 1e-5)
    output = torch.nn.functional.prelu(z, slope)
    grads = torch.autograd.grad(output, leaves, loss_weights(output))
    return [output.detach(), *grads]


def record(name, function, inputs, fields):
    single, double = function(*inputs), function(*(tensor.double() for tensor in inputs))
    case = {"name": name, "dims": list(inputs[0].shape)}
    for field, tensor in zip(fields, inputs):
        case[f"{field}_bits"] = bits(tensor)
    names = ["output", *(f"grad_{field}" for field in fields)]
    for field, tensor, exact in zip(names, single, double):
        case[f"{field}_bits"] = bits(tensor)
        case[f"{field}_f64"] = decimals(exact)
    return case


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", required=True)
    arguments = parser.parse_args()
    torch.manual_seed(42)
    torch.set_num_threads(1)
    samples = []
    for op in (op for op in op_db if op.name == "nn.functional.prelu"):
        for sample in op.sample_inputs("cpu", torch.float32):
            slope = sample.args[0] if sample.args else sample.kwargs["weight"]
            values = sample.input.detach()
            if values.numel() != 0:
                samples.append(record(f"sample {len(samples)}", prelu, (values, slope.detach()), ("input", "slope")))
    networks = []
    for dims, slopes in NETWORKS:
        channels = dims[1]
        inputs = (torch.randn(dims), torch.rand(slopes), torch.rand(channels) + 0.5, torch.randn(channels))
        networks.append(record(f"batch norm, {slopes} slopes", network, inputs, ("input", "slope", "weight", "bias")))
    document = {"torch": torch.__version__.partition("+")[0], "samples": samples, "networks": networks}
    with open(arguments.output, "w", encoding="ascii", newline="\n") as file:
        file.write(json.dumps(document, indent=1) + "\n")
    print(f"{arguments.output}: {len(samples)} samples, {len(networks)} networks")


if __name__ == "__main__":
    main()
