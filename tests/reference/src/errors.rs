//! The errors of a layer under test: each of its results against the exact one, in the scale that belongs to it.

use crate::layer::{Forward, Gradients, Layer, Moments, Shape};
use crate::units::{SMALLEST, Worst};

/// How large errors may be, in units of the scale of each result.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    /// Of [`StatisticsErrors::mean`].
    pub mean: f64,
    /// Of [`StatisticsErrors::var`].
    pub var: f64,
    /// Of [`CallErrors::y`].
    pub y: f64,
    /// Of [`CallErrors::dx`].
    pub dx: f64,
    /// Of [`CallErrors::d_residual`].
    pub d_residual: f64,
    /// Of [`CallErrors::d_weight`].
    pub d_weight: f64,
    /// Of [`CallErrors::d_bias`].
    pub d_bias: f64,
}

/// What the crate keeps with statistics of the batch, for every class of data but heavy tails, up to 2^24 + 17 values per
/// channel. Variance, y and dx are its promise; the sums may be wrong by five roundings before the sum, as many in it and
/// one after it, but are not.
pub const PROMISE: Bounds =
    Bounds { mean: 2.0, var: 8.0, y: 4.0, dx: 5.0, d_residual: 3.0, d_weight: 5.0, d_bias: 3.0 };

impl Bounds {
    /// The same for every result.
    #[must_use]
    pub const fn all(units: f64) -> Self {
        Self { mean: units, var: units, y: units, dx: units, d_residual: units, d_weight: units, d_bias: units }
    }

    /// Those of a call, in the order of [`CallErrors::each`].
    #[must_use]
    pub fn of_call(&self) -> [f64; 5] {
        [self.y, self.dx, self.d_residual, self.d_weight, self.d_bias]
    }
}

/// The worst errors of the statistics of a batch.
#[derive(Debug, Clone)]
pub struct StatisticsErrors {
    /// The mean, in `max(|mean|, std)`.
    pub mean: Worst,
    /// The variance, relative to itself.
    pub var: Worst,
}

impl StatisticsErrors {
    /// No error yet.
    #[must_use]
    pub fn none() -> Self {
        Self { mean: Worst::new("mean"), var: Worst::new("variance") }
    }

    /// Takes statistics into account that are those of one batch: running ones of momentum 1. `moments` are the exact
    /// ones; channels where they are not finite do not count, because nothing says which of NaN and the infinities is right.
    pub fn add(&mut self, layer: &Layer, moments: &[Moments], mean: &[f32], var: &[f32]) {
        for (channel, moments) in moments.iter().enumerate().filter(|(_, moments)| !moments.var.is_nan()) {
            let (exact_mean, exact_var) = (moments.mean.rounded(), layer.running_var.of(moments));
            let scale = exact_mean.abs().max(moments.var.sqrt());
            self.mean.add(channel, f64::from(mean[channel]), exact_mean, scale, SMALLEST);
            self.var.add(channel, f64::from(var[channel]), exact_var, exact_var, SMALLEST);
        }
    }

    /// Takes the worse of two, result by result.
    pub fn merge(&mut self, other: &Self) {
        self.mean.merge(&other.mean);
        self.var.merge(&other.var);
    }
}

/// The worst errors of a forward call and the backward call after it, in the scales that [`Forward`] and [`Gradients`] state.
#[derive(Debug, Clone)]
pub struct CallErrors {
    /// The output.
    pub y: Worst,
    /// The gradient of the input.
    pub dx: Worst,
    /// The gradient of the residual.
    pub d_residual: Worst,
    /// The gradient of the weight.
    pub d_weight: Worst,
    /// The gradient of the bias.
    pub d_bias: Worst,
}

/// What a backward call under test wrote.
#[derive(Debug, Clone, Copy)]
pub struct Differentiated<'a> {
    /// The gradient of the input.
    pub dx: &'a [f32],
    /// The gradient of the residual; empty if there is none.
    pub d_residual: &'a [f32],
    /// The gradient of the weight.
    pub d_weight: &'a [f32],
    /// The gradient of the bias.
    pub d_bias: &'a [f32],
}

impl CallErrors {
    /// No error yet.
    #[must_use]
    pub fn none() -> Self {
        Self {
            y: Worst::new("y"),
            dx: Worst::new("dx"),
            d_residual: Worst::new("d_residual"),
            d_weight: Worst::new("d_weight"),
            d_bias: Worst::new("d_bias"),
        }
    }

    /// Takes an output into account.
    pub fn add_forward(&mut self, exact: &Forward, y: &[f32]) {
        for (index, &y) in y.iter().enumerate() {
            self.y.add(index, f64::from(y), exact.y[index], exact.y_scale[index], exact.y_underflow);
        }
    }

    /// Takes gradients into account.
    pub fn add_backward(&mut self, shape: Shape, exact: &Gradients, actual: Differentiated<'_>) {
        for channel in 0..shape.channels {
            let (of_dx, of_weight) = (exact.dx_underflow[channel], exact.d_weight_underflow[channel]);
            let (of_bias, of_residual) = (exact.d_bias_underflow, exact.d_residual_underflow);
            for index in shape.indices(channel) {
                self.dx.add(index, f64::from(actual.dx[index]), exact.dx[index], exact.dx_scale[index], of_dx);
                if let Some(&g) = actual.d_residual.get(index) {
                    let scale = exact.d_residual_scale[index];
                    self.d_residual.add(index, f64::from(g), exact.d_residual[index], scale, of_residual);
                }
            }
            let (weight, bias) = (f64::from(actual.d_weight[channel]), f64::from(actual.d_bias[channel]));
            self.d_weight.add(channel, weight, exact.d_weight[channel], exact.d_weight_scale[channel], of_weight);
            self.d_bias.add(channel, bias, exact.d_bias[channel], exact.d_bias_scale[channel], of_bias);
        }
    }

    /// Takes the worse of two, result by result.
    pub fn merge(&mut self, other: &Self) {
        self.y.merge(&other.y);
        self.dx.merge(&other.dx);
        self.d_residual.merge(&other.d_residual);
        self.d_weight.merge(&other.d_weight);
        self.d_bias.merge(&other.d_bias);
    }

    /// All of them, in the order of the fields.
    #[must_use]
    pub fn each(&self) -> [&Worst; 5] {
        [&self.y, &self.dx, &self.d_residual, &self.d_weight, &self.d_bias]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layer::{Activation, Backward, Parameters, RunningVariance, Statistics};

    /// One unit, `2^-24`.
    const U: f32 = f32::EPSILON / 2.0;

    /// Channel 0 holds -1 and 1, channel 1 holds 2 and 6.
    const X: [f64; 4] = [-1.0, 2.0, 1.0, 6.0];
    const LAYER: Layer = Layer {
        shape: Shape { outer: 2, channels: 2, inner: 1 },
        eps: 1e-30,
        momentum: 1.0,
        running_var: RunningVariance::Biased,
        threshold: 1 << 32,
        activation: Activation::Identity,
    };

    #[test]
    fn each_result_is_measured_in_its_own_scale() {
        let moments = LAYER.moments(&X);
        let mut statistics = StatisticsErrors::none();
        statistics.add(&LAYER, &moments, &[0.0, 4.0], &[1.0, 4.0]);
        assert_eq!((statistics.mean.units(), statistics.var.units()), (0.0, 0.0));
        // Next to 0 the mean counts in standard deviations, next to 4 in itself.
        statistics.add(&LAYER, &moments, &[U, 4.0 + 8.0 * U], &[1.0, 4.0 + 8.0 * U]);
        assert_eq!((statistics.mean.units().round(), statistics.var.units()), (2.0, 2.0));

        let centres = LAYER.batch_statistics(&moments);
        let parameters = Parameters { weight: Some(&[1.0, 2.0]), bias: Some(&[0.0, 1.0]), residual: None };
        let forward = LAYER.forward(parameters, &centres, None, &X);
        let mut errors = CallErrors::none();
        errors.add_forward(&forward, &[-1.0, -1.0, 1.0, 3.0]);
        assert_eq!(errors.y.units(), 0.0);
        errors.add_forward(&forward, &[-1.0, -1.0, 1.0, 3.0 + 4.0 * U]);
        assert_eq!(errors.y.units(), 4.0 / 3.0);

        let call = Backward { mask: None, x: &X, dy: &[3.0, 1.0, 1.0, 1.0], z: None };
        let gradients = LAYER.backward(parameters, &centres, Statistics::Batch, call);
        let exact = Differentiated { dx: &[0.0; 4], d_residual: &[], d_weight: &[-2.0, 0.0], d_bias: &[4.0, 2.0] };
        errors.add_backward(LAYER.shape, &gradients, exact);
        assert!(errors.each().iter().all(|worst| worst.units() < 2.0), "{errors:?}");
        let wrong = Differentiated { d_weight: &[-2.0 + 8.0 * U, 0.0], ..exact };
        errors.add_backward(LAYER.shape, &gradients, wrong);
        assert_eq!(errors.d_weight.units(), 2.0);
    }
}
