#!/usr/bin/env bash
# nalgebra: the variance of one and the same vector is 9 or 100,000, and the right one is 1
#
# A good guess: variance(), row_variance() and column_variance() compute one formula, and f32 is enough
# for values of 10,000 plus or minus 1.
# Seen: nalgebra 0.34.2, 65,536 such values: the mean of a sum in one f32 is 9997.1, and the variance
# about it 9.37; column_variance() of the same values as a row takes the difference of the mean square
# and the squared mean: 107,714.
# Why it matters here: nalgebra runs without std and is at hand in firmware that calibrates a batch norm.
# Needs a Rust toolchain; builds nalgebra 0.34.2 in a temporary folder.
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
nalgebra = "=0.34.2"
TOML
cat >src/main.rs <<'RUST'
use nalgebra::DMatrix;

fn main() {
    let row = DMatrix::<f32>::from_fn(1, 65_536, |_, index| if index % 2 == 0 { 9_999.0 } else { 10_001.0 });
    let (variance, across) = (row.variance(), row.column_variance()[0]);
    let column = row.transpose().row_variance()[0];
    println!("nalgebra 0.34.2: mean {}, variance {variance}, row_variance {column}, column_variance {across}; exact: 10000 and 1", row.mean());
    assert!((9.0..10.0).contains(&variance) && variance == column, "the mean has another sum now");
    assert!(across > 100_000.0, "column_variance has another formula now");
}
RUST
cargo run --quiet --release
