//! The layer: a plan and an activation. Every call checks its arguments, makes a request from them
//! and runs the phase that answers it.

#[cfg(feature = "rayon")]
use core::num::NonZero;

use rand_core::Rng;

use crate::activation::Activation;
use crate::args::{
    Apply, ApplyGradient, Backward, BackwardInPlace, Dropout, Eval, EvalInPlace, EvalPrepared, EvalPreparedInPlace,
    Finish, Moments, ParameterGradients, Prepare, Reduce, Train, saved_len,
};
use crate::backend::Backend;
use crate::check;
use crate::config::Config;
use crate::element::Element;
use crate::error::Error;
use crate::mask::{Bernoulli, mask_len};
use crate::noise::Noise;
use crate::padding;
use crate::parts::{moments_len, sums_len};
use crate::phase::{Phases, alpha, finish, parameter_gradients, prepare};
use crate::plan::{BackwardCall, ForwardCall, MomentsCall, Plan, TrainCall};
use crate::prepared::prepared_len;
use crate::shape::Shape;
use crate::simd::{CHANNELWISE, Caller, in_default};
#[cfg(feature = "half-precision")]
use crate::storage::Mixed;
use crate::storage::Singles;

/// Evaluates `$call`, where `$family` is the family of tensors whose elements have the types
/// `$element`. Without the feature `half-precision` there is one family.
macro_rules! by_family {
    ($($element:ty),+; $family:ident => $call:expr) => {{
        #[cfg(feature = "half-precision")]
        if !($(<$element>::SINGLE)&&+) {
            type $family = Mixed;
            return $call;
        }
        type $family = Singles;
        $call
    }};
}
pub(crate) use by_family;

/// The fused layer `y = dropout(act(batchnorm(x) + residual))`: a plan that can be a constant and
/// holds no data.
///
/// A layer has one shape. For a batch of another size, such as the last, smaller one of an epoch,
/// [`Layer::with_shape`] makes another layer; it costs nothing. The running statistics and parameters
/// are buffers of the caller and serve both layers.
///
/// Every buffer belongs to the caller. The lengths come from `const` functions, so that an embedded
/// program can declare the buffers as arrays. A constant layer whose shape or constants are out of
/// range does not compile:
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
/// Every call checks every length before it reads or writes anything. When a call returns an error,
/// it has written nothing. No call panics or allocates, except that `rayon` itself may (see
/// `with_tasks`). An empty tensor is accepted: a call that takes it sets moments, sums, the gradients
/// of parameters and the statistics that training saves to zero, and writes no other result.
///
/// # Floating-point environment
/// The results do not depend on the rounding mode of the calling thread, on whether it flushes
/// subnormal numbers to 0 or traps exceptions. A call that finds another environment than the
/// default one sets the default one and puts the caller's back at the end, its sticky flags
/// included; so does every task on another thread. In the default environment a call reads one
/// register. `docs/guarantees.md` has the architectures.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Layer<A> {
    pub(crate) plan: Plan,
    pub(crate) activation: A,
}

impl<A: Activation> Layer<A> {
    /// A layer from its shape, its activation and its constants.
    ///
    /// # Errors
    /// [`Error::Eps`] or [`Error::Probability`] if a constant is out of its range. The calls that
    /// use the momentum check it: see [`Config::momentum`].
    pub const fn new(shape: Shape, activation: A, config: Config) -> Result<Self, Error> {
        match Plan::new(shape, config) {
            Ok(plan) => Ok(Self { plan, activation }),
            Err(error) => Err(error),
        }
    }

    /// [`Layer::new`] for constants, in one expression: a number out of its range is a compile
    /// error that names the number.
    ///
    /// `shape` is the `Result` that the constructor of the shape returns. Where the shape or the
    /// constants are known only at run time, use [`Layer::new`], which returns the error.
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
    /// If `shape` is an error, or `eps` or `p` is out of its range. In a constant it is a compile
    /// error; a call at run time panics.
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

    /// The same layer on `backend` instead of the fastest one. The results are the same bits.
    ///
    /// # Errors
    /// [`Error::BackendUnavailable`] if this CPU or this build cannot run it.
    pub fn with_backend(self, backend: Backend) -> Result<Self, Error> {
        Ok(Self { plan: Plan { backend: Some(backend.require()?), ..self.plan }, ..self })
    }

    /// The same layer for tensors of another shape: the last, smaller batch of an epoch, or the single
    /// sample of an evaluation. Parameters and running statistics are buffers of the caller and serve
    /// both layers.
    ///
    /// ```
    /// use normdrop::{Config, Layer, Relu, Shape};
    ///
    /// let layer = Layer::new(Shape::nc(64, 10)?, Relu, Config { p: 0.1, ..Config::DEFAULT })?;
    /// let last = layer.with_shape(Shape::nc(23, 10)?);
    /// assert_eq!((last.shape().len(), last.config()), (230, layer.config()));
    /// # Ok::<(), normdrop::Error>(())
    /// ```
    #[must_use]
    pub const fn with_shape(self, shape: Shape) -> Self {
        Self { plan: Plan { shape, ..self.plan }, activation: self.activation }
    }

    /// The same layer with each call cut into at most `tasks` tasks, for the threads of the current
    /// `rayon` pool and the calling thread. 0 counts as 1. The results are the same bits.
    ///
    /// A call that is too small for `tasks` tasks uses fewer. A call of less than 524,288 elements,
    /// or of less than 32 values per channel, runs on the calling thread alone, because waking
    /// threads would take longer. No call uses more than 65,536 tasks. A call inside
    /// `ThreadPool::install` uses that pool. The scratch lengths grow with `tasks`. `rayon` itself
    /// allocates, and panics if it cannot start the global pool. On targets without vector registers
    /// only masks are drawn on several threads. Only with the feature `rayon`.
    ///
    /// In a process made by `fork`, a call can use only the threads of a pool that this process
    /// itself has started. If a layer of the parent has used the global pool before the `fork`, the
    /// calls of the child outside `ThreadPool::install` run their tasks one at a time on the
    /// calling thread, with the same results. If only other code of the parent has used the global
    /// pool, the layer cannot know. A call of the child that shares work then waits for ever, as
    /// every use of `rayon` does.
    ///
    /// ```
    /// use normdrop::{Config, Layer, Relu, Shape};
    ///
    /// let layer = Layer::new(Shape::nchw(8, 16, 32, 32)?, Relu, Config::DEFAULT)?;
    /// let both = layer.with_tasks(2);
    /// assert!(both.scratch_len() > layer.scratch_len());
    /// # Ok::<(), normdrop::Error>(())
    /// ```
    #[cfg(feature = "rayon")]
    #[must_use]
    pub const fn with_tasks(self, tasks: usize) -> Self {
        let tasks = match NonZero::new(tasks) {
            Some(tasks) => tasks,
            None => NonZero::<usize>::MIN,
        };
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

    /// The number of bits of a dropout mask: one for each element, for each channel of each sample
    /// or for each sample, as [`Config::granularity`] says.
    #[must_use]
    pub const fn mask_bits(&self) -> usize {
        self.plan.mask_bits()
    }

    /// The number of bytes of a dropout mask: [`Layer::mask_bits`] divided by 8, rounded up.
    #[must_use]
    pub const fn mask_len(&self) -> usize {
        mask_len(self.mask_bits())
    }

    /// The number of f64 values of scratch that [`Layer::eval`], [`Layer::eval_in_place`] and
    /// [`Layer::apply`] need.
    #[must_use]
    pub const fn eval_scratch_len(&self) -> usize {
        self.plan.eval_scratch_len()
    }

    /// The number of f64 values of scratch that [`Layer::train`] and [`Layer::moments`] need.
    #[must_use]
    pub const fn train_scratch_len(&self) -> usize {
        self.plan.train_scratch_len()
    }

    /// The number of f64 values of scratch that [`Layer::backward`], [`Layer::backward_in_place`],
    /// [`Layer::reduce`] and [`Layer::apply_gradient`] need.
    #[must_use]
    pub const fn backward_scratch_len(&self) -> usize {
        self.plan.backward_scratch_len()
    }

    /// The number of f64 values of scratch that are enough for every call of this layer.
    ///
    /// Scratch is f64 because the statistics of the parts of a batch are merged in f64. Its
    /// contents never influence a result, so that one buffer serves all layers of a network, one
    /// call at a time. It must have the largest `scratch_len` of these layers.
    ///
    /// On targets without vector registers all scratch lengths are 0: calls process one channel
    /// after another there and need no table.
    #[must_use]
    pub const fn scratch_len(&self) -> usize {
        let forward = if self.eval_scratch_len() > self.train_scratch_len() {
            self.eval_scratch_len()
        } else {
            self.train_scratch_len()
        };
        if forward > self.backward_scratch_len() { forward } else { self.backward_scratch_len() }
    }

    /// The number of f64 values of prepared statistics, see [`Layer::prepare`]: `4*C + 2`, and 32
    /// for each sixteen channels or fewer.
    #[must_use]
    pub const fn prepared_len(&self) -> usize {
        prepared_len(self.plan.shape.channels())
    }

    /// The number of f64 values of the moments of a part of a batch: three per channel.
    #[must_use]
    pub const fn moments_len(&self) -> usize {
        moments_len(self.plan.shape.channels())
    }

    /// The number of f64 values of the saved statistics as one slice, [`saved_len`] of the channels:
    /// see [`SavedMut::split`](crate::SavedMut::split).
    #[must_use]
    pub const fn saved_len(&self) -> usize {
        saved_len(self.plan.shape.channels())
    }

    /// The number of f64 values of the sums of a part of a batch: two per channel.
    #[must_use]
    pub const fn sums_len(&self) -> usize {
        sums_len(self.plan.shape.channels())
    }

    /// Draws the dropout mask of `seed`, and returns it in the form in which calls take it. Each bit
    /// is a pure function of `seed`, `p` and the index of the bit.
    ///
    /// A mask that was never filled is all zeros and drops everything. A call that takes the result of
    /// this function has a mask that was filled:
    /// ```
    /// use normdrop::{Config, Layer, Relu, SavedArrays, Shape, Train};
    ///
    /// let layer = Layer::new(Shape::nc(4, 2)?, Relu, Config { p: 0.5, ..Config::DEFAULT })?;
    /// let (x, mut y, mut mask) = ([1.0; 8], [0.0; 8], vec![0; layer.mask_len()]);
    /// let (mut saved, mut scratch) = (SavedArrays::<2>::new(), vec![0.0; layer.scratch_len()]);
    /// let dropout = layer.fill_mask(42, &mut mask)?;
    /// layer.train(Train { dropout, ..Train::new(&x, &mut y, saved.as_mut(), &mut scratch) })?;
    /// # Ok::<(), normdrop::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Length`] if `mask` does not have [`Layer::mask_len`] bytes.
    pub fn fill_mask<'a>(&self, seed: u64, mask: &'a mut [u8]) -> Result<Dropout<'a>, Error> {
        self.plan.keep.fill_on(self.plan.tasks(), seed, 0, self.mask_bits(), mask)?;
        Ok(Dropout::Mask(mask))
    }

    /// Draws a dropout mask from the caller's own generator, and returns it in the form in which
    /// calls take it.
    ///
    /// # Errors
    /// [`Error::Length`] if `mask` does not have [`Layer::mask_len`] bytes.
    pub fn fill_mask_with<'a>(&self, rng: &mut impl Rng, mask: &'a mut [u8]) -> Result<Dropout<'a>, Error> {
        self.plan.keep.fill_with(rng, self.mask_bits(), mask)?;
        Ok(Dropout::Mask(mask))
    }

    /// Drops the padding of sequences of different lengths: clears the bits of all padded elements
    /// in a mask.
    ///
    /// Element `(sample, position)` is padding if `position >= lengths[sample]`. Every call with
    /// this mask then gives exactly +0.0 as the output and as the gradient of the residual at the
    /// padded places, whatever the padding holds, NaN included. [`Layer::reduce`] sums over the
    /// valid places alone if the padding of `x` is finite. With `p = 0` and a mask of
    /// [`Layer::fill_mask`], nothing but the padding is dropped. The gradient of the input needs
    /// [`Layer::clear_padding`] too. [`Layer::train_masked`] is one
    /// call for all of this, with the statistics of the valid places, and reads no padding.
    ///
    /// The positions of a sample are `l` of [`Shape::nlc`] and [`Shape::ncl`], and `h*w` of images,
    /// in memory order.
    ///
    /// # Errors
    /// [`Error::Length`] if `mask` does not have [`Layer::mask_len`] bytes or `lengths` not one
    /// value per sample, [`Error::SequenceLength`] if a length is larger than the positions of a
    /// sample, [`Error::NotAnElementMask`] if the granularity is not
    /// [`Granularity::Element`](crate::Granularity::Element). The lengths of an empty tensor are
    /// not checked.
    pub fn drop_padding(&self, lengths: &[usize], mask: &mut [u8]) -> Result<(), Error> {
        check::drop_padding(&self.plan, lengths, mask)?;
        padding::drop_from_mask(self.plan.shape, lengths, mask);
        Ok(())
    }

    /// Clears the padding of sequences of different lengths in a tensor of this shape: +0.0 at all
    /// padded places.
    ///
    /// The gradient of the input needs this call after the backward call:
    /// `dx = weight*inv_std*(g - d_bias/samples - xhat*d_weight/samples)` is not 0 where `g` is 0.
    /// The arguments are those of [`Layer::drop_padding`].
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
    /// sample. The lengths of an empty tensor are not checked.
    pub fn clear_padding<E: Element>(&self, lengths: &[usize], values: &mut [E]) -> Result<(), Error> {
        check::clear_padding(&self.plan, lengths, values.len())?;
        padding::clear(self.plan.shape, lengths, values);
        Ok(())
    }

    /// Multiplies a tensor of this shape by noise, in place: Gaussian or uniform dropout. See
    /// [`Noise`] for the laws, the formulas and an example.
    ///
    /// Forward it follows a training call without dropout, on `y`. Backward it is the first step, on
    /// `dy`, with the same `noise` and `seed`. The layer's `p` plays no part. The work is done in the
    /// tasks of this layer, on its backend, with the bits of [`Noise::apply`]`(seed, 0, values)`.
    ///
    /// # Errors
    /// [`Error::Length`] if `values` does not have the elements of the shape.
    pub fn apply_noise(&self, noise: Noise, seed: u64, values: &mut [f32]) -> Result<(), Error> {
        check::noise(&self.plan, values)?;
        in_default(|| noise.apply_on(self.plan.tasks(), seed, 0, values));
        Ok(())
    }

    /// Alpha dropout of a tensor of this shape, in place: dropout for [`Selu`](crate::Selu), which
    /// leaves a mean of 0 and a variance of 1 as they are (Klambauer et al., *Self-normalizing neural
    /// networks*, 2017).
    ///
    /// With the layer's `p`, `q = 1 - p` and `alpha = 1.7580993408473766`, the limit of SELU on the
    /// left with the sign turned:
    /// ```text
    /// a = 1/sqrt((alpha^2*p + 1)*q)
    /// kept:     x becomes a*x + alpha*a*p
    /// dropped:  x becomes -alpha*a*q, whatever it was, NaN included
    /// ```
    /// The layer's [`Granularity`](crate::Granularity) says which elements a bit of the mask decides
    /// about: one element is PyTorch's `AlphaDropout`, one channel is its `FeatureAlphaDropout`.
    ///
    /// With `p = 0` kept values stay as they are. With `p = 1` all become +0.0, as in PyTorch,
    /// whatever the mask holds. A kept value that is finite stays so unless `a*x` does not fit an
    /// f32, and a kept NaN stays NaN. The result is within `3*2^-24*(|a*x| + alpha*a*p)` of the exact
    /// one. `q` is the keep probability of [`Bernoulli`], a multiple of `2^-32`.
    ///
    /// The training call before it has no dropout of its own. Backward,
    /// [`Layer::alpha_dropout_backward`] is the first step.
    /// ```
    /// use normdrop::{Config, Dropout, Layer, SavedArrays, Selu, Shape, Train};
    ///
    /// let layer = Layer::new(Shape::nc(4, 3)?, Selu, Config { p: 0.2, ..Config::DEFAULT })?;
    /// let (x, mut y) = ([0., 1., 2., 3., 4., 5., 6., 7., 8., 9., 10., 11.], [0.0; 12]);
    /// let (mut saved, mut scratch) = (SavedArrays::<3>::new(), vec![0.0; layer.scratch_len()]);
    /// let mut mask = vec![0; layer.mask_len()];
    /// layer.fill_mask(42, &mut mask)?;
    /// layer.train(Train { dropout: Dropout::Off, ..Train::new(&x, &mut y, saved.as_mut(), &mut scratch) })?;
    /// layer.alpha_dropout(&mask, &mut y)?;
    ///
    /// let mut dy = [1.0; 12]; // the gradient of the loss sum(y)
    /// layer.alpha_dropout_backward(&mask, &mut dy)?; // and now `layer.backward` takes it
    /// # Ok::<(), normdrop::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Length`] if `mask` does not have [`Layer::mask_len`] bytes or `values` not the
    /// elements of the shape.
    pub fn alpha_dropout(&self, mask: &[u8], values: &mut [f32]) -> Result<(), Error> {
        check::alpha(&self.plan, mask, values)?;
        in_default(|| alpha::forward(&self.plan, mask, values));
        Ok(())
    }

    /// The gradient of [`Layer::alpha_dropout`], in place: `dy` becomes `a*dy` where an element was
    /// kept, and +0.0 elsewhere, NaN included.
    ///
    /// The values that went into alpha dropout are not needed.
    ///
    /// # Errors
    /// As [`Layer::alpha_dropout`].
    pub fn alpha_dropout_backward(&self, mask: &[u8], values: &mut [f32]) -> Result<(), Error> {
        check::alpha(&self.plan, mask, values)?;
        in_default(|| alpha::backward(&self.plan, mask, values));
        Ok(())
    }

    /// Training forward: batch statistics, optionally with dropout. It updates the running
    /// statistics and saves the statistics that [`Layer::backward`] needs.
    ///
    /// Per channel, with `samples = outer*inner` (Ioffe and Szegedy, *Batch Normalization*, 2015;
    /// Srivastava et al., *Dropout*, 2014):
    /// ```text
    /// mean = sum(x)/samples          var = sum((x-mean)^2)/samples
    /// inv_std = 1/sqrt(var + eps)    z = (x-mean)*inv_std*weight + bias + residual
    /// y = keep ? act(z)*scale : +0.0
    /// running = (1-momentum)*running + momentum*batch     (by default the running variance takes the unbiased one)
    /// ```
    /// Memory: `x` is read twice, `y` is written once, and one mask bit is read per element. The
    /// second read of `x` comes from the cache if the cache holds one channel (`inner` of sixteen
    /// and more) or the tensor (other layouts).
    ///
    /// # Errors
    /// [`Error::Length`] for a buffer of the wrong length, [`Error::DropoutUnset`] if `p` is above 0
    /// and the call does not say what to drop, [`Error::Eps`] if `eps` is 0. With running statistics
    /// also [`Error::Momentum`] if the momentum is out of its range and used, and
    /// [`Error::SingleSample`] if there is one value per channel and the running variance is the
    /// unbiased one.
    pub fn train<X: Element, Y: Element>(&self, call: Train<'_, X, Y>) -> Result<(), Error> {
        by_family!(X, Y; Family => self.trained::<Family>(TrainCall::new(call)))
    }

    /// Whether the activation has gates: its derivative is 0 or 1, as that of
    /// [`Identity`](crate::Identity) and [`Relu`](crate::Relu) is. For code that is generic over the
    /// activation, or chooses it at run time.
    ///
    /// ```
    /// use normdrop::{AnyActivation, Config, Gelu, Layer, Relu, Shape};
    ///
    /// let (shape, config) = (Shape::nc(4, 3)?, Config::DEFAULT);
    /// assert!(Layer::new(shape, AnyActivation::Relu(Relu), config)?.has_gates());
    /// assert!(!Layer::new(shape, Gelu, config)?.has_gates());
    /// # Ok::<(), normdrop::Error>(())
    /// ```
    #[must_use]
    pub fn has_gates(&self) -> bool {
        self.activation.forward_formula().curve.is_none()
    }

    /// [`Layer::train`] that writes the *gates* for the backward call, too: the bit of an element is
    /// 1 if the element is kept and the derivative of the activation is not 0. `gates` has a bit for
    /// each element, [`mask_len(len)`](crate::mask_len) bytes.
    ///
    /// A backward call with [`Dropout::Gates`] gives the same bits as one
    /// with the mask, and computes nothing of the forward call again: it needs neither the residual
    /// nor the bias, and a residual block reads one tensor less.
    ///
    /// With [`Dropout::InGates`] the mask is in `gates`, and the gates take
    /// its place. With [`Dropout::Off`] nothing is scaled: the backward call
    /// takes [`Dropout::UnscaledGates`], unless `p` is 0.
    ///
    /// ```
    /// use normdrop::{Backward, Config, Dropout, Layer, Relu, SavedArrays, Shape, Statistics, Train};
    ///
    /// let layer = Layer::new(Shape::nc(4, 1)?, Relu, Config { p: 0.5, ..Config::DEFAULT })?;
    /// let x = [1.0, 2.0, 3.0, 4.0];
    /// let (mut y, mut dx, mut saved) = ([0.0; 4], [0.0; 4], SavedArrays::<1>::new());
    /// let mut scratch = vec![0.0; layer.scratch_len()];
    /// // The last three elements are kept. ReLU drops the second, which is below the mean.
    /// let mut gates = [0b1110];
    /// let call = Train::new(&x, &mut y, saved.as_mut(), &mut scratch);
    /// layer.train_with_gates(Train { dropout: Dropout::InGates, ..call }, &mut gates)?;
    /// assert_eq!(gates, [0b1100]);
    ///
    /// let call = Backward::new(Statistics::Batch(saved.as_saved()), &x, &[1.0; 4], &mut scratch);
    /// layer.backward(Backward { dropout: Dropout::Gates(&gates), grad_input: Some(&mut dx), ..call })?;
    /// # Ok::<(), normdrop::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`Layer::train`], and [`Error::GatesActivation`] if the derivative of the activation has
    /// other values than 0 and 1, [`Error::GatesDirection`] if the dropout is gates, or a mask in
    /// gates where the layer's masks have one bit for several elements.
    pub fn train_with_gates<X: Element, Y: Element>(
        &self,
        call: Train<'_, X, Y>,
        gates: &mut [u8],
    ) -> Result<(), Error> {
        by_family!(X, Y; Family => self.trained_with_gates::<Family>(TrainCall::new(call), gates))
    }

    /// Evaluation forward: fixed (running) statistics, optionally with dropout.
    ///
    /// ```text
    /// y = keep ? act((x-mean)/sqrt(var + eps)*weight + bias + residual)*scale : +0.0
    /// ```
    /// Memory: `x` is read once and `y` is written once.
    ///
    /// # Errors
    /// [`Error::Length`] for a buffer of the wrong length, [`Error::Variance`] if a running
    /// variance plus `eps` is not above 0: see [`Running::var`](crate::Running::var). A variance
    /// that is NaN gives NaN in its own channel.
    pub fn eval<X: Element, Y: Element>(&self, call: Eval<'_, X, Y>) -> Result<(), Error> {
        by_family!(X, Y; Family => self.forward::<Family>(ForwardCall::eval(&self.plan, call)))
    }

    /// [`Layer::eval`] that writes the gates, too, as [`Layer::train_with_gates`]: for training with
    /// frozen statistics.
    ///
    /// # Errors
    /// As [`Layer::eval`], and for gates as [`Layer::train_with_gates`].
    pub fn eval_with_gates<X: Element, Y: Element>(&self, call: Eval<'_, X, Y>, gates: &mut [u8]) -> Result<(), Error> {
        by_family!(X, Y; Family => self.forward_with_gates::<Family>(ForwardCall::eval(&self.plan, call), gates))
    }

    /// [`Layer::eval`] that overwrites its input; the results are the same bits.
    ///
    /// # Errors
    /// As [`Layer::eval`].
    pub fn eval_in_place<X: Element>(&self, call: EvalInPlace<'_, X>) -> Result<(), Error> {
        by_family!(X; Family => self.forward::<Family>(ForwardCall::eval_in_place(&self.plan, call)))
    }

    /// Prepares fixed statistics: from running statistics and parameters it makes, once, the numbers
    /// with which any number of calls compute, without a square root or a quotient. The calls are
    /// [`Layer::eval_prepared`], [`Layer::eval_prepared_in_place`], and [`Layer::backward`],
    /// [`Layer::backward_in_place`] and [`Layer::reduce`] with
    /// [`Statistics::Prepared`](crate::Statistics::Prepared). Their results have the bits of the
    /// calls with the same statistics unprepared.
    ///
    /// The slice serves every layer with as many channels: of any batch size, layout, activation
    /// and probability to drop, on any backend. The `eps` is that of the layer that prepared the
    /// slice. The slice has the parameters and the statistics of the moment: when they change later, it
    /// stays as it is until it is prepared again. Its bits are the same on every target, so that one
    /// machine may prepare a slice that another machine of the same byte order reads.
    ///
    /// # Errors
    /// [`Error::Length`] for a buffer of the wrong length, [`Error::Variance`] as
    /// [`Layer::eval`], also if the tensor is empty.
    pub fn prepare(&self, call: Prepare<'_>) -> Result<(), Error> {
        in_default(|| {
            check::prepare(&self.plan, &call)?;
            prepare::run(&self.plan, call);
            Ok(())
        })
    }

    /// [`Layer::eval`] with statistics that [`Layer::prepare`] has prepared; the results are the
    /// same bits. It pays where coefficients take a good part of the time: in small tensors with
    /// many channels, and on CPUs without f64.
    ///
    /// # Errors
    /// [`Error::Length`] for a buffer of the wrong length, [`Error::NotPrepared`] if `prepared` was
    /// not written by [`Layer::prepare`] of a layer with as many channels.
    pub fn eval_prepared<X: Element, Y: Element>(&self, call: EvalPrepared<'_, X, Y>) -> Result<(), Error> {
        by_family!(X, Y; Family => self.forward_prepared::<Family>(ForwardCall::eval_prepared(&self.plan, call)))
    }

    /// [`Layer::eval_prepared`] that overwrites its input; the results are the same bits.
    ///
    /// # Errors
    /// As [`Layer::eval_prepared`].
    pub fn eval_prepared_in_place<X: Element>(&self, call: EvalPreparedInPlace<'_, X>) -> Result<(), Error> {
        by_family!(X; Family => self.forward_prepared::<Family>(ForwardCall::eval_prepared_in_place(&self.plan, call)))
    }

    /// The gradients of the layer. They flow through batch statistics; fixed statistics are
    /// constants.
    ///
    /// Per channel, with `g = keep ? act'(z)*scale*dy : 0` (Ioffe and Szegedy, *Batch
    /// Normalization*, 2015, section 3):
    /// ```text
    /// d_bias = sum(g)    d_weight = sum(g*xhat)    d_residual = g
    /// dx = weight*inv_std * (g - d_bias/samples - xhat*d_weight/samples)     batch statistics
    /// dx = weight*inv_std * g                                               fixed statistics
    /// ```
    /// `z` is computed again from `x`, exactly as in the forward call. With the batch statistics of
    /// one value per channel, `d_weight` and `dx` are 0. Memory: with batch statistics `x` and `dy`
    /// are read twice, the second time from the cache under the conditions of [`Layer::train`], and
    /// `dx` is written once.
    ///
    /// # Errors
    /// [`Error::Length`] for a buffer of the wrong length; with batch statistics also
    /// [`Error::DropoutUnset`] as in [`Layer::train`] and [`Error::Eps`] if `eps` is 0, with fixed
    /// ones [`Error::Variance`] if a running variance plus `eps` is not above 0, with prepared ones
    /// [`Error::NotPrepared`] as [`Layer::eval_prepared`].
    pub fn backward<X: Element, Y: Element>(&self, call: Backward<'_, X, Y>) -> Result<(), Error> {
        by_family!(X, Y; Family => self.differentiate::<Family>(BackwardCall::whole(&self.plan, call)))
    }

    /// [`Layer::backward`] that overwrites `grad_output` with `grad_input`; the results are the
    /// same bits.
    ///
    /// # Errors
    /// As [`Layer::backward`].
    pub fn backward_in_place<X: Element, Y: Element>(&self, call: BackwardInPlace<'_, X, Y>) -> Result<(), Error> {
        by_family!(X, Y; Family => self.differentiate::<Family>(BackwardCall::in_place(&self.plan, call)))
    }

    /// The moments of a part of a batch: the first phase of [`Layer::train`]. This layer has the
    /// shape of the part.
    ///
    /// One pass over `x`. Merge the moments of all parts with
    /// [`merge_moments`](crate::merge_moments), then call [`Layer::finish`].
    ///
    /// # Errors
    /// [`Error::Length`] for a buffer of the wrong length.
    pub fn moments<X: Element>(&self, call: Moments<'_, X>) -> Result<(), Error> {
        by_family!(X; Family => self.sum_up::<Family>(MomentsCall::new(call)))
    }

    /// Checks that the merged moments of a batch have a mean and a variance in every channel that
    /// fit an f32. Call it before [`Layer::finish`] in order to skip a batch that would spoil the
    /// running statistics.
    ///
    /// The variance is the one of [`Config::running_var`], and the biased one if a channel has one
    /// value. Channels without values are not checked.
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
        in_default(|| check::finite_moments(&self.plan, moments))
    }

    /// The statistics of a batch from the merged moments of all its parts. It saves them for the
    /// phases that follow and updates the running statistics. The outer and inner dimensions of
    /// this layer do not matter.
    ///
    /// A channel without values (its count is 0) keeps its running statistics, and its saved
    /// statistics are 0: see [`SavedMut`](crate::SavedMut). If all counts are 0, the batch is not
    /// counted. Counts need not be whole numbers: the count of weighted values is the sum of their
    /// weights.
    ///
    /// Moments that are not finite, for example because of a NaN in `x`, go into the running
    /// statistics and stay there. [`Layer::check_moments`] finds them before that.
    ///
    /// # Errors
    /// [`Error::Length`] for a buffer of the wrong length, [`Error::Eps`] if `eps` is 0,
    /// [`Error::Count`] if a count is negative or not finite. With running statistics also
    /// [`Error::Momentum`] if the momentum is out of its range and used, and [`Error::SingleSample`] if
    /// a channel has a count of at most 1, but not 0, and the running variance is the unbiased one.
    pub fn finish(&self, call: Finish<'_>) -> Result<(), Error> {
        in_default(|| {
            check::finish(&self.plan, &call)?;
            finish(&self.plan, call);
            Ok(())
        })
    }

    /// The forward call of a part of a batch, with the statistics of the whole batch: the last
    /// phase of [`Layer::train`].
    ///
    /// One pass: `x` is read once and `y` is written once. The bits are those that [`Layer::train`]
    /// gives with these statistics.
    ///
    /// # Errors
    /// [`Error::Length`] for a buffer of the wrong length, [`Error::DropoutUnset`] as in
    /// [`Layer::train`].
    pub fn apply<X: Element, Y: Element>(&self, call: Apply<'_, X, Y>) -> Result<(), Error> {
        by_family!(X, Y; Family => self.forward::<Family>(ForwardCall::apply(&self.plan, call)))
    }

    /// [`Layer::apply`] that writes the gates of the part, too, as [`Layer::train_with_gates`].
    ///
    /// # Errors
    /// As [`Layer::apply`], and for gates as [`Layer::train_with_gates`].
    pub fn apply_with_gates<X: Element, Y: Element>(
        &self,
        call: Apply<'_, X, Y>,
        gates: &mut [u8],
    ) -> Result<(), Error> {
        by_family!(X, Y; Family => self.forward_with_gates::<Family>(ForwardCall::apply(&self.plan, call), gates))
    }

    /// The sums over a part of a batch from which gradients are made: the first phase of
    /// [`Layer::backward`].
    ///
    /// One pass over `x` and `dy`. Merge the sums of all parts with
    /// [`merge_sums`](crate::merge_sums), then call [`Layer::finish_gradients`] and
    /// [`Layer::apply_gradient`].
    ///
    /// # Errors
    /// As [`Layer::backward`].
    pub fn reduce<X: Element, Y: Element>(&self, call: Reduce<'_, X, Y>) -> Result<(), Error> {
        by_family!(X, Y; Family => self.differentiate::<Family>(BackwardCall::reduce(&self.plan, call)))
    }

    /// The gradients of weight and bias from the sums over the whole batch.
    ///
    /// # Errors
    /// [`Error::Length`] for a buffer of the wrong length.
    pub fn finish_gradients(&self, sums: &[f64], gradients: ParameterGradients<'_>) -> Result<(), Error> {
        in_default(|| {
            check::finish_gradients(&self.plan, sums, &gradients)?;
            parameter_gradients(sums, gradients);
            Ok(())
        })
    }

    /// The gradients of the elements of a part of a batch, through the statistics of the whole
    /// batch: the last phase of [`Layer::backward`]. With fixed statistics no sums are needed: call
    /// [`Layer::backward`] for every part.
    ///
    /// One pass: `x` and `dy` are read once and `dx` is written once.
    ///
    /// # Errors
    /// [`Error::Length`] for a buffer of the wrong length, [`Error::DropoutUnset`] as in
    /// [`Layer::train`]; if the part is not empty also [`Error::Eps`] if `eps` is 0 and
    /// [`Error::Count`] if `samples` is not a positive number.
    pub fn apply_gradient<X: Element, Y: Element>(&self, call: ApplyGradient<'_, X, Y>) -> Result<(), Error> {
        by_family!(X, Y; Family => self.differentiate::<Family>(BackwardCall::apply(&self.plan, call)))
    }

    /// A training call. It is inlined, as the functions below are, which saves a frame on the stack.
    #[inline(always)]
    pub(crate) fn trained<T: Phases>(&self, call: TrainCall<'_, T>) -> Result<(), Error> {
        in_default(|| {
            check::train(&self.plan, &call, false)?;
            T::train(&self.plan, &self.activation.forward_formula(), call);
            Ok(())
        })
    }

    /// A training call that writes gates.
    #[inline(always)]
    pub(crate) fn trained_with_gates<T: Phases>(&self, call: TrainCall<'_, T>, gates: &mut [u8]) -> Result<(), Error> {
        in_default(|| {
            let formula = self.activation.forward_formula();
            check::train(&self.plan, &call, true)?;
            check::written_gates(&self.plan, &formula, call.dropout, gates)?;
            T::train_with_gates(&self.plan, &formula, call, gates);
            Ok(())
        })
    }

    /// A call that computes moments.
    #[inline(always)]
    pub(crate) fn sum_up<T: Phases>(&self, call: MomentsCall<'_, T>) -> Result<(), Error> {
        in_default(|| {
            check::moments(&self.plan, &call)?;
            T::moments(&self.plan, call);
            Ok(())
        })
    }

    /// A forward call with given statistics.
    #[inline(always)]
    pub(crate) fn forward<T: Phases>(&self, mut call: ForwardCall<'_, T>) -> Result<(), Error> {
        if CHANNELWISE {
            // The functions that are called here are not inlined. So the work need not be a function of
            // its own, as with `in_default`, which would take a place on the stack.
            let _caller = Caller::enter();
            check::forward_apart(&self.plan, &call)?;
            T::forward(&self.plan, &self.activation.forward_formula(), &mut call);
            return Ok(());
        }
        in_default(|| {
            check::forward::<T, false>(&self.plan, &call)?;
            T::forward(&self.plan, &self.activation.forward_formula(), &mut call);
            Ok(())
        })
    }

    /// A forward call with given statistics that writes gates.
    pub(crate) fn forward_with_gates<T: Phases>(
        &self,
        mut call: ForwardCall<'_, T>,
        gates: &mut [u8],
    ) -> Result<(), Error> {
        in_default(|| {
            let formula = self.activation.forward_formula();
            check::forward::<T, true>(&self.plan, &call)?;
            check::written_gates(&self.plan, &formula, call.dropout, gates)?;
            T::forward_with_gates(&self.plan, &formula, &mut call, gates);
            Ok(())
        })
    }

    /// A forward call with prepared statistics.
    #[inline(always)]
    pub(crate) fn forward_prepared<T: Phases>(&self, mut call: ForwardCall<'_, T>) -> Result<(), Error> {
        if CHANNELWISE {
            let _caller = Caller::enter();
            check::prepared(&self.plan, call.normalisation.statistics)?;
            check::forward_apart(&self.plan, &call)?;
            T::forward_prepared(&self.plan, &self.activation.forward_formula(), &mut call);
            return Ok(());
        }
        in_default(|| {
            check::prepared(&self.plan, call.normalisation.statistics)?;
            check::forward::<T, false>(&self.plan, &call)?;
            T::forward_prepared(&self.plan, &self.activation.forward_formula(), &mut call);
            Ok(())
        })
    }

    /// A backward call.
    #[inline(always)]
    pub(crate) fn differentiate<T: Phases>(&self, mut call: BackwardCall<'_, T>) -> Result<(), Error> {
        in_default(|| {
            let formula = self.activation.backward_formula();
            check::backward(&self.plan, &formula, &call)?;
            T::backward(&self.plan, &formula, &mut call);
            Ok(())
        })
    }
}
