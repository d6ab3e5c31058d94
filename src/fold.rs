//! Batch norm with fixed statistics folded into the weights of the layer before it or after it.
//!
//! With `a = weight/sqrt(var + eps)` and `c = bias - mean*a`, evaluation is `y = a*x + c` per channel, and a weight layer
//! on either side can do that as well as its own work. No pass over the activations is left.

use crate::args::{Parameters, Running};
use crate::config::check_eps;
use crate::error::{Buffer, Error, check_len};
use crate::shape::Shape;

/// Batch norm and the weight layer that takes its place, for [`fold_into_previous`] and [`fold_into_next`].
///
/// `C` is the number of channels of the batch norm, the axis of `shape` that its values belong to:
///
/// | weight layer | memory order | batch norm after it: `fold_into_previous` | before it: `fold_into_next` |
/// |---|---|---|---|
/// | linear (PyTorch) | `[out, in]` | `Shape::new(1, out, in)` | `Shape::new(out, in, 1)` |
/// | convolution (PyTorch) | `[out, in, k]` | `Shape::new(1, out, in*k)` | `Shape::new(out, in, k)` |
/// | transposed convolution (PyTorch) | `[in, out, k]` | `Shape::new(in, out, k)` | transpose it first |
/// | dense, convolution (Keras, flax) | `[k, in, out]` | `Shape::new(k*in, out, 1)` | transpose it first |
///
/// `k` is the number of taps of the kernel, `kh*kw` in two dimensions. A grouped convolution has `in/groups` for `in`: as
/// it is for [`fold_into_previous`], and for [`fold_into_next`] one call per group, with the rows of its outputs and its
/// part of every slice.
#[derive(Debug)]
pub struct Fold<'a> {
    /// Weight and bias of the batch norm, `C` values each.
    pub parameters: Parameters<'a>,
    /// The running statistics of the batch norm, `C` values each.
    pub running: Running<'a>,
    /// The `eps` of the batch norm, finite and at least 0.
    pub eps: f32,
    /// The shape of `weights`, with the channels of the batch norm in the middle.
    pub shape: Shape,
    /// The weights of the weight layer, overwritten.
    pub weights: &'a mut [f32],
    /// The bias of the weight layer, overwritten, one value per output: `C` values for [`fold_into_previous`] and
    /// `shape.outer()` for [`fold_into_next`].
    pub bias: Option<&'a mut [f32]>,
}

/// Folds batch norm into the weight layer *before* it: `batchnorm(W*x + b)` becomes `W'*x + b'`.
///
/// Per channel (Jacob et al., *Quantization and training of neural networks*, 2018, section 3.2; PyTorch's
/// `fuse_conv_bn_weights`):
/// ```text
/// a = weight/sqrt(var + eps)        W' = W*a        b' = (b - mean)*a + bias
/// ```
/// An activation and dropout may follow; they stay. The order is linear or convolution, batch norm, activation, dropout,
/// and folding is always exact up to rounding: padding does not matter, because the bias is added everywhere.
///
/// ```
/// use normdrop::{Fold, Parameters, Running, Shape, fold_into_previous};
///
/// // Two outputs, three inputs.
/// let mut weights = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0];
/// let mut bias = [1.0, 1.0];
/// fold_into_previous(Fold {
///     parameters: Parameters { weight: Some(&[2.0, 3.0]), bias: Some(&[0.5, 0.0]) },
///     running: Running { mean: &[3.0, 1.0], var: &[15.0, 8.0] },
///     eps: 1.0,
///     shape: Shape::new(1, 2, 3)?,
///     weights: &mut weights,
///     bias: Some(&mut bias),
/// })?;
/// assert_eq!(weights, [0.5, 1.0, 1.5, 4.0, 5.0, 6.0]);
/// assert_eq!(bias, [-0.5, 0.0]);
/// # Ok::<(), normdrop::Error>(())
/// ```
///
/// # Numbers
/// Coefficients and sums are f64 and every result is rounded once, in an order that the shape fixes: the same bits on
/// every target. A result that does not fit an f32 becomes infinite, as in the layer itself; the weights are
/// overwritten, so check them or keep a copy if statistics that small (or weights that large) can occur. Weights that are
/// NaN or infinite stay so, and spoil no other output. An infinite running variance makes the channel the constant
/// `bias`, as it does in evaluation.
///
/// # What is often written and wrong
/// - `b' = b*a + bias`, without `- mean*a`, or a division by `var + eps` without the root: neither is the batch norm
///   that was trained. The bias of the weight layer is scaled as well: `b' = bias - mean*a` holds only where `b = 0`.
/// - A factor for dropout. Inverted dropout scales what it keeps by `1/(1-p)` *in training* (not by `p/(1-p)`, which
///   gives an expectation of `p*x` where `x` is wanted), so that evaluation is the identity: nothing is left to fold.
///
/// # Errors
/// - [`Error::Length`] for a buffer of the wrong length.
/// - [`Error::Eps`] if `eps` is not finite or negative.
/// - [`Error::Variance`] if a running variance plus `eps` is 0, negative or NaN. Files with a variance of -1e-9 or so exist:
///   an average that was 0 before rounding, to be set to 0. A larger negative number is no variance.
/// - [`Error::NotFinite`] if a weight, bias or mean of the batch norm is not finite.
/// - [`Error::MissingBias`] if there is no bias and a channel's `b'` would not be 0.
///
/// Nothing was written then.
pub fn fold_into_previous(call: Fold<'_>) -> Result<(), Error> {
    call.check(call.shape.channels())?;
    if call.bias.is_none() {
        call.check_shifts()?;
    }
    let Fold { parameters, running, eps, shape, weights, bias } = call;
    let affine = |channel| Affine::new(parameters, running, eps, channel);
    for (channel, bias) in bias.into_iter().flatten().enumerate() {
        *bias = rounded(affine(channel).apply(f64::from(*bias)));
    }
    if shape.inner() == 0 {
        return Ok(());
    }
    // Channel by channel, not in the order of memory: a root and a division for each row would be all of the work where rows
    // are short.
    for channel in 0..shape.channels() {
        let Affine { slope, .. } = affine(channel);
        let rows = weights.chunks_exact_mut(shape.inner());
        for weight in rows.skip(channel).step_by(shape.channels()).flatten() {
            *weight = rounded(f64::from(*weight) * slope);
        }
    }
    Ok(())
}

/// Folds batch norm into the weight layer *after* it: `W*batchnorm(x) + b` becomes `W'*x + b'`.
///
/// Per output `o`, input channel `i` and tap `t` of the kernel:
/// ```text
/// a[i] = weight[i]/sqrt(var[i] + eps)            c[i] = bias[i] - mean[i]*a[i]
/// W'[o,i,t] = W[o,i,t]*a[i]                      b'[o] = b[o] + sum(W[o,i,t]*c[i])
/// ```
/// This is the order of the independent-component layer (Chen et al., arXiv 1905.05928): activation, batch norm,
/// dropout, weight layer. Dropout is the identity in evaluation and needs no folding.
///
/// # When it is exact
/// Only where nothing but dropout stands between the two: an activation after the batch norm does not commute with it.
/// And only where every output sees every tap, that is, for convolutions *without zero padding*: the network pads the
/// output of the batch norm with 0, but the folded one pads `x`, and the constant `c` is missing from the padding. Pad
/// channel `i` with `-c[i]/a[i]` instead, which batch norm would map to 0; or keep the layer,
/// [`Layer::eval_in_place`](crate::Layer::eval_in_place) is one pass. With `c = 0` zero padding is right as it is.
///
/// ```
/// use normdrop::{Fold, Parameters, Running, Shape, fold_into_next};
///
/// // One output, two inputs.
/// let (mut weights, mut bias) = ([1.0, 2.0], [0.5]);
/// fold_into_next(Fold {
///     parameters: Parameters { weight: Some(&[2.0, 3.0]), bias: None },
///     running: Running { mean: &[3.0, 1.0], var: &[15.0, 8.0] },
///     eps: 1.0,
///     shape: Shape::new(1, 2, 1)?,
///     weights: &mut weights,
///     bias: Some(&mut bias),
/// })?;
/// assert_eq!((weights, bias), ([0.5, 2.0], [-3.0]));
/// # Ok::<(), normdrop::Error>(())
/// ```
///
/// # Numbers
/// As [`fold_into_previous`], except that a weight that is not finite reaches the bias of its output.
///
/// # Errors
/// As [`fold_into_previous`]; [`Error::MissingBias`] if there are weights but no bias and a channel's `c` is not 0.
/// Nothing was written then.
pub fn fold_into_next(call: Fold<'_>) -> Result<(), Error> {
    call.check(call.shape.outer())?;
    if call.bias.is_none() && !call.shape.is_empty() {
        call.check_shifts()?;
    }
    let Fold { parameters, running, eps, shape, weights, bias } = call;
    if shape.is_empty() {
        return Ok(());
    }
    let mut rows = weights.chunks_exact_mut(shape.inner());
    let mut biases = bias.into_iter().flatten();
    for _ in 0..shape.outer() {
        let mut shift = 0.0;
        for (channel, row) in (0..shape.channels()).zip(rows.by_ref()) {
            let affine = Affine::new(parameters, running, eps, channel);
            let mut sum = 0.0;
            for weight in row {
                sum += f64::from(*weight);
                *weight = rounded(f64::from(*weight) * affine.slope);
            }
            shift += sum * affine.apply(0.0);
        }
        if let Some(bias) = biases.next() {
            *bias = rounded(f64::from(*bias) + shift);
        }
    }
    Ok(())
}

impl Fold<'_> {
    /// Checks everything but whether a bias is needed.
    fn check(&self, outputs: usize) -> Result<(), Error> {
        let channels = self.shape.channels();
        self.parameters.check(channels)?;
        self.running.check(channels)?;
        check_len(Buffer::FoldWeights, self.shape.len(), self.weights.len())?;
        if let Some(bias) = &self.bias {
            check_len(Buffer::FoldBias, outputs, bias.len())?;
        }
        check_eps(self.eps)?;
        (0..channels).try_for_each(|channel| self.check_channel(channel))
    }

    /// Checks the batch norm of one channel: folded in, what is not finite would be written over weights, for good.
    fn check_channel(&self, channel: usize) -> Result<(), Error> {
        let of_channel = |values: &[f32]| values.get(channel).copied().unwrap_or_default();
        let Self { parameters, running, eps, .. } = *self;
        for (buffer, values) in [
            (Buffer::Weight, parameters.weight),
            (Buffer::Bias, parameters.bias),
            (Buffer::RunningMean, Some(running.mean)),
        ] {
            if !values.is_none_or(|values| of_channel(values).is_finite()) {
                return Err(Error::NotFinite { buffer, index: channel });
            }
        }
        let var = of_channel(running.var);
        if f64::from(var) + f64::from(eps) > 0.0 { Ok(()) } else { Err(Error::Variance { channel, var }) }
    }

    /// Checks that no channel needs a bias.
    fn check_shifts(&self) -> Result<(), Error> {
        let shift = |channel| Affine::new(self.parameters, self.running, self.eps, channel).apply(0.0);
        match (0..self.shape.channels()).find(|&channel| shift(channel) != 0.0) {
            Some(channel) => Err(Error::MissingBias { channel }),
            None => Ok(()),
        }
    }
}

/// What batch norm does to one channel: `(x - mean)*slope + bias`.
struct Affine {
    slope: f64,
    mean: f64,
    bias: f64,
}

impl Affine {
    fn new(parameters: Parameters<'_>, running: Running<'_>, eps: f32, channel: usize) -> Self {
        let of_channel = |values: &[f32]| f64::from(values.get(channel).copied().unwrap_or_default());
        let parameter = |values: Option<&[f32]>, missing| values.map_or(missing, of_channel);
        let deviation = libm::sqrt(of_channel(running.var) + f64::from(eps));
        Self {
            slope: parameter(parameters.weight, 1.0) / deviation,
            mean: of_channel(running.mean),
            bias: parameter(parameters.bias, 0.0),
        }
    }

    fn apply(&self, x: f64) -> f64 {
        (x - self.mean) * self.slope + self.bias
    }
}

#[expect(clippy::cast_possible_truncation, reason = "rounded once, to nearest")]
fn rounded(value: f64) -> f32 {
    value as f32
}
