#!/usr/bin/env bash
# TensorFlow.js: a dropout layer of rate 1 drops nothing
#
# A good guess: a rate of 1 drops everything, or is refused, as tf.dropout of the same library
# refuses it.
# Seen: TensorFlow.js 4.22.0: the layer drops about 998 of 1000 elements at a rate of 0.999, and
# none at a rate of 1.
# Why it matters here: a schedule that raises the rate to 1 switches dropout off at its end; a model
# that is imported from there behaves otherwise here.
# Needs Node.js 20 or newer and npm; installs @tensorflow/tfjs 4.22.0 in a temporary folder.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
npm install --silent --no-audit --no-fund --ignore-scripts @tensorflow/tfjs@4.22.0 >/dev/null
cat >run.js <<'JS'
const tf = require('@tensorflow/tfjs');
const dropped = rate => {
    const y = tf.layers.dropout({rate}).apply(tf.ones([1000]), {training: true});
    return Array.from(y.dataSync()).filter(value => value === 0).length;
};
const [almost, all] = [dropped(0.999), dropped(1)];
console.log(`TensorFlow.js ${tf.version.tfjs}: dropped of 1000: ${almost} at 0.999, ${all} at 1`);
if (!(almost > 980 && all === 0)) process.exit(1);
JS
node run.js 2>/dev/null | grep TensorFlow.js
