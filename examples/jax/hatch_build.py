"""Builds normdrop and the handlers of XLA into one shared library."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sysconfig
import tempfile
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class CustomBuildHook(BuildHookInterface):
    """The only hook of this package; hatchling finds it by the name of this file."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Adds the library to what hatchling packs, and the kind of machine to the tag. Any Python 3 can load it."""
        crate = Path(self.root).parents[1]
        target = Path(os.environ.get("CARGO_TARGET_DIR", crate / "target"))
        run(
            "cargo", "rustc", "--release", "--locked", "--features", "capi,half-precision,rayon", "--crate-type", "staticlib,cdylib",
            "--target-dir", str(target), folder=crate, missing="install Rust 1.89 or later, see https://rustup.rs",
        )  # fmt: skip
        self.work = Path(tempfile.mkdtemp(prefix="normdrop-jax-"))
        library = self.work / "libnormdrop_jax.so"
        [headers] = importlib.util.find_spec("jaxlib").submodule_search_locations
        # The threads of a call with tasks run the library's code, so it stays in memory.
        keep = [] if os.uname().sysname == "Darwin" else ["-Wl,-z,nodelete", "-Wl,--exclude-libs,ALL", "-Wl,-s"]
        run(
            os.environ.get("CXX", "c++"), "-std=c++17", "-O2", "-Wall", "-fPIC", "-shared", "-fvisibility=hidden", *keep, f"-I{crate}/include",
            f"-isystem{headers}/include", "normdrop_jax/handlers.cc", str(target / "release" / "libnormdrop.a"), "-lpthread", "-ldl", "-lm",
            "-o", str(library), folder=Path(self.root), missing="install a compiler of C++17, or name it by CXX",
        )  # fmt: skip
        destination = "normdrop_jax/libnormdrop_jax.so"
        if version == "editable":
            shutil.copy(library, Path(self.root) / destination)
        build_data["pure_python"] = False
        build_data["tag"] = "py3-none-" + sysconfig.get_platform().replace("-", "_").replace(".", "_")
        build_data["force_include"][str(library)] = destination

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        """Removes what the build needed."""
        shutil.rmtree(self.work)


def run(program: str, *arguments: str, folder: Path, missing: str) -> None:
    """Runs a compiler. What it has to say goes to the terminal."""
    found = shutil.which(program)
    if found is None:
        raise RuntimeError(f"{program} was not found: {missing}")
    if subprocess.run([found, *arguments], cwd=folder).returncode:
        raise RuntimeError(f"{program} failed; what it wrote is above (with `pip -v`)")
