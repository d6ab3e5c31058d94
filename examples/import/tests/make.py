#!/usr/bin/env python3
"""The files of this folder, each written by the framework itself, with the framework's own output.

    python make.py torch     torch==2.15.0 safetensors==0.8.0 numpy
    python make.py tensorflow  tensorflow-cpu==2.21.0 tf-keras==2.21.0 keras==3.15.1 (KERAS_BACKEND=tensorflow)
    python make.py onnx      onnx==1.23.2 onnxruntime==1.32.0
    python make.py keras     keras==3.15.0 jax==0.10.2 (KERAS_BACKEND=jax)
    python make.py flax      flax==0.12.8 jax==0.10.2
    python make.py haiku     dm-haiku==0.0.17 jax==0.10.2
    python make.py mxnet     mxnet==1.9.1 numpy==1.23.5
    python make.py caffe     opencv-python-headless==4.14.0.94 (reads the file; Caffe is in no registry)
    python make.py paddle    paddlepaddle==3.3.1 safetensors==0.8.0
    python make.py ncnn      ncnn==1.0.20261020 (runs the file, and writes none)
    python make.py darknet   opencv-python-headless==4.14.0.94 (reads the file; Darknet is in no registry)

All have the same network, on an image of 2 channels, 5 rows and 4 columns:

    conv1 2 -> 4, 3x3, zero padding, no bias     bn1, relu
    conv2 4 -> 3, 1x1, bias                      bn2, relu
    bn3                                          before conv3
    conv3 3 -> 2, 3x3, zero padding, bias

Its numbers are those of `numbers()`. Channel 1 of bn3 has a negative weight. Darknet has no batch norm before a
convolution, and its file ends after the second relu. `NAME.json` has the input and the output of each file, in its layout.
"""

import json
import sys
from pathlib import Path

import numpy as np

FILES = Path(__file__).resolve().parent / "files"


def numbers():
    """Weights as PyTorch has them, [out, in, kh, kw], and four numbers for each channel of a batch norm."""
    random = np.random.default_rng(25)
    weights = {"conv1.weight": random.normal(size=(4, 2, 3, 3)), "conv2.weight": random.normal(size=(3, 4, 1, 1)),
               "conv2.bias": random.normal(size=3), "conv3.weight": random.normal(size=(2, 3, 3, 3)),
               "conv3.bias": random.normal(size=2)}
    for name, channels in (("bn1", 4), ("bn2", 3), ("bn3", 3)):
        weights |= {f"{name}.weight": random.uniform(0.5, 2, channels), f"{name}.bias": random.normal(size=channels),
                    f"{name}.running_mean": random.normal(size=channels), f"{name}.running_var": random.uniform(0.01, 3, channels)}
    weights["bn3.weight"][1] *= -1
    return {name: value.astype(np.float32) for name, value in weights.items()}, random.normal(size=(1, 2, 5, 4)).astype(np.float32)


def write(name, x, y):
    flat = lambda values: [float(value) for value in np.asarray(values).ravel()]
    (FILES / f"{name}.json").write_text(json.dumps({"input": flat(x), "output": flat(y)}) + "\n")


def make_torch():
    import torch
    from safetensors.torch import save_file
    from torch import nn
    from torch.nn.functional import relu

    class Network(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv1, self.bn1 = nn.Conv2d(2, 4, 3, padding=1, bias=False), nn.BatchNorm2d(4)
            self.conv2, self.bn2 = nn.Conv2d(4, 3, 1), nn.BatchNorm2d(3)
            self.bn3, self.conv3 = nn.BatchNorm2d(3), nn.Conv2d(3, 2, 3, padding=1)

        def forward(self, x):
            return self.conv3(self.bn3(relu(self.bn2(self.conv2(relu(self.bn1(self.conv1(x))))))))

    values, x = numbers()
    network = Network().eval()
    network.load_state_dict({name: torch.from_numpy(value) for name, value in values.items()}, strict=False)
    save_file(network.state_dict(), FILES / "torch.safetensors")
    torch.save(network.state_dict(), FILES / "torch.pt")
    torch.save(network.state_dict(), FILES / "torch-old.pth", _use_new_zipfile_serialization=False)
    with torch.no_grad():
        write("torch", x, network(torch.from_numpy(x)))
    # As training scripts do it: among other things, and with weights whose channels are innermost in memory.
    network = network.to(memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1, momentum=0.9)
    torch.save({"epoch": 3, "best": 0.5, "done": False, "note": None, "state_dict": network.state_dict(),
                "optimizer": optimizer.state_dict()}, FILES / "torch-checkpoint.pth")
    torch.save(network.conv2, FILES / "torch-module.pth")
    torch.save(network.half().state_dict(), FILES / "torch-f16.pt")
    save_file({name: value.contiguous() for name, value in network.bfloat16().state_dict().items()}, FILES / "torch-bf16.safetensors")


def make_onnx():
    import onnxruntime
    from onnx import TensorProto, helper, numpy_helper, save

    values, x = numbers()

    def model(nodes, outputs, extra=()):
        value = lambda name: helper.make_tensor_value_info(name, TensorProto.FLOAT, None)
        used = {name for node in nodes for name in node.input}
        constants = [numpy_helper.from_array(array, name) for name, array in {**values, **dict(extra)}.items() if name in used]
        graph = helper.make_graph(nodes, "network", [helper.make_tensor_value_info("x", TensorProto.FLOAT, x.shape)],
                                  [value(name) for name in outputs], constants)
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 15)], ir_version=8)

    def conv(name, x, y, bias, **attributes):
        inputs = [x, f"{name}.weight", *([f"{name}.bias"] if bias else [])]
        return helper.make_node("Conv", inputs, [y], name=name, **attributes)

    def bn(name, x, y):
        parts = ("weight", "bias", "running_mean", "running_var")
        return helper.make_node("BatchNormalization", [x, *(f"{name}.{part}" for part in parts)], [y], name=name, epsilon=1e-5)

    relu = lambda x, y: helper.make_node("Relu", [x], [y])
    front = [conv("conv1", "x", "a", False, pads=[1] * 4), bn("bn1", "a", "b"), relu("b", "c"), conv("conv2", "c", "d", True),
             bn("bn2", "d", "e"), relu("e", "f"), bn("bn3", "f", "g")]
    pool = helper.make_node("MaxPool", ["g"], ["h"], name="pool", kernel_shape=[2, 2], strides=[1, 1])
    for name, nodes in (("onnx", [*front, conv("conv3", "g", "y", True, pads=[1] * 4)]),
                        ("onnx-max-pooling", [*front, pool, conv("conv3", "h", "y", True)])):
        made = model(nodes, ["y"])
        save(made, FILES / f"{name}.onnx")
        write(name, x, onnxruntime.InferenceSession(made.SerializeToString()).run(None, {"x": x})[0])


def make_keras():
    import keras
    from keras import layers

    values, x = numbers()
    network = keras.Sequential([
        keras.Input((5, 4, 2)), layers.Conv2D(4, 3, padding="same", use_bias=False, name="conv1"),
        layers.BatchNormalization(name="bn1"), layers.ReLU(), layers.Conv2D(3, 1, name="conv2"),
        layers.BatchNormalization(name="bn2"), layers.ReLU(), layers.BatchNormalization(name="bn3"), layers.Dropout(0.5),
        layers.Conv2D(2, 3, padding="same", name="conv3")])
    for layer in network.layers:
        of = [values[f"{layer.name}.{part}"] for part in ("weight", "bias", "running_mean", "running_var")
              if f"{layer.name}.{part}" in values]
        if of:
            layer.set_weights([value.transpose(2, 3, 1, 0) if value.ndim == 4 else value for value in of])
    network.save(FILES / "keras.keras")
    network.save_weights(FILES / "keras.weights.h5")
    x = x.transpose(0, 2, 3, 1)
    write("keras", x, network.predict(x, verbose=0))


def make_tensorflow():
    """Variables alone: of a SavedModel of Keras 2, and of one of Keras 3."""
    import shutil
    import tempfile

    import keras
    import tensorflow as tf
    import tf_keras

    values, x = numbers()
    x = x.transpose(0, 2, 3, 1)
    for name, of in (("keras-2", tf_keras), ("keras-3", keras)):
        layers = of.layers
        network = of.Sequential([
            of.Input((5, 4, 2)), layers.Conv2D(4, 3, padding="same", use_bias=False, name="conv1"),
            layers.BatchNormalization(name="bn1"), layers.ReLU(), layers.Conv2D(3, 1, name="conv2"),
            layers.BatchNormalization(name="bn2"), layers.ReLU(), layers.BatchNormalization(name="bn3"), layers.Dropout(0.5),
            layers.Conv2D(2, 3, padding="same", name="conv3")])
        network.build((None, 5, 4, 2))
        for layer in network.layers:
            of_layer = [values[f"{layer.name}.{part}"] for part in ("weight", "bias", "running_mean", "running_var")
                        if f"{layer.name}.{part}" in values]
            if of_layer:
                layer.set_weights([value.transpose(2, 3, 1, 0) if value.ndim == 4 else value for value in of_layer])
        with tempfile.TemporaryDirectory() as work:
            if name == "keras-2":
                # With what an optimiser keeps for each variable.
                network.compile(tf_keras.optimizers.SGD(0.0, momentum=0.9), "mse")
                network.trainable = False
                network.save(f"{work}/model", save_format="tf")
            else:
                network.export(f"{work}/model", verbose=False)
            (FILES / name).mkdir(exist_ok=True)
            for file in Path(f"{work}/model/variables").iterdir():
                shutil.copy(file, FILES / name)
            run = tf.saved_model.load(f"{work}/model").signatures["serving_default" if name == "keras-2" else "serve"]
            write(name, x, next(iter(run(tf.constant(x)).values())).numpy())


def make_flax():
    import flax
    import jax.numpy as jnp
    from flax import linen

    class Network(linen.Module):
        @linen.compact
        def __call__(self, x):
            def bn(name, x):
                return linen.BatchNorm(use_running_average=True, name=name)(x)

            x = linen.relu(bn("bn1", linen.Conv(4, (3, 3), use_bias=False, name="conv1")(x)))
            x = linen.relu(bn("bn2", linen.Conv(3, (1, 1), name="conv2")(x)))
            return linen.Conv(2, (3, 3), name="conv3")(bn("bn3", x))

    values, x = numbers()
    variables = {"params": {}, "batch_stats": {}}
    names = {"weight": "scale", "running_mean": "mean", "running_var": "var", "bias": "bias"}
    for key, value in values.items():
        name, part = key.split(".")
        kind = "batch_stats" if part.startswith("running") else "params"
        part = "kernel" if value.ndim == 4 else names[part]
        value = value.transpose(2, 3, 1, 0) if value.ndim == 4 else value
        variables[kind].setdefault(name, {})[part] = jnp.array(value)
    x = x.transpose(0, 2, 3, 1)
    flat = flax.traverse_util.flatten_dict(variables, sep="/")
    np.savez(FILES / "flax.npz", **{name: np.ascontiguousarray(value) for name, value in flat.items()})
    write("flax", x, Network().apply(variables, jnp.array(x)))


def make_darknet():
    import cv2

    values, x = numbers()
    # The first convolution of Darknet's file has no bias of its own, and neither has the second one.
    sections = ["[net]\nbatch=1\nchannels=2\nheight=5\nwidth=4\n"]
    for filters, size, pad in ((4, 3, 1), (3, 1, 0)):
        sections.append(f"[convolutional]\nbatch_normalize=1\nfilters={filters}\nsize={size}\nstride=1\npad={pad}\nactivation=relu\n")
    (FILES / "darknet.cfg").write_text("\n".join(sections))
    parts = [np.array([0, 2, 5], np.int32).tobytes(), np.array([64], np.uint64).tobytes()]
    for conv, bn in (("conv1", "bn1"), ("conv2", "bn2")):
        order = (f"{bn}.bias", f"{bn}.weight", f"{bn}.running_mean", f"{bn}.running_var", f"{conv}.weight")
        parts += [values[name].tobytes() for name in order]
    (FILES / "darknet.weights").write_bytes(b"".join(parts))
    network = cv2.dnn.readNetFromDarknet(str(FILES / "darknet.cfg"), str(FILES / "darknet.weights"))
    network.setInput(x)
    write("darknet", x, network.forward())


def make_haiku():
    import haiku as hk
    import jax.numpy as jnp
    from jax import nn, random

    def network(x, training):
        bn = lambda name, x: hk.BatchNorm(True, True, 0.9, name=name)(x, is_training=training)
        x = nn.relu(bn("bn1", hk.Conv2D(4, 3, with_bias=False, name="conv1")(x)))
        x = nn.relu(bn("bn2", hk.Conv2D(3, 1, name="conv2")(x)))
        return hk.Conv2D(2, 3, name="conv3")(bn("bn3", x))

    values, x = numbers()
    x = x.transpose(0, 2, 3, 1)
    network = hk.without_apply_rng(hk.transform_with_state(network))
    # Only a call in training makes the state.
    params, state = network.init(random.key(0), x, True)
    arrays = {}
    for module, name, value in hk.data_structures.traverse(params):
        mine = values[f"{module}.{dict(w='weight', b='bias', scale='weight', offset='bias')[name]}"]
        params[module][name] = jnp.array((mine.transpose(2, 3, 1, 0) if mine.ndim == 4 else mine).reshape(value.shape))
    for module, name, value in hk.data_structures.traverse(state):
        bn, _, which = module.split("/")
        if name == "average":
            state[module][name] = jnp.array(values[f"{bn}.running_{which.removesuffix('_ema')}"].reshape(value.shape))
    for module, name, value in (*hk.data_structures.traverse(params), *hk.data_structures.traverse(state)):
        arrays[f"{module}/{name}"] = np.ascontiguousarray(value)
    np.savez(FILES / "haiku.npz", **arrays)
    write("haiku", x, network.apply(params, state, jnp.array(x), False)[0])


def make_paddle():
    import paddle
    from paddle import nn
    from paddle.nn.functional import relu
    from safetensors.paddle import save_file

    class Network(nn.Layer):
        def __init__(self):
            super().__init__()
            self.conv1, self.bn1 = nn.Conv2D(2, 4, 3, padding=1, bias_attr=False), nn.BatchNorm2D(4)
            self.conv2, self.bn2 = nn.Conv2D(4, 3, 1), nn.BatchNorm2D(3)
            self.bn3, self.conv3 = nn.BatchNorm2D(3), nn.Conv2D(3, 2, 3, padding=1)
            # Not used, for the order of its weights.
            self.fc = nn.Linear(2, 3)

        def forward(self, x):
            return self.conv3(self.bn3(relu(self.bn2(self.conv2(relu(self.bn1(self.conv1(x))))))))

    values, x = numbers()
    names = {"running_mean": "_mean", "running_var": "_variance"}
    state = {"fc.weight": np.float32([[1, 2, 3], [4, 5, 6]]), "fc.bias": np.float32([0, 0, 0])}
    for key, value in values.items():
        layer, part = key.split(".")
        state[f"{layer}.{names.get(part, part)}"] = value
    network = Network()
    network.eval()
    network.set_state_dict(state)
    save_file(network.state_dict(), str(FILES / "paddle.safetensors"))
    paddle.save(network.state_dict(), str(FILES / "paddle.pdparams"))
    paddle.save(network.state_dict(), str(FILES / "paddle-protocol-2.pdparams"), protocol=2)
    # The program of what is run, and its parameters.
    program = paddle.jit.to_static(network, input_spec=[paddle.static.InputSpec([None, 2, 5, 4], "float32")])
    paddle.jit.save(program, str(FILES / "paddle-program"))
    write("paddle", x, network(paddle.to_tensor(x)).numpy())


def make_mxnet():
    import mxnet as mx

    values, x = numbers()
    symbol = mx.sym
    conv = lambda name, x, filters, size, bias: symbol.Convolution(
        x, name=name, num_filter=filters, kernel=(size, size), pad=(size // 2, size // 2), no_bias=not bias)
    relu = lambda x: symbol.Activation(x, act_type="relu")
    y = relu(symbol.BatchNorm(conv("conv1", symbol.Variable("data"), 4, 3, False), name="bn1", fix_gamma=False, eps=1e-5))
    # With the defaults: an eps of 1e-3, and weights of 1 whatever the file says.
    y = relu(symbol.BatchNorm(conv("conv2", y, 3, 1, True), name="bn2"))
    y = symbol.Dropout(symbol.BatchNorm(y, name="bn3", fix_gamma=False, eps=1e-5), p=0.5)
    y = conv("conv3", y, 2, 3, True)
    args, aux = {}, {}
    for key, value in values.items():
        layer, part = key.split(".")
        if layer.startswith("bn"):
            part = {"weight": "gamma", "bias": "beta", "running_mean": "moving_mean", "running_var": "moving_var"}[part]
        (aux if part.startswith("moving") else args)[f"{layer}_{part}"] = mx.nd.array(value)
    mx.model.save_checkpoint(str(FILES / "mxnet"), 0, y, args, aux)
    executor = y.bind(mx.cpu(), {**args, "data": mx.nd.array(x)}, aux_states=aux, grad_req="null")
    write("mxnet", x, executor.forward(is_train=False)[0].asnumpy())


def make_caffe():
    import cv2

    values, x = numbers()

    # The wire format of protocol buffers, with the numbers of the fields in caffe.proto.
    def varint(number):
        return bytes([number]) if number < 128 else bytes([number % 128 + 128]) + varint(number // 128)

    def field(number, content):
        if isinstance(content, int):
            return varint(number * 8) + varint(content)
        if isinstance(content, np.float32):
            return varint(number * 8 + 5) + content.tobytes()
        content = content.encode() if isinstance(content, str) else content
        return varint(number * 8 + 2) + varint(len(content)) + content

    def blob(array):
        dims = b"".join(varint(dim) for dim in array.shape)
        return field(7, field(5, array.tobytes()) + field(7, field(1, dims)))

    layers, text = b"", ['input: "data" input_shape { dim: 1 dim: 2 dim: 5 dim: 4 }']

    def layer(name, kind, bottom, top, blobs=(), number=0, parameters=(), written=""):
        nonlocal layers
        content = field(1, name) + field(2, kind) + field(3, bottom) + field(4, top) + b"".join(map(blob, blobs))
        content += field(number, b"".join(field(*parameter) for parameter in parameters)) if number else b""
        layers += field(100, content)
        text.append(f'layer {{ name: "{name}" type: "{kind}" bottom: "{bottom}" top: "{top}" {written} }}')

    def conv(name, bottom, top, size):
        arrays = [values[f"{name}.{part}"] for part in ("weight", "bias") if f"{name}.{part}" in values]
        outputs, bias, pad = arrays[0].shape[0], len(arrays) - 1, size // 2
        layer(name, "Convolution", bottom, top, arrays, 106, ((1, outputs), (2, bias), (3, pad), (4, size)),
              f"convolution_param {{ num_output: {outputs} bias_term: {'true' if bias else 'false'} pad: {pad} kernel_size: {size} }}")

    def bn(name, top, factor, eps):
        # Sums and their factor, written over the blob that is read.
        factor = np.float32(factor)
        statistics = [values[f"{name}.running_mean"] * factor, values[f"{name}.running_var"] * factor, np.array([factor])]
        layer(name, "BatchNorm", top, top, statistics, 139, ((1, 1), (3, np.float32(eps))) if eps else ((1, 1),),
              f"batch_norm_param {{ use_global_stats: true {f'eps: {eps}' if eps else ''} }}")
        layer(f"{name}_scale", "Scale", top, top, [values[f"{name}.weight"], values[f"{name}.bias"]], 142, ((4, 1),),
              "scale_param { bias_term: true }")

    conv("conv1", "data", "a", 3)
    bn("bn1", "a", 999.98, None)
    layer("relu1", "ReLU", "a", "a")
    conv("conv2", "a", "d", 1)
    bn("bn2", "d", 1, 1e-3)
    layer("relu2", "ReLU", "d", "d")
    bn("bn3", "d", 0.5, None)
    layer("dropout", "Dropout", "d", "d")
    conv("conv3", "d", "y", 3)
    (FILES / "caffe.caffemodel").write_bytes(field(1, "network") + layers)
    (FILES / "caffe-deploy.prototxt").write_text("\n".join(text) + "\n")
    prototxt = "\n".join(text).encode()
    network = cv2.dnn.readNetFromCaffe(np.frombuffer(prototxt, np.uint8), np.fromfile(FILES / "caffe.caffemodel", np.uint8))
    network.setInput(x)
    write("caffe", x, network.forward())


def make_ncnn():
    import ncnn

    values, x = numbers()
    parts = []

    def conv(name, x, y, outputs, size, pad, bias):
        # A flag of 0 says f32.
        parts.extend([np.int32([0]), values[f"{name}.weight"], *([values[f"{name}.bias"]] if bias else [])])
        return f"Convolution {name} 1 1 {x} {y} 0={outputs} 1={size} 4={pad} 5={int(bias)} 6={values[f'{name}.weight'].size}"

    def bn(name, x, y):
        parts.extend(values[f"{name}.{part}"] for part in ("weight", "running_mean", "running_var", "bias"))
        return f"BatchNorm {name} 1 1 {x} {y} 0={values[f'{name}.bias'].size} 1=1e-5"

    lines = ["Input data 0 1 x", conv("conv1", "x", "a", 4, 3, 1, False), bn("bn1", "a", "b"), "ReLU relu1 1 1 b c",
             conv("conv2", "c", "d", 3, 1, 0, True), bn("bn2", "d", "e"), "ReLU relu2 1 1 e f", bn("bn3", "f", "g"),
             "Dropout dropout 1 1 g h", conv("conv3", "h", "y", 2, 3, 1, True)]
    (FILES / "ncnn.param").write_text("\n".join(["7767517", f"{len(lines)} {len(lines)}", *lines]) + "\n")
    (FILES / "ncnn.bin").write_bytes(b"".join(part.tobytes() for part in parts))
    network = ncnn.Net()
    network.opt.use_fp16_packed = network.opt.use_fp16_storage = network.opt.use_fp16_arithmetic = False
    network.opt.use_bf16_storage = False
    assert network.load_param(str(FILES / "ncnn.param")) == 0 and network.load_model(str(FILES / "ncnn.bin")) == 0
    extractor = network.create_extractor()
    extractor.input("x", ncnn.Mat(x[0]).clone())
    write("ncnn", x, np.array(extractor.extract("y")[1]))


if __name__ == "__main__":
    FILES.mkdir(exist_ok=True)
    for which in sys.argv[1:]:
        globals()[f"make_{which}"]()
