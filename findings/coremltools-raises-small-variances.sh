#!/usr/bin/env bash
# Core ML Tools: a running variance of 1e-9 becomes 6e-8 in a float16 model, while 1e5 keeps float32
#
# A good guess: a batch norm whose statistics float16 does not have stays in float32, whichever way they
# miss it.
# Seen: coremltools 9.0 in its default precision leaves a batch norm with a variance above 65,504 in
# float32, and raises a variance of 1e-9 and an eps of 1e-12 to 6e-8 each, the smallest half: a gain of
# 31,600 becomes one of 2,900, without a warning.
# Why it matters here: channels that hardly vary change by a factor of ten in the conversion; fold in
# f32 before it, or ask for compute_precision FLOAT32.
# Needs Python 3.11 or newer; installs coremltools==9.0, numpy==2.4.6 in a temporary folder.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check coremltools==9.0 numpy==2.4.6
"$work/venv/bin/python" -W ignore - <<'PYTHON'
import logging

logging.disable(logging.WARNING)
import coremltools, numpy as np
from coremltools.converters.mil import Builder

def converted(variance):
    @Builder.program(input_specs=[Builder.TensorSpec(shape=(1, 1, 2, 2))], opset_version=coremltools.target.iOS15)
    def program(x):
        number = lambda value: np.full(1, value, np.float32)
        return Builder.batch_norm(x=x, mean=number(0), variance=number(variance), gamma=number(1), beta=number(0), epsilon=np.float32(1e-12))
    model = coremltools.convert(program, convert_to="mlprogram")
    norm, = model._mil_program.functions["main"].find_ops(op_type="batch_norm")
    return norm.variance.val.dtype.name, float(norm.variance.val[0]), float(norm.epsilon.val)

large, small = converted(1e5), converted(1e-9)
gain = 1 / np.sqrt(small[1] + small[2])
print(f"coremltools {coremltools.__version__}: the variance 1e5 is {large[0]} {large[1]:g}; 1e-9 is {small[0]} {small[1]:.2g} with eps {small[2]:.2g}, a gain of {gain:.0f} instead of {1 / np.sqrt(1e-9 + 1e-12):.0f}")
assert large[:2] == ("float32", 1e5)
assert small[0] == "float16" and abs(small[1] / 5.96e-8 - 1) < 0.01 and abs(gain - 2896) < 20, "a small variance keeps float32 now"
PYTHON
