#!/usr/bin/env bash
# wide: the reciprocal of a f32x8 has 12 bits
#
# A good guess: recip is 1/x, as f32::recip is, and only a function with "approximate" or "fast" in its
# name is less exact.
# Seen: wide 1.7.1 on x86-64 takes the processor's 12-bit instructions: f32x8::recip has a relative error
# of 3e-4, and recip_sqrt one of 2.5e-4. The documentation does not say so. A division has 24 bits.
# Why it matters here: 1/sqrt(variance + eps) by recip_sqrt moves the outputs of a batch norm by about as
# much as a rounding to half precision does; divide by sqrt().
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
    let (mut recip, mut root, mut quotient) = (0f64, 0f64, 0f64);
    for i in 1..=100_000 {
        let x = i as f32;
        let wide = f32x8::splat(x);
        let error = |y: f32x8, exact: f64| (f64::from(y.to_array()[0]) / exact - 1.0).abs();
        recip = recip.max(error(wide.recip(), 1.0 / f64::from(x)));
        root = root.max(error(wide.recip_sqrt(), 1.0 / f64::from(x).sqrt()));
        quotient = quotient.max(error(f32x8::ONE / wide, 1.0 / f64::from(x)));
    }
    println!("wide 1.7.1: relative errors for 1 to 100000: recip {recip:.1e}, recip_sqrt {root:.1e}, division {quotient:.1e}");
    assert!(quotient < 6e-8);
    assert!(recip > 1e-5 && root > 1e-5, "recip is exact now");
}
RUST
cargo run --quiet --release
