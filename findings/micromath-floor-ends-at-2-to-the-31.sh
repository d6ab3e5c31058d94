#!/usr/bin/env bash
# micromath: floor, ceil and round of a large number are 2^31
#
# A good guess: an f32 of 2^23 and more is a whole number, so floor, ceil and round return it, in an
# approximate library, too.
# Seen: micromath 2.1.0 goes through an i32: floor(3e9) is 2147483648, and so are ceil and round.
# trunc returns 3e9.
# Why it matters here: firmware without a C library takes these functions from micromath, and a
# quantised layer rounds its outputs; a large one comes out smaller, and its error is silent.
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
    let x = 3e9_f32;
    let found = [F32Ext::floor(x), F32Ext::ceil(x), F32Ext::round(x)];
    println!("micromath 2.1.0: floor, ceil and round of {x} are {found:?}; trunc is {}", F32Ext::trunc(x));
    assert_eq!(F32Ext::trunc(x), x);
    assert_eq!(found, [2_147_483_648.0; 3], "they keep a large number now");
}
RUST
cargo run --quiet --release
