#!/usr/bin/env python3
"""basic-pitch, a network that transcribes music, as its package ships it: once as TensorFlow SavedModel with its batch
norms, and as ONNX, TFLite and Core ML with two of the three folded. Not in the gate: it needs TensorFlow.

    pip install tensorflow-cpu==2.21.0 ai-edge-litert==2.3.0 onnx==1.23.2 numpy
    pip install --no-deps basic-pitch==0.4.0
    python basic-pitch.py

Gives the folder of the SavedModel to this program, which finds the two pairs by itself, and compares with the weights and
biases of the other files, which their converters folded. Fails if they differ by more than 1e-6 of the largest weight
of their layer, if the unfolded weights were as near, or if a layer that is not folded has not the numbers that TensorFlow
reads. The first batch norm stands before a stacking of shifted copies and stays in all files.
"""

import importlib.util
import json
import os
import struct
import subprocess
import tempfile
from pathlib import Path

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
import numpy as np
import onnx
import tensorflow as tf
from ai_edge_litert.interpreter import Interpreter
from onnx import numpy_helper

HERE = Path(__file__).resolve().parent
FOLDER = Path(importlib.util.find_spec("basic_pitch").origin).parent / "saved_models" / "icassp_2022"
# The layers with weights by their number in the SavedModel, and the batch norms that are folded.
LAYERS = {"conv2d_1": 1, "contours-reduced": 3, "conv2d_2": 4, "conv2d_4": 5, "conv2d_3": 7, "conv2d_5": 8}
FOLDED = {"conv2d_1": "batch_normalization_2", "conv2d_4": "batch_normalization_3"}

reader = tf.train.load_checkpoint(str(FOLDER / "nmp" / "variables" / "variables"))
variable = lambda layer, part: reader.get_tensor(f"layer_with_weights-{LAYERS[layer]}/{part}/.ATTRIBUTES/VARIABLE_VALUE")

with tempfile.TemporaryDirectory() as work:
    # The eps is in the graph alone: 1e-3, Keras' default.
    command = ["cargo", "run", "--quiet", "--manifest-path", str(HERE.parent / "Cargo.toml"), "--", str(FOLDER / "nmp"),
               "--eps", "0.001", "--out", f"{work}/out.safetensors"]
    printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    print(printed)
    for layer, batch_norm in FOLDED.items():
        assert f"  {batch_norm}: {variable(layer, 'bias').size} channels, eps 1e-3, folded into {layer}, before it\n" in printed
    # The file of safetensors: the length of its header, the header, the numbers.
    data = Path(f"{work}/out.safetensors").read_bytes()
start = 8 + int.from_bytes(data[:8], "little")
tensors = {name: np.frombuffer(data[start + of["data_offsets"][0]:start + of["data_offsets"][1]], np.float32).reshape(of["shape"])
           for name, of in json.loads(data[8:start]).items() if name != "__metadata__"}
for layer in LAYERS.keys() - FOLDED.keys():
    for part, name in (("kernel", "weight"), ("bias", "bias")):
        assert np.array_equal(variable(layer, part), tensors[f"{layer}.{name}"]), layer


def of_onnx():
    return [numpy_helper.to_array(tensor) for tensor in onnx.load(FOLDER / "nmp.onnx").graph.initializer]


def of_tflite():
    interpreter, constants = Interpreter(str(FOLDER / "nmp.tflite")), []
    interpreter.allocate_tensors()
    for tensor in interpreter.get_tensor_details():
        try:
            constants.append(interpreter.get_tensor(tensor["index"]))
        except ValueError:  # what is computed has no numbers yet
            pass
    return constants


def of_core_ml():
    """Large constants, without their dimensions: numbers of f32 from the places that a chain of headers names, each
    of `0xDEADBEEF`, the type (2), the bytes and the place. Constants of fewer than ten numbers are in the model itself.
    """
    folder = FOLDER / "nmp.mlpackage" / "Data" / "com.apple.CoreML"
    file, constants, at = (folder / "weights" / "weight.bin").read_bytes(), [], 64
    for _ in range(struct.unpack("<I", file[:4])[0]):
        magic, kind, size, place = struct.unpack("<IIQQ", file[at:at + 24])
        assert (magic, kind) == (0xDEADBEEF, 2)
        constants.append(np.frombuffer(file[place:place + size], np.float32))
        at = (place + size + 63) // 64 * 64
    model = (folder / "model.mlmodel").read_bytes()
    for offset in range(4):
        numbers = np.frombuffer(model[offset:offset + (len(model) - offset) // 4 * 4], np.float32)
        constants.extend(np.lib.stride_tricks.sliding_window_view(numbers, variable("conv2d_1", "bias").size))
    return constants


# Keras has [h, w, in, out], ONNX and Core ML [out, in, h, w], TFLite [out, h, w, in].
for name, constants, axes in (("ONNX", of_onnx(), (3, 2, 0, 1)), ("TFLite", of_tflite(), (3, 0, 1, 2)), ("Core ML", of_core_ml(), (3, 2, 0, 1))):
    for layer in FOLDED:
        weight = lambda values: values.transpose(axes)
        for part, before, after in (("weight", weight(variable(layer, "kernel")), weight(tensors[f"{layer}.weight"])),
                                    ("bias", variable(layer, "bias"), tensors[f"{layer}.bias"])):
            shape = before.shape if name != "Core ML" else (before.size,)
            same = [constant for constant in constants if constant.shape == shape and constant.dtype == np.float32]
            finite = [constant.reshape(before.shape) for constant in same if np.isfinite(constant).all() and abs(constant).max() < 1e10]
            nearest = lambda values: min(float(abs(values - constant).max() / abs(values).max()) for constant in finite)
            folded, unfolded = nearest(after), nearest(before)
            print(f"{layer}.{part}, {before.shape}: folded {folded:.1e} from the {name} file, before {unfolded:.1e}")
            assert folded < 1e-6 < 1e-2 < unfolded
