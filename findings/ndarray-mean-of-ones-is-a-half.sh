#!/usr/bin/env bash
# ndarray: the mean of 2^25 ones over the first axis is 0.5
#
# A good guess: mean_axis(Axis(0)) sums as mean() does, in several accumulators, and the mean of ones
# is 1 up to rounding.
# Seen: ndarray 0.17.2 adds row to row in the type of the elements: an f32 sum of ones stops at 2^24,
# so that the mean of each column is 0.5; mean() of the same array is 1, and so is mean_axis(Axis(1)) of
# the transposed numbers.
# Why it matters here: this is the layout (N, C) of a batch: statistics that are checked against ndarray
# are checked against the less exact of the two.
# Needs a Rust toolchain; builds ndarray 0.17.2 in a temporary folder.
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
ndarray = "=0.17.2"
TOML
cat >src/main.rs <<'RUST'
use ndarray::{Array2, Axis};

fn main() {
    let rows = 1 << 25;
    let ones = Array2::<f32>::ones((rows, 2));
    let columns = ones.mean_axis(Axis(0)).unwrap().to_vec();
    let whole = ones.mean().unwrap();
    drop(ones);
    let contiguous = Array2::<f32>::ones((2, rows)).mean_axis(Axis(1)).unwrap().to_vec();
    println!("ndarray 0.17.2: mean_axis(Axis(0)) {columns:?}, mean {whole}, mean_axis(Axis(1)) of two rows {contiguous:?}");
    assert_eq!((whole, contiguous), (1.0, vec![1.0; 2]));
    assert_eq!(columns, [0.5; 2], "the sum over the first axis goes on now");
}
RUST
cargo run --quiet --release
