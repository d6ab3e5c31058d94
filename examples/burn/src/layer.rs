//! The module: parameters, running statistics, and where in the sequence of masks it is.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use burn::backend::{Dispatch, ExecutionError};
use burn::module::{Flag, Module, Param, RunningState};
use burn::tensor::{DType, Device, Tensor};
use normdrop::{Config, Layer, Parameters, Relu, Shape};

use crate::op::{Fused, Mode};
use crate::pass::{Order, check, mask_seed, prepare, shape_of};

/// `y = dropout(relu(batchnorm(x)))` over the channels of `[N, C]`, `[N, C, L]`, `[N, C, H, W]` or `[N, C, D, H, W]`.
///
/// As burn's own layers do: on a device with autodiff it normalises with the statistics of the batch, updates the running ones
/// and drops; without, or while `training` is off (`freeze`), it normalises with the running ones and drops nothing. The
/// fields have the names of burn's `BatchNorm`.
#[derive(Module, Debug)]
pub struct BatchNormDropout {
    /// The scale per channel.
    pub gamma: Param<Tensor<1>>,
    /// The shift per channel.
    pub beta: Param<Tensor<1>>,
    /// Whether the layer behaves as in training, given a device with autodiff.
    pub training: Param<Flag>,
    /// The running mean per channel.
    pub running_mean: RunningState<Tensor<1>>,
    /// The running variance per channel.
    pub running_var: RunningState<Tensor<1>>,
    #[module(skip)]
    plan: Plan,
}

/// What is neither learned nor recorded.
#[derive(Debug, Clone)]
struct Plan {
    config: Config,
    seed: u64,
    rank: u64,
    // An optimiser takes a module apart and puts it together again: the counter has to be the same one afterwards.
    step: Arc<AtomicU64>,
}

fn refused(reason: impl std::fmt::Display) -> ExecutionError {
    ExecutionError::WithContext { reason: format!("batch-norm-dropout: {reason}") }
}

impl BatchNormDropout {
    /// A layer of this many channels.
    ///
    /// Every layer of a network needs a seed of its own: two with the same one drop the same elements.
    ///
    /// # Errors
    /// If `eps`, `momentum` or `p` is out of its range.
    pub fn new(channels: usize, config: Config, seed: u64, device: &Device) -> Result<Self, ExecutionError> {
        check(channels, Relu, config).map_err(refused)?;
        let of = |value: f32| Tensor::<1>::full([channels], value, (device, DType::F32));
        Ok(Self {
            gamma: Param::from_tensor(of(1.0)),
            beta: Param::from_tensor(of(0.0)),
            training: Param::from_bool(true),
            running_mean: RunningState::new(of(0.0)),
            running_var: RunningState::new(of(1.0)),
            plan: Plan { config, seed, rank: 0, step: Arc::default() },
        })
    }

    /// The same layer as part of data-parallel training: each rank draws other masks.
    #[must_use]
    pub fn with_rank(mut self, rank: u64) -> Self {
        self.plan.rank = rank;
        self
    }

    /// The number of training calls so far, which chooses the mask of the next one. Clones count together.
    #[must_use]
    pub fn step(&self) -> u64 {
        self.plan.step.load(Ordering::Relaxed)
    }

    /// Continues with the mask of this step: after a checkpoint was loaded, or to make a call again.
    pub fn set_step(&self, step: u64) {
        self.plan.step.store(step, Ordering::Relaxed);
    }

    /// The seed that [`normdrop::Layer::fill_mask`] makes the mask of a step from.
    #[must_use]
    pub fn mask_seed(&self, step: u64) -> u64 {
        mask_seed(self.plan.seed, self.plan.rank, step)
    }

    /// The output.
    ///
    /// # Panics
    /// Where [`BatchNormDropout::try_forward`] has an error, as burn's own layers do.
    #[must_use]
    pub fn forward<const D: usize>(&self, x: Tensor<D>) -> Tensor<D> {
        self.try_forward(x).unwrap_or_else(|error| panic!("{error}"))
    }

    /// The output, or what is wrong with the input; then neither the running statistics nor the step have changed.
    ///
    /// # Errors
    /// If the tensor is not f32, bf16 or f16, has fewer than two dimensions or another number of channels, or in training one value per
    /// channel.
    pub fn try_forward<const D: usize>(&self, x: Tensor<D>) -> Result<Tensor<D>, ExecutionError> {
        let layer = layer_for(&x, self.gamma.dims()[0], self.plan.config)?;
        let device = x.device();
        let (train, step) = (device.is_autodiff() && self.training.is_enabled(), self.step());
        let mode = if train { Mode::Train { mask_seed: self.mask_seed(step) } } else { Mode::Eval };
        let running = |state: &RunningState<Tensor<1>>| state.value_sync().to_device(&device).into_dispatch();
        let result = Dispatch::batch_norm_dropout(
            x.into_dispatch(),
            self.gamma.val().into_dispatch(),
            self.beta.val().into_dispatch(),
            running(&self.running_mean),
            running(&self.running_var),
            layer,
            mode,
        );
        result.pass.map_err(refused)?;
        if train {
            self.running_mean.update(Tensor::from_dispatch(result.running_mean).detach());
            self.running_var.update(Tensor::from_dispatch(result.running_var).detach());
            self.set_step(step.wrapping_add(1));
        }
        Ok(Tensor::from_dispatch(result.output))
    }

    /// The layer as it is now for many evaluations: [`BatchNormDropout::forward`] on a device without autodiff computes the
    /// coefficients of each channel anew in each call, because the parameters may have changed.
    ///
    /// # Errors
    /// If a running variance is negative by more than `eps`.
    pub fn prepare(&self) -> Result<PreparedBatchNorm, ExecutionError> {
        let values = |tensor: Tensor<1>| tensor.into_data().try_to_vec::<f32>().map_err(refused);
        let (weight, bias) = (values(self.gamma.val())?, values(self.beta.val())?);
        let (mean, var) = (values(self.running_mean.value_sync())?, values(self.running_var.value_sync())?);
        let config = self.plan.config;
        let layer = Shape::nc(1, weight.len()).and_then(|shape| Layer::new(shape, Relu, config)).map_err(refused)?;
        let prepared = prepare(&layer, Parameters::new(&weight, &bias), [&mean, &var]).map_err(refused)?;
        Ok(PreparedBatchNorm { prepared, channels: weight.len(), config })
    }
}

/// The evaluation of a [`BatchNormDropout`] with the parameters and statistics that it had: to the bit the same, without a
/// square root or a quotient. For devices without autodiff, because it has no gradients.
#[derive(Debug, Clone)]
pub struct PreparedBatchNorm {
    prepared: Arc<[f64]>,
    channels: usize,
    config: Config,
}

impl PreparedBatchNorm {
    /// The output.
    ///
    /// # Panics
    /// Where [`PreparedBatchNorm::try_forward`] has an error, as burn's own layers do.
    #[must_use]
    pub fn forward<const D: usize>(&self, x: Tensor<D>) -> Tensor<D> {
        self.try_forward(x).unwrap_or_else(|error| panic!("{error}"))
    }

    /// The output, or what is wrong with the input.
    ///
    /// # Errors
    /// If the tensor is on a device with autodiff, is not f32, bf16 or f16, has fewer than two dimensions or another number of
    /// channels.
    pub fn try_forward<const D: usize>(&self, x: Tensor<D>) -> Result<Tensor<D>, ExecutionError> {
        let layer = layer_for(&x, self.channels, self.config)?;
        let device = x.device();
        if device.is_autodiff() {
            return Err(refused("prepared statistics have no gradients, and the tensor is on a device with autodiff"));
        }
        let unused = || Tensor::<1>::zeros([0], (&device, DType::F32)).into_dispatch();
        let mode = Mode::Prepared(Arc::clone(&self.prepared));
        let result =
            Dispatch::batch_norm_dropout(x.into_dispatch(), unused(), unused(), unused(), unused(), layer, mode);
        result.pass.map_err(refused)?;
        Ok(Tensor::from_dispatch(result.output))
    }
}

/// The layer for a tensor, which is in memory as its dimensions are: the operation sees whether that is so.
fn layer_for<const D: usize>(x: &Tensor<D>, channels: usize, config: Config) -> Result<Layer<Relu>, ExecutionError> {
    let dims = x.dims();
    let shape = shape_of(&dims, Order::First);
    let shape = shape.ok_or_else(|| refused(format_args!("{dims:?} has fewer than two dimensions")))?;
    let shape = shape.map_err(refused)?;
    if shape.channels() != channels {
        return Err(refused(format_args!(
            "the layer has {channels} channels, the tensor {dims:?} {}",
            shape.channels()
        )));
    }
    if !matches!(x.dtype(), DType::F32 | DType::BF16 | DType::F16) {
        return Err(refused(format_args!("the tensor must be f32, bf16 or f16, not {:?}", x.dtype())));
    }
    Layer::new(shape, Relu, config).map_err(refused)
}
