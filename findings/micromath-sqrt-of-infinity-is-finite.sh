#!/usr/bin/env bash
# micromath: the square root of infinity is 1.8e19
#
# A good guess: an approximate root is some percent off, and an infinity stays an infinity, as in
# micromath's own invsqrt of it, which is near 0.
# Seen: micromath 2.1.0 halves the bits of the number and has no special case: sqrt(infinity) is
# 1.8446744e19, which is also about sqrt of the largest f32.
# Why it matters here: a sum of squares that overflowed gives an ordinary standard deviation, and a
# check of it for infinity or NaN finds nothing.
# Needs a Rust toolchain; builds micromath 2.1.0 in a temporary folder.
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
micromath = "=2.1.0"
TOML
cat >src/main.rs <<'RUST'
use micromath::F32Ext;

fn main() {
    let [root, largest, below] = [f32::INFINITY, f32::MAX, f32::NEG_INFINITY].map(F32Ext::sqrt);
    println!("micromath 2.1.0: sqrt(infinity) is {root:e}, sqrt of the largest f32 {largest:e}, sqrt(-infinity) {below}");
    assert!(below.is_nan() && (largest / f32::MAX.sqrt() - 1.0).abs() < 0.1);
    assert!(root.is_finite() && root < 2e19, "an infinity stays one now");
}
RUST
cargo run --quiet --release
