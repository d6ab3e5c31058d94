//! The layer: a plan of a shape, constants and an activation. Checks every argument, then calls a phase.

#[cfg(feature = "rayon")]
use core::num::NonZero;

use rand_core::Rng;

use crate::activation::Activation;
use crate::args::{
    Apply, ApplyGradient, Backward, BackwardInPlace, Dropout, Eval, EvalInPlace, Finish, Moments, ParameterGradients,
    Parameters, Reduce, Running, RunningMut, Saved, Statistics, Train,
};
use crate::backward::{self, BackwardCall, Gradients, Phase, Target};
use crate::channel::Normalisation;
use crate::config::{Config, Granularity};
use crate::error::{Buffer, Error, check_len};
use crate::eval::{self, EvalCall};
use crate::mask::{Bernoulli, mask_len};
use crate::moments::{self, moments_len};
use crate::pass::Walk;
use crate::pass::channelwise::CHANNELWISE;
use crate::pass::keep::{Gates, SharedMask};
use crate::shape::Shape;
use crate::simd::Backend;
use crate::tasks::Tasks;
use crate::train;

/// The fused layer `y = dropout(act(batchnorm(x) + residual))`: a plan that fits a constant and holds no data.
///
/// Every buffer belongs to the caller; their lengths come from `const` functions, so that an embedded program can
/// declare them as arrays and a layer that cannot exist is a compile error:
///
/// ```
/// use normdrop::{Config, Layer, Relu, Shape};
///
/// const LAYER: Layer<Relu> = match Shape::nc(8, 32) {
///     Ok(shape) => match Layer::new(shape, Relu, Config { p: 0.25, ..Config::DEFAULT }) {
///         Ok(layer) => layer,
///         Err(_) => panic!("eps, momentum or p out of range"),
///     },
///     Err(_) => panic!("the shape is too large"),
/// };
/// static SCRATCH: [f64; LAYER.scratch_len()] = [0.0; LAYER.scratch_len()];
/// static MASK: [u8; LAYER.mask_len()] = [0; LAYER.mask_len()];
/// ```
///
/// # Errors and panics
/// Every call checks every length before it reads or writes anything; when it returns an error, nothing was
/// written. No call panics or allocates (but for `rayon`, see `with_tasks`). An empty tensor is accepted: gradients of
/// parameters become zero and nothing else is touched.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Layer<A> {
    shape: Shape,
    activation: A,
    config: Config,
    keep: Bernoulli,
    backend: Option<Backend>,
    #[cfg(feature = "rayon")]
    tasks: NonZero<usize>,
}

impl<A: Activation> Layer<A> {
    /// A layer from its shape, its activation and its constants.
    ///
    /// # Errors
    /// [`Error::Eps`], [`Error::Momentum`] or [`Error::Probability`] if a constant is out of its range.
    pub const fn new(shape: Shape, activation: A, config: Config) -> Result<Self, Error> {
        if let Err(error) = config.check() {
            return Err(error);
        }
        match Bernoulli::new(config.p) {
            Ok(keep) => Ok(Self {
                shape,
                activation,
                config,
                keep,
                backend: None,
                #[cfg(feature = "rayon")]
                tasks: NonZero::<usize>::MIN,
            }),
            Err(error) => Err(error),
        }
    }

    /// The same layer on a given backend, instead of the fastest one. The results are the same bits.
    ///
    /// # Errors
    /// [`Error::BackendUnavailable`] if this CPU or this build cannot run it.
    pub fn with_backend(self, backend: Backend) -> Result<Self, Error> {
        Ok(Self { backend: Some(backend.require()?), ..self })
    }

    /// The same layer with each call cut into at most so many tasks, for the threads of the current `rayon` pool and the
    /// one that calls. The results are the same bits.
    ///
    /// A call too small for that many uses fewer; one of less than 524,288 elements, or of less than 32 values per channel, is
    /// worked alone, because waking threads would take longer; and none uses more than 65,536 tasks. A call inside
    /// `ThreadPool::install` uses that pool. The scratch lengths grow with the tasks; `rayon` itself allocates, and panics if it
    /// cannot start the global pool. Only with the feature `rayon`.
    ///
    /// ```
    /// use std::num::NonZero;
    ///
    /// use normdrop::{Config, Layer, Relu, Shape};
    ///
    /// let layer = Layer::new(Shape::nchw(8, 16, 32, 32)?, Relu, Config::DEFAULT)?;
    /// let both = layer.with_tasks(const { NonZero::new(2).unwrap() });
    /// assert!(both.scratch_len() > layer.scratch_len());
    /// # Ok::<(), normdrop::Error>(())
    /// ```
    #[cfg(feature = "rayon")]
    #[must_use]
    pub const fn with_tasks(self, tasks: NonZero<usize>) -> Self {
        Self { tasks, ..self }
    }

    /// The shape of the tensor.
    #[must_use]
    pub const fn shape(&self) -> Shape {
        self.shape
    }

    /// The constants.
    #[must_use]
    pub const fn config(&self) -> Config {
        self.config
    }

    /// The distribution of the mask's bits, with the exact keep probability and scale.
    #[must_use]
    pub const fn keep(&self) -> Bernoulli {
        self.keep
    }

    /// The bits of a dropout mask: one for each element, channel of a sample or sample that is dropped as a whole.
    #[must_use]
    pub const fn mask_bits(&self) -> usize {
        // An empty tensor may have no positions.
        let Some(samples) = self.shape.outer().checked_div(self.shape.positions()) else { return 0 };
        match self.config.granularity {
            _ if self.shape.is_empty() => 0,
            Granularity::Element => self.shape.len(),
            Granularity::Channel => samples * self.shape.channels(),
            Granularity::Sample => samples,
        }
    }

    /// The bytes of a dropout mask: [`Layer::mask_bits`] over 8, rounded up.
    #[must_use]
    pub const fn mask_len(&self) -> usize {
        mask_len(self.mask_bits())
    }

    /// The f64 values of scratch that [`Layer::eval`], [`Layer::eval_in_place`] and [`Layer::apply`] need.
    #[must_use]
    pub const fn eval_scratch_len(&self) -> usize {
        self.walk().table_len(eval::FIELDS, self.task_count())
    }

    /// The f64 values of scratch that [`Layer::train`] and [`Layer::moments`] need.
    #[must_use]
    pub const fn train_scratch_len(&self) -> usize {
        let tasks = self.task_count();
        self.walk().table_len(train::FIELDS + train::TASK_FIELDS * tasks, tasks)
    }

    /// The f64 values of scratch that [`Layer::backward`], [`Layer::backward_in_place`], [`Layer::reduce`] and
    /// [`Layer::apply_gradient`] need.
    #[must_use]
    pub const fn backward_scratch_len(&self) -> usize {
        let tasks = self.task_count();
        self.walk().table_len(backward::FIELDS + backward::TASK_FIELDS * tasks, tasks)
    }

    /// The f64 values of scratch that are enough for every call of this layer.
    ///
    /// On targets without vector registers it is 0, as are the others, unless the feature `rayon` is on: calls work channel by
    /// channel there.
    #[must_use]
    pub const fn scratch_len(&self) -> usize {
        let forward = if self.eval_scratch_len() > self.train_scratch_len() {
            self.eval_scratch_len()
        } else {
            self.train_scratch_len()
        };
        if forward > self.backward_scratch_len() { forward } else { self.backward_scratch_len() }
    }

    /// The f64 values of the moments of a part: three per channel.
    #[must_use]
    pub const fn moments_len(&self) -> usize {
        moments_len(self.shape.channels())
    }

    /// The f64 values of the sums of a part: two per channel.
    #[must_use]
    pub const fn sums_len(&self) -> usize {
        self.shape.channels().saturating_mul(2)
    }

    /// Draws the dropout mask of `seed`: a pure function of the seed, `p` and the bit's index.
    ///
    /// # Errors
    /// [`Error::Length`] if `mask` does not have [`Layer::mask_len`] bytes.
    pub fn fill_mask(&self, seed: u64, mask: &mut [u8]) -> Result<(), Error> {
        self.keep.fill_on(self.tasks(), seed, 0, self.mask_bits(), mask)
    }

    /// Draws a dropout mask from the caller's own generator.
    ///
    /// # Errors
    /// [`Error::Length`] if `mask` does not have [`Layer::mask_len`] bytes.
    pub fn fill_mask_with(&self, rng: &mut impl Rng, mask: &mut [u8]) -> Result<(), Error> {
        self.keep.fill_with(rng, self.mask_bits(), mask)
    }

    /// Training forward: batch statistics, optionally dropout; updates the running statistics and saves what
    /// [`Layer::backward`] needs.
    ///
    /// Per channel, with `samples = outer*inner` (Ioffe and Szegedy, *Batch Normalization*, 2015; Srivastava et al.,
    /// *Dropout*, 2014):
    /// ```text
    /// mean = sum(x)/samples          var = sum((x-mean)^2)/samples
    /// inv_std = 1/sqrt(var + eps)    z = (x-mean)*inv_std*weight + bias + residual
    /// y = keep ? act(z)*scale : +0.0
    /// running = (1-momentum)*running + momentum*batch     (by default the running variance takes the unbiased one)
    /// ```
    /// Memory: `x` is read twice, `y` written once, one mask bit read an element. The second time `x` comes from the cache where
    /// a channel of sixteen neighbours and more fits it, and in other layouts where the tensor does.
    ///
    /// # Errors
    /// [`Error::Length`] for a buffer of the wrong length, [`Error::Eps`] if `eps` is 0, [`Error::SingleSample`] if
    /// there is one value per channel.
    pub fn train(&self, call: Train<'_>) -> Result<(), Error> {
        self.check_parameters(call.parameters)?;
        self.check_running_mut(call.running.as_ref())?;
        self.check_dropout(call.dropout)?;
        self.check_elements(Buffer::Input, call.input.len())?;
        self.check_optional_elements(Buffer::Residual, call.residual)?;
        self.check_elements(Buffer::Output, call.output.len())?;
        self.check_saved(call.saved.as_saved())?;
        check_scratch(self.train_scratch_len(), call.scratch.len())?;
        self.check_batch_statistics(self.shape.samples() > 1)?;
        train::run(self, call);
        Ok(())
    }

    /// Evaluation forward: fixed (running) statistics, optionally dropout.
    ///
    /// ```text
    /// y = keep ? act((x-mean)/sqrt(var + eps)*weight + bias + residual)*scale : +0.0
    /// ```
    /// Memory: `x` is read once, `y` written once.
    ///
    /// # Errors
    /// [`Error::Length`] for a buffer of the wrong length.
    pub fn eval(&self, call: Eval<'_>) -> Result<(), Error> {
        let Eval { parameters, running, dropout, input, residual, output, scratch } = call;
        let normalisation = self.normalisation(parameters, Statistics::Fixed(running));
        self.forward(EvalCall { normalisation, dropout, residual, input: Some(input), output, scratch })
    }

    /// [`Layer::eval`] that overwrites its input; the results are the same bits.
    ///
    /// # Errors
    /// [`Error::Length`] for a buffer of the wrong length.
    pub fn eval_in_place(&self, call: EvalInPlace<'_>) -> Result<(), Error> {
        let EvalInPlace { parameters, running, dropout, residual, values: output, scratch } = call;
        let normalisation = self.normalisation(parameters, Statistics::Fixed(running));
        self.forward(EvalCall { normalisation, dropout, residual, input: None, output, scratch })
    }

    /// The gradients of the layer, through batch statistics or past fixed ones.
    ///
    /// Per channel, with `g = keep ? act'(z)*scale*dy : 0` (Ioffe and Szegedy, *Batch Normalization*, 2015, section
    /// 3):
    /// ```text
    /// d_bias = sum(g)    d_weight = sum(g*xhat)    d_residual = g
    /// dx = weight*inv_std * (g - d_bias/samples - xhat*d_weight/samples)     batch statistics
    /// dx = weight*inv_std * g                                               fixed statistics
    /// ```
    /// `z` is computed again from `x`, exactly as in the forward call. Memory: with batch statistics `x` and `dy` are
    /// read twice, the second time from the cache where they are in [`Layer::train`], and `dx` is written once.
    ///
    /// # Errors
    /// [`Error::Length`] for a buffer of the wrong length; with batch statistics also [`Error::Eps`] if `eps` is 0
    /// and [`Error::SingleSample`] if there is one value per channel.
    pub fn backward(&self, call: Backward<'_>) -> Result<(), Error> {
        self.check_elements(Buffer::GradOutput, call.grad_output.len())?;
        self.check_optional_elements(Buffer::GradInput, call.grad_input.as_deref())?;
        self.check_optional_elements(Buffer::GradResidual, call.grad_residual.as_deref())?;
        let Backward {
            parameters,
            statistics,
            dropout,
            input,
            residual,
            grad_output,
            grad_input,
            grad_residual,
            grad_parameters,
            scratch,
        } = call;
        let (target, output, grad_residual) = match (grad_input, grad_residual) {
            (Some(grad_input), grad_residual) => (Target::Input, grad_input, grad_residual),
            (None, Some(grad_residual)) => (Target::Residual, grad_residual, None),
            (None, None) => (Target::Nothing, &mut [][..], None),
        };
        let gradients = Gradients { target, grad_output: Some(grad_output), output, grad_residual };
        let mut call = BackwardCall {
            normalisation: self.normalisation(parameters, statistics),
            dropout,
            phase: Phase::Whole,
            input,
            residual,
            grad_parameters,
            scratch,
        };
        self.check_backward(&call)?;
        backward::run(self, &mut call, gradients);
        Ok(())
    }

    /// [`Layer::backward`] that overwrites `grad_output` with `grad_input`; the results are the same bits.
    ///
    /// # Errors
    /// As [`Layer::backward`].
    pub fn backward_in_place(&self, call: BackwardInPlace<'_>) -> Result<(), Error> {
        self.check_elements(Buffer::Values, call.values.len())?;
        self.check_optional_elements(Buffer::GradResidual, call.grad_residual.as_deref())?;
        let BackwardInPlace {
            parameters,
            statistics,
            dropout,
            input,
            residual,
            values,
            grad_residual,
            grad_parameters,
            scratch,
        } = call;
        let mut call = BackwardCall {
            normalisation: self.normalisation(parameters, statistics),
            dropout,
            phase: Phase::Whole,
            input,
            residual,
            grad_parameters,
            scratch,
        };
        self.check_backward(&call)?;
        let gradients = Gradients { target: Target::Input, grad_output: None, output: values, grad_residual };
        backward::run(self, &mut call, gradients);
        Ok(())
    }

    /// The moments of a part of a batch: the first phase of [`Layer::train`]. The shape of this layer is that of the part.
    ///
    /// One pass over `x`. Merge the moments of all parts with [`merge_moments`](crate::merge_moments), then
    /// [`Layer::finish`].
    ///
    /// # Errors
    /// [`Error::Length`] for a buffer of the wrong length.
    pub fn moments(&self, call: Moments<'_>) -> Result<(), Error> {
        self.check_elements(Buffer::Input, call.input.len())?;
        check_len(Buffer::Moments, self.moments_len(), call.moments.len())?;
        check_scratch(self.train_scratch_len(), call.scratch.len())?;
        moments::run(self, call.input, call.moments, call.scratch);
        Ok(())
    }

    /// The statistics of a batch from the moments of all its parts: saves them for the phases that follow, and updates the
    /// running statistics. The outer and inner dimensions of this layer do not matter.
    ///
    /// Without any values (all counts 0) nothing is touched.
    ///
    /// # Errors
    /// [`Error::Length`] for a buffer of the wrong length, [`Error::Eps`] if `eps` is 0, [`Error::SingleSample`] if a
    /// channel has one value, or a count that is neither 0 nor above 1.
    pub fn finish(&self, call: Finish<'_>) -> Result<(), Error> {
        check_len(Buffer::Moments, self.moments_len(), call.moments.len())?;
        self.check_running_mut(call.running.as_ref())?;
        self.check_saved(call.saved.as_saved())?;
        let counts = call.moments.get(..self.shape.channels()).unwrap_or_default();
        if counts.iter().all(|&count| count == 0.0) {
            return Ok(());
        }
        if self.config.eps == 0.0 {
            return Err(Error::Eps { eps: self.config.eps });
        }
        if counts.iter().any(|&count| count != 0.0 && !is_batch(count)) {
            return Err(Error::SingleSample);
        }
        train::finish(self, call);
        Ok(())
    }

    /// The forward call of a part of a batch, with the statistics of the whole: the last phase of [`Layer::train`].
    ///
    /// One pass: `x` is read once, `y` written once. The same bits as [`Layer::train`] gives with these statistics.
    ///
    /// # Errors
    /// [`Error::Length`] for a buffer of the wrong length.
    pub fn apply(&self, call: Apply<'_>) -> Result<(), Error> {
        let Apply { parameters, saved, dropout, input, residual, output, scratch } = call;
        let normalisation = self.normalisation(parameters, Statistics::Batch(saved));
        self.forward(EvalCall { normalisation, dropout, residual, input: Some(input), output, scratch })
    }

    /// The sums over a part of a batch that gradients are made of: the first phase of [`Layer::backward`].
    ///
    /// One pass over `x` and `dy`. Merge the sums of all parts with [`merge_sums`](crate::merge_sums), then
    /// [`Layer::finish_gradients`] and [`Layer::apply_gradient`].
    ///
    /// # Errors
    /// [`Error::Length`] for a buffer of the wrong length; with batch statistics also [`Error::Eps`] if `eps` is 0.
    pub fn reduce(&self, call: Reduce<'_>) -> Result<(), Error> {
        self.check_elements(Buffer::GradOutput, call.grad_output.len())?;
        check_len(Buffer::Sums, self.sums_len(), call.sums.len())?;
        let Reduce { parameters, statistics, dropout, input, residual, grad_output, sums, scratch } = call;
        let mut call = BackwardCall {
            normalisation: self.normalisation(parameters, statistics),
            dropout,
            phase: Phase::Reduce(sums),
            input,
            residual,
            grad_parameters: ParameterGradients::default(),
            scratch,
        };
        self.check_backward(&call)?;
        let gradients =
            Gradients { target: Target::Nothing, grad_output: Some(grad_output), output: &mut [], grad_residual: None };
        backward::run(self, &mut call, gradients);
        Ok(())
    }

    /// The gradients of weight and bias from the sums over the whole batch.
    ///
    /// # Errors
    /// [`Error::Length`] for a buffer of the wrong length.
    pub fn finish_gradients(&self, sums: &[f64], gradients: ParameterGradients<'_>) -> Result<(), Error> {
        check_len(Buffer::Sums, self.sums_len(), sums.len())?;
        self.check_parameter_gradients(&gradients)?;
        backward::parameter_gradients(sums, gradients);
        Ok(())
    }

    /// The gradients of the elements of a part of a batch, through the statistics of the whole: the last phase of
    /// [`Layer::backward`]. Past fixed statistics no sums are needed, and `backward` serves every part.
    ///
    /// One pass: `x` and `dy` are read once, `dx` written once.
    ///
    /// # Errors
    /// [`Error::Length`] for a buffer of the wrong length, [`Error::Eps`] if `eps` is 0, [`Error::SingleSample`] if
    /// `samples` is not above 1 and the part is not empty.
    pub fn apply_gradient(&self, call: ApplyGradient<'_>) -> Result<(), Error> {
        self.check_elements(Buffer::GradOutput, call.grad_output.len())?;
        self.check_elements(Buffer::GradInput, call.grad_input.len())?;
        self.check_optional_elements(Buffer::GradResidual, call.grad_residual.as_deref())?;
        check_len(Buffer::Sums, self.sums_len(), call.sums.len())?;
        let ApplyGradient {
            parameters,
            saved,
            samples,
            sums,
            dropout,
            input,
            residual,
            grad_output,
            grad_input,
            grad_residual,
            scratch,
        } = call;
        let mut call = BackwardCall {
            normalisation: self.normalisation(parameters, Statistics::Batch(saved)),
            dropout,
            phase: Phase::Apply { sums, samples },
            input,
            residual,
            grad_parameters: ParameterGradients::default(),
            scratch,
        };
        self.check_backward(&call)?;
        let gradients =
            Gradients { target: Target::Input, grad_output: Some(grad_output), output: grad_input, grad_residual };
        backward::run(self, &mut call, gradients);
        Ok(())
    }

    /// What decides which elements a call keeps, or nothing if it drops them all; and what it multiplies them by.
    pub(crate) fn gates_of<'a>(&self, dropout: Dropout<'a>) -> Option<(Gates<'a>, f32)> {
        match dropout {
            Dropout::Off => Some((Gates::Open, 1.0)),
            Dropout::Mask(_) if self.keep.threshold() == 0 => None,
            Dropout::Mask(mask) => {
                let gates = if self.mask_bits() == self.shape.len() {
                    Gates::Each(mask)
                } else {
                    Gates::Shared(SharedMask::new(self.shape, self.config.granularity, mask))
                };
                Some((gates, self.keep.scale()))
            }
        }
    }

    pub(crate) const fn walk(&self) -> Walk {
        Walk::new(self.shape)
    }

    pub(crate) fn activation(&self) -> A {
        self.activation
    }

    pub(crate) fn tasks(&self) -> Tasks {
        Tasks { backend: self.backend, count: self.task_count() }
    }

    /// The tasks of a call at most.
    const fn task_count(&self) -> usize {
        #[cfg(feature = "rayon")]
        {
            // The scratch lengths grow with them and must not overflow.
            const MOST: usize = 1 << 16;
            if self.tasks.get() < MOST { self.tasks.get() } else { MOST }
        }
        #[cfg(not(feature = "rayon"))]
        {
            1
        }
    }

    /// What a call normalises with, before dropout has its say.
    const fn normalisation<'a>(&self, parameters: Parameters<'a>, statistics: Statistics<'a>) -> Normalisation<'a> {
        Normalisation { parameters, statistics, eps: self.config.eps, scale: 1.0 }
    }

    /// A forward call with given statistics.
    fn forward(&self, mut call: EvalCall<'_>) -> Result<(), Error> {
        if CHANNELWISE {
            self.check_forward_apart(&call)?;
        } else {
            self.check_forward(&call)?;
        }
        eval::run(self, &mut call);
        Ok(())
    }

    /// [`Self::check_forward`] in a function of its own, so that its stack is free again when the call needs some.
    #[inline(never)]
    fn check_forward_apart(&self, call: &EvalCall<'_>) -> Result<(), Error> {
        self.check_forward(call)
    }

    #[inline(always)]
    fn check_forward(&self, call: &EvalCall<'_>) -> Result<(), Error> {
        self.check_normalisation(&call.normalisation)?;
        self.check_dropout(call.dropout)?;
        self.check_optional_elements(Buffer::Input, call.input)?;
        self.check_optional_elements(Buffer::Residual, call.residual)?;
        let output = if call.input.is_some() { Buffer::Output } else { Buffer::Values };
        self.check_elements(output, call.output.len())?;
        check_scratch(self.eval_scratch_len(), call.scratch.len())
    }

    fn check_backward(&self, call: &BackwardCall<'_>) -> Result<(), Error> {
        self.check_normalisation(&call.normalisation)?;
        self.check_dropout(call.dropout)?;
        self.check_elements(Buffer::Input, call.input.len())?;
        self.check_optional_elements(Buffer::Residual, call.residual)?;
        self.check_parameter_gradients(&call.grad_parameters)?;
        check_scratch(self.backward_scratch_len(), call.scratch.len())?;
        match call.normalisation.statistics {
            Statistics::Batch(_) => self.check_batch_statistics(match call.phase {
                Phase::Whole => self.shape.samples() > 1,
                Phase::Reduce(_) => true,
                Phase::Apply { samples, .. } => is_batch(samples),
            }),
            Statistics::Fixed(_) => Ok(()),
        }
    }

    fn check_parameter_gradients(&self, gradients: &ParameterGradients<'_>) -> Result<(), Error> {
        if let Some(weight) = &gradients.weight {
            self.check_channels(Buffer::GradWeight, weight.len())?;
        }
        if let Some(bias) = &gradients.bias {
            self.check_channels(Buffer::GradBias, bias.len())?;
        }
        Ok(())
    }

    fn check_parameters(&self, parameters: Parameters<'_>) -> Result<(), Error> {
        parameters.check(self.shape.channels())
    }

    fn check_running(&self, running: Running<'_>) -> Result<(), Error> {
        running.check(self.shape.channels())
    }

    fn check_running_mut(&self, running: Option<&RunningMut<'_>>) -> Result<(), Error> {
        match running {
            Some(running) => self.check_running(Running { mean: running.mean, var: running.var }),
            None => Ok(()),
        }
    }

    fn check_normalisation(&self, normalisation: &Normalisation<'_>) -> Result<(), Error> {
        self.check_parameters(normalisation.parameters)?;
        match normalisation.statistics {
            Statistics::Batch(saved) => self.check_saved(saved),
            Statistics::Fixed(running) => self.check_running(running),
        }
    }

    fn check_saved(&self, saved: Saved<'_>) -> Result<(), Error> {
        self.check_channels(Buffer::SavedMean, saved.mean.len())?;
        self.check_channels(Buffer::SavedMeanTail, saved.mean_tail.len())?;
        self.check_channels(Buffer::SavedInvStd, saved.inv_std.len())
    }

    fn check_dropout(&self, dropout: Dropout<'_>) -> Result<(), Error> {
        match dropout {
            Dropout::Off => Ok(()),
            Dropout::Mask(mask) => check_len(Buffer::Mask, self.mask_len(), mask.len()),
        }
    }

    /// What batch statistics need beyond lengths. An empty tensor has none and needs nothing.
    fn check_batch_statistics(&self, exist: bool) -> Result<(), Error> {
        if self.shape.is_empty() {
            return Ok(());
        }
        if self.config.eps == 0.0 {
            return Err(Error::Eps { eps: self.config.eps });
        }
        if exist { Ok(()) } else { Err(Error::SingleSample) }
    }

    fn check_elements(&self, buffer: Buffer, actual: usize) -> Result<(), Error> {
        check_len(buffer, self.shape.len(), actual)
    }

    fn check_optional_elements(&self, buffer: Buffer, tensor: Option<&[f32]>) -> Result<(), Error> {
        match tensor {
            Some(tensor) => self.check_elements(buffer, tensor.len()),
            None => Ok(()),
        }
    }

    fn check_channels(&self, buffer: Buffer, actual: usize) -> Result<(), Error> {
        check_len(buffer, self.shape.channels(), actual)
    }
}

const fn check_scratch(expected: usize, actual: usize) -> Result<(), Error> {
    if actual >= expected { Ok(()) } else { Err(Error::Length { buffer: Buffer::Scratch, expected, actual }) }
}

/// Whether so many values have an unbiased variance.
const fn is_batch(samples: f64) -> bool {
    samples > 1.0
}
