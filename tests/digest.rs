//! The digests alone, for who asks only whether a change changes bits: a smaller program than the contracts, among which
//! `cargo test` has them.

#[path = "contracts/digest.rs"]
mod digest;
