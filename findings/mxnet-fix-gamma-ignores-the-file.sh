#!/usr/bin/env bash
# MXNet: the weights of a batch norm in a checkpoint are ignored, and the graph does not say so
#
# A good guess: evaluation multiplies by the gamma that is in the .params file.
# Seen: in MXNet 1.9.1 a symbolic BatchNorm has fix_gamma on by default: it multiplies by 1 whatever
# gamma the file has, and the JSON of the graph names neither fix_gamma nor the eps, which is 1e-3.
# Gluon's BatchNorm turns fix_gamma off, and its eps is 1e-5.
# Why it matters here: whoever reads gamma from the .params file without knowing the defaults of the
# operator folds another network.
# Needs Python 3.11; installs mxnet==1.9.1, numpy==1.23.5 in a temporary folder.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check mxnet==1.9.1 numpy==1.23.5
"$work/venv/bin/python" -W ignore - "$work" <<'PYTHON'
import json, sys
import mxnet as mx

prefix = f"{sys.argv[1]}/net"
symbol = mx.sym.BatchNorm(mx.sym.Variable("data"), name="bn")
array = lambda value: mx.nd.array([value])
mx.model.save_checkpoint(prefix, 0, symbol, {"bn_gamma": array(5), "bn_beta": array(0)},
                         {"bn_moving_mean": array(0), "bn_moving_var": array(1)})
symbol, args, aux = mx.model.load_checkpoint(prefix, 0)
node = next(node for node in json.load(open(f"{prefix}-symbol.json"))["nodes"] if node["op"] == "BatchNorm")
in_file = float(args["bn_gamma"].asscalar())
executor = symbol.bind(mx.cpu(), {**args, "data": mx.nd.ones((1, 1))}, aux_states=aux, grad_req="null")
y = float(executor.forward(is_train=False)[0].asscalar())
print(f"MXNet {mx.__version__}: gamma is {in_file} in the file, the graph says {node.get('attrs', {})}, and 1 becomes {y:.6f}")
assert in_file == 5 and not node.get("attrs"), "the file or the graph says it now"
assert abs(y - 1.001 ** -0.5) < 1e-5, "gamma is used, or the eps is another"
PYTHON
