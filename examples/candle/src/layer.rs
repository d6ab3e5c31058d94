//! The layer: parameters, running statistics, and where in the sequence of masks it is.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use candle_core::{DType, Error, Result, Tensor, Var, bail};
use candle_nn::{Init, Module, ModuleT, VarBuilder};
use normdrop::{Activation, Config, Layer, Parameters, Relu, Shape};

use crate::op::{Mode, Op, PreparedOp};
use crate::pass::{Order, check, mask_seed, prepare, shape_of};

/// `y = dropout(act(batchnorm(x)))` over the channels of `[N, C]`, `[N, C, L]`, `[N, C, H, W]` or `[N, C, D, H, W]`.
///
/// [`ModuleT::forward_t`] with `train` normalises with the statistics of the batch, updates the running ones and drops;
/// without, it normalises with the running ones and drops nothing. Gradients flow in both.
#[derive(Debug)]
pub struct BatchNormDropout<A = Relu> {
    weight: Tensor,
    bias: Tensor,
    running_mean: Var,
    running_var: Var,
    activation: A,
    config: Config,
    seed: u64,
    rank: u64,
    step: AtomicU64,
}

/// A layer of this many channels, its variables under the names of [`candle_nn::batch_norm`]: `weight`, `bias`,
/// `running_mean` and `running_var`.
///
/// Every layer of a network needs a seed of its own: two with the same one drop the same elements.
///
/// # Errors
/// If `eps`, `momentum` or `p` is out of its range, or if the variables are not f32 or have another shape.
pub fn batch_norm_dropout<A: Activation>(
    channels: usize,
    activation: A,
    config: Config,
    seed: u64,
    vb: VarBuilder<'_>,
) -> Result<BatchNormDropout<A>> {
    check(channels, activation, config).map_err(Error::wrap)?;
    let variable = |name, start| {
        let tensor = vb.get_with_hints(channels, name, Init::Const(start))?;
        if tensor.dtype() != DType::F32 {
            let msg = "batch-norm-dropout variables";
            return Err(Error::UnexpectedDType { msg, expected: DType::F32, got: tensor.dtype() }.bt());
        }
        Ok(tensor)
    };
    Ok(BatchNormDropout {
        weight: variable("weight", 1.0)?,
        bias: variable("bias", 0.0)?,
        running_mean: Var::from_tensor(&variable("running_mean", 0.0)?)?,
        running_var: Var::from_tensor(&variable("running_var", 1.0)?)?,
        activation,
        config,
        seed,
        rank: 0,
        step: AtomicU64::new(0),
    })
}

impl<A> BatchNormDropout<A> {
    /// The same layer as part of data-parallel training: each rank draws other masks.
    #[must_use]
    pub fn with_rank(self, rank: u64) -> Self {
        Self { rank, ..self }
    }

    /// The number of training calls so far, which chooses the mask of the next one.
    #[must_use]
    pub fn step(&self) -> u64 {
        self.step.load(Ordering::Relaxed)
    }

    /// Continues with the mask of this step: after a checkpoint was loaded, or to make a call again.
    pub fn set_step(&self, step: u64) {
        self.step.store(step, Ordering::Relaxed);
    }

    /// The seed that [`normdrop::Layer::fill_mask`] makes the mask of a step from.
    #[must_use]
    pub fn mask_seed(&self, step: u64) -> u64 {
        mask_seed(self.seed, self.rank, step)
    }

    /// The scale per channel.
    #[must_use]
    pub fn weight(&self) -> &Tensor {
        &self.weight
    }

    /// The shift per channel.
    #[must_use]
    pub fn bias(&self) -> &Tensor {
        &self.bias
    }

    /// The running mean per channel.
    #[must_use]
    pub fn running_mean(&self) -> &Tensor {
        self.running_mean.as_tensor()
    }

    /// The running variance per channel.
    #[must_use]
    pub fn running_var(&self) -> &Tensor {
        self.running_var.as_tensor()
    }
}

impl<A: Activation> BatchNormDropout<A> {
    /// The layer as it is now for many evaluations: [`ModuleT::forward_t`] without `train` computes the coefficients of each
    /// channel anew in each call, because the variables may have changed.
    ///
    /// # Errors
    /// If a running variance is negative by more than `eps`.
    pub fn prepare(&self) -> Result<PreparedBatchNorm<A>> {
        let channels = self.weight.elem_count();
        let shape = Shape::nc(1, channels).map_err(Error::wrap)?;
        let layer = Layer::new(shape, self.activation, self.config).map_err(Error::wrap)?;
        let [weight, bias, mean, var] =
            [&self.weight, &self.bias, self.running_mean(), self.running_var()].map(Tensor::to_vec1::<f32>);
        let (weight, bias, mean, var) = (weight?, bias?, mean?, var?);
        let parameters = Parameters::new(&weight, &bias);
        let prepared = prepare(&layer, parameters, [&mean, &var]).map_err(Error::wrap)?;
        Ok(PreparedBatchNorm { prepared, channels, activation: self.activation, config: self.config })
    }
}

/// The evaluation of a [`BatchNormDropout`] with the parameters and statistics that it had: to the bit the same, without a
/// square root or a quotient. A backward pass through it is an error.
#[derive(Debug, Clone)]
pub struct PreparedBatchNorm<A = Relu> {
    prepared: Arc<[f64]>,
    channels: usize,
    activation: A,
    config: Config,
}

impl<A: Activation + 'static> Module for PreparedBatchNorm<A> {
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let (layer, order) = layer_for(x, self.channels, self.activation, self.config)?;
        in_order(x, order, |x| x.apply_op1(PreparedOp::new(layer, Arc::clone(&self.prepared))))
    }
}

/// The layer for a tensor, and the order in which that is in memory, or will be after a copy.
fn layer_for<A: Activation>(x: &Tensor, channels: usize, activation: A, config: Config) -> Result<(Layer<A>, Order)> {
    let (layout, rank) = (x.layout(), x.rank());
    let is_last = rank > 2 && !layout.is_contiguous() && layout.permute(&Order::Last.of_memory(rank))?.is_contiguous();
    let order = if is_last { Order::Last } else { Order::First };
    let Some(shape) = shape_of(x.dims(), order) else {
        bail!("batch-norm-dropout takes a tensor of at least two dimensions, not {:?}", x.shape())
    };
    let shape = shape.map_err(Error::wrap)?;
    if shape.channels() != channels {
        bail!("batch-norm-dropout has {channels} channels, the tensor {:?} has {}", x.shape(), shape.channels())
    }
    Ok((Layer::new(shape, activation, config).map_err(Error::wrap)?, order))
}

/// A function of a contiguous tensor whose dimensions are in the order in which `x` is in memory.
fn in_order(x: &Tensor, order: Order, function: impl FnOnce(&Tensor) -> Result<Tensor>) -> Result<Tensor> {
    match order {
        // `contiguous` copies nothing if the tensor is.
        Order::First => function(&x.contiguous()?),
        Order::Last => function(&x.permute(order.of_memory(x.rank()))?)?.permute(order.of_tensor(x.rank())),
    }
}

impl<A: Activation + 'static> ModuleT for BatchNormDropout<A> {
    fn forward_t(&self, x: &Tensor, train: bool) -> Result<Tensor> {
        let (layer, order) = layer_for(x, self.weight.elem_count(), self.activation, self.config)?;
        let step = self.step();
        let mode = if train { Mode::Train { mask_seed: self.mask_seed(step) } } else { Mode::Eval };
        let op = Op::new(layer, mode, self.running_mean.clone(), self.running_var.clone());
        let y = in_order(x, order, |x| x.apply_op3(&self.weight, &self.bias, op))?;
        if train {
            self.set_step(step.wrapping_add(1));
        }
        Ok(y)
    }
}
