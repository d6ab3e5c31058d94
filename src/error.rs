//! The one error type: it says which argument was refused, what was expected and what the caller
//! gave.

use core::fmt;

use crate::backend::Backend;

/// A caller's buffer, as named in the argument bundles.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Buffer {
    /// The layer's input `x`.
    Input,
    /// The residual, which is added between normalisation and activation.
    Residual,
    /// The layer's output `y`.
    Output,
    /// The tensor that an in-place call reads and overwrites.
    Values,
    /// The gradient of the loss with respect to the output.
    GradOutput,
    /// The gradient of the loss with respect to the input.
    GradInput,
    /// The gradient of the loss with respect to the residual.
    GradResidual,
    /// The scale per channel.
    Weight,
    /// The shift per channel.
    Bias,
    /// The gradient of the loss with respect to the weight.
    GradWeight,
    /// The gradient of the loss with respect to the bias.
    GradBias,
    /// The running mean per channel.
    RunningMean,
    /// The exact running mean minus the rounded one, per channel.
    RunningMeanTail,
    /// The running variance per channel.
    RunningVar,
    /// The batch mean per channel that the forward pass saved.
    SavedMean,
    /// The exact batch mean minus the saved, rounded one, per channel.
    SavedMeanTail,
    /// The inverse standard deviation per channel that the forward pass saved.
    SavedInvStd,
    /// The moments of a part of a batch: counts, means, sums of squared deviations.
    Moments,
    /// The sums of `g` and of `g*xhat` of a part of a batch, from which gradients are made.
    Sums,
    /// The dropout mask, one bit per element, channel of a sample or sample.
    Mask,
    /// The gates, one bit per element.
    Gates,
    /// The working memory of one call.
    Scratch,
    /// The weights of the layer that batch norm is folded into.
    FoldWeights,
    /// The bias of the layer that batch norm is folded into.
    FoldBias,
    /// The values in the place of zero padding behind a batch norm that is folded.
    FoldPadding,
    /// The lengths of the sequences of a padded batch.
    Lengths,
    /// The bitmap of the valid positions of a padded batch.
    Validity,
    /// The working memory of a call over the valid positions of a padded batch.
    Workspace,
    /// The fixed statistics and parameters that [`Layer::prepare`](crate::Layer::prepare) has
    /// prepared.
    Prepared,
    /// The slope per channel of PReLU, or one for all channels.
    Slope,
    /// The gradient of the loss with respect to the slope.
    GradSlope,
}

impl Buffer {
    /// The name of the buffer, as the argument bundles spell it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Input => "input",
            Self::Residual => "residual",
            Self::Output => "output",
            Self::Values => "values",
            Self::GradOutput => "grad_output",
            Self::GradInput => "grad_input",
            Self::GradResidual => "grad_residual",
            Self::Weight => "weight",
            Self::Bias => "bias",
            Self::GradWeight => "grad_weight",
            Self::GradBias => "grad_bias",
            Self::RunningMean => "running mean",
            Self::RunningMeanTail => "running mean_tail",
            Self::RunningVar => "running var",
            Self::SavedMean => "saved mean",
            Self::SavedMeanTail => "saved mean_tail",
            Self::SavedInvStd => "saved inv_std",
            Self::Moments => "moments",
            Self::Sums => "sums",
            Self::Mask => "mask",
            Self::Gates => "gates",
            Self::Scratch => "scratch",
            Self::FoldWeights => "fold weights",
            Self::FoldBias => "fold bias",
            Self::FoldPadding => "fold padding",
            Self::Lengths => "lengths",
            Self::Validity => "validity bitmap",
            Self::Workspace => "workspace",
            Self::Prepared => "prepared",
            Self::Slope => "slope",
            Self::GradSlope => "grad_slope",
        }
    }

    /// The unit in which the buffer's length counts.
    const fn unit(self) -> &'static str {
        match self {
            Self::Mask | Self::Validity => "bytes",
            Self::SavedInvStd | Self::Moments | Self::Sums | Self::Scratch | Self::Prepared => "f64 values",
            Self::Lengths => "values",
            _ => "f32 values",
        }
    }
}

/// Why a call was refused. Whenever a call returns an error, it has written nothing.
///
/// The text of an error says what was expected, what the caller gave, and how to mend it. In a
/// constant, [`Error::panic`] makes that text the compiler's error.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub enum Error {
    /// A buffer does not have the length that the layer's shape asks for.
    Length {
        /// The buffer at fault.
        buffer: Buffer,
        /// The number of values, or bytes of a mask, that the buffer must have (scratch: at least).
        expected: usize,
        /// The number of values, or bytes of a mask, that the buffer has.
        actual: usize,
    },
    /// Moments or sums do not have a whole number of values for each channel.
    LengthMultiple {
        /// The buffer at fault.
        buffer: Buffer,
        /// The number of values per channel. The length must be a multiple of it.
        fields: usize,
        /// The number of values that the buffer has.
        actual: usize,
    },
    /// The product of the dimensions does not fit a `usize`.
    ShapeOverflow {
        /// The product of the leading dimensions, which still fits.
        product: usize,
        /// The dimension with which the product overflows.
        dimension: usize,
    },
    /// `eps` is not finite, is negative, or is zero where a training call needs it above zero.
    Eps {
        /// The value that was given.
        eps: f32,
    },
    /// A call averages the running statistics with a `momentum` that is not in `[0, 1]`.
    Momentum {
        /// The value that was given.
        momentum: f64,
    },
    /// The probability to drop is not in `[0, 1]`.
    Probability {
        /// The value that was given.
        p: f64,
    },
    /// A call with batch statistics does not say which elements to drop, and `p` is above 0: its
    /// dropout is [`Dropout::Unset`](crate::Dropout::Unset).
    DropoutUnset {
        /// The layer's probability to drop.
        p: f64,
    },
    /// The call cannot take the gates that it was given: a forward call was given
    /// [`Dropout::Gates`](crate::Dropout::Gates), a call that writes no gates was given
    /// [`Dropout::InGates`](crate::Dropout::InGates), or the mask in gates has one bit for several
    /// elements.
    GatesDirection,
    /// The derivative of the activation has other values than 0 and 1, so there are no gates.
    GatesActivation,
    /// The slope of a leaky ReLU is not finite.
    Slope {
        /// The value that was given.
        slope: f32,
    },
    /// The alpha of an ELU is not finite.
    Alpha {
        /// The value that was given.
        alpha: f32,
    },
    /// The standard deviation of Gaussian noise, or the half width of uniform noise, is not in
    /// `[0, 2^64]`. Gaussian dropout with `p = 1` would have an infinite standard deviation.
    NoiseWidth {
        /// The value that was given.
        width: f32,
    },
    /// The running variance averages the unbiased variance, and a channel with one value has no
    /// unbiased variance. The call is possible with
    /// [`RunningVariance::Biased`](crate::RunningVariance::Biased), or without running statistics.
    SingleSample,
    /// The number of values in a channel is negative or not finite, or is 0 where there are
    /// elements.
    Count {
        /// The first channel with such a count; 0 for the `samples` of
        /// [`ApplyGradient`](crate::ApplyGradient).
        channel: usize,
        /// The number that was given.
        count: f64,
    },
    /// The requested backend cannot run on this CPU or is not part of this build.
    BackendUnavailable {
        /// The backend that was requested.
        backend: Backend,
    },
    /// The number of groups of a weight layer is 0, or does not divide its inputs or its outputs.
    Groups {
        /// The number of groups that was given.
        groups: usize,
    },
    /// Folding would move a shift into the bias of a weight layer that has no bias.
    MissingBias {
        /// The first channel of the batch norm that has a shift.
        channel: usize,
    },
    /// The running variance of a channel plus `eps` is not above 0: there is no standard deviation
    /// to divide by. A variance that is NaN is refused only where a batch norm is folded. In other
    /// calls it gives NaN in its own channel.
    Variance {
        /// The first channel with such a variance.
        channel: usize,
        /// The running variance of this channel.
        var: f32,
    },
    /// A value is not finite, or the value that the call would write does not fit an f32.
    NotFinite {
        /// The buffer that has the value, or would get it.
        buffer: Buffer,
        /// The index of the value in the buffer.
        index: usize,
    },
    /// A sequence of a padded batch is longer than the tensor has positions.
    SequenceLength {
        /// The first sample whose length is too large.
        sample: usize,
        /// The number of positions of a sample, the largest possible length.
        positions: usize,
        /// The length that was given.
        length: usize,
    },
    /// Padding can be dropped only by a mask with one bit per element, and the bits of this layer's
    /// masks decide about whole channels or samples.
    NotAnElementMask,
    /// The allocator has no room for a buffer of a layer that owns its memory. Only with the feature
    /// `alloc`.
    #[cfg(feature = "alloc")]
    OutOfMemory {
        /// The buffer.
        buffer: Buffer,
        /// The number of values, or bytes of a mask, that it needs.
        len: usize,
    },
    /// A layer that owns its memory has no training call to differentiate, or none that kept its
    /// input. Only with the feature `alloc`.
    #[cfg(feature = "alloc")]
    NoForward,
    /// A slice is given as prepared statistics, and [`Layer::prepare`](crate::Layer::prepare) has
    /// not written it, or has written it for another number of channels.
    NotPrepared {
        /// The number of channels of the layer.
        channels: usize,
    },
}

impl Error {
    /// Panics with the reason: in a constant, the compiler then says which number of the layer is
    /// out of its range.
    ///
    /// ```
    /// use normdrop::LeakyRelu;
    ///
    /// const LEAKY: LeakyRelu = match LeakyRelu::new(0.2) {
    ///     Ok(leaky) => leaky,
    ///     Err(error) => error.panic(),
    /// };
    /// ```
    ///
    /// For a whole layer there is [`Layer::new_const`](crate::Layer::new_const).
    ///
    /// # Panics
    /// Always. In a constant the text has no numbers, because nothing is formatted there; the
    /// compiler shows the line.
    #[track_caller]
    pub const fn panic(self) -> ! {
        panic!("{}", self.reason())
    }

    /// The reason as text, without the numbers.
    const fn reason(self) -> &'static str {
        match self {
            Self::Length { .. } => "a buffer does not have the length that the layer asks for",
            Self::LengthMultiple { .. } => "moments or sums do not have a whole number of values for each channel",
            Self::ShapeOverflow { .. } => "the product of the dimensions does not fit a usize",
            Self::Eps { .. } => "eps must be finite and at least 0, in training above 0",
            Self::Momentum { .. } => {
                "momentum, the weight of the new value in the running statistics, must be in [0, 1]"
            }
            Self::Probability { .. } => "p, the probability to drop, must be in [0, 1]",
            Self::DropoutUnset { .. } => {
                "a training call of a layer that drops elements must say which: give it what `Layer::fill_mask` returns, \
                 or `Dropout::Off`"
            }
            Self::GatesDirection => {
                "gates that were written are for backward calls, and a mask in gates that will be written, with a bit for \
                 each element, is for forward calls that write gates"
            }
            Self::GatesActivation => "only activations whose derivative is 0 or 1 have gates: Identity and Relu",
            Self::Slope { .. } => "the slope must be finite",
            Self::Alpha { .. } => "alpha must be finite",
            Self::NoiseWidth { .. } => {
                "the standard deviation or half width of noise must be in [0, 2^64], which needs a p below 1"
            }
            Self::SingleSample => {
                "training needs more than one value per channel, because the unbiased variance of one does not exist: \
                 give more, keep a biased running variance or none, or normalise with fixed statistics"
            }
            Self::Count { .. } => "a channel must have a positive and finite number of values",
            Self::BackendUnavailable { .. } => {
                "the backend cannot run on this CPU or is not part of this build: `Backend::detect` is the fastest that can"
            }
            Self::MissingBias { .. } => {
                "the batch norm has a shift, and the layer that it is folded into has no bias to take it: give it a bias \
                 of zeros"
            }
            Self::Variance { .. } => {
                "the running var plus eps must be above 0: raise eps or give the variance of the data"
            }
            Self::NotFinite { .. } => "a value is not finite, or would not be after the call",
            Self::Groups { .. } => "groups must be at least 1 and divide the inputs and the outputs",
            Self::SequenceLength { .. } => "a sequence is longer than the tensor has positions",
            Self::NotAnElementMask => {
                "padding can be dropped only by a mask with one bit per element (`Granularity::Element`): clear it in the \
                 tensors instead, with `clear_padding`"
            }
            #[cfg(feature = "alloc")]
            Self::OutOfMemory { .. } => "there is no memory for a buffer",
            #[cfg(feature = "alloc")]
            Self::NoForward => {
                "there is no training call to differentiate: `backward` follows `train` or `train_frozen`, and \
                 `backward_step` follows any training call"
            }
            Self::NotPrepared { .. } => "prepared must be what `Layer::prepare` has written for as many channels",
        }
    }
}

/// Checks the length of a buffer.
pub(crate) const fn check_len(buffer: Buffer, expected: usize, actual: usize) -> Result<(), Error> {
    if actual == expected { Ok(()) } else { Err(Error::Length { buffer, expected, actual }) }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let reason = self.reason();
        match *self {
            Self::Length { buffer, expected, actual } => {
                let (name, unit) = (buffer.name(), buffer.unit());
                let (at_least, which) = match buffer {
                    Buffer::Scratch => {
                        ("at least ", " (`Layer::scratch_len` is enough for every call without PReLU or padding)")
                    }
                    Buffer::Workspace => ("at least ", " (`Layer::masked_workspace_len`)"),
                    Buffer::Validity => ("", " (eight bits each, a bit for each position of each sample)"),
                    Buffer::Mask => ("", " (eight bits each, a bit for each value that dropout decides about)"),
                    Buffer::Slope if expected != 1 && actual != 1 => ("", " (one for each channel) or one"),
                    _ => ("", ""),
                };
                write!(f, "{name} must have {at_least}{expected} {unit}{which} but has {actual}; nothing was written")
            }
            Self::LengthMultiple { buffer, fields, actual } => {
                let (name, unit) = (buffer.name(), buffer.unit());
                write!(
                    f,
                    "{name} must have {fields} {unit} for each channel but have {actual} in all; nothing was written"
                )
            }
            Self::ShapeOverflow { product, dimension } => {
                write!(f, "{reason}: {product} times {dimension} is above {}", usize::MAX)
            }
            Self::Eps { eps } => write!(f, "{reason}, but is {eps:?}"),
            Self::Momentum { momentum } => {
                write!(f, "{reason}, but is {momentum:?} (the momentum of ONNX, Keras and flax is 1 minus this one)")
            }
            Self::Probability { p } => write!(f, "{reason}, but is {p:?}"),
            Self::DropoutUnset { p } => write!(f, "{reason}; p is {p:?}; nothing was written"),
            Self::GatesDirection | Self::GatesActivation => write!(f, "{reason}; nothing was written"),
            Self::Slope { slope: value } | Self::Alpha { alpha: value } => write!(f, "{reason} but is {value}"),
            Self::NoiseWidth { width } => write!(f, "{reason}, but is {width:?}"),
            Self::SingleSample => write!(f, "{reason}; nothing was written"),
            Self::Count { channel, count } => {
                write!(f, "{reason}, but channel {channel} has {count:?}; nothing was written")
            }
            Self::BackendUnavailable { backend } => write!(f, "{}: {reason}", backend.name()),
            Self::Groups { groups } => write!(f, "{reason}, but is {groups}; nothing was written"),
            Self::MissingBias { channel } => write!(f, "channel {channel}: {reason}; nothing was written"),
            Self::Variance { channel, var } => {
                write!(f, "{reason}, but the running var of channel {channel} is {var:?}; nothing was written")
            }
            Self::NotFinite { buffer: buffer @ (Buffer::FoldWeights | Buffer::FoldBias), index } => {
                write!(f, "{}[{index}] would not fit an f32; nothing was written", buffer.name())
            }
            Self::NotFinite { buffer: Buffer::FoldPadding, index } => {
                write!(
                    f,
                    "no value of channel {index} becomes 0 in the batch norm (its weight is 0 or nearly 0), so that \
                     zero padding behind it cannot be folded: keep the batch norm; nothing was written"
                )
            }
            Self::NotFinite { buffer, index } => {
                write!(f, "{}[{index}]: {reason}; nothing was written", buffer.name())
            }
            Self::SequenceLength { sample, positions, length } => {
                write!(
                    f,
                    "the length of sequence {sample} must be at most {positions}, the positions of a sample, \
                     but is {length}; nothing was written"
                )
            }
            Self::NotAnElementMask => write!(f, "{reason}; nothing was written"),
            #[cfg(feature = "alloc")]
            Self::OutOfMemory { buffer, len } => {
                write!(f, "{reason} of {len} {}: {}; nothing was written", buffer.unit(), buffer.name())
            }
            #[cfg(feature = "alloc")]
            Self::NoForward => write!(f, "{reason}; nothing was written"),
            Self::NotPrepared { channels } => {
                write!(f, "{reason} as the layer has, {channels}, but is not; nothing was written")
            }
        }
    }
}

impl core::error::Error for Error {}
