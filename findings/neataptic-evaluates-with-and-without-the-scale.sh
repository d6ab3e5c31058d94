#!/usr/bin/env bash
# Neataptic: after training with dropout, three ways to evaluate a network give two answers
#
# A good guess: noTraceActivate() and the function that standalone() writes give the output of activate(),
# and only leave out what training needs.
# Seen: Neataptic 1.4.7: training with dropout 0.5 leaves a factor of 0.5 at each hidden node, and only
# activate() applies it: 100 nodes that add up to 1 give 0.5 there, and 1 by the other two.
# Why it matters here: its dropout is not inverted, so that evaluation needs the factor. Weights behind
# a dropout that go to this crate, where it is inverted, have to be multiplied by it.
# Needs Node.js 20 or newer and npm; installs neataptic 1.4.7 in a temporary folder.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
npm install --silent --no-audit --no-fund --ignore-scripts neataptic@1.4.7 >/dev/null
cat >run.js <<'JS'
const {architect, methods} = require('neataptic');
const network = architect.Perceptron(1, 100, 1);
for (const node of network.nodes) [node.squash, node.bias] = [methods.activation.IDENTITY, 0];
for (const connection of network.connections) connection.weight = connection.from.type === 'input' ? 1 : 0.01;
const all = () => [
  network.activate([1]), network.noTraceActivate([1]), new Function(`${network.standalone()}; return activate([1]);`)(),
].map(([output]) => output.toFixed(3)).join(' ');
const before = all();
network.train([{input: [1], output: [1]}], {iterations: 1, dropout: 0.5, rate: 1e-12, error: 0});
const after = all();
console.log(`Neataptic 1.4.7: activate, noTraceActivate and standalone: before training ${before}, after it ${after}`);
if (before !== '1.000 1.000 1.000' || after !== '0.500 1.000 1.000') process.exit(1);
JS
node run.js
