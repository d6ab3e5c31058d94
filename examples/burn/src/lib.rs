//! Batch norm, ReLU and dropout as one module of [burn]: normdrop as an extension of the backend `flex` and of its
//! autodiff, with the backward pass.
//!
//! ```
//! use burn::tensor::{Device, Distribution, Tensor};
//! use normdrop::Config;
//! use normdrop_burn::BatchNormDropout;
//!
//! let device = Device::flex().autodiff();
//! let norm = BatchNormDropout::new(128, Config { p: 0.2, ..Config::DEFAULT }, 42, &device)?;
//! let x = Tensor::<2>::random([20, 128], Distribution::Normal(0.0, 1.0), &device);
//! let gradients = norm.forward(x).powi_scalar(2).mean().backward();
//! assert!(norm.gamma.grad(&gradients).is_some());
//! # Ok::<(), burn::backend::ExecutionError>(())
//! ```

mod layer;
mod op;
#[path = "../../frameworks/pass.rs"]
mod pass;

pub use layer::BatchNormDropout;
