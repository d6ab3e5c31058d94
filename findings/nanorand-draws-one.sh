#!/usr/bin/env bash
# nanorand: a random f32 can be 1
#
# A good guess: a random float is in [0, 1), as in rand, fastrand and the standard libraries of other
# languages, so that `random < 1.0` always holds.
# Seen: nanorand 0.8.0 divides a u32 by u32::MAX in f32: one of 2^25 numbers is 1. With the seed below
# the first one is among the first 2^27.
# Why it matters here: a dropout that keeps where `random < 1.0 - p` drops elements at p = 0, and the
# logarithm of `1.0 - random` is minus infinity.
# Needs a Rust toolchain; builds nanorand 0.8.0 in a temporary folder.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
unset RUSTFLAGS CARGO_ENCODED_RUSTFLAGS CARGO_TARGET_DIR
mkdir src
cat >Cargo.toml <<'TOML'
[package]
name = "finding"
version = "0.0.0"
edition = "2024"

[dependencies]
nanorand = { version = "=0.8.0", default-features = false, features = ["wyrand"] }
TOML
cat >src/main.rs <<'RUST'
use nanorand::{Rng, WyRand};

fn main() {
    let mut rng = WyRand::new_seed(7);
    let first = (1u32..1 << 27).find(|_| rng.generate::<f32>() >= 1.0);
    println!("nanorand 0.8.0: the first f32 of 1 is number {first:?}");
    assert!(first.is_some(), "floats are below 1 now");
}
RUST
cargo run --quiet --release
