#!/usr/bin/env bash
# NumPy: Philox.advance(1) leaves out four numbers
#
# A good guess: advance(n) is what n draws do to the generator, as its documentation says and as
# PCG64 does, so that worker k of a job may start with advance(k * draws).
# Seen: numpy 2.4.6: Philox makes four 64-bit numbers of each counter, and advance(n) adds n to the
# counter: advance(1) goes on with the number of index 4, advance(3) with that of index 12.
# Why it matters here: dropout masks that are drawn in parts by advance are not those of one draw;
# here a mask depends on the seed and the index of its element alone.
# Needs Python 3.11 or newer; installs numpy==2.4.6 in a temporary folder.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check numpy==2.4.6
"$work/venv/bin/python" -W ignore - <<'PYTHON'
import numpy as np

draws = np.random.Generator(np.random.Philox(1)).random(32).tolist()
other = np.random.Generator(np.random.PCG64(1)).random(32).tolist()
first = lambda bits, steps: np.random.Generator(bits.advance(steps)).random()
philox = [draws.index(first(np.random.Philox(1), steps)) for steps in range(6)]
pcg = [other.index(first(np.random.PCG64(1), steps)) for steps in range(6)]
print(f"NumPy {np.__version__}: advance(0) to advance(5) go on at {philox} in Philox, at {pcg} in PCG64")
assert pcg == [0, 1, 2, 3, 4, 5]
assert philox == [0, 4, 8, 12, 16, 20], "advance counts draws now"
PYTHON
