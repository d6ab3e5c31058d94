#!/usr/bin/env bash
# rand_chacha: 16 bytes drawn in pieces of 5 are other bytes than 16 at once
#
# A good guess: ChaCha is a stream of bytes, and fill_bytes goes on at the byte behind the last one.
# Seen: rand_chacha 0.10.0: each call of fill_bytes throws the rest of its last 4 bytes away, so that
# the sixth byte of the pieces is the ninth of the stream. Pieces of 4 give the same bytes.
# Why it matters here: masks that are drawn by the tile depend on the size of the tiles; this crate's
# masks depend on the element's index only.
# Needs a Rust toolchain; builds rand_chacha 0.10.0 in a temporary folder.
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
rand_chacha = "=0.10.0"
TOML
cat >src/main.rs <<'RUST'
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

fn drawn(piece: usize) -> [u8; 16] {
    let mut rng = ChaCha8Rng::seed_from_u64(7);
    let mut bytes = [0; 16];
    bytes.chunks_mut(piece).for_each(|piece| rng.fill_bytes(piece));
    bytes
}

fn main() {
    let (whole, fours, fives) = (drawn(16), drawn(4), drawn(5));
    println!("rand_chacha 0.10.0: at once {whole:02x?}, in fives {fives:02x?}; in fours the same: {}", whole == fours);
    assert_eq!(whole, fours);
    assert_eq!(whole[..5], fives[..5]);
    assert_eq!(fives[5..10], whole[8..13], "the stream goes on at the next byte now");
}
RUST
cargo run --quiet --release
