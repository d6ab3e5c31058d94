#!/usr/bin/env bash
# MicroPython: struct.pack('e', 1e6) is a half of -0.0002
#
# A good guess: a number above the largest half, 65,504, is an OverflowError as in Python, or becomes
# infinity.
# Seen: MicroPython 1.27.0 (WebAssembly port): 65,520 to 65,536 become infinity, 70,000 becomes NaN,
# 131,072 becomes -0.0 and 1,000,000 becomes -0.00023: the exponent runs into the sign.
# Why it matters here: a device that logs or sends statistics as halves stores a large variance as
# a small negative number; compare with 65,504 first.
# Needs Node.js 20 or newer and npm; installs @micropython/micropython-webassembly-pyscript 1.27.0 in a temporary folder.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
npm install --silent --no-audit --no-fund --ignore-scripts @micropython/micropython-webassembly-pyscript@1.27.0 >/dev/null
cat >run.mjs <<'JS'
import {loadMicroPython} from '@micropython/micropython-webassembly-pyscript/micropython.mjs';
const python = await loadMicroPython({stdout: line => console.log(line)});
python.runPython(`
import struct, sys

values = (65504.0, 65536.0, 70000.0, 131072.0, 1000000.0)
halves = [struct.unpack('e', struct.pack('e', value))[0] for value in values]
print("MicroPython %d.%d.%d:" % sys.implementation[1][:3], values, "as halves:", halves)
assert halves[0] == 65504.0 and halves[1] == float('inf')
assert halves[2] != halves[2] and -0.001 < halves[4] < 0, "a large number becomes infinity now"
`);
JS
node run.mjs
