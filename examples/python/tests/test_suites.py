"""The tests that other projects ship, run through this package.

- ONNX: the backend tests of the `onnx` package whose graph is a BatchNormalization or a Dropout. Its data say what comes out.
- Keras: its own test classes of BatchNormalization, Dropout and SpatialDropout, with layers of this package in the place of its
  own; among them are masks of padded sequences and batch renormalisation, computed as the crate's guide says.

A case that cannot be expressed is listed with its reason. The lists are checked: a listed case that passes, and a case of a new
release that fails, fail here.
"""

import importlib
import importlib.util
import os
import unittest
from pathlib import Path

# Keras reads it when it is imported.
os.environ.setdefault("KERAS_BACKEND", "torch")

import numpy
import pytest

import normdrop
from conftest import missing

try:
    import keras
    import onnx
    import torch
    from keras import ops
    from onnx.backend.test.case import node as onnx_nodes
except ImportError as error:
    missing("suites", f"{error.name} is not installed")

from normdrop.torch import normdrop as function

if keras.backend.backend() != "torch":
    missing("suites", "Keras must run on PyTorch: KERAS_BACKEND=torch")

# ---- ONNX ----

ONNX_OPERATORS = ("BatchNormalization", "Dropout")
# The cases that cannot be expressed, and why.
ONNX_NOT_EXPRESSED = {}
# Of large networks the package has the graph alone, with random numbers in it and many other operators.
ONNX_FOLDERS = ("pytorch-converted", "pytorch-operator", "simple")


def onnx_cases():
    """Each graph of a single node of these operators, with its data sets: pairs of inputs and outputs."""
    # Importing a module makes its cases. `collect_testcases` would make those of all operators.
    for module in ("batch_normalization", "dropout"):
        importlib.import_module(f"onnx.backend.test.case.node.{module}")
    cases = {}
    for case in onnx_nodes._NodeTestCases:
        if [node.op_type in ONNX_OPERATORS for node in case.model.graph.node] == [True]:
            cases[case.name] = (case.model, case.data_sets)
    data = Path(onnx.__file__).parent / "backend/test/data"
    for path in sorted(path for folder in ONNX_FOLDERS for path in data.glob(f"{folder}/*/model.onnx")):
        model = onnx.load(path)
        if [node.op_type in ONNX_OPERATORS for node in model.graph.node] == [True]:
            folders = sorted(path.parent.glob("test_data_set_*"))
            cases[path.parent.name] = (model, [[_tensors(folder, kind) for kind in ("input", "output")] for folder in folders])
    return cases


def _tensors(folder, kind):
    files = sorted(folder.glob(f"{kind}_*.pb"), key=lambda path: int(path.stem.split("_")[1]))
    return [onnx.numpy_helper.to_array(onnx.load_tensor(path)) for path in files]


ONNX_CASES = onnx_cases()


def test_the_onnx_cases_are_there():
    # The numbers of onnx 1.18; later releases may have more.
    operators = [model.graph.node[0].op_type for model, _ in ONNX_CASES.values()]
    assert operators.count("BatchNormalization") >= 9 and operators.count("Dropout") >= 12
    assert ONNX_NOT_EXPRESSED.keys() <= ONNX_CASES.keys()


@pytest.mark.parametrize("name", sorted(ONNX_CASES))
def test_onnx(name):
    model, data_sets = ONNX_CASES[name]
    assert data_sets
    for inputs, outputs in data_sets:
        found = run_onnx(model, [numpy.asarray(value) for value in inputs])
        for got, wanted in zip(found, outputs, strict=True):
            wanted = numpy.asarray(wanted)
            assert (got.shape, got.dtype) == (wanted.shape, wanted.dtype)
            numpy.testing.assert_allclose(got, wanted, rtol=2e-6, atol=2e-6)


def run_onnx(model, inputs):
    """The outputs of a graph of a single node."""
    [node] = model.graph.node
    values = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    values |= dict(zip((value.name for value in model.graph.input if value.name not in values), inputs, strict=True))
    arguments = [values[name] if name else None for name in node.input]
    attributes = {attribute.name: onnx.helper.get_attribute_value(attribute) for attribute in node.attribute}
    [version] = [opset.version for opset in model.opset_import if opset.domain in ("", "ai.onnx")]
    run = onnx_batch_normalization if node.op_type == "BatchNormalization" else onnx_dropout
    return run(version, attributes, len(node.output), *arguments)


def onnx_batch_normalization(version, attributes, _, x, scale, bias, mean, var):
    shape = (*x.shape[:2], int(numpy.prod(x.shape[2:])))
    # Theirs is the weight of the old value.
    options = {"eps": attributes.get("epsilon", 1e-5), "momentum": 1 - attributes.get("momentum", 0.9), "running_var": "biased"}
    layer = normdrop.Layer("NCL", shape, **options)
    flat = numpy.ascontiguousarray(x.reshape(shape))
    if version < 14 or not attributes.get("training_mode", 0):
        return [layer.eval(flat, mean, var, weight=scale, bias=bias).reshape(x.shape)]
    mean, var = mean.copy(), var.copy()
    y, _ = layer.train(flat, weight=scale, bias=bias, running_mean=mean, running_var=var)
    return [y.reshape(x.shape), mean, var]


def onnx_dropout(version, attributes, outputs, x, ratio=None, training=None):
    ratio = attributes.get("ratio", 0.5) if version < 12 else 0.5 if ratio is None else float(ratio)
    kept = numpy.ones(x.shape, bool)
    if version >= 12 and training is not None and training:
        # What the expected outputs were made with: the operator leaves the generator open.
        numpy.random.seed(attributes.get("seed", 0))
        kept = numpy.random.uniform(0, 1.0, x.shape) >= ratio
    else:
        ratio = 0
    y = dropped(x, ratio, kept)
    return [y, kept][:outputs]


def dropped(x, p, kept):
    """Dropout alone: the layer with the mean 0, the variance 1 and no eps."""
    layer = normdrop.Layer("NC", (x.size, 1), p=p, eps=0)
    mask = numpy.packbits(kept.reshape(-1), bitorder="little")
    zero, one = numpy.zeros(1, numpy.float32), numpy.ones(1, numpy.float32)
    return layer.eval(numpy.ascontiguousarray(x.reshape(x.size, 1)), zero, one, mask=mask).reshape(x.shape)


# ---- Keras ----


def rows(x, axis):
    """The tensor `[..., C]` or `[N, C, ...]` as [rows, C] or [N, C, positions], float32."""
    axis %= x.dim()
    if axis == x.dim() - 1:
        return x.reshape(-1, x.shape[-1]).float()
    return x.reshape(int(numpy.prod(x.shape[:axis])), x.shape[axis], -1).float()


@keras.saving.register_keras_serializable("normdrop")
class BatchNormalization(keras.layers.BatchNormalization):
    """The layer of Keras, computed by this package."""

    def call(self, inputs, training=None, mask=None):
        x = ops.convert_to_tensor(inputs)
        if x.device.type == "meta":
            # Keras asks for the shape of the output.
            return super().call(inputs, training=training, mask=mask)
        flat = rows(x, self.axis)
        weight, bias = (None if variable is None else variable.value.float() for variable in (self.gamma, self.beta))
        if not (training and self.trainable):
            y = function(flat, self.moving_mean.value, self.moving_variance.value, weight, bias, training=False, eps=self.epsilon)
        elif mask is not None:
            y = self.masked(x, weight, bias, mask)
        else:
            mean, var = self.statistics(flat)
            if self.renorm:
                weight, bias = self.renormalised(mean.double(), var.double(), weight, bias)
            y = function(flat, None, None, weight, bias, eps=self.epsilon)
            self.move(mean, var)
        return y.reshape(x.shape).to(x.dtype)

    def statistics(self, x):
        """The mean and the biased variance of each channel: running statistics that the batch replaces."""
        layer = normdrop.Layer("NCL", (*x.shape, 1)[:3], momentum=1.0, running_var="biased")
        mean, var = numpy.zeros(layer.channels, numpy.float32), numpy.zeros(layer.channels, numpy.float32)
        layer.finish(layer.moments(x.detach().contiguous().numpy().reshape(layer.shape)), running_mean=mean, running_var=var)
        return torch.from_numpy(mean), torch.from_numpy(var)

    def move(self, mean, var):
        if self.renorm:
            stddev = (var.double() + self.epsilon).sqrt()
            for variable, value, momentum in ((self.renorm_mean, mean, self.renorm_momentum),
                                              (self.renorm_stddev, stddev, self.renorm_momentum),
                                              (self.moving_stddev, stddev, self.momentum)):
                variable.assign(variable * momentum + value.float() * (1 - momentum))
            self.moving_variance.assign(self.moving_stddev * self.moving_stddev - self.epsilon)
        else:
            self.moving_variance.assign(self.moving_variance * self.momentum + var * (1 - self.momentum))
        self.moving_mean.assign(self.moving_mean * self.momentum + mean * (1 - self.momentum))

    def renormalised(self, mean, var, weight, bias):
        """The recipe for batch renormalisation of the crate's guide: another weight and another bias."""
        clipping = self.renorm_clipping or {}
        stddev = self.renorm_stddev.value.double()
        most = clipping.get("dmax", float("inf"))
        r = ((var + self.epsilon).sqrt() / stddev).clamp(clipping.get("rmin", 0.0), clipping.get("rmax", float("inf")))
        d = ((mean - self.renorm_mean.value.double()) / stddev).clamp(-most, most)
        r, d = r.float(), d.float()
        weight = torch.ones_like(r) if weight is None else weight
        return weight * r, weight * d + (0 if bias is None else bias)

    def masked(self, x, weight, bias, mask):
        """The recipe for padded sequences of the crate's guide, with a mask that may be another one for each channel."""
        valid = torch.as_tensor(ops.convert_to_numpy(mask)).bool()
        valid = valid.reshape(*valid.shape, *[1] * (x.dim() - valid.dim())).expand(x.shape).movedim(self.axis, -1)
        moved = x.movedim(self.axis, -1).float()
        columns = moved.reshape(-1, moved.shape[-1], 1).unbind(1)
        mean, var = torch.zeros(len(columns)), torch.zeros(len(columns))
        outputs = []
        for channel, (column, chosen) in enumerate(zip(columns, valid.reshape(-1, len(columns)).unbind(1))):
            at = slice(channel, channel + 1)
            parameters = (None if weight is None else weight[at], None if bias is None else bias[at])
            if chosen.any():
                outputs.append(_Masked.apply(column.contiguous(), chosen, *parameters, mean[at], var[at], self.epsilon))
            else:
                # Keras takes the mean 0 and the variance 0 of no values.
                outputs.append(function(column, mean[at], var[at], *parameters, training=False, eps=self.epsilon))
        self.move(mean, var)
        return torch.stack(outputs, 1).reshape(moved.shape).movedim(-1, self.axis)


class _Masked(torch.autograd.Function):
    """Batch norm of [rows, C] with the statistics of the valid rows, which normalise all rows, as in Keras."""

    @staticmethod
    def forward(ctx, x, valid, weight, bias, mean, var, eps):
        ctx.arrays = [None if value is None else value.detach().numpy() for value in (weight, bias)]
        flat, chosen = x.detach().numpy(), x.detach()[valid].numpy()
        # The running statistics become those of the batch.
        options = {"momentum": 1.0, "running_var": "biased", "eps": eps}
        ctx.layer = normdrop.Layer("NC", flat.shape, **options)
        moments = normdrop.Layer("NC", chosen.shape, **options).moments(chosen)
        ctx.saved = ctx.layer.finish(moments, running_mean=mean.numpy(), running_var=var.numpy())
        ctx.samples, ctx.valid = len(chosen), valid
        ctx.save_for_backward(x)
        return torch.from_numpy(ctx.layer.apply(flat, ctx.saved, weight=ctx.arrays[0], bias=ctx.arrays[1]))

    @staticmethod
    def backward(ctx, grad):
        [x] = ctx.saved_tensors
        grad, flat = grad.contiguous().numpy(), x.detach().numpy()
        parameters = {"weight": ctx.arrays[0], "bias": ctx.arrays[1]}
        sums = ctx.layer.reduce(grad, flat, ctx.saved, **parameters)
        d_weight, d_bias = ctx.layer.finish_gradients(sums)
        dx = torch.from_numpy(ctx.layer.apply_gradient(grad, flat, ctx.saved, sums, ctx.samples, **parameters).input)
        # The statistics do not depend on the other rows.
        slope = torch.from_numpy(ctx.saved.inv_std).float() * (1 if ctx.arrays[0] is None else torch.from_numpy(ctx.arrays[0]))
        dx[~ctx.valid] = (torch.from_numpy(grad) * slope)[~ctx.valid]
        wanted = ctx.needs_input_grad
        return (dx, None, torch.from_numpy(d_weight) if wanted[2] else None, torch.from_numpy(d_bias) if wanted[3] else None,
                None, None, None)


def drop(layer, inputs, noise_shape, axis):
    """Dropout of elements, or of all positions of a channel; the seed is the next of the layer's generator."""
    x = ops.convert_to_tensor(inputs)
    low, high = (int(word) for word in numpy.asarray(ops.convert_to_numpy(layer.seed_generator.next()), numpy.uint64) % 2**32)
    shape = tuple(x.shape)
    noise_shape = shape if noise_shape is None else tuple(size or full for size, full in zip(noise_shape, shape, strict=True))
    channel = tuple(size if place in (0, axis % x.dim()) else 1 for place, size in enumerate(shape))
    if noise_shape == shape:
        flat, options = x.reshape(1, -1, 1), {}
    elif noise_shape == channel:
        flat, options = x.movedim(axis, 1).reshape(shape[0], shape[axis], -1), {"granularity": "channel"}
    else:
        raise NotImplementedError(f"a noise shape {noise_shape} for {shape}")
    channels = flat.shape[1]
    y = function(flat.float().contiguous(), torch.zeros(channels), torch.ones(channels), training=False, dropout=True,
                 p=layer.rate, seed=low | high << 32, eps=0.0, **options)
    if options:
        moved = x.movedim(axis, 1)
        return y.reshape(moved.shape).movedim(1, axis).to(x.dtype)
    return y.reshape(shape).to(x.dtype)


@keras.saving.register_keras_serializable("normdrop")
class Dropout(keras.layers.Dropout):
    def call(self, inputs, training=False):
        if not training or self.rate == 0 or inputs.device.type == "meta":
            return super().call(inputs, training=training)
        return drop(self, inputs, self.noise_shape, -1)


def spatial(kind):
    class SpatialDropout(kind):
        def call(self, inputs, training=False):
            if not training or self.rate == 0 or inputs.device.type == "meta":
                return super().call(inputs, training=training)
            axis = 1 if getattr(self, "data_format", "channels_last") == "channels_first" else -1
            return drop(self, inputs, self._get_noise_shape(inputs), axis)

    SpatialDropout.__name__ = kind.__name__
    return keras.saving.register_keras_serializable("normdrop")(SpatialDropout)


class Replaced:
    """`keras.layers` with the layers of this package in it."""

    def __init__(self):
        self.BatchNormalization, self.Dropout = BatchNormalization, Dropout
        for name in ("SpatialDropout1D", "SpatialDropout2D", "SpatialDropout3D"):
            setattr(self, name, spatial(getattr(keras.layers, name)))

    def __getattr__(self, name):
        return getattr(keras.layers, name)


KERAS_FILES = ("normalization.batch_normalization_test", "regularization.dropout_test", "regularization.spatial_dropout_test")
# The tests that cannot be expressed, and why.
KERAS_NOT_EXPRESSED = {}
# The other files of these two folders, and why they are not run.
KERAS_OTHER_FILES = {
    "normalization.group_normalization_test": "statistics of groups of channels in each sample, not of the batch",
    "normalization.layer_normalization_test": "statistics of each sample, not of the batch",
    "normalization.rms_normalization_test": "a root mean square of each sample, not statistics of the batch",
    "normalization.spectral_normalization_test": "normalises weights by their largest singular value",
    "normalization.unit_normalization_test": "a norm of each sample, not statistics of the batch",
    "regularization.activity_regularization_test": "a term of the loss; the data pass through it",
    "regularization.alpha_dropout_test": "a dropped element becomes a constant other than 0",
    "regularization.gaussian_dropout_test": "every element is multiplied by normal noise",
    "regularization.gaussian_noise_test": "normal noise is added to every element",
}


def keras_cases():
    cases = {}
    for file in KERAS_FILES:
        module = importlib.import_module(f"keras.src.layers.{file}")
        module.layers = Replaced()
        for suite in unittest.defaultTestLoader.loadTestsFromModule(module):
            for case in suite:
                # The class of all tests of Keras is imported beside, with a test of its own.
                if type(case).__module__ == module.__name__:
                    cases[f"{file.split('.')[1]}.{case._testMethodName}"] = case
    return cases


KERAS_CASES = keras_cases()


def test_the_keras_cases_are_there():
    assert len(KERAS_CASES) >= 40
    layers = Path(importlib.util.find_spec("keras.src.layers").origin).parent
    paths = [path for folder in ("normalization", "regularization") for path in layers.glob(f"{folder}/*_test.py")]
    assert {f"{path.parent.name}.{path.stem}" for path in paths} == {*KERAS_FILES, *KERAS_OTHER_FILES}
    assert KERAS_NOT_EXPRESSED.keys() <= KERAS_CASES.keys()


@pytest.mark.parametrize("name", sorted(KERAS_CASES))
def test_keras(name):
    result = unittest.TestResult()
    KERAS_CASES[name].run(result)
    said = "\n".join(text for _, text in result.errors + result.failures)
    if name in KERAS_NOT_EXPRESSED:
        assert said and not result.skipped, f"{name} passes: it is not to be listed"
    else:
        assert result.testsRun == 1 and not result.skipped and not said, said
