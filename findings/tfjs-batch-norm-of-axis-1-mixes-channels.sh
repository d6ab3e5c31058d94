#!/usr/bin/env bash
# TensorFlow.js: a batch norm over axis 1 uses the statistics of other channels
#
# A good guess: axis: 1 normalises images with the channels first as axis: -1 does those with the
# channels last.
# Seen: TensorFlow.js 4.22.0, cpu backend: the mean and variance of each channel are right, and value
# number i of the image takes those of channel i modulo the number of channels: 1, 2, 3, 6 and ten times
# that come out as -1.07 to 14.4 instead of -1.07 to 1.60 twice, in training and in evaluation.
# Why it matters here: the saved statistics are fine and the outputs are not, so that a file that was
# made so evaluates otherwise here, and right.
# Needs Node.js 20 or newer and npm; installs @tensorflow/tfjs 4.22.0 in a temporary folder.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
npm install --silent --no-audit --no-fund --ignore-scripts @tensorflow/tfjs@4.22.0 >/dev/null
cat >run.js <<'JS'
const tf = require('@tensorflow/tfjs');
const first = tf.tensor4d([1, 2, 3, 6, 10, 20, 30, 60], [1, 2, 2, 2]);
function run(x, axis, training, back) {
  const layer = tf.layers.batchNormalization({axis, momentum: 0, epsilon: 1e-9});
  layer.apply(x, {training: true});
  const means = Array.from(layer.getWeights()[2].dataSync());
  const y = layer.apply(x, {training});
  return [means, Array.from((back ? y.transpose([0, 3, 1, 2]) : y).dataSync()).map((v) => Number(v.toFixed(2)))];
}
const last = first.transpose([0, 2, 3, 1]);
const [train, evaluate, right] = [run(first, 1, true), run(first, 1, false), run(last, -1, true, true)];
console.log(`TensorFlow.js ${tf.version.tfjs} (${tf.getBackend()}): means ${train[0]}; axis 1 in training ${train[1]}, in evaluation ${evaluate[1]}; axis -1 ${right[1]}`);
const same = (a, b) => JSON.stringify(a) === JSON.stringify(b);
if (!same(right[1], [-1.07, -0.53, 0, 1.6, -1.07, -0.53, 0, 1.6]) || !same(train[0], right[0])) process.exit(1);
if (!same(train[1], evaluate[1]) || !same(train[1], [-1.07, -1.5, 0, -1.28, 3.74, -0.53, 14.43, 1.6])) process.exit(1);
JS
node run.js 2>/dev/null
