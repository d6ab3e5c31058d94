#!/usr/bin/env bash
# TensorFlow.js: alpha dropout does not keep the mean
#
# A good guess: alphaDropout keeps mean 0 and variance 1, which is what it is for, as in Keras and
# PyTorch.
# Seen: TensorFlow.js 4.22.0: 100,000 normal values have a mean of 0.62 after a rate of 0.2: a dropped
# element becomes +1.758 instead of -1.758 before the affine step. The variance stays 1.
# Why it matters here: a self-normalising network that was trained there has other inputs in
# evaluation than in training, and other ones than the same model in Keras.
# Needs Node.js 20 or newer and npm; installs @tensorflow/tfjs 4.22.0 in a temporary folder.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
npm install --silent --no-audit --no-fund --ignore-scripts @tensorflow/tfjs@4.22.0 >/dev/null
cat >run.js <<'JS'
const tf = require('@tensorflow/tfjs');
const x = tf.randomNormal([100000], 0, 1, 'float32', 1);
const { mean, variance } = tf.moments(tf.layers.alphaDropout({rate: 0.2}).apply(x, {training: true}));
const [m, v] = [mean.dataSync()[0], variance.dataSync()[0]];
console.log(`TensorFlow.js ${tf.version.tfjs}: mean ${m.toFixed(3)}, variance ${v.toFixed(3)} after alpha dropout of mean 0, variance 1`);
if (Math.abs(m - 0.616) > 0.02 || Math.abs(v - 1) > 0.03) process.exit(1);
JS
node run.js 2>/dev/null | grep TensorFlow.js
