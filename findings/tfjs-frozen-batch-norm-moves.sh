#!/usr/bin/env bash
# TensorFlow.js: a batch norm with trainable = false still moves its running statistics
#
# A good guess: trainable = false freezes a batch norm whole: it normalises with its running
# statistics and leaves them, as in Keras since TensorFlow 2.
# Seen: TensorFlow.js 4.22.0: fit() of a model with such a layer moves its running variance from 1,
# and leaves only gamma and beta.
# Why it matters here: fine-tuning with frozen layers, as it is done in Keras, gives another network
# there; evaluation of a frozen layer here reads its statistics only.
# Needs Node.js 20 or newer and npm; installs @tensorflow/tfjs 4.22.0 in a temporary folder.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
npm install --silent --no-audit --no-fund --ignore-scripts @tensorflow/tfjs@4.22.0 >/dev/null
cat >run.js <<'JS'
const tf = require('@tensorflow/tfjs');
const model = tf.sequential({layers: [tf.layers.batchNormalization({inputShape: [1]}), tf.layers.dense({units: 1})]});
model.layers[0].trainable = false;
model.compile({loss: 'meanSquaredError', optimizer: 'sgd'});
const x = tf.tensor2d([[1], [2], [3], [6]]);
model.fit(x, x, {epochs: 1, batchSize: 4, verbose: 0}).then(() => {
  const [gamma, beta, mean, variance] = model.layers[0].getWeights().map(weight => weight.dataSync()[0]);
  console.log(`TensorFlow.js ${tf.version.tfjs}: frozen: gamma ${gamma}, beta ${beta}, running mean ${mean}, running variance ${variance}`);
  if (gamma !== 1 || beta !== 0 || Math.abs(mean - 0.03) > 1e-6 || Math.abs(variance - 1.025) > 1e-6) process.exit(1);
});
JS
node run.js 2>/dev/null | grep TensorFlow.js
