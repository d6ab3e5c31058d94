#!/usr/bin/env python3
"""Counts the instructions of a layer's calls on AArch64 with NEON, in QEMU, for this tree and for an older commit.

A table in Markdown: instructions per vector of sixteen values, and the new count divided by the old one. The
program counts a loop of known length first and fails if the counter is wrong; every version runs twice, and the
counts must be the same.

Usage: benches/instructions/run.py [--before COMMIT] [--record]
    --before COMMIT   the older commit (fda4887, the last one before the passes were rebuilt)
    --record          also writes benches/results/instructions.md

It needs rustup's library for aarch64-unknown-none, and QEMU (qemu-system-arm on Debian).
"""

import io
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
RECORD = ROOT / "benches/results/instructions.md"
TARGET = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")) / "instructions"
CALLS = ("mask", "train", "backward", "eval")


def counts(package, name, *arguments):
    """The instructions by shape and call, of the version of normdrop two folders above `package`."""
    # Flags for the host are not for the emulated machine.
    environment = {key: value for key, value in os.environ.items() if key not in ("RUSTFLAGS", "CARGO_ENCODED_RUSTFLAGS")}
    command = ["nice", "cargo", "run", "--quiet", "--release", "--target-dir", str(TARGET / name), *arguments]
    runs = [subprocess.run(command, cwd=package, env=environment, check=True, stdout=subprocess.PIPE, text=True).stdout for _ in range(2)]
    if runs[0] != runs[1]:
        sys.exit("two runs of one program have different counts")
    found = {}
    for line in runs[0].splitlines():
        shape, elements, call, count = line.split(",")
        found[shape, call] = int(count) / int(elements) * 16
    if not found or {call for _, call in found} != set(CALLS) or len(found) % len(CALLS):
        sys.exit(f"calls are missing: {runs[0]}")
    return found


def older(commit):
    """The counts of an older commit, with the program of this tree."""
    with tempfile.TemporaryDirectory() as folder:
        archive = subprocess.run(["git", "archive", commit], cwd=ROOT, check=True, stdout=subprocess.PIPE).stdout
        tarfile.open(fileobj=io.BytesIO(archive)).extractall(folder, filter="data")
        package = Path(folder) / "benches/instructions"
        shutil.rmtree(package, ignore_errors=True)
        shutil.copytree(HERE, package)
        has_tails = re.search(r"pub mean_tail: Option", (Path(folder) / "src/args.rs").read_text())
        return counts(package, "before", *([] if has_tails else ["--features", "without-tails"]))


def table(before, after):
    yield "| shape | " + " | ".join(CALLS) + " |"
    yield "|---|" + "---|" * len(CALLS)
    for shape in dict.fromkeys(shape for shape, _ in after):
        cells = [f"{before[shape, call]:.0f} → {after[shape, call]:.0f} ({after[shape, call] / before[shape, call]:.2f})" for call in CALLS]
        yield f"| {shape} | {' | '.join(cells)} |"
    means = []
    for call in CALLS:
        product = 1.0
        ratios = [after[key] / before[key] for key in after if key[1] == call]
        for ratio in ratios:
            product *= ratio
        means.append(f"{product ** (1 / len(ratios)):.2f}")
    yield f"| geometric mean | {' | '.join(means)} |"


def main():
    arguments = sys.argv[1:]
    commit = arguments[arguments.index("--before") + 1] if "--before" in arguments else "fda4887"
    compiler = subprocess.run(["rustc", "--version"], check=True, stdout=subprocess.PIPE, text=True).stdout.split()[1]
    lines = [
        "# Instructions on AArch64",
        "",
        f"Instructions per vector of sixteen values, commit {commit} → this tree, and in brackets the new count divided by",
        f"the old one. Counted by `benches/instructions/run.py` in QEMU, AArch64 with NEON, Rust {compiler}, opt-level 3. Batch",
        "norm, ReLU and dropout with p = 0.1; training does not draw its mask here. Instructions are not time: a division",
        "counts as much as a load.",
        "",
        *table(older(commit), counts(HERE, "now")),
    ]
    print("\n".join(lines))
    if "--record" in arguments:
        RECORD.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
