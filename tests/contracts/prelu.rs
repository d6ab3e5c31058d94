//! PReLU: everything but the gradient of the slopes has the bits of LeakyReLU with the slope of each
//! channel, the gradient of the slopes is that of the reference, and all of it is the same on every
//! backend, in every environment and for every number of tasks.

use normdrop::{
    Backend, Backward, Buffer, Config, Dropout, Error, Eval, EvalInPlace, EvalPrepared, Granularity, Identity, Layer,
    LeakyRelu, Masked, ParameterGradients, Parameters, RunningMut, SavedMut, Shape, Statistics, Train, Validity,
};
use normdrop_reference::classes::{CLASSES, class};
use normdrop_reference::layer::widened;
use normdrop_reference::prelu as reference;
use normdrop_reference::random::SplitMix64;
use proptest::prelude::*;
use serde::Deserialize;

use crate::digest::backends;
use crate::digest::corpus::environment::{enter, leave, raised};
use crate::environment::in_every_environment;
use crate::support::{Differentiated, Problem, Trained, bits};

/// `2^-24`.
const U: f64 = 1.0 / (1 << 24) as f64;

/// The error of the gradient of a slope, in units of the sum of the sizes of its summands.
const SLOPE_BOUND: f64 = 3.0;

/// A problem and the slopes.
#[derive(Debug, Clone)]
struct Case {
    problem: Problem,
    slopes: Vec<f32>,
}

/// What a backward call writes.
#[derive(Debug, Clone)]
struct Gradients {
    others: Differentiated,
    d_slope: Vec<f32>,
}

impl Gradients {
    fn bits(&self) -> Vec<u32> {
        self.others.bits().into_iter().chain(bits(&self.d_slope)).collect()
    }
}

impl Case {
    fn slope(&self, element: usize) -> f32 {
        match self.slopes[..] {
            [one] => one,
            _ => self.slopes[self.channel(element)],
        }
    }

    fn channel(&self, element: usize) -> usize {
        element / self.problem.inner % self.problem.channels
    }

    fn layers(&self) -> impl Iterator<Item = Layer<Identity>> {
        let layer = self.problem.layer::<Identity>();
        backends().map(move |backend| layer.with_backend(backend).expect("an available backend"))
    }

    fn train(&self, layer: &Layer<Identity>, contents: f64) -> Result<Trained, Error> {
        let problem = &self.problem;
        let mut trained = Trained {
            y: vec![f32::NAN; problem.x.len()],
            running_mean: problem.running_mean.clone(),
            running_mean_tail: None,
            running_var: problem.running_var.clone(),
            batches: None,
            mean: vec![f32::NAN; problem.channels],
            mean_tail: vec![f32::NAN; problem.channels],
            inv_std: vec![f64::NAN; problem.channels],
        };
        let Trained { y, running_mean, running_var, mean, mean_tail, inv_std, .. } = &mut trained;
        let mut scratch = vec![contents; layer.train_scratch_len()];
        let call = Train {
            parameters: problem.parameters(),
            running: Some(RunningMut::new(running_mean, running_var)),
            dropout: problem.dropout(),
            residual: problem.residual.as_deref(),
            ..Train::new(&problem.x, y, SavedMut { mean, mean_tail, inv_std }, &mut scratch)
        };
        layer.train_prelu(call, &self.slopes)?;
        Ok(trained)
    }

    /// Evaluation, out of place, in place, and prepared with PReLU after it.
    fn eval(&self, layer: &Layer<Identity>) -> Vec<f32> {
        let problem = &self.problem;
        let mut y = vec![f32::NAN; problem.x.len()];
        let mut scratch = vec![f64::NAN; layer.eval_scratch_len()];
        let (parameters, dropout) = (problem.parameters(), problem.dropout());
        let residual = problem.residual.as_deref();
        let call = Eval::new(problem.running(), &problem.x, &mut y, &mut scratch);
        layer.eval_prelu(Eval { parameters, dropout, residual, ..call }, &self.slopes).expect("no faults");
        let mut values = problem.x.clone();
        scratch.fill(0.0);
        let call = EvalInPlace::new(problem.running(), &mut values, &mut scratch);
        layer.eval_prelu_in_place(EvalInPlace { parameters, dropout, residual, ..call }, &self.slopes).expect("none");
        assert_eq!(bits(&values), bits(&y), "in place is not the same as out of place");
        let prepared = problem.try_prepare(layer).expect("statistics of a layer");
        values.fill(f32::NAN);
        let call = EvalPrepared::new(&prepared, &problem.x, &mut values, &mut scratch);
        layer.eval_prepared(EvalPrepared { dropout, residual, ..call }).expect("no faults");
        layer.prelu(&self.slopes, &mut values).expect("no faults");
        assert_eq!(bits(&values), bits(&y), "prepared is not the same as unprepared");
        y
    }

    fn backward(
        &self,
        layer: &Layer<Identity>,
        (parameters, statistics): (Parameters<'_>, Statistics<'_>),
        contents: f64,
    ) -> Result<Gradients, Error> {
        let problem = &self.problem;
        let mut gradients = Gradients {
            others: Differentiated {
                dx: vec![f32::NAN; problem.x.len()],
                d_residual: problem.residual.iter().flat_map(|residual| vec![f32::NAN; residual.len()]).collect(),
                d_weight: vec![f32::NAN; problem.channels],
                d_bias: vec![f32::NAN; problem.channels],
            },
            d_slope: vec![f32::NAN; self.slopes.len()],
        };
        let Gradients { others: Differentiated { dx, d_residual, d_weight, d_bias }, d_slope } = &mut gradients;
        let mut scratch = vec![contents; layer.prelu_scratch_len()];
        let call = Backward {
            parameters,
            dropout: problem.dropout(),
            residual: problem.residual.as_deref(),
            grad_input: Some(dx),
            grad_residual: problem.residual.as_ref().map(|_| &mut d_residual[..]),
            grad_parameters: ParameterGradients::new(d_weight, d_bias),
            ..Backward::new(statistics, &problem.x, &problem.dy, &mut scratch)
        };
        layer.backward_prelu(call, &self.slopes, Some(d_slope))?;
        Ok(gradients)
    }

    /// Whether PReLU and then dropout, of values in which a scale is not folded, round as dropout and then PReLU.
    fn rounds_as_leaky(&self) -> bool {
        self.problem.residual.is_none() || self.problem.mask.is_none()
    }

    /// Compares each channel with a layer whose LeakyReLU has its slope.
    fn compare_with_leaky(
        &self,
        trained: &Trained,
        of_eval: &[f32],
        all: &[(&str, &Gradients)],
    ) -> Result<(), TestCaseError> {
        let mut slopes = self.slopes.clone();
        slopes.sort_by(f32::total_cmp);
        slopes.dedup_by_key(|slope| slope.to_bits());
        for slope in slopes {
            let leaky = Problem { slope, ..self.problem.clone() };
            let same = |what: &str, found: &[f32], expected: &[f32]| {
                let both = found.iter().zip(expected).enumerate();
                for (element, (found, expected)) in both {
                    let channel = if found_is_per_channel(what) { element } else { self.channel(element) };
                    let of_channel = if self.slopes.len() == 1 { self.slopes[0] } else { self.slopes[channel] };
                    let equal = found == expected || found.is_nan() && expected.is_nan();
                    prop_assert!(
                        of_channel.to_bits() != slope.to_bits() || equal,
                        "{} {}: {} is not {}",
                        what,
                        element,
                        found,
                        expected
                    );
                }
                Ok(())
            };
            if self.rounds_as_leaky() {
                same("y", &trained.y, &leaky.train::<LeakyRelu>().y)?;
                same("y of eval", of_eval, &leaky.eval::<LeakyRelu>())?;
            }
            let fixed = leaky.backward::<LeakyRelu>(Statistics::Fixed(self.problem.running()));
            let batch = leaky.backward::<LeakyRelu>(Statistics::Batch(trained.saved()));
            for (statistics, gradients) in all {
                let expected = if *statistics == "batch" { &batch } else { &fixed };
                same("dx", &gradients.others.dx, &expected.dx)?;
                same("d_residual", &gradients.others.d_residual, &expected.d_residual)?;
                same("d_weight", &gradients.others.d_weight, &expected.d_weight)?;
                same("d_bias", &gradients.others.d_bias, &expected.d_bias)?;
            }
        }
        Ok(())
    }

    /// Compares the gradient of the slopes with the reference, of `y` before PReLU.
    fn compare_slopes(&self, y: &[f32], gradients: &Gradients) -> Result<f64, TestCaseError> {
        let finite: Vec<f32> = y.iter().map(|y| y.clamp(f32::MIN, f32::MAX)).collect();
        let dy = widened(&self.problem.dy);
        let of =
            |y: &[f32]| reference::slope_gradients(self.problem.reference_shape(), self.slopes.len(), &widened(y), &dy);
        let mut worst = 0.0_f64;
        let all = gradients.d_slope.iter().zip(of(y)).zip(of(&finite));
        for ((&found, [_, scale_of_all]), [exact, scale]) in all {
            let found = f64::from(found);
            if !scale.is_finite() {
                prop_assert!(!found.is_finite(), "{} is not {}", found, exact);
                continue;
            }
            if !scale_of_all.is_finite() && found.is_infinite() {
                // Of an infinite `y`, which counts as the largest f32 only if the sum would be NaN.
                continue;
            }
            // What underflows in a product of f32 is lost.
            let underflow = y.len() as f64 * f64::from(f32::from_bits(1));
            let error = (found - exact).abs();
            let fits = exact.abs() <= f64::from(f32::MAX);
            prop_assert!(!fits || error <= SLOPE_BOUND * U * scale + underflow, "{} is not {}", found, exact);
            prop_assert!(fits || found.is_infinite(), "{} is not {}", found, exact);
            if fits && scale > 1e-30 {
                worst = worst.max(error / scale / U);
            }
        }
        Ok(worst)
    }

    /// All calls, compared with everything.
    fn check(&self) -> Result<f64, TestCaseError> {
        let problem = &self.problem;
        let prepared = problem.try_prepare(&problem.layer::<Identity>()).expect("statistics of a layer");
        let mut first = None;
        let mut worst = 0.0_f64;
        for layer in self.layers() {
            let trained = self.train(&layer, f64::NAN).expect("no faults");
            prop_assert_eq!(trained.bits(), self.train(&layer, 0.0).expect("no faults").bits(), "scratch matters");
            let of_eval = self.eval(&layer);
            let (parameters, running) = (problem.parameters(), problem.running());
            let of = |parameters, statistics, contents| {
                self.backward(&layer, (parameters, statistics), contents).expect("no faults")
            };
            let batch = of(parameters, Statistics::Batch(trained.saved()), f64::NAN);
            let fixed = of(parameters, Statistics::Fixed(running), f64::NAN);
            let again = of(Parameters::default(), Statistics::Prepared(&prepared), 0.0);
            prop_assert_eq!(again.bits(), fixed.bits(), "prepared is not the same as unprepared");
            let found = (trained.bits(), bits(&of_eval), [batch.bits(), fixed.bits()]);
            if first.is_some() {
                prop_assert!(first.as_ref() == Some(&found), "{:?} has other bits", layer);
                continue;
            }
            first = Some(found);
            // What PReLU is applied to.
            let (y, y_of_eval) = (problem.train::<Identity>().y, problem.eval::<Identity>());
            for (y, linear) in [(&trained.y, &y), (&of_eval, &y_of_eval)] {
                let expected: Vec<f32> = linear
                    .iter()
                    .enumerate()
                    .map(|(element, &z)| if z < 0.0 { self.slope(element) * z } else { z })
                    .collect();
                prop_assert_eq!(bits(y), bits(&expected));
            }
            self.compare_with_leaky(&trained, &of_eval, &[("batch", &batch), ("fixed", &fixed)])?;
            worst = worst.max(self.compare_slopes(&y, &batch)?).max(self.compare_slopes(&y_of_eval, &fixed)?);
        }
        prop_assert!(first.is_some(), "no backend has run");
        Ok(worst)
    }
}

fn found_is_per_channel(what: &str) -> bool {
    matches!(what, "d_weight" | "d_bias")
}

/// Slopes of which some are equal, 0 or negative.
fn slopes(count: usize, random: &mut SplitMix64) -> Vec<f32> {
    const SLOPES: [f32; 6] = [0.25, 0.0, -0.5, 1.0, 3.0, 0.1];
    (0..count).map(|_| SLOPES[random.next_below(SLOPES.len())]).collect()
}

fn shapes() -> impl Strategy<Value = [usize; 3]> {
    prop_oneof![
        (1_usize..6, 1_usize..40, 16_usize..70).prop_map(|(outer, channels, inner)| [outer, channels, inner]),
        (1_usize..40, 1_usize..40, 1_usize..16).prop_map(|(outer, channels, inner)| [outer, channels, inner]),
        (1_usize..30, 1_usize..600, Just(1)).prop_map(|(outer, channels, inner)| [outer, channels, inner]),
        (1_usize..9, 30_usize..90, 7_usize..16).prop_map(|(outer, channels, inner)| [outer, channels, inner]),
        (1_usize..4, 1_usize..4, 200_usize..1100).prop_map(|(outer, channels, inner)| [outer, channels, inner]),
    ]
}

fn cases() -> impl Strategy<Value = Case> {
    let dropout = prop_oneof![Just(None), Just(Some(1.0)), (0.0..0.9).prop_map(Some)];
    (shapes(), any::<u64>(), dropout, any::<[bool; 3]>(), 0_usize..CLASSES.len(), 0_usize..4).prop_map(
        |(shape, seed, dropout, [one, residual, any_class], first_class, granularity)| {
            let mut random = SplitMix64::new(seed);
            let class_of = |channel| {
                if any_class { CLASSES[(first_class + channel) % CLASSES.len()] } else { class("normal") }
            };
            // One value per channel has no unbiased variance.
            let shape = if shape[0] * shape[2] == 1 { [2, shape[1], shape[2]] } else { shape };
            let mut problem = Problem::random(shape, class_of, random.next_u64());
            if granularity < 3 {
                let granularity = [Granularity::Element, Granularity::Channel, Granularity::Sample][granularity];
                problem = problem.with_granularity(granularity, 1);
            }
            if residual {
                problem = problem.with_residual(class("normal"), random.next_u64());
            }
            if let Some(p) = dropout {
                problem = problem.with_mask(p, random.next_u64());
            }
            let slopes = slopes(if one { 1 } else { shape[1] }, &mut random);
            Case { problem, slopes }
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn prelu_contract_every_call_is_leaky_relu_channel_by_channel_and_the_slopes_have_their_gradient(case in cases()) {
        case.check()?;
    }
}

/// The walks with whole blocks, parts and tables of several strips, and slopes in several strips.
#[test]
fn prelu_contract_larger_tensors_too() {
    let mut worst = 0.0_f64;
    for (number, shape) in [
        [3, 17, 300],
        [1, 1, 66_000],
        [2, 33, 257],
        [4113, 3, 1],
        [20, 1040, 1],
        [18, 200, 3],
        [5, 4097, 1],
        [40, 100, 15],
    ]
    .into_iter()
    .enumerate()
    {
        let mut random = SplitMix64::new(number as u64);
        let problem = Problem::random(shape, |_| class("normal"), random.next_u64()).with_mask(0.2, 5);
        let slopes = slopes(shape[1], &mut random);
        worst = worst.max(Case { problem, slopes }.check().expect("the contract"));
    }
    println!("d_slope: {worst:.2} u");
}

fn small(slopes: &[f32]) -> Case {
    let problem = Problem::random([3, 2, 5], |_| class("normal"), 7).with_residual(class("normal"), 8);
    Case { problem: problem.with_mask(0.3, 9), slopes: slopes.to_vec() }
}

#[test]
fn prelu_contract_the_gradient_of_one_slope_is_the_sum_over_all_channels() {
    let (each, one) = (small(&[0.25, 0.25]), small(&[0.25]));
    let layer = each.problem.layer::<Identity>();
    let call = |case: &Case| {
        let call = (case.problem.parameters(), Statistics::Fixed(case.problem.running()));
        case.backward(&layer, call, 0.0).expect("no faults")
    };
    let (each, one) = (call(&each), call(&one));
    assert_eq!(one.others.bits(), each.others.bits());
    let sum = each.d_slope[0] + each.d_slope[1];
    assert!((one.d_slope[0] - sum).abs() <= 2.0 * f32::EPSILON * sum.abs(), "{one:?} is not {sum}");
    assert!(sum != 0.0);
}

/// What is dropped is +0.0 and without influence, whatever slope and values are.
#[test]
fn prelu_contract_a_dropped_element_is_selected() {
    for slope in [-1.0, f32::NAN, f32::INFINITY, f32::NEG_INFINITY, 0.0] {
        let mut case = small(&[slope, 0.5]);
        let dropped = (0..case.problem.x.len()).filter(|&element| case.problem.drops(element));
        for element in dropped.collect::<Vec<_>>() {
            case.problem.dy[element] = f32::NAN;
            if let Some(residual) = &mut case.problem.residual {
                residual[element] = f32::NAN;
            }
        }
        let layer = case.problem.layer::<Identity>();
        let y = case.eval(&layer);
        let statistics = (case.problem.parameters(), Statistics::Fixed(case.problem.running()));
        let gradients = case.backward(&layer, statistics, 0.0).expect("no faults");
        let mut kept = 0;
        for (element, &y) in y.iter().enumerate() {
            if case.problem.drops(element) {
                assert_eq!(y.to_bits(), 0, "slope {slope}");
                assert_eq!(gradients.others.dx[element], 0.0, "slope {slope}");
                assert_eq!(gradients.others.d_residual[element], 0.0, "slope {slope}");
            } else {
                kept += 1;
                // A NaN stays in its channel.
                assert!(y.is_finite() || case.channel(element) == 0, "slope {slope}");
            }
        }
        assert!(kept > 9, "some are kept");
        assert!(gradients.d_slope.iter().all(|gradient| gradient.is_finite()), "slope {slope}: {gradients:?}");
        assert!(gradients.others.d_weight[1].is_finite() && gradients.others.d_bias[1].is_finite());
    }
}

/// Products beyond f32, sums beyond f32, and NaN.
#[test]
fn prelu_contract_sums_that_do_not_fit_are_infinite_and_never_nan() {
    let layer = Layer::new(Shape::nc(6, 4).expect("small"), Identity, Config::DEFAULT).expect("constants");
    let (a, b) = (-1e30, 1e20);
    // Products of either sign that cancel; one that does not; the smallest; a NaN.
    let y = [
        [a, a, -1e-30, f32::NAN],
        [a, a, -1e-30, -1.0],
        [-2.0, 1.0, -1e-30, -1.0],
        [1e30, 1.0, 1.0, 1.0],
        [0.0, -0.0, 0.0, 0.0],
        [a, 1.0, -1e-30, -1.0],
    ];
    let dy = [
        [b, b, 1.0, 1.0],
        [-b, b, 1.0, 1.0],
        [3.0, b, 1.0, 1.0],
        [b, b, 1.0, 1.0],
        [f32::INFINITY, f32::INFINITY, 1.0, 1.0],
        [0.0, b, 1.0, 1.0],
    ];
    for layer in backends().map(|backend| layer.with_backend(backend).expect("available")) {
        let (mut values, mut d_slope) = (y.as_flattened().to_vec(), [0.0; 4]);
        let mut scratch = vec![f64::NAN; layer.prelu_scratch_len()];
        let slopes = [0.25, 0.5, 2.0, 1.0];
        layer
            .prelu_gradient(&slopes, dy.as_flattened(), &mut values, Some(&mut d_slope), &mut scratch)
            .expect("no faults");
        // An infinite value that is not below 0 has no part in a sum.
        let (mut infinite, mut of_finite) = ([f32::INFINITY, -2.0, -1.0, 1.0], [0.0; 2]);
        let two = layer.with_shape(Shape::nc(2, 2).expect("small"));
        two.prelu_gradient(&[0.5; 2], &[3.0; 4], &mut infinite, Some(&mut of_finite), &mut scratch).expect("no faults");
        assert_eq!((infinite, of_finite), ([3.0, 1.5, 1.5, 3.0], [-3.0, -6.0]));
        // In f32 the products of the first channel are infinite, and their sum would be NaN.
        assert_eq!((d_slope[0], d_slope[1]), (-6.0, f32::NEG_INFINITY));
        assert!((d_slope[2] + 4e-30).abs() < 1e-36, "{d_slope:?}");
        assert!(d_slope[3].is_nan());
        assert!(values[3].is_nan(), "where y is NaN");
        assert_eq!(values[16..20], [f32::INFINITY, f32::INFINITY, 2.0, 1.0], "the derivative at 0 is the slope");
        assert_eq!([values[0], values[12], values[8]], [0.25 * b, b, 0.75]);
    }
}

/// Finite tensors may give a `z` of minus infinity. Its product with a `dy` of 0 is not NaN, and neither is the sum of two
/// such products of different signs.
#[test]
fn prelu_contract_finite_tensors_never_give_a_gradient_of_nan() {
    let layer = Layer::new(Shape::nc(4, 3).expect("small"), Identity, Config::DEFAULT).expect("constants");
    let (weight, huge) = ([3e38; 3], -3e38);
    let x = [[huge, huge, -2.0], [1.0, huge, 1.0], [2.0, 1.0, 1.0], [1.0, 1.0, 1.0]];
    let dy = [[0.0, 2.0, 1.0], [1.0, -2.0, 1.0], [1.0, 1.0, 1.0], [1.0, 1.0, 1.0]];
    let running = normdrop::Running::new(&[0.0; 3], &[1.0; 3]);
    for layer in backends().map(|backend| layer.with_backend(backend).expect("available")) {
        let (mut dx, mut d_slope) = ([f32::NAN; 12], [f32::NAN; 3]);
        let (mut y, mut scratch) = ([f32::NAN; 12], vec![f64::NAN; layer.prelu_scratch_len()]);
        let parameters = Parameters { weight: Some(&weight), bias: None };
        let call = Eval::new(running, x.as_flattened(), &mut y, &mut scratch);
        layer.eval_prelu(Eval { parameters, ..call }, &[0.25; 3]).expect("no faults");
        assert_eq!([y[0], y[1], y[4], y[2]], [f32::NEG_INFINITY; 4], "what does not fit is infinite");
        let call = Backward::new(Statistics::Fixed(running), x.as_flattened(), dy.as_flattened(), &mut scratch);
        let call = Backward { parameters, grad_input: Some(&mut dx), ..call };
        layer.backward_prelu(call, &[0.25; 3], Some(&mut d_slope)).expect("no faults");
        assert_eq!(d_slope, [0.0, 0.0, f32::NEG_INFINITY]);
        assert!(dx.iter().all(|dx| dx.is_finite()), "{dx:?}");
    }
}

/// PReLU after every other forward call, and before every other backward call: here over valid positions.
#[test]
fn prelu_contract_it_goes_with_masked_calls() {
    let case = {
        let mut problem = Problem::random([4, 3, 1], |_| class("normal"), 3);
        problem.positions = 2;
        Case { problem: problem.with_mask(0.3, 4), slopes: vec![0.5, -0.25, 2.0] }
    };
    let (problem, layer) = (&case.problem, case.problem.layer::<Identity>());
    let validity = Validity::Bitmap(&[0b1011]);
    let (mut scratch, mut workspace) =
        (vec![0.0; layer.masked_scratch_len().max(layer.prelu_scratch_len())], vec![0.0; layer.masked_workspace_len()]);
    let (mut y, mut linear) = (vec![f32::NAN; 12], vec![f32::NAN; 12]);
    let (mut mean, mut mean_tail, mut inv_std) = ([0.0; 3], [0.0; 3], [0.0; 3]);
    let mut train = |y: &mut [f32]| {
        let saved = SavedMut::new(&mut mean, &mut mean_tail, &mut inv_std);
        let call = Train::new(&problem.x, y, saved, &mut scratch);
        let call = Train { parameters: problem.parameters(), dropout: problem.dropout(), ..call };
        layer.train_masked(call, Masked::new(validity, &mut workspace)).expect("no faults");
    };
    train(&mut y);
    train(&mut linear);
    layer.prelu(&case.slopes, &mut y).expect("no faults");
    let mut g = linear.clone();
    let mut d_slope = [f32::NAN; 3];
    layer.prelu_gradient(&case.slopes, &problem.dy, &mut g, Some(&mut d_slope), &mut scratch).expect("no faults");
    let mut expected = [0.0; 3];
    for (element, &linear) in linear.iter().enumerate() {
        let (channel, dy) = (element % 3, problem.dy[element]);
        let padding = element / 3 == 2;
        assert!(!padding || y[element].to_bits() == 0, "padding stays +0.0");
        assert_eq!(y[element], if linear < 0.0 { case.slopes[channel] * linear } else { linear });
        assert_eq!(g[element], if linear > 0.0 { dy } else { case.slopes[channel] * dy });
        expected[channel] += linear.min(0.0) * dy;
    }
    for (found, expected) in d_slope.into_iter().zip(expected) {
        assert!((found - expected).abs() < 1e-6, "{d_slope:?} is not {expected}");
    }
    assert!(d_slope.iter().any(|gradient| *gradient != 0.0), "no value is below 0");
    let mut dx = vec![f32::NAN; 12];
    let statistics = Statistics::Batch(normdrop::Saved::new(&mean, &mean_tail, &inv_std));
    let call = Backward::new(statistics, &problem.x, &g, &mut scratch);
    let call = Backward { parameters: problem.parameters(), dropout: problem.dropout(), ..call };
    let call = Backward { grad_input: Some(&mut dx), ..call };
    layer.backward_masked(call, Masked::new(validity, &mut workspace)).expect("no faults");
    assert!(dx.iter().all(|dx| dx.is_finite()));
}

/// Each buffer one value too short or too long, and nothing is written.
#[test]
fn prelu_contract_wrong_arguments_are_refused_before_anything_is_written() {
    let case = small(&[0.25, 0.5]);
    let (problem, layer) = (&case.problem, case.problem.layer::<Identity>());
    let length = |buffer, expected, actual| Err(Error::Length { buffer, expected, actual });
    let mut scratch = vec![0.0; layer.prelu_scratch_len()];
    for wrong in [&[][..], &[0.5; 3]] {
        let refused = length(Buffer::Slope, 2, wrong.len());
        let mut values = vec![7.0; 30];
        assert_eq!(layer.prelu(wrong, &mut values), refused);
        assert_eq!(layer.prelu_gradient(wrong, &problem.dy, &mut values, None, &mut scratch), refused);
        let call = Eval::new(problem.running(), &problem.x, &mut values, &mut scratch);
        assert_eq!(layer.eval_prelu(call, wrong), refused);
        let call = EvalInPlace::new(problem.running(), &mut values, &mut scratch);
        assert_eq!(layer.eval_prelu_in_place(call, wrong), refused);
        let (mut mean, mut mean_tail, mut inv_std) = ([7.0; 2], [7.0; 2], [7.0; 2]);
        let saved = SavedMut::new(&mut mean, &mut mean_tail, &mut inv_std);
        let call = Train { dropout: Dropout::Off, ..Train::new(&problem.x, &mut values, saved, &mut scratch) };
        assert_eq!(layer.train_prelu(call, wrong), refused);
        let call = Backward::new(Statistics::Fixed(problem.running()), &problem.x, &problem.dy, &mut scratch);
        let call = Backward { grad_input: Some(&mut values), ..call };
        assert_eq!(layer.backward_prelu(call, wrong, None), refused);
        assert_eq!(mean, [7.0; 2]);
        assert_eq!(values, [7.0; 30]);
    }
    let (mut values, mut short, dy) = (vec![7.0; 30], vec![7.0; 29], &problem.dy);
    let slopes = &case.slopes[..];
    let refused = length(Buffer::Values, 30, 29);
    assert_eq!(layer.prelu(slopes, &mut short), refused);
    assert_eq!(layer.prelu_gradient(slopes, dy, &mut short, None, &mut scratch), refused);
    let refused = length(Buffer::GradOutput, 30, 29);
    assert_eq!(layer.prelu_gradient(slopes, &dy[1..], &mut values, None, &mut scratch), refused);
    let refused = length(Buffer::GradSlope, 2, 1);
    assert_eq!(layer.prelu_gradient(slopes, dy, &mut values, Some(&mut [7.0]), &mut scratch), refused);
    let refused = length(Buffer::GradSlope, 1, 2);
    assert_eq!(layer.prelu_gradient(&[0.5], dy, &mut values, Some(&mut [7.0; 2]), &mut scratch), refused);
    let needed = scratch.len();
    let refused = length(Buffer::Scratch, needed, needed - 1);
    assert_eq!(layer.prelu_gradient(slopes, dy, &mut values, None, &mut scratch[1..]), refused);

    let backward = |dropout, dx: Option<&mut [f32]>, grad_slope: Option<&mut [f32]>, scratch: &mut [f64]| {
        let statistics = Statistics::Fixed(problem.running());
        let call = Backward { dropout, grad_input: dx, ..Backward::new(statistics, &problem.x, dy, scratch) };
        layer.backward_prelu(call, slopes, grad_slope)
    };
    assert_eq!(backward(Dropout::Off, None, None, &mut scratch), length(Buffer::GradInput, 30, 0));
    assert_eq!(backward(Dropout::Off, Some(&mut short), None, &mut scratch), length(Buffer::GradInput, 30, 29));
    let gates = [0xFF; 4];
    for gates in [Dropout::Gates(&gates), Dropout::UnscaledGates(&gates)] {
        assert_eq!(backward(gates, Some(&mut values), None, &mut scratch), Err(Error::GatesActivation));
    }
    let refused = length(Buffer::GradSlope, 2, 3);
    assert_eq!(backward(Dropout::Off, Some(&mut values), Some(&mut [7.0; 3]), &mut scratch), refused);
    let refused = length(Buffer::Scratch, needed, needed - 1);
    assert_eq!(backward(Dropout::Off, Some(&mut values), None, &mut scratch[1..]), refused);
    assert_eq!((values, short), (vec![7.0; 30], vec![7.0; 29]));
}

#[test]
fn prelu_contract_an_empty_tensor_has_gradients_of_zero() {
    let layer = Layer::new(Shape::ncl(0, 3, 5).expect("empty"), Identity, Config::DEFAULT).expect("constants");
    let (mut d_slope, mut d_weight) = ([f32::NAN; 3], [f32::NAN; 3]);
    let mut scratch = vec![0.0; layer.prelu_scratch_len()];
    let statistics = Statistics::Fixed(normdrop::Running::new(&[0.0; 3], &[1.0; 3]));
    let call = Backward::new(statistics, &[0.0; 0], &[0.0; 0], &mut scratch);
    let grad_parameters = ParameterGradients { weight: Some(&mut d_weight), bias: None };
    let call = Backward { grad_input: Some(&mut []), grad_parameters, ..call };
    layer.backward_prelu(call, &[0.5; 3], Some(&mut d_slope)).expect("no faults");
    assert_eq!((d_slope, d_weight), ([0.0; 3], [0.0; 3]));
    let mut one = [f32::NAN];
    layer.prelu_gradient(&[0.5], &[], &mut [], Some(&mut one), &mut scratch).expect("no faults");
    assert_eq!(one, [0.0]);
}

#[test]
fn environment_contract_prelu_has_the_same_bits_in_every_environment() {
    let mut case = small(&[1e-30, 0.5]);
    // Subnormal products and sums, which flushing would take away.
    for (element, dy) in case.problem.dy.iter_mut().enumerate() {
        *dy *= if element / 5 % 2 == 0 { 1e-10 } else { 1e-38 };
    }
    for layer in case.layers() {
        let statistics = (case.problem.parameters(), Statistics::Fixed(case.problem.running()));
        // Bits are taken later: a comparison raises flags.
        let all = in_every_environment(|| {
            let mut g = case.problem.x.clone();
            let mut d_slope = [f32::NAN; 2];
            let mut scratch = vec![0.0; layer.prelu_scratch_len()];
            layer.prelu(&case.slopes, &mut g).expect("no faults");
            let forward = g.clone();
            layer
                .prelu_gradient(&case.slopes, &case.problem.dy, &mut g, Some(&mut d_slope), &mut scratch)
                .expect("none");
            let gradients = case.backward(&layer, statistics, 0.0).expect("no faults");
            (forward, g, d_slope, gradients)
        });
        let of = |(forward, g, d_slope, gradients): &(Vec<f32>, Vec<f32>, [f32; 2], Gradients)| {
            (bits(forward), bits(g), bits(d_slope), gradients.bits())
        };
        assert!(all.iter().all(|found| of(found) == of(&all[0])));
    }
}

#[test]
fn environment_contract_prelu_of_ordinary_numbers_raises_no_flag_but_inexact_and_underflow() {
    for shape in [[3, 2, 37], [9, 5, 3], [70, 3, 1]] {
        let problem = Problem::random(shape, |_| class("normal"), 7).with_mask(0.3, 9);
        let case = Case { slopes: vec![0.25; shape[1]], problem };
        for layer in case.layers() {
            let statistics = (case.problem.parameters(), Statistics::Fixed(case.problem.running()));
            let default = leave(enter(0));
            assert!(default);
            let trained = case.train(&layer, 0.0);
            assert!(!raised(), "training, {shape:?}");
            let gradients = case.backward(&layer, statistics, 0.0);
            assert!(!raised(), "backward, {shape:?}");
            assert!(trained.is_ok() && gradients.is_ok());
        }
    }
}

#[cfg(feature = "rayon")]
#[test]
fn prelu_contract_the_same_bits_for_every_number_of_tasks() {
    for shape in [[2, 40, 7001], [105_001, 5, 1], [1, 1, 525_003], [15_000, 7, 5], [3, 3, 60_000]] {
        let problem = Problem::random(shape, |_| class("normal"), 7).with_mask(0.3, 9);
        let mut random = SplitMix64::new(3);
        for count in [1, shape[1]] {
            let case = Case { slopes: slopes(count, &mut random), problem: problem.clone() };
            let one = case.problem.layer::<Identity>();
            let run = |layer: &Layer<Identity>| {
                let trained = case.train(layer, 0.0).expect("no faults");
                let statistics = (case.problem.parameters(), Statistics::Batch(trained.saved()));
                let gradients = case.backward(layer, statistics, 0.0).expect("no faults");
                (trained.bits(), gradients.bits())
            };
            let expected = run(&one);
            for tasks in [2, 3, 7] {
                assert!(run(&one.with_tasks(tasks)) == expected, "{shape:?}, {tasks} tasks");
            }
        }
    }
}

/// `pytorch/prelu.json`.
#[derive(Deserialize)]
struct Record {
    torch: String,
    samples: Vec<Sample>,
    networks: Vec<Sample>,
}

#[derive(Deserialize)]
struct Sample {
    name: String,
    dims: Vec<usize>,
    input_bits: String,
    slope_bits: String,
    #[serde(default)]
    weight_bits: String,
    #[serde(default)]
    bias_bits: String,
    output_bits: String,
    output_f64: String,
    grad_input_bits: String,
    grad_input_f64: String,
    grad_slope_f64: String,
    #[serde(default)]
    grad_weight_f64: String,
    #[serde(default)]
    grad_bias_f64: String,
}

fn singles(bits: &str) -> Vec<f32> {
    let value = |word| f32::from_bits(u32::from_str_radix(word, 16).expect("eight digits"));
    bits.split_ascii_whitespace().map(value).collect()
}

fn near(name: &str, found: &[f32], exact: &str, tolerance: f64) {
    let exact: Vec<f64> = exact.split_ascii_whitespace().map(|word| word.parse().expect("a number")).collect();
    assert_eq!(found.len(), exact.len(), "{name}");
    for (&found, exact) in found.iter().zip(exact) {
        let error = (f64::from(found) - exact).abs();
        assert!(error <= tolerance * exact.abs().max(1.0), "{name}: {found} is not {exact}");
    }
}

impl Sample {
    fn layer(&self, backend: Backend) -> Layer<Identity> {
        let shape = match self.dims[..] {
            [] => Shape::nc(1, 1),
            [len] => Shape::nc(len, 1),
            [n, c] => Shape::nc(n, c),
            [n, c, l] => Shape::ncl(n, c, l),
            [n, c, h, w] => Shape::nchw(n, c, h, w),
            _ => panic!("{:?}", self.dims),
        };
        let layer = shape.and_then(|shape| Layer::new(shape, Identity, Config::DEFAULT));
        layer.and_then(|layer| layer.with_backend(backend)).expect("a small shape")
    }

    /// What the script has for the gradient of the output.
    fn grad_output(&self) -> Vec<f32> {
        (0..self.dims.iter().product()).map(|element: usize| ((element % 7) as f32 - 3.0) / 4.0).collect()
    }
}

#[test]
fn prelu_contract_it_is_as_pytorch_has_it() {
    let record: Record = serde_json::from_str(include_str!("pytorch/prelu.json")).expect("the format");
    for (sample, backend) in record.samples.iter().flat_map(|sample| backends().map(move |backend| (sample, backend))) {
        let (layer, dy, slopes) = (sample.layer(backend), sample.grad_output(), singles(&sample.slope_bits));
        let mut y = singles(&sample.input_bits);
        let (mut g, mut d_slope) = (y.clone(), vec![f32::NAN; slopes.len()]);
        let mut scratch = vec![0.0; layer.prelu_scratch_len()];
        layer.prelu(&slopes, &mut y).expect("the lengths");
        layer.prelu_gradient(&slopes, &dy, &mut g, Some(&mut d_slope), &mut scratch).expect("the lengths");
        // Products alone: the very bits.
        assert_eq!(bits(&y), bits(&singles(&sample.output_bits)), "{}", sample.name);
        assert_eq!(g, singles(&sample.grad_input_bits), "{}", sample.name);
        near(&sample.name, &d_slope, &sample.grad_slope_f64, 4.0 * U);
    }
    for (sample, backend) in record.networks.iter().flat_map(|sample| backends().map(move |backend| (sample, backend)))
    {
        let (layer, dy, slopes) = (sample.layer(backend), sample.grad_output(), singles(&sample.slope_bits));
        let [x, weight, bias] = [&sample.input_bits, &sample.weight_bits, &sample.bias_bits].map(|bits| singles(bits));
        let (channels, mut y, mut dx) = (layer.shape().channels(), x.clone(), x.clone());
        let (mut mean, mut mean_tail, mut inv_std) = (vec![0.0; channels], vec![0.0; channels], vec![0.0; channels]);
        let (mut d_slope, mut d_weight, mut d_bias) = (slopes.clone(), weight.clone(), bias.clone());
        let mut scratch = vec![0.0; layer.prelu_scratch_len()];
        let parameters = Parameters::new(&weight, &bias);
        let saved = SavedMut::new(&mut mean, &mut mean_tail, &mut inv_std);
        let call = Train { parameters, ..Train::new(&x, &mut y, saved, &mut scratch) };
        layer.train_prelu(call, &slopes).expect("the lengths");
        let statistics = Statistics::Batch(normdrop::Saved::new(&mean, &mean_tail, &inv_std));
        let call = Backward {
            parameters,
            grad_input: Some(&mut dx),
            grad_parameters: ParameterGradients::new(&mut d_weight, &mut d_bias),
            ..Backward::new(statistics, &x, &dy, &mut scratch)
        };
        layer.backward_prelu(call, &slopes, Some(&mut d_slope)).expect("the lengths");
        let tolerance = 16.0 * U;
        near(&sample.name, &y, &sample.output_f64, tolerance);
        near(&sample.name, &dx, &sample.grad_input_f64, tolerance);
        near(&sample.name, &d_slope, &sample.grad_slope_f64, tolerance);
        near(&sample.name, &d_weight, &sample.grad_weight_f64, tolerance);
        near(&sample.name, &d_bias, &sample.grad_bias_f64, tolerance);
    }
    assert_eq!((record.samples.len(), record.networks.len(), record.torch.as_str()), (24, 5, "2.15.0"));
}
