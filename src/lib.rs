#![doc = include_str!("front.md")]
#![no_std]
#![deny(unsafe_code)]
#![cfg_attr(docsrs, feature(doc_cfg))]

#[cfg(feature = "alloc")]
extern crate alloc;

mod activation;
mod args;
mod backend;
mod bits;
#[cfg(feature = "capi")]
pub mod capi;
mod channel;
mod check;
mod config;
mod element;
mod error;
mod fold;
mod layer;
mod mask;
mod masked;
mod noise;
#[cfg(feature = "alloc")]
mod owned;
mod padding;
mod parts;
mod pass;
mod phase;
mod plan;
mod prelu;
mod prepared;
mod shape;
mod simd;
mod slices;
mod storage;
mod stored;
mod target;
mod tasks;
mod walk;

pub use activation::{
    Activation, AnyActivation, Elu, Gelu, GeluTanh, HardSwish, Identity, LeakyRelu, Mish, Relu, Relu6, Selu, Sigmoid,
    Silu, Softplus, Tanh,
};
pub use args::{
    Apply, ApplyGradient, Average, Backward, BackwardInPlace, Dropout, Eval, EvalInPlace, EvalPrepared,
    EvalPreparedInPlace, Finish, Masked, Moments, ParameterGradients, Parameters, Prepare, Reduce, Running, RunningMut,
    Saved, SavedArrays, SavedMut, Statistics, Train, Validity, saved_len,
};
pub use backend::Backend;
pub use config::{Config, Granularity, RunningVariance};
pub use element::{Bf16, Element, F16};
pub use error::{Buffer, Error};
pub use fold::{
    Fold, FoldPadding, WeightOrder, WeightShape, first_min_pooled, fold_into_next, fold_into_previous, fold_padding,
};
pub use layer::Layer;
pub use mask::{Bernoulli, mask_len, seed_for, seed_from};
pub use noise::Noise;
#[cfg(feature = "alloc")]
pub use owned::{BackwardStep, BatchNormDropout, BatchNormState, ForwardStep};
pub use parts::{merge_moments, merge_sums, moments_len};
pub use shape::Shape;
pub use stored::Stored;

#[cfg(doc)]
#[doc = include_str!("guide.md")]
pub mod guide {}

/// The examples of the README, tested like the examples of the documentation.
#[cfg(all(doctest, feature = "alloc"))]
#[doc = include_str!("../README.md")]
mod readme {}
