#!/usr/bin/env bash
# micromath: exp of NaN is infinity or 0, so that the sigmoid of NaN is an ordinary number
#
# A good guess: NaN goes through exp, as it goes through micromath's ln, sqrt and recip.
# Seen: micromath 2.1.0: exp(NaN) is infinity, and exp of a NaN with its sign bit set, which is what 0/0
# makes on x86, is 0: 1/(1 + exp(-x)) of NaN is 1 or 0.
# Why it matters here: a NaN of a broken running variance ends at the sigmoid behind the batch norm, and
# the output looks certain; check before the activation.
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
    let nan = f32::from_bits(0x7fc0_0000);
    let sigmoid = |x: f32| 1.0 / (1.0 + F32Ext::exp(-x));
    let exps = [nan, -nan].map(F32Ext::exp);
    let others = [F32Ext::ln(nan), F32Ext::sqrt(nan), F32Ext::recip(nan)];
    println!("micromath 2.1.0: exp of NaN and -NaN is {exps:?}, their sigmoid {:?}; ln, sqrt, recip of NaN are {others:?}", [sigmoid(nan), sigmoid(-nan)]);
    assert!(others.iter().all(|x| x.is_nan()));
    assert_eq!(exps, [f32::INFINITY, 0.0], "NaN goes through now");
}
RUST
cargo run --quiet --release
