#!/usr/bin/env bash
# convnetjs: evaluation multiplies by the drop probability instead of the keep probability
#
# A good guess: drop_prob 0.2 keeps 80 % in training, and evaluation multiplies by 0.8 (or training
# divides by it), so that both have one mean.
# Seen: convnetjs 0.3.0 keeps 80 % in training without a scale, and multiplies by 0.2 in evaluation.
# With its default of 0.5 both are one.
# Why it matters here: an import has to take the factor 0.2 into the next weights to give the outputs
# that convnetjs gives, and 0.8 to give those that it was trained for.
# Needs Node.js 20 or newer and npm; installs convnetjs 0.3.0 in a temporary folder.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
npm install --silent --no-audit --no-fund --ignore-scripts convnetjs@0.3.0 >/dev/null
cat >run.js <<'JS'
const convnetjs = require('convnetjs');
const mean = (probability, training) => {
  const layer = new convnetjs.DropoutLayer({in_sx: 1, in_sy: 1, in_depth: 100000, drop_prob: probability});
  return layer.forward(new convnetjs.Vol(1, 1, 100000, 1.0), training).w.reduce((sum, value) => sum + value, 0) / 100000;
};
const [training, evaluation] = [mean(0.2, true), mean(0.2, false)];
console.log(`convnetjs 0.3.0: drop_prob 0.2: the mean of ones is ${training.toFixed(3)} in training, ${evaluation.toFixed(3)} in evaluation`);
if (Math.abs(training - 0.8) > 0.02 || Math.abs(evaluation - 0.2) > 1e-6) process.exit(1);
JS
node run.js 2>/dev/null | grep convnetjs
