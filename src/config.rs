//! The constants of a layer: `eps`, `momentum`, the probability to drop, and two switches.

use crate::error::Error;

/// The variance that the running variance averages. Batches are always normalised with the biased
/// variance.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum RunningVariance {
    /// `sum((x-mean)^2)/(samples-1)`, an estimate of the variance of the distribution that the
    /// batch was drawn from: PyTorch, TensorFlow 2 with its fused kernel, candle, chainer,
    /// `MindSpore`, MLX from 0.32.1, tinygrad.
    #[default]
    Unbiased,
    /// `sum((x-mean)^2)/samples`, the variance by which the batch itself is normalised: Keras 3,
    /// flax, haiku, equinox, `MXNet`, ONNX, oneDNN, Paddle.
    Biased,
}

/// The constants of a layer, under PyTorch's names and with PyTorch's defaults.
///
/// ```
/// use normdrop::Config;
/// const CONFIG: Config = Config { p: 0.1, ..Config::DEFAULT };
/// assert_eq!((CONFIG.eps, CONFIG.momentum, CONFIG.p), (1e-5, 0.1, 0.1));
/// ```
///
/// The same layer in other libraries, with the library's defaults in brackets:
///
/// | | its `momentum` | `momentum` here | `running_var` here | `eps` here |
/// |---|---|---|---|---|
/// | PyTorch | weight of the new value (0.1); `None` is [`Average::Cumulative`](crate::Average::Cumulative) | the same | `Unbiased` | `eps` (1e-5) |
/// | Keras 3 | decay (0.99) | 1 − its (0.01) | `Biased` | `epsilon` (1e-3) |
/// | `tf.keras` of TensorFlow 2, fused kernel (images) | decay (0.99) | 1 − its (0.01) | `Unbiased` | `epsilon` (1e-3) |
/// | flax | decay (0.99) | 1 − its (0.01) | `Biased` | `epsilon` (1e-5) |
/// | ONNX BatchNormalization-15 | decay (0.9) | 1 − its (0.1) | `Biased` | `epsilon` (1e-5) |
/// | oneDNN | none: it returns the biased batch statistics | the caller's | the caller's; its documentation averages the biased ones | `epsilon` |
///
/// `docs/conventions.md` in the crate's sources has more libraries. All of these frameworks normalise
/// a batch with the biased variance. tiny-dnn alone uses the unbiased one, and no setting here does.
///
/// flax computes the variance as `E[x^2] - E[x]^2` unless `use_fast_variance=False`. Where the mean
/// is many standard deviations from 0, its running variance is wrong, down to 0. Do not take such a
/// running variance over as it is. Neither take over one of Keras 3 on PyTorch, haiku, nnabla or dlib,
/// which may be negative there, nor one of `tf.keras` with images, MLX, `MXNet`, `MegEngine` or Paddle,
/// which is too large there.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Config {
    /// Added to the variance under the square root: `inv_std = 1/sqrt(var + eps)`.
    ///
    /// Finite and at least 0. A call with batch statistics (training) needs an `eps` above 0.
    pub eps: f32,
    /// The weight of the new value: `running = (1 - momentum)*running + momentum*batch`, in
    /// `[0, 1]`.
    ///
    /// In ONNX, Keras and flax `momentum` is the *decay*, the weight of the old value: 1 minus this
    /// `momentum`. A momentum of 0 leaves the running statistics untouched and 1 replaces them,
    /// even where the term with the weight 0 is NaN.
    ///
    /// [`Layer::train`](crate::Layer::train) and [`Layer::finish`](crate::Layer::finish) use the
    /// momentum, and check its range, if they have running statistics with
    /// [`Average::Exponential`](crate::Average::Exponential). A layer that is only evaluated can
    /// have any momentum, as in PyTorch.
    pub momentum: f64,
    /// The variance that goes into the running variance.
    pub running_var: RunningVariance,
    /// The probability to *drop* an element, in `[0, 1]`. The keep probability is `1 - p`.
    pub p: f64,
    /// The elements that one bit of the dropout mask decides about.
    pub granularity: Granularity,
}

/// The elements that are dropped together, by one bit of the mask: an element, a channel of a
/// sample, or a sample.
///
/// A shape of `n` samples has `outer = n*positions`. The constructor of a channels-last shape knows
/// which factor of `outer` is the samples and which the positions.
/// [`Shape::new`](crate::Shape::new) takes every outer index for a sample.
///
/// ```
/// use normdrop::{Config, Granularity, Identity, Layer, Shape};
/// let shape = Shape::nchw(8, 32, 28, 28)?;
/// let mask_len = |granularity| {
///     Layer::new(shape, Identity, Config { p: 0.1, granularity, ..Config::DEFAULT }).map(|layer| layer.mask_len())
/// };
/// assert_eq!(mask_len(Granularity::Element)?, 8 * 32 * 28 * 28 / 8);
/// assert_eq!(mask_len(Granularity::Channel)?, 8 * 32 / 8);
/// assert_eq!(mask_len(Granularity::Sample)?, 8 / 8);
/// # Ok::<(), normdrop::Error>(())
/// ```
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum Granularity {
    /// Each element: `outer*channels*inner` bits in memory order. PyTorch's `Dropout`.
    #[default]
    Element,
    /// Each channel of each sample, with all its positions: `n*channels` bits, of which bit
    /// `sample*channels + channel` decides. Spatial dropout (Tompson et al., *Efficient object
    /// localization using convolutional networks*, 2015); PyTorch's `Dropout1d`, `Dropout2d` and
    /// `Dropout3d`.
    Channel,
    /// Each sample: `n` bits. `DropPath`, stochastic depth (Huang et al., *Deep networks with
    /// stochastic depth*, 2016).
    Sample,
}

impl Config {
    /// `eps = 1e-5`, `momentum = 0.1`, the unbiased running variance, `p = 0`, a mask bit per
    /// element.
    pub const DEFAULT: Self = Self {
        eps: 1e-5,
        momentum: 0.1,
        running_var: RunningVariance::Unbiased,
        p: 0.0,
        granularity: Granularity::Element,
    };

    /// Checks the momentum, for a call that uses it.
    pub(crate) const fn check_momentum(&self) -> Result<(), Error> {
        let momentum = self.momentum;
        if momentum >= 0.0 && momentum <= 1.0 { Ok(()) } else { Err(Error::Momentum { momentum }) }
    }
}

impl Default for Config {
    fn default() -> Self {
        Self::DEFAULT
    }
}

/// Checks that an `eps` is finite and not negative.
pub(crate) const fn check_eps(eps: f32) -> Result<(), Error> {
    // By its bits, whose order is that of positive numbers: a comparison of floats would take a
    // negative subnormal number for 0 if the caller's floating-point environment says so.
    const MAX: u32 = f32::MAX.to_bits();
    const NEGATIVE_ZERO: u32 = (-0.0_f32).to_bits();
    match eps.to_bits() {
        0..=MAX | NEGATIVE_ZERO => Ok(()),
        _ => Err(Error::Eps { eps }),
    }
}
