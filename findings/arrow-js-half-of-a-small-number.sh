#!/usr/bin/env bash
# Apache Arrow for JavaScript: 1e-8 as a Float16 is minus infinity, and 70,000 is 2.1
#
# A good guess: a number below the smallest half becomes 0, and one above the largest becomes infinity, as in
# Arrow for other languages.
# Seen: apache-arrow 21.2.0: numbers below half of the smallest half shift too far, and their bits are those
# of minus infinity; from 65,536 on, bits of the significand are left beside a small exponent. 2049, too,
# which is between two halves, becomes 2050 where the even one is 2048.
# Why it matters here: an eps or a variance of 1e-8 in a column of halves comes back as minus infinity; clamp
# and round before a column is built.
# Needs Node.js 20 or newer and npm; installs apache-arrow 21.2.0 in a temporary folder.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
npm install --silent --no-audit --no-fund --ignore-scripts apache-arrow@21.2.0 >/dev/null
cat >run.js <<'JS'
const {Float16, makeBuilder} = require('apache-arrow');
const {version} = JSON.parse(require('fs').readFileSync('node_modules/apache-arrow/package.json'));
const half = value => {
  const builder = makeBuilder({type: new Float16()});
  builder.append(value);
  return builder.finish().toVector().get(0);
};
const found = [1, 65504, 1e-8, 70000, 2049].map(half);
console.log(`Apache Arrow ${version}: 1, 65504, 1e-8, 70000, 2049 as halves: ${found.join(', ')}`);
if (found[0] !== 1 || found[1] !== 65504) process.exit(1);
if (found[2] !== -Infinity || !(found[3] > 2 && found[3] < 3) || found[4] !== 2050) process.exit(1);
JS
node run.js 2>/dev/null | grep Arrow
