#!/usr/bin/env python3
"""PyTorch's own 36 samples of alpha dropout and feature alpha dropout, with what it made of them.

    python -m venv venv
    venv/bin/pip install torch numpy expecttest
    venv/bin/python alpha_dropout.py --output alpha_dropout.json

The samples are the `OpInfo`s of torch.testing: `nn.functional.alpha_dropout`
(19) and `nn.functional.feature_alpha_dropout` (7 with training, 10 without).
Each runs in float32 and, from the same f32 inputs, in float64, with masks of
their own. A mask is taken from PyTorch's gradient, which is 0 where an element
was dropped: a string of one character per element, "1" where it was kept.

Floats are written as pytorch.py does: `*_bits` are f32 bit patterns, `*_f64`
shortest decimals, both in memory order.
"""

import argparse
import json
import os

os.environ.setdefault("ATEN_CPU_CAPABILITY", "avx2")

import torch
from torch.testing._internal.common_methods_invocations import op_db

NAMES = ("nn.functional.alpha_dropout", "nn.functional.feature_alpha_dropout")


def bits(values):
    return " ".join(f"{word & 0xFFFFFFFF:08x}" for word in values.reshape(-1).view(torch.int32).tolist())


def decimals(values):
    return " ".join(repr(value) for value in values.reshape(-1).tolist())


def run(op, sample, values):
    """Output, gradient of the sum of output times `grad_output`, and which elements were kept."""
    values = values.clone().requires_grad_()
    output = op.op(values, *sample.args, **sample.kwargs)
    grad_output = torch.arange(1, values.numel() + 1, dtype=values.dtype).reshape(values.shape) / 4
    (grad,) = torch.autograd.grad(output, values, grad_output)
    mask = "".join("1" if value != 0 else "0" for value in grad.reshape(-1).tolist())
    return output.detach(), grad, mask


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", required=True)
    arguments = parser.parse_args()
    torch.manual_seed(42)
    torch.set_num_threads(1)
    samples = []
    for op in (op for name in NAMES for op in op_db if op.name == name):
        for sample in op.sample_inputs("cpu", torch.float32):
            values = sample.input.detach()
            output, grad, mask = run(op, sample, values)
            output_f64, _, mask_f64 = run(op, sample, values.double())
            samples.append(
                {
                    "name": f"{op.name.removeprefix('nn.functional.')} {len(samples)}",
                    "feature": "feature" in op.name,
                    "p": sample.kwargs.get("p", 0.5),
                    "training": sample.kwargs.get("training", False),
                    "dims": list(values.shape),
                    "input_bits": bits(values),
                    "mask": mask,
                    "output_bits": bits(output),
                    "grad_bits": bits(grad),
                    "mask_f64": mask_f64,
                    "output_f64": decimals(output_f64),
                }
            )
    document = {"torch": torch.__version__.partition("+")[0], "samples": samples}
    with open(arguments.output, "w", encoding="ascii", newline="\n") as file:
        file.write(json.dumps(document, indent=1) + "\n")
    print(f"{arguments.output}: {len(samples)} samples")


if __name__ == "__main__":
    main()
