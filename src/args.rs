//! The argument bundles of the layer's calls. Their fields are grouped by how long the data lives.
//!
//! `C` is the number of channels, [`Shape::channels`](crate::Shape::channels). `len` is the number
//! of elements of the tensor, [`Shape::len`](crate::Shape::len). Every slice must have exactly the
//! length that its field names. Only scratch may be longer.
//!
//! The `new` function of a bundle takes what the call cannot do without. The other fields are
//! written before it: `Train { residual: Some(&r), ..Train::new(&x, &mut y, saved, &mut scratch) }`.

use crate::error::{Buffer, Error, check_len};
use crate::simd::{singles, singles_mut};

/// The learned parameters. Each is optional: a missing weight is 1, a missing bias is 0.
///
/// `C` is the number of channels of the layer, [`Shape::channels`](crate::Shape::channels), here
/// and in all other argument bundles.
#[derive(Debug, Clone, Copy, Default)]
pub struct Parameters<'a> {
    /// The scale per channel, `C` values.
    pub weight: Option<&'a [f32]>,
    /// The shift per channel, `C` values.
    pub bias: Option<&'a [f32]>,
}

impl<'a> Parameters<'a> {
    /// A weight and a bias, `C` values each. [`Parameters::default`] has neither.
    #[must_use]
    pub const fn new(weight: &'a [f32], bias: &'a [f32]) -> Self {
        Self { weight: Some(weight), bias: Some(bias) }
    }

    /// Checks the lengths.
    pub(crate) fn check(&self, channels: usize) -> Result<(), Error> {
        if let Some(weight) = self.weight {
            check_len(Buffer::Weight, channels, weight.len())?;
        }
        match self.bias {
            Some(bias) => check_len(Buffer::Bias, channels, bias.len()),
            None => Ok(()),
        }
    }
}

/// The running statistics of a call that reads them. `C` is the number of channels.
#[derive(Debug, Clone, Copy)]
pub struct Running<'a> {
    /// The running mean per channel, rounded to f32, `C` values.
    pub mean: &'a [f32],
    /// The running mean per channel minus `mean`, `C` values: see [`RunningMut::mean_tail`]. `None`
    /// stands for zeros.
    pub mean_tail: Option<&'a [f32]>,
    /// The running variance per channel, `C` values. Each must be above `-eps`, or NaN.
    ///
    /// A call refuses any other variance with [`Error::Variance`]: it has no standard deviation,
    /// and finite `x` would give NaN. Some files have negative variances, because libraries that
    /// average `E[x^2]-E[x]^2` store them where the mean is many standard deviations from 0 (Keras
    /// 3 on PyTorch, haiku, nnabla and dlib do). A variance between `-1e-6*mean^2` and 0 is a
    /// rounding error of a channel that hardly varies: set it to 0. The true value of a lower
    /// variance is lost, and must be computed from the data again: [`Layer::moments`](crate::Layer::moments) of
    /// all data, merged, and [`Layer::finish`](crate::Layer::finish) with a momentum of 1.
    pub var: &'a [f32],
}

impl<'a> Running<'a> {
    /// The running statistics in the form of other libraries: a mean and a variance per channel,
    /// without `mean_tail`.
    #[must_use]
    pub const fn new(mean: &'a [f32], var: &'a [f32]) -> Self {
        Self { mean, mean_tail: None, var }
    }

    /// Checks the lengths.
    pub(crate) fn check(&self, channels: usize) -> Result<(), Error> {
        check_len(Buffer::RunningMean, channels, self.mean.len())?;
        if let Some(mean_tail) = self.mean_tail {
            check_len(Buffer::RunningMeanTail, channels, mean_tail.len())?;
        }
        check_len(Buffer::RunningVar, channels, self.var.len())
    }
}

/// The running statistics that a training call updates: averages of the batch mean and of the batch
/// variance.
///
/// A new layer starts with `mean` 0, `mean_tail` 0 and `var` 1, as in PyTorch, Keras and flax. The
/// layer does not set these values: the caller fills the buffers before the first call.
///
/// [`Config::running_var`](crate::Config::running_var) says which variance is averaged, the
/// unbiased or the biased one.
///
/// # Batches that should not count
/// A NaN or an infinity in `x` goes into the averages of its channel and stays there, as in
/// PyTorch: only a later batch with a momentum of 1 replaces it. A batch whose variance is finite
/// and does not fit an f32 (values beyond `1e19`) counts with the largest f32. So the running
/// variance stays finite and later batches bring it back; with a momentum of 0.1 that takes about
/// 850 batches. To leave such a batch out, call
/// [`Layer::check_moments`](crate::Layer::check_moments) between
/// [`Layer::moments`](crate::Layer::moments) and [`Layer::finish`](crate::Layer::finish), and skip
/// the rest of the step if it returns an error.
#[derive(Debug)]
pub struct RunningMut<'a> {
    /// The running mean per channel, rounded to f32, `C` values.
    pub mean: &'a mut [f32],
    /// The running mean per channel minus `mean`, `C` values; zeros in a new layer.
    ///
    /// With `mean_tail` the running mean has 48 bits and reaches its limit. An evaluation that is
    /// given `mean` and `mean_tail` differs from training with the same statistics only by the
    /// roundings of the output, with means up to `1e7` standard deviations. Store `mean_tail`
    /// beside `mean`, and give both to every call that has a [`Running`]. `mean_tail` is 0 where
    /// `mean` is 0 or not finite.
    ///
    /// With `None` the running mean is one f32, as in PyTorch, Keras and flax. Each update rounds
    /// the mean, and an update of less than half a unit of its last place is lost. So the mean
    /// stops within `2^-24*|mean|/momentum` of its limit. In each output the error is
    /// `2^-24*|mean|/momentum/std` standard deviations: nothing for data around 0, and `0.06` for a
    /// mean of `1e4` standard deviations and a momentum of `0.01`. A cumulative average, whose
    /// momentum is `1/batches`, stands still after enough batches.
    pub mean_tail: Option<&'a mut [f32]>,
    /// The running variance per channel, `C` values.
    ///
    /// The running variance is one f32 and stops within `2^-24*var/momentum` of its limit. The
    /// error relative to the variance is `2^-24/momentum` or less, whatever the data.
    pub var: &'a mut [f32],
    /// How much of the new value goes into the average.
    pub average: Average<'a>,
}

impl<'a> RunningMut<'a> {
    /// The running statistics in the form of other libraries: a mean and a variance per channel,
    /// without `mean_tail`, and [`Average::Exponential`].
    #[must_use]
    pub const fn new(mean: &'a mut [f32], var: &'a mut [f32]) -> Self {
        Self { mean, mean_tail: None, var, average: Average::Exponential }
    }

    /// These buffers, for a call that reads them.
    #[must_use]
    pub fn as_running(&self) -> Running<'_> {
        Running { mean: self.mean, mean_tail: self.mean_tail.as_deref(), var: self.var }
    }
}

/// How the running statistics are averaged over the batches.
#[derive(Debug, Default)]
pub enum Average<'a> {
    /// `running = (1 - momentum)*running + momentum*batch`, with
    /// [`Config::momentum`](crate::Config::momentum).
    #[default]
    Exponential,
    /// The mean of all batches, each with the same weight, whatever its size: PyTorch's
    /// `momentum=None` with `num_batches_tracked`.
    ///
    /// A training call counts itself and then moves the running statistics with the momentum
    /// `1/batches`, computed in f64. So the first batch replaces the values that the buffers had,
    /// NaN included. After many batches the updates of an f32 are lost to rounding: see
    /// [`RunningMut::mean_tail`] and [`RunningMut::var`]. A call that fails or has an empty batch
    /// does not count, and a count of `u64::MAX` stays.
    Cumulative {
        /// The number of batches that the running statistics average; 0 for a new layer.
        batches: &'a mut u64,
    },
}

impl Average<'_> {
    /// Counts a batch and returns the weight of its statistics.
    pub(crate) fn next_momentum(&mut self, exponential: f64) -> f64 {
        match self {
            Self::Exponential => exponential,
            Self::Cumulative { batches } => {
                **batches = batches.saturating_add(1);
                1.0 / **batches as f64
            }
        }
    }
}

/// The statistics that the training forward pass saved, for a call that reads them.
///
/// The batch mean is a pair, `mean + mean_tail`, because the rounding of one f32 would be the
/// largest error of the whole layer. The inverse standard deviation is f64 for two reasons: the
/// backward pass computes `z` with exactly the numbers of the forward pass, and `1/sqrt(var + eps)`
/// of the largest inputs is not a normal f32.
#[derive(Debug, Clone, Copy)]
pub struct Saved<'a> {
    /// The batch mean per channel, rounded to f32, `C` values.
    pub mean: &'a [f32],
    /// The batch mean per channel minus `mean`, `C` values.
    pub mean_tail: &'a [f32],
    /// `1/sqrt(var + eps)` per channel with the biased batch variance, `C` values.
    pub inv_std: &'a [f64],
}

impl<'a> Saved<'a> {
    /// The three buffers, `C` values each.
    #[must_use]
    pub const fn new(mean: &'a [f32], mean_tail: &'a [f32], inv_std: &'a [f64]) -> Self {
        Self { mean, mean_tail, inv_std }
    }

    /// The three buffers that [`SavedMut::split`] makes of the same `memory`, to be read.
    #[must_use]
    pub fn split(memory: &'a [f64]) -> Self {
        let channels = memory.len() / 2;
        let (inv_std, rest) = memory.split_at_checked(channels).unwrap_or_default();
        let (mean, rest) = singles(rest).split_at_checked(channels).unwrap_or_default();
        Self { mean, mean_tail: rest.get(..channels).unwrap_or_default(), inv_std }
    }
}

/// The buffers in which the training forward pass saves its statistics for the backward pass.
///
/// The call overwrites them. For a channel without values (an empty batch, a count of 0) it writes
/// 0 into all three. With an `inv_std` of 0, as for an infinite variance, the output is `act(bias)`
/// and no gradient flows, whatever `x` is.
#[derive(Debug)]
pub struct SavedMut<'a> {
    /// The batch mean per channel, rounded to f32, `C` values.
    pub mean: &'a mut [f32],
    /// The batch mean per channel minus `mean`, `C` values.
    pub mean_tail: &'a mut [f32],
    /// `1/sqrt(var + eps)` per channel with the biased batch variance, `C` values.
    pub inv_std: &'a mut [f64],
}

impl<'a> SavedMut<'a> {
    /// The three buffers, `C` values each.
    #[must_use]
    pub const fn new(mean: &'a mut [f32], mean_tail: &'a mut [f32], inv_std: &'a mut [f64]) -> Self {
        Self { mean, mean_tail, inv_std }
    }

    /// The three buffers from one slice of [`saved_len`]`(C)` values, for programs that need not know
    /// which statistics are saved. [`Saved::split`] gives the same buffers for reading.
    ///
    /// The slice has the `C` values of `inv_std`, and in the memory of the other `C` values `mean` and
    /// `mean_tail`. A slice of another length makes buffers of another number of channels, which the
    /// call refuses.
    ///
    /// ```
    /// use normdrop::{Backward, Config, Identity, Layer, Saved, SavedMut, Shape, Statistics, Train};
    ///
    /// let layer = Layer::new(Shape::nc(4, 1)?, Identity, Config::DEFAULT)?;
    /// let (x, mut y, mut dx) = ([0.0, 1.0, 2.0, 5.0], [0.0; 4], [0.0; 4]);
    /// let (mut saved, mut scratch) = (vec![0.0; layer.saved_len()], vec![0.0; layer.scratch_len()]);
    ///
    /// layer.train(Train::new(&x, &mut y, SavedMut::split(&mut saved), &mut scratch))?;
    /// let statistics = Statistics::Batch(Saved::split(&saved));
    /// layer.backward(Backward { grad_input: Some(&mut dx), ..Backward::new(statistics, &x, &y, &mut scratch) })?;
    /// assert_eq!(Saved::split(&saved).mean, [2.0]);
    /// # Ok::<(), normdrop::Error>(())
    /// ```
    #[must_use]
    pub fn split(memory: &'a mut [f64]) -> Self {
        let channels = memory.len() / 2;
        let (inv_std, rest) = memory.split_at_mut_checked(channels).unwrap_or_default();
        let (mean, rest) = singles_mut(rest).split_at_mut_checked(channels).unwrap_or_default();
        Self { mean, mean_tail: rest.get_mut(..channels).unwrap_or_default(), inv_std }
    }

    /// Writes the statistics of channels without values.
    pub(crate) fn clear(&mut self) {
        self.mean.fill(0.0);
        self.mean_tail.fill(0.0);
        self.inv_std.fill(0.0);
    }

    /// These buffers, for a call that reads them.
    #[must_use]
    pub fn as_saved(&self) -> Saved<'_> {
        Saved { mean: self.mean, mean_tail: self.mean_tail, inv_std: self.inv_std }
    }
}

/// The number of f64 values that [`SavedMut::split`] takes for `channels` channels: two for each.
#[must_use]
pub const fn saved_len(channels: usize) -> usize {
    channels.saturating_mul(2)
}

/// The memory of [`SavedMut`] for `C` channels, as one value: three arrays that a program need not
/// name.
///
/// ```
/// use normdrop::{Backward, Config, Identity, Layer, SavedArrays, Shape, Statistics, Train};
///
/// const LAYER: Layer<Identity> = Layer::new_const(Shape::nc(4, 1), Identity, Config::DEFAULT);
/// let (x, mut y, mut dx) = ([0.0, 1.0, 2.0, 5.0], [0.0; 4], [0.0; 4]);
/// let (mut saved, mut scratch) = (SavedArrays::<1>::new(), [0.0; LAYER.scratch_len()]);
///
/// LAYER.train(Train::new(&x, &mut y, saved.as_mut(), &mut scratch))?;
/// let statistics = Statistics::Batch(saved.as_saved());
/// LAYER.backward(Backward { grad_input: Some(&mut dx), ..Backward::new(statistics, &x, &y, &mut scratch) })?;
/// assert_eq!(saved.as_saved().mean, [2.0]);
/// # Ok::<(), normdrop::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SavedArrays<const C: usize> {
    mean: [f32; C],
    mean_tail: [f32; C],
    inv_std: [f64; C],
}

impl<const C: usize> SavedArrays<C> {
    /// Zeros, which the training call overwrites.
    #[must_use]
    pub const fn new() -> Self {
        Self { mean: [0.0; C], mean_tail: [0.0; C], inv_std: [0.0; C] }
    }

    /// The arrays, for a call that saves statistics.
    #[must_use]
    pub const fn as_mut(&mut self) -> SavedMut<'_> {
        SavedMut::new(&mut self.mean, &mut self.mean_tail, &mut self.inv_std)
    }

    /// The arrays, for a call that reads them.
    #[must_use]
    pub const fn as_saved(&self) -> Saved<'_> {
        Saved::new(&self.mean, &self.mean_tail, &self.inv_std)
    }
}

impl<const C: usize> Default for SavedArrays<C> {
    fn default() -> Self {
        Self::new()
    }
}

/// Whether elements are dropped, and which.
#[derive(Debug, Clone, Copy, Default)]
pub enum Dropout<'a> {
    /// The caller has not said which elements to drop: the value that the `new` functions set.
    ///
    /// With a `p` of 0, and in every call with fixed statistics, it is [`Dropout::Off`]. A call
    /// with batch statistics whose `p` is above 0 refuses it with [`Error::DropoutUnset`]: a layer
    /// that is made to drop elements, and trains without a mask, would otherwise train without
    /// dropout, and nobody would notice.
    #[default]
    Unset,
    /// Nothing is dropped and nothing is scaled, whatever `p` is.
    Off,
    /// Elements whose bit is 0 become +0.0. Elements whose bit is 1 are kept and multiplied by the
    /// inverse of the keep probability.
    ///
    /// The mask has `mask_len` bytes. Bit `i % 8` of byte `i / 8` decides about element `i` of the
    /// tensor in memory order, about one channel of one sample (`i = sample*C + channel`) or about
    /// sample `i`: [`Granularity`](crate::Granularity) says which of the three. It is the layout of
    /// `numpy.packbits(bitorder="little")` and of Arrow's bitmaps.
    ///
    /// [`Layer::fill_mask`](crate::Layer::fill_mask) fills a mask and returns it as this variant,
    /// so that a call which is given its result never has a mask that was not filled. A mask may
    /// also be made by any other means. A mask of zeros, such as a buffer that was never filled,
    /// drops everything. Bits after the last one are never read.
    Mask(&'a [u8]),
    /// For forward calls that write gates: the mask, one bit for each element, is in the buffer of
    /// the gates, and the gates overwrite it.
    InGates,
    /// For backward calls: the gates of a forward call that dropped elements, one bit for each
    /// element, `mask_len(len)` bytes.
    ///
    /// The bit of an element is 1 if it was kept and the derivative of the activation is not 0.
    /// A backward call with gates gives the bits that it gives with the mask, computes nothing of the
    /// forward call again, and does not read the residual. Forward calls write gates if they are asked to
    /// ([`Layer::train_with_gates`](crate::Layer::train_with_gates)), for the activations whose
    /// derivative is 0 or 1: [`Identity`](crate::Identity) and [`Relu`](crate::Relu).
    ///
    /// The bias may be left out, too, if its values are below 2^68. A channel of a larger bias is
    /// computed in f64, with the bits of f64, and only a call that is given the bias knows that.
    Gates(&'a [u8]),
    /// As [`Dropout::Gates`], of a forward call with [`Dropout::Off`]: nothing is scaled, whatever
    /// `p` is.
    UnscaledGates(&'a [u8]),
}

impl Dropout<'_> {
    /// Whether these are gates, with which a backward call needs no activation.
    pub(crate) const fn is_gates(&self) -> bool {
        matches!(self, Self::Gates(_) | Self::UnscaledGates(_))
    }
}

/// The statistics that a backward pass differentiates through.
#[derive(Debug, Clone, Copy)]
pub enum Statistics<'a> {
    /// The batch statistics that the training forward pass saved. Gradients flow through mean and
    /// variance.
    Batch(Saved<'a>),
    /// The running statistics of an evaluation forward pass (frozen batch norm). They are
    /// constants.
    Fixed(Running<'a>),
    /// The slice that [`Layer::prepare`](crate::Layer::prepare) has written,
    /// [`Layer::prepared_len`](crate::Layer::prepared_len) values: the running statistics and the
    /// parameters of an evaluation forward pass. The gradients have the bits of
    /// [`Statistics::Fixed`]. The field `parameters` of the call is not used.
    Prepared(&'a [f64]),
}

/// A forward call with batch statistics: training.
///
/// A layer has a fixed batch size. For the last, smaller batch make another layer with the smaller
/// shape; a layer is a few numbers and costs nothing. The running statistics are the caller's
/// buffers and serve both.
///
/// `scratch` is f64 because the statistics of the parts of a batch are merged in f64. One scratch
/// buffer of the largest length serves all calls of all layers of a network, one at a time.
/// ```
/// use normdrop::{Config, Dropout, Layer, Parameters, Relu, RunningMut, SavedMut, Shape, Train};
///
/// // Four samples of two channels.
/// const LAYER: Layer<Relu> = Layer::new_const(Shape::nc(4, 2), Relu, Config::DEFAULT);
/// let x = [0.0, 10.0, 1.0, 10.0, 2.0, 10.0, 5.0, 10.0];
/// let mut y = [0.0; 8];
/// // A new layer: a running mean of 0 and a running variance of 1.
/// let (mut running_mean, mut running_var) = ([0.0; 2], [1.0; 2]);
/// let (mut mean, mut mean_tail, mut inv_std) = ([0.0; 2], [0.0; 2], [0.0; 2]);
///
/// LAYER.train(Train {
///     parameters: Parameters::default(),
///     running: Some(RunningMut::new(&mut running_mean, &mut running_var)),
///     dropout: Dropout::Off,
///     input: &x,
///     residual: None,
///     output: &mut y,
///     saved: SavedMut { mean: &mut mean, mean_tail: &mut mean_tail, inv_std: &mut inv_std },
///     scratch: &mut [0.0; LAYER.train_scratch_len()],
/// })?;
/// assert_eq!(mean, [2.0, 10.0]);
/// assert_eq!(running_mean, [0.2, 1.0]);
/// # Ok::<(), normdrop::Error>(())
/// ```
#[derive(Debug)]
pub struct Train<'a, X = f32, Y = X> {
    /// Weight and bias.
    pub parameters: Parameters<'a>,
    /// The running statistics to update, if any are kept.
    pub running: Option<RunningMut<'a>>,
    /// Which elements to drop.
    pub dropout: Dropout<'a>,
    /// `x`, `len` values.
    pub input: &'a [X],
    /// The residual, `len` values, which is added between normalisation and activation; `None` adds
    /// nothing.
    pub residual: Option<&'a [X]>,
    /// `y`, `len` values, overwritten.
    pub output: &'a mut [Y],
    /// The statistics of the batch for [`Backward`], overwritten.
    pub saved: SavedMut<'a>,
    /// At least [`Layer::train_scratch_len`](crate::Layer::train_scratch_len) values. Their
    /// contents do not matter before the call and mean nothing after it.
    pub scratch: &'a mut [f64],
}

impl<'a, X, Y> Train<'a, X, Y> {
    /// A call without weight, bias, running statistics and residual.
    ///
    /// Its dropout is [`Dropout::Unset`], which is refused where the layer's `p` is above 0.
    /// ```
    /// use normdrop::{Config, Error, Layer, Relu, SavedArrays, Shape, Train};
    ///
    /// const LAYER: Layer<Relu> = Layer::new_const(Shape::nc(4, 2), Relu, Config { p: 0.5, ..Config::DEFAULT });
    /// let (x, mut y, mut mask) = ([1.0; 8], [0.0; 8], [0; LAYER.mask_len()]);
    /// let (mut saved, mut scratch) = (SavedArrays::<2>::new(), [0.0; LAYER.scratch_len()]);
    ///
    /// let dropout = LAYER.fill_mask(42, &mut mask)?;
    /// LAYER.train(Train { dropout, ..Train::new(&x, &mut y, saved.as_mut(), &mut scratch) })?;
    ///
    /// let without_a_mask = LAYER.train(Train::new(&x, &mut y, saved.as_mut(), &mut scratch));
    /// assert_eq!(without_a_mask, Err(Error::DropoutUnset { p: 0.5 }));
    /// # Ok::<(), Error>(())
    /// ```
    #[must_use]
    pub const fn new(input: &'a [X], output: &'a mut [Y], saved: SavedMut<'a>, scratch: &'a mut [f64]) -> Self {
        Self {
            parameters: Parameters { weight: None, bias: None },
            running: None,
            dropout: Dropout::Unset,
            input,
            residual: None,
            output,
            saved,
            scratch,
        }
    }
}

/// A forward call with fixed statistics: evaluation. With a mask it is Monte-Carlo dropout or
/// frozen fine-tuning.
/// ```
/// use normdrop::{Config, Dropout, Eval, Identity, Layer, Parameters, Running, Shape};
///
/// const CONFIG: Config = Config { eps: 0.0, ..Config::DEFAULT };
/// const LAYER: Layer<Identity> = Layer::new_const(Shape::nc(2, 2), Identity, CONFIG);
/// let mut y = [0.0; 4];
/// LAYER.eval(Eval {
///     parameters: Parameters { weight: Some(&[1.0, 2.0]), bias: Some(&[0.0, 0.5]) },
///     running: Running::new(&[1.0, 0.0], &[4.0, 1.0]),
///     dropout: Dropout::Off,
///     input: &[3.0, 1.0, 5.0, -1.0],
///     residual: None,
///     output: &mut y,
///     scratch: &mut [0.0; LAYER.eval_scratch_len()],
/// })?;
/// assert_eq!(y, [1.0, 2.5, 2.0, -1.5]);
/// # Ok::<(), normdrop::Error>(())
/// ```
#[derive(Debug)]
pub struct Eval<'a, X = f32, Y = X> {
    /// Weight and bias.
    pub parameters: Parameters<'a>,
    /// The running statistics to normalise with.
    pub running: Running<'a>,
    /// Which elements to drop.
    pub dropout: Dropout<'a>,
    /// `x`, `len` values.
    pub input: &'a [X],
    /// The residual, `len` values, which is added between normalisation and activation; `None` adds
    /// nothing.
    pub residual: Option<&'a [X]>,
    /// `y`, `len` values, overwritten.
    pub output: &'a mut [Y],
    /// At least [`Layer::eval_scratch_len`](crate::Layer::eval_scratch_len) values. Their contents
    /// do not matter before the call and mean nothing after it.
    pub scratch: &'a mut [f64],
}

impl<'a, X, Y> Eval<'a, X, Y> {
    /// An evaluation without weight, bias, residual and dropout.
    /// ```
    /// use normdrop::{Config, Eval, Identity, Layer, Running, Shape};
    ///
    /// const CONFIG: Config = Config { eps: 0.0, p: 0.5, ..Config::DEFAULT };
    /// const LAYER: Layer<Identity> = Layer::new_const(Shape::nc(2, 1), Identity, CONFIG);
    /// let (mut y, mut scratch) = ([0.0; 2], [0.0; LAYER.eval_scratch_len()]);
    /// LAYER.eval(Eval::new(Running::new(&[1.0], &[4.0]), &[3.0, 5.0], &mut y, &mut scratch))?;
    /// assert_eq!(y, [1.0, 2.0]);
    /// # Ok::<(), normdrop::Error>(())
    /// ```
    #[must_use]
    pub const fn new(running: Running<'a>, input: &'a [X], output: &'a mut [Y], scratch: &'a mut [f64]) -> Self {
        let parameters = Parameters { weight: None, bias: None };
        Self { parameters, running, dropout: Dropout::Unset, input, residual: None, output, scratch }
    }
}

/// A forward call with fixed statistics that overwrites its input.
#[derive(Debug)]
pub struct EvalInPlace<'a, X = f32> {
    /// Weight and bias.
    pub parameters: Parameters<'a>,
    /// The running statistics to normalise with.
    pub running: Running<'a>,
    /// Which elements to drop.
    pub dropout: Dropout<'a>,
    /// The residual, `len` values, which is added between normalisation and activation; `None` adds
    /// nothing.
    pub residual: Option<&'a [X]>,
    /// `x` before the call and `y` after it, `len` values.
    pub values: &'a mut [X],
    /// At least [`Layer::eval_scratch_len`](crate::Layer::eval_scratch_len) values. Their contents
    /// do not matter before the call and mean nothing after it.
    pub scratch: &'a mut [f64],
}

impl<'a, X> EvalInPlace<'a, X> {
    /// An evaluation without weight, bias, residual and dropout, as [`Eval::new`].
    #[must_use]
    pub const fn new(running: Running<'a>, values: &'a mut [X], scratch: &'a mut [f64]) -> Self {
        let parameters = Parameters { weight: None, bias: None };
        Self { parameters, running, dropout: Dropout::Unset, residual: None, values, scratch }
    }
}

/// A call that prepares fixed statistics: it makes from them, once, the numbers that the calls with
/// [`EvalPrepared`] and [`Statistics::Prepared`] compute with.
/// ```
/// use normdrop::{Config, EvalPreparedInPlace, Layer, Parameters, Prepare, Relu, Running, Shape};
///
/// const LAYER: Layer<Relu> = Layer::new_const(Shape::nc(1, 2), Relu, Config { eps: 0.0, ..Config::DEFAULT });
/// let (mut prepared, mut scratch) = ([0.0; LAYER.prepared_len()], [0.0; LAYER.eval_scratch_len()]);
/// let parameters = Parameters { weight: Some(&[1.0, 2.0]), bias: Some(&[0.0, 0.5]) };
/// let running = Running::new(&[1.0, 0.0], &[4.0, 1.0]);
/// LAYER.prepare(Prepare { parameters, ..Prepare::new(running, &mut prepared) })?;
///
/// // Now any number of inputs, one after the other.
/// for (x, y) in [([3.0, 1.0], [1.0, 2.5]), ([5.0, -1.0], [2.0, 0.0])] {
///     let mut values = x;
///     LAYER.eval_prepared_in_place(EvalPreparedInPlace::new(&prepared, &mut values, &mut scratch))?;
///     assert_eq!(values, y);
/// }
/// # Ok::<(), normdrop::Error>(())
/// ```
#[derive(Debug)]
pub struct Prepare<'a> {
    /// Weight and bias.
    pub parameters: Parameters<'a>,
    /// The running statistics to normalise with.
    pub running: Running<'a>,
    /// [`Layer::prepared_len`](crate::Layer::prepared_len) values, overwritten.
    pub prepared: &'a mut [f64],
}

impl<'a> Prepare<'a> {
    /// Statistics without weight and bias.
    #[must_use]
    pub const fn new(running: Running<'a>, prepared: &'a mut [f64]) -> Self {
        Self { parameters: Parameters { weight: None, bias: None }, running, prepared }
    }
}

/// A forward call with prepared statistics: [`Eval`] without a square root or a quotient.
#[derive(Debug)]
pub struct EvalPrepared<'a, X = f32, Y = X> {
    /// The slice that [`Layer::prepare`](crate::Layer::prepare) has written,
    /// [`Layer::prepared_len`](crate::Layer::prepared_len) values.
    pub prepared: &'a [f64],
    /// Which elements to drop.
    pub dropout: Dropout<'a>,
    /// `x`, `len` values.
    pub input: &'a [X],
    /// The residual, `len` values, which is added between normalisation and activation; `None` adds
    /// nothing.
    pub residual: Option<&'a [X]>,
    /// `y`, `len` values, overwritten.
    pub output: &'a mut [Y],
    /// At least [`Layer::eval_scratch_len`](crate::Layer::eval_scratch_len) values. Their contents
    /// do not matter before the call and mean nothing after it.
    pub scratch: &'a mut [f64],
}

impl<'a, X, Y> EvalPrepared<'a, X, Y> {
    /// An evaluation without residual and dropout.
    #[must_use]
    pub const fn new(prepared: &'a [f64], input: &'a [X], output: &'a mut [Y], scratch: &'a mut [f64]) -> Self {
        Self { prepared, dropout: Dropout::Unset, input, residual: None, output, scratch }
    }
}

/// A forward call with prepared statistics that overwrites its input.
#[derive(Debug)]
pub struct EvalPreparedInPlace<'a, X = f32> {
    /// The slice that [`Layer::prepare`](crate::Layer::prepare) has written,
    /// [`Layer::prepared_len`](crate::Layer::prepared_len) values.
    pub prepared: &'a [f64],
    /// Which elements to drop.
    pub dropout: Dropout<'a>,
    /// The residual, `len` values, which is added between normalisation and activation; `None` adds
    /// nothing.
    pub residual: Option<&'a [X]>,
    /// `x` before the call and `y` after it, `len` values.
    pub values: &'a mut [X],
    /// At least [`Layer::eval_scratch_len`](crate::Layer::eval_scratch_len) values. Their contents
    /// do not matter before the call and mean nothing after it.
    pub scratch: &'a mut [f64],
}

impl<'a, X> EvalPreparedInPlace<'a, X> {
    /// An evaluation without residual and dropout, as [`EvalPrepared::new`].
    #[must_use]
    pub const fn new(prepared: &'a [f64], values: &'a mut [X], scratch: &'a mut [f64]) -> Self {
        Self { prepared, dropout: Dropout::Unset, residual: None, values, scratch }
    }
}

/// The gradients of the learned parameters. The call computes a gradient only if it has a buffer.
#[derive(Debug, Default)]
pub struct ParameterGradients<'a> {
    /// The gradient of the weight, `C` values, overwritten.
    pub weight: Option<&'a mut [f32]>,
    /// The gradient of the bias, `C` values, overwritten.
    pub bias: Option<&'a mut [f32]>,
}

impl<'a> ParameterGradients<'a> {
    /// Both gradients, `C` values each. [`ParameterGradients::default`] asks for neither.
    #[must_use]
    pub const fn new(weight: &'a mut [f32], bias: &'a mut [f32]) -> Self {
        Self { weight: Some(weight), bias: Some(bias) }
    }
}

/// A backward call.
/// ```
/// use normdrop::{Backward, Config, Dropout, Identity, Layer, ParameterGradients, Parameters};
/// use normdrop::{Saved, Shape, Statistics};
///
/// const LAYER: Layer<Identity> = Layer::new_const(Shape::nc(4, 1), Identity, Config::DEFAULT);
/// // The statistics that `Layer::train` has saved for these four values.
/// let saved = Saved { mean: &[2.0], mean_tail: &[0.0], inv_std: &[1.0 / 3.500_01_f64.sqrt()] };
/// let (mut dx, mut grad_weight, mut grad_bias) = ([0.0; 4], [0.0], [0.0]);
///
/// LAYER.backward(Backward {
///     parameters: Parameters::default(),
///     statistics: Statistics::Batch(saved),
///     dropout: Dropout::Off,
///     input: &[0.0, 1.0, 2.0, 5.0],
///     residual: None,
///     grad_output: &[1.0, 2.0, 3.0, 4.0],
///     grad_input: Some(&mut dx),
///     grad_residual: None,
///     grad_parameters: ParameterGradients {
///         weight: Some(&mut grad_weight),
///         bias: Some(&mut grad_bias),
///     },
///     scratch: &mut [0.0; LAYER.backward_scratch_len()],
/// })?;
/// assert_eq!(grad_bias, [10.0]);
/// // Adding a constant to the input changes no output: its gradient has the sum 0.
/// assert!(dx.iter().sum::<f32>().abs() < 1e-6);
/// # Ok::<(), normdrop::Error>(())
/// ```
#[derive(Debug)]
pub struct Backward<'a, X = f32, Y = X> {
    /// The weight and bias of the forward call.
    pub parameters: Parameters<'a>,
    /// The statistics of the forward call.
    pub statistics: Statistics<'a>,
    /// The dropout of the forward call: the same mask, stored or drawn again from the same seed.
    pub dropout: Dropout<'a>,
    /// `x` of the forward call, `len` values.
    pub input: &'a [X],
    /// The residual of the forward call, `len` values.
    pub residual: Option<&'a [X]>,
    /// `dy`, `len` values.
    pub grad_output: &'a [Y],
    /// `dx`, `len` values, overwritten; `None` if `dx` is not needed.
    pub grad_input: Option<&'a mut [X]>,
    /// The gradient of the residual, `len` values, overwritten; `None` if it is not needed.
    pub grad_residual: Option<&'a mut [X]>,
    /// The gradients of weight and bias.
    pub grad_parameters: ParameterGradients<'a>,
    /// At least [`Layer::backward_scratch_len`](crate::Layer::backward_scratch_len) values. Their
    /// contents do not matter before the call and mean nothing after it.
    pub scratch: &'a mut [f64],
}

impl<'a, X, Y> Backward<'a, X, Y> {
    /// The backward call of a forward call without weight, bias and residual. It computes nothing
    /// until a field says which gradients are wanted.
    /// ```
    /// use normdrop::{Backward, Config, Identity, Layer, Saved, Shape, Statistics};
    ///
    /// const LAYER: Layer<Identity> = Layer::new_const(Shape::nc(2, 1), Identity, Config::DEFAULT);
    /// let (mut dx, mut scratch) = ([f32::NAN; 2], [0.0; LAYER.backward_scratch_len()]);
    /// let statistics = Statistics::Batch(Saved::new(&[1.0], &[0.0], &[1.0]));
    /// let call = Backward::new(statistics, &[0.0, 2.0], &[1.0, 1.0], &mut scratch);
    /// LAYER.backward(Backward { grad_input: Some(&mut dx), ..call })?;
    /// // Two equal gradients move the mean of the batch, and nothing else.
    /// assert_eq!(dx, [0.0, 0.0]);
    /// # Ok::<(), normdrop::Error>(())
    /// ```
    #[must_use]
    pub const fn new(statistics: Statistics<'a>, input: &'a [X], grad_output: &'a [Y], scratch: &'a mut [f64]) -> Self {
        Self {
            parameters: Parameters { weight: None, bias: None },
            statistics,
            dropout: Dropout::Unset,
            input,
            residual: None,
            grad_output,
            grad_input: None,
            grad_residual: None,
            grad_parameters: ParameterGradients { weight: None, bias: None },
            scratch,
        }
    }

    /// This call with its buffers borrowed for a shorter time.
    #[cfg(feature = "alloc")]
    pub(crate) fn reborrow(&mut self) -> Backward<'_, X, Y> {
        let ParameterGradients { weight, bias } = &mut self.grad_parameters;
        Backward {
            grad_input: self.grad_input.as_deref_mut(),
            grad_residual: self.grad_residual.as_deref_mut(),
            grad_parameters: ParameterGradients { weight: weight.as_deref_mut(), bias: bias.as_deref_mut() },
            scratch: &mut *self.scratch,
            ..*self
        }
    }
}

/// A backward call that overwrites `grad_output` with `grad_input`.
#[derive(Debug)]
pub struct BackwardInPlace<'a, X = f32, Y = X> {
    /// The weight and bias of the forward call.
    pub parameters: Parameters<'a>,
    /// The statistics of the forward call.
    pub statistics: Statistics<'a>,
    /// The dropout of the forward call: the same mask, stored or drawn again from the same seed.
    pub dropout: Dropout<'a>,
    /// `x` of the forward call, `len` values.
    pub input: &'a [X],
    /// The residual of the forward call, `len` values.
    pub residual: Option<&'a [X]>,
    /// `dy` before the call and `dx` after it, `len` values.
    pub values: &'a mut [Y],
    /// The gradient of the residual, `len` values, overwritten; `None` if it is not needed.
    pub grad_residual: Option<&'a mut [X]>,
    /// The gradients of weight and bias.
    pub grad_parameters: ParameterGradients<'a>,
    /// At least [`Layer::backward_scratch_len`](crate::Layer::backward_scratch_len) values. Their
    /// contents do not matter before the call and mean nothing after it.
    pub scratch: &'a mut [f64],
}

impl<'a, X, Y> BackwardInPlace<'a, X, Y> {
    /// The backward call of a forward call without weight, bias and residual. It computes the
    /// gradient of the input alone.
    #[must_use]
    pub const fn new(statistics: Statistics<'a>, input: &'a [X], values: &'a mut [Y], scratch: &'a mut [f64]) -> Self {
        Self {
            parameters: Parameters { weight: None, bias: None },
            statistics,
            dropout: Dropout::Unset,
            input,
            residual: None,
            values,
            grad_residual: None,
            grad_parameters: ParameterGradients { weight: None, bias: None },
            scratch,
        }
    }
}

/// A call that computes the moments of a part of a batch, to be merged with the moments of the
/// other parts.
/// ```
/// use normdrop::{Config, Identity, Layer, Moments, Shape, merge_moments};
///
/// // A batch of four values of one channel, in two parts of two values.
/// const PART: Layer<Identity> = Layer::new_const(Shape::nc(2, 1), Identity, Config::DEFAULT);
/// let mut scratch = [0.0; PART.train_scratch_len()];
/// let (mut first, mut second) = ([0.0; PART.moments_len()], [0.0; PART.moments_len()]);
/// PART.moments(Moments { input: &[1.0, 2.0], moments: &mut first, scratch: &mut scratch })?;
/// PART.moments(Moments { input: &[3.0, 6.0], moments: &mut second, scratch: &mut scratch })?;
/// assert_eq!(first, [2.0, 1.5, 0.5]);
///
/// merge_moments(&mut first, &second)?;
/// // The count, the mean, and the sum of squared deviations from the mean.
/// assert_eq!(first, [4.0, 3.0, 14.0]);
/// # Ok::<(), normdrop::Error>(())
/// ```
#[derive(Debug)]
pub struct Moments<'a, X = f32> {
    /// `x` of the part, `len` values.
    pub input: &'a [X],
    /// The moments, [`Layer::moments_len`](crate::Layer::moments_len) values, overwritten: `C`
    /// counts, then `C` means, then `C` sums of squared deviations from the mean.
    pub moments: &'a mut [f64],
    /// At least [`Layer::train_scratch_len`](crate::Layer::train_scratch_len) values. Their
    /// contents do not matter before the call and mean nothing after it.
    pub scratch: &'a mut [f64],
}

impl<'a, X> Moments<'a, X> {
    /// The call with its three buffers.
    #[must_use]
    pub const fn new(input: &'a [X], moments: &'a mut [f64], scratch: &'a mut [f64]) -> Self {
        Self { input, moments, scratch }
    }
}

/// A call that makes the statistics of a whole batch from its moments.
#[derive(Debug)]
pub struct Finish<'a> {
    /// The moments of all parts, merged, `moments_len` values.
    pub moments: &'a [f64],
    /// The running statistics to update, if any are kept.
    pub running: Option<RunningMut<'a>>,
    /// The statistics of the batch for [`Apply`], [`Reduce`] and [`ApplyGradient`], overwritten.
    pub saved: SavedMut<'a>,
}

impl<'a> Finish<'a> {
    /// A call without running statistics.
    #[must_use]
    pub const fn new(moments: &'a [f64], saved: SavedMut<'a>) -> Self {
        Self { moments, running: None, saved }
    }
}

/// The forward call of a part of a batch, with the statistics of the whole batch.
#[derive(Debug)]
pub struct Apply<'a, X = f32, Y = X> {
    /// Weight and bias.
    pub parameters: Parameters<'a>,
    /// The statistics of the batch.
    pub saved: Saved<'a>,
    /// Which elements of the part to drop.
    pub dropout: Dropout<'a>,
    /// `x` of the part, `len` values.
    pub input: &'a [X],
    /// The residual, `len` values, which is added between normalisation and activation; `None` adds
    /// nothing.
    pub residual: Option<&'a [X]>,
    /// `y` of the part, `len` values, overwritten.
    pub output: &'a mut [Y],
    /// At least [`Layer::eval_scratch_len`](crate::Layer::eval_scratch_len) values. Their contents
    /// do not matter before the call and mean nothing after it.
    pub scratch: &'a mut [f64],
}

impl<'a, X, Y> Apply<'a, X, Y> {
    /// A call without weight, bias and residual. Its dropout is [`Dropout::Unset`], which is refused
    /// where the layer's `p` is above 0.
    #[must_use]
    pub const fn new(saved: Saved<'a>, input: &'a [X], output: &'a mut [Y], scratch: &'a mut [f64]) -> Self {
        let parameters = Parameters { weight: None, bias: None };
        Self { parameters, saved, dropout: Dropout::Unset, input, residual: None, output, scratch }
    }
}

/// A call that computes the sums over a part of a batch from which gradients are made, to be merged
/// with the sums of the other parts.
#[derive(Debug)]
pub struct Reduce<'a, X = f32, Y = X> {
    /// The weight and bias of the forward call.
    pub parameters: Parameters<'a>,
    /// The statistics of the forward call.
    pub statistics: Statistics<'a>,
    /// The dropout of the part's forward call.
    pub dropout: Dropout<'a>,
    /// `x` of the part, `len` values.
    pub input: &'a [X],
    /// The residual of the part's forward call, `len` values.
    pub residual: Option<&'a [X]>,
    /// `dy` of the part, `len` values.
    pub grad_output: &'a [Y],
    /// The sums, [`Layer::sums_len`](crate::Layer::sums_len) values, overwritten: `C` sums of `g`,
    /// then `C` sums of `g*xhat`.
    pub sums: &'a mut [f64],
    /// At least [`Layer::backward_scratch_len`](crate::Layer::backward_scratch_len) values. Their
    /// contents do not matter before the call and mean nothing after it.
    pub scratch: &'a mut [f64],
}

impl<'a, X, Y> Reduce<'a, X, Y> {
    /// The call for a forward call without weight, bias and residual.
    #[must_use]
    pub const fn new(
        statistics: Statistics<'a>,
        input: &'a [X],
        grad_output: &'a [Y],
        sums: &'a mut [f64],
        scratch: &'a mut [f64],
    ) -> Self {
        let parameters = Parameters { weight: None, bias: None };
        let dropout = Dropout::Unset;
        Self { parameters, statistics, dropout, input, residual: None, grad_output, sums, scratch }
    }
}

/// The backward call of a part of a batch, through the statistics of the whole batch.
#[derive(Debug)]
pub struct ApplyGradient<'a, X = f32, Y = X> {
    /// The weight and bias of the forward call.
    pub parameters: Parameters<'a>,
    /// The statistics of the batch.
    pub saved: Saved<'a>,
    /// The values per channel of the whole batch: the count of its moments.
    pub samples: f64,
    /// The sums of all parts, merged, `sums_len` values.
    pub sums: &'a [f64],
    /// The dropout of the part's forward call.
    pub dropout: Dropout<'a>,
    /// `x` of the part, `len` values.
    pub input: &'a [X],
    /// The residual of the part's forward call, `len` values.
    pub residual: Option<&'a [X]>,
    /// `dy` of the part, `len` values.
    pub grad_output: &'a [Y],
    /// `dx` of the part, `len` values, overwritten.
    pub grad_input: &'a mut [X],
    /// The gradient of the residual, `len` values, overwritten; `None` if it is not needed.
    pub grad_residual: Option<&'a mut [X]>,
    /// At least [`Layer::backward_scratch_len`](crate::Layer::backward_scratch_len) values. Their
    /// contents do not matter before the call and mean nothing after it.
    pub scratch: &'a mut [f64],
}

impl<'a, X, Y> ApplyGradient<'a, X, Y> {
    /// The call for a forward call without weight, bias and residual.
    #[must_use]
    pub const fn new(
        saved: Saved<'a>,
        samples: f64,
        sums: &'a [f64],
        input: &'a [X],
        grad_output: &'a [Y],
        grad_input: &'a mut [X],
        scratch: &'a mut [f64],
    ) -> Self {
        Self {
            parameters: Parameters { weight: None, bias: None },
            saved,
            samples,
            sums,
            dropout: Dropout::Unset,
            input,
            residual: None,
            grad_output,
            grad_input,
            grad_residual: None,
            scratch,
        }
    }
}

/// Which positions of a padded batch are valid. The others are padding.
///
/// A sample has as many positions as the tensor has values of one of its channels: `l` of
/// [`Shape::nlc`](crate::Shape::nlc) and [`Shape::ncl`](crate::Shape::ncl), `h*w` of images, in
/// memory order; 1 of [`Shape::nc`](crate::Shape::nc).
#[derive(Debug, Clone, Copy)]
pub enum Validity<'a> {
    /// The length of each sample: its first `lengths[sample]` positions are valid.
    Lengths(&'a [usize]),
    /// A bit for each position of each sample: 1 is valid. Bit `i % 8` of byte `i / 8` belongs to
    /// position `i = sample*positions + position`, and [`mask_len`](crate::mask_len) says how many
    /// bytes there are. Bits after the last position are never read.
    ///
    /// It is a validity bitmap of Arrow, and the result of `numpy.packbits(bitorder="little")` for a
    /// mask that is true where a position is valid. (The `key_padding_mask` of PyTorch is true
    /// where a position is padding.)
    Bitmap(&'a [u8]),
}

/// The arguments that a call over the valid positions of a padded batch needs beside its usual ones:
/// which positions are valid, and the place to which the call copies their values.
#[derive(Debug)]
pub struct Masked<'a> {
    /// Which positions are valid.
    pub validity: Validity<'a>,
    /// At least [`Layer::masked_workspace_len`](crate::Layer::masked_workspace_len) values. Their
    /// contents do not matter before the call and mean nothing after it.
    pub workspace: &'a mut [f32],
}

impl<'a> Masked<'a> {
    /// The two arguments.
    #[must_use]
    pub const fn new(validity: Validity<'a>, workspace: &'a mut [f32]) -> Self {
        Self { validity, workspace }
    }
}
