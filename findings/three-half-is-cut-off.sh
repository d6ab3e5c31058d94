#!/usr/bin/env bash
# three.js: a half is cut off instead of rounded, and infinity becomes 65,504
#
# A good guess: DataUtils.toHalfFloat gives the nearest half, as NumPy does, and infinity for infinity.
# Seen: three 0.187.0 leaves out the lower bits: 2051, between 2050 and 2052 with 2052 as the even one,
# becomes 2050, 1.0019, a twentieth of a step below the half 1.00195, becomes 1.00098, and infinity becomes
# 65,504. 10,000 random numbers are too small by half a step on average.
# Why it matters here: weights and statistics that were stored so are biased towards 0, by 0.03 % in the
# mean, and an infinity that was to be noticed is a number; round before.
# Needs Node.js 20 or newer and npm; installs three 0.187.0 in a temporary folder.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
npm install --silent --no-audit --no-fund --ignore-scripts three@0.187.0 >/dev/null
cat >run.mjs <<'JS'
import {DataUtils, REVISION} from 'three';
console.warn = () => {};
const half = value => DataUtils.fromHalfFloat(DataUtils.toHalfFloat(value));
const found = [2049, 2051, 1 + 1.95 / 1024, Infinity].map(half);
let state = 1, bias = 0;
for (let count = 0; count < 10000; count++) {
  state = (state * 48271) % 2147483647;
  const value = 1 + state / 2147483647;
  bias += (half(value) - value) * 1024 / 10000;
}
console.log(`three.js ${REVISION}: 2049, 2051, ${1 + 1.95 / 1024}, Infinity: ${found.join(', ')}; mean error ${bias.toFixed(3)} steps`);
if (found[0] !== 2048 || found[1] !== 2050 || found[2] !== 1 + 1 / 1024 || found[3] !== 65504) process.exit(1);
if (!(bias > -0.55 && bias < -0.45)) process.exit(1);
JS
node run.mjs 2>/dev/null | grep three.js
