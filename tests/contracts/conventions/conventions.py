#!/usr/bin/env python3
"""What batch norm and dropout of other frameworks do, recorded by running them on the CPU.

How to run it
-------------

Each framework has a function here. An environment rarely has all of them, so
the script runs the ones that are named and keeps the rows of the others:

    python -m venv venv
    venv/bin/pip install torch numpy
    venv/bin/python conventions.py torch

`ENVIRONMENTS` below has the packages with which the rows were recorded.
`conventions.py --list` prints them.

What is in the file
-------------------

`conventions.json` is one object: `format` (the number 1), `data` and `rows`.

`data` has for each layout five batches of 3 channels in memory order, numbers
that an f32 has exactly, and the `shape` of a batch.

A row is one layer on one path of one framework, trained for five steps from a
new layer's statistics with the weight 1.5, 0.5, 2 and the bias 0.25, -1, 0, and
evaluated on the first batch:

* `framework`, `version`, `path`: what was run; `layout`: the layout of the data.
* `momentum`: what the layer was given. It weighs the old value if `weighs` is
  "old", the new one if it is "new". Then `momentum_default`, `eps_default` are
  what the layer has if it is given neither. `eps` is what it had.
* `running_var`: "biased" or "unbiased", as the numbers say (asserted here).
* `debias`: 0, or the weight of the old value in an average that is divided by
  `1 - debias^steps` wherever it is read (haiku, sonnet, equinox). The recorded
  statistics are the divided ones, and `initial` is the average before them.
* `precision`: "float64" or "float32".
* `initial`: the running mean and variance of a new layer.
* `steps`: `y`, `mean`, `var` after each step. `eval`: `y` of the evaluation.
* `one_value`: what training with one value per channel does: "error", or what it
  leaves in the running variance: "NaN", "unchanged", or "shrinks".
* `dropout`: `call` as a user writes it with the number 0.25, the fraction of
  65,536 ones that it dropped, the number that the kept ones became, and what
  the number that should drop everything does to ones ("zeros", "NaN", "error",
  "ones"), and what becomes of an infinity that is dropped ("0", "NaN"); null
  where the framework was recorded with another path.
"""

import argparse
import json
import math
import os
import re
import sys
from pathlib import Path

import numpy as np

HERE = Path(__file__).resolve().parent
FILE = HERE / "conventions.json"
WEIGHT, BIAS = [1.5, 0.5, 2.0], [0.25, -1.0, 0.0]
NEW = 0.25  # the weight of the new value
ZEROS = {"mean": [0.0] * 3, "var": [0.0] * 3}
SHAPES = {"NC": (6, 3), "NHWC": (2, 2, 3, 3), "NCHW": (2, 3, 2, 3)}

ENVIRONMENTS = {
    "torch": "torch==2.15.0 numpy==2.4.6",
    "keras": "keras==3.15.1 tensorflow-cpu==2.21.0 (KERAS_BACKEND=tensorflow), or jax==0.10.2, or torch==2.15.0",
    "tf_keras": "tf-keras==2.21.0 tensorflow-cpu==2.21.0",
    "sonnet": "dm-sonnet==2.0.2 tensorflow-cpu==2.21.0 tf-keras==2.21.0",
    "flax": "flax==0.12.8 jax==0.10.2",
    "haiku": "dm-haiku==0.0.17 jax==0.10.2",
    "equinox": "equinox==0.13.8 jax==0.10.2",
    "onnx": "onnx==1.23.2 onnxruntime==1.32.0",
    "tinygrad": "tinygrad==0.14.0 (DEV=PYTHON where there is no clang)",
    "paddle": "paddlepaddle==3.3.1",
    "mxnet": "mxnet==1.9.1 numpy==1.23.5",
    "chainer": "chainer==7.8.1 numpy==1.23.5",
    "objax": "objax==1.8.0 jax==0.4.35 numpy==1.26.4 six",
    "mlx": "mlx[cpu]==0.32.4 numpy==2.4.6; and mlx[cpu]==0.32.0",
    "mindspore": "mindspore==2.10.0 numpy==1.26.4",
    "tfjs": "@tensorflow/tfjs@4.22.0 of npm, in the folder node_modules that NODE_PATH names; numpy==2.4.6",
    "nnabla": "nnabla==1.39.0 numpy==1.26.4, Python 3.10",
    "megengine": "megengine==1.13.0 numpy==1.23.5, Python 3.10",
}


def batches(layout):
    """Five batches: 64ths, so that f32 has them; the channels are centred at 0.5, -3 and 10."""
    shape, state, all_batches = SHAPES[layout], 1, []
    axis = layout.index("C")
    for _ in range(5):
        values = []
        for index in np.ndindex(*shape):
            state = (state * 1103515245 + 12345) % (1 << 31)
            channel = index[axis]
            values.append([0.5, -3.0, 10.0][channel] + ((state >> 16) % 257 - 128) / 64 * [0.5, 2.0, 1.0][channel])
        all_batches.append(np.array(values, np.float64).reshape(shape))
    return all_batches


def numbers(values):
    return [float(value) for value in np.asarray(values, np.float64).ravel()]


def record(name, version, path, layout, *, weighs, momentum_default, eps_default, eps, precision, train, evaluate, state,
           one_value, dropout, debias=0.0, initial=None):
    """Runs five steps and the evaluation of a layer: `train(x)` and `evaluate(x)` give y, `state()` mean and variance."""
    # What a step is given is a copy: some frameworks keep the memory.
    row = {"framework": name, "version": version, "path": path, "layout": layout, "weighs": weighs,
           "momentum": NEW if weighs == "new" else 1 - NEW, "momentum_default": momentum_default, "eps": eps,
           "eps_default": eps_default, "debias": debias, "precision": precision}
    # Averages that are divided by 1 - debias^0 cannot be read before the first step.
    row["initial"] = initial or dict(zip(("mean", "var"), map(numbers, state())))
    row["steps"] = []
    for x in batches(layout):
        y = train(x.copy())
        mean, var = state()
        row["steps"].append({"y": numbers(y), "mean": numbers(mean), "var": numbers(var)})
    row["eval"] = numbers(evaluate(batches(layout)[0].copy()))
    row["running_var"] = kind(row, layout)
    row["one_value"] = one_value() if callable(one_value) else one_value
    row["dropout"] = dropout
    print(f"{name} {version}, {path}: {row['running_var']}, initial {row['initial']}, one value: {row['one_value']}, {dropout}")
    return row


def kind(row, layout):
    """Which variance the recorded average is of: one of the two fits the steps, and the other does not."""
    axes = tuple(axis for axis, name in enumerate(layout) if name != "C")
    fits = []
    for correction, name in ((0, "biased"), (1, "unbiased")):
        var = np.array(row["initial"]["var"])
        errors = []
        for number, (x, step) in enumerate(zip(batches(layout), row["steps"]), 1):
            var = (1 - NEW) * var + NEW * x.var(axis=axes, ddof=correction)
            errors.append(np.abs(var / (1 - row["debias"] ** number) / step["var"] - 1).max())
        if max(errors) < 1e-5:
            fits.append(name)
    assert len(fits) == 1, f"{row['framework']}, {row['path']}: the variance is {fits or 'neither'}: {row['steps']}"
    return fits[0]


def after_one_value(run):
    """What training with one value per channel leaves: `run` does it from a variance of 1 and gives the new one."""
    try:
        var = np.asarray(run(np.array([[1.0, 2.0, 3.0]])), np.float64).ravel()
    except Exception as error:
        print("   one value:", type(error).__name__, str(error).splitlines()[0] if str(error) else "")
        return "error"
    if np.isnan(var).any():
        return "NaN"
    return "unchanged" if np.allclose(var, 1) else "shrinks" if np.allclose(var, 1 - NEW) else f"var {var.tolist()}"


def dropout(call, drop, everything=1.0):
    """`drop(x, number)` is dropout in training. `everything` is the number that should drop all elements."""
    y = np.asarray(drop(np.ones((256, 256), np.float32), 0.25), np.float64)
    kept = y[y != 0]
    assert np.ptp(kept) < 1e-6, "kept values differ"
    try:
        of_all = np.asarray(drop(np.ones((4, 64), np.float32), everything), np.float64)
        if np.isnan(of_all).any() or np.isinf(of_all).any():
            all_dropped = "NaN"
        else:
            all_dropped = "zeros" if (of_all == 0).all() else "ones" if (of_all != 0).all() else "other"
    except Exception as error:
        print("   dropping all:", type(error).__name__, str(error).splitlines()[0] if str(error) else "")
        all_dropped = "error"
    infinite = np.asarray(drop(np.full((64, 64), np.inf, np.float32), 0.5), np.float64)
    infinity = "NaN" if np.isnan(infinite).any() else "0"
    return {"call": call, "dropped": float((y == 0).mean()), "kept": float(kept[0]), "all": all_dropped, "infinity": infinity}


def torch_rows():
    import torch

    def one_value(x):
        layer = torch.nn.BatchNorm1d(3, momentum=NEW)
        layer(torch.tensor(x, dtype=torch.float32))
        return layer.running_var

    drop = dropout("torch.nn.Dropout(0.25)", lambda x, p: torch.nn.Dropout(p)(torch.from_numpy(x)).numpy())
    for layout, of, path in (("NC", torch.nn.BatchNorm1d, "(N, C)"), ("NCHW", torch.nn.BatchNorm2d, "NCHW"),
                             ("NHWC", torch.nn.BatchNorm2d, "channels last")):
        layer = of(3, momentum=NEW).double()
        new = of(3)
        layer.weight.data, layer.bias.data = torch.tensor(WEIGHT).double(), torch.tensor(BIAS).double()

        def call(x, train):
            layer.train(train)
            with torch.no_grad():
                if layout != "NHWC":
                    return layer(torch.from_numpy(x)).numpy()
                return layer(torch.from_numpy(x).permute(0, 3, 1, 2)).permute(0, 2, 3, 1).numpy()

        yield record("PyTorch", torch.__version__.split("+")[0], path, layout, weighs="new", momentum_default=new.momentum,
                     eps_default=new.eps, eps=layer.eps, precision="float64", train=lambda x: call(x, True),
                     evaluate=lambda x: call(x, False), state=lambda: (layer.running_mean.clone(), layer.running_var.clone()),
                     one_value=lambda: after_one_value(one_value), dropout=drop)
        drop = None


def keras_like(keras, name, version, layouts):
    """Keras 3 and tf_keras have the same interface."""
    # Tensors of the torch backend have a gradient.
    array = keras.ops.convert_to_numpy if hasattr(keras, "ops") else np.array

    def one_value(x):
        layer = keras.layers.BatchNormalization(momentum=1 - NEW)
        layer(x.astype(np.float32), training=True)
        return array(layer.moving_variance)

    def drop(x, rate):
        return array(keras.layers.Dropout(rate)(x, training=True))

    dropped = dropout("Dropout(0.25)", drop)
    for layout, path, dtype in layouts:
        new = keras.layers.BatchNormalization()
        layer = keras.layers.BatchNormalization(momentum=1 - NEW, axis=layout.index("C"), dtype=dtype)
        layer.build(SHAPES[layout])
        layer.set_weights([np.array(WEIGHT), np.array(BIAS), *layer.get_weights()[2:]])
        yield record(name, version, path, layout, weighs="old", momentum_default=new.momentum, eps_default=new.epsilon,
                     eps=layer.epsilon, precision=dtype, train=lambda x: array(layer(x.astype(dtype), training=True)),
                     evaluate=lambda x: array(layer(x.astype(dtype), training=False)),
                     state=lambda: [np.array(value) for value in layer.get_weights()[2:]],
                     one_value=lambda: after_one_value(one_value), dropout=dropped)
        dropped = None


def keras_rows():
    import keras

    backend = keras.backend.backend()
    if backend == "jax":
        import jax

        jax.config.update("jax_enable_x64", True)
    yield from keras_like(keras, f"Keras on {backend}", keras.__version__,
                          [("NC", "(N, C)", "float32"), ("NHWC", "images", "float32")])


def tf_keras_rows():
    import tf_keras

    # The fused kernel, which images take, is for f32 alone.
    yield from keras_like(tf_keras, "tf_keras", tf_keras.__version__, [("NC", "(N, C)", "float64"), ("NHWC", "images", "float32")])


def sonnet_rows():
    import sonnet
    import tensorflow as tf

    def make():
        return sonnet.BatchNorm(create_scale=True, create_offset=True, decay_rate=1 - NEW)

    def one_value(x):
        layer = make()
        layer(tf.constant(x, tf.float32), is_training=True)
        return [1.0] if float(tf.reduce_max(layer.moving_variance.average)) == 1 else 0.75 + 0 * layer.moving_variance.average

    dropped = dropout("snt.Dropout(0.25)", lambda x, rate: sonnet.Dropout(rate)(tf.constant(x), is_training=True).numpy())
    for layout, path in (("NC", "(N, C)"), ("NHWC", "NHWC")):
        layer = make()
        x = tf.constant(batches(layout)[0], tf.float32)
        layer._initialize(x)
        layer.scale.assign(np.reshape(WEIGHT, layer.scale.shape))
        layer.offset.assign(np.reshape(BIAS, layer.offset.shape))

        def state():
            return layer.moving_mean.average.numpy(), layer.moving_variance.average.numpy()

        yield record("sonnet", sonnet.__version__, path, layout, weighs="old", momentum_default=0.999, eps_default=1e-5,
                     eps=1e-5, precision="float32", debias=1 - NEW, initial=ZEROS,
                     train=lambda x: layer(tf.constant(x, tf.float32), is_training=True).numpy(),
                     evaluate=lambda x: layer(tf.constant(x, tf.float32), is_training=False, test_local_stats=False).numpy(),
                     state=state, one_value=None, dropout=dropped)
        dropped = None


def flax_rows():
    import flax
    import jax
    import jax.numpy as jnp
    from flax import linen, nnx

    jax.config.update("jax_enable_x64", True)

    def drop(x, rate):
        return linen.Dropout(rate, deterministic=False).apply({}, jnp.array(x), rngs={"dropout": jax.random.key(1)})

    def one_value(x):
        layer = linen.BatchNorm(use_running_average=False, momentum=1 - NEW)
        variables = layer.init(jax.random.key(0), x)
        return layer.apply(variables, x, mutable=["batch_stats"])[1]["batch_stats"]["var"]

    dropped = dropout("linen.Dropout(0.25)", drop)
    for layout, path in (("NC", "linen, (N, C)"), ("NHWC", "linen, images")):
        layer = linen.BatchNorm(momentum=1 - NEW, dtype=jnp.float64, param_dtype=jnp.float64)
        variables = layer.init(jax.random.key(0), jnp.array(batches(layout)[0]), use_running_average=True)
        holder = {"stats": {"mean": jnp.zeros(3, jnp.float64), "var": jnp.ones(3, jnp.float64)}}
        assert np.array_equal(variables["batch_stats"]["var"], holder["stats"]["var"])
        params = {"scale": jnp.array(WEIGHT), "bias": jnp.array(BIAS)}

        def train(x):
            y, new = layer.apply({"params": params, "batch_stats": holder["stats"]}, jnp.array(x), use_running_average=False,
                                 mutable=["batch_stats"])
            holder["stats"] = new["batch_stats"]
            return y

        yield record("flax", flax.__version__, path, layout, weighs="old", momentum_default=linen.BatchNorm().momentum,
                     eps_default=linen.BatchNorm().epsilon, eps=layer.epsilon, precision="float64", train=train,
                     evaluate=lambda x: layer.apply({"params": params, "batch_stats": holder["stats"]}, jnp.array(x),
                                                    use_running_average=True),
                     state=lambda: (holder["stats"]["mean"], holder["stats"]["var"]),
                     one_value=lambda: after_one_value(one_value), dropout=dropped)
        dropped = None
    layer = nnx.BatchNorm(3, momentum=1 - NEW, dtype=jnp.float64, param_dtype=jnp.float64, rngs=nnx.Rngs(0))
    new = nnx.BatchNorm(3, rngs=nnx.Rngs(0))
    layer.scale.value, layer.bias.value = jnp.array(WEIGHT), jnp.array(BIAS)
    yield record("flax", flax.__version__, "nnx, (N, C)", "NC", weighs="old", momentum_default=new.momentum,
                 eps_default=new.epsilon, eps=layer.epsilon, precision="float64",
                 train=lambda x: layer(jnp.array(x), use_running_average=False),
                 evaluate=lambda x: layer(jnp.array(x), use_running_average=True),
                 state=lambda: (np.array(layer.mean.value), np.array(layer.var.value)),
                 one_value=lambda: after_one_value(one_value), dropout=None)


def haiku_rows():
    import haiku
    import jax
    import jax.numpy as jnp

    jax.config.update("jax_enable_x64", True)
    function = haiku.transform_with_state(
        lambda x, train: haiku.BatchNorm(True, True, decay_rate=1 - NEW, name="bn")(x, is_training=train))
    dropped = dropout("hk.dropout(key, 0.25, x)", lambda x, rate: haiku.dropout(jax.random.key(1), rate, jnp.array(x)))
    for layout, path in (("NC", "(N, C)"), ("NHWC", "images")):
        params, state = function.init(jax.random.key(0), jnp.array(batches(layout)[0]), True)
        params = {"bn": {"scale": jnp.array(WEIGHT).reshape(params["bn"]["scale"].shape),
                         "offset": jnp.array(BIAS).reshape(params["bn"]["offset"].shape)}}
        holder = {"state": state}

        def call(x, train):
            y, holder["state"] = function.apply(params, holder["state"], None, jnp.array(x), train)
            return y

        yield record("haiku", haiku.__version__, path, layout, weighs="old", momentum_default=None, eps_default=1e-5, eps=1e-5,
                     precision="float64", debias=1 - NEW, initial=ZEROS, train=lambda x: call(x, True), evaluate=lambda x: call(x, False),
                     state=lambda: [holder["state"][f"bn/~/{which}_ema"]["average"] for which in ("mean", "var")],
                     one_value=None, dropout=dropped)
        dropped = None


def equinox_rows():
    import equinox
    import jax
    import jax.numpy as jnp

    jax.config.update("jax_enable_x64", True)
    dropped = dropout("eqx.nn.Dropout(0.25)", lambda x, p: equinox.nn.Dropout(p)(jnp.array(x), key=jax.random.key(1)))

    def make():
        return equinox.nn.make_with_state(equinox.nn.BatchNorm)(3, axis_name="batch", mode="batch", momentum=1 - NEW)

    def call(layer, state, x, inference):
        one = lambda x, state: layer(x, state, inference=inference)
        return jax.vmap(one, axis_name="batch", in_axes=(0, None), out_axes=(0, None))(jnp.array(x), state)

    def one_value(x):
        layer, state = make()
        return call(layer, state, x, False)[1].get(layer.batch_state_index)[1]

    for layout, path in (("NC", '"batch", (N, C)'), ("NCHW", '"batch", NCHW')):
        layer, state = make()
        layer = equinox.tree_at(lambda layer: (layer.weight, layer.bias), layer, (jnp.array(WEIGHT), jnp.array(BIAS)))
        holder = {"state": state}

        def train(x):
            y, holder["state"] = call(layer, holder["state"], x, False)
            return y

        def debiased():
            scale = 1 - (1 - NEW) ** int(holder["state"].get(layer.batch_counter))
            return [value / scale for value in holder["state"].get(layer.batch_state_index)]

        yield record("equinox", equinox.__version__, path, layout, weighs="old", momentum_default=0.99, eps_default=1e-5,
                     eps=layer.eps, precision="float64", debias=1 - NEW, initial={"mean": [0.0] * 3, "var": [1.0] * 3}, train=train,
                     evaluate=lambda x: call(layer, holder["state"], x, True)[0], state=debiased,
                     one_value=lambda: after_one_value(one_value), dropout=dropped)
        dropped = None


def tinygrad_rows():
    from importlib.metadata import version
    from tinygrad import Context, Tensor, nn

    def drop(x, p):
        with Context(TRAINING=1):
            # The zeros make a constant, which Dropout(1) gives, something to compute on any device.
            return (Tensor(x).dropout(p) + Tensor(np.zeros_like(x))).numpy()

    def one_value(x):
        layer = nn.BatchNorm(3, momentum=NEW)
        with Context(TRAINING=1):
            layer(Tensor(x.astype(np.float32))).realize()
        return layer.running_var.numpy()

    dropped = dropout("x.dropout(0.25)", drop)
    for layout, path in (("NC", "(N, C)"), ("NCHW", "NCHW")):
        layer, new = nn.BatchNorm(3, momentum=NEW), nn.BatchNorm(3)
        layer.weight, layer.bias = Tensor(WEIGHT), Tensor(BIAS)

        def call(x, train):
            with Context(TRAINING=int(train)):
                return layer(Tensor(x.astype(np.float32))).numpy()

        yield record("tinygrad", version("tinygrad"), path, layout, weighs="new", momentum_default=new.momentum,
                     eps_default=new.eps, eps=layer.eps, precision="float32", train=lambda x: call(x, True),
                     evaluate=lambda x: call(x, False), state=lambda: (layer.running_mean.numpy(), layer.running_var.numpy()),
                     one_value=lambda: after_one_value(one_value), dropout=dropped)
        dropped = None


def onnx_rows():
    import onnxruntime
    from onnx import TensorProto, helper

    def session(shape, training):
        outputs = ["y", "new_mean", "new_var"] if training else ["y"]
        node = helper.make_node("BatchNormalization", ["x", "scale", "b", "mean", "var"], outputs, momentum=1 - NEW,
                                training_mode=int(training))
        value = lambda name, shape: helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
        graph = helper.make_graph([node], "g", [value("x", shape), *(value(name, [3]) for name in ("scale", "b", "mean", "var"))],
                                  [value("y", shape), *(value(name, [3]) for name in outputs[1:])])
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 15)], ir_version=8)
        return onnxruntime.InferenceSession(model.SerializeToString())

    def feed(x, stats):
        return {"x": x.astype(np.float32), "scale": np.float32(WEIGHT), "b": np.float32(BIAS), "mean": np.float32(stats[0]),
                "var": np.float32(stats[1])}

    def one_value(x):
        return session(x.shape, True).run(None, feed(x, ([0] * 3, [1] * 3)))[2]

    def drop(x, ratio):
        node = helper.make_node("Dropout", ["x", "ratio", "training"], ["y"], seed=1)
        graph = helper.make_graph(
            [node], "g", [helper.make_tensor_value_info("x", TensorProto.FLOAT, x.shape)],
            [helper.make_tensor_value_info("y", TensorProto.FLOAT, x.shape)],
            [helper.make_tensor("ratio", TensorProto.FLOAT, [], [ratio]), helper.make_tensor("training", TensorProto.BOOL, [], [True])])
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
        return onnxruntime.InferenceSession(model.SerializeToString()).run(None, {"x": x})[0]

    dropped = dropout("Dropout, ratio 0.25", drop)
    for layout, path in (("NC", "(N, C)"), ("NCHW", "NCHW")):
        training, inference = session(SHAPES[layout], True), session(SHAPES[layout], False)
        stats = [np.zeros(3), np.ones(3)]

        def train(x):
            y, *stats[:] = training.run(None, feed(x, stats))
            return y

        yield record("ONNX opset 15 in onnxruntime", onnxruntime.__version__, path, layout, weighs="old", momentum_default=0.9,
                     eps_default=1e-5, eps=1e-5, precision="float32", train=train,
                     evaluate=lambda x: inference.run(None, feed(x, stats))[0], state=lambda: (stats[0].copy(), stats[1].copy()),
                     one_value=lambda: after_one_value(one_value), dropout=dropped)
        dropped = None


def paddle_rows():
    import paddle

    def one_value(x):
        layer = paddle.nn.BatchNorm1D(3, momentum=1 - NEW)
        layer(paddle.to_tensor(x.astype(np.float32)))
        return layer._variance.numpy()

    dropped = dropout("nn.Dropout(0.25)", lambda x, p: paddle.nn.Dropout(p)(paddle.to_tensor(x)).numpy())
    for layout, path, of, format in (("NC", "(N, C)", paddle.nn.BatchNorm1D, "NC"), ("NCHW", "NCHW", paddle.nn.BatchNorm2D, "NCHW"),
                                     ("NHWC", "NHWC", paddle.nn.BatchNorm2D, "NHWC")):
        layer, new = of(3, momentum=1 - NEW, data_format=format), of(3)
        layer.weight.set_value(np.float32(WEIGHT))
        layer.bias.set_value(np.float32(BIAS))

        def call(x, train):
            layer.train() if train else layer.eval()
            with paddle.no_grad():
                return layer(paddle.to_tensor(x.astype(np.float32))).numpy()

        yield record("Paddle", paddle.__version__, path, layout, weighs="old", momentum_default=new._momentum,
                     eps_default=new._epsilon, eps=layer._epsilon, precision="float32", train=lambda x: call(x, True),
                     evaluate=lambda x: call(x, False), state=lambda: (layer._mean.numpy().copy(), layer._variance.numpy().copy()),
                     one_value=lambda: after_one_value(one_value), dropout=dropped)
        dropped = None


def mxnet_rows():
    np.bool = bool  # what numpy removed in 1.24
    import mxnet

    def drop(x, p):
        layer = mxnet.gluon.nn.Dropout(p)
        with mxnet.autograd.record():
            return layer(mxnet.nd.array(x)).asnumpy()

    def make(layout):
        layer = mxnet.gluon.nn.BatchNorm(axis=layout.index("C"), momentum=1 - NEW, in_channels=3)
        layer.initialize()
        layer.gamma.set_data(mxnet.nd.array(WEIGHT))
        layer.beta.set_data(mxnet.nd.array(BIAS))
        return layer

    def step(layer, x):
        x = mxnet.nd.array(x, dtype="float32")
        x.attach_grad()
        with mxnet.autograd.record():
            y = layer(x)
        # The running statistics move here, and not in the forward pass.
        y.backward()
        return y.asnumpy()

    def one_value(x):
        layer = make("NC")
        step(layer, x)
        return layer.running_var.data().asnumpy()

    dropped = dropout("gluon.nn.Dropout(0.25)", drop)
    for layout, path in (("NC", "gluon, (N, C)"), ("NCHW", "gluon, NCHW")):
        layer, new = make(layout), mxnet.gluon.nn.BatchNorm()
        yield record("MXNet", mxnet.__version__, path, layout, weighs="old", momentum_default=new._kwargs["momentum"],
                     eps_default=new._kwargs["eps"], eps=layer._kwargs["eps"], precision="float32",
                     train=lambda x: step(layer, x), evaluate=lambda x: layer(mxnet.nd.array(x, dtype="float32")).asnumpy(),
                     state=lambda: (layer.running_mean.data().asnumpy(), layer.running_var.data().asnumpy()),
                     one_value=lambda: after_one_value(one_value), dropout=dropped)
        dropped = None

    class Operator:
        """The operator as `nd` has it, without its default of weights that are 1."""

        def __init__(self):
            arrays = (WEIGHT, BIAS, [0.0] * 3, [1.0] * 3)
            self.gamma, self.beta, self.mean, self.var = (mxnet.nd.array(values) for values in arrays)

        def __call__(self, x):
            return mxnet.nd.BatchNorm(x, self.gamma, self.beta, self.mean, self.var, momentum=1 - NEW, fix_gamma=False)

    def one_value_of_operator(x):
        layer = Operator()
        step(layer, x)
        return layer.var.asnumpy()

    defaults = dict(re.findall(r"(\w+) : \w+, optional, default=(\S+)", mxnet.nd.BatchNorm.__doc__))
    momentum, eps = round(float(defaults["momentum"]), 6), round(float(defaults["eps"]), 6)
    operator = Operator()
    evaluate = lambda x: operator(mxnet.nd.array(x, dtype="float32")).asnumpy()
    yield record("MXNet", mxnet.__version__, "nd, NCHW, fix_gamma off", "NCHW", weighs="old", momentum_default=momentum,
                 eps_default=eps, eps=eps, precision="float32", train=lambda x: step(operator, x), evaluate=evaluate,
                 state=lambda: (operator.mean.asnumpy(), operator.var.asnumpy()),
                 one_value=lambda: after_one_value(one_value_of_operator), dropout=None)


def objax_rows():
    import objax
    import jax.numpy as jnp
    from importlib.metadata import version

    dropped = dropout("objax.nn.Dropout(0.25)",
                      lambda x, keep: objax.nn.Dropout(keep)(jnp.array(x), training=True), everything=0.0)
    layer, new = objax.nn.BatchNorm((1, 3), (0,), momentum=1 - NEW), objax.nn.BatchNorm((1, 3), (0,))
    layer.gamma.assign(jnp.array([WEIGHT]))
    layer.beta.assign(jnp.array([BIAS]))

    def one_value(x):
        layer = objax.nn.BatchNorm((1, 3), (0,), momentum=1 - NEW)
        layer(jnp.array(x), training=True)
        return layer.running_var.value

    yield record("objax", version("objax"), "(N, C)", "NC", weighs="old", momentum_default=new.momentum, eps_default=new.eps,
                 eps=layer.eps, precision="float32", train=lambda x: layer(jnp.array(x, jnp.float32), training=True),
                 evaluate=lambda x: layer(jnp.array(x, jnp.float32), training=False),
                 state=lambda: (layer.running_mean.value, layer.running_var.value),
                 one_value=lambda: after_one_value(one_value), dropout=dropped)


def chainer_rows():
    import chainer

    def one_value(x):
        layer = chainer.links.BatchNormalization(3, decay=1 - NEW)
        with chainer.using_config("train", True):
            layer(x.astype(np.float32))
        return layer.avg_var

    def drop(x, ratio):
        with chainer.using_config("train", True):
            return chainer.functions.dropout(x, ratio).array

    dropped = dropout("F.dropout(x, 0.25)", drop)
    for layout, path in (("NC", "(N, C)"), ("NCHW", "NCHW")):
        layer = chainer.links.BatchNormalization(3, decay=1 - NEW, dtype=np.float64)
        new = chainer.links.BatchNormalization(3)
        layer.gamma.array[:], layer.beta.array[:] = WEIGHT, BIAS

        def call(x, train):
            with chainer.using_config("train", train):
                return layer(x).array

        yield record("chainer", chainer.__version__, path, layout, weighs="old", momentum_default=new.decay, eps_default=new.eps,
                     eps=layer.eps, precision="float64", train=lambda x: call(x, True), evaluate=lambda x: call(x, False),
                     state=lambda: (layer.avg_mean.copy(), layer.avg_var.copy()), one_value=lambda: after_one_value(one_value),
                     dropout=dropped)
        dropped = None


def mlx_rows():
    import mlx.core as mx
    import mlx.nn as nn
    from importlib.metadata import version

    def one_value(x):
        layer = nn.BatchNorm(3, momentum=NEW)
        layer(mx.array(x.astype(np.float32)))
        return np.array(layer.running_var)

    dropped = dropout("nn.Dropout(0.25)", lambda x, p: np.array(nn.Dropout(p)(mx.array(x))))
    for layout, path in (("NC", "(N, C)"), ("NHWC", "NHWC")):
        layer, new = nn.BatchNorm(3, momentum=NEW), nn.BatchNorm(3)
        layer.weight, layer.bias = mx.array(WEIGHT), mx.array(BIAS)

        def call(x, train):
            layer.train(train)
            return np.array(layer(mx.array(x.astype(np.float32))))

        # The variance of the average is another one since 0.32.1.
        old = tuple(map(int, version("mlx").split("."))) < (0, 32, 1)
        yield record("MLX (old)" if old else "MLX", version("mlx"), path, layout, weighs="new", momentum_default=new.momentum, eps_default=new.eps,
                     eps=layer.eps, precision="float32", train=lambda x: call(x, True), evaluate=lambda x: call(x, False),
                     state=lambda: (np.array(layer.running_mean), np.array(layer.running_var)),
                     one_value=lambda: after_one_value(one_value), dropout=dropped)
        dropped = None


TFJS = r"""
const tf = require("@tensorflow/tfjs");
const layers = {};
const answer = {
    make({name, axis, momentum, weight, bias}) {
        const layer = tf.layers.batchNormalization(momentum === null ? {} : {axis, momentum});
        layers[name] = layer;
        if (weight) {
            layer.apply(tf.zeros([2, 2, 2, 2].slice(axis === 1 ? 2 : 0).fill(3, -1)), {training: false});
            layer.setWeights([tf.tensor(weight), tf.tensor(bias), ...layer.getWeights().slice(2)]);
        }
        return {momentum: layer.momentum, eps: layer.epsilon};
    },
    call({name, x, shape, training}) {
        const y = layers[name].apply(tf.tensor(x, shape), {training});
        const [mean, variance] = layers[name].getWeights().slice(2);
        return {y: [...y.dataSync()], mean: [...mean.dataSync()], var: [...variance.dataSync()]};
    },
    state({name}) {
        const [mean, variance] = layers[name].getWeights().slice(2);
        return {mean: [...mean.dataSync()], var: [...variance.dataSync()]};
    },
    drop({rate, x, shape}) {
        // JSON has no infinity.
        const values = tf.fill(shape, x === null ? Infinity : x);
        const y = [...tf.layers.dropout({rate}).apply(values, {training: true}).dataSync()];
        return {y: y.map((value) => Number.isFinite(value) ? value : String(value))};
    },
};
tf.setBackend("cpu").then(() => require("readline").createInterface({input: process.stdin}).on("line", (line) => {
    const {op, ...of} = JSON.parse(line);
    console.log(JSON.stringify(answer[op](of)));
}));
"""


def tfjs_rows():
    import subprocess

    process = subprocess.Popen(["node", "-e", TFJS], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    installed = Path(os.environ["NODE_PATH"]) / "@tensorflow" / "tfjs" / "package.json"
    version = json.loads(installed.read_text())["version"]

    def ask(op, **of):
        process.stdin.write(json.dumps({"op": op, **of}) + "\n")
        process.stdin.flush()
        while not (line := process.stdout.readline()).startswith("{"):
            assert line, "node has ended"
        return json.loads(line)

    def one_value(x):
        ask("make", name="one", axis=1, momentum=1 - NEW, weight=WEIGHT, bias=BIAS)
        return ask("call", name="one", x=numbers(x), shape=x.shape, training=True)["var"]

    def drop(x, rate):
        value = float(x.ravel()[0])
        y = ask("drop", rate=rate, x=value if math.isfinite(value) else None, shape=x.shape)["y"]
        return np.array([float(value) for value in y]).reshape(x.shape)

    default = ask("make", name="default", axis=1, momentum=None, weight=None, bias=None)
    dropped = dropout("layers.dropout({rate: 0.25})", drop)
    for layout, path in (("NC", "(N, C)"), ("NHWC", "images")):
        of = ask("make", name=path, axis=layout.index("C"), momentum=1 - NEW, weight=WEIGHT, bias=BIAS)
        call = lambda x, training: ask("call", name=path, x=numbers(x), shape=x.shape, training=training)["y"]
        state = lambda: [ask("state", name=path)[name] for name in ("mean", "var")]
        yield record("TF.js", version, path, layout, weighs="old", momentum_default=default["momentum"],
                     eps_default=default["eps"], eps=of["eps"], precision="float32", train=lambda x: call(x, True),
                     evaluate=lambda x: call(x, False), state=state, one_value=lambda: after_one_value(one_value), dropout=dropped)
        dropped = None
    process.stdin.close()
    process.wait()


def nnabla_rows():
    import inspect

    import nnabla
    import nnabla.functions as F
    import nnabla.parametric_functions as PF

    defaults = {name: of.default for name, of in inspect.signature(PF.batch_normalization).parameters.items()}

    def run(function, x):
        y = function(nnabla.Variable.from_numpy_array(x.astype(np.float32)))
        y.forward()
        return y.d.copy()

    def make(layout, train):
        """The layer in training or evaluation; its parameters are global."""
        return lambda x: PF.batch_normalization(x, axes=[layout.index("C")], decay_rate=1 - NEW, batch_stat=train)

    def statistics():
        parameters = nnabla.get_parameters(grad_only=False)
        return [parameters[f"bn/{name}"].d.ravel().copy() for name in ("mean", "var")]

    def one_value(x):
        nnabla.clear_parameters()
        run(make("NC", True), x)
        return statistics()[1]

    dropped = dropout("F.dropout(x, 0.25)", lambda x, p: run(lambda x: F.dropout(x, p), x))
    one = after_one_value(one_value)
    for layout, path in (("NC", "(N, C)"), ("NCHW", "NCHW"), ("NHWC", "NHWC")):
        nnabla.clear_parameters()
        make(layout, True)(nnabla.Variable(SHAPES[layout]))
        parameters = nnabla.get_parameters(grad_only=False)
        for name, values in (("gamma", WEIGHT), ("beta", BIAS)):
            parameters[f"bn/{name}"].d = np.reshape(values, parameters[f"bn/{name}"].shape)
        yield record("nnabla", nnabla.__version__, path, layout, weighs="old", momentum_default=defaults["decay_rate"],
                     eps_default=defaults["eps"], eps=defaults["eps"], precision="float32",
                     train=lambda x: run(make(layout, True), x), evaluate=lambda x: run(make(layout, False), x),
                     state=statistics, one_value=one, dropout=dropped)
        dropped = None


def megengine_rows():
    import megengine
    from megengine import module

    def one_value(x):
        layer = module.BatchNorm1d(3, momentum=1 - NEW)
        layer.train()
        layer(megengine.Tensor(x.astype(np.float32)))
        return layer.running_var.numpy()

    def drop(x, p):
        layer = module.Dropout(p)
        layer.train()
        return layer(megengine.Tensor(x)).numpy()

    dropped = dropout("module.Dropout(0.25)", drop)
    for layout, path, of in (("NC", "(N, C)", module.BatchNorm1d), ("NCHW", "NCHW", module.BatchNorm2d)):
        layer, new = of(3, momentum=1 - NEW), of(3)
        for parameter, values in ((layer.weight, WEIGHT), (layer.bias, BIAS)):
            parameter[...] = megengine.Tensor(np.float32(values).reshape(parameter.shape))

        def call(x, train):
            layer.train(train)
            return layer(megengine.Tensor(x.astype(np.float32))).numpy()

        yield record("MegEngine", megengine.__version__, path, layout, weighs="old", momentum_default=new.momentum,
                     eps_default=new.eps, eps=layer.eps, precision="float32", train=lambda x: call(x, True),
                     evaluate=lambda x: call(x, False),
                     state=lambda: (layer.running_mean.numpy().ravel(), layer.running_var.numpy().ravel()),
                     one_value=lambda: after_one_value(one_value), dropout=dropped)
        dropped = None


def mindspore_rows():
    import mindspore
    from mindspore import Tensor, nn

    mindspore.set_context(device_target="CPU")

    def one_value(x):
        layer = nn.BatchNorm1d(3, momentum=1 - NEW)
        layer.set_train()
        layer(Tensor(x.astype(np.float32)))
        return layer.moving_variance.asnumpy()

    def drop(x, number):
        layer = nn.Dropout(p=number)
        layer.set_train()
        return layer(Tensor(x)).asnumpy()

    dropped = dropout("nn.Dropout(p=0.25)", drop)
    for layout, path, of in (("NC", "(N, C)", nn.BatchNorm1d), ("NCHW", "NCHW", nn.BatchNorm2d)):
        layer, new = of(3, momentum=1 - NEW), of(3)
        layer.gamma.set_data(Tensor(np.float32(WEIGHT)))
        layer.beta.set_data(Tensor(np.float32(BIAS)))

        def call(x, train):
            layer.set_train(train)
            return layer(Tensor(x.astype(np.float32))).asnumpy()

        yield record("MindSpore", mindspore.__version__, path, layout, weighs="old",
                     # The attribute is 1 minus the argument.
                     momentum_default=round(1 - new.momentum, 9), eps_default=new.eps, eps=layer.eps, precision="float32",
                     train=lambda x: call(x, True), evaluate=lambda x: call(x, False),
                     state=lambda: (layer.moving_mean.asnumpy().copy(), layer.moving_variance.asnumpy().copy()),
                     one_value=lambda: after_one_value(one_value), dropout=dropped)
        dropped = None


def main():
    parser = argparse.ArgumentParser(description="Records what batch norm and dropout of a framework do.")
    parser.add_argument("frameworks", nargs="*", choices=[[], *ENVIRONMENTS], help="those to run")
    parser.add_argument("--list", action="store_true", help="print the packages with which the rows were recorded")
    arguments = parser.parse_args()
    if arguments.list:
        for name, packages in ENVIRONMENTS.items():
            print(f"{name:<10} {packages}")
        return
    file = json.loads(FILE.read_text()) if FILE.exists() else {"rows": []}
    rows = file["rows"]
    for name in arguments.frameworks:
        made = list(globals()[f"{name}_rows"]())
        names = {row["framework"] for row in made}
        rows = [row for row in rows if row["framework"] not in names] + made
    rows.sort(key=lambda row: (row["framework"].lower(), row["path"]))
    data = {layout: {"shape": shape, "batches": [numbers(x) for x in batches(layout)]} for layout, shape in SHAPES.items()}
    clean = lambda value: value if not isinstance(value, float) or math.isfinite(value) else str(value)
    assert all(clean(number) is number for row in rows for number in row["eval"]), "a NaN in an evaluation"
    # A line for each batch and each row: differences of a new version are easily seen.
    lines = lambda items: ",\n".join(json.dumps(item) for item in items)
    layouts = ",\n".join(f"{json.dumps(layout)}: {json.dumps(of)}" for layout, of in data.items())
    FILE.write_text(f'{{"format": 1,\n"data": {{\n{layouts}\n}},\n"rows": [\n{lines(rows)}\n]}}\n')


if __name__ == "__main__":
    sys.exit(main())
