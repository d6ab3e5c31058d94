//! The argument bundles of the layer's calls, their fields grouped by how long the data lives.
//!
//! `C` stands for the number of channels and `len` for the number of elements of the tensor. Every slice must
//! have exactly the length that its field names, except scratch, which may be longer.

use crate::error::{Buffer, Error, check_len};

/// The learned parameters, each optional: a missing weight is 1, a missing bias is 0.
#[derive(Debug, Clone, Copy, Default)]
pub struct Parameters<'a> {
    /// The scale per channel, `C` values.
    pub weight: Option<&'a [f32]>,
    /// The shift per channel, `C` values.
    pub bias: Option<&'a [f32]>,
}

impl Parameters<'_> {
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

/// The running statistics, read.
#[derive(Debug, Clone, Copy)]
pub struct Running<'a> {
    /// The running mean per channel, rounded to f32, `C` values.
    pub mean: &'a [f32],
    /// The running mean per channel minus `mean`, `C` values: see [`RunningMut::mean_tail`]. `None`
    /// stands for zeros.
    pub mean_tail: Option<&'a [f32]>,
    /// The running variance per channel, `C` values, each of them above `-eps` or NaN.
    ///
    /// A call refuses the others with [`Error::Variance`], because they have no standard deviation,
    /// and finite `x` would give NaN. Files have such numbers: libraries that average
    /// `E[x^2]-E[x]^2` store negative variances where the mean is many standard deviations from 0
    /// (Keras 3 on PyTorch, haiku, nnabla and dlib do). A number that is 0 but for rounding, between
    /// `-1e-6*mean^2` and 0, stands for a channel that hardly varies: make it 0. Any other is lost,
    /// and the data have to give the variance again: [`Layer::moments`](crate::Layer::moments) of
    /// all of them, merged, and [`Layer::finish`](crate::Layer::finish) with a momentum of 1.
    pub var: &'a [f32],
}

impl<'a> Running<'a> {
    /// The running statistics that other libraries have: a mean and a variance per channel, without
    /// `mean_tail`.
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

/// The running statistics, updated by a training call: averages of the batch mean and of the batch variance.
///
/// The kind of variance is [`Config::running_var`](crate::Config::running_var).
///
/// # Batches that should not count
/// A NaN or an infinity in `x` goes into the averages of its channel and stays there, as in
/// PyTorch: a later batch does not take it away, with any momentum but 1. A batch whose variance is
/// finite and does not fit an f32 (values beyond `1e19`) counts with the largest f32, so that the
/// running variance stays finite and later batches bring it back; with a momentum of 0.1 that takes
/// about 850 batches. To leave such a batch out, ask
/// [`Layer::check_moments`](crate::Layer::check_moments) between
/// [`Layer::moments`](crate::Layer::moments) and [`Layer::finish`](crate::Layer::finish), and skip
/// the rest of the step.
#[derive(Debug)]
pub struct RunningMut<'a> {
    /// The running mean per channel, rounded to f32, `C` values.
    pub mean: &'a mut [f32],
    /// The running mean per channel minus `mean`, `C` values; zeros in a new layer.
    ///
    /// With it the running mean has 48 bits: it reaches its limit, and an evaluation that is given
    /// both differs from training with the same statistics by nothing but the roundings of the
    /// output, with means up to `1e7` standard deviations. Store it beside `mean`, and give every
    /// call that has a [`Running`] both. It is 0 where `mean` is 0 or not finite.
    ///
    /// With `None` the running mean is one f32, as in PyTorch, Keras and flax. Each update rounds
    /// it, and an update of less than half a unit of its last place is lost, so that it stops
    /// within `2^-24*|mean|/momentum` of the limit. That is `2^-24*|mean|/momentum/std` standard
    /// deviations in each output: nothing for data around 0; `0.06` for a mean of `1e4` standard
    /// deviations and a momentum of `0.01`; and a cumulative average, whose momentum is
    /// `1/batches`, stands still after enough batches.
    pub mean_tail: Option<&'a mut [f32]>,
    /// The running variance per channel, `C` values.
    ///
    /// It is one f32 and stops within `2^-24*var/momentum` of its limit. Relative to the variance
    /// that is `2^-24/momentum` or less, whatever the data.
    pub var: &'a mut [f32],
    /// How much of the new value goes into the average.
    pub average: Average<'a>,
}

impl<'a> RunningMut<'a> {
    /// The running statistics that other libraries have: a mean and a variance per channel, without
    /// `mean_tail`, and [`Average::Exponential`].
    #[must_use]
    pub const fn new(mean: &'a mut [f32], var: &'a mut [f32]) -> Self {
        Self { mean, mean_tail: None, var, average: Average::Exponential }
    }

    /// The same buffers, read.
    #[must_use]
    pub fn as_running(&self) -> Running<'_> {
        Running { mean: self.mean, mean_tail: self.mean_tail.as_deref(), var: self.var }
    }
}

/// How the running statistics are averaged over the batches.
#[derive(Debug, Default)]
pub enum Average<'a> {
    /// `running = (1 - momentum)*running + momentum*batch`, with [`Config::momentum`](crate::Config::momentum).
    #[default]
    Exponential,
    /// The mean of all batches, whatever their sizes: PyTorch's `momentum=None` with `num_batches_tracked`.
    ///
    /// A training call counts itself and then moves the running statistics with the momentum
    /// `1/batches`, computed in f64. So the first batch replaces what was there, NaN included.
    /// After many batches an f32 moves no more, see [`RunningMut::mean_tail`] and
    /// [`RunningMut::var`]. A call that fails or has an empty batch does not count, and a count of
    /// `u64::MAX` stays.
    Cumulative {
        /// The number of batches that the running statistics are the mean of; 0 for a new layer.
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

/// What the training forward pass saved for the backward pass, read.
///
/// The batch mean is a pair, `mean + mean_tail`, because the rounding of one f32 would be the largest error of
/// the whole layer; the inverse standard deviation is f64, so that backward gates with exactly the numbers that
/// forward used, and because `1/sqrt(var + eps)` of the largest inputs is not a normal f32.
#[derive(Debug, Clone, Copy)]
pub struct Saved<'a> {
    /// The batch mean per channel, rounded to f32, `C` values.
    pub mean: &'a [f32],
    /// The batch mean per channel minus `mean`, `C` values.
    pub mean_tail: &'a [f32],
    /// `1/sqrt(var + eps)` per channel with the biased batch variance, `C` values.
    pub inv_std: &'a [f64],
}

/// What the training forward pass saves for the backward pass, written.
///
/// Of a channel without values (an empty batch, a count of 0) it is 0 everywhere: with an `inv_std`
/// of 0, as of an infinite variance, the output is `act(bias)` and no gradient flows, whatever is
/// there.
#[derive(Debug)]
pub struct SavedMut<'a> {
    /// The batch mean per channel, rounded to f32, `C` values.
    pub mean: &'a mut [f32],
    /// The batch mean per channel minus `mean`, `C` values.
    pub mean_tail: &'a mut [f32],
    /// `1/sqrt(var + eps)` per channel with the biased batch variance, `C` values.
    pub inv_std: &'a mut [f64],
}

impl SavedMut<'_> {
    /// The statistics of channels without values.
    pub(crate) fn clear(&mut self) {
        self.mean.fill(0.0);
        self.mean_tail.fill(0.0);
        self.inv_std.fill(0.0);
    }

    /// The same buffers, read.
    #[must_use]
    pub fn as_saved(&self) -> Saved<'_> {
        Saved { mean: self.mean, mean_tail: self.mean_tail, inv_std: self.inv_std }
    }
}

/// Whether elements are dropped, and which.
#[derive(Debug, Clone, Copy, Default)]
pub enum Dropout<'a> {
    /// Nothing is dropped and nothing is scaled.
    #[default]
    Off,
    /// Elements whose bit is 0 become +0.0, the others are scaled by the inverse of the keep probability.
    ///
    /// `mask_len` bytes; bit `i % 8` of byte `i / 8` gates element `i` of the tensor in memory order, or its `i`th
    /// channel of a sample or sample: what [`Granularity`](crate::Granularity) says
    /// (`numpy.packbits(bitorder="little")`, Arrow bitmaps). Make it with `fill_mask` of the layer, or by any
    /// other means. Bits past the last one are never read.
    Mask(&'a [u8]),
}

/// The statistics that a backward pass differentiates through.
#[derive(Debug, Clone, Copy)]
pub enum Statistics<'a> {
    /// Batch statistics, as saved by the training forward pass: gradients flow through mean and variance.
    Batch(Saved<'a>),
    /// Running statistics, constants of the evaluation forward pass (frozen batch norm).
    Fixed(Running<'a>),
}

/// A forward call with batch statistics: training.
#[derive(Debug)]
pub struct Train<'a> {
    /// Weight and bias.
    pub parameters: Parameters<'a>,
    /// The running statistics to update, if any are kept.
    pub running: Option<RunningMut<'a>>,
    /// Which elements to drop.
    pub dropout: Dropout<'a>,
    /// `x`, `len` values.
    pub input: &'a [f32],
    /// What is added between normalisation and activation, `len` values; `None` adds nothing.
    pub residual: Option<&'a [f32]>,
    /// `y`, `len` values, overwritten.
    pub output: &'a mut [f32],
    /// What backward will need, overwritten.
    pub saved: SavedMut<'a>,
    /// At least `train_scratch_len` values; their contents do not matter before the call and mean nothing after it.
    pub scratch: &'a mut [f64],
}

/// A forward call with fixed statistics: evaluation; with a mask, Monte-Carlo dropout or frozen fine-tuning.
#[derive(Debug)]
pub struct Eval<'a> {
    /// Weight and bias.
    pub parameters: Parameters<'a>,
    /// The running statistics to normalise with.
    pub running: Running<'a>,
    /// Which elements to drop.
    pub dropout: Dropout<'a>,
    /// `x`, `len` values.
    pub input: &'a [f32],
    /// What is added between normalisation and activation, `len` values; `None` adds nothing.
    pub residual: Option<&'a [f32]>,
    /// `y`, `len` values, overwritten.
    pub output: &'a mut [f32],
    /// At least `eval_scratch_len` values; their contents do not matter before the call and mean nothing after it.
    pub scratch: &'a mut [f64],
}

/// A forward call with fixed statistics that overwrites its input.
#[derive(Debug)]
pub struct EvalInPlace<'a> {
    /// Weight and bias.
    pub parameters: Parameters<'a>,
    /// The running statistics to normalise with.
    pub running: Running<'a>,
    /// Which elements to drop.
    pub dropout: Dropout<'a>,
    /// What is added between normalisation and activation, `len` values; `None` adds nothing.
    pub residual: Option<&'a [f32]>,
    /// `x` before the call and `y` after it, `len` values.
    pub values: &'a mut [f32],
    /// At least `eval_scratch_len` values; their contents do not matter before the call and mean nothing after it.
    pub scratch: &'a mut [f64],
}

/// The gradients of the learned parameters, each computed only if asked for.
#[derive(Debug, Default)]
pub struct ParameterGradients<'a> {
    /// The gradient of the weight, `C` values, overwritten.
    pub weight: Option<&'a mut [f32]>,
    /// The gradient of the bias, `C` values, overwritten.
    pub bias: Option<&'a mut [f32]>,
}

/// A backward call.
#[derive(Debug)]
pub struct Backward<'a> {
    /// The weight and bias of the forward call.
    pub parameters: Parameters<'a>,
    /// The statistics of the forward call.
    pub statistics: Statistics<'a>,
    /// The dropout of the forward call: the same bits, stored or made again.
    pub dropout: Dropout<'a>,
    /// `x` of the forward call, `len` values.
    pub input: &'a [f32],
    /// The residual of the forward call, `len` values.
    pub residual: Option<&'a [f32]>,
    /// `dy`, `len` values.
    pub grad_output: &'a [f32],
    /// `dx`, `len` values, overwritten; `None` if nobody needs it.
    pub grad_input: Option<&'a mut [f32]>,
    /// The gradient of the residual, `len` values, overwritten; `None` if nobody needs it.
    pub grad_residual: Option<&'a mut [f32]>,
    /// The gradients of weight and bias.
    pub grad_parameters: ParameterGradients<'a>,
    /// At least `backward_scratch_len` values; their contents do not matter before the call and mean nothing after it.
    pub scratch: &'a mut [f64],
}

/// A backward call that overwrites `grad_output` with `grad_input`.
#[derive(Debug)]
pub struct BackwardInPlace<'a> {
    /// The weight and bias of the forward call.
    pub parameters: Parameters<'a>,
    /// The statistics of the forward call.
    pub statistics: Statistics<'a>,
    /// The dropout of the forward call: the same bits, stored or made again.
    pub dropout: Dropout<'a>,
    /// `x` of the forward call, `len` values.
    pub input: &'a [f32],
    /// The residual of the forward call, `len` values.
    pub residual: Option<&'a [f32]>,
    /// `dy` before the call and `dx` after it, `len` values.
    pub values: &'a mut [f32],
    /// The gradient of the residual, `len` values, overwritten; `None` if nobody needs it.
    pub grad_residual: Option<&'a mut [f32]>,
    /// The gradients of weight and bias.
    pub grad_parameters: ParameterGradients<'a>,
    /// At least `backward_scratch_len` values; their contents do not matter before the call and mean nothing after it.
    pub scratch: &'a mut [f64],
}

/// The moments of a part of a batch, to be merged with those of the other parts.
#[derive(Debug)]
pub struct Moments<'a> {
    /// `x` of the part, `len` values.
    pub input: &'a [f32],
    /// The moments, `moments_len` values, overwritten: `C` counts, `C` means, `C` sums of squared deviations.
    pub moments: &'a mut [f64],
    /// At least `train_scratch_len` values; their contents do not matter before the call and mean nothing after it.
    pub scratch: &'a mut [f64],
}

/// From the moments of a whole batch to its statistics.
#[derive(Debug)]
pub struct Finish<'a> {
    /// The moments of all parts, merged, `moments_len` values.
    pub moments: &'a [f64],
    /// The running statistics to update, if any are kept.
    pub running: Option<RunningMut<'a>>,
    /// What [`Apply`], [`Reduce`] and [`ApplyGradient`] will need, overwritten.
    pub saved: SavedMut<'a>,
}

/// The forward call of a part of a batch, with the statistics of the whole.
#[derive(Debug)]
pub struct Apply<'a> {
    /// Weight and bias.
    pub parameters: Parameters<'a>,
    /// The statistics of the batch.
    pub saved: Saved<'a>,
    /// Which elements of the part to drop.
    pub dropout: Dropout<'a>,
    /// `x` of the part, `len` values.
    pub input: &'a [f32],
    /// What is added between normalisation and activation, `len` values; `None` adds nothing.
    pub residual: Option<&'a [f32]>,
    /// `y` of the part, `len` values, overwritten.
    pub output: &'a mut [f32],
    /// At least `eval_scratch_len` values; their contents do not matter before the call and mean nothing after it.
    pub scratch: &'a mut [f64],
}

/// The sums over a part of a batch that gradients are made of, to be merged with those of the other parts.
#[derive(Debug)]
pub struct Reduce<'a> {
    /// The weight and bias of the forward call.
    pub parameters: Parameters<'a>,
    /// The statistics of the forward call.
    pub statistics: Statistics<'a>,
    /// The dropout of the part's forward call.
    pub dropout: Dropout<'a>,
    /// `x` of the part, `len` values.
    pub input: &'a [f32],
    /// The residual of the part's forward call, `len` values.
    pub residual: Option<&'a [f32]>,
    /// `dy` of the part, `len` values.
    pub grad_output: &'a [f32],
    /// The sums, `sums_len` values, overwritten: `C` sums of `g`, then `C` sums of `g*xhat`.
    pub sums: &'a mut [f64],
    /// At least `backward_scratch_len` values; their contents do not matter before the call and mean nothing after it.
    pub scratch: &'a mut [f64],
}

/// The gradients of the elements of a part of a batch, through the statistics of the whole.
#[derive(Debug)]
pub struct ApplyGradient<'a> {
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
    pub input: &'a [f32],
    /// The residual of the part's forward call, `len` values.
    pub residual: Option<&'a [f32]>,
    /// `dy` of the part, `len` values.
    pub grad_output: &'a [f32],
    /// `dx` of the part, `len` values, overwritten.
    pub grad_input: &'a mut [f32],
    /// The gradient of the residual, `len` values, overwritten; `None` if nobody needs it.
    pub grad_residual: Option<&'a mut [f32]>,
    /// At least `backward_scratch_len` values; their contents do not matter before the call and mean nothing after it.
    pub scratch: &'a mut [f64],
}
