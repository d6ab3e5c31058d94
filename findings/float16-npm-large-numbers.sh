#!/usr/bin/env bash
# float16 (npm): 70,000 becomes NaN, and 3e9 becomes 0.5
#
# A good guess: what is larger than the largest half, 65,504, becomes infinity, or 65,504.
# Seen: float16 0.0.1: 65,520 to 65,536 become infinity, larger numbers NaN, since bits of the significand are
# left beside the exponent of infinity, and from 2^31 on the exponent is that of a small number: 3e9 becomes
# 0.5.
# Why it matters here: a variance or a sum of squares that does not fit is stored as a number that looks
# right; clamp first.
# Needs Node.js 20 or newer and npm; installs float16 0.0.1 in a temporary folder.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
npm install --silent --no-audit --no-fund --ignore-scripts float16@0.0.1 >/dev/null
cat >run.js <<'JS'
const { float16ToByte, byteToFloat16 } = require('float16');
const half = x => byteToFloat16(float16ToByte(x));
const seen = [65504, 65520, 65536, 70000, 3e9].map(x => [x, half(x)]);
console.log('float16 0.0.1:', seen.map(([x, y]) => `${x} becomes ${y}`).join(', '));
const [largest, next, power, beyond, far] = seen.map(pair => pair[1]);
if (largest !== 65504 || next !== Infinity || power !== Infinity) process.exit(1);
if (!Number.isNaN(beyond) || far !== 0.5) process.exit(1);
JS
node run.js
