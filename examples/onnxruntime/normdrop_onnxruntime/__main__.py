"""`python -m normdrop_onnxruntime MODEL.onnx REWRITTEN.onnx`: rewrites a file, and prints what was replaced and what was left."""

from __future__ import annotations

import argparse

import onnx

from ._rewrite import rewrite


def seed(text: str) -> str | int:
    """The name of an input, or a number."""
    try:
        return int(text)
    except ValueError:
        return text


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m normdrop_onnxruntime", description="Replaces batch norm, activation and dropout by NormDrop.")
    parser.add_argument("model", help="the file to read")
    parser.add_argument("rewritten", help="the file to write")
    parser.add_argument("--seed", type=seed, default="seed", metavar="NAME|NUMBER", help="the input for the seed, or one seed for good")
    parser.add_argument("--foldable", action="store_true", help="also replace what ONNX Runtime folds into the layer before it")
    arguments = parser.parse_args()
    rewritten = rewrite(onnx.load(arguments.model), seed=arguments.seed, foldable=arguments.foldable)
    onnx.save(rewritten.model, arguments.rewritten)
    print(rewritten)


if __name__ == "__main__":
    main()
