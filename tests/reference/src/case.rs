//! One problem for a kernel under test: all that it is given, drawn from a seed, and the check of what it makes of it.

use std::fmt;

use crate::classes::{Class, class};
use crate::errors::{Bounds, CallErrors, Differentiated, StatisticsErrors};
use crate::layer::{Activation, Backward, Layer, Parameters, RunningVariance, Shape, Statistics, widened};
use crate::mask;
use crate::units::Worst;

/// Everything that a training step of one layer is given. The fields are there to be changed.
#[derive(Debug, Clone)]
pub struct Case {
    /// The shape and the constants.
    pub layer: Layer,
    /// The scale per channel.
    pub weight: Vec<f32>,
    /// The shift per channel.
    pub bias: Vec<f32>,
    /// The dropout mask, one bit per element, if dropout is on.
    pub mask: Option<Vec<u8>>,
    /// The input, `[outer, channels, inner]`.
    pub x: Vec<f32>,
    /// The gradient of the output.
    pub dy: Vec<f32>,
}

/// What a kernel under test has made of a [`Case`]. What it does not compute is not compared.
#[derive(Debug, Clone, Copy, Default)]
pub struct Output<'a> {
    /// Mean and variance of the batch per channel; the variance is the one that [`Layer::running_var`] says.
    pub statistics: Option<(&'a [f32], &'a [f32])>,
    /// The output.
    pub y: Option<&'a [f32]>,
    /// The gradients.
    pub gradients: Option<Differentiated<'a>>,
    /// The argument of the activation, if the kernel gives it away. At a kink of [`Activation::Relu6`] or
    /// [`Activation::HardSwish`] it says which derivative is right where rounding decides; ReLU's output says so by itself.
    pub z: Option<&'a [f32]>,
}

/// The worst errors of an output.
#[derive(Debug, Clone)]
pub struct Errors {
    /// Of the statistics.
    pub statistics: StatisticsErrors,
    /// Of output and gradients.
    pub call: CallErrors,
}

impl Case {
    /// A batch norm without activation and dropout, in training: a pure function of its arguments.
    ///
    /// Channel after channel takes the next class. Weight, bias and the gradient of the output are normal. `eps` is 1e-5, the
    /// variance the biased one; other constants are other fields of [`Self::layer`].
    ///
    /// # Panics
    /// If there is no class or no value.
    #[must_use]
    pub fn new(shape: Shape, classes: &[Class], seed: u64) -> Self {
        assert!(!classes.is_empty() && !shape.is_empty(), "a case has a class of data, and values");
        // Seeds that differ in the upper bits have nothing to do with each other.
        let of = |what: u64, channel: usize| seed ^ (what << 60) ^ ((channel as u64) << 40);
        let normal = |what, channel, len| class("normal").values(of(what, channel), len);
        let samples = shape.samples();
        Self {
            layer: Layer {
                shape,
                eps: 1e-5,
                momentum: 1.0,
                running_var: RunningVariance::Biased,
                threshold: mask::threshold(0.0),
                activation: Activation::Identity,
            },
            weight: normal(1, 0, shape.channels),
            bias: normal(2, 0, shape.channels),
            mask: None,
            x: shape.tensor(|channel| classes[channel % classes.len()].values(of(3, channel), samples)),
            dy: shape.tensor(|channel| normal(4, channel, samples)),
        }
    }

    /// The same with an activation.
    #[must_use]
    pub fn with_activation(mut self, activation: Activation) -> Self {
        self.layer.activation = activation;
        self
    }

    /// The same with dropout, which drops with probability `p`.
    #[must_use]
    pub fn with_dropout(mut self, p: f64, seed: u64) -> Self {
        self.layer.threshold = mask::threshold(p);
        self.mask = Some(mask::bytes(seed, self.layer.threshold, self.x.len()));
        self
    }

    /// Compares an output with the exact one. What is not finite in the exact one has to be the same there.
    #[must_use]
    pub fn errors(&self, output: Output<'_>) -> Errors {
        let Self { layer, weight, bias, mask, x, dy } = self;
        let (weight, bias, x, dy) = (widened(weight), widened(bias), widened(x), widened(dy));
        let parameters = Parameters { weight: Some(&weight), bias: Some(&bias), residual: None };
        let mask = mask.as_deref();
        let moments = layer.moments(&x);
        let centres = layer.batch_statistics(&moments);
        let mut errors = Errors { statistics: StatisticsErrors::none(), call: CallErrors::none() };
        if let Some((mean, var)) = output.statistics {
            errors.statistics.add(layer, &moments, mean, var);
        }
        if let Some(y) = output.y {
            errors.call.add_forward(&layer.forward(parameters, &centres, mask, &x), y);
        }
        if let Some(gradients) = output.gradients {
            // Where the kink is at 0, the sign of z decides, and y has it.
            let sign = output.y.filter(|_| layer.activation.kinks() == [0.0]);
            let call = Backward { mask, x: &x, dy: &dy, z: output.z.or(sign) };
            let exact = layer.backward(parameters, &centres, Statistics::Batch, call);
            errors.call.add_backward(layer.shape, &exact, gradients);
        }
        errors
    }

    /// Compares an output with the exact one.
    ///
    /// # Errors
    /// A sentence about the first kind of result that is out of its bound: where, what it is, and what it should be.
    pub fn check(&self, output: Output<'_>, bounds: &Bounds) -> Result<Errors, String> {
        let errors = self.errors(output);
        errors.within(bounds)?;
        Ok(errors)
    }
}

impl Errors {
    /// All errors, each with what bounds it.
    fn each(&self, bounds: &Bounds) -> impl Iterator<Item = (&Worst, f64)> {
        let statistics = [(&self.statistics.mean, bounds.mean), (&self.statistics.var, bounds.var)];
        statistics.into_iter().chain(self.call.each().into_iter().zip(bounds.of_call()))
    }

    /// Whether every error is within its bound.
    ///
    /// # Errors
    /// A sentence about the first that is not.
    pub fn within(&self, bounds: &Bounds) -> Result<(), String> {
        self.each(bounds).try_for_each(|(worst, bound)| worst.within(bound))
    }

    /// Takes the worse of two, result by result.
    pub fn merge(&mut self, other: &Self) {
        self.statistics.merge(&other.statistics);
        self.call.merge(&other.call);
    }
}

impl fmt::Display for Errors {
    /// The errors in units of 2^-24 of their scales; what was not compared is 0.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (StatisticsErrors { mean, var }, CallErrors { y, dx, d_weight, d_bias, .. }) =
            (&self.statistics, &self.call);
        let [mean, var, y, dx, d_weight, d_bias] = [mean, var, y, dx, d_weight, d_bias].map(Worst::units);
        write!(
            f,
            "mean {mean:.1} u, variance {var:.1} u, y {y:.1} u, dx {dx:.1} u, d_weight {d_weight:.1} u, d_bias {d_bias:.1} u"
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::errors::PROMISE;

    const SHAPE: Shape = Shape { outer: 5, channels: 3, inner: 7 };

    /// What the reference itself makes of a case, rounded once.
    struct Rounded {
        mean: Vec<f32>,
        var: Vec<f32>,
        y: Vec<f32>,
        dx: Vec<f32>,
        d_weight: Vec<f32>,
        d_bias: Vec<f32>,
    }

    #[expect(clippy::cast_possible_truncation, reason = "rounded once")]
    fn rounded(values: &[f64]) -> Vec<f32> {
        values.iter().map(|&value| value as f32).collect()
    }

    impl Rounded {
        fn of(case: &Case) -> Self {
            let (weight, bias) = (widened(&case.weight), widened(&case.bias));
            let parameters = Parameters { weight: Some(&weight), bias: Some(&bias), residual: None };
            let (x, dy, mask) = (widened(&case.x), widened(&case.dy), case.mask.as_deref());
            let moments = case.layer.moments(&x);
            let centres = case.layer.batch_statistics(&moments);
            let forward = case.layer.forward(parameters, &centres, mask, &x);
            let call = Backward { mask, x: &x, dy: &dy, z: None };
            let gradients = case.layer.backward(parameters, &centres, Statistics::Batch, call);
            let of_moments =
                |of: fn(&crate::layer::Moments) -> f64| rounded(&moments.iter().map(of).collect::<Vec<_>>());
            Self {
                mean: of_moments(|moments| moments.mean.rounded()),
                var: of_moments(|moments| moments.var),
                y: rounded(&forward.y),
                dx: rounded(&gradients.dx),
                d_weight: rounded(&gradients.d_weight),
                d_bias: rounded(&gradients.d_bias),
            }
        }

        fn output(&self) -> Output<'_> {
            let Self { mean, var, y, dx, d_weight, d_bias } = self;
            let gradients = Some(Differentiated { dx, d_residual: &[], d_weight, d_bias });
            Output { statistics: Some((mean, var)), y: Some(y), gradients, z: None }
        }
    }

    fn case() -> Case {
        Case::new(SHAPE, &[class("normal"), class("offset 1e4")], 7)
    }

    #[test]
    fn a_case_is_a_function_of_its_arguments() {
        assert_eq!((case().x, case().weight), (case().x, case().weight));
        assert_ne!(case().x, Case::new(SHAPE, &[class("normal"), class("offset 1e4")], 8).x);
        // The classes take turns.
        assert!(case().x[..7].iter().all(|x| x.abs() < 10.0) && case().x[7..14].iter().all(|&x| x > 9e3));
    }

    #[test]
    fn exact_results_are_wrong_by_one_rounding_at_most() {
        for case in [case(), case().with_activation(Activation::Relu).with_dropout(0.25, 1)] {
            let rounded = Rounded::of(&case);
            let errors = case.check(rounded.output(), &PROMISE).expect("within the bounds");
            assert!(errors.each(&PROMISE).all(|(worst, _)| worst.units() <= 1.0), "{errors}");
        }
    }

    #[test]
    fn each_result_that_is_wrong_is_named() {
        type Wrong = fn(&mut Rounded);
        let wrongs: [(&str, Wrong); 6] = [
            ("mean", |rounded| rounded.mean[1] *= 1.001),
            ("variance", |rounded| rounded.var[2] *= 1.001),
            ("y", |rounded| rounded.y[20] += 0.001),
            ("dx", |rounded| rounded.dx[20] = f32::NAN),
            ("d_weight", |rounded| rounded.d_weight[0] += 0.001),
            ("d_bias", |rounded| rounded.d_bias[0] += 0.001),
        ];
        for (name, wrong) in wrongs {
            let mut rounded = Rounded::of(&case());
            wrong(&mut rounded);
            let sentence = case().check(rounded.output(), &PROMISE).expect_err(name);
            assert!(sentence.starts_with(&format!("{name} is wrong by")), "{sentence}");
        }
    }

    #[test]
    fn what_is_not_given_is_not_compared() {
        assert!(case().check(Output::default(), &PROMISE).is_ok());
    }
}
