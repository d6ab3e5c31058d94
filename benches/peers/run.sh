#!/usr/bin/env bash
# Measures all peers and normdrop in one run, on one core, and writes its results: this folder's README says more.
#
# Usage: run.sh [options of the program, see run.sh --help]
#
# PEERS_VENVS is where the Python peers are or shall be (/tmp/normdrop-peers), PEERS_CORE the core (the last one).
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)

venvs=${PEERS_VENVS:-/tmp/normdrop-peers}
core=${PEERS_CORE:-$(($(nproc) - 1))}

"$here/setup.sh" "$venvs"
target=${CARGO_TARGET_DIR:-$here/target}
cargo build --release --manifest-path "$here/Cargo.toml" --target-dir "$target"

# One thread for all.
export OMP_NUM_THREADS=1 MKL_NUM_THREADS=1 RAYON_NUM_THREADS=1
export XLA_FLAGS='--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1'
# Memory that was freed is kept for the next call: no peer pays for new pages each time.
export MALLOC_MMAP_MAX_=0 MALLOC_TRIM_THRESHOLD_=$((1 << 40)) MALLOC_TOP_PAD_=$((256 << 20))
exec taskset -c "$core" "$target/release/peers" --venvs "$venvs" --date "$(date +%F)" "$@"
