#!/usr/bin/env bash
# hls4ml: the scale of a batch norm with a variance of 1e-6 becomes -18.5
#
# A good guess: a scale that the default precision does not have is cut off at its ends, or the
# conversion warns, as it computes the scale itself.
# Seen: hls4ml 1.3.0 with its default ap_fixed<16,6>: the scale 1/sqrt(1e-6 + 1e-5) = 301.5 is outside
# of -32 to 32 and wraps to -18.5, without a warning: -0.01 becomes +0.2 instead of -3.
# Why it matters here: PyTorch and ONNX have an eps of 1e-5, so that every channel with a variance below
# 0.001 leaves these 6 bits, and its sign is chance; look at the scales before the precision is chosen.
# Needs g++ and Python 3.11 or newer; installs hls4ml==1.3.0, qonnx==1.0.0, onnx==1.23.2, numpy==2.4.6 in a
# temporary folder.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check hls4ml==1.3.0 qonnx==1.0.0 onnx==1.23.2 numpy==2.4.6
WORK=$work "$work/venv/bin/python" -W ignore - <<'PYTHON'
import contextlib, io, os, tempfile

import hls4ml, numpy as np, onnx
from onnx import TensorProto, helper, numpy_helper
from qonnx.core.modelwrapper import ModelWrapper
from qonnx.util.cleanup import cleanup_model

def run(variance):
    constants = [numpy_helper.from_array(np.full(2, number, np.float32), name) for name, number in zip("sbmv", (1, 0, 0, variance))]
    shapes = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 2]) for name in "xy"]
    node = helper.make_node("BatchNormalization", list("xsbmv"), ["y"], epsilon=1e-5)
    model = helper.make_model(helper.make_graph([node], "g", shapes[:1], shapes[1:], constants), opset_imports=[helper.make_opsetid("", 15)], ir_version=8)
    onnx.checker.check_model(model)
    with tempfile.TemporaryDirectory(dir=os.environ["WORK"]) as folder, contextlib.redirect_stdout(io.StringIO()):
        wrapper = cleanup_model(ModelWrapper(model))
        config = hls4ml.utils.config_from_onnx_model(wrapper, granularity="name", backend="Vivado")
        converted = hls4ml.converters.convert_from_onnx_model(wrapper, hls_config=config, output_dir=folder, backend="Vivado")
        norm, = (layer for layer in converted.get_layers() if layer.class_name == "BatchNormalization")
        converted.compile()
        return config["Model"]["Precision"], norm.weights["scale"].data[0], converted.predict(np.array([[0.5, -0.01]], np.float32)).ravel()

precision, scale, (_, small) = run(1e-6)
_, unit, (half, _) = run(1.0)
print(f"hls4ml {hls4ml.__version__}, {precision}: a scale of {unit:.3f} makes {half:.3f} of 0.5; a scale of {scale:.1f} makes {small:.3f} of -0.01")
assert abs(half - 0.5) < 0.01 and abs(scale - 301.5) < 0.1
assert abs(small - 0.19) < 0.03, "the scale does not wrap now"
PYTHON
