#!/usr/bin/env bash
# micromath: 1 divided by infinity is minus infinity
#
# A good guess: the reciprocal of infinity is 0, or in an approximate library a small number.
# Seen: micromath 2.1.0: recip(infinity) is minus infinity, and so is recip of the largest f32; recip of
# 1e38 is 1e-38.
# Why it matters here: a variance that overflowed makes an inverse deviation of minus infinity instead
# of 0, so that a channel which ought to be its bias is infinite or NaN; divide instead.
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
    let found = [1e30, 1e38, f32::MAX, f32::INFINITY].map(F32Ext::recip);
    println!("micromath 2.1.0: recip of 1e30, 1e38, the largest f32, infinity is {found:?}");
    assert!((found[0] * 1e30 - 1.0).abs() < 1e-3);
    assert_eq!(found[3], f32::NEG_INFINITY, "recip(infinity) is another number now");
}
RUST
cargo run --quiet --release
