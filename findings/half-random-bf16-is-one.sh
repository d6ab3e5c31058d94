#!/usr/bin/env bash
# half with rand: one of 512 random bf16 is 1
#
# A good guess: a random float of StandardUniform is in [0, 1) for every type, as rand documents it for
# f32 and f64, so that 1 never comes.
# Seen: half 2.7.1 with rand 0.9.2 rounds a random f32 to the nearest: one of 512 bf16 is 1, and one of
# 4096 f16.
# Why it matters here: a dropout that keeps where `random < 1 - p` drops elements at p = 0, 0.2% in bf16;
# draw in f32, or compare integers, as this crate does.
# Needs a Rust toolchain; builds half 2.7.1, rand 0.9.2 in a temporary folder.
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
half = { version = "=2.7.1", features = ["rand_distr"] }
rand = "=0.9.2"
TOML
cat >src/main.rs <<'RUST'
use half::{bf16, f16};
use rand::{Rng, SeedableRng, rngs::StdRng};

fn main() {
    let mut rng = StdRng::seed_from_u64(7);
    let draws = 1 << 20;
    let bf16 = (0..draws).filter(|_| rng.random::<bf16>() >= bf16::ONE).count();
    let f16 = (0..draws).filter(|_| rng.random::<f16>() >= f16::ONE).count();
    let f32 = (0..draws).filter(|_| rng.random::<f32>() >= 1.0).count();
    println!("half 2.7.1, rand 0.9.2: of 2^20 numbers, {bf16} bf16 are 1, {f16} f16, {f32} f32");
    assert_eq!(f32, 0);
    assert!(bf16.abs_diff(2048) < 300 && f16.abs_diff(256) < 100, "halves are below 1 now");
}
RUST
cargo run --quiet --release
