//! The layer: a plan and an activation. Every call checks its arguments, makes a request of them and runs a phase.

#[cfg(feature = "rayon")]
use core::num::NonZero;

use rand_core::Rng;

use crate::activation::Activation;
use crate::args::{
    Apply, ApplyGradient, Backward, BackwardInPlace, Eval, EvalInPlace, Finish, Moments, ParameterGradients, Reduce,
    Train,
};
use crate::backend::Backend;
use crate::check;
use crate::config::Config;
use crate::error::Error;
use crate::mask::{Bernoulli, mask_len};
use crate::padding;
use crate::parts::{moments_len, sums_len};
use crate::phase::{backward, eval, moments, train};
use crate::plan::{BackwardCall, ForwardCall, Plan};
use crate::shape::Shape;
use crate::simd::CHANNELWISE;

/// The fused layer `y = dropout(act(batchnorm(x) + residual))`: a plan that fits a constant and holds no data.
///
/// Every buffer belongs to the caller; their lengths come from `const` functions, so that an embedded program can
/// declare them as arrays and a layer that cannot exist is a compile error:
///
/// ```
/// use normdrop::{Config, Layer, Relu, Shape};
///
/// const LAYER: Layer<Relu> = Layer::new_const(Shape::nc(8, 32), Relu, Config { p: 0.25, ..Config::DEFAULT });
/// static SCRATCH: [f64; LAYER.scratch_len()] = [0.0; LAYER.scratch_len()];
/// static MASK: [u8; LAYER.mask_len()] = [0; LAYER.mask_len()];
/// ```
///
/// # Errors and panics
/// Every call checks every length before it reads or writes anything; when it returns an error, nothing was
/// written. No call panics or allocates (but for `rayon`, see `with_tasks`). An empty tensor is accepted: gradients of
/// parameters and what training saves become zero, and nothing else is touched.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Layer<A> {
    plan: Plan,
    activation: A,
}

impl<A: Activation> Layer<A> {
    /// A layer from its shape, its activation and its constants.
    ///
    /// # Errors
    /// [`Error::Eps`] or [`Error::Probability`] if a constant is out of its range. The momentum is
    /// checked by the calls that use it: see [`Config::momentum`].
    pub const fn new(shape: Shape, activation: A, config: Config) -> Result<Self, Error> {
        match Plan::new(shape, config) {
            Ok(plan) => Ok(Self { plan, activation }),
            Err(error) => Err(error),
        }
    }

    /// [`Layer::new`] for constants, in one expression: what is out of its range is an error of the compiler that names it.
    ///
    /// The shape is taken as its constructor returns it. Where shape or constants are known only at run time, use
    /// [`Layer::new`], which returns the error.
    ///
    /// ```
    /// use normdrop::{Config, Layer, Relu, Shape};
    /// const LAYER: Layer<Relu> = Layer::new_const(Shape::nchw(8, 32, 7, 7), Relu, Config { p: 0.1, ..Config::DEFAULT });
    /// ```
    /// A probability of 10 does not compile: "p, the probability to drop, must be in [0, 1]".
    /// ```compile_fail,E0080
    /// # use normdrop::{Config, Layer, Relu, Shape};
    /// const LAYER: Layer<Relu> = Layer::new_const(Shape::nchw(8, 32, 7, 7), Relu, Config { p: 10.0, ..Config::DEFAULT });
    /// # assert_eq!(LAYER.mask_bits(), 8);
    /// ```
    ///
    /// # Panics
    /// In a constant, at compile time: if the shape is an error, or `eps`, `momentum` or `p` is out of its range. At run
    /// time, if it is called there, for the same reasons.
    #[must_use]
    #[track_caller]
    pub const fn new_const(shape: Result<Shape, Error>, activation: A, config: Config) -> Self {
        match shape {
            Ok(shape) => match Self::new(shape, activation, config) {
                Ok(layer) => layer,
                Err(error) => error.panic(),
            },
            Err(error) => error.panic(),
        }
    }

    /// The same layer on a given backend, instead of the fastest one. The results are the same bits.
    ///
    /// # Errors
    /// [`Error::BackendUnavailable`] if this CPU or this build cannot run it.
    pub fn with_backend(self, backend: Backend) -> Result<Self, Error> {
        Ok(Self { plan: Plan { backend: Some(backend.require()?), ..self.plan }, ..self })
    }

    /// The same layer with each call cut into at most so many tasks, for the threads of the current `rayon` pool and the
    /// one that calls. The results are the same bits.
    ///
    /// A call too small for that many uses fewer; one of less than 524,288 elements, or of less than 32 values per channel, is
    /// worked alone, because waking threads would take longer; and none uses more than 65,536 tasks. A call inside
    /// `ThreadPool::install` uses that pool. The scratch lengths grow with the tasks; `rayon` itself allocates, and panics if it
    /// cannot start the global pool. Only with the feature `rayon`.
    ///
    /// In a process made by `fork`, a call has the threads of a pool that this process itself has started, and no others: where
    /// a layer of the parent has used the global pool before, the calls of the child outside `ThreadPool::install` work their
    /// tasks one after the other, with the same results. A pool that only other code of the parent has used is not known
    /// here; a layer that is to share work in a child waits for ever on it, as all of `rayon` does.
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
        Self { plan: Plan { tasks, ..self.plan }, activation: self.activation }
    }

    /// The shape of the tensor.
    #[must_use]
    pub const fn shape(&self) -> Shape {
        self.plan.shape
    }

    /// The constants.
    #[must_use]
    pub const fn config(&self) -> Config {
        self.plan.config
    }

    /// The distribution of the mask's bits, with the exact keep probability and scale.
    #[must_use]
    pub const fn keep(&self) -> Bernoulli {
        self.plan.keep
    }

    /// The bits of a dropout mask: one for each element, channel of a sample or sample that is dropped as a whole.
    #[must_use]
    pub const fn mask_bits(&self) -> usize {
        self.plan.mask_bits()
    }

    /// The bytes of a dropout mask: [`Layer::mask_bits`] over 8, rounded up.
    #[must_use]
    pub const fn mask_len(&self) -> usize {
        mask_len(self.mask_bits())
    }

    /// The f64 values of scratch that [`Layer::eval`], [`Layer::eval_in_place`] and [`Layer::apply`] need.
    #[must_use]
    pub const fn eval_scratch_len(&self) -> usize {
        self.plan.eval_scratch_len()
    }

    /// The f64 values of scratch that [`Layer::train`] and [`Layer::moments`] need.
    #[must_use]
    pub const fn train_scratch_len(&self) -> usize {
        self.plan.train_scratch_len()
    }

    /// The f64 values of scratch that [`Layer::backward`], [`Layer::backward_in_place`], [`Layer::reduce`] and
    /// [`Layer::apply_gradient`] need.
    #[must_use]
    pub const fn backward_scratch_len(&self) -> usize {
        self.plan.backward_scratch_len()
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
        moments_len(self.plan.shape.channels())
    }

    /// The f64 values of the sums of a part: two per channel.
    #[must_use]
    pub const fn sums_len(&self) -> usize {
        sums_len(self.plan.shape.channels())
    }

    /// Draws the dropout mask of `seed`: a pure function of the seed, `p` and the bit's index.
    ///
    /// # Errors
    /// [`Error::Length`] if `mask` does not have [`Layer::mask_len`] bytes.
    pub fn fill_mask(&self, seed: u64, mask: &mut [u8]) -> Result<(), Error> {
        self.plan.keep.fill_on(self.plan.tasks(), seed, 0, self.mask_bits(), mask)
    }

    /// Draws a dropout mask from the caller's own generator.
    ///
    /// # Errors
    /// [`Error::Length`] if `mask` does not have [`Layer::mask_len`] bytes.
    pub fn fill_mask_with(&self, rng: &mut impl Rng, mask: &mut [u8]) -> Result<(), Error> {
        self.plan.keep.fill_with(rng, self.mask_bits(), mask)
    }

    /// Drops the padding of sequences of different lengths: clears the bits of all padded elements
    /// in a mask.
    ///
    /// Element `(sample, position)` is padding if `position >= lengths[sample]`. Every call with
    /// this mask then gives exactly +0.0 as the output and as the gradient of the residual at the
    /// padded places, whatever the padding holds, NaN included. [`Layer::reduce`] sums over the
    /// valid places alone if the padding of `x` is finite. With `p = 0` and a mask of
    /// [`Layer::fill_mask`], nothing but the padding is dropped. The gradient of the input needs
    /// [`Layer::clear_padding`] too.
    /// [The guide](crate::guide#padded-sequences) has the whole of it: statistics of valid places,
    /// forward and backward.
    ///
    /// A sample has the positions that the constructor of the shape says: `l` of [`Shape::nlc`] and
    /// [`Shape::ncl`], `h*w` of images, in the order of memory.
    ///
    /// # Errors
    /// [`Error::Length`] if `mask` does not have [`Layer::mask_len`] bytes or `lengths` not one
    /// value per sample, [`Error::SequenceLength`] if a length is larger than the positions of a
    /// sample, [`Error::NotAnElementMask`] if the granularity is not [`Granularity::Element`](crate::Granularity::Element). The
    /// lengths of an empty tensor are not looked at.
    pub fn drop_padding(&self, lengths: &[usize], mask: &mut [u8]) -> Result<(), Error> {
        check::drop_padding(&self.plan, lengths, mask)?;
        padding::drop_from_mask(self.plan.shape, lengths, mask);
        Ok(())
    }

    /// Clears the padding of sequences of different lengths in a tensor of this shape: +0.0 at all
    /// padded places.
    ///
    /// Needed for the gradient of the input: `dx = weight*inv_std*(g - d_bias/samples -
    /// xhat*d_weight/samples)` is not 0 where `g` is 0. The arguments are those of
    /// [`Layer::drop_padding`].
    ///
    /// ```
    /// use normdrop::{Config, Identity, Layer, Shape};
    ///
    /// // Two sequences of at most three positions with two channels, [n, l, c] and [n, c, l].
    /// let mut values = [1.0; 12];
    /// let last = Layer::new(Shape::nlc(2, 3, 2)?, Identity, Config::DEFAULT)?;
    /// last.clear_padding(&[1, 2], &mut values)?;
    /// assert_eq!(values, [1.0, 1.0, 0.0, 0.0, 0.0, 0.0, 1.0, 1.0, 1.0, 1.0, 0.0, 0.0]);
    ///
    /// let mut values = [1.0; 12];
    /// let first = Layer::new(Shape::ncl(2, 2, 3)?, Identity, Config::DEFAULT)?;
    /// first.clear_padding(&[1, 2], &mut values)?;
    /// assert_eq!(values, [1.0, 0.0, 0.0, 1.0, 0.0, 0.0, 1.0, 1.0, 0.0, 1.0, 1.0, 0.0]);
    /// # Ok::<(), normdrop::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Length`] if `values` does not have the elements of the shape or `lengths` not one
    /// value per sample, [`Error::SequenceLength`] if a length is larger than the positions of a
    /// sample. The lengths of an empty tensor are not looked at.
    pub fn clear_padding(&self, lengths: &[usize], values: &mut [f32]) -> Result<(), Error> {
        check::clear_padding(&self.plan, lengths, values)?;
        padding::clear(self.plan.shape, lengths, values);
        Ok(())
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
    /// [`Error::Length`] for a buffer of the wrong length, [`Error::Eps`] if `eps` is 0. With
    /// running statistics also [`Error::Momentum`] if it is out of its range and used, and
    /// [`Error::SingleSample`] if there is one value per channel and the running variance is the
    /// unbiased one.
    pub fn train(&self, call: Train<'_>) -> Result<(), Error> {
        check::train(&self.plan, &call)?;
        train::run(&self.plan, self.activation, call);
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
    /// [`Error::Length`] for a buffer of the wrong length, [`Error::Variance`] if a running
    /// variance plus `eps` is not above 0: see [`Running::var`]. One that is NaN gives NaN in its
    /// own channel.
    pub fn eval(&self, call: Eval<'_>) -> Result<(), Error> {
        self.forward(ForwardCall::eval(&self.plan, call))
    }

    /// [`Layer::eval`] that overwrites its input; the results are the same bits.
    ///
    /// # Errors
    /// As [`Layer::eval`].
    pub fn eval_in_place(&self, call: EvalInPlace<'_>) -> Result<(), Error> {
        self.forward(ForwardCall::eval_in_place(&self.plan, call))
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
    /// `z` is computed again from `x`, exactly as in the forward call. Through the statistics of
    /// one value per channel, `d_weight` and `dx` are 0. Memory: with batch statistics `x` and `dy`
    /// are read twice, the second time from the cache where they are in [`Layer::train`], and `dx`
    /// is written once.
    ///
    /// # Errors
    /// [`Error::Length`] for a buffer of the wrong length; with batch statistics also
    /// [`Error::Eps`] if `eps` is 0, with fixed ones [`Error::Variance`] if a running variance plus
    /// `eps` is not above 0.
    pub fn backward(&self, call: Backward<'_>) -> Result<(), Error> {
        self.differentiate(BackwardCall::whole(&self.plan, call))
    }

    /// [`Layer::backward`] that overwrites `grad_output` with `grad_input`; the results are the same bits.
    ///
    /// # Errors
    /// As [`Layer::backward`].
    pub fn backward_in_place(&self, call: BackwardInPlace<'_>) -> Result<(), Error> {
        self.differentiate(BackwardCall::in_place(&self.plan, call))
    }

    /// The moments of a part of a batch: the first phase of [`Layer::train`]. The shape of this layer is that of the part.
    ///
    /// One pass over `x`. Merge the moments of all parts with [`merge_moments`](crate::merge_moments), then
    /// [`Layer::finish`].
    ///
    /// # Errors
    /// [`Error::Length`] for a buffer of the wrong length.
    pub fn moments(&self, call: Moments<'_>) -> Result<(), Error> {
        check::moments(&self.plan, &call)?;
        moments::run(&self.plan, call);
        Ok(())
    }

    /// Whether the moments of all parts of a batch have a mean and a variance in every channel that
    /// fit an f32: what to ask before [`Layer::finish`] averages them, in order to skip a batch
    /// that would spoil the running statistics.
    ///
    /// The variance is the one of [`Config::running_var`], and the biased one where a channel has
    /// one value. Channels without values have nothing to fit.
    ///
    /// ```
    /// use normdrop::{Buffer, Config, Error, Identity, Layer, Moments, Shape};
    ///
    /// let layer = Layer::new(Shape::nc(2, 3)?, Identity, Config::DEFAULT)?;
    /// let x = [1.0, 1e20, f32::NAN, 2.0, -1e20, 3.0]; // two values for each of three channels
    /// let (mut moments, mut scratch) = (vec![0.0; layer.moments_len()], vec![0.0; layer.train_scratch_len()]);
    /// layer.moments(Moments { input: &x, moments: &mut moments, scratch: &mut scratch })?;
    /// // The variance of the second channel is 2e40, although the moments themselves are finite.
    /// let expected = Error::NotFinite { buffer: Buffer::RunningVar, index: 1 };
    /// assert_eq!(layer.check_moments(&moments), Err(expected));
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Length`] for moments of the wrong length, [`Error::Count`] if a count is negative
    /// or not finite, [`Error::NotFinite`] with [`Buffer::RunningMean`](crate::Buffer::RunningMean)
    /// or [`Buffer::RunningVar`](crate::Buffer::RunningVar) and the first channel whose mean or
    /// variance does not fit.
    pub fn check_moments(&self, moments: &[f64]) -> Result<(), Error> {
        check::finite_moments(&self.plan, moments)
    }

    /// The statistics of a batch from the moments of all its parts: saves them for the phases that follow, and updates the
    /// running statistics. The outer and inner dimensions of this layer do not matter.
    ///
    /// A channel without values (its count is 0) keeps its running statistics, and what is saved of
    /// it is 0: see [`SavedMut`](crate::SavedMut). Without any values (all counts are 0) the batch
    /// is not counted and nothing else is needed. Counts need not be whole: those of weighted
    /// values are their sums of weights.
    ///
    /// What is not finite in the moments, a NaN in `x` above all, goes into the running statistics
    /// and stays there. [`Layer::check_moments`] says so before it happens.
    ///
    /// # Errors
    /// [`Error::Length`] for a buffer of the wrong length, [`Error::Eps`] if `eps` is 0,
    /// [`Error::Count`] if a count is negative or not finite. With running statistics also
    /// [`Error::Momentum`] if it is out of its range and used, and [`Error::SingleSample`] if a
    /// channel has a count of at most 1, but not 0, and the running variance is the unbiased one.
    pub fn finish(&self, call: Finish<'_>) -> Result<(), Error> {
        check::finish(&self.plan, &call)?;
        train::finish(&self.plan, call);
        Ok(())
    }

    /// The forward call of a part of a batch, with the statistics of the whole: the last phase of [`Layer::train`].
    ///
    /// One pass: `x` is read once, `y` written once. The same bits as [`Layer::train`] gives with these statistics.
    ///
    /// # Errors
    /// [`Error::Length`] for a buffer of the wrong length.
    pub fn apply(&self, call: Apply<'_>) -> Result<(), Error> {
        self.forward(ForwardCall::apply(&self.plan, call))
    }

    /// The sums over a part of a batch that gradients are made of: the first phase of [`Layer::backward`].
    ///
    /// One pass over `x` and `dy`. Merge the sums of all parts with [`merge_sums`](crate::merge_sums), then
    /// [`Layer::finish_gradients`] and [`Layer::apply_gradient`].
    ///
    /// # Errors
    /// As [`Layer::backward`].
    pub fn reduce(&self, call: Reduce<'_>) -> Result<(), Error> {
        self.differentiate(BackwardCall::reduce(&self.plan, call))
    }

    /// The gradients of weight and bias from the sums over the whole batch.
    ///
    /// # Errors
    /// [`Error::Length`] for a buffer of the wrong length.
    pub fn finish_gradients(&self, sums: &[f64], gradients: ParameterGradients<'_>) -> Result<(), Error> {
        check::finish_gradients(&self.plan, sums, &gradients)?;
        backward::parameter_gradients(sums, gradients);
        Ok(())
    }

    /// The gradients of the elements of a part of a batch, through the statistics of the whole: the last phase of
    /// [`Layer::backward`]. Past fixed statistics no sums are needed, and `backward` serves every part.
    ///
    /// One pass: `x` and `dy` are read once, `dx` written once.
    ///
    /// # Errors
    /// [`Error::Length`] for a buffer of the wrong length; if the part is not empty also
    /// [`Error::Eps`] if `eps` is 0 and [`Error::Count`] if `samples` is not a positive number.
    pub fn apply_gradient(&self, call: ApplyGradient<'_>) -> Result<(), Error> {
        self.differentiate(BackwardCall::apply(&self.plan, call))
    }

    /// A forward call with given statistics.
    fn forward(&self, mut call: ForwardCall<'_>) -> Result<(), Error> {
        if CHANNELWISE {
            check::forward_apart(&self.plan, &call)?;
        } else {
            check::forward(&self.plan, &call)?;
        }
        eval::run(&self.plan, self.activation, &mut call);
        Ok(())
    }

    /// A backward call.
    fn differentiate(&self, mut call: BackwardCall<'_>) -> Result<(), Error> {
        check::backward(&self.plan, &call)?;
        backward::run(&self.plan, self.activation, &mut call);
        Ok(())
    }
}
