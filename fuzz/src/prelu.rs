//! The target of PReLU: its calls against those of a layer without an activation, with LeakyReLU, and the reference.

use normdrop::{
    Backward, Buffer as Name, Dropout, Error, Eval, EvalInPlace, Identity, Layer, LeakyRelu, ParameterGradients,
    Parameters, Running, RunningMut, Saved, SavedMut, Statistics, Train,
};
use normdrop_reference::layer::widened;
use normdrop_reference::prelu;
use normdrop_reference::random::SplitMix64;

use crate::buffer::{Buffer, same_bits};
use crate::calls::on_backends;
use crate::case::Case;
use crate::input::LayerInput;

/// The error of the gradient of a slope, in units of the sum of the sizes of its summands: a product and the roundings of
/// the sum.
const BOUND: f64 = 8.0;

/// What the calls of one backend write.
#[derive(Debug, Clone, PartialEq)]
struct Results {
    y: Vec<u32>,
    gradients: Vec<Vec<u32>>,
}

fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|value| if value.is_nan() { f32::NAN.to_bits() } else { value.to_bits() }).collect()
}

/// `Layer::train_prelu`, `eval_prelu`, `eval_prelu_in_place`, `backward_prelu`, `prelu` and `prelu_gradient`.
pub(crate) fn check(input: &LayerInput) {
    let case = Case::new(input);
    let mut random = SplitMix64::new(input.mask_seed ^ u64::from(input.p_bits));
    let channels = case.shape.channels();
    let count = if random.next_below(3) == 0 { 1 } else { channels };
    let slopes: Vec<f32> = (0..count).map(|_| slope(&mut random)).collect();
    wrong_lengths(&case, &slopes, &mut random);
    let mut first: Option<Results> = None;
    for layer in on_backends(&case.layer(Identity)) {
        let Some(results) = forward_and_backward(&case, &layer, &slopes) else { return };
        assert_eq!(first.get_or_insert_with(|| results.clone()), &results, "{layer:?} differs from the first");
    }
}

/// Any f32, many of them of ordinary size.
#[expect(clippy::cast_possible_truncation, reason = "rounded to nearest, or the lower half of a word")]
fn slope(random: &mut SplitMix64) -> f32 {
    match random.next_below(8) {
        0 => f32::from_bits(random.next_u64() as u32),
        1 => 0.0,
        2 => 0.25,
        _ => random.next_normal() as f32,
    }
}

/// A forward call and the backward call after it; nothing if their arguments are refused.
fn forward_and_backward(case: &Case, layer: &Layer<Identity>, slopes: &[f32]) -> Option<Results> {
    let (len, channels) = (case.shape.len(), case.shape.channels());
    let memory = |contents: &[f32], len| Buffer::new(contents, len, f32::NAN, case.place);
    let slopes_of =
        |element: usize| if slopes.len() == 1 { slopes[0] } else { slopes[element / case.shape.inner() % channels] };
    let parameters = Parameters { weight: case.weight.as_deref(), bias: case.bias.as_deref() };
    let dropout = case.mask.as_deref().map_or(Dropout::Off, Dropout::Mask);
    let residual = case.residual.as_deref();
    let running =
        Running { mean: &case.running_mean, mean_tail: case.running_mean_tail.as_deref(), var: &case.running_var };
    let mut scratch = vec![f64::NAN; layer.prelu_scratch_len()];
    let (mut linear, mut y) = (memory(&[], len), memory(&[], len));
    let (mut mean, mut mean_tail, mut inv_std) = (vec![0.0; channels], vec![0.0; channels], vec![0.0; channels]);
    if case.fixed_statistics {
        let call = Eval::new(running, &case.x, &mut linear, &mut scratch);
        let plain = layer.eval(Eval { parameters, dropout, residual, ..call });
        let call = Eval::new(running, &case.x, &mut y, &mut scratch);
        assert_eq!(layer.eval_prelu(Eval { parameters, dropout, residual, ..call }, slopes), plain);
        let mut values = memory(&case.x, len);
        let call = EvalInPlace::new(running, &mut values, &mut scratch);
        assert_eq!(layer.eval_prelu_in_place(EvalInPlace { parameters, dropout, residual, ..call }, slopes), plain);
        plain.ok()?;
        assert!(same_bits(&values, &y), "evaluation in place differs from evaluation");
    } else {
        let [(mut running_mean, mut running_var), (mut again_mean, mut again_var)] =
            [(); 2].map(|()| (case.running_mean.clone(), case.running_var.clone()));
        let mut train = |output: &mut [f32], running, prelu: bool| {
            let saved = SavedMut::new(&mut mean, &mut mean_tail, &mut inv_std);
            let call = Train::new(&case.x, output, saved, &mut scratch);
            let call = Train { parameters, dropout, residual, running: case.has_running.then_some(running), ..call };
            if prelu { layer.train_prelu(call, slopes) } else { layer.train(call) }
        };
        let plain = train(&mut linear, RunningMut::new(&mut running_mean, &mut running_var), false);
        let with = train(&mut y, RunningMut::new(&mut again_mean, &mut again_var), true);
        assert_eq!(with, plain);
        assert!(
            same_bits(&running_mean, &again_mean) && same_bits(&running_var, &again_var),
            "other running statistics"
        );
        plain.ok()?;
    }
    for (element, (&y, &linear)) in y.iter().zip(&*linear).enumerate() {
        let expected = if linear < 0.0 { slopes_of(element) * linear } else { linear };
        let same = y.to_bits() == expected.to_bits() || y.is_nan() && expected.is_nan();
        assert!(same, "y[{element}] is {y:e} and not {expected:e}");
        assert!(case.keeps(element) || y.to_bits() == 0, "{element} was dropped and is {y:e}");
    }

    let saved = Saved::new(&mean, &mean_tail, &inv_std);
    let statistics = if case.fixed_statistics { Statistics::Fixed(running) } else { Statistics::Batch(saved) };
    let gradients = || [memory(&[], len), memory(&[], len), memory(&[], channels), memory(&[], channels)];
    let [mut dx, mut dr, mut d_weight, mut d_bias] = gradients();
    let mut d_slope = memory(&[], slopes.len());
    let backward = Backward::new(statistics, &case.x, &case.dy, &mut scratch);
    let call = Backward {
        parameters,
        dropout,
        residual,
        grad_input: Some(&mut dx),
        grad_residual: Some(&mut dr),
        grad_parameters: ParameterGradients::new(&mut d_weight, &mut d_bias),
        ..backward
    };
    layer.backward_prelu(call, slopes, Some(&mut d_slope)).expect("what a forward call was given");
    // By its two steps.
    let (mut g, mut by_steps) = (linear.clone(), memory(&[], slopes.len()));
    layer.prelu_gradient(slopes, &case.dy, &mut g, Some(&mut by_steps), &mut scratch).expect("the lengths");
    assert!(same_bits(&by_steps, &d_slope), "the gradient of the slopes by steps differs");
    check_slopes(case, slopes.len(), &linear, &d_slope);
    if let &[slope] = slopes
        && slope.is_finite()
    {
        let leaky = case.layer(LeakyRelu::new(slope).expect("a finite slope"));
        let [mut of_x, mut of_residual, mut of_weight, mut of_bias] = gradients();
        let call = Backward {
            parameters,
            dropout,
            residual,
            grad_input: Some(&mut of_x),
            grad_residual: Some(&mut of_residual),
            grad_parameters: ParameterGradients::new(&mut of_weight, &mut of_bias),
            ..Backward::new(statistics, &case.x, &case.dy, &mut scratch)
        };
        leaky.backward(call).expect("what a forward call was given");
        // An underflow of the dropout scale times z is a 0 with the derivative of 0 for the one, and for the other not.
        if case.mask.is_none() {
            for (found, expected) in [(&dx, &of_x), (&dr, &of_residual), (&d_weight, &of_weight), (&d_bias, &of_bias)] {
                let same = found.iter().zip(&**expected).all(|(a, b)| a == b || a.is_nan() && b.is_nan());
                assert!(same, "{found:?} of PReLU, {expected:?} of LeakyReLU");
            }
        }
    }
    Some(Results {
        y: bits(&y),
        gradients: [&dx, &dr, &d_weight, &d_bias, &d_slope, &g].map(|values| bits(values)).to_vec(),
    })
}

fn check_slopes(case: &Case, slopes: usize, linear: &[f32], d_slope: &[f32]) {
    let shape = case.reference().shape;
    let finite: Vec<f32> = linear.iter().map(|value| value.clamp(f32::MIN, f32::MAX)).collect();
    let of = |linear: &[f32]| prelu::slope_gradients(shape, slopes, &widened(linear), &widened(&case.dy));
    let all = d_slope.iter().zip(of(linear)).zip(of(&finite));
    for (slope, ((&found, [_, scale_of_all]), [exact, scale])) in all.enumerate() {
        if !scale.is_finite() {
            assert!(!found.is_finite(), "the gradient of slope {slope} is {found:e}, of infinite summands");
            continue;
        }
        // Of an infinite value, which counts as the largest f32 only if the sum would be NaN.
        if !scale_of_all.is_finite() && found.is_infinite() {
            continue;
        }
        let underflow = linear.len() as f64 * f64::from(f32::from_bits(1));
        let allowed = BOUND * scale / f64::from(1 << 24) + underflow;
        let largest = f64::from(f32::MAX);
        let right =
            (f64::from(found) - exact).abs() <= allowed || found.is_infinite() && exact.abs() + allowed >= largest;
        assert!(right, "the gradient of slope {slope} is {found:e} and not {exact:e}");
    }
}

/// Calls with one buffer of a wrong length: it is named, and nothing is written.
fn wrong_lengths(case: &Case, slopes: &[f32], random: &mut SplitMix64) {
    let (layer, len, channels) = (case.layer(Identity), case.shape.len(), case.shape.channels());
    let wrong = |right: usize, random: &mut SplitMix64| {
        if right != 0 && random.next_below(2) == 0 { right - 1 } else { right + 1 }
    };
    let refused = |buffer, expected, actual| Err(Error::Length { buffer, expected, actual });
    let memory = |len| Buffer::new(&[], len, 7.0_f32, case.place);
    let mut scratch = vec![7.0; layer.prelu_scratch_len()];
    let (mut values, mut d_slope) = (memory(len), memory(slopes.len()));
    let short = memory(wrong(channels.max(1), random));
    if short.len() != 1 && short.len() != channels {
        let expected = refused(Name::Slope, channels, short.len());
        assert_eq!(layer.prelu(&short, &mut values), expected);
        assert_eq!(layer.prelu_gradient(&short, &case.dy, &mut values, None, &mut scratch), expected);
    }
    let mut other = memory(wrong(len, random));
    let expected = refused(Name::Values, len, other.len());
    assert_eq!(layer.prelu(slopes, &mut other), expected);
    assert_eq!(layer.prelu_gradient(slopes, &case.dy, &mut other, Some(&mut d_slope), &mut scratch), expected);
    let expected = refused(Name::GradOutput, len, other.len());
    assert_eq!(layer.prelu_gradient(slopes, &other, &mut values, Some(&mut d_slope), &mut scratch), expected);
    let mut other = memory(wrong(slopes.len(), random));
    let expected = refused(Name::GradSlope, slopes.len(), other.len());
    assert_eq!(layer.prelu_gradient(slopes, &case.dy, &mut values, Some(&mut other), &mut scratch), expected);
    if let (needed @ 1.., [_, rest @ ..]) = (scratch.len(), &mut scratch[..]) {
        let expected = refused(Name::Scratch, needed, needed - 1);
        assert_eq!(layer.prelu_gradient(slopes, &case.dy, &mut values, Some(&mut d_slope), rest), expected);
    }
    let untouched = values.iter().chain(&*d_slope).chain(&*other).all(|&value| value == 7.0);
    assert!(untouched && scratch.iter().all(|&value| value == 7.0), "a refused call wrote");
}
