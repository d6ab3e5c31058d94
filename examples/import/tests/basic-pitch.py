#!/usr/bin/env python3
"""basic-pitch, a network that transcribes music, as its package ships it: once as TensorFlow SavedModel with its batch
norms, once as ONNX with two of the three folded. Not in the gate: it needs TensorFlow.

    pip install tensorflow-cpu==2.21.0 onnx==1.23.2 numpy
    pip install --no-deps basic-pitch==0.4.0
    python basic-pitch.py

Stores the variables of the SavedModel as arrays, folds them with this program, and compares with the weights and biases
of the ONNX file, which its converters folded. Fails if they differ by more than 1e-6 of the largest weight of their
layer, or if the unfolded weights were as near. The first batch norm stands before a stacking of shifted copies and
stays in all files.
"""

import importlib.util
import json
import os
import subprocess
import tempfile
from pathlib import Path

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
import numpy as np
import onnx
import tensorflow as tf
from onnx import numpy_helper

HERE = Path(__file__).resolve().parent
FOLDER = Path(importlib.util.find_spec("basic_pitch").origin).parent / "saved_models" / "icassp_2022"
# The layers with weights in the order of the SavedModel, and the outputs of the convolutions that are behind them in the ONNX file.
LAYERS = {"norm": 0, "conv_a": 1, "bn_a": 2, "conv_b": 5, "bn_b": 6}
FOLDED = {"conv_a": "bn_a", "conv_b": "bn_b"}

reader = tf.train.load_checkpoint(str(FOLDER / "nmp" / "variables" / "variables"))
variable = lambda layer, part: reader.get_tensor(f"layer_with_weights-{LAYERS[layer]}/{part}/.ATTRIBUTES/VARIABLE_VALUE")
arrays = {}
for layer in LAYERS:
    if "conv" in layer:
        arrays |= {f"params/{layer}/{part}": variable(layer, part) for part in ("kernel", "bias")}
    else:
        arrays |= {f"params/{layer}/{mine}": variable(layer, its) for mine, its in (("scale", "gamma"), ("bias", "beta"))}
        arrays |= {f"batch_stats/{layer}/{mine}": variable(layer, f"moving_{its}") for mine, its in (("mean", "mean"), ("var", "variance"))}

constants = [numpy_helper.to_array(tensor) for tensor in onnx.load(FOLDER / "nmp.onnx").graph.initializer]
with tempfile.TemporaryDirectory() as work:
    np.savez(f"{work}/in.npz", **arrays)
    # The eps is in the graph alone: 1e-3, Keras' default.
    command = ["cargo", "run", "--quiet", "--manifest-path", str(HERE.parent / "Cargo.toml"), "--", f"{work}/in.npz",
               "--eps", "0.001", "--out", f"{work}/out.safetensors"]
    for layer, batch_norm in FOLDED.items():
        command += ["--previous", f"{batch_norm}={layer}"]
    print(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    # The file of safetensors: the length of its header, the header, the numbers.
    data = Path(f"{work}/out.safetensors").read_bytes()
    start = 8 + int.from_bytes(data[:8], "little")
    tensors = {name: np.frombuffer(data[start + of["data_offsets"][0]:start + of["data_offsets"][1]], np.float32).reshape(of["shape"])
               for name, of in json.loads(data[8:start]).items() if name != "__metadata__"}

for layer, batch_norm in FOLDED.items():
    weight = lambda values: values.transpose(3, 2, 0, 1)
    for part, before, after in (("weight", weight(variable(layer, "kernel")), weight(tensors[f"{layer}.weight"])),
                                ("bias", variable(layer, "bias"), tensors[f"{layer}.bias"])):
        same = [constant for constant in constants if constant.shape == before.shape and constant.dtype == np.float32]
        nearest = lambda values: min(float(abs(values - constant).max() / abs(constant).max()) for constant in same)
        folded, unfolded = nearest(after), nearest(before)
        print(f"{layer}.{part}, {before.shape}: folded {folded:.1e} from the ONNX file, before {unfolded:.1e}")
        assert folded < 1e-6 < 1e-2 < unfolded
