#!/usr/bin/env bash
# PyTorch: seeds that differ by 2^32 give the same dropout masks on the CPU
#
# A good guess: manual_seed takes 64 bits, and each of them changes the numbers that follow.
# Seen: PyTorch 2.15.0: the CPU's Mersenne Twister starts from the lower 32 bits of the seed: the
# seeds 1 and 1 + 5 * 2^32 give one mask and one tensor of normal numbers.
# Why it matters here: seeds that pack a step or a layer above a run's number, or are hashes, repeat
# masks. All 64 bits of a seed count here.
# Needs Python 3.11 or newer; installs torch==2.15.0, numpy==2.4.6 in a temporary folder.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.15.0 numpy==2.4.6
"$work/venv/bin/python" -W ignore - <<'PYTHON'
import torch


def drawn(seed):
    torch.manual_seed(seed)
    return torch.nn.functional.dropout(torch.ones(256), 0.5), torch.randn(256)


equal = lambda one, other: all(torch.equal(a, b) for a, b in zip(drawn(one), drawn(other)))
found = {"0 and 2^32": equal(0, 2**32), "1 and 1 + 5 * 2^32": equal(1, 1 + 5 * 2**32), "1 and 2": equal(1, 2)}
print(f"PyTorch {torch.__version__}: the same mask and normal numbers from two seeds: {found}")
assert not found["1 and 2"]
assert found["0 and 2^32"] and found["1 and 1 + 5 * 2^32"], "the upper bits count now"
PYTHON
