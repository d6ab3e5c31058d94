"""Graphs and sessions for the tests."""

import numpy
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

import normdrop_onnxruntime

FLOAT = TensorProto.FLOAT


def model(nodes, inputs, outputs, constants=None, *, opset=22, element=FLOAT, domains=()):
    """A checked model. `inputs` and `outputs` are dicts of shapes; an input with another type is a pair of type and shape."""

    def value(name, of):
        element_type, shape = of if isinstance(of, tuple) else (element, of)
        return helper.make_tensor_value_info(name, element_type, shape)

    tensors = [numpy_helper.from_array(numpy.asarray(array), name) for name, array in (constants or {}).items()]
    graph = helper.make_graph(nodes, "graph", [value(*item) for item in inputs.items()], [value(*item) for item in outputs.items()], tensors)
    imports = [helper.make_opsetid("", opset), *(helper.make_opsetid(domain, 1) for domain in domains)]
    made = helper.make_model(graph, opset_imports=imports, ir_version=10)
    onnx.checker.check_model(made, full_check=not domains)
    return made


def node(operator, inputs, outputs, **attributes):
    """A node; inputs and outputs are names with spaces between them, "-" for none."""
    names = lambda text: ["" if name == "-" else name for name in text.split()]
    return helper.make_node(operator, names(inputs), names(outputs), name=f"{operator}_{outputs.split()[0]}", **attributes)


def batch_norm(x="x", y="bn", prefix="", **attributes):
    return node("BatchNormalization", " ".join([x, *(prefix + name for name in ("scale", "bias", "mean", "var"))]), y, **attributes)


def statistics(channels, generator=None, prefix="", dtype=numpy.float32):
    """Weight, bias, mean and variance, as the constants of `batch_norm`."""
    generator = generator or numpy.random.default_rng(channels)
    draw = lambda: generator.standard_normal(channels).astype(dtype)
    return {prefix + "scale": draw(), prefix + "bias": draw(), prefix + "mean": draw(), prefix + "var": (draw() ** 2 + dtype(0.25)).astype(dtype)}


def quiet(options):
    # Errors that a test expects are not printed.
    options.log_severity_level = 4
    return options


def session(of, threads=1, optimized=True, ours=True, keep_dropout=False, **entries):
    """A session with so many threads; without `ours` it does not know the operator. ONNX Runtime removes every Dropout, unless told."""
    options = quiet(normdrop_onnxruntime.session_options() if ours else onnxruntime.SessionOptions())
    options.intra_op_num_threads = threads
    if not optimized:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    for name, entry in entries.items():
        options.add_session_config_entry(name.replace("__", "."), entry)
    disabled = ["EliminateDropout"] if keep_dropout else None
    return onnxruntime.InferenceSession(of.SerializeToString(), options, providers=["CPUExecutionProvider"], disabled_optimizers=disabled)


def operators(of):
    return [node.op_type for node in of.graph.node if node.op_type != "Constant"]


def norm_drop(shape, *, constants=None, residual=False, seed=False, **attributes):
    """A graph of the operator alone. Without `constants` the statistics are inputs of the graph."""
    inputs = {"x": shape}
    if constants is None:
        inputs |= {name: [shape[1]] for name in ("scale", "bias", "mean", "var")}
    if residual:
        inputs["residual"] = shape
    if seed:
        inputs["seed"] = (TensorProto.INT64, [])
    names = ["x", "scale", "bias", "mean", "var", "residual" if residual else "", "seed" if seed else ""]
    while not names[-1]:
        names.pop()
    made = helper.make_node("NormDrop", names, ["y"], name="node", domain="normdrop", **attributes)
    values = [helper.make_tensor_value_info(name, *(of if isinstance(of, tuple) else (FLOAT, of))) for name, of in inputs.items()]
    tensors = [numpy_helper.from_array(numpy.asarray(array), name) for name, array in (constants or {}).items()]
    graph = helper.make_graph([made], "graph", values, [helper.make_tensor_value_info("y", FLOAT, shape)], tensors)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 22), helper.make_opsetid("normdrop", 1)], ir_version=10)
