#!/usr/bin/env bash
# half: f16::from_f64 is not the nearest f16
#
# A good guess: a conversion from f64 rounds once, as `as f32` does, so 1 + 2^-11 + 2^-40, which is above the
# middle between 1 and the next f16, becomes that next one.
# Seen: half 2.7.1 gives 1. With F16C it rounds to f32 first; without, it leaves out the lower half of the
# f64 before it rounds.
# Why it matters here: statistics and sums are f64 in this crate. Who stores them as halves by from_f64
# does not have the nearest half; from_f32 of a value that is an f32 rounds once.
# Needs a Rust toolchain; builds half 2.7.1 in a temporary folder.
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
half = { version = "=2.7.1", features = ["std"] }
TOML
cat >src/main.rs <<'RUST'
use half::f16;

fn main() {
    let step = 1.0 / 1024.0; // from 1 to the next f16
    let value = 1.0 + step / 2.0 + 2.0_f64.powi(-40);
    let found = f16::from_f64(value).to_f64();
    let (below, above) = (value - found, found + step - value);
    println!("half 2.7.1: from_f64({value}) is {found}: {below:e} away, and the next f16 {above:e}");
    assert!(found == 1.0 && above < below, "the nearest f16 is found now");
}
RUST
cargo run --quiet --release
