#!/usr/bin/env bash
# rand: random_bool(1.0) draws no number, and random_bool(0.0) draws one
#
# A good guess: each call of random_bool takes one number from the generator, whatever the probability, so
# that a mask is at the same place of the stream for all of them.
# Seen: rand 0.10.4: for 1 it returns at once: after 1000 masks with a keep probability of 1 the generator is
# where it started, and with 0 or 0.999 it is 1000 numbers further.
# Why it matters here: switching one dropout of a network off changes the masks of all that follow in the
# stream; here an element's mask depends on the seed and its place alone.
# Needs a Rust toolchain; builds rand 0.10.4 in a temporary folder.
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
rand = "=0.10.4"
TOML
cat >src/main.rs <<'RUST'
use rand::{RngExt, SeedableRng, rngs::Xoshiro256PlusPlus};

fn main() {
    let next = |probability: f64| {
        let mut generator = Xoshiro256PlusPlus::seed_from_u64(1);
        (0..1000).for_each(|_| drop(generator.random_bool(probability)));
        generator.random::<u64>()
    };
    let fresh = Xoshiro256PlusPlus::seed_from_u64(1).random::<u64>();
    let found = [0.0, 0.999, 1.0].map(next);
    println!("rand 0.10.4: a new generator goes on with {fresh}, after 1000 calls with 0, 0.999 and 1 with {found:?}");
    assert!(found[0] == found[1] && found[0] != fresh);
    assert_eq!(found[2], fresh, "a probability of 1 draws a number now");
}
RUST
cargo run --quiet --release
