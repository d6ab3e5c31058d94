#!/usr/bin/env bash
# TensorFlow.js: a dropout layer with a seed draws the same mask in every call
#
# A good guess: a seed makes a run repeatable: the first, the second and the third mask differ, and
# are the same in the next run.
# Seen: TensorFlow.js 4.22.0 starts its generator anew in every call: all masks of a seeded layer
# are one and the same, so that the same units are dropped in every step.
# Why it matters here: a network that was trained so has units that were never trained; here a step
# has a seed of its own.
# Needs Node.js 20 or newer and npm; installs @tensorflow/tfjs 4.22.0 in a temporary folder.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
npm install --silent --no-audit --no-fund --ignore-scripts @tensorflow/tfjs@4.22.0 >/dev/null
cat >run.js <<'JS'
const tf = require('@tensorflow/tfjs');
const layer = tf.layers.dropout({rate: 0.5, seed: 7});
const mask = () => Array.from(layer.apply(tf.ones([32]), {training: true}).dataSync()).map(value => value ? 1 : 0).join('');
const masks = [mask(), mask(), mask()];
console.log(`TensorFlow.js ${tf.version.tfjs}: ${masks.join(' ')}`);
if (new Set(masks).size !== 1 || !masks[0].includes('0') || !masks[0].includes('1')) process.exit(1);
JS
node run.js 2>/dev/null | grep TensorFlow.js
