"""Whole networks: random ones beside ONNX's reference in float64 and beside ONNX Runtime itself, folded and unfolded; and digits."""

import csv
import pathlib

import normdrop
import numpy
import pytest
from graphs import FLOAT, batch_norm, model, node, operators, session, statistics
from onnx import TensorProto
from onnx.reference import ReferenceEvaluator

from normdrop_onnxruntime import monte_carlo, rewrite

U = 2.0**-24
TRAINING = {"training": numpy.array(True)}


def random_block(generator, channels, number, mean):
    """A batch norm far from 0, perhaps a residual, an activation: nodes, constants, and the scale of its roundings in float64."""
    of = statistics(channels, generator, f"{number}.")
    of[f"{number}.mean"] += numpy.float32(mean)
    residual = bool(generator.integers(2))
    activation = ["", "Relu", "LeakyRelu", "Sigmoid", "Tanh", "HardSwish", "Elu", "Selu", "Gelu", "Softplus", "Mish"][generator.integers(11)]
    names = iter(["bn", "sum"])
    nodes, value = [batch_norm("x", next(names), f"{number}.")], "bn"
    if residual:
        nodes.append(node("Add", "bn r", "sum"))
        value = "sum"
    nodes.append(node(activation or "Identity", value, "y"))
    return nodes, of, residual


@pytest.mark.parametrize("seed", range(40))
def test_a_block_is_within_the_bounds_of_the_reference_in_float64(seed):
    """The bounds of docs/bounds.md for evaluation: 4 u of |weight|*max(|xhat|, 1) + |bias|, two more with a residual, and the
    roundings of the activation."""
    generator = numpy.random.default_rng(seed)
    rank = generator.integers(0, 4)
    shape = [int(generator.integers(1, 9)), int(generator.integers(1, 30)), *(int(generator.integers(1, 12)) for _ in range(rank))]
    mean = 10.0 ** generator.integers(0, 5)
    nodes, of, residual = random_block(generator, shape[1], "0", mean)
    made = model(nodes, {"x": shape} | ({"r": shape} if residual else {}), {"y": shape}, of)
    result = rewrite(made)
    assert operators(result.model)[0] == "NormDrop" and result.left == []
    across = (slice(None),) + (None,) * rank
    x = (generator.standard_normal(shape) + of["0.mean"][across]).astype(numpy.float32)
    feed = {"x": x} | ({"r": generator.standard_normal(shape, dtype=numpy.float32)} if residual else {})
    found = session(result.model, threads=2).run(None, feed)[0]

    wide = {name: array.astype(numpy.float64) for name, array in of.items()}
    exact = model(nodes, {name: (TensorProto.DOUBLE, shape) for name in feed}, {"y": (TensorProto.DOUBLE, shape)}, wide)
    expected = ReferenceEvaluator(exact).run(None, {name: array.astype(numpy.float64) for name, array in feed.items()})[0]
    weight, bias, center, var = (wide[f"0.{name}"][across] for name in ("scale", "bias", "mean", "var"))
    xhat = (x - center) / numpy.sqrt(var + float(numpy.float32(1e-5)))
    scale = numpy.abs(weight) * numpy.maximum(numpy.abs(xhat), 1) + numpy.abs(bias) + numpy.abs(feed.get("r", 0))
    # No activation here has a slope above 1.76.
    allowed = ((6 if residual else 4) * 1.76 + 4) * U * numpy.maximum(scale, 1)
    assert (numpy.abs(found - expected) <= allowed).all()


def test_onnxruntime_itself_is_outside_these_bounds_far_from_zero():
    """x*a + b cancels: what the test before it checks is not what any implementation has."""
    generator = numpy.random.default_rng(1)
    of = statistics(4, generator)
    of["mean"] += numpy.float32(1e4)
    made = model([batch_norm(y="y")], {"x": [64, 4]}, {"y": [64, 4]}, of)
    x = (generator.standard_normal((64, 4)) + of["mean"]).astype(numpy.float32)
    exact = (x - of["mean"].astype(float)) / numpy.sqrt(of["var"].astype(float) + 1e-5) * of["scale"] + of["bias"]
    error = lambda made, **options: numpy.abs(session(made, **options).run(None, {"x": x})[0] - exact).max()
    ours, theirs = error(rewrite(made).model), error(made, ours=False)
    print(f"largest error with a mean of 1e4: NormDrop {ours:.1e}, ONNX Runtime {theirs:.1e}")
    assert ours < 2e-6 and theirs > 1e-4


def residual_network(generator, kind):
    """Convolutions with batch norm after them (folded by ONNX Runtime) or before them (not), residual sums, two heads."""
    array = lambda *shape: (generator.standard_normal(shape) / numpy.sqrt(numpy.prod(shape[1:]))).astype(numpy.float32)
    constants, nodes, value, channels = {}, [], "x", 3
    width = int(generator.integers(3, 20))
    activations = ["Relu", "LeakyRelu", "HardSwish", "Sigmoid", "Gelu", "Mish", "Elu"]
    for block in range(3):
        name = f"b{block}"
        activation = activations[generator.integers(len(activations))]
        constants[f"{name}.w"] = array(width, channels, 3, 3)
        conv = lambda source, target: node("Conv", f"{source} {name}.w", target, pads=[1, 1, 1, 1])
        constants |= statistics(width if kind == "after" else channels, generator, f"{name}.")
        if kind == "after":
            nodes += [conv(value, f"{name}.c"), batch_norm(f"{name}.c", f"{name}.n", f"{name}.")]
            last = f"{name}.n"
        else:
            nodes += [batch_norm(value, f"{name}.n", f"{name}."), node(activation, f"{name}.n", f"{name}.a"), conv(f"{name}.a", f"{name}.c")]
            last = f"{name}.c"
        if channels == width and generator.integers(2):
            nodes.append(node("Add", f"{last} {value}", f"{name}.s"))
            last = f"{name}.s"
        if kind == "after":
            nodes.append(node(activation, last, f"{name}.a"))
            last = f"{name}.a"
        value, channels = last, width
    constants |= {"w": array(width, 10), "b": array(10)} | statistics(width, generator, "h.")
    nodes += [batch_norm(value, "h.n", "h."), node("Relu", "h.n", "h.a"), node("GlobalAveragePool", "h.a", "pooled"), node("Flatten", "pooled", "flat"),
              node("Gemm", "flat w b", "logits"), node("Softmax", "logits", "y", axis=1)]  # fmt: skip
    return model(nodes, {"x": ["n", 3, 12, 12]}, {"y": ["n", 10]}, constants)


@pytest.mark.parametrize("kind", ["after", "before"])
@pytest.mark.parametrize("seed", range(6))
def test_networks_predict_what_onnxruntime_predicts_folded_and_unfolded(seed, kind):
    generator = numpy.random.default_rng(seed)
    made = residual_network(generator, kind)
    feed = {"x": generator.standard_normal((5, 3, 12, 12), dtype=numpy.float32)}
    unfolded = session(made, optimized=False, ours=False).run(None, feed)[0]
    folded = session(made, ours=False).run(None, feed)[0]
    for foldable in (False, True):
        result = rewrite(made, foldable=foldable)
        # What is left is what ONNX Runtime folds.
        assert len(result.left) == operators(result.model).count("BatchNormalization")
        assert all("folds it" in left.reason for left in result.left)
        assert (len(result.left) > 0) == (not foldable) or kind == "before"
        assert len(result.replaced) + len(result.left) == 4
        found = session(result.model, threads=2).run(None, feed)[0]
        for other in (folded, unfolded):
            assert (found.argmax(1) == other.argmax(1)).all()
            assert numpy.abs(found - other).max() <= 1e-6


# Digits.

HIDDEN, P, SAMPLES = (64, 48), 0.25, 797


def digits():
    """1,797 images of digits, 8 by 8, from 0 for paper to 1 for ink, in an order of this test."""
    path = pathlib.Path(__file__).parents[2] / "digits" / "digits.csv"
    with path.open() as file:
        rows = numpy.array(list(csv.reader(file)), numpy.float32)
    rows = rows[numpy.random.default_rng(0).permutation(len(rows))]
    return rows[:, :64] / 16, rows[:, 64].astype(int)


class Network:
    """Linear, batch norm, ReLU, dropout, twice, and a linear layer: trained by normdrop for numpy."""

    def __init__(self, generator):
        sizes = (64, *HIDDEN, 10)
        self.weights = [(generator.standard_normal((n, m)) * numpy.sqrt(2 / n)).astype(numpy.float32) for n, m in zip(sizes, sizes[1:])]
        self.bias = numpy.zeros(10, numpy.float32)
        self.norms = [dict(scale=numpy.ones(m, numpy.float32), bias=numpy.zeros(m, numpy.float32), mean=numpy.zeros(m, numpy.float32),
                           var=numpy.ones(m, numpy.float32)) for m in HIDDEN]  # fmt: skip

    def layer(self, rows, number):
        return normdrop.Layer("NC", (rows, HIDDEN[number]), "relu", p=P)

    def step(self, x, labels, step, rate=0.1):
        values, kept = [x], []
        for number, of in enumerate(self.norms):
            layer = self.layer(len(x), number)
            z = values[-1] @ self.weights[number]
            mask = layer.mask(normdrop.seed_for(1, number, step))
            y, saved = layer.train(z, weight=of["scale"], bias=of["bias"], running_mean=of["mean"], running_var=of["var"], mask=mask)
            kept.append((layer, z, saved, mask))
            values.append(y)
        probabilities = softmax(values[-1] @ self.weights[-1] + self.bias)
        grad = ((probabilities - numpy.eye(10, dtype=numpy.float32)[labels]) / numpy.float32(len(x))).astype(numpy.float32)
        self.bias -= numpy.float32(rate) * grad.sum(0)
        for number in (2, 1, 0):
            update = values[number].T @ grad
            grad = numpy.ascontiguousarray(grad @ self.weights[number].T)
            self.weights[number] -= numpy.float32(rate) * update
            if number:
                layer, z, saved, mask = kept[number - 1]
                of = self.norms[number - 1]
                gradients = layer.backward(grad, z, saved, weight=of["scale"], bias=of["bias"], mask=mask)
                of["scale"] -= numpy.float32(rate) * gradients.weight
                of["bias"] -= numpy.float32(rate) * gradients.bias
                grad = gradients.input

    def predict(self, x, seed=None, generator=None):
        """Without dropout, with the masks of a seed, or with those of a generator of numpy."""
        for number, of in enumerate(self.norms):
            layer = self.layer(len(x), number)
            mask = layer.mask(normdrop.seed_for(seed, number)) if seed is not None else None
            if generator is not None:
                mask = numpy.packbits(generator.random(len(x) * HIDDEN[number]) >= P, bitorder="little")
            x = layer.eval(x @ self.weights[number], of["mean"], of["var"], weight=of["scale"], bias=of["bias"], mask=mask)
        return softmax(x @ self.weights[-1] + self.bias)

    def folded(self, x):
        """With the batch norms folded into the linear layers before them, by the package for numpy."""
        for number, of in enumerate(self.norms):
            weights, bias = self.weights[number].copy(), numpy.zeros(HIDDEN[number], numpy.float32)
            normdrop.fold_into_previous(weights, bias, of["mean"], of["var"], layout="IO", weight=of["scale"], shift=of["bias"])
            x = numpy.maximum(x @ weights + bias, 0)
        return softmax(x @ self.weights[-1] + self.bias)

    def onnx(self, dropout):
        """As an exporter writes it: Gemm, BatchNormalization, Relu, Dropout."""
        constants = {f"w{number}": weights for number, weights in enumerate(self.weights)} | {"b": self.bias, "p": numpy.float32(P)}
        constants["on"] = numpy.array(dropout)
        nodes, value = [], "x"
        for number, of in enumerate(self.norms):
            constants |= {f"n{number}.{name}": array for name, array in of.items()}
            nodes += [node("Gemm", f"{value} w{number}", f"g{number}"), batch_norm(f"g{number}", f"z{number}", f"n{number}."),
                      node("Relu", f"z{number}", f"a{number}"), node("Dropout", f"a{number} p on", f"d{number}", seed=number)]  # fmt: skip
            value = f"d{number}"
        nodes += [node("Gemm", f"{value} w2 b", "logits"), node("Softmax", "logits", "y", axis=1)]
        return model(nodes, {"x": ["n", 64]}, {"y": ["n", 10]}, constants)


def softmax(logits):
    powers = numpy.exp(logits - logits.max(1, keepdims=True))
    return powers / powers.sum(1, keepdims=True)


@pytest.fixture(scope="module")
def trained():
    images, labels = digits()
    network, generator = Network(numpy.random.default_rng(3)), numpy.random.default_rng(4)
    step = 0
    for _ in range(12):
        order = generator.permutation(SAMPLES)
        for first in range(0, SAMPLES - 31, 32):
            some = order[first : first + 32]
            network.step(images[some], labels[some], step)
            step += 1
    unseen, answers = images[SAMPLES:], labels[SAMPLES:]
    accuracy = (network.predict(unseen).argmax(1) == answers).mean()
    assert accuracy > 0.93, f"the network has learnt nothing: {accuracy}"
    return network, unseen, answers


def test_digits_have_the_predictions_of_the_folded_network(trained):
    network, unseen, _ = trained
    made = network.onnx(dropout=False)
    result = rewrite(made)
    assert len(result.replaced) == 2
    found = session(result.model).run(None, {"x": unseen})[0]
    for other in (network.folded(unseen), network.predict(unseen), session(made, ours=False).run(None, {"x": unseen})[0]):
        assert (found.argmax(1) == other.argmax(1)).all()
        assert numpy.abs(found - other).max() <= 1e-6


def test_digits_with_monte_carlo_dropout_have_the_means_and_deviations_of_normdrop(trained):
    network, unseen, answers = trained
    result = rewrite(network.onnx(dropout=True))
    assert [(replaced.p, replaced.layer) for replaced in result.replaced] == [(P, 0), (P, 1)]
    of = session(result.model, threads=2)
    masks = 50
    [(mean, deviation)] = monte_carlo(of, {"x": unseen}, masks)
    answered = numpy.array([network.predict(unseen, seed) for seed in range(masks)], numpy.float64)
    assert numpy.abs(mean - answered.mean(0)).max() <= 1e-6
    assert numpy.abs(deviation - answered.std(0, ddof=1)).max() <= 1e-6
    # The same image in all rows of a batch has a mask of its own in every row.
    [(_, one)] = monte_carlo(of, {"x": unseen[:1].repeat(4, 0)}, 2)
    assert len({row.tobytes() for row in one}) == 4
    # Another root, other masks; the same root, the same bits.
    bits = lambda **options: monte_carlo(of, {"x": unseen[:9]}, 3, **options)[0].mean.tobytes()
    assert bits() == bits() != bits(first=3)
    # What it is for: wrong answers spread more than right ones.
    spread = numpy.sqrt((deviation**2).sum(1))
    right = mean.argmax(1) == answers
    print(f"{right.mean():.3f} right; spread {spread[right].mean():.3f} where right, {spread[~right].mean():.3f} where wrong")
    assert right.mean() > 0.93 and spread[~right].mean() > 1.5 * spread[right].mean()
    with pytest.raises(ValueError, match="masks must be at least 1"):
        monte_carlo(of, {"x": unseen}, 0)


def test_masks_of_numpys_generator_give_the_same_mean_within_the_errors(trained):
    """Over 200 masks of either. ONNX Runtime's own Dropout does not: the first elements of its masks follow each other from run to
    run (`findings/onnxruntime-dropout-repeats-its-first-elements.sh`)."""
    network, unseen, _ = trained
    few, masks, generator = unseen[:100], 200, numpy.random.default_rng(5)
    [(mean, deviation)] = monte_carlo(session(rewrite(network.onnx(dropout=True)).model), {"x": few}, masks)
    answered = numpy.array([network.predict(few, generator=generator) for _ in range(masks)], numpy.float64)
    error = numpy.sqrt((deviation**2 + answered.std(0, ddof=1) ** 2) / masks)
    distance = (mean - answered.mean(0)) / numpy.maximum(error, 1e-9)
    assert numpy.abs(distance).max() < 5 and 0.9 < numpy.sqrt((distance**2).mean()) < 1.1


def test_onnxruntime_removes_a_dropout_and_not_ours(trained):
    """Whatever training_mode says: why a graph for Monte-Carlo dropout is rewritten at all."""
    network, unseen, _ = trained
    made = network.onnx(dropout=True)
    theirs, ours = session(made, ours=False), session(rewrite(made).model)
    assert theirs.run(None, {"x": unseen})[0].tobytes() == theirs.run(None, {"x": unseen})[0].tobytes()
    run = lambda seed: ours.run(None, {"x": unseen, "seed": numpy.array(seed)})[0].tobytes()
    assert run(0) != run(1) and run(0) == run(0)


def test_a_deviation_of_values_far_from_0_is_exact():
    of = model([node("Cast", "seed", "s", to=FLOAT), node("Add", "s x", "y")], {"seed": (TensorProto.INT64, []), "x": [2]}, {"y": [2]})
    [(mean, deviation)] = monte_carlo(session(of), {"x": numpy.array([0, 1e6], numpy.float32)}, 5)
    assert mean.tolist() == [2, 1e6 + 2] and numpy.allclose(deviation, numpy.sqrt(2.5), rtol=1e-15)
    [(mean, deviation)] = monte_carlo(session(of), {"x": numpy.zeros(2, numpy.float32)}, 1, first=7)
    assert mean.tolist() == [7, 7] and deviation.tolist() == [0, 0]


