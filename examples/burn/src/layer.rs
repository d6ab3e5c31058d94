//! The module: parameters, running statistics, and where in the sequence of masks it is.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use burn::backend::{Dispatch, ExecutionError};
use burn::module::{Flag, Module, Param, RunningState};
use burn::tensor::{DType, Device, Tensor};
use normdrop::{Config, Layer, Relu};

use crate::op::{Fused, Mode};
use crate::pass::{check, mask_seed, shape_of};

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
    /// If the tensor is not f32, has fewer than two dimensions or another number of channels, or in training one value per
    /// channel.
    pub fn try_forward<const D: usize>(&self, x: Tensor<D>) -> Result<Tensor<D>, ExecutionError> {
        let [channels] = self.gamma.dims();
        let dims = x.dims();
        let shape = shape_of(&dims).ok_or_else(|| refused(format_args!("{dims:?} has fewer than two dimensions")))?;
        let shape = shape.map_err(refused)?;
        if shape.channels() != channels {
            return Err(refused(format_args!(
                "the layer has {channels} channels, the tensor {dims:?} {}",
                shape.channels()
            )));
        }
        if x.dtype() != DType::F32 {
            return Err(refused(format_args!("the tensor must be f32, not {:?}", x.dtype())));
        }
        let layer = Layer::new(shape, Relu, self.plan.config).map_err(refused)?;
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
}
