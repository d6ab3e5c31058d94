#![doc = include_str!("../README.md")]

mod layer;
mod op;
#[path = "../../shared/pass.rs"]
mod pass;

pub use layer::{BatchNormDropout, PreparedBatchNorm, batch_norm_dropout};
