//! Batch norm, an activation and dropout as one layer of [candle](candle_core): normdrop as a custom operation with its
//! backward pass, on the CPU.
//!
//! ```
//! use candle_core::{DType, Device, Tensor};
//! use candle_nn::{Module, ModuleT, Optimizer, SGD, VarBuilder, VarMap, linear};
//! use normdrop::{Config, Relu};
//! use normdrop_candle::batch_norm_dropout;
//!
//! let variables = VarMap::new();
//! let vb = VarBuilder::from_varmap(&variables, DType::F32, &Device::Cpu);
//! let hidden = linear(64, 128, vb.pp("hidden"))?;
//! let norm = batch_norm_dropout(128, Relu, Config { p: 0.2, ..Config::DEFAULT }, 42, vb.pp("norm"))?;
//! let x = Tensor::randn(0f32, 1.0, (20, 64), &Device::Cpu)?;
//! let loss = norm.forward_t(&hidden.forward(&x)?, true)?.sqr()?.mean_all()?;
//! SGD::new(variables.all_vars(), 0.1)?.backward_step(&loss)?;
//! # Ok::<(), candle_core::Error>(())
//! ```

mod layer;
mod op;
#[path = "../../frameworks/pass.rs"]
mod pass;

pub use layer::{BatchNormDropout, batch_norm_dropout};
