"""The operator has the bits of the package for numpy: for every number of threads, however the tensor is divided among them, and
with subnormal numbers flushed around it."""

import os
import subprocess
import sys
import threading

import normdrop
import numpy
import onnx
import pytest
from graphs import model, node, norm_drop, quiet, session, statistics
from onnx import TensorProto, helper

import normdrop_onnxruntime

LAYOUTS = {2: "NC", 3: "NCL", 4: "NCHW", 5: "NCDHW"}
SMALL = [(7, 5), (3, 40), (2, 3, 17), (2, 18, 5, 7), (2, 3, 4, 5, 3)]
# Divided by samples and by groups of channels, with a last part that is smaller.
LARGE = [(130, 20, 30, 31), (1, 71, 40, 90), (2, 33, 3000), (3, 1, 12, 60, 91), (5000, 50)]
P, EPS, SEED, LAYER = 0.25, 1e-3, 0xFEDCBA9876543210, 3


def data(shape):
    """Normal numbers; channel 0 of subnormal ones with results that are subnormal, channel 1 around 1e30."""
    generator = numpy.random.default_rng(sum(shape))
    x, residual = (generator.standard_normal(shape, dtype=numpy.float32) for _ in range(2))
    of = statistics(shape[1], generator)
    of["mean"][0], of["bias"][0], of["scale"][0], of["var"][0] = 0, 0, 1, 1
    x[:, 0] *= numpy.float32(3e-39)
    residual[:, 0] = 0
    if shape[1] > 1:
        x[:, 1] *= numpy.float32(1e30)
    return x, residual, of


def by_numpy(x, of, activation, residual=None, seed=None, p=P, alpha=None, granularity="element"):
    parameters = {} if alpha is None else dict(slope=alpha, alpha=alpha)
    layer = normdrop.Layer(LAYOUTS[x.ndim], x.shape, activation, p=float(numpy.float32(p)), eps=EPS, granularity=granularity, **parameters)
    mask = layer.mask(normdrop.seed_for(seed, LAYER)) if seed is not None else None
    return layer.eval(x, of["mean"], of["var"], weight=of["scale"], bias=of["bias"], mask=mask, residual=residual)


def number(seed):
    """The int64 with the bits of a seed."""
    return numpy.array(seed, numpy.uint64).view(numpy.int64)


def by_onnxruntime(x, of, activation, residual=None, seed=None, p=P, constant=True, threads=1, **attributes):
    made = norm_drop(list(x.shape), constants=of if constant else None, residual=residual is not None, seed=seed is not None, activation=activation,
                     epsilon=EPS, p=p, layer=LAYER, **attributes)  # fmt: skip
    feed = {"x": x} | ({} if constant else of)
    if residual is not None:
        feed["residual"] = residual
    if seed is not None:
        feed["seed"] = number(seed)
    return session(made, threads).run(None, feed)[0]


def same(one, other):
    return one.shape == other.shape and one.dtype == other.dtype and one.tobytes() == other.tobytes()


@pytest.mark.parametrize("activation", normdrop.ACTIVATIONS)
def test_bits_of_every_activation(activation):
    for shape in SMALL:
        x, residual, of = data(shape)
        for seed, other in ((None, None), (SEED, None), (None, residual), (7, residual)):
            expected = by_numpy(x, of, activation, other, seed)
            for constant in (True, False):
                assert same(by_onnxruntime(x, of, activation, other, seed, constant=constant), expected)
    if activation in ("leaky_relu", "elu"):
        assert same(by_onnxruntime(x, of, activation, alpha=0.75), by_numpy(x, of, activation, alpha=0.75))
        assert not same(by_onnxruntime(x, of, activation, alpha=0.75), by_numpy(x, of, activation))


@pytest.mark.parametrize("shape", LARGE)
def test_bits_with_any_number_of_threads(shape):
    x, residual, of = data(shape)
    for activation, granularity in (("relu", "element"), ("silu", "channel"), ("identity", "sample")):
        expected = by_numpy(x, of, activation, residual, SEED, granularity=granularity)
        for threads in (1, 2, 3, 8):
            for constant in (True, False):
                found = by_onnxruntime(x, of, activation, residual, SEED, constant=constant, threads=threads, granularity=granularity)
                assert same(found, expected), (activation, threads, constant)


def test_many_threads_may_share_a_session():
    x, _, of = data(LARGE[1])
    shared = session(norm_drop(list(x.shape), constants=of, seed=True, activation="relu", epsilon=EPS, p=P, layer=LAYER), threads=2)
    expected = [by_numpy(x, of, "relu", seed=seed) for seed in range(4)]
    wrong = []

    def run(seed):
        for _ in range(8):
            wrong.extend([seed] * (not same(shared.run(None, {"x": x, "seed": number(seed)})[0], expected[seed])))

    threads = [threading.Thread(target=run, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_in_place_and_the_input_as_its_own_residual():
    """Of three nodes in a row the last two may write over what they read; the first must not, because x is an input. A node whose
    residual is its input must not, either."""
    shape = [2, 6, 180, 80]
    x, _, of = data(tuple(shape))
    names = ["scale", "bias", "mean", "var"]
    nodes = [helper.make_node("NormDrop", [source, *names, *residual], [target], domain="normdrop", activation="tanh", epsilon=EPS)
             for source, target, residual in (("x", "a", []), ("a", "b", []), ("b", "c", ["b"]), ("c", "y", []))]  # fmt: skip
    made = norm_drop(shape, constants=of, activation="tanh")
    del made.graph.node[:]
    made.graph.node.extend(nodes)
    expected, before = x, x.copy()
    for residual in (False, False, True, False):
        expected = by_numpy(expected, of, "tanh", expected if residual else None)
    for threads in (1, 2):
        for _ in range(2):
            assert same(session(made, threads).run(None, {"x": x})[0], expected)
    assert same(x, before)


IN_A_ROW = """
import sys
import numpy, onnx
from graphs import session
of, x = session(onnx.load(sys.argv[1])), numpy.zeros([1, 64, 512, 512], numpy.float32)
peak = lambda: next(int(line.split()[1]) << 10 for line in open("/proc/self/status") if line.startswith("VmHWM:"))
before = peak()
of.run(None, {"x": x})
print((peak() - before) / x.nbytes)
"""


def test_nodes_in_a_row_take_no_memory_for_each_other(tmp_path):
    """One tensor for y, one for all between, which each node writes over; without that there would be two between."""
    made = norm_drop([1, 64, 512, 512], constants=statistics(64))
    del made.graph.node[:]
    values = ["x", *(f"v{index}" for index in range(5)), "y"]
    made.graph.node.extend(helper.make_node("NormDrop", [source, "scale", "bias", "mean", "var"], [target], domain="normdrop")
                           for source, target in zip(values, values[1:]))  # fmt: skip
    onnx.save(made, tmp_path / "model.onnx")
    tensors = float(in_a_process(IN_A_ROW, tmp_path / "model.onnx"))
    assert 1.8 < tensors < 2.5


def in_a_process(program, *arguments):
    """What a program prints that has these tests on its path."""
    environment = os.environ | {"PYTHONPATH": ":".join(path for path in sys.path if path)}
    return subprocess.run([sys.executable, "-P", "-c", program, *map(str, arguments)], check=True, env=environment, capture_output=True, text=True).stdout


FLUSHED = """
import sys
import numpy, onnx
from graphs import session
made, x, y = sys.argv[1:]
made = onnx.load(made)
half = lambda: float((numpy.full(64, 2e-40, numpy.float32) * numpy.float32(0.5))[0])
kept = half()
of = session(made, 2, session__set_denormal_as_zero="1")
assert kept > 0 and half() == 0, "the option does not flush on this thread: the test shows nothing"
numpy.save(y, of.run(None, {"x": numpy.load(x)})[0])
"""


@pytest.mark.parametrize("shape", [(2, 3, 17), LARGE[1]])
def test_bits_with_subnormals_set_to_zero(tmp_path, shape):
    """In a process of its own, because ONNX Runtime sets the thread that makes the session for good."""
    x, _, of = data(shape)
    onnx.save(norm_drop(list(shape), constants=of, activation="relu", epsilon=EPS), tmp_path / "model.onnx")
    numpy.save(tmp_path / "x.npy", x)
    in_a_process(FLUSHED, *(tmp_path / name for name in ("model.onnx", "x.npy", "y.npy")))
    expected = by_numpy(x, of, "relu")
    subnormal = numpy.abs(expected[:, 0])
    assert ((subnormal > 0) & (subnormal < numpy.finfo(numpy.float32).tiny)).any(), "no result is subnormal: the test shows nothing"
    assert same(numpy.load(tmp_path / "y.npy"), expected)


def test_what_the_seed_and_the_layer_do():
    """A mask is a pure function of both; without a seed nothing is dropped."""
    x = numpy.ones((64, 100), numpy.float32)
    of = {"scale": numpy.ones(100, numpy.float32), "bias": numpy.ones(100, numpy.float32), "mean": numpy.ones(100, numpy.float32),
          "var": numpy.ones(100, numpy.float32)}  # fmt: skip
    runs = {}
    for layer in (0, 1, -5):
        of_layer = session(norm_drop([64, 100], constants=of, seed=True, p=0.5, layer=layer))
        for seed in (0, 1, -1):
            runs[layer, seed] = of_layer.run(None, {"x": x, "seed": number(seed % 2**64)})[0]
            assert same(runs[layer, seed], of_layer.run(None, {"x": x, "seed": number(seed % 2**64)})[0])
            expected = normdrop.fill_mask(0.5, normdrop.seed_for(seed % 2**64, layer % 2**64), x.size)
            kept = numpy.unpackbits(expected, count=x.size, bitorder="little").reshape(x.shape)
            assert same(runs[layer, seed], kept.astype(numpy.float32) * 2)
    assert len({run.tobytes() for run in runs.values()}) == 9
    assert same(session(norm_drop([64, 100], constants=of, p=0.5)).run(None, {"x": x})[0], x)
    # One number in a vector is a seed, too, and p = 1 drops everything.
    made = norm_drop([64, 100], constants=of, seed=True, p=1.0)
    made.graph.input[-1].type.tensor_type.shape.dim.add().dim_value = 1
    assert same(session(made).run(None, {"x": x, "seed": number(3).reshape(1)})[0], 0 * x)


def test_empty_tensors_and_one_dimension():
    of = statistics(4)
    for shape in ((0, 4, 3), (2, 4, 0)):
        assert session(norm_drop(list(shape), constants=of)).run(None, {"x": numpy.zeros(shape, numpy.float32)})[0].shape == shape
    x, of = numpy.arange(5, dtype=numpy.float32), statistics(1)
    found = session(norm_drop([5], constants=of, epsilon=EPS)).run(None, {"x": x})[0]
    assert same(found, by_numpy(x.reshape(5, 1), of, "identity").reshape(5))


def refused(made, feed=None):
    """What ONNX Runtime says: of making the session, or of its first run."""
    with pytest.raises(Exception) as caught:
        of = session(made)
        assert feed is not None, "the session was made"
        of.run(None, feed)
    return str(caught.value)


@pytest.mark.parametrize("attributes, says", [
    (dict(activation="swoosh"), 'activation must not be "swoosh"'),
    (dict(activation=3), "the attribute activation must be a string"),
    (dict(epsilon=-1.0), "eps must be finite"),
    (dict(epsilon=float("nan")), "eps must be finite"),
    (dict(epsilon=1), "the attribute epsilon must be a float"),
    (dict(p=1.5), "p, the probability to drop, must be in [0, 1]"),
    (dict(p=float("nan")), "p, the probability to drop, must be in [0, 1]"),
    (dict(activation="relu", alpha=0.5), "alpha is for leaky_relu and elu, not for relu"),
    (dict(activation="elu", alpha=float("inf")), "alpha must be finite"),
    (dict(activation="leaky_relu", alpha=float("nan")), "the slope must be finite"),
    (dict(granularity="row"), 'granularity must be "element", "channel" or "sample" but is "row"'),
    (dict(layer=1.5), "the attribute layer must be an int"),
])  # fmt: skip
def test_attributes_that_are_refused(attributes, says):
    found = refused(norm_drop([2, 4], constants=statistics(4), **attributes))
    assert "normdrop: " in found and says in found and 'node "node"' in found


def test_statistics_that_are_refused():
    of = statistics(4)
    says = "scale, B, input_mean and input_var must have the same number of values, but have"
    assert f"{says} [3, 4, 4, 4]" in refused(norm_drop([2, 4], constants=of | {"scale": numpy.ones(3, numpy.float32)}))
    assert f"{says} [4, 5, 4, 4]" in refused(norm_drop([2, 4], constants=of | {"bias": numpy.ones(5, numpy.float32)}))
    assert "variance" in refused(norm_drop([2, 4], constants=of | {"var": -numpy.ones(4, numpy.float32)}))
    x = numpy.ones((2, 4), numpy.float32)
    # Of inputs, a run says it.
    made = norm_drop([2, 4])
    for value in made.graph.input:
        del value.type.tensor_type.shape.dim[:]
        value.type.tensor_type.ClearField("shape")
    assert "variance" in refused(made, {"x": x, **of, "var": -of["var"]})
    assert f"{says} [4, 4, 3, 4]" in refused(made, {"x": x, **of, "mean": of["mean"][:3]})
    assert "X has 3 channels in its dimensions [2, 3], but the statistics have 4" in refused(made, {"x": x[:, :3].copy(), **of})
    assert "X must have at least one dimension" in refused(made, {"x": numpy.array(1, numpy.float32), **of})


def test_inputs_that_are_refused():
    of, x = statistics(4), numpy.ones((2, 4, 3), numpy.float32)
    made = norm_drop(["n", 4, "l"], constants=of, residual=True, seed=True)
    for name in (1, 2):
        made.graph.input[name].type.tensor_type.ClearField("shape")
    run = lambda residual, seed: refused(made, {"x": x, "residual": residual, "seed": seed})
    zero = numpy.array(0)
    assert "residual must have the dimensions of X, [2, 4, 3], but has [1, 4, 3]" in run(x[:1], zero)
    assert "residual must have the dimensions of X, [2, 4, 3], but has [2, 3, 4]" in run(x.reshape(2, 3, 4), zero)
    assert "seed must be one number but has the dimensions [2]" in run(x, numpy.array([1, 2]))
    assert "seed must be one number but has the dimensions [0]" in run(x, numpy.array([], numpy.int64))
    # Types are ONNX Runtime's to refuse.
    assert "tensor(double)" in refused(model([node("Cast", "x", "w", to=TensorProto.DOUBLE), helper.make_node(
        "NormDrop", ["w", "scale", "bias", "mean", "var"], ["y"], domain="normdrop")], {"x": [2, 4, 3]}, {"y": [2, 4, 3]}, of, domains=["normdrop"]))
    assert "fewer inputs" in refused(unfinished(of)) or "input" in refused(unfinished(of))


def unfinished(of):
    """A node without its variance."""
    made = norm_drop([2, 4], constants=of)
    made.graph.node[0].input.pop()
    return made


def test_the_output_has_the_shape_of_the_input_where_onnxruntime_infers_it():
    made = norm_drop(["batch", 4, "height", 7], constants=statistics(4))
    made.graph.output[0].type.tensor_type.ClearField("shape")
    assert session(made).get_outputs()[0].shape == ["batch", 4, "height", 7]


def test_the_library_of_another_place(monkeypatch, tmp_path):
    monkeypatch.setenv("NORMDROP_ONNXRUNTIME_LIBRARY", str(tmp_path / "nothing.so"))
    with pytest.raises(FileNotFoundError, match="nothing.so is missing: install the package"):
        quiet(normdrop_onnxruntime.session_options())
