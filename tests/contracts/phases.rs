//! The phases of a call, one by one: what they make of a whole batch and of its parts.

use normdrop::{
    Apply, ApplyGradient, Average, Buffer, Config, Error, Finish, Identity, Layer, Moments, ParameterGradients, Reduce,
    Relu, Running, RunningMut, RunningVariance, Saved, SavedMut, Shape, Statistics, merge_moments, merge_sums,
};
use normdrop_reference::classes::class;
use normdrop_reference::layer::{self as reference, widened};
use normdrop_reference::units::{SMALLEST, Worst};

use crate::support::{Differentiated, Oracle, Problem, Trained, bits};

/// One shape of each walk, with enough rows for parts of blocks and blocks of parts.
const SHAPES: &[[usize; 3]] =
    &[[6, 5, 20], [5, 3, 300], [40, 1, 1], [41, 19, 1], [1300, 3, 1], [9, 7, 5], [20, 600, 1], [4, 3, 100_000]];

fn normal([outer, channels, inner]: [usize; 3], seed: u64) -> Problem {
    Problem::random([outer, channels, inner], |channel| class(["normal", "offset 1e4"][channel % 2]), seed)
}

/// The rows `from..to` of a problem, with their part of every tensor and of the mask.
pub(crate) fn part(problem: &Problem, from: usize, to: usize) -> Problem {
    let row = problem.channels * problem.inner;
    let elements = |tensor: &[f32]| tensor[from * row..to * row].to_vec();
    let mask = problem.mask.as_ref().map(|mask| {
        let mut bytes = vec![0; ((to - from) * row).div_ceil(8)];
        for (index, bit) in (from * row..to * row).enumerate() {
            bytes[index / 8] |= (mask[bit / 8] >> (bit % 8) & 1) << (index % 8);
        }
        bytes
    });
    Problem {
        outer: to - from,
        x: elements(&problem.x),
        dy: elements(&problem.dy),
        residual: problem.residual.as_deref().map(elements),
        mask,
        ..problem.clone()
    }
}

fn moments<A: Oracle>(problem: &Problem) -> Vec<f64> {
    let layer = problem.layer::<A>();
    let mut moments = vec![f64::NAN; layer.moments_len()];
    let scratch = &mut vec![f64::NAN; layer.train_scratch_len()];
    layer.moments(Moments { input: &problem.x, moments: &mut moments, scratch }).expect("moments of a part");
    moments
}

/// A training and a backward call, phase by phase, of a batch in parts.
pub(crate) fn in_parts<A: Oracle>(whole: &Problem, parts: &[Problem]) -> (Trained, Differentiated) {
    let channels = whole.channels;
    let layer = whole.layer::<A>();
    let mut total = vec![0.0; layer.moments_len()];
    for part in parts {
        merge_moments(&mut total, &moments::<A>(part)).expect("moments of as many channels");
    }
    let mut trained = Trained {
        y: Vec::new(),
        batches: whole.batches,
        running_mean: whole.running_mean.clone(),
        running_mean_tail: whole.running_mean_tail.clone(),
        running_var: whole.running_var.clone(),
        mean: vec![f32::NAN; channels],
        mean_tail: vec![f32::NAN; channels],
        inv_std: vec![f64::NAN; channels],
    };
    let Trained { running_mean, running_mean_tail, running_var, mean, mean_tail, inv_std, .. } = &mut trained;
    layer
        .finish(Finish {
            moments: &total,
            running: Some(RunningMut {
                mean_tail: running_mean_tail.as_deref_mut(),
                ..RunningMut::new(running_mean, running_var)
            }),
            saved: SavedMut { mean, mean_tail, inv_std },
        })
        .expect("the moments of a batch");

    let saved = Saved { mean: &trained.mean, mean_tail: &trained.mean_tail, inv_std: &trained.inv_std };
    let mut sums = vec![0.0; layer.sums_len()];
    let mut y = Vec::new();
    for part in parts {
        let layer = part.layer::<A>();
        let mut output = vec![f32::NAN; part.x.len()];
        let scratch = &mut vec![f64::NAN; layer.eval_scratch_len()];
        layer
            .apply(Apply {
                parameters: part.parameters(),
                saved,
                dropout: part.dropout(),
                input: &part.x,
                residual: part.residual.as_deref(),
                output: &mut output,
                scratch,
            })
            .expect("the forward call of a part");
        y.extend(output);

        let mut of_part = vec![f64::NAN; layer.sums_len()];
        let scratch = &mut vec![f64::NAN; layer.backward_scratch_len()];
        layer
            .reduce(Reduce {
                parameters: part.parameters(),
                statistics: Statistics::Batch(saved),
                dropout: part.dropout(),
                input: &part.x,
                residual: part.residual.as_deref(),
                grad_output: &part.dy,
                sums: &mut of_part,
                scratch,
            })
            .expect("the sums of a part");
        merge_sums(&mut sums, &of_part).expect("sums of as many channels");
    }

    let mut result = Differentiated {
        dx: Vec::new(),
        d_residual: Vec::new(),
        d_weight: vec![f32::NAN; channels],
        d_bias: vec![f32::NAN; channels],
    };
    let gradients = ParameterGradients { weight: Some(&mut result.d_weight), bias: Some(&mut result.d_bias) };
    layer.finish_gradients(&sums, gradients).expect("sums and gradients of as many channels");
    for part in parts {
        let layer = part.layer::<A>();
        let mut dx = vec![f32::NAN; part.x.len()];
        let mut d_residual = vec![f32::NAN; part.residual.as_ref().map_or(0, Vec::len)];
        let scratch = &mut vec![f64::NAN; layer.backward_scratch_len()];
        layer
            .apply_gradient(ApplyGradient {
                parameters: part.parameters(),
                saved,
                samples: total[0],
                sums: &sums,
                dropout: part.dropout(),
                input: &part.x,
                residual: part.residual.as_deref(),
                grad_output: &part.dy,
                grad_input: &mut dx,
                grad_residual: part.residual.as_ref().map(|_| &mut d_residual[..]),
                scratch,
            })
            .expect("the gradients of a part");
        result.dx.extend(dx);
        result.d_residual.extend(d_residual);
    }
    trained.y = y;
    (trained, result)
}

fn check_that_one_part_is_the_whole<A: Oracle>(problem: &Problem) {
    let (trained, differentiated) = in_parts::<A>(problem, std::slice::from_ref(problem));
    let expected = problem.train::<A>();
    assert_eq!(trained.bits(), expected.bits());
    let expected = problem.backward::<A>(Statistics::Batch(expected.saved()));
    assert_eq!(differentiated.bits(), expected.bits());
}

#[test]
fn the_whole_calls_are_their_phases_to_the_bit() {
    for &shape in SHAPES {
        let problem = normal(shape, 1);
        check_that_one_part_is_the_whole::<Identity>(&problem);
        let problem = problem.with_mask(0.3, 1);
        check_that_one_part_is_the_whole::<Relu>(&problem);
        check_that_one_part_is_the_whole::<Relu>(&problem.with_residual(class("normal"), 2));
        check_that_one_part_is_the_whole::<Relu>(&normal(shape, 1).with_mask(1.0, 1));
    }
}

/// Parts of a batch with exact statistics of the whole: gradient accumulation, several machines.
#[test]
fn a_batch_in_parts_is_within_the_bounds_of_the_whole() {
    for &shape in SHAPES {
        let [outer, ..] = shape;
        for cuts in [vec![0, outer / 2, outer], vec![0, 0, 1, outer / 3, outer, outer]] {
            let problem = normal(shape, 3).with_mask(0.25, 3).with_residual(class("normal"), 4);
            let parts: Vec<Problem> = cuts.windows(2).map(|ends| part(&problem, ends[0], ends[1])).collect();
            let (trained, differentiated) = in_parts::<Relu>(&problem, &parts);

            let layer = problem.reference::<Relu>();
            let (x, dy) = (widened(&problem.x), widened(&problem.dy));
            let [weight, bias, residual] =
                [&problem.weight, &problem.bias, &problem.residual].map(|values| values.as_deref().map(widened));
            let parameters = reference::Parameters {
                weight: weight.as_deref(),
                bias: bias.as_deref(),
                residual: residual.as_deref(),
            };
            let centres = layer.batch_statistics(&layer.moments(&x));
            let mask = problem.mask.as_deref();
            let forward = layer.forward(parameters, &centres, mask, &x);
            let call = reference::Backward { mask, x: &x, dy: &dy, z: Some(&trained.y) };
            let backward = layer.backward(parameters, &centres, reference::Statistics::Batch, call);

            let mut worst = [("inv_std", 4.0), ("y", 4.0), ("dx", 5.0), ("d_weight", 5.0), ("d_bias", 3.0)]
                .map(|(name, bound)| (Worst::new(name), bound));
            let [inv_std, y, dx, d_weight, d_bias] = &mut worst;
            for (channel, centre) in centres.iter().enumerate() {
                inv_std.0.add(channel, trained.inv_std[channel], centre.inv_std, centre.inv_std, 0.0);
                for (worst, actual, exact, scale) in [
                    (&mut *d_weight, &differentiated.d_weight, &backward.d_weight, &backward.d_weight_scale),
                    (&mut *d_bias, &differentiated.d_bias, &backward.d_bias, &backward.d_bias_scale),
                ] {
                    worst.0.add(channel, f64::from(actual[channel]), exact[channel], scale[channel], SMALLEST);
                }
            }
            for index in 0..x.len() {
                y.0.add(index, f64::from(trained.y[index]), forward.y[index], forward.y_scale[index], SMALLEST);
                let actual = f64::from(differentiated.dx[index]);
                dx.0.add(index, actual, backward.dx[index], backward.dx_scale[index], SMALLEST);
            }
            for (worst, bound) in &worst {
                worst.within(*bound).unwrap_or_else(|fault| panic!("shape {shape:?}, cuts {cuts:?}: {fault}"));
            }
        }
    }
}

#[test]
fn moments_are_counts_means_and_squared_deviations() {
    let mut problem = Problem::new(2, 2, 2);
    problem.x = vec![1.0, 2.0, -1.0, -1.0, 3.0, 6.0, -1.0, -1.0];
    assert_eq!(moments::<Identity>(&problem), [4.0, 4.0, 3.0, -1.0, 14.0, 0.0]);
    assert_eq!(moments::<Identity>(&Problem::new(0, 2, 2)), [0.0; 6]);
}

/// Merging can leave a sum of squares a little below zero.
#[test]
fn squared_deviations_below_zero_are_a_variance_of_zero() {
    let mut problem = Problem::new(2, 2, 2);
    problem.config = Config { eps: 0.25, momentum: 1.0, ..problem.config };
    let [mut mean, mut var, mut saved_mean, mut mean_tail] = [[f32::NAN; 2]; 4];
    let mut inv_std = [f64::NAN; 2];
    let finish = Finish {
        moments: &[4.0, 4.0, 3.0, -1.0, -0.125, 1.5],
        running: Some(RunningMut::new(&mut mean, &mut var)),
        saved: SavedMut { mean: &mut saved_mean, mean_tail: &mut mean_tail, inv_std: &mut inv_std },
    };
    problem.layer::<Identity>().finish(finish).expect("a finishing call without faults");
    assert_eq!((mean, var), ([3.0, -1.0], [0.0, 0.5]));
    assert_eq!(inv_std, [2.0, 1.0 / 0.625f64.sqrt()]);
}

#[test]
fn merging_nothing_changes_nothing() {
    let mut into = [4.0, 3.0, 14.0];
    merge_moments(&mut into, &[0.0, f64::NAN, f64::NAN]).expect("one channel each");
    assert_eq!(into, [4.0, 3.0, 14.0]);
    let mut empty = [0.0; 3];
    merge_moments(&mut empty, &into).expect("one channel each");
    assert_eq!(empty, into);
    merge_moments(&mut [], &[]).expect("no channels at all");
    merge_sums(&mut [], &[]).expect("no channels at all");
}

#[test]
fn merged_moments_are_those_of_both() {
    let mut into = [4.0, 3.0, 14.0];
    merge_moments(&mut into, &[2.0, 9.0, 8.0]).expect("one channel each");
    // 14 + 8 + (9 - 3)^2 * 4*2/6
    assert_eq!(into, [6.0, 5.0, 70.0]);
}

#[test]
fn merges_of_different_lengths_are_refused_and_change_nothing() {
    let refused = |buffer, expected, actual| Err(Error::Length { buffer, expected, actual });
    let no_multiple = |buffer, fields, actual| Err(Error::LengthMultiple { buffer, fields, actual });
    let mut into = [1.0; 6];
    assert_eq!(merge_moments(&mut into, &[2.0; 3]), refused(Buffer::Moments, 6, 3));
    assert_eq!(merge_moments(&mut into, &[2.0; 9]), refused(Buffer::Moments, 6, 9));
    assert_eq!(merge_moments(&mut into[..4], &[2.0; 4]), no_multiple(Buffer::Moments, 3, 4));
    assert_eq!(merge_sums(&mut into, &[2.0; 4]), refused(Buffer::Sums, 6, 4));
    assert_eq!(merge_sums(&mut into[..3], &[2.0; 3]), no_multiple(Buffer::Sums, 2, 3));
    assert_eq!(into, [1.0; 6]);
}

/// A layer, and buffers of the right lengths for each of its phases.
struct Phases {
    layer: Layer<Relu>,
    elements: Vec<f32>,
    channels: Vec<f32>,
    inv_std: Vec<f64>,
    /// Three tensors to write, of which calls that write per channel take as much.
    written: [Vec<f32>; 3],
    written_inv_std: Vec<f64>,
    moments: Vec<f64>,
    sums: Vec<f64>,
    mask: Vec<u8>,
    scratch: Vec<f64>,
}

const PHASES: [&str; 6] = ["moments", "finish", "apply", "reduce", "finish_gradients", "apply_gradient"];

impl Phases {
    fn new(config: Config) -> Self {
        let layer = Layer::new(Shape::nc(6, 40).expect("a small shape"), Relu, config).expect("valid constants");
        Self {
            layer,
            elements: vec![1.5; 240],
            channels: vec![2.0; 40],
            inv_std: vec![0.5; 40],
            written: [-7.0, -8.0, -9.0].map(|value| vec![value; 240]),
            written_inv_std: vec![-7.0; 40],
            moments: vec![6.0; layer.moments_len()],
            sums: vec![1.0; layer.sums_len()],
            mask: vec![0xFF; layer.mask_len()],
            scratch: vec![0.0; layer.scratch_len()],
        }
    }

    /// Calls a phase with one buffer too short by one.
    fn call(&mut self, phase: &str, short: Option<Buffer>) -> Result<(), Error> {
        let cut = |buffer, len: usize| len - usize::from(short == Some(buffer));
        let Self { layer, elements, channels, inv_std, written, written_inv_std, moments, sums, mask, scratch } = self;
        let [first, second, third] = written;
        let scratch_len = match phase {
            "moments" => layer.train_scratch_len(),
            "apply" => layer.eval_scratch_len(),
            _ => layer.backward_scratch_len(),
        };
        let parameters = normdrop::Parameters {
            weight: Some(&channels[..cut(Buffer::Weight, 40)]),
            bias: Some(&channels[..cut(Buffer::Bias, 40)]),
        };
        let saved = Saved {
            mean: &channels[..cut(Buffer::SavedMean, 40)],
            mean_tail: &channels[..cut(Buffer::SavedMeanTail, 40)],
            inv_std: &inv_std[..cut(Buffer::SavedInvStd, 40)],
        };
        let dropout = normdrop::Dropout::Mask(&mask[..cut(Buffer::Mask, 30)]);
        let input = &elements[..cut(Buffer::Input, 240)];
        let residual = Some(&elements[..cut(Buffer::Residual, 240)]);
        let grad_output = &elements[..cut(Buffer::GradOutput, 240)];
        let scratch = &mut scratch[..cut(Buffer::Scratch, scratch_len)];
        match phase {
            "moments" => {
                let moments = &mut moments[..cut(Buffer::Moments, 120)];
                layer.moments(Moments { input, moments, scratch })
            }
            "finish" => {
                // All running statistics are in one of the tensors.
                let (mean, rest) = third.split_at_mut(80);
                let (mean_tail, var) = rest.split_at_mut(80);
                let running = RunningMut {
                    mean_tail: Some(&mut mean_tail[..cut(Buffer::RunningMeanTail, 40)]),
                    ..RunningMut::new(
                        &mut mean[..cut(Buffer::RunningMean, 40)],
                        &mut var[..cut(Buffer::RunningVar, 40)],
                    )
                };
                layer.finish(Finish {
                    moments: &moments[..cut(Buffer::Moments, 120)],
                    running: Some(running),
                    saved: SavedMut {
                        mean: &mut first[..cut(Buffer::SavedMean, 40)],
                        mean_tail: &mut second[..cut(Buffer::SavedMeanTail, 40)],
                        inv_std: &mut written_inv_std[..cut(Buffer::SavedInvStd, 40)],
                    },
                })
            }
            "apply" => {
                let output = &mut first[..cut(Buffer::Output, 240)];
                layer.apply(Apply { parameters, saved, dropout, input, residual, output, scratch })
            }
            "reduce" => layer.reduce(Reduce {
                parameters,
                statistics: Statistics::Batch(saved),
                dropout,
                input,
                residual,
                grad_output,
                sums: &mut sums[..cut(Buffer::Sums, 80)],
                scratch,
            }),
            "finish_gradients" => layer.finish_gradients(
                &sums[..cut(Buffer::Sums, 80)],
                ParameterGradients {
                    weight: Some(&mut first[..cut(Buffer::GradWeight, 40)]),
                    bias: Some(&mut second[..cut(Buffer::GradBias, 40)]),
                },
            ),
            _ => layer.apply_gradient(ApplyGradient {
                parameters,
                saved,
                samples: 12.0,
                sums: &sums[..cut(Buffer::Sums, 80)],
                dropout,
                input,
                residual,
                grad_output,
                grad_input: &mut first[..cut(Buffer::GradInput, 240)],
                grad_residual: Some(&mut second[..cut(Buffer::GradResidual, 240)]),
                scratch,
            }),
        }
    }
}

#[test]
fn every_buffer_of_a_phase_is_checked_and_nothing_is_written_on_error() {
    use Buffer::{
        Bias, GradBias, GradInput, GradOutput, GradResidual, GradWeight, Input, Mask, Output, Residual, RunningMean,
        RunningMeanTail, RunningVar, SavedInvStd, SavedMean, SavedMeanTail, Scratch, Sums, Weight,
    };
    let forward = [Weight, Bias, SavedMean, SavedMeanTail, SavedInvStd, Mask, Input, Residual, Scratch];
    let lists: [Vec<Buffer>; 6] = [
        vec![Input, Buffer::Moments, Scratch],
        vec![Buffer::Moments, RunningMean, RunningMeanTail, RunningVar, SavedMean, SavedMeanTail, SavedInvStd],
        [&forward[..], &[Output]].concat(),
        [&forward[..], &[GradOutput, Sums]].concat(),
        vec![Sums, GradWeight, GradBias],
        [&forward[..], &[GradOutput, Sums, GradInput, GradResidual]].concat(),
    ];
    let config = Config { p: 0.5, ..Config::DEFAULT };
    for (phase, buffers) in PHASES.into_iter().zip(lists) {
        let mut phases = Phases::new(config);
        phases.call(phase, None).expect("a phase without faults");
        let (before, after) = (Phases::new(config), phases);
        let written = (&after.written, &after.moments, &after.sums) != (&before.written, &before.moments, &before.sums);
        assert!(written, "{phase} wrote nothing, so that this test could not see it write");
        // Without vector registers no scratch is needed, which nothing is too short for.
        let needs_scratch = !Phases::new(config).scratch.is_empty();
        for short in buffers.into_iter().filter(|&buffer| buffer != Scratch || needs_scratch) {
            let mut phases = Phases::new(config);
            match phases.call(phase, Some(short)) {
                Err(Error::Length { buffer, expected, actual }) => {
                    assert_eq!((buffer, actual), (short, expected - 1), "{phase}");
                }
                other => panic!("{phase} with a short {short:?} returned {other:?}"),
            }
            let unchanged = Phases::new(config);
            assert_eq!(phases.written, unchanged.written, "{phase}, {short:?}");
            assert_eq!(phases.written_inv_std, unchanged.written_inv_std, "{phase}, {short:?}");
            assert_eq!((phases.moments, phases.sums), (unchanged.moments, unchanged.sums), "{phase}, {short:?}");
        }
    }
}

/// What finishing leaves of one channel, all of whose numbers were 7 before.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Finished {
    mean: f32,
    mean_tail: f32,
    inv_std: f64,
    running_mean: f32,
    running_var: f32,
    batches: u64,
}

const UNTOUCHED: Finished =
    Finished { mean: 7.0, mean_tail: 7.0, inv_std: 7.0, running_mean: 7.0, running_var: 7.0, batches: 7 };
/// Nothing is saved of a channel without values, and nothing moves.
const WITHOUT_VALUES: Finished = Finished { mean: 0.0, mean_tail: 0.0, inv_std: 0.0, ..UNTOUCHED };

fn finished(config: Config, moments: [f64; 3], running: bool) -> (Result<(), Error>, Finished) {
    let layer = Layer::new(Shape::nc(1, 1).expect("a small shape"), Relu, config).expect("valid constants");
    let (mut mean, mut mean_tail, mut inv_std) = ([7.0], [7.0], [7.0]);
    let (mut running_mean, mut running_var, mut batches) = ([7.0], [7.0], 7);
    let average = Average::Cumulative { batches: &mut batches };
    let result = layer.finish(Finish {
        moments: &moments,
        running: running.then_some(RunningMut { average, ..RunningMut::new(&mut running_mean, &mut running_var) }),
        saved: SavedMut { mean: &mut mean, mean_tail: &mut mean_tail, inv_std: &mut inv_std },
    });
    let ([mean], [mean_tail], [inv_std]) = (mean, mean_tail, inv_std);
    let ([running_mean], [running_var]) = (running_mean, running_var);
    (result, Finished { mean, mean_tail, inv_std, running_mean, running_var, batches })
}

#[test]
fn what_has_no_statistics_is_refused_and_what_has_no_values_is_saved_as_0() {
    let unbiased = Config::DEFAULT;
    let biased = Config { running_var: RunningVariance::Biased, ..unbiased };
    let without_eps = Config { eps: 0.0, ..unbiased };
    for config in [unbiased, biased, without_eps] {
        assert_eq!(finished(config, [0.0; 3], true), (Ok(()), WITHOUT_VALUES), "a batch without values");
        for count in [-1.0, -1e-300, f64::INFINITY, f64::NEG_INFINITY] {
            let refused = finished(Config { eps: 1e-5, ..config }, [count, 3.0, 0.0], true);
            assert_eq!(refused, (Err(Error::Count { channel: 0, count }), UNTOUCHED), "{count} values");
        }
    }
    let (refused, left) = finished(unbiased, [f64::NAN, 3.0, 0.0], true);
    assert!(matches!(refused, Err(Error::Count { channel: 0, count }) if count.is_nan()) && left == UNTOUCHED);
    assert_eq!(finished(without_eps, [2.0, 3.0, 1.0], true), (Err(Error::Eps { eps: 0.0 }), UNTOUCHED));

    // One value, and less than one: weights.
    let inv_std = 1.0 / f64::from(unbiased.eps).sqrt();
    for count in [1.0, 0.5, 1e-300] {
        assert_eq!(
            finished(unbiased, [count, 3.0, 0.0], true),
            (Err(Error::SingleSample), UNTOUCHED),
            "{count} values"
        );
        let saved = Finished { mean: 3.0, mean_tail: 0.0, inv_std, ..UNTOUCHED };
        assert_eq!(finished(unbiased, [count, 3.0, 0.0], false), (Ok(()), saved), "{count} values");
        let moved = Finished { running_mean: 6.5, running_var: 6.125, batches: 8, ..saved };
        assert_eq!(finished(biased, [count, 3.0, 0.0], true), (Ok(()), moved), "{count} values");
    }
    let (accepted, left) = finished(unbiased, [2.0, 3.0, 1.0], true);
    assert_eq!((accepted, left.mean, left.running_var), (Ok(()), 3.0, 6.25), "parts of one value each");
}

/// A channel without values beside one with some, as of a batch whose rows are masked.
#[test]
fn a_channel_without_values_gives_act_of_bias_and_no_gradient() {
    let layer = Layer::new(Shape::nc(3, 2).expect("a small shape"), Relu, Config::DEFAULT).expect("valid constants");
    let (mut mean, mut mean_tail, mut inv_std) = ([f32::NAN; 2], [f32::NAN; 2], [f64::NAN; 2]);
    let (mut running_mean, mut running_var) = ([5.0; 2], [7.0; 2]);
    layer
        .finish(Finish {
            moments: &[3.0, 0.0, 2.0, 1e300, 2.0, f64::NAN],
            running: Some(RunningMut::new(&mut running_mean, &mut running_var)),
            saved: SavedMut { mean: &mut mean, mean_tail: &mut mean_tail, inv_std: &mut inv_std },
        })
        .expect("one channel has values");
    assert_eq!((running_mean[1], running_var[1]), (5.0, 7.0));
    let saved = Saved { mean: &mean, mean_tail: &mean_tail, inv_std: &inv_std };
    let x = [1.0, 1e38, 2.0, -3.0, 3.0, 1e-40];
    let parameters = normdrop::Parameters { weight: Some(&[2.0, -3e38]), bias: Some(&[0.0, 0.25]) };
    let (mut y, mut dx) = ([f32::NAN; 6], [f32::NAN; 6]);
    let (mut sums, mut scratch) = ([f64::NAN; 4], vec![f64::NAN; layer.scratch_len()]);
    let dropout = normdrop::Dropout::Off;
    let call = Apply { parameters, saved, dropout, input: &x, residual: None, output: &mut y, scratch: &mut scratch };
    layer.apply(call).expect("a part");
    assert_eq!([y[1], y[3], y[5]], [0.25; 3]);
    let statistics = Statistics::Batch(saved);
    layer
        .reduce(Reduce {
            parameters,
            statistics,
            dropout,
            input: &x,
            residual: None,
            grad_output: &x,
            sums: &mut sums,
            scratch: &mut scratch,
        })
        .expect("a part");
    assert_eq!(sums[3], 0.0);
    layer
        .apply_gradient(ApplyGradient {
            parameters,
            saved,
            samples: 3.0,
            sums: &sums,
            dropout,
            input: &x,
            residual: None,
            grad_output: &x,
            grad_input: &mut dx,
            grad_residual: None,
            scratch: &mut scratch,
        })
        .expect("a part");
    assert_eq!([dx[1], dx[3], dx[5]], [0.0; 3]);
}

#[test]
fn the_values_of_a_batch_are_a_positive_number() {
    let layer = Layer::new(Shape::nc(1, 1).expect("a small shape"), Relu, Config::DEFAULT).expect("valid constants");
    let apply_gradient = |samples| {
        let mut dx = [7.0];
        let result = layer.apply_gradient(ApplyGradient {
            parameters: normdrop::Parameters { weight: None, bias: Some(&[1.0]) },
            saved: Saved { mean: &[0.5], mean_tail: &[0.0], inv_std: &[2.0] },
            samples,
            sums: &[1.0, 1.0],
            dropout: normdrop::Dropout::Off,
            input: &[1.0],
            residual: None,
            grad_output: &[1.0],
            grad_input: &mut dx,
            grad_residual: None,
            scratch: &mut vec![0.0; layer.backward_scratch_len()],
        });
        (result, dx)
    };
    for count in [0.0, -0.0, -3.0, f64::INFINITY] {
        assert_eq!(apply_gradient(count), (Err(Error::Count { channel: 0, count }), [7.0]));
    }
    assert!(matches!(apply_gradient(f64::NAN), (Err(Error::Count { count, .. }), [7.0]) if count.is_nan()));
    // Of one value nothing flows back; weights may be any fraction.
    assert_eq!(apply_gradient(1.0), (Ok(()), [0.0]));
    assert_eq!(apply_gradient(4.0), (Ok(()), [2.0 * (1.0 - 0.25 - 0.25)]));
    assert_eq!(apply_gradient(0.5), (Ok(()), [2.0 * (1.0 - 2.0 - 2.0)]));
}

#[test]
fn moments_are_checked_for_what_would_spoil_the_running_statistics() {
    let shape = Shape::nc(1, 4).expect("a small shape");
    let layer =
        |running_var| Layer::new(shape, Relu, Config { running_var, ..Config::DEFAULT }).expect("valid constants");
    let (unbiased, biased) = (layer(RunningVariance::Unbiased), layer(RunningVariance::Biased));
    let good = [2.0, 0.0, 1.0, 0.5, -3.0, f64::NAN, 3e38, 4.0, 2.0, f64::INFINITY, 0.0, 0.0];
    let largest = f64::from(f32::MAX);
    let of = |index: usize, value: f64| {
        let mut moments = good;
        moments[index] = value;
        moments
    };
    for layer in [unbiased, biased] {
        assert_eq!(layer.check_moments(&good), Ok(()), "a channel without values has nothing to fit");
        assert_eq!(layer.check_moments(&[0.0; 12]), Ok(()));
        let length = Error::Length { buffer: Buffer::Moments, expected: 12, actual: 11 };
        assert_eq!(layer.check_moments(&good[..11]), Err(length));
        assert_eq!(layer.check_moments(&of(2, -1.0)), Err(Error::Count { channel: 2, count: -1.0 }));
        for value in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY, 1.001 * largest, -1.001 * largest] {
            let mean = Err(Error::NotFinite { buffer: Buffer::RunningMean, index: 3 });
            assert_eq!(layer.check_moments(&of(7, value)), mean, "a mean of {value}");
        }
        for value in [f64::NAN, f64::INFINITY, 2.001 * largest] {
            let var = Err(Error::NotFinite { buffer: Buffer::RunningVar, index: 0 });
            assert_eq!(layer.check_moments(&of(8, value)), var, "squares of {value}");
        }
    }
    assert!(unbiased.check_moments(&of(8, 1.001 * largest)).is_err());
    assert_eq!(biased.check_moments(&of(8, 1.999 * largest)), Ok(()));
}

/// Past fixed statistics the sums of parts give the gradients of weight and bias.
#[test]
fn sums_past_fixed_statistics_are_the_gradients_of_the_parameters() {
    for &shape in SHAPES {
        let problem = normal(shape, 5).with_mask(0.5, 5);
        let running = Running::new(&problem.running_mean, &problem.running_var);
        let layer = problem.layer::<Relu>();
        let mut sums = vec![f64::NAN; layer.sums_len()];
        layer
            .reduce(Reduce {
                parameters: problem.parameters(),
                statistics: Statistics::Fixed(running),
                dropout: problem.dropout(),
                input: &problem.x,
                residual: None,
                grad_output: &problem.dy,
                sums: &mut sums,
                scratch: &mut vec![f64::NAN; layer.backward_scratch_len()],
            })
            .expect("the sums of a part");
        let (mut d_weight, mut d_bias) = (vec![f32::NAN; shape[1]], vec![f32::NAN; shape[1]]);
        let gradients = ParameterGradients { weight: Some(&mut d_weight), bias: Some(&mut d_bias) };
        layer.finish_gradients(&sums, gradients).expect("sums and gradients of as many channels");
        let expected = problem.backward::<Relu>(Statistics::Fixed(running));
        assert_eq!((bits(&d_weight), bits(&d_bias)), (bits(&expected.d_weight), bits(&expected.d_bias)));
    }
}
