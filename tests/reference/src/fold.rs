//! Batch norm folded into the weights of the layer before it or after it.
//!
//! Weights are `[outer, channels, inner]`, and the channels are those of the batch norm.

use crate::double::Double;
use crate::layer::{Parameters, Shape};

/// A batch norm with fixed statistics.
#[derive(Debug, Clone, Copy)]
pub struct BatchNorm<'a> {
    /// Weight and bias.
    pub parameters: Parameters<'a>,
    /// The running mean per channel.
    pub mean: &'a [f64],
    /// The running variance per channel.
    pub var: &'a [f64],
    /// Added to the variance.
    pub eps: f32,
}

/// The weights and the bias of a layer that has taken a batch norm over.
#[derive(Debug, Clone)]
pub struct Folded {
    /// The weights, in the order that they were given in.
    pub weights: Vec<f64>,
    /// The bias per output.
    pub bias: Vec<f64>,
    /// The sum of the magnitudes that the bias is the sum of: what an error of f64 sums is measured in.
    pub bias_size: Vec<f64>,
}

impl BatchNorm<'_> {
    /// `a = weight/sqrt(var + eps)`
    #[must_use]
    pub fn slope(&self, channel: usize) -> f64 {
        self.parameters.weight(channel) / (self.var[channel] + f64::from(self.eps)).sqrt()
    }

    /// `(x - mean)*a + bias`, and the sum of the magnitudes of its terms.
    fn apply(&self, channel: usize, x: f64) -> (f64, f64) {
        let product = (Double::from(x) - Double::from(self.mean[channel])) * Double::from(self.slope(channel));
        let bias = self.parameters.bias(channel);
        ((product + Double::from(bias)).rounded(), product.rounded().abs() + bias.abs())
    }

    /// `batchnorm(W*x + b)` as `W'*x + b'`: `W' = W*a`, `b' = (b - mean)*a + bias`.
    #[must_use]
    pub fn fold_into_previous(&self, shape: Shape, weights: &[f64], bias: &[f64]) -> Folded {
        let mut folded = Folded { weights: weights.to_vec(), bias: vec![], bias_size: vec![] };
        for (channel, &b) in bias.iter().enumerate() {
            for index in shape.indices(channel) {
                folded.weights[index] *= self.slope(channel);
            }
            let (b, size) = self.apply(channel, b);
            folded.bias.push(b);
            folded.bias_size.push(size);
        }
        folded
    }

    /// `W*batchnorm(x) + b` as `W'*x + b'`: `W'[o,i,k] = W[o,i,k]*a[i]`, `b'[o] = b[o] + sum(W[o,i,k]*c[i])` with
    /// `c = bias - mean*a`.
    #[must_use]
    pub fn fold_into_next(&self, shape: Shape, weights: &[f64], bias: &[f64]) -> Folded {
        let mut folded = Folded { weights: weights.to_vec(), bias: vec![], bias_size: vec![] };
        for (output, &b) in bias.iter().enumerate() {
            let (mut sum, mut size) = (Double::from(b), b.abs());
            for channel in 0..shape.channels {
                let (c, c_size) = self.apply(channel, 0.0);
                for tap in 0..shape.inner {
                    let weight = &mut folded.weights[(output * shape.channels + channel) * shape.inner + tap];
                    sum = sum + Double::from(*weight) * Double::from(c);
                    size += weight.abs() * c_size;
                    *weight *= self.slope(channel);
                }
            }
            folded.bias.push(sum.rounded());
            folded.bias_size.push(size);
        }
        folded
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BATCH_NORM: BatchNorm<'_> = BatchNorm {
        parameters: Parameters { weight: Some(&[2.0, 3.0]), bias: Some(&[0.5, 0.0]), residual: None },
        mean: &[3.0, 1.0],
        var: &[15.0, 8.0],
        eps: 1.0,
    };

    #[test]
    fn into_the_previous_layer() {
        let shape = Shape { outer: 1, channels: 2, inner: 2 };
        let folded = BATCH_NORM.fold_into_previous(shape, &[1.0, 2.0, 3.0, 4.0], &[1.0, 1.0]);
        assert_eq!((folded.weights, folded.bias), (vec![0.5, 1.0, 3.0, 4.0], vec![-0.5, 0.0]));
        assert_eq!(folded.bias_size, [1.5, 0.0]);
    }

    #[test]
    fn into_the_next_layer() {
        let shape = Shape { outer: 2, channels: 2, inner: 1 };
        let folded = BATCH_NORM.fold_into_next(shape, &[1.0, 2.0, 3.0, 4.0], &[1.0, 0.0]);
        // a is 1/2 and 1, c is -1 and -1.
        assert_eq!((folded.weights, folded.bias), (vec![0.5, 2.0, 1.5, 4.0], vec![-2.0, -7.0]));
        assert_eq!(folded.bias_size, [1.0 + 2.0 + 2.0, 6.0 + 4.0]);
    }
}
