"""What the rewriter replaces, and what it must leave."""

import subprocess
import sys

import numpy
import onnx
import onnxruntime
import pytest
from graphs import FLOAT, batch_norm, model, node, operators, session, statistics
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from normdrop_onnxruntime import rewrite

C = 6
SHAPE = ["n", C, "h", 9]
X = {"x": SHAPE}
Y = {"y": SHAPE}
TRAINING = {"ratio": numpy.float32(0.25), "training": numpy.array(True)}


def made(*nodes, constants=None, inputs=X, outputs=Y, **options):
    return model(list(nodes), inputs, outputs, statistics(C) | (constants or {}), **options)


def rewritten(of, **options):
    """The rewritten model, which is checked; the old one must not have changed."""
    before = of.SerializeToString()
    result = rewrite(of, **options)
    assert of.SerializeToString() == before
    onnx.checker.check_model(result.model)
    assert str(result)
    return result


def the_same(of, result, feed=None):
    """The rewritten graph and the old one give the same results, but for roundings, in ONNX Runtime."""
    feed = feed or {"x": numpy.random.default_rng(1).standard_normal((2, C, 4, 9), dtype=numpy.float32)}
    for found, expected in zip(session(result.model).run(None, feed), session(of, optimized=False).run(None, feed), strict=True):
        numpy.testing.assert_allclose(found, expected, rtol=2e-6, atol=2e-6)


REPLACED = {
    "identity": [],
    "relu": [node("Relu", "bn", "y")],
    "sigmoid": [node("Sigmoid", "bn", "y")],
    "tanh": [node("Tanh", "bn", "y")],
    "hard_swish": [node("HardSwish", "bn", "y")],
    "mish": [node("Mish", "bn", "y")],
    "softplus": [node("Softplus", "bn", "y")],
    "leaky_relu": [node("LeakyRelu", "bn", "y")],
    "leaky_relu 0.3": [node("LeakyRelu", "bn", "y", alpha=0.3)],
    "elu": [node("Elu", "bn", "y")],
    "elu 0.4": [node("Elu", "bn", "y", alpha=0.4)],
    "selu": [node("Selu", "bn", "y")],
    "selu with constants": [node("Selu", "bn", "y", alpha=1.6732632423543772, gamma=1.0507009873554805)],
    "gelu": [node("Gelu", "bn", "y")],
    "gelu_tanh": [node("Gelu", "bn", "y", approximate="tanh")],
    "relu6": [node("Clip", "bn zero six", "y")],
    "silu": [node("Sigmoid", "bn", "gate"), node("Mul", "bn gate", "y")],
    "silu the other way": [node("Sigmoid", "bn", "gate"), node("Mul", "gate bn", "y")],
}
BOUNDS = {"zero": numpy.float32(0), "six": numpy.float32(6)}


@pytest.mark.parametrize("name", REPLACED)
def test_activations(name):
    nodes = REPLACED[name]
    of = made(batch_norm(y="bn" if nodes else "y"), *nodes, constants=BOUNDS if name == "relu6" else None)
    result = rewritten(of)
    [replaced], left = result.replaced, result.left
    assert (operators(result.model), left, replaced.activation) == (["NormDrop"], [], name.split()[0])
    assert replaced.nodes == ("BatchNormalization", *(node.op_type for node in nodes)) and replaced.layer is None
    the_same(of, result)
    # Against ONNX's own reference in float64: the constants of the functions are the same.
    wide = [tensor_in_float64(tensor) for tensor in of.graph.initializer]
    exact = onnx.ModelProto()
    exact.CopyFrom(of)
    del exact.graph.initializer[:]
    exact.graph.initializer.extend(wide)
    x = numpy.random.default_rng(2).standard_normal((3, C, 4, 9), dtype=numpy.float32)
    expected = ReferenceEvaluator(exact).run(None, {"x": x.astype(numpy.float64)})[0]
    assert expected.dtype == numpy.float64
    numpy.testing.assert_allclose(session(result.model).run(None, {"x": x})[0], expected, rtol=4e-7, atol=1e-6)


def tensor_in_float64(tensor):
    array = numpy_helper.to_array(tensor)
    return numpy_helper.from_array(array.astype(numpy.float64) if array.dtype == numpy.float32 else array, tensor.name)


def test_the_names_of_opset_24():
    of = made(batch_norm(), node("Swish", "bn", "y"), opset=24)
    assert rewritten(of).replaced[0].activation == "silu"
    [left] = rewritten(made(batch_norm(), node("Swish", "bn", "y", alpha=2.0), opset=24)).left
    assert "alpha is 2" in left.reason


@pytest.mark.parametrize("opset", [9, 11, 12, 13, 14, 15, 17, 20, 22])
def test_every_opset(opset):
    relu6 = node("Clip", "sum zero six", "y") if opset >= 11 else node("Clip", "sum", "y", min=0.0, max=6.0)
    of = made(batch_norm(), node("Add", "r bn", "sum"), relu6, inputs=X | {"r": SHAPE}, constants=BOUNDS if opset >= 11 else None, opset=opset)
    result = rewritten(of)
    assert operators(result.model) == ["NormDrop"]
    generator = numpy.random.default_rng(1)
    the_same(of, result, {name: generator.standard_normal((2, C, 4, 9), dtype=numpy.float32) for name in "xr"})


def test_an_opset_that_is_too_old():
    of = made(batch_norm(y="y"), opset=8)
    [left] = rewritten(of).left
    assert "opset 8" in left.reason


def test_everything_at_once():
    of = made(batch_norm(), node("Add", "bn r", "sum"), node("Relu", "sum", "z"), node("Dropout", "z ratio training", "y"),
              inputs=X | {"r": SHAPE}, constants=TRAINING)  # fmt: skip
    result = rewritten(of)
    [replaced] = result.replaced
    assert replaced.nodes == ("BatchNormalization", "Add", "Relu", "Dropout")
    assert (replaced.p, replaced.layer, replaced.name) == (0.25, 0, "BatchNormalization_bn/NormDrop")
    assert str(result) == "BatchNormalization_bn/NormDrop: BatchNormalization + Add + Relu + Dropout, p = 0.25, layer 0"
    # Nothing is left that nobody reads, and one input is new.
    assert {tensor.name for tensor in result.model.graph.initializer} == {"scale", "bias", "mean", "var"}
    seed = result.model.graph.input[-1]
    assert (seed.name, seed.type.tensor_type.elem_type, len(seed.type.tensor_type.shape.dim)) == ("seed", TensorProto.INT64, 0)
    assert {opset.domain: opset.version for opset in result.model.opset_import} == {"": 22, "normdrop": 1}
    # The elements that are kept are those of the graph without Dropout, divided by 3/4.
    generator = numpy.random.default_rng(1)
    feed = {name: generator.standard_normal((2, C, 40, 9), dtype=numpy.float32) for name in "xr"}
    plain = made(batch_norm(), node("Add", "bn r", "sum"), node("Relu", "sum", "y"), inputs=X | {"r": SHAPE})
    expected = session(plain).run(None, feed)[0]
    y = session(result.model).run(None, feed | {"seed": numpy.array(5)})[0]
    kept = (y != 0) & (expected > 0)
    numpy.testing.assert_allclose(y[kept], expected[kept] / 0.75, rtol=2e-6, atol=2e-6)
    assert abs((y != 0).sum() / (expected > 0).sum() - 0.75) < 0.03


def test_the_seed():
    nodes = batch_norm(), node("Dropout", "bn ratio training", "y", seed=3)
    x = numpy.ones((2, C, 4, 9), numpy.float32)
    run = lambda result, **feed: session(result.model).run(None, {"x": x} | feed)[0].tobytes()
    named = rewritten(made(*nodes, constants=TRAINING), seed="number")
    assert [value.name for value in named.model.graph.input] == ["x", "number"]
    runs = {seed: run(named, number=numpy.array(seed)) for seed in (0, 1, -1)}
    assert len(set(runs.values())) == 3
    for seed in (0, 1, -1, 2**64 - 1):
        fixed = rewritten(made(*nodes, constants=TRAINING), seed=seed)
        assert [value.name for value in fixed.model.graph.input] == ["x"]
        assert run(fixed) == run(fixed) == runs[-1 if seed == 2**64 - 1 else seed]
    # A run without the seed is refused, not one without dropout.
    with pytest.raises(Exception, match="number"):
        run(named)
    with pytest.raises(ValueError, match="'x' already"):
        rewrite(made(*nodes, constants=TRAINING), seed="x")
    for wrong in (None, 1.5, True):
        with pytest.raises(TypeError, match="seed must be"):
            rewrite(made(*nodes, constants=TRAINING), seed=wrong)
    for wrong in (2**64, -(2**63) - 1, ""):
        with pytest.raises(ValueError, match="seed must"):
            rewrite(made(*nodes, constants=TRAINING), seed=wrong)


def test_layers_have_numbers_of_their_own_and_share_the_seed():
    norm = lambda *names: batch_norm(*names)
    constants = {"off": numpy.array(False)} | TRAINING
    of = made(norm("x", "a"), node("Dropout", "a ratio training", "b"), norm("b", "c"), node("Dropout", "c ratio off", "d"), norm("d", "e"),
              node("Dropout", "e - training", "y"), constants=constants)  # fmt: skip
    result = rewritten(of)
    assert [(replaced.p, replaced.layer) for replaced in result.replaced] == [(0.25, 0), (0.0, None), (0.5, 2)]
    assert operators(result.model) == ["NormDrop", "NormDrop", "Dropout", "NormDrop"] and result.left == []
    assert [value.name for value in result.model.graph.input] == ["x", "seed"]


def test_constants_of_nodes():
    """Ratio, training_mode, bounds and statistics as nodes `Constant`, as some exporters write them."""
    constant = lambda name, array: node("Constant", "", name, value=numpy_helper.from_array(numpy.asarray(array)))
    of = model([constant(name, array) for name, array in (statistics(C) | TRAINING | BOUNDS).items()]
               + [batch_norm(), node("Clip", "bn zero six", "z"), node("Dropout", "z ratio training", "y")], X, Y)  # fmt: skip
    result = rewritten(of)
    assert result.replaced[0].nodes == ("BatchNormalization", "Clip", "Dropout")
    assert sum(node.op_type == "Constant" for node in result.model.graph.node) == 4
    of = model([node("Constant", "", "zero", value_float=0.0), node("Constant", "", "six", value_float=6.0), batch_norm(),
                node("Clip", "bn zero six", "y")], X, Y, statistics(C))  # fmt: skip
    assert rewritten(of).replaced[0].activation == "relu6"


def test_statistics_that_are_inputs_and_defaults_of_inputs():
    names = ("scale", "bias", "mean", "var")
    of = model([batch_norm(), node("Relu", "bn", "y")], X | {name: [C] for name in names}, Y)
    result = rewritten(of)
    assert operators(result.model) == ["NormDrop"]
    x = numpy.random.default_rng(1).standard_normal((2, C, 4, 9), dtype=numpy.float32)
    the_same(of, result, {"x": x} | statistics(C))
    # The same as defaults, which a run may replace; a ratio that a run may replace is none.
    of = model([batch_norm(), node("Dropout", "bn ratio training", "y")], X | {name: [C] for name in names} | {"ratio": []}, Y, statistics(C) | TRAINING)
    result = rewritten(of)
    assert operators(result.model) == ["NormDrop", "Dropout"] and "ratio is not a constant" in result.left[0].reason
    of = model([batch_norm(), node("Relu", "bn", "y")], X | {name: [C] for name in names}, Y, statistics(C))
    result = rewritten(of)
    the_same(of, result, {"x": x})
    the_same(of, result, {"x": x, "scale": numpy.full(C, 3, numpy.float32)})


# Each with the operators that must be there afterwards, and the reason that must be given for the node that is named.
PARTLY = {
    "the value before an activation is an output": (
        [batch_norm(), node("Relu", "bn", "y")], X, Y | {"bn": SHAPE}, {}, ["NormDrop", "Relu"], "Relu_y", "output of the graph"),
    "the value before an activation has two readers": (
        [batch_norm(), node("Relu", "bn", "z"), node("Add", "z bn", "y")], X, Y, {}, ["NormDrop", "Relu", "Add"], "Add_y", "others read 'bn', too"),
    "an activation twice": (
        [batch_norm(), node("Relu", "bn", "z"), node("Tanh", "z", "y")], X, Y, {}, ["NormDrop", "Tanh"], None, None),
    "the value before Dropout is an output": (
        [batch_norm(), node("Relu", "bn", "z"), node("Dropout", "z ratio training", "y")], X, Y | {"z": SHAPE}, TRAINING,
        ["NormDrop", "NormDrop"], None, None),
    "the mask is an output": (
        [batch_norm(), node("Dropout", "bn ratio training", "y mask")], X, Y | {"mask": (TensorProto.BOOL, SHAPE)}, TRAINING,
        ["NormDrop", "Dropout"], "Dropout_y", "mask is used"),
    "the mask is read": (
        [batch_norm(), node("Dropout", "bn ratio training", "z mask"), node("Cast", "mask", "m", to=FLOAT), node("Mul", "z m", "y")], X, Y, TRAINING,
        ["NormDrop", "Dropout", "Cast", "Mul"], "Dropout_z", "mask is used"),
    "training_mode is an input": (
        [batch_norm(), node("Dropout", "bn ratio training", "y")], X | {"training": (TensorProto.BOOL, [])}, Y, {"ratio": numpy.float32(0.5)},
        ["NormDrop", "Dropout"], "Dropout_y", "training_mode is not a constant"),
    "the ratio is an input": (
        [batch_norm(), node("Dropout", "bn ratio training", "y")], X | {"ratio": []}, Y, {"training": numpy.array(True)},
        ["NormDrop", "Dropout"], "Dropout_y", "ratio is not a constant"),
    "the ratio is 1": (
        [batch_norm(), node("Dropout", "bn ratio training", "y")], X, Y, TRAINING | {"ratio": numpy.float32(1)}, ["NormDrop", "Dropout"], "Dropout_y",
        "ratio is 1"),
    "the ratio rounds to 1": (
        [batch_norm(), node("Dropout", "bn ratio training", "y")], X, Y, TRAINING | {"ratio": numpy.float64(1 - 1e-12)}, ["NormDrop", "Dropout"],
        "Dropout_y", "ratio is 1"),
    "the ratio is no number": (
        [batch_norm(), node("Dropout", "bn ratio training", "y")], X, Y, TRAINING | {"ratio": numpy.float32("nan")}, ["NormDrop", "Dropout"],
        "Dropout_y", "ratio is nan"),
    "Dropout out of training mode": (
        [batch_norm(), node("Dropout", "bn ratio training", "y")], X, Y, TRAINING | {"training": numpy.array(False)}, ["NormDrop", "Dropout"], None, None),
    "Dropout without a mode": ([batch_norm(), node("Dropout", "bn", "y")], X, Y, {}, ["NormDrop", "Dropout"], None, None),
    "Dropout before the activation": (
        [batch_norm(), node("Dropout", "bn ratio training", "z"), node("Relu", "z", "y")], X, Y, TRAINING, ["NormDrop", "Relu"], None, None),
    "a residual of one channel": (
        [batch_norm(), node("Add", "bn r", "y")], X | {"r": ["n", 1, "h", 9]}, Y, {}, ["NormDrop", "Add"], "Add_y", "does not broadcast"),
    "a residual of one sample": (
        [batch_norm(), node("Add", "bn r", "y")], X | {"r": [C, "h", 9]}, Y, {}, ["NormDrop", "Add"], "Add_y", "does not broadcast"),
    "a residual of another name of a dimension": (
        [batch_norm(), node("Add", "bn r", "y")], X | {"r": ["m", C, "h", 9]}, {"y": [None, C, None, 9]}, {}, ["NormDrop", "Add"], "Add_y",
        "not known to be that"),
    "a residual of a constant": (
        [batch_norm(), node("Add", "bn r", "y")], X, Y, {"r": numpy.ones((1, C, 1, 9), numpy.float32)}, ["NormDrop", "Add"], "Add_y", "not known to be"),
    "twice itself": ([batch_norm(), node("Add", "bn bn", "y")], X, Y, {}, ["NormDrop", "Add"], "Add_y", "others read 'bn'"),
    "a clip to 1": (
        [batch_norm(), node("Clip", "bn zero six", "y")], X, Y, {"zero": numpy.float32(0), "six": numpy.float32(1)}, ["NormDrop", "Clip"], "Clip_y",
        "not a Clip from 0 to 6"),
    "a clip without an upper bound": (
        [batch_norm(), node("Clip", "bn zero", "y")], X, Y, {"zero": numpy.float32(0)}, ["NormDrop", "Clip"], "Clip_y", "not a Clip from 0 to 6"),
    "a clip to an input": (
        [batch_norm(), node("Clip", "bn zero six", "y")], X | {"six": []}, Y, {"zero": numpy.float32(0)}, ["NormDrop", "Clip"], "Clip_y", "constants"),
    "another Selu": (
        [batch_norm(), node("Selu", "bn", "y", alpha=1.5)], X, Y, {}, ["NormDrop", "Selu"], "Selu_y", "alpha is 1.5, and normdrop's is 1.67326319"),
    "an Elu of infinity": (
        [batch_norm(), node("Elu", "bn", "y", alpha=float("inf"))], X, Y, {}, ["NormDrop", "Elu"], "Elu_y", "alpha is inf"),
    "a gate that is read": (
        [batch_norm(), node("Sigmoid", "bn", "s"), node("Mul", "bn s", "m"), node("Add", "m s", "y")], X, Y, {},
        ["NormDrop", "Sigmoid", "Mul", "Add"], "Sigmoid_s", "others read 'bn'"),
    "a z * Sigmoid(z) whose z is read": (
        [batch_norm(), node("Sigmoid", "bn", "s"), node("Mul", "bn s", "m"), node("Add", "m x", "a"), node("Sub", "a bn", "y")], X, Y, {},
        ["NormDrop", "Sigmoid", "Mul", "Add", "Sub"], "Sigmoid_s", "others read 'bn'"),
    "a product with another gate": (
        [batch_norm(), node("Sigmoid", "x", "s"), node("Mul", "bn s", "y")], X, Y, {}, ["NormDrop", "Sigmoid", "Mul"], None, None),
    "another Gelu": (
        [batch_norm(), node("Gelu", "bn", "y", approximate="inf")], X, Y, {}, ["NormDrop", "Gelu"], "Gelu_y", "approximate is 'inf'"),
    "another operator": ([batch_norm(), node("Softsign", "bn", "y")], X, Y, {}, ["NormDrop", "Softsign"], None, None),
}  # fmt: skip


@pytest.mark.parametrize("case", PARTLY)
def test_what_follows_and_is_left(case):
    nodes, inputs, outputs, constants, expected, name, reason = PARTLY[case]
    of = made(*nodes, inputs=inputs, outputs=outputs, constants=constants)
    result = rewritten(of)
    assert operators(result.model) == expected
    found = {left.name: left.reason for left in result.left}
    assert set(found) == ({name} if name else set())
    if name:
        assert reason in found[name]
    if "training" not in constants and "training" not in inputs and "inf" not in case and case != "another Gelu":
        sizes = {"n": 2, "m": 2, "h": 4}
        generator = numpy.random.default_rng(1)
        draw = lambda shape: generator.standard_normal([sizes.get(dim, dim) for dim in shape]).astype(numpy.float32)
        the_same(of, result, {key: draw(shape) for key, shape in inputs.items()})


WHOLLY = {
    "training mode": ([batch_norm(y="y new_mean new_var", training_mode=1)], X, {}, "training_mode = 1"),
    "float64": ([batch_norm(y="y")], {"x": (TensorProto.DOUBLE, SHAPE)}, {}, "'x' is not float32"),
    "float16": ([batch_norm(y="y")], {"x": (TensorProto.FLOAT16, SHAPE)}, {}, "'x' is not float32"),
    "an infinite epsilon": ([batch_norm(y="y", epsilon=float("inf"))], X, {}, "epsilon is inf"),
    "a negative epsilon": ([batch_norm(y="y", epsilon=-0.5)], X, {}, "epsilon is -0.5"),
    "a negative variance": ([batch_norm(y="y")], X, {"var": -numpy.ones(C, numpy.float32)}, "a variance plus epsilon is not above 0"),
}


@pytest.mark.parametrize("case", WHOLLY)
def test_batch_norms_that_are_left(case):
    nodes, inputs, constants, reason = WHOLLY[case]
    element = inputs["x"][0] if isinstance(inputs["x"], tuple) else FLOAT
    of = model(nodes, inputs, {"y": (element, SHAPE)}, statistics(C) | constants)
    result = rewritten(of)
    assert result.model.SerializeToString() == of.SerializeToString()
    assert result.replaced == [] and [reason in left.reason for left in result.left] == [True]


def test_a_type_that_is_not_known():
    of = made(batch_norm(y="y"))
    foreign = helper.make_node("Something", ["x"], ["w"], domain="elsewhere")
    of.graph.node.insert(0, foreign)
    of.graph.node[1].input[0] = "w"
    of.opset_import.append(helper.make_opsetid("elsewhere", 1))
    [left] = rewrite(of).left
    assert "the type of 'w' is not known" in left.reason


def test_a_domain_of_others_is_not_onnx():
    """A BatchNormalization and a Relu of another domain are not ONNX's."""
    of = made(batch_norm(), node("Relu", "bn", "y"))
    of.opset_import.append(helper.make_opsetid("elsewhere", 1))
    for index, expected in ((1, ["NormDrop", "Relu"]), (0, ["BatchNormalization", "Relu"])):
        of.graph.node[index].domain = "elsewhere"
        assert operators(rewrite(of).model) == expected


def test_no_batch_norm():
    of = model([node("Relu", "x", "y")], X, Y)
    result = rewritten(of)
    assert result.model.SerializeToString() == of.SerializeToString() and str(result) == "nothing to replace"


def branch(nodes, output):
    return helper.make_graph(nodes, f"branch_{output}", [], [helper.make_tensor_value_info(output, FLOAT, SHAPE)])


def test_subgraphs():
    """A branch reads a value of the graph around it: it must stay. A batch norm in a branch is left."""
    inner = branch([batch_norm("x", "inner")], "inner")
    for inside, expected in (("bn", ["NormDrop", "Relu", "If"]), ("x", ["NormDrop", "If"])):
        other = branch([node("Tanh", inside, "other")], "other")
        of = made(batch_norm(), node("Relu", "bn", "z"), helper.make_node("If", ["flag"], ["w"], then_branch=inner, else_branch=other),
                  inputs=X | {"flag": (TensorProto.BOOL, [])}, outputs={"z": SHAPE, "w": SHAPE})  # fmt: skip
        result = rewritten(of)
        assert operators(result.model) == expected
        assert ("inner", "BatchNormalization", "it is in a subgraph") in [(left.name.split("_")[-1], left.operator, left.reason) for left in result.left]
        x = numpy.random.default_rng(1).standard_normal((2, C, 4, 9), dtype=numpy.float32)
        for flag in (True, False):
            the_same(of, result, {"x": x, "flag": numpy.array(flag)})


def test_a_dropout_without_a_batch_norm():
    """Kept elements are those of the graph without Dropout, divided by the keep probability, to the bit."""
    for shape, sizes in (([4], (4,)), (["n", 5], (3, 5)), (["n", 3, "l"], (2, 3, 400)), ([2, 3, 4, 5], (2, 3, 4, 5))):
        of = model([node("MaxPool", "x", "z", kernel_shape=[1] * (len(shape) - 2)) if len(shape) > 2 else node("Relu", "x", "z"),
                    node("Dropout", "z ratio training", "y"), node("Dropout", "y ratio training", "w")], {"x": shape}, {"y": shape, "w": shape}, TRAINING)  # fmt: skip
        result = rewritten(of)
        assert [(replaced.nodes, replaced.p, replaced.layer) for replaced in result.replaced] == [(("Dropout",), 0.25, 0), (("Dropout",), 0.25, 1)]
        assert len(result.model.graph.initializer) == 2 and result.left == []
        x = numpy.random.default_rng(1).standard_normal(sizes, dtype=numpy.float32)
        x[..., 0] = [3e-39, 1e30, numpy.inf, -2e38][len(shape) - 1]
        y, w = session(result.model).run(None, {"x": x, "seed": numpy.array(3)})
        z = x if len(shape) > 2 else numpy.maximum(x, 0)
        assert ((y == z * numpy.float32(4 / 3)) | (y == 0)).all()
        if x.size > 1000:
            assert abs((y == 0).mean() - 0.25) < 0.05 and abs((w == 0).mean() - 7 / 16) < 0.05
    of = model([node("Relu", "x", "z"), node("Dropout", "z ratio training", "y")], {"x": ["n", "c"]}, {"y": ["n", "c"]}, TRAINING)
    [left] = rewritten(of).left
    assert "dimension 1 of 'z' is not known" in left.reason and "EliminateDropout" in left.reason
    of = model([node("Dropout", "x ratio training", "y")], {"x": (TensorProto.DOUBLE, [2, 3])}, {"y": (TensorProto.DOUBLE, [2, 3])},
               TRAINING | {"ratio": numpy.float64(0.5)})  # fmt: skip
    assert "not float32" in rewritten(of).left[0].reason


def test_functions_are_inlined():
    of = made(batch_norm(), node("Relu", "bn", "y"))
    function = helper.make_function("blocks", "Block", ["x", "scale", "bias", "mean", "var"], ["y"], list(of.graph.node), [helper.make_opsetid("", 22)])
    call = helper.make_node("Block", ["x", "scale", "bias", "mean", "var"], ["y"], domain="blocks")
    del of.graph.node[:]
    of.graph.node.append(call)
    of.functions.append(function)
    of.opset_import.append(helper.make_opsetid("blocks", 1))
    result = rewritten(of)
    assert operators(result.model) == ["NormDrop"] and len(of.functions) == 1
    the_same(of, result)


def test_a_residual_that_is_computed_after_the_batch_norm():
    """The new node stands where Add stood: the residual has to be there before."""
    of = made(batch_norm(), node("Tanh", "x", "r"), node("Add", "bn r", "sum"), node("Relu", "sum", "y"))
    result = rewritten(of)
    assert operators(result.model) == ["Tanh", "NormDrop"]
    the_same(of, result)


def test_two_batch_norms_that_are_added():
    """One of them takes the other one as its residual."""
    of = made(batch_norm("x", "a"), batch_norm("r", "b"), node("Add", "a b", "sum"), node("Relu", "sum", "y"), inputs=X | {"r": SHAPE})
    result = rewritten(of)
    assert operators(result.model) == ["NormDrop", "NormDrop"]
    assert [replaced.nodes for replaced in result.replaced] == [("BatchNormalization", "Add", "Relu"), ("BatchNormalization",)]
    generator = numpy.random.default_rng(1)
    the_same(of, result, {name: generator.standard_normal((2, C, 4, 9), dtype=numpy.float32) for name in "xr"})


def test_names_that_are_taken():
    of = made(batch_norm(), node("Relu", "bn", "y"))
    of.graph.node[1].name = "BatchNormalization_bn/NormDrop"
    of.graph.node[0].name = "BatchNormalization_bn"
    of.graph.output.add().CopyFrom(helper.make_tensor_value_info("bn", FLOAT, SHAPE))
    assert [node.name for node in rewritten(of).model.graph.node] == ["BatchNormalization_bn/NormDrop_1", "BatchNormalization_bn/NormDrop"]


def layers():
    """Each layer before a batch norm, with whether ONNX Runtime 1.32 folds the batch norm into it."""
    generator = numpy.random.default_rng(1)
    array = lambda *shape: generator.standard_normal(shape).astype(numpy.float32)
    image, row = ([2, 4, 9, 9], [2, C, 9, 9]), ([8, 4], [8, C])
    yield "Conv", node("Conv", "x w", "l", pads=[1, 1, 1, 1]), image, {"w": array(C, 4, 3, 3)}, True
    yield "Conv with a bias", node("Conv", "x w b", "l", pads=[1, 1, 1, 1]), image, {"w": array(C, 4, 3, 3), "b": array(C)}, True
    yield "ConvTranspose", node("ConvTranspose", "x w", "l", pads=[1, 1, 1, 1]), image, {"w": array(4, C, 3, 3)}, True
    yield "MatMul", node("MatMul", "x w", "l"), row, {"w": array(4, C)}, True
    yield "MatMul of more", node("MatMul", "x w", "l"), ([2, C, 9, 4], image[1]), {"w": array(4, 9)}, False
    yield "Gemm", node("Gemm", "x w b", "l"), row, {"w": array(4, C), "b": array(C)}, False
    yield "Relu", node("Relu", "x", "l"), (row[1], row[1]), {}, False


@pytest.mark.parametrize("name, before, shapes, constants, folded", list(layers()))
def test_what_onnxruntime_folds_is_left(tmp_path, name, before, shapes, constants, folded):
    of = model([before, batch_norm("l"), node("Relu", "bn", "y")], {"x": shapes[0]}, {"y": shapes[1]}, statistics(C) | constants)
    # What ONNX Runtime makes of it.
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "optimized.onnx")
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    onnxruntime.InferenceSession(of.SerializeToString(), options, providers=["CPUExecutionProvider"])
    assert ("BatchNormalization" not in operators(onnx.load(tmp_path / "optimized.onnx"))) == folded
    result = rewritten(of)
    assert ("BatchNormalization" in operators(result.model)) == folded
    if folded:
        assert "folds it into the" in result.left[0].reason
    everything = rewritten(of, foldable=True)
    assert operators(everything.model) == [before.op_type, "NormDrop"] and everything.left == []
    x = {"x": numpy.random.default_rng(2).standard_normal(shapes[0], dtype=numpy.float32)}
    for one in (result, everything):
        the_same(of, one, x)
    # With Dropout there is something to win, and with statistics of the run nothing is folded.
    dropped = model([before, batch_norm("l"), node("Dropout", "bn ratio training", "y")], {"x": shapes[0]}, {"y": shapes[1]},
                    statistics(C) | constants | TRAINING)  # fmt: skip
    assert operators(rewritten(dropped).model) == [before.op_type, "NormDrop"]
    given = model(list(of.graph.node), {"x": shapes[0], "mean": [C]}, {"y": shapes[1]}, statistics(C) | constants)
    assert operators(rewritten(given).model) == [before.op_type, "NormDrop"]


def test_a_layer_whose_output_others_read_is_not_folded(tmp_path):
    """ONNX Runtime does not fold, so the batch norm is replaced."""
    array = numpy.random.default_rng(1).standard_normal((C, 4, 3, 3)).astype(numpy.float32)
    nodes = [node("Conv", "x w", "l"), batch_norm("l"), node("Relu", "bn", "y")]
    shape = [2, C, 7, 7]
    for more, outputs in (([], {"y": shape, "l": shape}), ([node("Tanh", "l", "t")], {"y": shape, "t": shape})):
        of = model(nodes + more, {"x": [2, 4, 9, 9]}, outputs, statistics(C) | {"w": array})
        options = onnxruntime.SessionOptions()
        options.optimized_model_filepath = str(tmp_path / "optimized.onnx")
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
        onnxruntime.InferenceSession(of.SerializeToString(), options, providers=["CPUExecutionProvider"])
        assert "BatchNormalization" in operators(onnx.load(tmp_path / "optimized.onnx"))
        result = rewritten(of)
        assert operators(result.model) == ["Conv", "NormDrop", *(node.op_type for node in more)] and result.left == []


def test_constants_in_another_file(tmp_path):
    """Statistics that are not loaded are not looked at. A ratio that is not loaded is not known."""
    of = made(batch_norm(), node("Relu", "bn", "z"), node("Dropout", "z ratio training", "y"), constants=TRAINING)
    onnx.save(of, tmp_path / "model.onnx", save_as_external_data=True, size_threshold=0)
    bare = onnx.load(tmp_path / "model.onnx", load_external_data=False)
    assert all(tensor.data_location == TensorProto.EXTERNAL for tensor in bare.graph.initializer)
    result = rewrite(bare)
    assert operators(result.model) == ["NormDrop", "Dropout"] and "training_mode is not a constant" in result.left[0].reason
    assert operators(rewrite(onnx.load(tmp_path / "model.onnx")).model) == ["NormDrop"]


def test_what_is_known_of_values_that_are_gone_goes_too():
    of = onnx.shape_inference.infer_shapes(made(batch_norm(), node("Relu", "bn", "z"), node("Softsign", "z", "y")))
    assert {value.name for value in of.graph.value_info} == {"bn", "z"}
    result = rewritten(of)
    assert [value.name for value in result.model.graph.value_info] == ["z"]


def test_the_command(tmp_path):
    of = made(batch_norm(), node("Dropout", "bn ratio training", "y"), constants=TRAINING)
    onnx.save(of, tmp_path / "in.onnx")
    command = [sys.executable, "-P", "-m", "normdrop_onnxruntime", str(tmp_path / "in.onnx"), str(tmp_path / "out.onnx")]
    for options, seed in (([], "seed"), (["--seed", "number"], "number"), (["--seed", "5"], 5)):
        printed = subprocess.run([*command, *options], check=True, capture_output=True, text=True).stdout
        expected = rewrite(of, seed=seed)
        assert printed == f"{expected}\n"
        assert onnx.load(tmp_path / "out.onnx").SerializeToString() == expected.model.SerializeToString()
