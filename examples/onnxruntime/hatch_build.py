"""Builds the library with the operator."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

# ONNX Runtime loads a library by its path; the package looks for this name on every system.
LIBRARY = "libnormdrop_onnxruntime.so"


class CustomBuildHook(BuildHookInterface):
    """The only hook of this package; hatchling finds it by the name of this file."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Adds the library to what hatchling packs, and the kind of machine to the tag. Any Python 3 can load it."""
        root = Path(self.root)
        target = Path(os.environ.get("CARGO_TARGET_DIR", root / "target"))
        cargo = shutil.which("cargo")
        if cargo is None:
            raise RuntimeError("cargo was not found: install Rust 1.92 or later, see https://rustup.rs")
        if subprocess.run([cargo, "build", "--release", "--locked", "--target-dir", str(target)], cwd=root).returncode:
            raise RuntimeError("cargo failed; what it wrote is above (with `pip -v`)")
        names = {"darwin": "libnormdrop_onnxruntime.dylib", "win32": "normdrop_onnxruntime.dll"}
        library = target / "release" / names.get(sys.platform, LIBRARY)
        if version == "editable":
            shutil.copy(library, root / "normdrop_onnxruntime" / LIBRARY)
        build_data["pure_python"] = False
        build_data["tag"] = "py3-none-" + sysconfig.get_platform().replace("-", "_").replace(".", "_")
        build_data["force_include"][str(library)] = f"normdrop_onnxruntime/{LIBRARY}"
