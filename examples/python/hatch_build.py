"""Builds the shared library into the wheel, and puts the sources of the Rust crate into the sdist."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import tempfile
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class CustomBuildHook(BuildHookInterface):
    """The only hook of this package; hatchling finds it by the name of this file."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Adds to what hatchling packs: for the target "sdist" the crate, for "wheel" its library and the tag."""
        self.work = Path(tempfile.mkdtemp(prefix="normdrop-"))
        # The crate, as an sdist has it or as the repository does.
        packed = Path(self.root) / "rust"
        crate = packed if packed.exists() else Path(self.root).parents[1]
        if self.target_name == "sdist":
            build_data["force_include"][str(crate if crate == packed else self.published(crate))] = "rust"
            return
        library = self.built(crate)
        # The library is for one kind of machine, and for every Python 3 there, because ctypes loads it.
        build_data["pure_python"] = False
        build_data["tag"] = f"py3-none-{platform_tag(library)}"
        # An editable installation uses this folder, and finds the library where cargo has put it.
        if version != "editable":
            build_data["force_include"][str(library)] = f"normdrop/{library.name}"

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        """Removes what the build needed."""
        shutil.rmtree(self.work)

    def published(self, crate: Path) -> Path:
        """The crate as it would be published: the files that it is built from, and no others."""
        cargo("package", "--quiet", "--locked", "--allow-dirty", "--no-verify", "--target-dir", str(self.work), folder=crate)
        [archive] = (self.work / "package").glob("*.crate")
        with tarfile.open(archive) as files:
            files.extractall(self.work / "unpacked")  # our own archive
        [folder] = (self.work / "unpacked").iterdir()
        return folder

    def built(self, crate: Path) -> Path:
        """The shared library, with threads and without the tables of a debugger."""
        # Nothing unwinds into Python.
        environment = {"CARGO_PROFILE_RELEASE_PANIC": "abort", "CARGO_PROFILE_RELEASE_STRIP": "symbols"}
        link = []
        if sys.platform == "linux":
            # The threads run the library's code, so that it stays in memory.
            link = ["--", "-Clink-arg=-Wl,-soname,libnormdrop.so", "-Clink-arg=-Wl,-z,nodelete"]
        messages = cargo(
            "rustc", "--release", "--locked", "--features", "capi,half-precision,rayon", "--crate-type", "cdylib",
            "--message-format", "json-render-diagnostics", *link, folder=crate, **environment,
        )
        artifacts = (json.loads(line) for line in messages.splitlines())
        files = [file for artifact in artifacts if "cdylib" in artifact.get("target", {}).get("crate_types", ()) for file in artifact["filenames"]]
        [library] = [Path(file) for file in files if file.endswith((".so", ".dylib", ".dll"))]
        return library


def cargo(*arguments: str, folder: Path, **environment: str) -> str:
    """The output of cargo. What it has to say goes to the terminal."""
    program = os.environ.get("CARGO") or shutil.which("cargo")
    if program is None:
        raise RuntimeError("normdrop is built by cargo, which was not found: install Rust 1.89 or later, see https://rustup.rs")
    run = subprocess.run([program, *arguments], cwd=folder, env={**os.environ, **environment}, stdout=subprocess.PIPE, text=True)
    if run.returncode:
        raise RuntimeError(f"cargo {arguments[0]} failed; what it wrote is above (with `pip -v`)")
    return run.stdout


def platform_tag(library: Path) -> str:
    """The machines that a wheel with this library is for.

    On Linux with glibc it is a tag of PEP 600: `manylinux_2_17` asks for glibc 2.17 or later, which is the oldest that Rust
    supports. The version is that of the newest symbol that the library asks for, and so depends on the machine that links it.
    """
    platform = re.sub("[-.]", "_", sysconfig.get_platform())
    versions = [(int(major), int(minor)) for major, minor in re.findall(rb"\0GLIBC_(\d+)\.(\d+)", library.read_bytes())]
    if platform.startswith("linux_") and versions:
        major, minor = max(*versions, (2, 17))
        return platform.replace("linux", f"manylinux_{major}_{minor}", 1)
    return platform
