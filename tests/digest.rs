//! The digests alone, which are quick to build: for mutation testing. `cargo test` has them among the contracts.

#[path = "contracts/digest.rs"]
mod digest;
