"""Batch norm in PyTorch on the data of the bench `accuracy`, which starts this program and talks to it through pipes.

It writes one line, the version of PyTorch. Then for every request, a line

    planar|channels_last CHANNELS SAMPLES

and the little-endian f32 of x, dy, weight and bias, it writes those of y, dx, the mean, the (unbiased) variance, and the
gradients of weight and bias. Needs torch and numpy; the recorded results are those of torch 2.15.0 for the CPU.
"""

import sys

import numpy
import torch

# That of the crate's layer: 1e-5 as an f32.
EPS = float(numpy.float32(1e-5))


def read(count):
    values = numpy.frombuffer(sys.stdin.buffer.read(4 * count), dtype="<f4")
    if len(values) != count:
        sys.exit("the input ended within a tensor")
    return torch.from_numpy(values.copy())


def write(tensor):
    sys.stdout.buffer.write(tensor.detach().numpy().astype("<f4", copy=False).tobytes())


def run(layout, channels, samples):
    """One request: a tensor NCHW of shape [1, channels, samples, 1], in memory as the layout says."""
    if layout == "planar":
        shape, order, memory = (1, channels, samples, 1), (0, 1, 2, 3), torch.contiguous_format
    else:
        shape, order, memory = (1, samples, 1, channels), (0, 3, 1, 2), torch.channels_last
    back = [order.index(axis) for axis in range(4)]
    x, dy = (read(channels * samples).view(shape).permute(order) for _ in range(2))
    assert x.is_contiguous(memory_format=memory)
    weight, bias = read(channels).requires_grad_(), read(channels).requires_grad_()
    x.requires_grad_()
    mean, var = torch.zeros(channels), torch.ones(channels)
    y = torch.nn.functional.batch_norm(x, mean, var, weight, bias, training=True, momentum=1.0, eps=EPS)
    y.backward(dy)
    for tensor in (y, x.grad):
        write(tensor.permute(back).contiguous())
    for tensor in (mean, var, weight.grad, bias.grad):
        write(tensor)
    sys.stdout.buffer.flush()


def main():
    # Sums depend on the number of threads.
    torch.set_num_threads(1)
    print(torch.__version__.split("+")[0], flush=True)
    while line := sys.stdin.buffer.readline():
        layout, channels, samples = line.decode().split()
        run(layout, int(channels), int(samples))


main()
