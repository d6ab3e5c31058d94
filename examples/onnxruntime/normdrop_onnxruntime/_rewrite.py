"""The rewriter of graphs."""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Optional, Union

import numpy
import onnx
import onnx.inliner
from onnx import AttributeProto, GraphProto, ModelProto, NodeProto, TensorProto, helper, numpy_helper

DOMAIN = "normdrop"
OPERATOR = "NormDrop"
VERSION = 1

# The operators of ONNX without attributes that are the function of this name, from any opset on.
PLAIN = {
    "Relu": "relu", "Sigmoid": "sigmoid", "Tanh": "tanh", "HardSwish": "hard_swish", "Mish": "mish", "Softplus": "softplus",
}  # fmt: skip
# normdrop's constants, as f32: those of the documentation of Selu-6 and Selu-22.
SELU = {"alpha": 1.67326319217681884765625, "gamma": 1.05070102214813232421875}
# What ONNX Runtime folds a batch norm into, if the weights are constants. Gemm is not among them: seen with 1.32 for every opset.
FOLDING = {"Conv", "ConvTranspose", "MatMul"}

REMOVED = "ONNX Runtime removes a Dropout inside an optimized graph, unless a session has disabled_optimizers=['EliminateDropout']"

Activation = tuple[str, Optional[float]]


@dataclass(frozen=True)
class Replaced:
    """A node `NormDrop`, and what it stands for."""

    name: str
    """The name of the new node."""
    nodes: tuple[str, ...]
    """The operators that it replaces, in their order, such as `("BatchNormalization", "Add", "Relu", "Dropout")`."""
    activation: str
    p: float
    """The probability to drop, 0 without Dropout."""
    layer: Optional[int]
    """The number of the layer that goes into its seeds; None without Dropout."""

    def __str__(self) -> str:
        dropout = "" if self.layer is None else f", p = {self.p:g}, layer {self.layer}"
        return f"{self.name}: {' + '.join(self.nodes)}{dropout}"


@dataclass(frozen=True)
class Left:
    """A node that was left as it was, or that ended what a `NormDrop` stands for."""

    name: str
    """The name of the node or, if it has none, of its first output."""
    operator: str
    reason: str

    def __str__(self) -> str:
        return f"{self.name} ({self.operator}): left, because {self.reason}"


@dataclass(frozen=True)
class Rewritten:
    """What `rewrite` returns. As text it is a line for each node that was replaced or left."""

    model: ModelProto
    replaced: list[Replaced] = field(default_factory=list)
    left: list[Left] = field(default_factory=list)

    def __str__(self) -> str:
        return "\n".join(map(str, [*self.replaced, *self.left])) or "nothing to replace"


def rewrite(model: ModelProto, *, seed: Union[str, int] = "seed", foldable: bool = False) -> Rewritten:
    """Replaces BatchNormalization and what follows it by the operator `NormDrop`; `model` itself is not changed.

    After BatchNormalization may follow, each at most once and in this order: Add of a residual of the same shape; an activation
    (Relu, LeakyRelu, Sigmoid, Tanh, HardSwish, Elu, Selu, Gelu, Softplus, Mish, Swish, Clip from 0 to 6, and z * Sigmoid(z));
    Dropout whose `training_mode` is the constant true. Such a Dropout is replaced without a batch norm before it, too, if the number
    of its channels (dimension 1) is known. What cannot be replaced is left as it was: `Rewritten.left` says why.

    seed
        The name of the graph input that is added for the masks if there is a Dropout: an int64 without dimensions, which every
        run must be given. Or a number: then every run has the same masks.
    foldable
        Whether to replace also what needs no operator at all: a batch norm without Dropout directly behind a Conv,
        ConvTranspose or MatMul of matrices whose weights are constants. ONNX Runtime folds it into these weights.

    The functions of the model are inlined. Subgraphs (the branches of If, the bodies of Loop and Scan) are left as they are.
    """
    if isinstance(seed, bool) or not isinstance(seed, (str, int)):
        raise TypeError(f"seed must be the name of an input or an integer, not {type(seed).__name__}")
    if isinstance(seed, int) and not -(2**63) <= seed < 2**64:
        raise ValueError(f"seed must be at least -2**63 and below 2**64, not {seed}")
    if seed == "":
        raise ValueError("seed must not be an empty name")
    if model.functions:
        model = onnx.inliner.inline_local_functions(model)
    else:
        copy = ModelProto()
        copy.CopyFrom(model)
        model = copy
    return _Rewriter(model, seed, foldable).rewrite()


class _Rewriter:
    """One graph."""

    def __init__(self, model: ModelProto, seed: Union[str, int], foldable: bool) -> None:
        self.model, self.graph, self.seed, self.foldable = model, model.graph, seed, foldable
        self.opset = next((opset.version for opset in model.opset_import if opset.domain in ("", "ai.onnx")), 0)
        inferred = onnx.shape_inference.infer_shapes(model).graph
        self.types = {value.name: value.type.tensor_type for value in [*inferred.value_info, *inferred.input, *inferred.output]
                      if value.type.HasField("tensor_type")}
        given = {value.name for value in self.graph.input}
        # An initializer that is an input, too, is a default that a run may replace.
        self.constants = {tensor.name: tensor for tensor in self.graph.initializer if tensor.name not in given}
        self.initializers = {tensor.name: tensor for tensor in self.graph.initializer}
        self.producers: dict[str, NodeProto] = {}
        self.consumers: dict[str, list[tuple[NodeProto, int]]] = {}
        # What a subgraph reads, and what the graph returns, must stay.
        self.needed = {value.name for value in self.graph.output}
        for node in self.graph.node:
            if node.op_type == "Constant" and _standard(node):
                tensor = _constant(node)
                if tensor is not None:
                    self.constants[node.output[0]] = tensor
            for name in node.output:
                self.producers[name] = node
            for index, name in enumerate(node.input):
                self.consumers.setdefault(name, []).append((node, index))
            for subgraph in _subgraphs(node):
                self.needed.update(_names(subgraph))
        self.taken = set(self.producers) | given | set(self.initializers) | self.needed | {node.name for node in self.graph.node}
        self.places = {id(node): place for place, node in enumerate(self.graph.node)}
        self.made: dict[tuple[int, int], str] = {}
        self.replaced: list[Replaced] = []
        self.left: list[Left] = []

    def rewrite(self) -> Rewritten:
        gone: set[int] = set()
        new: dict[int, NodeProto] = {}
        # Dropout layers are numbered in the order of the graph, those that are left included: the number of one does not depend on others.
        numbers: dict[int, int] = {}
        for node in self.graph.node:
            if _is(node, "Dropout"):
                numbers[id(node)] = len(numbers)
        for node in self.graph.node:
            for subgraph in _subgraphs(node):
                for inner in _all_nodes(subgraph):
                    if _is(inner, "BatchNormalization"):
                        self.leave(inner, "it is in a subgraph")
                    elif _is(inner, "Dropout") and len(inner.input) > 2 and inner.input[2]:
                        self.leave(inner, "it is in a subgraph")
            if not _is(node, "BatchNormalization"):
                continue
            reason = self.refusal(node)
            if reason is not None:
                self.leave(node, reason)
                continue
            chain = _Chain(node)
            notes = self.extend(chain, gone)
            if not self.foldable and chain.dropout is None and self.is_folded(node):
                self.leave(node, f"ONNX Runtime folds it into the {self.producers[node.input[0]].op_type} before it; foldable=True replaces it all the same")
                continue
            self.left += notes
            gone.update(map(id, chain.nodes))
            new[self.places[id(chain.nodes[-1])]] = self.fused(chain, numbers)
        for node in self.graph.node:
            if _is(node, "Dropout") and id(node) not in gone and self.may_drop(node):
                lone = self.lone(node)
                if isinstance(lone, str):
                    self.leave(node, f"{lone}; {REMOVED}")
                else:
                    gone.add(id(node))
                    new[self.places[id(node)]] = self.fused(lone, numbers)
        if not new:
            return Rewritten(self.model, self.replaced, self.left)
        nodes = [new.get(place, None if id(node) in gone else node) for place, node in enumerate(self.graph.node)]
        kept = [node for node in nodes if node is not None]
        if any(node.layer is not None for node in self.replaced):
            self.add_seed()
        self.replace_nodes(kept)
        return Rewritten(self.model, self.replaced, self.left)

    def leave(self, node: NodeProto, reason: str) -> None:
        self.left.append(_left(node, reason))

    # BatchNormalization

    def refusal(self, node: NodeProto) -> Optional[str]:
        """Why this batch norm cannot be replaced."""
        if self.opset < 9:
            return f"the model has opset {self.opset}, and NormDrop replaces opset 9 and later"
        if _attribute(node, "training_mode", 0) != 0:
            return "it has training_mode = 1: it normalises with the statistics of the batch"
        if any(node.output[1:]):
            return "it has outputs for statistics: it is in training mode"
        unknown = [name for name in node.input[:5] if self.element(name) is None]
        if unknown:
            return f"the type of {unknown[0]!r} is not known"
        other = [name for name in node.input[:5] if self.element(name) != TensorProto.FLOAT]
        if other:
            return f"{other[0]!r} is not float32"
        epsilon = _attribute(node, "epsilon", 1e-5)
        if not (math.isfinite(epsilon) and epsilon >= 0):
            return f"epsilon is {epsilon:g}"
        variance = self.array(node.input[4])
        if variance is not None and (variance + numpy.float64(epsilon) <= 0).any():
            return "a variance plus epsilon is not above 0, which has no square root or no inverse"
        return None

    def is_folded(self, node: NodeProto) -> bool:
        """Whether ONNX Runtime folds this batch norm into the layer before it."""
        before = self.producers.get(node.input[0])
        if before is not None and before.op_type == "MatMul" and len(self.shape(node.input[0]) or []) != 2:
            return False
        return (before is not None and _standard(before) and before.op_type in FOLDING and node.input[0] not in self.needed
                and len(self.consumers[node.input[0]]) == 1 and all(name in self.constants for name in node.input[1:5])
                and all(name in self.constants for name in before.input[1:] if name))

    # What follows

    def extend(self, chain: _Chain, gone: set[int]) -> list[Left]:
        """Adds to the chain what follows it. What ends it, although it looks as if it belonged to it, is returned."""
        for step in (self.add, self.activation):
            note = step(chain, gone)
            if note is not None:
                return [note]
        self.dropout(chain, gone)
        return []

    def next(self, chain: _Chain, operators: tuple[str, ...], gone: set[int]) -> tuple[Optional[NodeProto], str]:
        """The node of one of these operators that reads the value of the chain, and why it cannot be taken, or ""."""
        readers = [node for node, _ in self.consumers.get(chain.value, [])]
        node = next((node for node in readers if _is(node, *operators) and id(node) not in gone), None)
        if chain.value in self.needed:
            return node, f"{chain.value!r} is an output of the graph, or a subgraph reads it"
        return node, f"others read {chain.value!r}, too" if len(readers) > 1 else ""

    def add(self, chain: _Chain, gone: set[int]) -> Optional[Left]:
        node, reason = self.next(chain, ("Add",), gone)
        if node is None:
            return None
        if not reason:
            [other] = [name for name in node.input if name != chain.value]
            # Its type is that of the batch norm: Add has one type.
            if not self.same_shape(chain.nodes[0].input[0], other):
                reason = f"the shape of {other!r} is not known to be that of {chain.value!r}, and NormDrop does not broadcast"
        if reason:
            return _left(node, reason)
        chain.residual = other
        chain.take(node)
        return None

    def activation(self, chain: _Chain, gone: set[int]) -> Optional[Left]:
        silu = self.silu(chain.value)
        if silu is not None:
            chain.activation = ("silu", None)
            for part in silu:
                chain.take(part)
            return None
        node, reason = self.next(chain, (*PLAIN, "LeakyRelu", "Elu", "Selu", "Gelu", "Swish", "Clip"), gone)
        if node is None:
            return None
        found = self.named(node)
        if reason or isinstance(found, str):
            return _left(node, reason or str(found))
        chain.activation = found
        chain.take(node)
        return None

    def silu(self, value: str) -> Optional[tuple[NodeProto, NodeProto]]:
        """z * Sigmoid(z), where nobody else reads z and Sigmoid(z)."""
        readers = self.consumers.get(value, [])
        sigmoid = next((node for node, _ in readers if _is(node, "Sigmoid")), None)
        product = next((node for node, _ in readers if _is(node, "Mul")), None)
        if sigmoid is None or product is None or len(readers) != 2 or value in self.needed:
            return None
        gate = sigmoid.output[0]
        if gate in self.needed or len(self.consumers.get(gate, [])) != 1 or set(product.input) != {value, gate}:
            return None
        return sigmoid, product

    def named(self, node: NodeProto) -> Union[Activation, str]:
        """normdrop's name of an activation; or why it has none."""
        operator = node.op_type
        if operator in PLAIN:
            return PLAIN[operator], None
        if operator in ("LeakyRelu", "Elu"):
            alpha = _attribute(node, "alpha", 0.01 if operator == "LeakyRelu" else 1.0)
            name = "leaky_relu" if operator == "LeakyRelu" else "elu"
            return (name, alpha) if math.isfinite(alpha) else f"alpha is {alpha:g}"
        if operator == "Selu":
            for name, expected in SELU.items():
                value = _attribute(node, name, expected)
                if numpy.float32(value) != numpy.float32(expected):
                    return f"{name} is {value:.9g}, and normdrop's is {expected:.9g}"
            return "selu", None
        if operator == "Gelu":
            names = {"none": "gelu", "tanh": "gelu_tanh"}
            approximate = _attribute(node, "approximate", "none")
            return (names[approximate], None) if approximate in names else f"approximate is {approximate!r}"
        if operator == "Swish":
            alpha = _attribute(node, "alpha", 1.0)
            return ("silu", None) if alpha == 1 else f"alpha is {alpha:g}, and normdrop's silu has 1"
        bounds = self.bounds(node)
        if bounds == (0.0, 6.0):
            return "relu6", None
        return "it is not a Clip from 0 to 6 that are constants"

    def bounds(self, node: NodeProto) -> Optional[tuple[float, float]]:
        """The constant bounds of a Clip: attributes before opset 11, inputs since."""
        if self.opset < 11:
            return _attribute(node, "min", -math.inf), _attribute(node, "max", math.inf)
        values = [self.number(name) for name in node.input[1:3]]
        return (values[0], values[1]) if len(values) == 2 and values[0] is not None and values[1] is not None else None

    def dropout(self, chain: _Chain, gone: set[int]) -> None:
        node, reason = self.next(chain, ("Dropout",), gone)
        # Another Dropout is dealt with at its own place.
        if node is not None and not reason and self.may_drop(node):
            ratio = self.ratio(node)
            if not isinstance(ratio, str):
                chain.dropout = (node, ratio)
                chain.take(node)

    def ratio(self, node: NodeProto) -> Union[float, str]:
        """The probability to drop of a Dropout in training mode, or why it cannot be replaced."""
        if self.number(node.input[2]) is None:
            return "training_mode is not a constant"
        # 0.5 is ONNX's default. ONNX Runtime rounds to float32, too.
        ratio = self.number(node.input[1]) if node.input[1] else 0.5
        if ratio is None:
            return "ratio is not a constant"
        ratio = float(numpy.float32(ratio))
        if not 0 <= ratio < 1:
            return f"ratio is {ratio:g}, and ONNX Runtime takes 0 to below 1"
        mask = node.output[1] if len(node.output) > 1 else ""
        if mask and (mask in self.needed or self.consumers.get(mask)):
            return "its mask is used"
        return ratio

    def lone(self, node: NodeProto) -> Union[_Chain, str]:
        """A Dropout in training mode without a batch norm before it, or why it cannot be replaced."""
        ratio = self.ratio(node)
        if isinstance(ratio, str):
            return ratio
        if self.element(node.input[0]) != TensorProto.FLOAT:
            return f"the type of {node.input[0]!r} is not known, or not float32"
        shape = self.shape(node.input[0])
        channels = (shape[1] if len(shape) > 1 else 1) if shape else None
        if not isinstance(channels, int):
            return f"dimension 1 of {node.input[0]!r} is not known"
        chain = _Chain(node)
        chain.dropout, chain.channels = (node, ratio), channels
        return chain

    def may_drop(self, node: NodeProto) -> bool:
        """Whether a Dropout is, or may be, in training mode."""
        # Before opset 12 there is no such input.
        if len(node.input) < 3 or not node.input[2]:
            return False
        mode = self.number(node.input[2])
        return mode is None or mode != 0

    # What is known of values

    def array(self, name: str) -> Optional[numpy.ndarray]:
        tensor = self.constants.get(name)
        if tensor is None or tensor.data_location == TensorProto.EXTERNAL:
            return None
        return numpy_helper.to_array(tensor)

    def number(self, name: str) -> Optional[float]:
        """A constant of one number."""
        array = self.array(name) if name else None
        return float(array.reshape(-1)[0]) if array is not None and array.size == 1 else None

    def element(self, name: str) -> Optional[int]:
        """The type of the elements."""
        if name in self.initializers:
            return int(self.initializers[name].data_type)
        if name in self.constants:
            return int(self.constants[name].data_type)
        return int(self.types[name].elem_type) or None if name in self.types else None

    def shape(self, name: str) -> Optional[list[Union[int, str, None]]]:
        if name in self.constants:
            return list(self.constants[name].dims)
        if name not in self.types or not self.types[name].HasField("shape"):
            return None
        return [dim.dim_value if dim.HasField("dim_value") else dim.dim_param or None for dim in self.types[name].shape.dim]

    def same_shape(self, one: str, other: str) -> bool:
        """Whether two values have the same shape in every run: equal numbers, or the same names of dimensions."""
        shapes = self.shape(one), self.shape(other)
        return shapes[0] is not None and shapes[0] == shapes[1] and None not in shapes[0]

    # The new graph

    def unused(self, name: str) -> str:
        """A name that nothing has."""
        candidate, number = name, 1
        while candidate in self.taken:
            candidate, number = f"{name}_{number}", number + 1
        self.taken.add(candidate)
        return candidate

    def fused(self, chain: _Chain, numbers: dict[int, int]) -> NodeProto:
        first = chain.nodes[0]
        activation, alpha = chain.activation
        attributes: dict[str, Any] = {"epsilon": _attribute(first, "epsilon", 1e-5), "activation": activation}
        if alpha is not None:
            attributes["alpha"] = alpha
        if chain.channels is None:
            inputs = [*first.input[:5], chain.residual]
        else:
            # (x - 0)*1 + 0, which is x exactly.
            attributes["epsilon"] = 0.0
            zeros, ones = (self.constant(chain.channels, value) for value in (0, 1))
            inputs = [first.input[0], ones, zeros, zeros, ones, ""]
        layer, p = None, 0.0
        if chain.dropout is not None:
            node, p = chain.dropout
            layer = numbers[id(node)]
            attributes |= {"p": p, "layer": layer}
            inputs.append(_SEED)
        elif not chain.residual:
            inputs.pop()
        name = self.unused(f"{_name(first)}/{OPERATOR}")
        self.replaced.append(Replaced(name, tuple(node.op_type for node in chain.nodes), activation, p, layer))
        return helper.make_node(OPERATOR, inputs, [chain.value], name, domain=DOMAIN, **attributes)

    def constant(self, channels: int, value: int) -> str:
        """A new constant with a number for each channel."""
        if (channels, value) not in self.made:
            name = self.made[channels, value] = self.unused(f"normdrop_{('zeros', 'ones')[value]}_{channels}")
            self.graph.initializer.append(numpy_helper.from_array(numpy.full(channels, value, numpy.float32), name))
        return self.made[channels, value]

    def add_seed(self) -> None:
        """The graph input for the seed, or a constant."""
        if isinstance(self.seed, str):
            if self.seed in self.taken:
                raise ValueError(f"the model has a value or node {self.seed!r} already: give the input for the seed another name with seed=")
            self.graph.input.append(helper.make_tensor_value_info(self.seed, TensorProto.INT64, []))
            self.seed_name = self.seed
            return
        # The bits of the number: ONNX has no unsigned seeds, normdrop no negative ones.
        [bits] = struct.unpack("<q", struct.pack("<Q", self.seed % 2**64))
        self.seed_name = self.unused("seed")
        self.graph.initializer.append(numpy_helper.from_array(numpy.array(bits, numpy.int64), self.seed_name))

    def replace_nodes(self, nodes: list[NodeProto]) -> None:
        before = {name for node in self.graph.node for name in node.input}
        copies = []
        for node in nodes:
            copy = NodeProto()
            copy.CopyFrom(node)
            if copy.op_type == OPERATOR and copy.domain == DOMAIN:
                copy.input[:] = [self.seed_name if name == _SEED else name for name in copy.input]
            copies.append(copy)
        # ONNX Runtime warns of constants that nobody reads any more.
        read = self.needed | {name for node in copies for name in node.input}
        unread = {name for name in before if name not in read}
        for tensor in [tensor for tensor in self.graph.initializer if tensor.name in unread]:
            self.graph.initializer.remove(tensor)
        copies = [node for node in copies if not (_is(node, "Constant") and node.output[0] in unread)]
        del self.graph.node[:]
        self.graph.node.extend(copies)
        produced = {name for node in copies for name in node.output}
        known = [value for value in self.graph.value_info if value.name in produced]
        del self.graph.value_info[:]
        self.graph.value_info.extend(known)
        if not any(opset.domain == DOMAIN for opset in self.model.opset_import):
            self.model.opset_import.append(helper.make_opsetid(DOMAIN, VERSION))


# The seed in the inputs of a new node, until the value has its name. No value of a graph is called so.
_SEED = "\0seed"


class _Chain:
    """A batch norm and what follows it."""

    def __init__(self, first: NodeProto) -> None:
        self.nodes = [first]
        self.value: str = first.output[0]
        self.residual = ""
        self.activation: Activation = ("identity", None)
        self.dropout: Optional[tuple[NodeProto, float]] = None
        # Of a Dropout without a batch norm.
        self.channels: Optional[int] = None

    def take(self, node: NodeProto) -> None:
        self.nodes.append(node)
        self.value = node.output[0]


def _standard(node: NodeProto) -> bool:
    return node.domain in ("", "ai.onnx")


def _is(node: NodeProto, *operators: str) -> bool:
    return _standard(node) and node.op_type in operators


def _name(node: NodeProto) -> str:
    return node.name or node.output[0]


def _left(node: NodeProto, reason: str) -> Left:
    return Left(_name(node), node.op_type, reason)


def _attribute(node: NodeProto, name: str, default: Any) -> Any:
    for attribute in node.attribute:
        if attribute.name == name:
            value = helper.get_attribute_value(attribute)
            return value.decode() if isinstance(value, bytes) else value
    return default


def _constant(node: NodeProto) -> Optional[TensorProto]:
    """The tensor of a node `Constant`."""
    for attribute in node.attribute:
        if attribute.name == "value":
            tensor: TensorProto = attribute.t
            return tensor
        if attribute.name in ("value_float", "value_floats"):
            return numpy_helper.from_array(numpy.array(helper.get_attribute_value(attribute), numpy.float32))
        if attribute.name in ("value_int", "value_ints"):
            return numpy_helper.from_array(numpy.array(helper.get_attribute_value(attribute), numpy.int64))
    return None


def _subgraphs(node: NodeProto) -> Iterator[GraphProto]:
    for attribute in node.attribute:
        if attribute.type == AttributeProto.GRAPH:
            yield attribute.g
        elif attribute.type == AttributeProto.GRAPHS:
            yield from attribute.graphs


def _all_nodes(graph: GraphProto) -> Iterator[NodeProto]:
    for node in graph.node:
        yield node
        for subgraph in _subgraphs(node):
            yield from _all_nodes(subgraph)


def _names(graph: GraphProto) -> Iterator[str]:
    """All that a subgraph, or one inside it, reads."""
    yield from (value.name for value in graph.output)
    for node in _all_nodes(graph):
        yield from node.input
        for subgraph in _subgraphs(node):
            yield from (value.name for value in subgraph.output)
