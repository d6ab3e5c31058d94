#!/usr/bin/env bash
# fixed: a negative running average never decays to 0, and a positive one does
#
# A good guess: a product is rounded to the nearest, or towards 0 as an integer division is, so that
# x and -x decay alike.
# Seen: fixed 1.31.0 rounds a product down, and a quotient towards 0: 1 in I16F16 times 0.99 again
# and again ends at 0, and -1 ends at -100 steps of 2^-16, which is -0.0015, for good.
# Why it matters here: firmware that keeps a running mean in fixed point by running *= 1 - momentum
# has a bias to the negative side, of about 1/momentum steps.
# Needs a Rust toolchain; builds fixed 1.31.0 in a temporary folder.
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
fixed = "=1.31.0"
TOML
cat >src/main.rs <<'RUST'
use fixed::types::I16F16;

fn main() {
    let keep = I16F16::from_num(0.99);
    let (mut above, mut below) = (I16F16::ONE, I16F16::NEG_ONE);
    for _ in 0..10_000 {
        above *= keep;
        below *= keep;
    }
    let quotient = -I16F16::DELTA / I16F16::from_num(2);
    println!("fixed 1.31.0: 1 decays to {above}, -1 to {below} ({} steps); the smallest negative by 2 is {quotient}", below.to_bits());
    assert_eq!((above, quotient), (I16F16::ZERO, I16F16::ZERO));
    assert_eq!(below.to_bits(), -100, "products are rounded otherwise now");
}
RUST
cargo run --quiet --release
