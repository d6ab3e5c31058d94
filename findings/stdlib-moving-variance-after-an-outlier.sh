#!/usr/bin/env bash
# stdlib: one outlier makes a moving variance 0 for good
#
# A good guess: a variance over the last four numbers does not know of a number that has left the
# window, within rounding.
# Seen: @stdlib/stats-incr-mvariance 0.2.3: over 1, 2, 3, 6 again and again it is 4.667; after a single
# 1e9 it is 0, and stays 0 when the outlier is gone, however long; after 1e16 it stays at 1.2e16.
# Why it matters here: a sensor that glitches once makes an inverse deviation of 1/sqrt(eps), hundreds
# of times too large; a running average as in this crate forgets it by its momentum.
# Needs Node.js 20 or newer and npm; installs @stdlib/stats-incr-mvariance 0.2.3 in a temporary folder.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
npm install --silent --no-audit --no-fund --ignore-scripts @stdlib/stats-incr-mvariance@0.2.3 >/dev/null
cat >run.js <<'JS'
const incrmvariance = require('@stdlib/stats-incr-mvariance');
const { version } = require('@stdlib/stats-incr-mvariance/package.json');
function after(outlier) {
  const accumulate = incrmvariance(4);
  let variance = [1, 2, 3, 6, outlier].map((x) => accumulate(x))[4];
  for (let i = 0; i < 1000; i++) variance = accumulate([1, 2, 3, 6][i % 4]);
  return variance;
}
const found = [6, 1e9, 1e16].map((x) => after(x));
console.log(`@stdlib/stats-incr-mvariance ${version}: the variance of 1, 2, 3, 6 long after 6, 1e9 and 1e16 is ${found}`);
if (Math.abs(found[0] - 14 / 3) > 1e-9 || found[1] !== 0 || !(found[2] > 1e15)) process.exit(1);
JS
node run.js 2>/dev/null
