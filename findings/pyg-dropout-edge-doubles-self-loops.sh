#!/usr/bin/env bash
# PyTorch Geometric: dropout_edge with force_undirected doubles self-loops
#
# A good guess: edges are dropped or stay: what is left has at most as many of each as there were.
# Seen: PyTorch Geometric 2.8.1: with force_undirected it drops edges of one direction and adds the rest
# reversed: a self-loop that stays is there twice. With p = 0.1 a graph of 1000 self-loops has about 1800
# edges; with p = 0 and in evaluation it has 1000.
# Why it matters here: in a graph with self-loops, as GCN adds them, a node's own features weigh twice in
# training; here a mask has no more ones than there are elements. Drop edges first, and add loops afterwards.
# Needs Python 3.11 or newer; installs torch-geometric==2.8.1, torch==2.15.0, numpy==2.4.6 in a temporary
# folder.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check torch-geometric==2.8.1 torch==2.15.0 numpy==2.4.6
"$work/venv/bin/python" -W ignore - <<'PYTHON'
import torch, torch_geometric
from torch_geometric.utils import dropout_edge

torch.manual_seed(0)
loops = torch.arange(1000).repeat(2, 1)
found = {p: dropout_edge(loops, p=p, force_undirected=True)[0] for p in (0.0, 0.1)}
plain = dropout_edge(loops, p=0.1)[0].shape[1]
most = torch.bincount(found[0.1][0]).max().item()
print(f"PyTorch Geometric {torch_geometric.__version__}: of 1000 self-loops {found[0.1].shape[1]} are left, {plain} without force_undirected; the most at one node: {most}")
assert found[0.0].shape[1] == 1000 and 850 < plain < 950
assert 1700 < found[0.1].shape[1] < 1900 and most == 2, "self-loops are not doubled now"
PYTHON
