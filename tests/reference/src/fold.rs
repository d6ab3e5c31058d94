//! Batch norm folded into the weights of the layer before it or after it.

use crate::double::Double;
use crate::layer::Parameters;

/// A dimension of weights.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dimension {
    /// The outputs of the layer.
    Out,
    /// Its inputs.
    In,
    /// The taps of its kernel.
    Tap,
}

/// A weight layer: its sizes, and the order of the dimensions of its weights in memory, the innermost last.
#[derive(Debug, Clone, Copy)]
pub struct WeightShape {
    /// The dimensions in memory.
    pub order: [Dimension; 3],
    /// The outputs of all groups.
    pub outputs: usize,
    /// The inputs of all groups.
    pub inputs: usize,
    /// The taps of the kernel.
    pub taps: usize,
    /// The groups.
    pub groups: usize,
}

impl WeightShape {
    /// The output and the input of every weight, in the order of memory.
    ///
    /// Convolutions have `[out, in/groups]` in memory and transposed ones `[in, out/groups]`, the taps last; where the taps
    /// are first, it is the other way round.
    #[must_use]
    pub fn places(&self) -> Vec<(usize, usize)> {
        let Self { order, outputs, inputs, taps, groups } = *self;
        let whole = if order[0] == Dimension::Tap { order[2] } else { order[0] };
        let sizes = order.map(|dimension| match dimension {
            Dimension::Tap => taps,
            Dimension::Out => {
                if dimension == whole {
                    outputs
                } else {
                    outputs / groups
                }
            }
            Dimension::In => {
                if dimension == whole {
                    inputs
                } else {
                    inputs / groups
                }
            }
        });
        let mut places = vec![];
        for index in 0..sizes.iter().product() {
            let at = [index / (sizes[1] * sizes[2]), index / sizes[2] % sizes[1], index % sizes[2]];
            let along = |wanted: Dimension| {
                order.iter().zip(at).find(|(dimension, _)| **dimension == wanted).map_or(0, |(_, at)| at)
            };
            let (output, input) = (along(Dimension::Out), along(Dimension::In));
            places.push(if whole == Dimension::Out {
                (output, output / (outputs / groups) * (inputs / groups) + input)
            } else {
                (input / (inputs / groups) * (outputs / groups) + output, input)
            });
        }
        places
    }
}

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
    pub fn fold_into_previous(&self, shape: WeightShape, weights: &[f64], bias: &[f64]) -> Folded {
        let mut folded = Folded { weights: weights.to_vec(), bias: vec![], bias_size: vec![] };
        for (weight, (output, _)) in folded.weights.iter_mut().zip(shape.places()) {
            *weight *= self.slope(output);
        }
        for (channel, &b) in bias.iter().enumerate() {
            let (b, size) = self.apply(channel, b);
            folded.bias.push(b);
            folded.bias_size.push(size);
        }
        folded
    }

    /// `W*batchnorm(x) + b` as `W'*x + b'`: `W'[o,i,k] = W[o,i,k]*a[i]`, `b'[o] = b[o] + sum(W[o,i,k]*c[i])` with
    /// `c = bias - mean*a`.
    #[must_use]
    pub fn fold_into_next(&self, shape: WeightShape, weights: &[f64], bias: &[f64]) -> Folded {
        let mut folded = Folded { weights: weights.to_vec(), bias: vec![], bias_size: vec![] };
        let mut sums: Vec<Double> = bias.iter().map(|&b| Double::from(b)).collect();
        folded.bias_size = bias.iter().map(|b| b.abs()).collect();
        for (weight, (output, input)) in folded.weights.iter_mut().zip(shape.places()) {
            let (c, c_size) = self.apply(input, 0.0);
            sums[output] = sums[output] + Double::from(*weight) * Double::from(c);
            folded.bias_size[output] += weight.abs() * c_size;
            *weight *= self.slope(input);
        }
        folded.bias = sums.iter().map(|sum| sum.rounded()).collect();
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
        let shape = WeightShape {
            order: [Dimension::Out, Dimension::In, Dimension::Tap],
            outputs: 2,
            inputs: 2,
            taps: 1,
            groups: 1,
        };
        let folded = BATCH_NORM.fold_into_previous(shape, &[1.0, 2.0, 3.0, 4.0], &[1.0, 1.0]);
        assert_eq!((folded.weights, folded.bias), (vec![0.5, 1.0, 3.0, 4.0], vec![-0.5, 0.0]));
        assert_eq!(folded.bias_size, [1.5, 0.0]);
    }

    #[test]
    fn into_the_next_layer() {
        let shape = WeightShape {
            order: [Dimension::Out, Dimension::Tap, Dimension::In],
            outputs: 2,
            inputs: 2,
            taps: 1,
            groups: 1,
        };
        let folded = BATCH_NORM.fold_into_next(shape, &[1.0, 2.0, 3.0, 4.0], &[1.0, 0.0]);
        // a is 1/2 and 1, c is -1 and -1.
        assert_eq!((folded.weights, folded.bias), (vec![0.5, 2.0, 1.5, 4.0], vec![-2.0, -7.0]));
        assert_eq!(folded.bias_size, [1.0 + 2.0 + 2.0, 6.0 + 4.0]);
    }

    #[test]
    fn places_of_grouped_weights() {
        use Dimension::{In, Out, Tap};
        let places = |order| WeightShape { order, outputs: 4, inputs: 2, taps: 1, groups: 2 }.places();
        // A convolution, `[out, in/groups]` and `[in/groups, out]` in memory.
        assert_eq!(places([Out, In, Tap]), [(0, 0), (1, 0), (2, 1), (3, 1)]);
        assert_eq!(places([Tap, In, Out]), [(0, 0), (1, 0), (2, 1), (3, 1)]);
        // A transposed one, `[in, out/groups]` and `[out/groups, in]`.
        assert_eq!(places([In, Out, Tap]), [(0, 0), (1, 0), (2, 1), (3, 1)]);
        assert_eq!(places([Tap, Out, In]), [(0, 0), (2, 1), (1, 0), (3, 1)]);
    }
}
