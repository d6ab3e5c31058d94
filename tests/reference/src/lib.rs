//! The scalar reference of `normdrop`: what its kernels must compute, written to be read.
//!
//! Every formula stands here once, in f64, and in double-double arithmetic where f64 is not enough. Nothing is fast,
//! nothing is shared with the crate under test, and tests, fuzz targets and benches compare with the same numbers.
//!
//! | module | what it holds |
//! |---|---|
//! | [`layer`] | batch norm, activation and dropout, forward and backward, with the scale of each result's error |
//! | [`fold`] | batch norm folded into the weights of the layer before it or after it |
//! | [`activation`] | the activations and their derivatives, with the scale of their errors |
//! | [`mask`] | the dropout mask, one element at a time |
//! | [`random`] | the two published generators that masks and data are made with |
//! | [`classes`] | the kinds of data that accuracy is promised for, and those that must not break anything |
//! | [`units`] | errors in units in the last place of a scale, and the worst of them |
//! | [`errors`] | the errors of a layer under test, result by result |
//! | [`double`] | double-double arithmetic |

pub mod activation;
pub mod classes;
pub mod double;
pub mod errors;
pub mod fold;
pub mod layer;
pub mod mask;
pub mod random;
pub mod units;
