"""The package as such: its version, and what an editor, a type checker and `help` say about it."""

import importlib.metadata
import inspect
import os
import re
import subprocess
import sys
import typing
from pathlib import Path

import pytest
from conftest import missing

import normdrop

try:
    import normdrop.distributed as normdrop_distributed
    import normdrop.torch as normdrop_torch
except ImportError:
    normdrop_torch = normdrop_distributed = None


def public_calls():
    """The functions, classes and methods that `help` shows, by their names."""
    for module in filter(None, (normdrop, normdrop_torch, normdrop_distributed)):
        for name in module.__all__:
            value = getattr(module, name)
            if inspect.isfunction(value):
                yield f"{module.__name__}.{name}", value, value.__doc__
            elif inspect.isclass(value) and not issubclass(value, (tuple, Exception)):
                for method, function in vars(value).items():
                    if inspect.isfunction(function) and not method.startswith("_"):
                        yield f"{module.__name__}.{name}.{method}", function, function.__doc__
                if "__init__" in vars(value) and not getattr(value, "_is_protocol", False):
                    documentation = " ".join(base.__doc__ or "" for base in inspect.getmro(value) if base.__module__.startswith("normdrop"))
                    yield f"{module.__name__}.{name}", value.__init__, documentation


CALLS = {name: (function, documentation) for name, function, documentation in public_calls()}
# What a subclass has from torch.nn.BatchNorm2d, whose arguments its documentation refers to.
OF_BATCH_NORM = {"num_features", "eps", "momentum", "affine", "track_running_stats", "bias", "device", "dtype", "slope", "alpha", "granularity", "tasks",
                 "activation", "p"}


def test_the_types_have_the_names():
    for names, values in (
        (normdrop.Activation, normdrop.ACTIVATIONS), (normdrop.Granularity, normdrop.GRANULARITIES), (normdrop.Backend, normdrop.BACKENDS),
        (normdrop.RunningVariance, normdrop.RUNNING_VARIANCES), (normdrop.Layout, normdrop.LAYOUTS),
    ):
        assert typing.get_args(names) == values


def test_the_version_is_that_of_the_library():
    assert normdrop.__version__ == normdrop.library_version()


def test_an_installation_has_the_version_and_the_licences():
    try:
        installed = importlib.metadata.distribution("normdrop")
    except importlib.metadata.PackageNotFoundError:
        missing("installation", "the package is not installed")
    assert installed.version == normdrop.__version__
    licences = {path.name: path.read_text() for path in installed.files if path.name.startswith("LICENSE-")}
    assert licences.keys() == {"LICENSE-MIT", "LICENSE-APACHE"}
    here = Path(__file__).resolve().parents[1]
    for name, text in licences.items():
        assert "normdrop" in text or "Apache License" in text
        assert not (here / name).exists() or (here / name).read_text() == text


@pytest.mark.parametrize("name", CALLS)
def test_every_argument_is_annotated_and_documented(name):
    function, documentation = CALLS[name]
    signature = inspect.signature(function)
    assert signature.return_annotation is not inspect.Signature.empty
    for parameter in list(signature.parameters.values()):
        if parameter.name == "self":
            continue
        assert parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD), parameter
        assert parameter.annotation is not inspect.Parameter.empty, parameter
        if not (name.endswith("NormDrop") and parameter.name in OF_BATCH_NORM):
            assert re.search(rf"\b{parameter.name}\b", documentation), f"the documentation of {name} does not say what {parameter.name} is"


def test_help_has_the_type_and_the_shape_of_each_array():
    for name in ("train", "eval", "backward", "apply", "reduce"):
        _, documentation = CALLS[f"normdrop.Layer.{name}"]
        assert "float32 or a half, the shape of the layer" in documentation and "float32 [C]" in documentation, name
    assert "uint8 [layer.mask_len]" in normdrop.__doc__


def strict(tmp_path, *arguments):
    if subprocess.run([sys.executable, "-c", "import mypy"], capture_output=True).returncode:
        missing("mypy", "mypy is not installed")
    return subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "--cache-dir", str(tmp_path / "cache"), *arguments],
        capture_output=True, text=True, cwd=tmp_path, env={**os.environ, "MYPYPATH": str(Path(normdrop.__file__).parents[1])}
        if "site-packages" not in normdrop.__file__ else os.environ,
    )


# mypy reports each comment that is not needed, so that every one stands for an error that it found.
PROGRAM = """
import numpy, normdrop

layer = normdrop.Layer("NCHW", (8, 16, 32, 32), activation="relu", p=0.1)
x = numpy.ones((8, 16, 32, 32), numpy.float32)
mask = layer.mask(seed=numpy.int64(42))
y, saved = layer.train(x, mask=mask)
gradients = layer.backward(numpy.ones_like(x), x, saved, mask=mask)
wrong: str = y  # type: ignore[assignment]
wrong = saved.inv_std  # type: ignore[assignment]
layer.train(numpy.ones(3))  # type: ignore[type-var]
half, _ = layer.train(x.astype(numpy.float16), mask=mask)
wrong = half  # type: ignore[assignment]
layer.train([1.0])  # type: ignore[arg-type]
normdrop.Layer("NCHX", (1, 2, 3, 4))  # type: ignore[arg-type]
normdrop.Layer("NC", (1, 2), activation="rellu")  # type: ignore[arg-type]
layer.mask("42")  # type: ignore[arg-type]
layer.eval(x, mask=mask)  # type: ignore[call-arg]
layer.p = "0.1"  # type: ignore[assignment]
"""


def test_a_type_checker_knows_the_types(tmp_path):
    (tmp_path / "program.py").write_text(PROGRAM)
    checked = strict(tmp_path, "program.py")
    assert checked.returncode == 0, checked.stdout + checked.stderr


@pytest.mark.skipif(normdrop_torch is None, reason="PyTorch is not installed, whose types mypy would need")
def test_the_package_itself_is_accepted(tmp_path):
    settings = Path(__file__).resolve().parents[1] / "pyproject.toml"
    checked = strict(tmp_path, "--config-file", str(settings), str(Path(normdrop.__file__).parent))
    assert checked.returncode == 0, checked.stdout + checked.stderr
