//! Batch norm with fixed statistics folded into the weights of the layer before it or after it.
//!
//! With `a = weight/sqrt(var + eps)` and `c = bias - mean*a`, evaluation is `y = a*x + c` per
//! channel. The weight layer before or after it can do that with other weights. No pass over the
//! activations is left.

use crate::args::{Parameters, Running};
use crate::config::check_eps;
use crate::error::{Buffer, Error, check_len};
use crate::shape::Shape;
use crate::simd::{in_default, rounded};

/// The dimensions of a weight layer's weights, and their order in memory.
///
/// Copy the row of the weight layer. The call cannot notice a wrong row whose weights have the same
/// length. `k` is the number of taps of the kernel: `kh*kw` in two dimensions.
///
/// | weight layer | dimensions in memory | `order` | `taps` | `groups` |
/// |---|---|---|---|---|
/// | linear: PyTorch, TFLite, ONNX `Gemm` with `transB=1` | `[out, in]` | `OutInTaps` | 1 | 1 |
/// | dense: Keras, flax, ONNX `MatMul` and `Gemm` | `[in, out]` | `TapsInOut` | 1 | 1 |
/// | convolution: PyTorch, ONNX | `[out, in/groups, k]` | `OutInTaps` | k | groups |
/// | convolution: Keras, flax | `[k, in/groups, out]` | `TapsInOut` | k | groups |
/// | convolution: TFLite, PyTorch in channels-last memory | `[out, k, in/groups]` | `OutTapsIn` | k | groups |
/// | depthwise convolution: PyTorch, ONNX | `[in*m, 1, k]` | `OutInTaps` | k | in |
/// | depthwise convolution: Keras | `[k, in, m]` | `TapsInOut` | k | in |
/// | depthwise convolution: TFLite, flax | `[k, 1, in*m]`, `[1, k, in*m]` | `TapsInOut` | k | in |
/// | transposed convolution: PyTorch, ONNX | `[in, out/groups, k]` | `InOutTaps` | k | groups |
/// | transposed convolution: Keras, flax with `transpose_kernel` | `[k, out, in]` | `TapsOutIn` | k | 1 |
/// | transposed convolution: flax | `[k, in, out]` | `TapsInOut` | k | 1 |
/// | transposed convolution: TFLite | `[out, k, in]` | `OutTapsIn` | k | 1 |
/// | NCHW, flatten, linear: PyTorch | `[out, c, h*w]` | `OutInTaps` | h*w | 1 |
/// | NHWC, flatten, linear: PyTorch, TFLite | `[out, h*w, c]` | `OutTapsIn` | h*w | 1 |
/// | NHWC, flatten, dense: Keras, flax | `[h*w, c, out]` | `TapsInOut` | h*w | 1 |
/// | NCHW, flatten, dense: ONNX | `[c, h*w, out]` | `InTapsOut` | h*w | 1 |
///
/// A depthwise convolution of `in` channels with the multiplier `m` has `in*m` outputs. After a
/// flattening, the inputs are the channels of the image and the taps are its pixels. Only
/// [`fold_into_next`] needs to know of the flattening.
///
/// A *separable* convolution (Keras) is two layers. Fold batch norm after it into the pointwise
/// weights and the bias. Batch norm before it takes two calls of [`fold_into_next`]. The first call
/// folds it into the depthwise weights, with a new bias of zeros. The second call folds that bias,
/// as [`Parameters::bias`] with mean 0, variance 1 and `eps` 0, into the pointwise weights and the
/// layer's bias.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct WeightShape {
    /// The order of the dimensions in memory.
    pub order: WeightOrder,
    /// The number of outputs of all groups together: `out_channels` or `out_features` in PyTorch.
    pub outputs: usize,
    /// The number of inputs of all groups together: `in_channels` or `in_features` in PyTorch, or
    /// the channels of a flattened image.
    pub inputs: usize,
    /// The number of taps of the kernel, 1 for a linear layer.
    pub taps: usize,
    /// The number of groups, each with its own inputs and outputs; 1 for a layer without groups.
    pub groups: usize,
}

/// The order in memory of the dimensions of weights, the innermost last.
///
/// In the dimension that is not divided by `groups`, the groups follow each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum WeightOrder {
    /// `[outputs, inputs/groups, taps]`
    OutInTaps,
    /// `[outputs, taps, inputs/groups]`
    OutTapsIn,
    /// `[inputs, outputs/groups, taps]`
    InOutTaps,
    /// `[inputs, taps, outputs/groups]`
    InTapsOut,
    /// `[taps, inputs/groups, outputs]`
    TapsInOut,
    /// `[taps, outputs/groups, inputs]`
    TapsOutIn,
}

/// A batch norm and the weight layer into which it is folded, for [`fold_into_previous`] and
/// [`fold_into_next`].
///
/// `C` is the number of channels of the batch norm: `shape.outputs` for [`fold_into_previous`] and
/// `shape.inputs` for [`fold_into_next`].
#[derive(Debug)]
pub struct Fold<'a> {
    /// Weight and bias of the batch norm, `C` values each.
    pub parameters: Parameters<'a>,
    /// The running statistics of the batch norm, `C` values each. With a `mean_tail`, the mean is
    /// `mean + mean_tail`.
    pub running: Running<'a>,
    /// The `eps` of the batch norm, finite and at least 0.
    pub eps: f32,
    /// The shape of `weights`.
    pub shape: WeightShape,
    /// The weights of the weight layer, `outputs * inputs/groups * taps` values, overwritten.
    pub weights: &'a mut [f32],
    /// The bias of the weight layer, `shape.outputs` values, overwritten.
    pub bias: Option<&'a mut [f32]>,
}

/// Folds batch norm into the weight layer *before* it: `batchnorm(W*x + b)` becomes `W'*x + b'`.
///
/// Per output of the weight layer, which is a channel of the batch norm (Jacob et al.,
/// *Quantization and training of neural networks*, 2018, section 3.2; PyTorch's
/// `fuse_conv_bn_weights`):
/// ```text
/// a = weight/sqrt(var + eps)        W' = W*a        b' = (b - mean)*a + bias
/// ```
/// # When it is exact
/// For every kind of layer in the table of [`WeightShape`], whatever its padding, stride and
/// dilation, up to rounding: a weight layer adds its bias at every position. The batch norm must
/// follow the weight layer directly. The folded network computes something else if dropout, an
/// activation or pooling stands between the two, or if another layer uses the output of the weight
/// layer. An activation and dropout *after* the batch norm stay as they are.
///
/// A weight layer without a bias needs one after the folding: give zeros. Without a bias, only a batch norm
/// whose `b'` is 0 in every channel can be folded.
///
/// ```
/// use normdrop::{Fold, Parameters, Running, WeightOrder, WeightShape, fold_into_previous};
///
/// // Two outputs, three inputs.
/// let mut weights = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0];
/// let mut bias = [1.0, 1.0];
/// fold_into_previous(Fold {
///     parameters: Parameters { weight: Some(&[2.0, 3.0]), bias: Some(&[0.5, 0.0]) },
///     running: Running::new(&[3.0, 1.0], &[15.0, 8.0]),
///     eps: 1.0,
///     shape: WeightShape { order: WeightOrder::OutInTaps, outputs: 2, inputs: 3, taps: 1, groups: 1 },
///     weights: &mut weights,
///     bias: Some(&mut bias),
/// })?;
/// assert_eq!(weights, [0.5, 1.0, 1.5, 4.0, 5.0, 6.0]);
/// assert_eq!(bias, [-0.5, 0.0]);
/// # Ok::<(), normdrop::Error>(())
/// ```
///
/// # Numbers
/// Coefficients and sums are f64 and every result is rounded once, in an order that the shape
/// fixes: the same bits on every target. Weights and biases that are NaN or infinite stay so, and
/// change no other output. Finite weights and biases stay finite, or the call is refused. An
/// infinite running variance makes the channel the constant `bias`, as it does in evaluation.
///
/// A channel that training has switched off, for example with a `weight` of 1e-40, gets *subnormal*
/// weights, below 2^-126. Many CPUs multiply by subnormal numbers five to fifty times slower. The
/// call writes these weights as they are, because they matter for data of 1e38. If the data are
/// below 1e30, set them to zero:
/// ```
/// # let mut weights = [1e-40_f32, 1.0];
/// for weight in weights.iter_mut().filter(|weight| weight.is_subnormal()) {
///     *weight = 0.0;
/// }
/// # assert_eq!(weights, [0.0, 1.0]);
/// ```
/// Each product of such a weight and a value of the layer's input changes by less than 2^-126 times
/// that value.
///
/// # What is often written and wrong
/// - `b' = b*a + bias`, without `- mean*a`, or a division by `var + eps` without the square root.
///   Neither is the batch norm that was trained. The bias of the weight layer is scaled as well:
///   `b' = bias - mean*a` holds only where `b = 0`.
/// - A factor for dropout. Inverted dropout multiplies kept elements by `1/(1-p)` *in training*, so
///   that dropout is the identity in evaluation and needs no folding. (The factor `p/(1-p)` would
///   give the expectation `p*x` instead of `x`.)
/// - The first dimension of the weights taken for the outputs. In a transposed convolution it is
///   the inputs, and if there are as many inputs as outputs, no check fails.
///
/// # Errors
/// - [`Error::Groups`] if `groups` is 0 or does not divide inputs and outputs,
///   [`Error::ShapeOverflow`] if the number of weights does not fit a `usize`.
/// - [`Error::Length`] for a buffer of the wrong length.
/// - [`Error::Eps`] if `eps` is not finite or negative.
/// - [`Error::Variance`] if a running variance plus `eps` is 0, negative or NaN. There are files
///   with a variance of about -1e-9: an average that was 0 before rounding. Set it to 0. A negative
///   number of a larger magnitude is no variance.
/// - [`Error::NotFinite`] if a weight, bias or mean of the batch norm is not finite, or a finite
///   weight or bias of the weight layer would not stay finite.
/// - [`Error::MissingBias`] if there is no bias and a channel's `b'` would not be 0.
///
/// Nothing was written then.
pub fn fold_into_previous(mut call: Fold<'_>) -> Result<(), Error> {
    in_default(|| call.fold_previous())
}

/// Folds batch norm into the weight layer *after* it: `W*batchnorm(x) + b` becomes `W'*x + b'`.
///
/// Per output `o`, input channel `i` of its group and tap `t` of the kernel:
/// ```text
/// a[i] = weight[i]/sqrt(var[i] + eps)            c[i] = bias[i] - mean[i]*a[i]
/// W'[o,i,t] = W[o,i,t]*a[i]                      b'[o] = b[o] + sum(W[o,i,t]*c[i])
/// ```
/// This is the order of the independent-component layer (Chen et al., arXiv 1905.05928):
/// activation, batch norm, dropout, weight layer. Dropout is the identity in evaluation and needs
/// no folding.
///
/// # What may stand between
/// An activation does not commute with the weights, and neither does a sum with another branch. Of
/// the other layers:
///
/// | between batch norm and weight layer | may it stay |
/// |---|---|
/// | nothing, dropout, flattening | yes |
/// | average pooling that leaves the padding out of its averages (global; Keras; `count_include_pad=False`) | yes |
/// | interpolation and upsampling, cropping, padding by reflection, replication or around the edge | yes |
/// | max-pooling, whose padding is -infinity in every framework | as min-pooling in the channels with a negative `weight`: [`first_min_pooled`] finds the first one |
/// | zero padding, also that of the weight layer or of an average pooling that counts it | with the values of [`fold_padding`] in the place of zeros |
///
/// Average pooling, interpolation, cropping and padding take the constant `c` through unchanged,
/// because their coefficients add up to 1. A negative slope turns the largest value into the
/// smallest one: `max(a*x + c) = a*min(x) + c` for `a < 0`. Min-pooling is the negative of
/// max-pooling of the negative.
///
/// # When it is exact
/// Unless `c` is 0 in every channel, only if every output of the weight layer uses every tap:
/// - Linear layers, also after a flattening, and convolutions *without zero padding*, of any stride
///   and dilation.
/// - *Zero padding* (PyTorch's `padding`, `"same"` of Keras): the network pads the output of the
///   batch norm with 0, but the folded network pads `x`, and the constant `c` is missing from the
///   padding. Pad with the values of [`fold_padding`] instead, which batch norm would map to 0.
/// - *Transposed convolutions* only with one tap, or with stride 1 and
///   `padding = dilation*(kernel - 1)` in each direction, which cuts the edges off. In all others
///   the taps that reach an output depend on its position, and so would the bias.
///
/// ```
/// use normdrop::{Fold, Parameters, Running, WeightOrder, WeightShape, fold_into_next};
///
/// // One output, two inputs.
/// let (mut weights, mut bias) = ([1.0, 2.0], [0.5]);
/// fold_into_next(Fold {
///     parameters: Parameters { weight: Some(&[2.0, 3.0]), bias: None },
///     running: Running::new(&[3.0, 1.0], &[15.0, 8.0]),
///     eps: 1.0,
///     shape: WeightShape { order: WeightOrder::OutInTaps, outputs: 1, inputs: 2, taps: 1, groups: 1 },
///     weights: &mut weights,
///     bias: Some(&mut bias),
/// })?;
/// assert_eq!((weights, bias), ([0.5, 2.0], [-3.0]));
/// # Ok::<(), normdrop::Error>(())
/// ```
///
/// # Numbers
/// As [`fold_into_previous`], except that a weight that is not finite also makes the bias of its
/// output not finite.
///
/// # Errors
/// As [`fold_into_previous`]; [`Error::MissingBias`] if there are weights but no bias and a
/// channel's `c` is not 0. Nothing was written then.
pub fn fold_into_next(mut call: Fold<'_>) -> Result<(), Error> {
    in_default(|| call.fold_next())
}

/// A batch norm in front of zero padding, for [`fold_padding`].
#[derive(Debug)]
pub struct FoldPadding<'a> {
    /// Weight and bias of the batch norm, `C` values each.
    pub parameters: Parameters<'a>,
    /// The running statistics of the batch norm, `C` values each.
    pub running: Running<'a>,
    /// The `eps` of the batch norm, finite and at least 0.
    pub eps: f32,
    /// The value with which each channel is to be padded, `C` values, overwritten.
    pub padding: &'a mut [f32],
}

/// Computes the values that take the place of zero padding between a batch norm and the weight
/// layer that [`fold_into_next`] folds it into.
///
/// Per channel, with `a` and `c` as in [`fold_into_next`]:
/// ```text
/// padding = -c/a = mean - bias/a        0 where c = 0
/// ```
/// Batch norm maps this padding to 0, and so the folded weights make of it what the unfolded weights
/// make of zeros. The result is rounded once, which changes a padded output by at most `2^-24*|c|`
/// times the weights that it meets.
///
/// A channel with a `weight` of 0 and a `c` is a constant inside the image and 0 in the padding.
/// There is no value for it, and the call is refused. Keep the batch norm then:
/// [`Layer::eval_in_place`](crate::Layer::eval_in_place) is one pass.
///
/// ```
/// use normdrop::{FoldPadding, Parameters, Running, fold_padding};
///
/// let mut padding = [0.0; 2];
/// fold_padding(FoldPadding {
///     parameters: Parameters { weight: Some(&[2.0, 3.0]), bias: Some(&[0.5, 0.0]) },
///     running: Running::new(&[3.0, 1.0], &[15.0, 8.0]),
///     eps: 1.0,
///     padding: &mut padding,
/// })?;
/// // (2 - 3)*2/4 + 0.5 = 0 and (1 - 1)*3/3 = 0
/// assert_eq!(padding, [2.0, 1.0]);
/// # Ok::<(), normdrop::Error>(())
/// ```
///
/// # Errors
/// - [`Error::Length`], [`Error::Eps`], [`Error::Variance`] as [`fold_into_next`], and
///   [`Error::NotFinite`] if a weight, bias or mean is not finite.
/// - [`Error::NotFinite`] with [`Buffer::FoldPadding`] for a channel without such a value: its
///   slope is 0, or so small that `-c/a` does not fit an f32. Nothing was written then.
pub fn fold_padding(call: FoldPadding<'_>) -> Result<(), Error> {
    in_default(|| write_padding(call))
}

/// [`fold_padding`], in the default floating-point environment.
fn write_padding(call: FoldPadding<'_>) -> Result<(), Error> {
    let FoldPadding { parameters, running, eps, padding } = call;
    let channels = padding.len();
    parameters.check(channels)?;
    running.check(channels)?;
    check_eps(eps)?;
    let value = |channel| {
        check_channel(parameters, running, eps, channel)?;
        let affine = Affine::new(parameters, running, eps, channel);
        let value = if affine.apply(0.0) == 0.0 { 0.0 } else { rounded(affine.mean - affine.bias / affine.slope) };
        if value.is_finite() {
            Ok(value)
        } else {
            Err(Error::NotFinite { buffer: Buffer::FoldPadding, index: channel })
        }
    };
    (0..channels).try_for_each(|channel| value(channel).map(drop))?;
    padding.iter_mut().enumerate().try_for_each(|(channel, padding)| {
        *padding = value(channel)?;
        Ok(())
    })
}

/// The first channel whose max-pooling between a batch norm and the weight layer after it has to
/// become min-pooling, if the batch norm is folded by [`fold_into_next`].
///
/// It is the first channel with a `weight` below 0, which is the sign of the slope. In the channels
/// with a `weight` of at least 0, and if this function returns `None`, max-pooling stays.
///
/// ```
/// use normdrop::{Parameters, first_min_pooled};
/// let of = |weight| first_min_pooled(Parameters { weight: Some(weight), bias: None });
/// assert_eq!(of(&[1.0, 0.0, 0.5]), None);
/// assert_eq!(of(&[1.0, -0.25, -0.5]), Some(1));
/// // Min-pooling of two values by a max-pooling: batch norm with the slope -0.25 comes before it.
/// let (x, y) = (2.0_f32, 3.0_f32);
/// let min = -(-x).max(-y);
/// assert_eq!((x * -0.25).max(y * -0.25), min * -0.25);
/// ```
#[must_use]
pub fn first_min_pooled(parameters: Parameters<'_>) -> Option<usize> {
    // Where subnormal numbers count as 0, -1e-40 would not be below 0.
    in_default(|| parameters.weight?.iter().position(|&weight| weight < 0.0))
}

impl Fold<'_> {
    /// [`fold_into_previous`].
    fn fold_previous(&mut self) -> Result<(), Error> {
        let walk = self.check(self.shape.outputs)?;
        if self.bias.is_none() {
            self.check_shifts()?;
        }
        let largest = self.largest();
        if !largest.fit(largest.bias * largest.slope + largest.shift) {
            self.previous(&walk, Pass::Check)?;
        }
        self.previous(&walk, Pass::Write)
    }

    /// [`fold_into_next`].
    fn fold_next(&mut self) -> Result<(), Error> {
        let walk = self.check(self.shape.inputs)?;
        if self.weights.is_empty() {
            return Ok(());
        }
        if self.bias.is_none() {
            self.check_shifts()?;
        }
        let (largest, terms) = (self.largest(), walk.inputs * walk.taps);
        if !largest.fit(largest.bias + terms as f64 * largest.weight * largest.shift) {
            self.next(&walk, Pass::Check)?;
        }
        self.next(&walk, Pass::Write)
    }

    /// Checks all arguments for a batch norm of `channels` channels. Two checks are left to the
    /// callers: whether a bias is needed, and whether the results fit an f32.
    fn check(&self, channels: usize) -> Result<Walk, Error> {
        let walk = self.shape.walk()?;
        self.parameters.check(channels)?;
        self.running.check(channels)?;
        check_len(Buffer::FoldWeights, walk.len, self.weights.len())?;
        if let Some(bias) = &self.bias {
            check_len(Buffer::FoldBias, self.shape.outputs, bias.len())?;
        }
        check_eps(self.eps)?;
        (0..channels).try_for_each(|channel| check_channel(self.parameters, self.running, self.eps, channel))?;
        Ok(walk)
    }

    /// Checks that no channel needs a bias.
    fn check_shifts(&self) -> Result<(), Error> {
        let shift = |channel| self.affine(channel).apply(0.0);
        match (0..self.running.mean.len()).find(|&channel| shift(channel) != 0.0) {
            Some(channel) => Err(Error::MissingBias { channel }),
            None => Ok(()),
        }
    }

    fn affine(&self, channel: usize) -> Affine {
        Affine::new(self.parameters, self.running, self.eps, channel)
    }

    /// The largest magnitudes from which results are computed.
    fn largest(&self) -> Largest {
        let of = |values: &[f32]| {
            let finite = values.iter().map(|value| value.abs()).filter(|value| value.is_finite());
            f64::from(finite.fold(0.0, f32::max))
        };
        let (weight, bias) = (of(self.weights), self.bias.as_deref().map_or(0.0, of));
        let (mut slope, mut shift) = (0.0, 0.0);
        for affine in (0..self.running.mean.len()).map(|channel| self.affine(channel)) {
            slope = affine.slope.abs().max(slope);
            shift = affine.apply(0.0).abs().max(shift);
        }
        Largest { weight, bias, slope, shift }
    }

    /// [`fold_into_previous`] with checked arguments.
    fn previous(&mut self, walk: &Walk, pass: Pass) -> Result<(), Error> {
        for output in 0..self.shape.outputs {
            let affine = self.affine(output);
            if let Some(bias) = self.bias.as_deref_mut() {
                pass.put(Buffer::FoldBias, bias, output, |bias| affine.apply(bias))?;
            }
            let (_, first) = walk.group_and_first(output);
            for input in 0..walk.inputs {
                for tap in 0..walk.taps {
                    let index = walk.index(first, input, tap);
                    pass.put(Buffer::FoldWeights, self.weights, index, |weight| weight * affine.slope)?;
                }
            }
        }
        Ok(())
    }

    /// [`fold_into_next`] with checked arguments and at least one weight.
    fn next(&mut self, walk: &Walk, pass: Pass) -> Result<(), Error> {
        for output in 0..self.shape.outputs {
            let (group, first) = walk.group_and_first(output);
            let mut shift = 0.0;
            for input in 0..walk.inputs {
                let affine = self.affine(group * walk.inputs + input);
                let mut sum = 0.0;
                for tap in 0..walk.taps {
                    pass.put(Buffer::FoldWeights, self.weights, walk.index(first, input, tap), |weight| {
                        sum += weight;
                        weight * affine.slope
                    })?;
                }
                shift += sum * affine.apply(0.0);
            }
            if let Some(bias) = self.bias.as_deref_mut() {
                pass.put(Buffer::FoldBias, bias, output, |bias| bias + shift)?;
            }
        }
        Ok(())
    }
}

/// Checks the batch norm of one channel. Its NaN and infinities would overwrite weights, and nobody
/// could undo that.
fn check_channel(parameters: Parameters<'_>, running: Running<'_>, eps: f32, channel: usize) -> Result<(), Error> {
    let of_channel = |values: &[f32]| values.get(channel).copied().unwrap_or_default();
    for (buffer, values) in [
        (Buffer::Weight, parameters.weight),
        (Buffer::Bias, parameters.bias),
        (Buffer::RunningMean, Some(running.mean)),
        (Buffer::RunningMeanTail, running.mean_tail),
    ] {
        if !values.is_none_or(|values| of_channel(values).is_finite()) {
            return Err(Error::NotFinite { buffer, index: channel });
        }
    }
    let var = of_channel(running.var);
    if f64::from(var) + f64::from(eps) > 0.0 { Ok(()) } else { Err(Error::Variance { channel, var }) }
}

/// The largest magnitudes of finite weights and biases of the weight layer, and of the slopes and
/// shifts of the channels.
struct Largest {
    weight: f64,
    bias: f64,
    slope: f64,
    shift: f64,
}

impl Largest {
    /// Whether every result certainly fits an f32 if no result is a bias larger than `bias`. Then
    /// the checking pass over all weights, half of the time of a call, is not needed.
    fn fit(&self, bias: f64) -> bool {
        self.weight * self.slope < LARGE && bias < LARGE
    }
}

/// Less than the largest f32 by more than the roundings of f64 can add.
const LARGE: f64 = 0.99 * f32::MAX as f64;

/// The two passes over the weights: `Check` sees whether every result fits an f32, and `Write`
/// writes the results. With `Check` first, a call that is refused has written nothing.
#[derive(Clone, Copy)]
enum Pass {
    Check,
    Write,
}

impl Pass {
    /// `Write` replaces `values[index]` by `of(values[index])`. `Check` sees whether that would round a
    /// finite value to infinity.
    fn put(self, buffer: Buffer, values: &mut [f32], index: usize, of: impl FnOnce(f64) -> f64) -> Result<(), Error> {
        let Some(value) = values.get_mut(index) else { return Ok(()) };
        let result = of(f64::from(*value));
        let single = rounded(result);
        match self {
            Self::Write => *value = single,
            Self::Check if result.is_finite() && single.is_infinite() => {
                return Err(Error::NotFinite { buffer, index });
            }
            Self::Check => {}
        }
        Ok(())
    }
}

impl WeightShape {
    /// Checks the shape and computes the strides of the weights in memory.
    fn walk(self) -> Result<Walk, Error> {
        let Self { order, outputs, inputs, taps, groups } = self;
        let of_group = |all: usize| match all.checked_rem(groups) {
            Some(0) => all.checked_div(groups).ok_or(Error::Groups { groups }),
            _ => Err(Error::Groups { groups }),
        };
        let (o, i) = (of_group(outputs)?, of_group(inputs)?);
        let len = Shape::new(outputs, i, taps)?.len();
        if len == 0 {
            // A stride may not fit a usize if another dimension is 0.
            return Ok(Walk { len, outputs: 0, inputs: 0, taps: 0, group: 0, output: 0, input: 0, tap: 0 });
        }
        let (g, k) = (groups, taps);
        let (group, output, input, tap) = match order {
            WeightOrder::OutInTaps => (o * i * k, i * k, k, 1),
            WeightOrder::OutTapsIn => (o * k * i, k * i, 1, i),
            WeightOrder::InOutTaps => (i * o * k, k, o * k, 1),
            WeightOrder::InTapsOut => (i * k * o, 1, k * o, o),
            WeightOrder::TapsInOut => (o, 1, g * o, i * g * o),
            WeightOrder::TapsOutIn => (i, g * i, 1, o * g * i),
        };
        Ok(Walk { len, outputs: o, inputs: i, taps, group, output, input, tap })
    }
}

/// The dimensions of the weights of one group and the strides that give the index of each weight.
struct Walk {
    /// The number of all weights.
    len: usize,
    /// The number of outputs of one group, or 0 if there are no weights. `inputs` and `taps`
    /// likewise.
    outputs: usize,
    inputs: usize,
    taps: usize,
    /// The stride from group to group. `output`, `input` and `tap` are the strides within a group.
    group: usize,
    output: usize,
    input: usize,
    tap: usize,
}

impl Walk {
    /// The group of `output`, and the index of its first weight.
    fn group_and_first(&self, output: usize) -> (usize, usize) {
        let group = output.checked_div(self.outputs).unwrap_or_default();
        (group, group * self.group + (output - group * self.outputs) * self.output)
    }

    /// The index of a weight of an output. `first` is the index of the first weight of that output,
    /// and `input` counts within the group.
    fn index(&self, first: usize, input: usize, tap: usize) -> usize {
        first + input * self.input + tap * self.tap
    }
}

/// Batch norm of one channel, `(x - mean)*slope + bias`.
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
            mean: of_channel(running.mean) + running.mean_tail.map_or(-0.0, of_channel),
            bias: parameter(parameters.bias, 0.0),
        }
    }

    fn apply(&self, x: f64) -> f64 {
        (x - self.mean) * self.slope + self.bias
    }
}
