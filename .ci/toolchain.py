"""The compiler and LLVM's tools, for the scripts in this folder."""

import fcntl
import os
import subprocess
import sys
import tempfile
from pathlib import Path

SETUP = Path(__file__).resolve().parent / "cross-setup"


def output(*command):
    return subprocess.run(command, check=True, text=True, stdout=subprocess.PIPE).stdout.strip()


def rustc_version():
    """The compiler, as `rustc 1.95.0`."""
    return output("rustc", "--version").split(" (")[0]


def use_rustc(version):
    """Chooses the compiler that has made a recorded table, for this process and its children: another one makes other code."""
    if version and version != rustc_version():
        toolchain = version.removeprefix("rustc ")
        # The lock of .ci/install and .ci/cross-setup: two scripts must not install the same at the same time.
        with (Path(tempfile.gettempdir()) / "normdrop-setup.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if subprocess.run(["rustup", "toolchain", "install", toolchain, "--profile", "minimal"]).returncode != 0:
                sys.exit(f"rustup did not install the compiler of the recorded table, {version}")
        os.environ["RUSTUP_TOOLCHAIN"] = toolchain


def set_up(*triples, packages):
    """Installs rustup's libraries of targets, LLVM's tools and Debian packages."""
    subprocess.run([SETUP, *triples, "--", *packages], check=True)


def llvm(tool):
    """The path of one of LLVM's tools, which `set_up` has installed."""
    sysroot = Path(output("rustc", "--print", "sysroot"))
    (host,) = (line.removeprefix("host: ") for line in output("rustc", "-vV").splitlines() if line.startswith("host: "))
    return sysroot / "lib/rustlib" / host / "bin" / f"llvm-{tool}"
