#!/usr/bin/env bash
# wide: round and round_int give different integers for 2.5
#
# A good guess: round_int is round and a conversion to integers, so that both round halves alike.
# Seen: wide 1.7.1: f32x8::round rounds halves away from 0, as the standard library does, and round_int
# rounds them to even: 2.5 becomes 3.0 and 2.
# Why it matters here: a quantizer by round_int and its reference by round differ by a step at each
# half; halves are frequent where the scale is a power of two.
# Needs a Rust toolchain; builds wide 1.7.1 in a temporary folder.
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
wide = "=1.7.1"
TOML
cat >src/main.rs <<'RUST'
use wide::f32x8;

fn main() {
    let x = [0.5, 1.5, 2.5, 3.5, -0.5, -1.5, -2.5, 0.7];
    let (round, int) = (f32x8::from(x).round().to_array(), f32x8::from(x).round_int().to_array());
    println!("wide 1.7.1: {x:?}: round {round:?}, round_int {int:?}");
    assert_eq!(round, x.map(f32::round));
    assert_eq!(int, x.map(|x| x.round_ties_even() as i32), "round_int rounds as round does now");
}
RUST
cargo run --quiet --release
