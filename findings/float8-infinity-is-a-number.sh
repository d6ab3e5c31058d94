#!/usr/bin/env bash
# float8: infinity becomes 57,344 in a format that has infinities
#
# A good guess: E5M2 has infinities, as IEEE formats do, so infinity stays infinity; E4M3, which has none,
# saturates or gives NaN.
# Seen: float8 0.7.0 saturates in both: infinity and 1e30 become 57,344 as F8E5M2, the largest finite number,
# and 448 as F8E4M3. The constant INFINITY of F8E4M3 is 448.
# Why it matters here: a check for infinities after a conversion finds none, and a scale that overflowed goes
# on as a number; look at the f32 before.
# Needs a Rust toolchain; builds float8 0.7.0 in a temporary folder.
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
float8 = "=0.7.0"
TOML
cat >src/main.rs <<'RUST'
use float8::{F8E4M3, F8E5M2};

fn main() {
    let found = [f32::INFINITY, 1e30, -f32::INFINITY].map(|value| (F8E5M2::from_f32(value).to_f32(), F8E4M3::from_f32(value).to_f32()));
    // The bits of an infinity of E5M2: the largest exponent, and no significand.
    let bits = F8E5M2::from_bits(0x7c).to_f32();
    println!("float8 0.7.0: infinity, 1e30, -infinity as E5M2 and E4M3: {found:?}; the bits of an infinity are {bits}");
    assert_eq!(bits, f32::INFINITY);
    assert!(F8E5M2::from_f32(f32::NAN).to_f32().is_nan());
    assert_eq!(found, [(57344.0, 448.0), (57344.0, 448.0), (-57344.0, -448.0)], "infinity is kept now");
}
RUST
cargo run --quiet --release
