#!/usr/bin/env bash
# Installs the Python peers with pip, each in an environment of its own: about 10 GB, most of it CUDA that is not used.
#
# Usage: setup.sh DIRECTORY
#
# What is there already is left as it is. PYTHON names another interpreter than python3.12; PyTorch 2.4.1 needs 3.8 to 3.12.
set -euo pipefail

python=${PYTHON:-python3.12}
mkdir -p "$1"
cd "$1"

install() {
    local venv=$1
    shift
    [ -e "$venv/installed" ] && return
    "$python" -m venv "$venv"
    "$venv/bin/pip" install --quiet "$@"
    touch "$venv/installed"
}

install torch-2.4.1 torch==2.4.1 'numpy<2'
install torch torch numpy
install jax jax numpy

# oneDNN's own packages for Python are either old (3.2) or need a SYCL runtime. PaddlePaddle's brings a later one with
# OpenMP, of which nothing but this file is used.
install onednn numpy
if [ ! -e libdnnl.so.3 ]; then
    onednn/bin/pip install --quiet --no-deps paddlepaddle==3.3.1
    ln -s onednn/lib/python3*/site-packages/paddle/libs/libdnnl.so.3 libdnnl.so.3
fi
