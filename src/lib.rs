#![doc = include_str!("../README.md")]
#![no_std]
#![deny(unsafe_code)]

mod activation;
mod args;
mod backward;
mod channel;
mod config;
mod error;
mod eval;
mod layer;
mod mask;
mod pass;
mod shape;
mod simd;
mod train;

pub use activation::{Activation, Gelu, HardSwish, Identity, LeakyRelu, Relu, Relu6, Sigmoid, Silu, Tanh};
pub use args::{
    Backward, BackwardInPlace, Dropout, Eval, EvalInPlace, ParameterGradients, Parameters, Running, RunningMut, Saved,
    SavedMut, Statistics, Train,
};
pub use config::Config;
pub use error::{Buffer, Error};
pub use layer::Layer;
pub use mask::{Bernoulli, mask_len, seed_from};
pub use shape::Shape;
pub use simd::Backend;
