//! The layer with its memory: parameters, statistics, gradients, mask and scratch in one value. Only
//! with the feature `alloc`.

use alloc::vec::Vec;

use crate::activation::{Activation, Identity};
use crate::args::{
    Average, Backward, Dropout, Eval, EvalInPlace, EvalPrepared, Masked, ParameterGradients, Parameters, Prepare,
    Running, RunningMut, Saved, SavedMut, Statistics, Train, Validity,
};
use crate::backend::Backend;
use crate::config::{Config, Granularity};
use crate::error::{Buffer, Error, check_len};
use crate::layer::Layer;
use crate::mask::mask_len;
use crate::noise::Noise;
use crate::padding::Positions;
use crate::phase::masked;
use crate::shape::Shape;

/// The numbers that a layer learns and averages, under the names of PyTorch's `BatchNorm1d`: all that
/// a file needs to have of a layer.
///
/// With the feature `serde` it is `Serialize` and `Deserialize`. A file without
/// `running_mean_tail`, such as one that was made from a state dict of PyTorch, is read as well.
#[derive(Debug, Clone, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct BatchNormState {
    /// The scale per channel. A new layer has ones.
    pub weight: Vec<f32>,
    /// The shift per channel. A new layer has zeros.
    pub bias: Vec<f32>,
    /// The slopes of PReLU, one for each channel or one for all, if the layer has it: see
    /// [`BatchNormDropout::with_prelu`]. Otherwise empty. PyTorch's `PReLU` calls them `weight`.
    #[cfg_attr(feature = "serde", serde(default))]
    pub slope: Vec<f32>,
    /// The running mean per channel, rounded to f32. A new layer has zeros.
    pub running_mean: Vec<f32>,
    /// The running mean per channel minus `running_mean`: see
    /// [`RunningMut::mean_tail`](crate::RunningMut::mean_tail). PyTorch does not have it. A new layer
    /// has zeros; empty, the running mean is one f32, as in PyTorch.
    #[cfg_attr(feature = "serde", serde(default))]
    pub running_mean_tail: Vec<f32>,
    /// The running variance per channel. A new layer has ones.
    pub running_var: Vec<f32>,
    /// The number of batches that the running statistics have seen.
    #[cfg_attr(feature = "serde", serde(default))]
    pub num_batches_tracked: u64,
}

impl BatchNormState {
    /// The state of a new layer.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`].
    pub fn new(channels: usize) -> Result<Self, Error> {
        Ok(Self {
            weight: filled(Buffer::Weight, channels, 1.0)?,
            bias: filled(Buffer::Bias, channels, 0.0)?,
            slope: Vec::new(),
            running_mean: filled(Buffer::RunningMean, channels, 0.0)?,
            running_mean_tail: filled(Buffer::RunningMeanTail, channels, 0.0)?,
            running_var: filled(Buffer::RunningVar, channels, 1.0)?,
            num_batches_tracked: 0,
        })
    }

    /// Weight and bias, for a call of a [`Layer`].
    #[must_use]
    pub fn parameters(&self) -> Parameters<'_> {
        Parameters::new(&self.weight, &self.bias)
    }

    /// The running statistics, for a call of a [`Layer`].
    #[must_use]
    pub fn running(&self) -> Running<'_> {
        let tail = &self.running_mean_tail;
        Running { mean_tail: (!tail.is_empty()).then_some(tail), ..Running::new(&self.running_mean, &self.running_var) }
    }

    /// Checks that every field has a value for each channel.
    fn check(&self, channels: usize) -> Result<(), Error> {
        self.parameters().check(channels)?;
        self.running().check(channels)
    }

    /// Checks the slopes that a call is about to use: one for each channel, one for all, or none.
    fn check_slope(&self, channels: usize) -> Result<(), Error> {
        match self.slope.len() {
            0 | 1 => Ok(()),
            len => check_len(Buffer::Slope, channels, len),
        }
    }
}

/// A layer that owns its memory: batch norm, activation and dropout with parameters, running
/// statistics, gradients, mask and scratch. Only with the feature `alloc`.
///
/// It makes every call with a [`Layer`], and gives the same bits. It adds to a [`Layer`]:
/// - Every buffer has its length. A buffer grows with the batch, and a later batch that is not larger
///   allocates nothing.
/// - A training call always has a mask that was filled, because the call takes the seed of the mask.
///   [`seed_for`](crate::seed_for) gives each layer and step a seed of its own.
/// - A backward call has the input, the statistics and the mask of the training call before it. If
///   the activation has gates ([`Layer::has_gates`]), the layer keeps the gates in place of the mask,
///   and the backward call does not read the residual.
///
/// ```
/// use normdrop::{BatchNormDropout, Config, Relu, Shape, seed_for};
///
/// let mut layer = BatchNormDropout::new(3, Relu, Config { p: 0.5, ..Config::DEFAULT })?;
/// let (shape, x) = (Shape::nc(4, 3)?, [0., 1., 2., 3., 4., 5., 6., 7., 8., 9., 10., 11.]);
/// let (mut y, mut dx) = ([0.0; 12], [0.0; 12]);
/// for step in 0..100 {
///     layer.train(shape, seed_for(42, 0, step, 0), &x, &mut y)?;
///     let dy = y.map(|y| y - 1.0); // the gradient of the loss sum((y - 1)^2)/2
///     layer.backward(&dy, &mut dx)?;
///     for (values, gradients) in layer.parameters_mut() {
///         values.iter_mut().zip(gradients).for_each(|(value, gradient)| *value -= 0.01 * gradient);
///     }
/// }
/// layer.eval(Shape::nc(1, 3)?, &x[..3], &mut y[..3])?; // one sample, and nothing is dropped
/// assert!((layer.state.running_mean[0] - 4.5).abs() < 1e-3);
/// # Ok::<(), normdrop::Error>(())
/// ```
///
/// Sequences of different lengths in one tensor are the same calls with the lengths, or with a bitmap
/// of the valid positions. The statistics are those of the valid values alone, and the padding is
/// +0.0 in every output:
/// ```
/// use normdrop::{BatchNormDropout, Config, Identity, Shape, Validity};
///
/// let mut layer = BatchNormDropout::new(1, Identity, Config::DEFAULT)?;
/// // Two sequences of at most three positions: [1, 3] and [5].
/// let (shape, valid, x) = (Shape::nlc(2, 3, 1)?, Validity::Lengths(&[2, 1]), [1.0, 3.0, f32::NAN, 5.0, 0.0, 0.0]);
/// let (mut y, mut dx) = ([0.0; 6], [0.0; 6]);
/// layer.train_masked(shape, 42, valid, &x, &mut y)?;
/// assert_eq!(y, [-1.2247425, 0.0, 0.0, 1.2247425, 0.0, 0.0]);
/// layer.backward(&[1.0; 6], &mut dx)?; // over the valid positions of the training call
/// assert_eq!(dx, [0.0; 6]);
/// layer.eval_masked(shape, valid, &x, &mut y)?;
/// # Ok::<(), normdrop::Error>(())
/// ```
///
/// For a residual, or to keep the input where it is, there are [`ForwardStep`] and
/// [`BackwardStep`]. Every other call of a [`Layer`] is one of [`BatchNormDropout::layer`] with the
/// buffers of `state`:
/// ```
/// use normdrop::{BatchNormDropout, Config, Eval, Relu, Shape};
///
/// let owned = BatchNormDropout::new(2, Relu, Config::DEFAULT)?;
/// let layer = owned.layer(Shape::nc(1, 2)?)?;
/// let (mut y, mut scratch) = ([0.0; 2], vec![0.0; layer.eval_scratch_len()]);
/// layer.eval(Eval {
///     parameters: owned.state.parameters(),
///     residual: Some(&[1.0, -1.0]),
///     ..Eval::new(owned.state.running(), &[0.0, 0.0], &mut y, &mut scratch)
/// })?;
/// assert_eq!(y, [1.0, 0.0]);
/// # Ok::<(), normdrop::Error>(())
/// ```
///
/// # Errors
/// The calls return the errors of the [`Layer`]'s calls, and [`Error::OutOfMemory`]. A call that
/// returns an error has not written into its arguments, nor into `state` and the gradients. After a
/// training call that was refused there is nothing to differentiate: the next backward call returns
/// [`Error::NoForward`].
#[derive(Debug, Clone)]
pub struct BatchNormDropout<A> {
    /// The parameters and the running statistics. They may be changed between the calls; between a
    /// training call and its backward call the parameters must stay as they are.
    pub state: BatchNormState,
    /// The gradient of `state.weight`, overwritten by each backward call.
    pub grad_weight: Vec<f32>,
    /// The gradient of `state.bias`, overwritten by each backward call.
    pub grad_bias: Vec<f32>,
    /// The gradient of `state.slope`, overwritten by each backward call; empty without PReLU.
    pub grad_slope: Vec<f32>,
    /// The layer without memory. Its shape does not matter: every call has its own.
    layer: Layer<A>,
    cumulative: bool,
    noise: After,
    saved_mean: Vec<f32>,
    saved_mean_tail: Vec<f32>,
    saved_inv_std: Vec<f64>,
    mask: Mask,
    /// The gates of the last training call, if the activation has gates.
    gates: Vec<u8>,
    /// A copy of the input of the last training call, if the call kept one.
    input: Vec<f32>,
    scratch: Vec<f64>,
    /// The workspace to which calls over valid positions copy values.
    workspace: Vec<f32>,
    /// The valid positions of the last training call, if it had padding: as lengths or as a bitmap.
    lengths: Vec<usize>,
    bitmap: Vec<u8>,
    /// `dy` after the noise of the training call.
    grad_output: Vec<f32>,
    /// The output before PReLU, and its gradient.
    linear: Vec<f32>,
    /// The statistics of a call that evaluates many times. Between calls they mean nothing, because
    /// `state` may change.
    prepared: Vec<f64>,
    last: Option<Forward>,
}

/// A training call that can be differentiated.
#[derive(Debug, Clone, Copy)]
struct Forward {
    shape: Shape,
    seed: u64,
    kind: Kind,
    /// Whether the layer has a copy of the input.
    kept: bool,
    valid: Valid,
}

/// The form in which the layer keeps the valid positions of a training call.
#[derive(Debug, Clone, Copy)]
enum Valid {
    All,
    Lengths,
    Bitmap,
}

/// The statistics of a training call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Batch,
    Fixed,
}

/// Noise and alpha dropout: steps with the output at the end of a training call, and with `dy` at the
/// beginning of its backward call.
#[derive(Debug, Clone, Copy, Default)]
struct After {
    noise: Option<Noise>,
    /// Whether dropout is alpha dropout.
    alpha: bool,
}

impl After {
    const fn is_nothing(self) -> bool {
        self.noise.is_none() && !self.alpha
    }

    /// The dropout of the call itself.
    fn dropout<'a, A: Activation>(self, layer: &Layer<A>, mask: &'a mut Mask, seed: u64) -> Result<Dropout<'a>, Error> {
        // The mask is drawn here for alpha dropout as well, so that no memory is missing later.
        let dropout = mask.dropout(layer, seed)?;
        Ok(if self.alpha { Dropout::Off } else { dropout })
    }

    /// Alpha dropout and noise of an output, in place.
    fn forward<A: Activation>(
        self,
        layer: &Layer<A>,
        mask: &mut Mask,
        seed: u64,
        values: &mut [f32],
    ) -> Result<(), Error> {
        if self.alpha
            && let Dropout::Mask(mask) = mask.dropout(layer, seed)?
        {
            layer.alpha_dropout(mask, values)?;
        }
        self.noise.map_or(Ok(()), |noise| layer.apply_noise(noise, seed, values))
    }

    /// The gradient of [`Self::forward`], in place.
    fn backward<A: Activation>(
        self,
        layer: &Layer<A>,
        mask: &mut Mask,
        seed: u64,
        values: &mut [f32],
    ) -> Result<(), Error> {
        self.noise.map_or(Ok(()), |noise| layer.apply_noise(noise, seed, values))?;
        match mask.dropout(layer, seed)? {
            Dropout::Mask(mask) if self.alpha => layer.alpha_dropout_backward(mask, values),
            _ => Ok(()),
        }
    }
}

/// A mask that knows the seed and the number of bits with which it was drawn.
#[derive(Debug, Clone, Default)]
struct Mask {
    bytes: Vec<u8>,
    /// The seed and the number of bits; in a layer a mask depends on nothing else.
    drawn: Option<(u64, usize)>,
}

impl Mask {
    /// The mask of `seed`, drawn if `bytes` does not have it already.
    fn dropout<A: Activation>(&mut self, layer: &Layer<A>, seed: u64) -> Result<Dropout<'_>, Error> {
        if layer.config().p == 0.0 {
            return Ok(Dropout::Off);
        }
        let drawn = Some((seed, layer.mask_bits()));
        if self.drawn != drawn {
            self.drawn = None;
            resize(Buffer::Mask, &mut self.bytes, layer.mask_len(), 0)?;
            layer.fill_mask(seed, &mut self.bytes)?;
            self.drawn = drawn;
        }
        Ok(Dropout::Mask(&self.bytes))
    }
}

/// A training call of a [`BatchNormDropout`] that leaves the input with the caller.
///
/// The backward call needs the input again: [`BackwardStep::input`].
/// ```
/// use normdrop::{BackwardStep, BatchNormDropout, Config, ForwardStep, Relu, Shape};
///
/// let mut layer = BatchNormDropout::new(1, Relu, Config { p: 0.25, ..Config::DEFAULT })?;
/// let (x, r, dy) = ([1.0, 2.0, 3.0, 6.0], [0.5; 4], [1.0; 4]);
/// let (mut y, mut dx, mut dr) = ([0.0; 4], [0.0; 4], [0.0; 4]);
/// layer.train_step(ForwardStep { residual: Some(&r), ..ForwardStep::new(Shape::nc(4, 1)?, 42, &x, &mut y) })?;
/// layer.backward_step(BackwardStep {
///     residual: Some(&r),
///     grad_input: Some(&mut dx),
///     grad_residual: Some(&mut dr),
///     ..BackwardStep::new(&x, &dy)
/// })?;
/// // Where y is 0, no gradient flows.
/// assert!(y.iter().zip(dr).all(|(&y, dr)| (y == 0.0) == (dr == 0.0)));
/// # Ok::<(), normdrop::Error>(())
/// ```
#[derive(Debug)]
pub struct ForwardStep<'a> {
    /// The shape of the batch.
    pub shape: Shape,
    /// The seed of the mask. If `p` is 0 it does not matter.
    pub seed: u64,
    /// `x`, `shape.len()` values.
    pub input: &'a [f32],
    /// The residual, `shape.len()` values, which is added between normalisation and activation;
    /// `None` adds nothing.
    pub residual: Option<&'a [f32]>,
    /// Which positions are valid, if the batch is padded: see [`BatchNormDropout::train_masked`].
    /// `None` says that all positions are.
    pub validity: Option<Validity<'a>>,
    /// `y`, `shape.len()` values, overwritten.
    pub output: &'a mut [f32],
}

impl<'a> ForwardStep<'a> {
    /// A call without a residual and without padding.
    #[must_use]
    pub const fn new(shape: Shape, seed: u64, input: &'a [f32], output: &'a mut [f32]) -> Self {
        Self { shape, seed, input, residual: None, validity: None, output }
    }
}

/// A backward call of a [`BatchNormDropout`] after a [`ForwardStep`].
#[derive(Debug)]
pub struct BackwardStep<'a> {
    /// `x` of the training call.
    pub input: &'a [f32],
    /// The residual of the training call. It is not read, and may be `None`, if the activation has
    /// gates ([`Layer::has_gates`]).
    pub residual: Option<&'a [f32]>,
    /// `dy`, as many values as `x`.
    pub grad_output: &'a [f32],
    /// `dx`, as many values as `x`, overwritten; `None` if `dx` is not needed, as in a first layer.
    pub grad_input: Option<&'a mut [f32]>,
    /// The gradient of the residual, overwritten; `None` if it is not needed.
    pub grad_residual: Option<&'a mut [f32]>,
}

impl<'a> BackwardStep<'a> {
    /// A call that computes the gradients of weight and bias alone.
    #[must_use]
    pub const fn new(input: &'a [f32], grad_output: &'a [f32]) -> Self {
        Self { input, residual: None, grad_output, grad_input: None, grad_residual: None }
    }
}

impl BatchNormDropout<Identity> {
    /// The same layer with PReLU as its activation: `act(z) = z > 0 ? z : slope*z`, with slopes that are
    /// learned. See [`Layer::train_prelu`].
    ///
    /// `slope` has one value for each channel, or one for all channels: the slopes at the beginning,
    /// 0.25 in PyTorch. They go into `state.slope`, and every backward call writes their gradient into
    /// `grad_slope`. Noise and alpha dropout come after PReLU.
    /// ```
    /// use normdrop::{BatchNormDropout, Config, Identity, Shape};
    ///
    /// let mut layer = BatchNormDropout::new(2, Identity, Config::DEFAULT)?.with_prelu(&[0.25; 2])?;
    /// let (shape, x, mut y, mut dx) = (Shape::nc(2, 2)?, [1.0, 8.0, 3.0, 4.0], [0.0; 4], [0.0; 4]);
    /// layer.train(shape, 42, &x, &mut y)?;
    /// assert!((y[0] + 0.25).abs() < 1e-4);
    /// layer.backward(&[1.0; 4], &mut dx)?;
    /// assert!((layer.grad_slope[0] + 1.0).abs() < 1e-4);
    /// # Ok::<(), normdrop::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Length`] if `slope` has neither a value for each channel nor one; [`Error::OutOfMemory`].
    pub fn with_prelu(mut self, slope: &[f32]) -> Result<Self, Error> {
        if slope.len() != 1 {
            check_len(Buffer::Slope, self.channels(), slope.len())?;
        }
        copy(Buffer::Slope, slope, &mut self.state.slope)?;
        self.grad_slope = filled(Buffer::GradSlope, slope.len(), 0.0)?;
        Ok(self)
    }
}

impl<A: Activation> BatchNormDropout<A> {
    /// A new layer: weight 1, bias 0, running mean 0, running variance 1.
    ///
    /// # Errors
    /// Those of [`Layer::new`], and [`Error::OutOfMemory`].
    pub fn new(channels: usize, activation: A, config: Config) -> Result<Self, Error> {
        let layer = Layer::new(Shape::nc(0, channels)?, activation, config)?;
        Ok(Self {
            state: BatchNormState::new(channels)?,
            grad_weight: filled(Buffer::GradWeight, channels, 0.0)?,
            grad_bias: filled(Buffer::GradBias, channels, 0.0)?,
            grad_slope: Vec::new(),
            layer,
            cumulative: false,
            noise: After::default(),
            saved_mean: filled(Buffer::SavedMean, channels, 0.0)?,
            saved_mean_tail: filled(Buffer::SavedMeanTail, channels, 0.0)?,
            saved_inv_std: filled(Buffer::SavedInvStd, channels, 0.0)?,
            mask: Mask::default(),
            gates: Vec::new(),
            input: Vec::new(),
            scratch: Vec::new(),
            workspace: Vec::new(),
            lengths: Vec::new(),
            bitmap: Vec::new(),
            grad_output: Vec::new(),
            linear: Vec::new(),
            prepared: Vec::new(),
            last: None,
        })
    }

    /// The same layer with running statistics that are the mean of all batches,
    /// [`Average::Cumulative`], instead of an average with a momentum.
    #[must_use]
    pub fn with_cumulative_average(self) -> Self {
        Self { cumulative: true, ..self }
    }

    /// The same layer with noise: every training call multiplies its output by the noise of its seed,
    /// and its backward call does the same with `dy`; so does [`BatchNormDropout::monte_carlo`].
    /// Evaluation has no noise.
    ///
    /// Noise takes the place of dropout where the layer's `p` is 0. Otherwise the layer does both.
    /// ```
    /// use normdrop::{BatchNormDropout, Config, Noise, Relu, Shape};
    ///
    /// let mut layer = BatchNormDropout::new(3, Relu, Config::DEFAULT)?.with_noise(Noise::uniform(0.1)?);
    /// let (shape, x) = (Shape::nc(4, 3)?, [0., 1., 2., 3., 4., 5., 6., 7., 8., 9., 10., 11.]);
    /// let (mut y, mut dx) = ([0.0; 12], [0.0; 12]);
    /// layer.train(shape, 42, &x, &mut y)?;
    /// layer.backward(&y, &mut dx)?;
    /// # Ok::<(), normdrop::Error>(())
    /// ```
    #[must_use]
    pub fn with_noise(self, noise: Noise) -> Self {
        Self { noise: After { noise: Some(noise), ..self.noise }, ..self }
    }

    /// The same layer with alpha dropout in the place of dropout, for a network of
    /// [`Selu`](crate::Selu): see [`Layer::alpha_dropout`].
    #[must_use]
    pub fn with_alpha_dropout(self) -> Self {
        Self { noise: After { alpha: true, ..self.noise }, ..self }
    }

    /// The same layer on `backend`: [`Layer::with_backend`].
    ///
    /// # Errors
    /// [`Error::BackendUnavailable`] if this CPU or this build cannot run it.
    pub fn with_backend(self, backend: Backend) -> Result<Self, Error> {
        Ok(Self { layer: self.layer.with_backend(backend)?, ..self })
    }

    /// The same layer in at most `tasks` tasks a call: [`Layer::with_tasks`]. Only with the feature
    /// `rayon`.
    #[cfg(feature = "rayon")]
    #[must_use]
    pub fn with_tasks(self, tasks: usize) -> Self {
        Self { layer: self.layer.with_tasks(tasks), ..self }
    }

    /// The number of channels.
    #[must_use]
    pub const fn channels(&self) -> usize {
        self.layer.shape().channels()
    }

    /// The constants.
    #[must_use]
    pub const fn config(&self) -> Config {
        self.layer.config()
    }

    /// The layer without memory, for a batch of this shape.
    ///
    /// # Errors
    /// [`Error::Length`] of the weight if `shape` does not have the channels of this layer.
    pub fn layer(&self, shape: Shape) -> Result<Layer<A>, Error> {
        check_len(Buffer::Weight, shape.channels(), self.channels())?;
        Ok(self.layer.with_shape(shape))
    }

    /// Weight, bias and the slopes of PReLU, each with its gradient: what an optimiser needs. Without
    /// PReLU the slopes are empty.
    pub fn parameters_mut(&mut self) -> [(&mut [f32], &[f32]); 3] {
        let BatchNormState { weight, bias, slope, .. } = &mut self.state;
        [(weight, &self.grad_weight), (bias, &self.grad_bias), (slope, &self.grad_slope)]
    }

    /// Takes over a state, for example from a file.
    ///
    /// # Errors
    /// [`Error::Length`] if a field does not have a value for each channel of this layer.
    /// `running_mean_tail` may be empty, and `slope` has as many values as this layer's.
    pub fn load_state(&mut self, state: BatchNormState) -> Result<(), Error> {
        state.check(self.channels())?;
        check_len(Buffer::Slope, self.state.slope.len(), state.slope.len())?;
        self.state = state;
        Ok(())
    }

    /// Training forward: batch statistics, and dropout with the mask of `seed`. The running
    /// statistics move.
    ///
    /// The layer keeps a copy of `input` for [`BatchNormDropout::backward`]. It takes 4 bytes an
    /// element and the time of a copy. [`BatchNormDropout::train_step`] makes none.
    ///
    /// # Errors
    /// Those of [`Layer::train`] and [`BatchNormDropout::layer`].
    pub fn train(&mut self, shape: Shape, seed: u64, input: &[f32], output: &mut [f32]) -> Result<(), Error> {
        self.forward(Kind::Batch, ForwardStep::new(shape, seed, input, output), true)
    }

    /// [`BatchNormDropout::train`] over the valid positions of a padded batch, as
    /// [`Layer::train_masked`]: statistics of the valid values alone, and +0.0 in `output` where a
    /// position is padding. The padding of `input` is never read.
    ///
    /// The layer keeps a copy of `validity`, and the next backward call is one over the same
    /// positions: `grad_input` is +0.0 in the padding, and the padding of `grad_output` does not
    /// matter. Noise and alpha dropout leave the padding +0.0.
    ///
    /// # Errors
    /// Those of [`Layer::train_masked`] and [`BatchNormDropout::layer`].
    pub fn train_masked(
        &mut self,
        shape: Shape,
        seed: u64,
        validity: Validity<'_>,
        input: &[f32],
        output: &mut [f32],
    ) -> Result<(), Error> {
        let step = ForwardStep { validity: Some(validity), ..ForwardStep::new(shape, seed, input, output) };
        self.forward(Kind::Batch, step, true)
    }

    /// Training forward of a frozen batch norm: the running statistics normalise and stay as they
    /// are, and dropout is on. It keeps a copy of `input`, as [`BatchNormDropout::train`].
    ///
    /// # Errors
    /// Those of [`Layer::eval`] and [`BatchNormDropout::layer`].
    pub fn train_frozen(&mut self, shape: Shape, seed: u64, input: &[f32], output: &mut [f32]) -> Result<(), Error> {
        self.forward(Kind::Fixed, ForwardStep::new(shape, seed, input, output), true)
    }

    /// [`BatchNormDropout::train`] or [`BatchNormDropout::train_masked`] with a residual, or without
    /// the copy of the input. It is followed by [`BatchNormDropout::backward_step`].
    ///
    /// # Errors
    /// As [`BatchNormDropout::train`].
    pub fn train_step(&mut self, step: ForwardStep<'_>) -> Result<(), Error> {
        self.forward(Kind::Batch, step, false)
    }

    /// [`BatchNormDropout::train_frozen`] with a residual, or without the copy of the input. It is
    /// followed by [`BatchNormDropout::backward_step`].
    ///
    /// # Errors
    /// As [`BatchNormDropout::train_frozen`].
    pub fn train_frozen_step(&mut self, step: ForwardStep<'_>) -> Result<(), Error> {
        self.forward(Kind::Fixed, step, false)
    }

    /// The gradients of the last call of [`BatchNormDropout::train`],
    /// [`BatchNormDropout::train_masked`] or [`BatchNormDropout::train_frozen`]: `dx` into
    /// `grad_input`, and the gradients of weight and bias into `grad_weight` and `grad_bias`.
    ///
    /// The gradients are overwritten, not added up. Evaluations in between do not matter.
    ///
    /// # Errors
    /// [`Error::NoForward`] if there was no such call, or another training call after it; otherwise
    /// those of [`Layer::backward`].
    pub fn backward(&mut self, grad_output: &[f32], grad_input: &mut [f32]) -> Result<(), Error> {
        if !self.last.is_some_and(|last| last.kept) {
            return Err(Error::NoForward);
        }
        let input = core::mem::take(&mut self.input);
        let step = BackwardStep { grad_input: Some(grad_input), ..BackwardStep::new(&input, grad_output) };
        let result = self.backward_step(step);
        self.input = input;
        result
    }

    /// The gradients of the last training call, whose input and residual are given again. The
    /// residual may be left out if the activation has gates ([`Layer::has_gates`]); PReLU has none.
    ///
    /// # Errors
    /// [`Error::NoForward`] if there was no training call; otherwise those of [`Layer::backward`].
    pub fn backward_step(&mut self, step: BackwardStep<'_>) -> Result<(), Error> {
        let Some(Forward { shape, seed, kind, valid, .. }) = self.last else { return Err(Error::NoForward) };
        let BackwardStep { input, residual, grad_output, grad_input, grad_residual } = step;
        let layer = self.layer(shape)?;
        let validity = match valid {
            Valid::All => None,
            Valid::Lengths => Some(Validity::Lengths(&self.lengths)),
            Valid::Bitmap => Some(Validity::Bitmap(&self.bitmap)),
        };
        let has_prelu = !self.state.slope.is_empty();
        let needed = if has_prelu { layer.prelu_scratch_len() } else { layer.backward_scratch_len() };
        make_room(&mut self.scratch, needed)?;
        if validity.is_some() {
            make_masked_room(&mut self.scratch, &mut self.workspace, &layer)?;
        }
        let grad_output = if self.noise.is_nothing() {
            grad_output
        } else {
            check_len(Buffer::GradOutput, shape.len(), grad_output.len())?;
            resize(Buffer::GradOutput, &mut self.grad_output, shape.len(), 0.0)?;
            self.grad_output.copy_from_slice(grad_output);
            // The noise reads the padding, too.
            clear_padding(shape, validity, &mut self.grad_output);
            self.noise.backward(&layer, &mut self.mask, seed, &mut self.grad_output)?;
            &self.grad_output
        };
        let dropout = match layer.has_gates() && !has_prelu {
            true if self.noise.alpha => Dropout::UnscaledGates(&self.gates),
            true => Dropout::Gates(&self.gates),
            false => self.noise.dropout(&layer, &mut self.mask, seed)?,
        };
        let statistics = match kind {
            Kind::Batch => Statistics::Batch(Saved::new(&self.saved_mean, &self.saved_mean_tail, &self.saved_inv_std)),
            Kind::Fixed => Statistics::Fixed(self.state.running()),
        };
        let mut call = Backward {
            parameters: self.state.parameters(),
            dropout,
            residual,
            grad_input,
            grad_residual,
            grad_parameters: ParameterGradients::new(&mut self.grad_weight, &mut self.grad_bias),
            ..Backward::new(statistics, input, grad_output, &mut self.scratch)
        };
        if has_prelu {
            let masked = validity.map(|validity| Masked::new(validity, &mut self.workspace));
            layer.check_backward(&mut call, masked.as_ref())?;
            resize(Buffer::Output, &mut self.linear, shape.len(), 0.0)?;
            layer.forward_again(&mut call, masked, &mut self.linear);
            let grad_slope = Some(&mut self.grad_slope[..]);
            layer.prelu_gradient(&self.state.slope, grad_output, &mut self.linear, grad_slope, call.scratch)?;
            call.grad_output = &self.linear;
        }
        match validity {
            Some(validity) => layer.backward_masked(call, Masked::new(validity, &mut self.workspace)),
            None => layer.backward(call),
        }
    }

    /// Evaluation: the running statistics, and nothing is dropped.
    ///
    /// # Errors
    /// Those of [`Layer::eval`] and [`BatchNormDropout::layer`].
    pub fn eval(&mut self, shape: Shape, input: &[f32], output: &mut [f32]) -> Result<(), Error> {
        let layer = self.layer(shape)?;
        self.state.check_slope(self.channels())?;
        make_room(&mut self.scratch, layer.eval_scratch_len())?;
        let parameters = self.state.parameters();
        let call = Eval::new(self.state.running(), input, &mut *output, &mut self.scratch);
        layer.eval(Eval { parameters, ..call })?;
        self.activate(&layer, output)
    }

    /// Puts an output through PReLU, if the layer has it.
    fn activate(&self, layer: &Layer<A>, output: &mut [f32]) -> Result<(), Error> {
        if self.state.slope.is_empty() { Ok(()) } else { layer.prelu(&self.state.slope, output) }
    }

    /// [`BatchNormDropout::eval`] over the valid positions of a padded batch, as
    /// [`Layer::eval_masked`]: `output` is +0.0 where a position is padding, and the padding of `input`
    /// is never read.
    ///
    /// # Errors
    /// Those of [`Layer::eval_masked`] and [`BatchNormDropout::layer`].
    pub fn eval_masked(
        &mut self,
        shape: Shape,
        validity: Validity<'_>,
        input: &[f32],
        output: &mut [f32],
    ) -> Result<(), Error> {
        let layer = self.layer(shape)?;
        check_len(Buffer::Input, shape.len(), input.len())?;
        check_len(Buffer::Output, shape.len(), output.len())?;
        self.state.check_slope(self.channels())?;
        make_masked_room(&mut self.scratch, &mut self.workspace, &layer)?;
        let call = Eval::new(self.state.running(), input, &mut *output, &mut self.scratch);
        let call = Eval { parameters: self.state.parameters(), ..call };
        layer.eval_masked(call, Masked::new(validity, &mut self.workspace))?;
        self.activate(&layer, output)
    }

    /// [`BatchNormDropout::eval`] that overwrites its input.
    ///
    /// # Errors
    /// As [`BatchNormDropout::eval`].
    pub fn eval_in_place(&mut self, shape: Shape, values: &mut [f32]) -> Result<(), Error> {
        self.evaluate_in_place(shape, None, values)
    }

    /// Monte-Carlo dropout (Gal and Ghahramani, *Dropout as a Bayesian approximation*, 2016): one
    /// evaluation with dropout for each seed. `each` gets the seed and its output.
    ///
    /// `output` has `shape.len()` values, and the last output after the call. The statistics are
    /// prepared once for all seeds: see [`Layer::prepare`].
    /// ```
    /// use normdrop::{BatchNormDropout, Config, Identity, Shape, seed_for};
    ///
    /// let mut layer = BatchNormDropout::new(1, Identity, Config { p: 0.5, ..Config::DEFAULT })?;
    /// let (seeds, mut y, mut sum) = ((0..1000).map(|pass| seed_for(42, 0, pass, 0)), [0.0], 0.0);
    /// layer.monte_carlo(Shape::nc(1, 1)?, seeds, &[3.0], &mut y, |_, y| sum += y[0])?;
    /// // The mean over the masks is nearly what an evaluation without dropout gives.
    /// assert!((sum / 1000.0 - 3.0).abs() < 0.2);
    /// # Ok::<(), normdrop::Error>(())
    /// ```
    ///
    /// # Errors
    /// Those of [`Layer::eval`] and [`BatchNormDropout::layer`].
    pub fn monte_carlo(
        &mut self,
        shape: Shape,
        seeds: impl IntoIterator<Item = u64>,
        input: &[f32],
        output: &mut [f32],
        mut each: impl FnMut(u64, &[f32]),
    ) -> Result<(), Error> {
        let layer = self.layer(shape)?;
        check_len(Buffer::Input, shape.len(), input.len())?;
        check_len(Buffer::Output, shape.len(), output.len())?;
        self.state.check_slope(self.channels())?;
        make_room(&mut self.scratch, layer.eval_scratch_len())?;
        resize(Buffer::Prepared, &mut self.prepared, layer.prepared_len(), 0.0)?;
        let parameters = self.state.parameters();
        layer.prepare(Prepare { parameters, ..Prepare::new(self.state.running(), &mut self.prepared) })?;
        for seed in seeds {
            let dropout = self.noise.dropout(&layer, &mut self.mask, seed)?;
            let call = EvalPrepared::new(&self.prepared, input, output, &mut self.scratch);
            layer.eval_prepared(EvalPrepared { dropout, ..call })?;
            self.activate(&layer, output)?;
            self.noise.forward(&layer, &mut self.mask, seed, output)?;
            each(seed, output);
        }
        Ok(())
    }

    /// One pass of [`BatchNormDropout::monte_carlo`] that overwrites its input: for a network, whose
    /// layers each need a mask in every pass.
    ///
    /// # Errors
    /// As [`BatchNormDropout::eval`].
    pub fn monte_carlo_in_place(&mut self, shape: Shape, seed: u64, values: &mut [f32]) -> Result<(), Error> {
        self.evaluate_in_place(shape, Some(seed), values)
    }

    /// An evaluation in place, with dropout if there is a seed.
    fn evaluate_in_place(&mut self, shape: Shape, seed: Option<u64>, values: &mut [f32]) -> Result<(), Error> {
        let layer = self.layer(shape)?;
        check_len(Buffer::Values, shape.len(), values.len())?;
        self.state.check_slope(self.channels())?;
        make_room(&mut self.scratch, layer.eval_scratch_len())?;
        let parameters = self.state.parameters();
        let dropout = match seed {
            Some(seed) => self.noise.dropout(&layer, &mut self.mask, seed)?,
            None => Dropout::Off,
        };
        let call = EvalInPlace::new(self.state.running(), values, &mut self.scratch);
        layer.eval_in_place(EvalInPlace { parameters, dropout, ..call })?;
        self.activate(&layer, values)?;
        seed.map_or(Ok(()), |seed| self.noise.forward(&layer, &mut self.mask, seed, values))
    }

    /// A training call of either kind.
    fn forward(&mut self, kind: Kind, step: ForwardStep<'_>, keep: bool) -> Result<(), Error> {
        let ForwardStep { shape, seed, input, residual, validity, output } = step;
        let layer = self.layer(shape)?;
        // Before memory is asked for: a wrong shape may be larger than any memory.
        check_len(Buffer::Input, shape.len(), input.len())?;
        check_len(Buffer::Output, shape.len(), output.len())?;
        self.state.check_slope(self.channels())?;
        make_room(&mut self.scratch, layer.scratch_len())?;
        if validity.is_some() {
            make_masked_room(&mut self.scratch, &mut self.workspace, &layer)?;
        }
        // The statistics and the input of the previous call are about to be overwritten.
        self.last = None;
        // A mask with a bit for each element is drawn where its gates will be.
        let config = layer.config();
        let has_gates = layer.has_gates() && self.state.slope.is_empty();
        let dropout = if has_gates {
            resize(Buffer::Gates, &mut self.gates, mask_len(shape.len()), 0)?;
            if config.p == 0.0 || config.granularity != Granularity::Element || self.noise.alpha {
                self.noise.dropout(&layer, &mut self.mask, seed)?
            } else {
                layer.fill_mask(seed, &mut self.gates)?;
                Dropout::InGates
            }
        } else {
            self.noise.dropout(&layer, &mut self.mask, seed)?
        };
        if keep {
            copy(Buffer::Input, input, &mut self.input)?;
        }
        let valid = match validity {
            None => Valid::All,
            Some(Validity::Lengths(lengths)) => {
                copy(Buffer::Lengths, lengths, &mut self.lengths)?;
                Valid::Lengths
            }
            Some(Validity::Bitmap(bitmap)) => {
                copy(Buffer::Validity, bitmap, &mut self.bitmap)?;
                Valid::Bitmap
            }
        };
        let BatchNormState { weight, bias, running_mean, running_mean_tail, running_var, num_batches_tracked, .. } =
            &mut self.state;
        let parameters = Parameters::new(weight, bias);
        match kind {
            Kind::Batch => {
                let mean_tail = (!running_mean_tail.is_empty()).then_some(&mut running_mean_tail[..]);
                // A copy: the batch is counted below, for either average.
                let mut counted = *num_batches_tracked;
                let average =
                    if self.cumulative { Average::Cumulative { batches: &mut counted } } else { Average::Exponential };
                let running = RunningMut { mean_tail, average, ..RunningMut::new(running_mean, running_var) };
                let saved = SavedMut::new(&mut self.saved_mean, &mut self.saved_mean_tail, &mut self.saved_inv_std);
                let call = Train::new(input, &mut *output, saved, &mut self.scratch);
                let call = Train { parameters, running: Some(running), dropout, residual, ..call };
                let gates = has_gates.then_some(&mut self.gates[..]);
                match (validity.map(|validity| Masked::new(validity, &mut self.workspace)), gates) {
                    (None, None) => layer.train(call),
                    (None, Some(gates)) => layer.train_with_gates(call, gates),
                    (Some(masked), None) => layer.train_masked(call, masked),
                    (Some(masked), Some(gates)) => layer.train_masked_with_gates(call, masked, gates),
                }?;
                let has_values = |validity| Positions::valid(shape, validity).take(1).is_some();
                if !shape.is_empty() && validity.is_none_or(has_values) {
                    *num_batches_tracked = num_batches_tracked.saturating_add(1);
                }
            }
            Kind::Fixed => {
                let call = Eval::new(self.state.running(), input, &mut *output, &mut self.scratch);
                let call = Eval { parameters: self.state.parameters(), dropout, residual, ..call };
                let gates = has_gates.then_some(&mut self.gates[..]);
                match (validity.map(|validity| Masked::new(validity, &mut self.workspace)), gates) {
                    (None, None) => layer.eval(call),
                    (None, Some(gates)) => layer.eval_with_gates(call, gates),
                    (Some(masked), None) => layer.eval_masked(call, masked),
                    (Some(masked), Some(gates)) => layer.eval_masked_with_gates(call, masked, gates),
                }?;
            }
        }
        self.activate(&layer, output)?;
        if !self.noise.is_nothing() {
            self.noise.forward(&layer, &mut self.mask, seed, output)?;
            clear_padding(shape, validity, output);
        }
        self.last = Some(Forward { shape, seed, kind, kept: keep, valid });
        Ok(())
    }
}

/// Makes scratch at least as long as a call needs it. It never becomes shorter.
fn make_room(scratch: &mut Vec<f64>, needed: usize) -> Result<(), Error> {
    let most = scratch.len().max(needed);
    resize(Buffer::Scratch, scratch, most, 0.0)
}

/// Makes scratch and workspace as long as calls over valid positions need them.
fn make_masked_room<A: Activation>(
    scratch: &mut Vec<f64>,
    workspace: &mut Vec<f32>,
    layer: &Layer<A>,
) -> Result<(), Error> {
    make_room(scratch, layer.masked_scratch_len())?;
    let most = workspace.len().max(layer.masked_workspace_len());
    resize(Buffer::Workspace, workspace, most, 0.0)
}

/// Sets the padding of a tensor to +0.0, if there is any. The validity has been checked.
fn clear_padding(shape: Shape, validity: Option<Validity<'_>>, values: &mut [f32]) {
    if let Some(validity) = validity {
        masked::clear(shape, Positions::valid(shape, validity), values);
    }
}

/// Overwrites a buffer with a copy.
fn copy<T: Copy>(buffer: Buffer, from: &[T], to: &mut Vec<T>) -> Result<(), Error> {
    to.clear();
    to.try_reserve_exact(from.len()).map_err(|_| out_of_memory(buffer, from.len()))?;
    to.extend_from_slice(from);
    Ok(())
}

/// A buffer of equal values.
fn filled<T: Clone>(buffer: Buffer, len: usize, value: T) -> Result<Vec<T>, Error> {
    let mut values = Vec::new();
    resize(buffer, &mut values, len, value)?;
    Ok(values)
}

/// Changes the length of a buffer, and returns an error where the allocator has no room.
fn resize<T: Clone>(buffer: Buffer, values: &mut Vec<T>, len: usize, value: T) -> Result<(), Error> {
    let more = len.saturating_sub(values.len());
    values.try_reserve_exact(more).map_err(|_| out_of_memory(buffer, len))?;
    values.resize(len, value);
    Ok(())
}

const fn out_of_memory(buffer: Buffer, len: usize) -> Error {
    Error::OutOfMemory { buffer, len }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::activation::Relu;

    #[test]
    fn a_batch_that_is_not_larger_than_one_before_allocates_nothing() -> Result<(), Error> {
        let mut layer = BatchNormDropout::new(3, Relu, Config { p: 0.5, ..Config::DEFAULT })?;
        let places = |layer: &BatchNormDropout<Relu>| {
            let BatchNormDropout { gates, input, scratch, .. } = layer;
            let capacities = (gates.capacity(), input.capacity(), scratch.capacity());
            (gates.as_ptr(), input.as_ptr(), scratch.as_ptr(), capacities)
        };
        let (x, mut y, mut dx) = ([1.0; 96], [0.0; 96], [0.0; 96]);
        let mut first = None;
        for (seed, samples) in [32, 7, 32, 2, 31].into_iter().enumerate() {
            let (shape, len) = (Shape::nc(samples, 3)?, 3 * samples);
            layer.train(shape, seed as u64, &x[..len], &mut y[..len])?;
            layer.backward(&y[..len], &mut dx[..len])?;
            layer.eval(shape, &x[..len], &mut y[..len])?;
            assert_eq!(places(&layer), *first.get_or_insert(places(&layer)), "{samples} samples");
        }
        Ok(())
    }
}
