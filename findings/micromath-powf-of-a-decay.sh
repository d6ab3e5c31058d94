#!/usr/bin/env bash
# micromath: 0.99 to the power of 1000 is 17,000 times too small
#
# A good guess: powf of an approximate library is some percent off, as its ln, exp and sqrt are; powi of
# the same numbers is right.
# Seen: micromath 2.1.0: the error of its logarithm is multiplied by the exponent: 0.99^1000 is 2.5e-9
# by powf and 4.3e-5 by powi, and 0.9^100 1.2e-8 and 2.7e-5.
# Why it matters here: momentum^steps, which corrects the start of a running average, is such a power;
# firmware takes powi, or multiplies step by step.
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
    let found = [(0.99f32, 1000), (0.9, 100)].map(|(base, power)| (F32Ext::powf(base, power as f32), F32Ext::powi(base, power)));
    println!("micromath 2.1.0: 0.99^1000 and 0.9^100 by powf and powi: {found:?}");
    assert!((found[0].1 / 4.317e-5 - 1.0).abs() < 1e-2 && (found[1].1 / 2.656e-5 - 1.0).abs() < 1e-2);
    assert!(found.iter().all(|(float, integer)| float * 1000.0 < *integer), "powf is near now");
}
RUST
cargo run --quiet --release
