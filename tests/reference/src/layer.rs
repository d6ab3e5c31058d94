//! The layer as its formulas: `y = dropout(act(batchnorm(x) + residual))`, forward and backward, channel by channel.
//!
//! A tensor is `[outer, channels, inner]`, row-major; `samples = outer*inner` values belong to one channel.
//! Everything takes and gives f64, so that gradients can be compared with finite differences.
//!
//! Sources: Ioffe and Szegedy, *Batch Normalization*, 2015; Srivastava et al., *Dropout*, 2014.

pub use crate::activation::Activation;
use crate::double::Double;
use crate::mask;
use crate::units::{SMALLEST, U};

/// A tensor shape `[outer, channels, inner]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shape {
    /// The product of the dimensions before the channels.
    pub outer: usize,
    /// The number of channels.
    pub channels: usize,
    /// The product of the dimensions after the channels.
    pub inner: usize,
}

impl Shape {
    /// The number of elements.
    #[must_use]
    pub fn len(self) -> usize {
        self.outer * self.channels * self.inner
    }

    /// Whether there are no elements.
    #[must_use]
    pub fn is_empty(self) -> bool {
        self.len() == 0
    }

    /// The number of values per channel.
    #[must_use]
    pub fn samples(self) -> usize {
        self.outer * self.inner
    }

    /// Where the values of a channel are in memory, in order.
    pub fn indices(self, channel: usize) -> impl Iterator<Item = usize> + Clone {
        let Self { outer, channels, inner } = self;
        (0..outer).flat_map(move |o| (0..inner).map(move |i| (o * channels + channel) * inner + i))
    }

    /// A tensor from the values of each of its channels.
    pub fn tensor<T: Copy + Default>(self, mut values: impl FnMut(usize) -> Vec<T>) -> Vec<T> {
        let mut tensor = vec![T::default(); self.len()];
        for channel in 0..self.channels {
            for (index, value) in self.indices(channel).zip(values(channel)) {
                tensor[index] = value;
            }
        }
        tensor
    }
}

/// The variance that goes into the running variance.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RunningVariance {
    /// `sum((x-mean)^2)/(samples-1)`.
    Unbiased,
    /// `sum((x-mean)^2)/samples`.
    Biased,
}

impl RunningVariance {
    /// The variance of a batch, as it goes into the running variance: one that does not fit an f32
    /// counts as the largest.
    #[must_use]
    pub fn of(self, batch: &Moments) -> f64 {
        let var = match self {
            Self::Unbiased => batch.var * batch.count / (batch.count - 1.0),
            Self::Biased => batch.var,
        };
        // NaN stays.
        if var > f64::from(f32::MAX) { f64::from(f32::MAX) } else { var }
    }
}

/// How the running statistics are averaged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Average {
    /// With the momentum of the layer.
    Exponential,
    /// The mean of this many batches, the one that is being added included.
    Cumulative(u64),
}

impl Average {
    /// The weight of the new value.
    #[must_use]
    pub fn momentum(self, exponential: f64) -> f64 {
        match self {
            Self::Exponential => exponential,
            Self::Cumulative(batches) => 1.0 / batches as f64,
        }
    }
}

/// The layer: its shape and its constants.
#[derive(Debug, Clone, Copy)]
pub struct Layer {
    /// The shape of the tensor.
    pub shape: Shape,
    /// Added to the variance.
    pub eps: f32,
    /// The weight of the new value in the running statistics.
    pub momentum: f64,
    /// The variance that goes into the running variance.
    pub running_var: RunningVariance,
    /// `T`: the keep probability times 2^32.
    pub threshold: u64,
    /// The activation.
    pub activation: Activation,
}

/// What the normalised values are scaled with and shifted by; a missing weight is 1, the others are 0.
#[derive(Debug, Clone, Copy, Default)]
pub struct Parameters<'a> {
    /// The scale per channel.
    pub weight: Option<&'a [f64]>,
    /// The shift per channel.
    pub bias: Option<&'a [f64]>,
    /// The residual: a shift per element.
    pub residual: Option<&'a [f64]>,
}

impl Parameters<'_> {
    pub(crate) fn weight(&self, channel: usize) -> f64 {
        self.weight.map_or(1.0, |weight| weight[channel])
    }

    pub(crate) fn bias(&self, channel: usize) -> f64 {
        self.bias.map_or(0.0, |bias| bias[channel])
    }

    fn residual(&self, index: usize) -> f64 {
        self.residual.map_or(0.0, |residual| residual[index])
    }
}

/// The moments of one channel of a batch.
#[derive(Debug, Clone, Copy)]
pub struct Moments {
    /// The number of values.
    pub count: f64,
    /// Their mean.
    pub mean: Double,
    /// Their biased variance.
    pub var: f64,
}

/// What a channel is normalised with.
#[derive(Debug, Clone, Copy)]
pub struct Centre {
    /// The mean, of the batch or running.
    pub mean: Double,
    /// `1/sqrt(var + eps)`.
    pub inv_std: f64,
}

/// The statistics that a backward pass differentiates through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Statistics {
    /// Those of the batch: gradients flow through mean and variance.
    Batch,
    /// Constants.
    Fixed,
}

/// The result of a forward pass.
#[derive(Debug, Clone)]
pub struct Forward {
    /// `z = xhat*weight + bias`.
    pub z: Vec<f64>,
    /// What an error of `z` is measured in: `|weight|*max(|xhat|, 1) + |bias| + |residual|`.
    pub z_scale: Vec<f64>,
    /// `y = keep ? act(z)*scale : +0.0`.
    pub y: Vec<f64>,
    /// What an error of `y` is measured in: the dropout scale times [`Activation::value_scale`], which is the scale of `z`
    /// for Identity and ReLU; and 0 where the element is dropped.
    pub y_scale: Vec<f64>,
    /// The most that underflow may take away from `y`.
    pub y_underflow: f64,
}

/// The result of a backward pass.
#[derive(Debug, Clone)]
pub struct Gradients {
    /// The gradient of the input.
    pub dx: Vec<f64>,
    /// What an error of `dx` is measured in, with `size = max(|xhat|, 1)`:
    /// `|weight|*inv_std*(|g| + mean(|g|) + size*mean(|g|*size))` through batch statistics, where the dropout scale is
    /// part of `g`, and `|weight|*inv_std*|g|` past fixed ones. For `|g|` here and below, the derivative in `g` counts as
    /// its [`Activation::derivative_scale`], which is its size for Identity and ReLU.
    pub dx_scale: Vec<f64>,
    /// The gradient of the residual, `g`.
    pub d_residual: Vec<f64>,
    /// What an error of `d_residual` is measured in: `|g|`.
    pub d_residual_scale: Vec<f64>,
    /// The gradient of the weight per channel.
    pub d_weight: Vec<f64>,
    /// What an error of `d_weight` is measured in: `sum(|g|*max(|xhat|, 1))`.
    pub d_weight_scale: Vec<f64>,
    /// The gradient of the bias per channel.
    pub d_bias: Vec<f64>,
    /// What an error of `d_bias` is measured in: `sum(|g|)`.
    pub d_bias_scale: Vec<f64>,
    /// The most that underflow may take away from `dx`, per channel.
    pub dx_underflow: Vec<f64>,
    /// The most that underflow may take away from `d_weight`, per channel.
    pub d_weight_underflow: Vec<f64>,
    /// The most that underflow may take away from `d_bias`.
    pub d_bias_underflow: f64,
    /// The most that underflow may take away from `d_residual`.
    pub d_residual_underflow: f64,
}

/// What a backward pass is given, beside its parameters and statistics.
#[derive(Debug, Clone, Copy)]
pub struct Backward<'a> {
    /// The dropout mask, if dropout is on.
    pub mask: Option<&'a [u8]>,
    /// The input of the forward pass.
    pub x: &'a [f64],
    /// The gradient of the output.
    pub dy: &'a [f64],
    /// `z` as the code under test computed it, if there is any, or the product of it and a positive number if the
    /// activation's only kink is at 0: there the sign is enough, and ReLU's output has it.
    ///
    /// Where the exact `z` is within [`KINK_TOLERANCE`] units of its scale of a kink, or within the smallest f32, rounding
    /// may have put it on the other side or on the kink, and a derivative that jumps there must be the one of that side.
    /// Everywhere else the exact `z` decides.
    pub z: Option<&'a [f32]>,
}

/// The units of its scale within which the side of a kink that `z` is on is left to the code under test.
pub const KINK_TOLERANCE: f64 = 8.0;

/// Where rounding decides whether a number fits an f32.
const ALMOST_TOO_LARGE: f64 = 0.999 * f32::MAX as f64;

impl Layer {
    /// Mean and biased variance of each channel, to about 30 and 15 digits.
    ///
    /// ```text
    /// mean = sum(x)/samples          var = sum((x-mean)^2)/samples
    /// ```
    #[must_use]
    pub fn moments(&self, x: &[f64]) -> Vec<Moments> {
        let count = self.shape.samples() as f64;
        let of_channel = |channel| {
            let values = self.shape.indices(channel).map(|index| Double::from(x[index]));
            let mean = values.clone().sum::<Double>() / Double::from(count);
            let squares = values.map(|value| (value - mean) * (value - mean)).sum::<Double>();
            Moments { count, mean, var: squares.rounded() / count }
        };
        (0..self.shape.channels).map(of_channel).collect()
    }

    /// What each channel of a batch is normalised with.
    #[must_use]
    pub fn batch_statistics(&self, moments: &[Moments]) -> Vec<Centre> {
        moments.iter().map(|moments| Centre { mean: moments.mean, inv_std: self.inv_std(moments.var) }).collect()
    }

    /// What each channel is normalised with when its running statistics are.
    #[must_use]
    pub fn fixed_statistics(&self, running_mean: &[f64], running_var: &[f64]) -> Vec<Centre> {
        let of_channel = |(&mean, &var)| Centre { mean: Double::from(mean), inv_std: self.inv_std(var) };
        running_mean.iter().zip(running_var).map(of_channel).collect()
    }

    /// `1/sqrt(var + eps)`.
    fn inv_std(&self, var: f64) -> f64 {
        1.0 / (var + f64::from(self.eps)).sqrt()
    }

    /// The running statistics after a batch; an empty one changes nothing.
    ///
    /// ```text
    /// running = (1-momentum)*running + momentum*batch
    /// ```
    /// A side of weight 0 does not count, even if it is NaN. In a cumulative average the momentum is 1 over the number
    /// of batches.
    pub fn update_running(
        &self,
        moments: &[Moments],
        average: Average,
        running_mean: &mut [f64],
        running_var: &mut [f64],
    ) {
        let momentum = average.momentum(self.momentum);
        let average = |running: &mut f64, batch: f64| {
            if momentum == 1.0 {
                *running = batch;
            } else if momentum != 0.0 {
                *running = (1.0 - momentum) * *running + momentum * batch;
            }
        };
        if self.shape.is_empty() {
            return;
        }
        for ((moments, mean), var) in moments.iter().zip(running_mean).zip(running_var) {
            average(mean, moments.mean.rounded());
            average(var, self.running_var.of(moments));
        }
    }

    /// Forward, with either kind of statistics; dropout is on if there is a mask.
    ///
    /// ```text
    /// xhat = (x-mean)*inv_std        z = xhat*weight + bias + residual
    /// y = keep ? act(z)*scale : +0.0
    /// ```
    #[must_use]
    pub fn forward(&self, parameters: Parameters<'_>, centres: &[Centre], mask: Option<&[u8]>, x: &[f64]) -> Forward {
        let dropout = Dropout::new(self.threshold, mask);
        let zeros = vec![0.0; x.len()];
        // With a residual the dropout scale comes after z, and multiplies what underflow took away from it.
        let of_z = if parameters.residual.is_some() { self.activation.steepest() } else { 0.0 };
        let y_underflow = SMALLEST * (1.0 + (self.activation.underflow() + 2.0 * of_z) * dropout.scale);
        let mut forward =
            Forward { z: zeros.clone(), z_scale: zeros.clone(), y: zeros.clone(), y_scale: zeros, y_underflow };
        for (channel, &centre) in centres.iter().enumerate() {
            let (weight, bias) = (parameters.weight(channel), parameters.bias(channel));
            for index in self.shape.indices(channel) {
                let xhat = normalised(x[index], centre);
                let residual = parameters.residual(index);
                let z = xhat * weight + bias + residual;
                forward.z[index] = z;
                forward.z_scale[index] = weight.abs() * xhat.abs().max(1.0) + bias.abs() + residual.abs();
                if let Some(scale) = dropout.scale(index) {
                    forward.y[index] = self.activation.value(z) * scale;
                    forward.y_scale[index] = self.activation.value_scale(z, forward.z_scale[index]) * scale;
                    // What does not fit an f32 before a slope below 1 is infinite, although it would fit after it.
                    if matches!(self.activation, Activation::LeakyRelu(_)) && (z * scale).abs() >= ALMOST_TOO_LARGE {
                        forward.y_scale[index] = f64::INFINITY;
                    }
                }
            }
        }
        forward
    }

    /// Backward.
    ///
    /// ```text
    /// g = keep ? act'(z)*scale*dy : 0
    /// d_bias = sum(g)                d_weight = sum(g*xhat)
    /// dx = weight*inv_std * (g - d_bias/samples - xhat*d_weight/samples)     batch statistics
    /// dx = weight*inv_std * g                                               fixed statistics
    /// d_residual = g
    /// ```
    /// Where everything is dropped because the keep probability is 0, every gradient is 0.
    #[must_use]
    pub fn backward(
        &self,
        parameters: Parameters<'_>,
        centres: &[Centre],
        statistics: Statistics,
        call: Backward<'_>,
    ) -> Gradients {
        let (elements, channels) = (vec![0.0; call.x.len()], vec![0.0; self.shape.channels]);
        let mut gradients = Gradients {
            dx: elements.clone(),
            dx_scale: elements.clone(),
            d_residual: elements.clone(),
            d_residual_scale: elements,
            d_weight: channels.clone(),
            d_weight_scale: channels.clone(),
            d_bias: channels.clone(),
            d_bias_scale: channels.clone(),
            dx_underflow: channels,
            d_weight_underflow: vec![0.0; self.shape.channels],
            d_bias_underflow: 0.0,
            d_residual_underflow: 0.0,
        };
        if call.mask.is_some() && self.threshold == 0 {
            return gradients;
        }
        let dropout = Dropout::new(self.threshold, call.mask);
        let samples = self.shape.samples() as f64;
        for (channel, &centre) in centres.iter().enumerate() {
            let (weight, bias) = (parameters.weight(channel), parameters.bias(channel));
            // A product that underflows is wrong by up to 2^-150, and the sums carry that into dx.
            let slope = weight.abs() * centre.inv_std * dropout.scale;
            gradients.dx_underflow[channel] = 2.0 * SMALLEST * (1.0 + slope * samples.sqrt());
            gradients.d_bias_underflow = SMALLEST * (1.0 + samples * dropout.scale);
            gradients.d_residual_underflow = SMALLEST * (1.0 + dropout.scale);
            // Of every element: xhat, g, and what stands for |g| in the scales.
            let terms_of = |index: usize| {
                let xhat = normalised(call.x[index], centre);
                let Some(scale) = dropout.scale(index) else { return (xhat, 0.0, 0.0) };
                let residual = parameters.residual(index);
                let z = xhat * weight + bias + residual;
                let scale_of_z = weight.abs() * xhat.abs().max(1.0) + bias.abs() + residual.abs();
                let undecided = KINK_TOLERANCE * U * scale_of_z + SMALLEST;
                let near_a_kink = self.activation.kinks().iter().any(|kink| (z - kink).abs() <= undecided);
                let z = match call.z {
                    // With an infinite weight, the rounding of the mean decides the sign of an infinity, or makes it a NaN.
                    Some(z_under_test) if near_a_kink || weight.is_infinite() => f64::from(z_under_test[index]),
                    _ => z,
                };
                let Some(derivative) = self.activation.derivative(z) else { return (xhat, 0.0, 0.0) };
                let g_scale = self.activation.derivative_scale(z, scale_of_z) * (scale * call.dy[index]).abs();
                (xhat, derivative * scale * call.dy[index], g_scale)
            };
            let sum = |term: fn(f64, f64, f64) -> f64| {
                let terms = self.shape.indices(channel).map(terms_of);
                terms.map(|(xhat, g, g_scale)| Double::from(term(xhat, g, g_scale))).sum::<Double>().rounded()
            };
            let d_bias = sum(|_, g, _| g);
            let d_weight = sum(|xhat, g, _| g * xhat);
            let d_bias_scale = sum(|_, _, g_scale| g_scale);
            let d_weight_scale = sum(|xhat, _, g_scale| g_scale * xhat.abs().max(1.0));
            // Where g itself is rounded, its underflow is multiplied by xhat.
            let sizes = if self.activation.underflow() == 0.0 { 0.0 } else { sum(|xhat, _, _| xhat.abs()) };
            gradients.d_weight_underflow[channel] = gradients.d_bias_underflow + SMALLEST * dropout.scale * sizes;
            for index in self.shape.indices(channel) {
                let (xhat, g, g_scale) = terms_of(index);
                (gradients.d_residual[index], gradients.d_residual_scale[index]) = (g, g_scale);
                let slope = weight * centre.inv_std;
                (gradients.dx[index], gradients.dx_scale[index]) = match statistics {
                    Statistics::Batch => (
                        slope * (g - d_bias / samples - xhat * d_weight / samples),
                        slope.abs() * (g_scale + (d_bias_scale + xhat.abs().max(1.0) * d_weight_scale) / samples),
                    ),
                    Statistics::Fixed => (slope * g, slope.abs() * g_scale),
                };
            }
            gradients.d_weight[channel] = d_weight;
            gradients.d_weight_scale[channel] = d_weight_scale;
            gradients.d_bias[channel] = d_bias;
            gradients.d_bias_scale[channel] = d_bias_scale;
        }
        gradients
    }
}

/// The dropout of one call.
#[derive(Clone, Copy)]
struct Dropout<'a> {
    mask: Option<&'a [u8]>,
    scale: f64,
}

impl<'a> Dropout<'a> {
    fn new(threshold: u64, mask: Option<&'a [u8]>) -> Self {
        Self { mask, scale: mask.map_or(1.0, |_| f64::from(mask::scale(threshold))) }
    }

    /// What an element is multiplied by, or nothing if it is dropped.
    fn scale(&self, index: usize) -> Option<f64> {
        let kept = self.mask.is_none_or(|mask| self.scale != 0.0 && mask::keeps(mask, index));
        kept.then_some(self.scale)
    }
}

/// `xhat = (x-mean)*inv_std`.
fn normalised(x: f64, centre: Centre) -> f64 {
    (Double::from(x) - centre.mean).rounded() * centre.inv_std
}

/// The same numbers in f64.
#[must_use]
pub fn widened(values: &[f32]) -> Vec<f64> {
    values.iter().map(|&value| f64::from(value)).collect()
}

/// The running means that pairs of f32 hold, for [`Layer::fixed_statistics`] and
/// [`Layer::update_running`]: `mean + tail`, without a tail the mean alone.
#[must_use]
pub fn joined(mean: &[f32], tail: Option<&[f32]>) -> Vec<f64> {
    let mut joined = widened(mean);
    for (joined, &tail) in joined.iter_mut().zip(tail.unwrap_or_default()) {
        *joined += f64::from(tail);
    }
    joined
}

/// The pair of f32 that holds a running mean: the mean rounded, and what the rounding left out,
/// which is 0 where the mean is not finite.
#[must_use]
#[expect(clippy::cast_possible_truncation, reason = "each of the pair is rounded once")]
pub fn pair(mean: f64) -> [f32; 2] {
    let rounded = mean as f32;
    [rounded, if rounded.is_finite() { (mean - f64::from(rounded)) as f32 } else { 0.0 }]
}

#[cfg(test)]
mod tests {
    use super::*;

    const LAYER: Layer = Layer {
        shape: Shape { outer: 2, channels: 2, inner: 2 },
        eps: 1.0,
        momentum: 0.25,
        running_var: RunningVariance::Unbiased,
        threshold: 1 << 31,
        activation: Activation::Relu,
    };
    /// Channel 0 holds 1, 3, 5, 7: mean 4, variance 5. Channel 1 holds 2, 2, 2, 2.
    const X: [f64; 8] = [1.0, 3.0, 2.0, 2.0, 5.0, 7.0, 2.0, 2.0];

    #[test]
    fn moments_of_small_numbers() {
        let moments = LAYER.moments(&X);
        assert_eq!(moments.iter().map(|m| (m.mean.rounded(), m.var)).collect::<Vec<_>>(), [(4.0, 5.0), (2.0, 0.0)]);
    }

    #[test]
    fn moments_of_a_large_offset() {
        let shape = Shape { outer: 1, channels: 1, inner: 4 };
        let x = [1e30 + 2e14, 1e30, -1e30, -1e30].map(|value: f64| value + 1.0);
        let moments = Layer { shape, ..LAYER }.moments(&x)[0];
        let exact_mean = (x[0] - 1e30 + (x[2] + 1e30)) / 4.0;
        assert_eq!(moments.mean.rounded(), exact_mean);
    }

    #[test]
    fn forward_of_small_numbers() {
        let moments = LAYER.moments(&X);
        let centres = LAYER.batch_statistics(&moments);
        let parameters = Parameters { weight: Some(&[2.0, 1.0]), bias: Some(&[0.0, 3.0]), residual: None };
        let forward = LAYER.forward(parameters, &centres, Some(&[0b0111_1111]), &X);
        let root = 6.0f64.sqrt();
        let expected = [0.0, 0.0, 6.0, 6.0, 4.0 / root, 12.0 / root, 6.0, 0.0];
        for (actual, expected) in forward.y.iter().zip(expected) {
            assert!((actual - expected).abs() < 1e-15, "{:?}", forward.y);
        }
        assert_eq!(forward.y_scale[7], 0.0);
    }

    #[test]
    fn running_statistics_move_by_the_momentum() {
        let (mut mean, mut var) = ([0.0, f64::NAN], [1.0, 1.0]);
        let exponential = Average::Exponential;
        LAYER.update_running(&LAYER.moments(&X), exponential, &mut mean, &mut var);
        assert_eq!((mean[0], var), (1.0, [0.75 + 0.25 * 20.0 / 3.0, 0.75]));
        assert!(mean[1].is_nan());
        Layer { momentum: 1.0, ..LAYER }.update_running(&LAYER.moments(&X), exponential, &mut mean, &mut var);
        assert_eq!((mean, var), ([4.0, 2.0], [20.0 / 3.0, 0.0]));
        Layer { momentum: 0.0, ..LAYER }.update_running(
            &LAYER.moments(&[f64::NAN; 8]),
            exponential,
            &mut mean,
            &mut var,
        );
        assert_eq!((mean, var), ([4.0, 2.0], [20.0 / 3.0, 0.0]));
    }

    #[test]
    fn a_variance_that_does_not_fit_an_f32_counts_as_the_largest_that_does() {
        let moments = |var| Moments { count: 2.0, mean: Double::from(0.0), var };
        let of = |var| [RunningVariance::Unbiased, RunningVariance::Biased].map(|kind| kind.of(&moments(var)));
        let largest = f64::from(f32::MAX);
        assert_eq!(of(1e76), [largest; 2]);
        assert_eq!(of(0.75 * largest), [largest, 0.75 * largest]);
        assert!(of(f64::NAN).iter().all(|var| var.is_nan()));
    }

    #[test]
    fn a_cumulative_average_is_the_mean_of_the_batches() {
        let layer = Layer { running_var: RunningVariance::Biased, ..LAYER };
        let (mut mean, mut var) = ([f64::NAN; 2], [f64::NAN; 2]);
        for (batches, factor) in [(1, 1.0), (2, 3.0), (3, 2.0)] {
            let moments = layer.moments(&X.map(|x| factor * x));
            layer.update_running(&moments, Average::Cumulative(batches), &mut mean, &mut var);
        }
        // Means 4 and 2 times 1, 3 and 2; variances 5 and 0 times 1, 9 and 4.
        for (actual, expected) in mean.into_iter().chain(var).zip([8.0, 4.0, 70.0 / 3.0, 0.0]) {
            assert!((actual - expected).abs() < 1e-14, "{actual} instead of {expected}");
        }
    }

    #[test]
    fn a_pair_holds_48_bits_of_a_mean() {
        let mean = 100_002.5 + 1.0 / 1024.0 + 1.0 / 3e9;
        let [rounded, tail] = pair(mean);
        assert!(f64::from(rounded) != mean && tail != 0.0);
        assert!((joined(&[rounded], Some(&[tail]))[0] - mean).abs() <= mean / (1u64 << 48) as f64);
        assert_eq!(joined(&[rounded, 1.0], None), [f64::from(rounded), 1.0]);
        for mean in [0.0, f64::INFINITY, f64::NEG_INFINITY] {
            assert_eq!(pair(mean).map(f64::from), [mean, 0.0]);
        }
        assert!(pair(f64::NAN)[0].is_nan());
    }

    #[test]
    fn the_code_under_test_decides_a_gate_only_where_z_is_lost_in_rounding() {
        let centres = LAYER.fixed_statistics(&[1.0, 1.0], &[0.0, 0.0]);
        let gradients = LAYER.backward(
            Parameters::default(),
            &centres,
            Statistics::Fixed,
            // z is 0, 2, 1, 1, 4, 6, 1, 1.
            Backward { mask: None, x: &X, dy: &[1.0; 8], z: Some(&[1.0, -1.0, -1.0, 0.0, 1.0, 1.0, 1.0, 1.0]) },
        );
        assert_eq!(gradients.dx, [1.0; 8]);
    }

    #[test]
    fn nothing_is_kept_at_keep_probability_0() {
        let layer = Layer { threshold: 0, ..LAYER };
        let centres = layer.batch_statistics(&layer.moments(&X));
        let mask = Some(&[0xFF][..]);
        assert_eq!(layer.forward(Parameters::default(), &centres, mask, &X).y, [0.0; 8]);
        let call = Backward { mask, x: &X, dy: &[f64::INFINITY; 8], z: None };
        let gradients = layer.backward(Parameters::default(), &centres, Statistics::Batch, call);
        assert_eq!((gradients.dx, gradients.d_weight, gradients.d_bias), (vec![0.0; 8], vec![0.0; 2], vec![0.0; 2]));
    }
}
