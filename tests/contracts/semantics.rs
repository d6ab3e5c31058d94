//! What the layer means, point by point, beyond the numbers: which elements, which statistics, which constants.

use crate::support::{Oracle, Problem, Visitor, bits, every_activation};
use normdrop::{
    Backward, Bernoulli, Config, Dropout, Error, Eval, EvalInPlace, Finish, Granularity, Identity, Layer, Moments,
    ParameterGradients, Reduce, Relu, RunningMut, RunningVariance, Saved, SavedMut, Shape, Statistics, Train,
};
use normdrop_reference::classes::class;
use normdrop_reference::layer::widened;
use normdrop_reference::mask;
use normdrop_reference::random::SplitMix64;

/// One shape of each walk: planar with shared blocks and with whole ones, one channel, columns, columns of several rows.
const SHAPES: &[[usize; 3]] = &[[6, 5, 20], [2, 3, 300], [40, 1, 1], [21, 19, 1], [130, 3, 1], [9, 7, 5]];

const NOT_FINITE: [f32; 3] = [f32::NAN, f32::INFINITY, f32::NEG_INFINITY];

fn normal(shape: [usize; 3], seed: u64) -> Problem {
    Problem::random(shape, |_| class("normal"), seed)
}

fn channel_of(problem: &Problem, index: usize) -> usize {
    index / problem.inner % problem.channels
}

#[test]
fn a_channel_with_an_infinity_has_no_mean_whatever_its_size_and_its_neighbour_has() {
    // One part and several, planar and in columns.
    for [outer, channels, inner] in [[1, 1, 16], [1, 1, 200_000], [3, 2, 90_000], [20, 2, 1], [150_000, 2, 1]] {
        let layer = Layer::new(Shape::new(outer, channels, inner).unwrap(), Identity, Config::DEFAULT).unwrap();
        let mut x: Vec<f32> = (0..outer * channels * inner).map(|index| (index % 7) as f32).collect();
        let (last, mut moments) = (x.len() - 1, vec![0.0; layer.moments_len()]);
        let mut scratch = vec![0.0; layer.scratch_len()];
        for at in [0, last / 2 / inner / channels * inner * channels, last - (channels - 1) * inner] {
            for infinity in [f32::INFINITY, f32::NEG_INFINITY] {
                let finite = std::mem::replace(&mut x[at], infinity);
                layer.moments(Moments { input: &x, moments: &mut moments, scratch: &mut scratch }).unwrap();
                x[at] = finite;
                let channel = at / inner % channels;
                let [_, means, m2s] = [0, 1, 2].map(|field| &moments[field * channels..][..channels]);
                assert!(means[channel].is_nan() && m2s[channel].is_nan(), "[{outer}, {channels}, {inner}] at {at}");
                let others = (0..channels).filter(|&other| other != channel);
                assert!(others.clone().all(|other| means[other].is_finite() && m2s[other].is_finite()));
            }
        }
    }
}

#[test]
fn a_dropped_element_is_positive_zero_even_if_it_was_not_finite() {
    for &shape in SHAPES {
        for p in [0.1, 0.5, 1.0] {
            let mut problem = normal(shape, 1).with_mask(p, 1);
            let dropped: Vec<usize> = (0..problem.x.len()).filter(|&index| problem.drops(index)).collect();
            for (&index, &value) in dropped.iter().zip(NOT_FINITE.iter().cycle()) {
                (problem.x[index], problem.dy[index]) = (value, value);
            }
            let fixed = Statistics::Fixed(problem.running());
            let trained = problem.train::<Identity>();
            for y in [&trained.y, &problem.train::<Relu>().y, &problem.eval::<Identity>(), &problem.eval::<Relu>()] {
                assert!(dropped.iter().all(|&index| y[index].to_bits() == 0), "shape {shape:?}, p {p}");
            }
            let dx = problem.backward::<Relu>(fixed).dx;
            assert!(dropped.iter().all(|&index| dx[index] == 0.0), "shape {shape:?}, p {p}");
            // What is kept is not touched by what is dropped where statistics are fixed.
            let y = problem.eval::<Identity>();
            assert!(y.iter().all(|y| y.is_finite()), "shape {shape:?}, p {p}");
        }
    }
}

#[test]
fn momentum_0_leaves_the_running_statistics_untouched_even_by_nan() {
    for &shape in SHAPES {
        let mut problem = normal(shape, 2);
        problem.config.momentum = 0.0;
        problem.x[0] = f32::NAN;
        problem.running_mean[0] = f32::from_bits(0x7FC1_2345);
        let trained = problem.train::<Identity>();
        let untouched =
            |before: &[f32], after: &[f32]| before.iter().map(|b| b.to_bits()).eq(after.iter().map(|a| a.to_bits()));
        assert!(untouched(&problem.running_mean, &trained.running_mean), "shape {shape:?}");
        assert!(untouched(&problem.running_var, &trained.running_var), "shape {shape:?}");
    }
}

#[test]
fn momentum_1_replaces_the_running_statistics_even_if_they_are_nan() {
    for &shape in SHAPES {
        let mut problem = normal(shape, 3);
        let expected = problem.train::<Identity>();
        problem.running_mean.fill(f32::NAN);
        problem.running_var.fill(f32::INFINITY);
        let trained = problem.train::<Identity>();
        assert_eq!(trained.bits(), expected.bits(), "shape {shape:?}");
        assert!(trained.running_mean.iter().chain(&trained.running_var).all(|value| value.is_finite()));
    }
}

#[test]
fn the_tail_of_the_running_mean_is_as_the_mean_with_momentum_0_and_1_and_has_nothing_of_an_infinity() {
    for &shape in SHAPES {
        let mut problem = normal(shape, 3);
        problem.running_mean_tail = Some(vec![f32::NAN; shape[1]]);
        problem.config.momentum = 0.0;
        let tail = problem.train::<Identity>().running_mean_tail.unwrap_or_default();
        assert!(tail.len() == shape[1] && tail.iter().all(|tail| tail.is_nan()), "untouched, shape {shape:?}");

        problem.config.momentum = 1.0;
        let trained = problem.train::<Identity>();
        let saved = (&trained.mean, &trained.mean_tail);
        assert_eq!((&trained.running_mean, &trained.running_mean_tail.clone().unwrap_or_default()), saved);

        problem.config.momentum = 0.5;
        problem.running_mean.fill(f32::NEG_INFINITY);
        problem.running_mean_tail = Some(vec![0.0; shape[1]]);
        let trained = problem.train::<Identity>();
        assert!(trained.running_mean.iter().all(|&mean| mean == f32::NEG_INFINITY), "shape {shape:?}");
        assert_eq!(trained.running_mean_tail, Some(vec![0.0; shape[1]]), "shape {shape:?}");
    }
}

#[test]
fn a_missing_tail_of_the_running_mean_is_0_to_the_bit() {
    for &shape in SHAPES {
        let missing = normal(shape, 4).with_mask(0.5, 4);
        let zeros = Problem { running_mean_tail: Some(vec![0.0; shape[1]]), ..missing.clone() };
        assert_eq!(bits(&missing.eval::<Relu>()), bits(&zeros.eval::<Relu>()), "shape {shape:?}");
        let gradients = |problem: &Problem| problem.backward::<Relu>(Statistics::Fixed(problem.running())).bits();
        assert_eq!(gradients(&missing), gradients(&zeros), "shape {shape:?}");
        let (missing, zeros) = (missing.train::<Relu>(), zeros.train::<Relu>());
        assert_eq!(bits(&missing.running_mean), bits(&zeros.running_mean), "shape {shape:?}");
    }
}

#[test]
fn the_running_statistics_move_by_the_momentum_towards_either_variance() {
    for &shape in SHAPES {
        for (momentum, running_var) in [
            (0.1, RunningVariance::Unbiased),
            (0.5, RunningVariance::Unbiased),
            (1e-3, RunningVariance::Unbiased),
            (0.1, RunningVariance::Biased),
            (1.0, RunningVariance::Biased),
        ] {
            let mut problem = normal(shape, 4);
            problem.config = Config { momentum, running_var, ..problem.config };
            (problem.running_mean, problem.running_var) = (vec![3.0; shape[1]], vec![5.0; shape[1]]);
            let (mut mean, mut var) = (widened(&problem.running_mean), widened(&problem.running_var));
            let layer = problem.reference::<Identity>();
            let moments = layer.moments(&widened(&problem.x));
            layer.update_running(&moments, problem.reference_average(), &mut mean, &mut var);
            let trained = problem.train::<Identity>();
            let results = trained.running_mean.iter().chain(&trained.running_var);
            for (&actual, expected) in results.zip(mean.iter().chain(&var)) {
                assert!((f64::from(actual) - expected).abs() < 1e-6, "{actual} instead of {expected}, shape {shape:?}");
            }
        }
    }
}

#[test]
fn a_cumulative_average_is_the_mean_of_all_batches_whatever_was_there_before() {
    for &shape in SHAPES {
        for running_var in [RunningVariance::Unbiased, RunningVariance::Biased] {
            let mut problem = normal(shape, 4);
            // The momentum does not count, and neither does what the first batch finds.
            problem.config = Config { momentum: 0.0, running_var, ..problem.config };
            problem.running_mean.fill(f32::NAN);
            problem.running_var.fill(f32::INFINITY);
            problem.batches = Some(0);
            let (mut mean, mut var) = (vec![0.0; shape[1]], vec![0.0; shape[1]]);
            const BATCHES: u64 = 7;
            for batch in 1..=BATCHES {
                problem.x = normal(shape, 100 + batch).x;
                let trained = problem.train::<Identity>();
                assert_eq!(trained.batches, Some(batch));
                (problem.running_mean, problem.running_var) = (trained.running_mean, trained.running_var);
                problem.batches = trained.batches;
                let layer = problem.reference::<Identity>();
                for (channel, moments) in layer.moments(&widened(&problem.x)).iter().enumerate() {
                    mean[channel] += moments.mean.rounded() / BATCHES as f64;
                    var[channel] += layer.running_var.of(moments) / BATCHES as f64;
                }
            }
            let results = problem.running_mean.iter().chain(&problem.running_var);
            for (&actual, expected) in results.zip(mean.iter().chain(&var)) {
                assert!((f64::from(actual) - expected).abs() < 1e-6, "{actual} instead of {expected}, shape {shape:?}");
            }
        }
    }
}

/// One third in f32 is wrong by 1e-8, which is all that is left here.
#[test]
fn the_weight_of_a_batch_in_a_cumulative_average_is_as_exact_as_f64() {
    let problem = Problem { batches: Some(2), running_mean: vec![-0.5], x: vec![1.0, 1.0], ..Problem::new(2, 1, 1) };
    let mean = problem.train::<Identity>().running_mean[0];
    assert!(mean.abs() < 1e-15, "two thirds of -1/2 and one third of 1 are {mean:e}");
}

#[test]
fn a_batch_is_counted_where_it_moves_the_running_statistics_and_nowhere_else() {
    // No count wraps, and the last one stays.
    for (before, after) in [(0, 1), (41, 42), (u64::MAX - 1, u64::MAX), (u64::MAX, u64::MAX)] {
        let mut problem = normal([6, 5, 20], 5).with_mask(0.3, 5);
        problem.batches = Some(before);
        assert_eq!(problem.train::<Relu>().batches, Some(after));
        // Everything dropped is a batch all the same.
        assert_eq!(problem.with_mask(1.0, 5).train::<Relu>().batches, Some(after));
    }
    for shape in [[0, 3, 4], [5, 0, 4], [5, 3, 0]] {
        let problem = Problem { batches: Some(3), ..Problem::new(shape[0], shape[1], shape[2]) };
        assert_eq!(problem.train::<Relu>().batches, Some(3), "an empty batch, shape {shape:?}");
    }
    // With the largest count the batch has next to no weight, but it still has one: 2^-64.
    let problem = Problem { batches: Some(u64::MAX), x: vec![f32::NAN, 1.0], ..Problem::new(2, 1, 1) };
    assert!(problem.train::<Identity>().running_mean[0].is_nan());
}

/// The output of one value is that of a constant, `act(bias)`, and nothing but the bias has a
/// gradient.
fn check_one_value<A: Oracle>(problem: &Problem) {
    let trained = problem.train::<A>();
    let bias = Problem { running_mean: problem.x.clone(), ..problem.clone() };
    assert_eq!(bits(&trained.y), bits(&bias.eval::<A>()), "{problem:?}");
    assert_eq!(bits(&trained.mean), bits(&problem.x));
    assert!(trained.mean_tail.iter().all(|&tail| tail == 0.0));
    let deviation = f64::from(problem.config.eps).sqrt();
    assert!(trained.inv_std.iter().all(|&inv_std| (inv_std * deviation - 1.0).abs() < 1e-15));
    let average = |old: f32, new: f32| 0.75 * old + 0.25 * new;
    for channel in 0..problem.channels {
        let expected = average(problem.running_mean[channel], problem.x[channel]);
        assert_eq!(trained.running_mean[channel], expected);
        assert_eq!(trained.running_var[channel], average(problem.running_var[channel], 0.0));
    }
    let gradients = problem.backward::<A>(Statistics::Batch(trained.saved()));
    assert_eq!(bits(&gradients.dx), vec![0; problem.channels]);
    assert!(gradients.d_weight.iter().all(|&d_weight| d_weight == 0.0));
    let past_fixed = bias.backward::<A>(Statistics::Fixed(bias.running()));
    assert_eq!(bits(&gradients.d_bias), bits(&past_fixed.d_bias));
}

#[test]
fn one_value_per_channel_gives_the_bias_and_is_refused_only_where_an_unbiased_variance_is_asked_for() {
    for shape in [[1, 3, 1], [1, 40, 1], [1, 1, 1]] {
        for magnitude in [1.0f32, 1e30, 1e-30] {
            let mut problem = Problem::new(shape[0], shape[1], shape[2]);
            (problem.x, problem.dy) = (vec![3.0 * magnitude; shape[1]], vec![-0.3 * magnitude; shape[1]]);
            problem.running_mean.fill(magnitude);
            problem.weight = Some(vec![-1.7; shape[1]]);
            problem.bias = Some((0..shape[1]).map(|channel| [0.7, -0.3, 1e-5][channel % 3]).collect());
            problem.config.momentum = 0.25;
            assert_eq!(problem.try_train::<Relu>().err(), Some(Error::SingleSample));
            // Not with the first batch of a cumulative average either, but where nothing moves.
            let cumulative = Problem { batches: Some(0), ..problem.clone() };
            assert_eq!(cumulative.try_train::<Relu>().err(), Some(Error::SingleSample));
            problem.config.momentum = 0.0;
            assert_eq!(bits(&problem.train::<Relu>().running_var), bits(&problem.running_var));

            problem.config.momentum = 0.25;
            problem.config.running_var = RunningVariance::Biased;
            check_one_value::<Identity>(&problem);
            check_one_value::<Relu>(&problem);
            problem = problem.with_mask(0.5, 1);
            check_one_value::<Relu>(&problem);
        }
    }
}

/// What is not finite is not hidden by the zeros.
#[test]
fn a_gradient_of_one_value_that_is_not_finite_stays_so() {
    let mut problem = Problem::new(1, 3, 1);
    problem.config.running_var = RunningVariance::Biased;
    (problem.x, problem.dy) = (vec![1.0, 2.0, f32::INFINITY], vec![f32::NAN, 0.5, 1.0]);
    let trained = problem.train::<Identity>();
    let gradients = problem.backward::<Identity>(Statistics::Batch(trained.saved()));
    assert!(trained.y[2].is_nan() && trained.y[..2] == [0.0; 2]);
    assert!(gradients.dx[0].is_nan() && gradients.dx[1] == 0.0 && gradients.d_weight[0].is_nan());
}

#[test]
fn a_running_variance_that_eps_does_not_lift_above_0_is_refused_with_its_channel() {
    for &shape in SHAPES {
        for (eps, var) in
            [(1e-5f32, -1e-5), (1e-5, -1e-4), (1e-5, f32::NEG_INFINITY), (0.0, 0.0), (0.0, -0.0), (0.0, -1e-45)]
        {
            let mut problem = normal(shape, 7);
            problem.config.eps = eps;
            for channel in [0, shape[1] - 1] {
                let mut spoilt = problem.clone();
                spoilt.running_var[channel] = var;
                let layer = spoilt.layer::<Relu>();
                let (mut y, mut scratch) = (vec![7.0; spoilt.x.len()], vec![0.0; layer.scratch_len()]);
                let refused = layer.eval(Eval {
                    parameters: spoilt.parameters(),
                    running: spoilt.running(),
                    dropout: Dropout::Off,
                    input: &spoilt.x,
                    residual: None,
                    output: &mut y,
                    scratch: &mut scratch,
                });
                assert_eq!(refused, Err(Error::Variance { channel, var }), "shape {shape:?}");
                let in_place = layer.eval_in_place(EvalInPlace {
                    parameters: spoilt.parameters(),
                    running: spoilt.running(),
                    dropout: Dropout::Off,
                    residual: None,
                    values: &mut y,
                    scratch: &mut scratch,
                });
                assert_eq!((in_place, y.iter().all(|&y| y == 7.0)), (refused, true), "shape {shape:?}");
                let mut sums = vec![7.0; layer.sums_len()];
                let reduced = layer.reduce(Reduce {
                    parameters: spoilt.parameters(),
                    statistics: Statistics::Fixed(spoilt.running()),
                    dropout: Dropout::Off,
                    input: &spoilt.x,
                    residual: None,
                    grad_output: &spoilt.dy,
                    sums: &mut sums,
                    scratch: &mut scratch,
                });
                assert_eq!((reduced, sums.iter().all(|&sum| sum == 7.0)), (refused, true), "shape {shape:?}");
                let backward = spoilt.try_backward::<Relu>(Statistics::Fixed(spoilt.running()));
                assert_eq!(backward.err(), refused.err(), "shape {shape:?}");
            }
        }
        // The smallest sums above 0 have a root, and the statistics of a batch do not ask for one.
        let tiny = f32::from_bits(1);
        for (eps, var) in [(1e-5f32, -(1e-5f32.next_down())), (0.0, tiny), (tiny, 0.0)] {
            let mut problem = Problem { weight: Some(vec![1e-20; shape[1]]), ..normal(shape, 7) };
            (problem.config.eps, problem.running_var[0]) = (eps, var);
            assert!(problem.eval::<Identity>().iter().all(|y| y.is_finite()), "{var:e} + {eps:e}, shape {shape:?}");
        }
        let mut problem = normal(shape, 7);
        problem.running_var.fill(-1.0);
        assert!(problem.train::<Identity>().y.iter().all(|y| y.is_finite()));
        // NaN is no fault of the call: it stays in its channel.
        problem = normal(shape, 7);
        problem.running_var[0] = f32::NAN;
        for (index, y) in problem.eval::<Identity>().iter().enumerate() {
            assert_eq!(y.is_nan(), channel_of(&problem, index) == 0, "shape {shape:?}");
        }
    }
}

#[test]
fn a_variance_that_does_not_fit_an_f32_leaves_a_running_variance_that_later_batches_bring_back() {
    for &shape in SHAPES {
        let mut problem = normal(shape, 9);
        problem.config.momentum = 0.1;
        let ordinary = problem.x.clone();
        let signs = [1.0f32, -1.0].into_iter().cycle();
        problem.x.iter_mut().zip(signs).filter(|(x, _)| **x != 0.0).for_each(|(x, sign)| *x = 3e38 * sign);
        let largest = f64::from(f32::MAX);
        for batches in [None, Some(0)] {
            problem.batches = batches;
            (problem.running_mean, problem.running_var) = (vec![0.5; shape[1]], vec![2.0; shape[1]]);
            let trained = problem.train::<Identity>();
            let part = if batches.is_some() { 1.0 } else { 0.1 };
            for &var in &trained.running_var {
                assert!((f64::from(var) / (part * largest) - 1.0).abs() < 1e-7, "{var:e}, shape {shape:?}");
            }
        }
        problem.x = ordinary;
        problem.batches = None;
        problem.running_var = vec![f32::MAX; shape[1]];
        for _ in 0..1000 {
            problem.running_var = problem.train::<Identity>().running_var;
        }
        assert!(problem.running_var.iter().all(|&var| var < 10.0), "{:?}, shape {shape:?}", problem.running_var);
        // Infinity and NaN stay: no later batch tells how far off they were.
        problem.running_var.fill(f32::INFINITY);
        assert!(problem.train::<Identity>().running_var.iter().all(|&var| var == f32::INFINITY));
        problem.x.fill(f32::NAN);
        problem.running_var.fill(1.0);
        assert!(problem.train::<Identity>().running_var.iter().all(|var| var.is_nan()));
    }
}

#[test]
fn an_empty_tensor_is_no_error_leaves_the_running_statistics_alone_and_saves_and_has_gradients_of_zero() {
    for shape in [[0, 3, 4], [5, 0, 4], [5, 3, 0], [0, 3, 1], [0, 0, 0], [1, 0, 1]] {
        for p in [0.0, 0.3, 1.0] {
            // Not even eps = 0, which batch statistics of something would need above 0, matters here.
            let mut problem = Problem::new(shape[0], shape[1], shape[2]).with_mask(p, 1);
            problem.config.eps = 0.0;
            // Neither does a momentum, nor a variance.
            problem.config.momentum = f64::NAN;
            problem.running_var.fill(-1.0);
            let trained = problem.train::<Relu>();
            assert_eq!((&trained.running_mean, &trained.running_var), (&problem.running_mean, &problem.running_var));
            assert_eq!((bits(&trained.mean), bits(&trained.mean_tail)), (vec![0; shape[1]], vec![0; shape[1]]));
            assert!(trained.inv_std.iter().all(|value| value.to_bits() == 0), "what is saved of an empty batch");
            assert!(problem.eval::<Relu>().is_empty());
            for statistics in [Statistics::Batch(trained.saved()), Statistics::Fixed(problem.running())] {
                let gradients = problem.backward::<Relu>(statistics);
                assert_eq!(bits(&gradients.d_weight), vec![0; shape[1]]);
                assert_eq!(bits(&gradients.d_bias), vec![0; shape[1]]);
            }
        }
    }
}

#[test]
fn eps_is_finite_and_not_negative_and_batch_statistics_need_it_above_zero() {
    let shape = Shape::nc(4, 3).expect("a small shape");
    let layer = |eps| Layer::new(shape, Relu, Config { eps, ..Config::DEFAULT });
    for eps in [-1e-5, -f32::from_bits(1), f32::INFINITY, f32::NEG_INFINITY] {
        assert_eq!(layer(eps).err(), Some(Error::Eps { eps }));
    }
    assert!(matches!(layer(f32::NAN), Err(Error::Eps { eps }) if eps.is_nan()));
    for eps in [0.0, f32::from_bits(1), 1e-5, f32::MAX] {
        assert!(layer(eps).is_ok());
    }

    let mut problem = normal([4, 3, 1], 5);
    problem.config.eps = 0.0;
    problem.running_var.fill(4.0);
    problem.running_mean.fill(1.0);
    (problem.weight, problem.bias) = (None, None);
    assert_eq!(problem.try_train::<Identity>().err(), Some(Error::Eps { eps: 0.0 }));
    let (mean, inv_std) = (vec![0.0; 3], vec![1.0; 3]);
    let saved = Saved { mean: &mean, mean_tail: &mean, inv_std: &inv_std };
    assert_eq!(problem.try_backward::<Identity>(Statistics::Batch(saved)).err(), Some(Error::Eps { eps: 0.0 }));
    for (y, x) in problem.eval::<Identity>().iter().zip(&problem.x) {
        assert_eq!(*y, (x - 1.0) / 2.0);
    }
    let gradients = problem.backward::<Identity>(Statistics::Fixed(problem.running()));
    assert!(gradients.dx.iter().zip(&problem.dy).all(|(&dx, dy)| dx == dy / 2.0));
}

#[test]
fn p_is_in_its_range() {
    let shape = Shape::nc(4, 3).expect("a small shape");
    for wrong in [-0.1, 1.1, -f64::from_bits(1), 1.0 + f64::EPSILON, f64::INFINITY, f64::NEG_INFINITY] {
        let error = Layer::new(shape, Relu, Config { p: wrong, ..Config::DEFAULT }).err();
        assert_eq!(error, Some(Error::Probability { p: wrong }));
        assert_eq!(Bernoulli::new(wrong).err(), Some(Error::Probability { p: wrong }));
    }
    let nan = Config { p: f64::NAN, ..Config::DEFAULT };
    assert!(matches!(Layer::new(shape, Relu, nan), Err(Error::Probability { .. })));
    for right in [0.0, 0.5, 1.0] {
        assert!(Layer::new(shape, Relu, Config { p: right, ..Config::DEFAULT }).is_ok());
    }
}

/// The result of finishing moments, and the saved mean, which is 7 before.
fn finish_alone(
    layer: &Layer<Relu>,
    moments: &[f64; 9],
    running: Option<RunningMut<'_>>,
) -> (Result<(), Error>, [f32; 3]) {
    let (mut mean, mut mean_tail, mut inv_std) = ([7.0; 3], [7.0; 3], [7.0; 3]);
    let saved = SavedMut { mean: &mut mean, mean_tail: &mut mean_tail, inv_std: &mut inv_std };
    (layer.finish(Finish { moments, running, saved }), mean)
}

#[test]
fn momentum_is_in_its_range_where_it_is_used_and_any_number_elsewhere() {
    for wrong in [-0.1, 1.1, -f64::from_bits(1), 1.0 + f64::EPSILON, f64::INFINITY, f64::NEG_INFINITY, f64::NAN] {
        let usual = normal([4, 3, 1], 6);
        let mut problem = usual.clone();
        problem.config.momentum = wrong;
        let refused = problem.try_train::<Relu>().err();
        assert!(matches!(refused, Some(Error::Momentum { momentum }) if momentum.to_bits() == wrong.to_bits()));
        let layer = problem.layer::<Relu>();
        let (mut mean, mut var) = ([7.0; 3], [7.0; 3]);
        let mut moments = [0.0; 9];
        // Without values nothing moves.
        assert!(finish_alone(&layer, &moments, Some(RunningMut::new(&mut mean, &mut var))).0.is_ok());
        moments = [4.0, 4.0, 4.0, 0.5, 0.5, 0.5, 1.0, 1.0, 1.0];
        let (refused, saved_mean) = finish_alone(&layer, &moments, Some(RunningMut::new(&mut mean, &mut var)));
        assert!(matches!(refused, Err(Error::Momentum { .. })));
        assert_eq!((saved_mean, mean, var), ([7.0; 3], [7.0; 3], [7.0; 3]));
        assert_eq!(finish_alone(&layer, &moments, None), (Ok(()), [0.5; 3]));

        assert_eq!(bits(&problem.eval::<Relu>()), bits(&usual.eval::<Relu>()));
        let gradients = problem.backward::<Relu>(Statistics::Fixed(problem.running()));
        assert_eq!(gradients.bits(), usual.backward::<Relu>(Statistics::Fixed(usual.running())).bits());
        let cumulative = |problem: &Problem| Problem { batches: Some(3), ..problem.clone() }.train::<Relu>().bits();
        assert_eq!(cumulative(&problem), cumulative(&usual));
    }
    for right in [0.0, 0.5, 1.0] {
        let mut problem = normal([4, 3, 1], 6);
        problem.config.momentum = right;
        assert!(problem.try_train::<Relu>().is_ok());
    }
}

#[test]
fn the_keep_probability_and_the_scale_are_those_of_the_contract() {
    let mut random = SplitMix64::new(6);
    let drawn: Vec<f64> = (0..10_000).map(|_| random.next_unit()).collect();
    let edges = [0.0, 1.0, 0.5, 0.1, 0.9, 0.25, 1.0 / 3.0, 2.0f64.powi(-32), 2.0f64.powi(-33), 1.0 - 2.0f64.powi(-33)];
    for p in edges.into_iter().chain([1e-300, 1.0 - 2.0f64.powi(-32), 1.5 * 2.0f64.powi(-32)]).chain(drawn) {
        let keep = Bernoulli::new(p).expect("a probability");
        let threshold = mask::threshold(p);
        assert_eq!(keep.threshold(), threshold, "p = {p}");
        assert_eq!(keep.keep_probability(), threshold as f64 / 2.0f64.powi(32), "p = {p}");
        assert_eq!(keep.scale(), mask::scale(threshold), "p = {p}");
    }
}

#[test]
fn p_is_the_probability_to_drop() {
    for p in [0.1, 0.9] {
        let problem = Problem::new(1, 1, 100_000).with_mask(p, 7);
        let dropped = (0..problem.x.len()).filter(|&index| problem.drops(index)).count();
        assert!((dropped as f64 / 1e5 - p).abs() < 0.01, "{dropped} of 100000 are dropped at p = {p}");
    }
}

#[test]
fn masks_are_those_of_the_reference() {
    for (seed, p) in [(0, 0.5), (1, 0.1), (u64::MAX, 1.0 / 3.0), (42, 1e-9), (7, 0.0), (7, 1.0)] {
        for len in [1, 7, 8, 511, 512, 513, 4095, 4096, 4097, 20_001] {
            let problem = Problem::new(1, 1, len).with_mask(p, seed);
            assert_eq!(
                problem.mask,
                Some(mask::bytes(seed, mask::threshold(p), len)),
                "seed {seed}, p {p}, length {len}"
            );
        }
    }
}

#[test]
fn bits_past_the_last_element_are_never_read() {
    for shape in [[3, 3, 1], [1, 1, 77], [21, 19, 1], [1, 3, 17]] {
        let problem = normal(shape, 8).with_mask(0.5, 8);
        let mut polluted = problem.clone();
        let used = problem.x.len() % 8;
        if let Some(last) = polluted.mask.as_mut().and_then(|mask| mask.last_mut()) {
            *last |= 0xFF << used;
        }
        assert_ne!(problem.mask, polluted.mask);
        let (clean, dirty) = (problem.train::<Relu>(), polluted.train::<Relu>());
        assert_eq!(clean.bits(), dirty.bits());
        assert_eq!(bits(&problem.eval::<Relu>()), bits(&polluted.eval::<Relu>()));
        let statistics = Statistics::Batch(clean.saved());
        assert_eq!(problem.backward::<Relu>(statistics).bits(), polluted.backward::<Relu>(statistics).bits());
    }
}

#[test]
fn p_1_gives_zeros_and_gradients_of_zero_but_statistics_all_the_same() {
    for &shape in SHAPES {
        for value in [0.0, f32::INFINITY, f32::NAN] {
            let mut problem = normal(shape, 9);
            problem.x[1] += value;
            problem.dy[2] += value;
            let expected = problem.train::<Identity>();
            let mut problem = problem.with_mask(1.0, 9);
            // Even a mask that keeps everything: the keep probability is 0, and so is all that comes of it.
            problem.mask.as_mut().expect("dropout is on").fill(0xFF);
            let trained = problem.train::<Identity>();
            assert_eq!(bits(&trained.y), vec![0; problem.x.len()]);
            assert_eq!(bits(&trained.running_mean), bits(&expected.running_mean));
            assert_eq!(bits(&trained.running_var), bits(&expected.running_var));
            assert_eq!(bits(&problem.eval::<Relu>()), vec![0; problem.x.len()]);
            for statistics in [Statistics::Batch(trained.saved()), Statistics::Fixed(problem.running())] {
                let gradients = problem.backward::<Relu>(statistics);
                assert!(gradients.bits().iter().all(|&bits| bits == 0), "shape {shape:?}");
            }
        }
    }
}

#[test]
fn p_0_is_the_same_as_no_dropout_to_the_bit() {
    for &shape in SHAPES {
        let off = normal(shape, 10);
        let on = off.clone().with_mask(0.0, 10);
        let (trained, expected) = (on.train::<Relu>(), off.train::<Relu>());
        assert_eq!(trained.bits(), expected.bits());
        assert_eq!(bits(&on.eval::<Relu>()), bits(&off.eval::<Relu>()));
        let statistics = Statistics::Batch(trained.saved());
        assert_eq!(on.backward::<Relu>(statistics).bits(), off.backward::<Relu>(statistics).bits());
    }
}

/// The four combinations of the two switches: dropout at p = 1/2 is a selection and an exact doubling, whichever
/// statistics it comes after.
fn check_that_dropout_doubles_or_drops<A: Oracle>() {
    for &shape in SHAPES {
        let off = normal(shape, 11);
        let on = off.clone().with_mask(0.5, 11);
        let doubled = |values: &[f32]| -> Vec<f32> {
            (0..values.len()).map(|index| if on.drops(index) { 0.0 } else { 2.0 * values[index] }).collect()
        };
        let (trained, plain) = (on.train::<A>(), off.train::<A>());
        assert_eq!(trained.y, doubled(&plain.y), "batch statistics, shape {shape:?}");
        assert_eq!(on.eval::<A>(), doubled(&off.eval::<A>()), "fixed statistics, shape {shape:?}");
        let behind = Problem { dy: doubled(&off.dy), ..off.clone() };
        for statistics in [Statistics::Batch(plain.saved()), Statistics::Fixed(off.running())] {
            let (with, without) = (on.backward::<A>(statistics), behind.backward::<A>(statistics));
            assert_eq!(with.dx, without.dx, "{statistics:?}, shape {shape:?}");
            assert_eq!(with.d_weight, without.d_weight, "{statistics:?}, shape {shape:?}");
            assert_eq!(with.d_bias, without.d_bias, "{statistics:?}, shape {shape:?}");
        }
    }
}

#[test]
fn dropout_is_on_or_off_with_either_statistics_independently() {
    #[derive(Clone)]
    struct Check;

    impl Visitor for Check {
        type Result = ();

        fn visit<A: Oracle>(self) {
            check_that_dropout_doubles_or_drops::<A>();
        }
    }

    every_activation(&Check);
}

#[test]
fn training_does_not_depend_on_the_running_statistics_nor_evaluation_on_the_batch() {
    for &shape in SHAPES {
        let problem = normal(shape, 12);
        let mut other = problem.clone();
        other.running_mean.fill(100.0);
        other.running_var.fill(f32::NAN);
        assert_eq!(bits(&problem.train::<Relu>().y), bits(&other.train::<Relu>().y));

        let mut other = problem.clone();
        let changed = other.x.len() - 1;
        other.x[changed] += 1000.0;
        let (mut y, mut expected) = (other.eval::<Relu>(), problem.eval::<Relu>());
        y.truncate(changed);
        expected.truncate(changed);
        assert_eq!(bits(&y), bits(&expected));
    }
}

#[test]
fn relu_passes_nan_in_both_directions() {
    for &shape in SHAPES {
        let mut problem = normal(shape, 13);
        let index = problem.x.len() - 1;
        problem.x[index] = f32::NAN;
        assert!(problem.eval::<Relu>()[index].is_nan());
        assert!(problem.train::<Relu>().y[index].is_nan());
        // The gate of NaN is open.
        problem.dy[index] = 3.0;
        problem.weight = Some(vec![0.5; shape[1]]);
        problem.running_var.fill(1.0);
        let dx = problem.backward::<Relu>(Statistics::Fixed(problem.running())).dx;
        assert!((dx[index] - 1.5).abs() < 1e-4, "shape {shape:?}");
        // And NaN goes through a gate that is open, but not through one that is shut.
        let y = problem.eval::<Relu>();
        problem.dy.fill(f32::NAN);
        let dx = problem.backward::<Relu>(Statistics::Fixed(problem.running())).dx;
        for (index, (dx, y)) in dx.iter().zip(&y).enumerate() {
            assert_eq!(dx.is_nan(), *y != 0.0, "index {index}, shape {shape:?}");
        }
    }
}

/// Dropped elements, `p = 0`, `p = 1` and a NaN in one channel, with one activation after the other.
#[derive(Clone)]
struct DropoutAndNan;

impl Visitor for DropoutAndNan {
    type Result = ();

    fn visit<A: Oracle>(self) {
        let name = format!("{:?}", A::ACTIVATION);
        for &shape in SHAPES {
            let off = normal(shape, 21);
            let on = off.clone().with_mask(0.0, 21);
            let (trained, plain) = (on.train::<A>(), off.train::<A>());
            assert_eq!(trained.bits(), plain.bits(), "{name}, shape {shape:?}");
            let statistics = Statistics::Batch(trained.saved());
            assert_eq!(on.backward::<A>(statistics).bits(), off.backward::<A>(statistics).bits(), "{name}");

            let mut all = off.clone().with_mask(1.0, 21);
            (all.x[0], all.dy[0]) = (f32::NAN, f32::INFINITY);
            assert_eq!(bits(&all.eval::<A>()), vec![0; all.x.len()], "{name}, shape {shape:?}");
            let gradients = all.backward::<A>(Statistics::Fixed(all.running()));
            assert!(gradients.bits().iter().all(|&bits| bits == 0), "{name}, shape {shape:?}");

            let healthy = off.clone().with_mask(0.5, 21);
            let mut ill = healthy.clone();
            for index in (0..ill.x.len()).filter(|&index| healthy.drops(index)) {
                (ill.x[index], ill.dy[index]) = (f32::NAN, f32::INFINITY);
            }
            assert_eq!(bits(&ill.eval::<A>()), bits(&healthy.eval::<A>()), "{name}, shape {shape:?}");
            let [ill, healthy] =
                [ill, healthy].map(|problem| problem.backward::<A>(Statistics::Fixed(problem.running())).dx);
            assert_eq!(bits(&ill), bits(&healthy), "{name}, shape {shape:?}");
        }
    }
}

#[test]
fn dropout_is_a_selection_after_every_activation() {
    every_activation(&DropoutAndNan);
}

#[test]
fn relu_has_derivative_0_at_0() {
    let mut problem = Problem::new(2, 16, 20);
    problem.dy.fill(1.0);
    assert!(problem.eval::<Relu>().iter().all(|y| y.to_bits() == 0));
    assert!(problem.backward::<Relu>(Statistics::Fixed(problem.running())).dx.iter().all(|dx| dx.to_bits() == 0));
}

/// Also where the product that it is added to overflows f32, to the opposite infinity in half of the elements.
#[test]
fn an_infinite_bias_is_the_sum_of_anything_finite_and_itself() {
    for &shape in SHAPES {
        let mut problem = normal(shape, 29).with_mask(0.25, 29);
        // The slope is one that f32 arithmetic takes.
        problem.x.iter_mut().for_each(|x| *x *= 1e10);
        problem.weight = Some(vec![3e38; shape[1]]);
        problem.running_mean.fill(0.1);
        problem.running_var.fill(1e20);
        for bias in [f32::INFINITY, f32::NEG_INFINITY] {
            problem.bias = Some(vec![bias; shape[1]]);
            let trained = problem.train::<Identity>();
            for y in [problem.eval::<Identity>(), trained.y.clone()] {
                for (index, &y) in y.iter().enumerate() {
                    let expected = if problem.drops(index) { 0.0 } else { bias };
                    assert_eq!(y.to_bits(), expected.to_bits(), "y[{index}] of shape {shape:?}");
                }
            }
            for statistics in [Statistics::Batch(trained.saved()), Statistics::Fixed(problem.running())] {
                let gradients = problem.backward::<Relu>(statistics);
                for (channel, &d_bias) in gradients.d_bias.iter().enumerate() {
                    assert_eq!(d_bias == 0.0, bias < 0.0, "d_bias[{channel}] of shape {shape:?}");
                    assert!(d_bias.is_finite(), "d_bias[{channel}] of shape {shape:?}");
                }
            }
        }
    }
}

#[test]
fn nan_and_inf_stay_inside_their_channel_to_the_bit() {
    for &shape in SHAPES.iter().filter(|shape| shape[1] > 1) {
        for value in NOT_FINITE {
            for victim in [0, 1, shape[1] - 1] {
                let healthy = normal(shape, 14).with_mask(0.1, 14);
                let mut ill = healthy.clone();
                let index = (0..ill.x.len()).rfind(|&index| channel_of(&ill, index) == victim).expect("an element");
                (ill.x[index], ill.dy[index]) = (value, value);
                let others = |values: &[f32]| -> Vec<u32> {
                    let other = |&(index, _): &(usize, u32)| channel_of(&ill, index) != victim;
                    bits(values).into_iter().enumerate().filter(other).map(|(_, bits)| bits).collect()
                };
                let other_channels = |values: &[f32]| -> Vec<u32> {
                    let other = |&(channel, _): &(usize, u32)| channel != victim;
                    bits(values).into_iter().enumerate().filter(other).map(|(_, bits)| bits).collect()
                };
                let (expected, trained) = (healthy.train::<Relu>(), ill.train::<Relu>());
                assert_eq!(others(&trained.y), others(&expected.y), "shape {shape:?}, {value}");
                for (after, before) in [
                    (&trained.running_mean, &expected.running_mean),
                    (&trained.running_var, &expected.running_var),
                    (&trained.mean, &expected.mean),
                    (&trained.mean_tail, &expected.mean_tail),
                ] {
                    assert_eq!(other_channels(after), other_channels(before), "shape {shape:?}, {value}");
                }
                assert!(trained.running_var[victim].is_nan(), "the ill channel says so");
                assert_eq!(others(&ill.eval::<Relu>()), others(&healthy.eval::<Relu>()));
                let pairs = [
                    (
                        ill.backward::<Relu>(Statistics::Batch(trained.saved())),
                        healthy.backward::<Relu>(Statistics::Batch(expected.saved())),
                    ),
                    (
                        ill.backward::<Relu>(Statistics::Fixed(ill.running())),
                        healthy.backward::<Relu>(Statistics::Fixed(healthy.running())),
                    ),
                ];
                for (after, before) in pairs {
                    assert_eq!(others(&after.dx), others(&before.dx), "shape {shape:?}, {value}");
                    assert_eq!(other_channels(&after.d_weight), other_channels(&before.d_weight));
                    assert_eq!(other_channels(&after.d_bias), other_channels(&before.d_bias));
                }
            }
        }
    }
}

#[test]
fn permuting_the_channels_permutes_the_bits_of_every_result() {
    for &shape in SHAPES.iter().filter(|shape| shape[1] > 1) {
        let channels = shape[1];
        let problem = normal(shape, 15);
        let of = |channel: usize| (channel * 2 + 1) % channels;
        assert!(channels % 2 == 1, "the permutation is one for odd numbers of channels");
        let tensor = |values: &[f32]| {
            let shape = problem.reference_shape();
            shape.tensor(|channel| shape.indices(of(channel)).map(|index| values[index]).collect())
        };
        let per_channel = |values: &[f32]| -> Vec<f32> { (0..channels).map(|channel| values[of(channel)]).collect() };
        let permuted = Problem {
            x: tensor(&problem.x),
            dy: tensor(&problem.dy),
            weight: problem.weight.as_deref().map(per_channel),
            bias: problem.bias.as_deref().map(per_channel),
            running_mean: per_channel(&problem.running_mean),
            running_var: per_channel(&problem.running_var),
            ..problem.clone()
        };
        let (before, after) = (problem.train::<Relu>(), permuted.train::<Relu>());
        assert_eq!(after.y, tensor(&before.y), "shape {shape:?}");
        assert_eq!(after.running_mean, per_channel(&before.running_mean), "shape {shape:?}");
        assert_eq!(after.running_var, per_channel(&before.running_var), "shape {shape:?}");
        assert_eq!(after.mean_tail, per_channel(&before.mean_tail), "shape {shape:?}");
        assert_eq!(permuted.eval::<Relu>(), tensor(&problem.eval::<Relu>()), "shape {shape:?}");
        let pairs = [
            (
                problem.backward::<Relu>(Statistics::Batch(before.saved())),
                permuted.backward::<Relu>(Statistics::Batch(after.saved())),
            ),
            (
                problem.backward::<Relu>(Statistics::Fixed(problem.running())),
                permuted.backward::<Relu>(Statistics::Fixed(permuted.running())),
            ),
        ];
        for (before, after) in pairs {
            assert_eq!(after.dx, tensor(&before.dx), "shape {shape:?}");
            assert_eq!(after.d_weight, per_channel(&before.d_weight), "shape {shape:?}");
            assert_eq!(after.d_bias, per_channel(&before.d_bias), "shape {shape:?}");
        }
    }
}

#[test]
fn a_missing_weight_is_1_and_a_missing_bias_is_0() {
    for &shape in SHAPES {
        let channels = shape[1];
        let without = Problem { weight: None, bias: None, ..normal(shape, 16) };
        let with = Problem { weight: Some(vec![1.0; channels]), bias: Some(vec![0.0; channels]), ..without.clone() };
        let (trained, expected) = (without.train::<Relu>(), with.train::<Relu>());
        assert_eq!(trained.bits(), expected.bits());
        assert_eq!(bits(&without.eval::<Relu>()), bits(&with.eval::<Relu>()));
        let statistics = Statistics::Batch(trained.saved());
        assert_eq!(without.backward::<Relu>(statistics).bits(), with.backward::<Relu>(statistics).bits());
    }
}

#[test]
fn what_is_not_asked_for_changes_nothing_of_what_is() {
    for &shape in SHAPES {
        let problem = normal(shape, 17).with_mask(0.5, 17).with_residual(class("normal"), 18);
        let (layer, expected) = (problem.layer::<Relu>(), problem.train::<Relu>());
        let mut trained = problem.train::<Relu>();
        trained.y.fill(f32::NAN);
        let saved =
            SavedMut { mean: &mut trained.mean, mean_tail: &mut trained.mean_tail, inv_std: &mut trained.inv_std };
        let mut scratch = vec![f64::NAN; layer.scratch_len()];
        layer
            .train(Train {
                parameters: problem.parameters(),
                running: None,
                dropout: problem.dropout(),
                input: &problem.x,
                output: &mut trained.y,
                saved,
                residual: problem.residual.as_deref(),
                scratch: &mut scratch,
            })
            .expect("a training call without running statistics");
        assert_eq!(trained.bits(), expected.bits(), "shape {shape:?}");

        for statistics in [Statistics::Batch(expected.saved()), Statistics::Fixed(problem.running())] {
            let all = problem.backward::<Relu>(statistics);
            for asked in 0..16 {
                let asks = |bit: u32| asked >> bit & 1 == 1;
                let (mut dx, mut d_residual) = (vec![0.0; problem.x.len()], vec![0.0; problem.x.len()]);
                let (mut d_weight, mut d_bias) = (vec![0.0; shape[1]], vec![0.0; shape[1]]);
                layer
                    .backward(Backward {
                        parameters: problem.parameters(),
                        statistics,
                        dropout: problem.dropout(),
                        input: &problem.x,
                        grad_output: &problem.dy,
                        grad_input: asks(0).then_some(&mut dx),
                        grad_parameters: ParameterGradients {
                            weight: asks(1).then_some(&mut d_weight),
                            bias: asks(2).then_some(&mut d_bias),
                        },
                        residual: problem.residual.as_deref(),
                        grad_residual: asks(3).then_some(&mut d_residual),
                        scratch: &mut scratch,
                    })
                    .expect("a backward call for some of the gradients");
                assert!(!asks(0) || bits(&dx) == bits(&all.dx), "{statistics:?}, shape {shape:?}");
                assert!(!asks(3) || bits(&d_residual) == bits(&all.d_residual), "{statistics:?}, shape {shape:?}");
                assert!(!asks(1) || bits(&d_weight) == bits(&all.d_weight), "{statistics:?}, shape {shape:?}");
                assert!(!asks(2) || bits(&d_bias) == bits(&all.d_bias), "{statistics:?}, shape {shape:?}");
            }
        }
    }
}

#[test]
fn batch_norm_is_its_textbook_self_without_dropout_and_activation() {
    let mut problem = Problem::new(2, 1, 2);
    problem.config = Config { eps: 1.0, momentum: 1.0, ..Config::DEFAULT };
    problem.x = vec![1.0, 3.0, 5.0, 3.0];
    problem.dy = vec![1.0, 0.0, 0.0, 0.0];
    let trained = problem.train::<Identity>();
    let inv_std = 1.0 / 3.0f64.sqrt();
    assert_eq!((trained.mean[0], trained.mean_tail[0], trained.inv_std[0]), (3.0, 0.0, inv_std));
    assert_eq!((trained.running_mean[0], trained.running_var[0]), (3.0, 8.0 / 3.0));
    let gradients = problem.backward::<Identity>(Statistics::Batch(trained.saved()));
    for (actual, expected) in trained.y.iter().zip([-2.0, 0.0, 2.0, 0.0]) {
        assert!((f64::from(*actual) - expected * inv_std).abs() < 1e-6);
    }
    // g - mean(g) - xhat*mean(g*xhat), where only the first g is not 0 and its xhat is -2*inv_std.
    for ((actual, g), deviation) in gradients.dx.iter().zip([1.0, 0.0, 0.0, 0.0]).zip([-2.0, 0.0, 2.0, 0.0]) {
        let expected = inv_std * (g - 0.25 - deviation * inv_std * -2.0 * inv_std / 4.0);
        assert!((f64::from(*actual) - expected).abs() < 1e-6, "{actual} instead of {expected}");
    }
}

/// One bit for a channel of a sample, or for a sample, is the same as a bit for each of its elements.
fn check_that_a_shared_bit_is_that_of_every_element<A: Oracle>(problem: &Problem) {
    let apart = Problem {
        config: Config { granularity: Granularity::Element, ..problem.config },
        mask: problem.mask_of_elements(),
        ..problem.clone()
    };
    let (trained, expected) = (problem.train::<A>(), apart.train::<A>());
    assert_eq!(trained.bits(), expected.bits());
    assert_eq!(bits(&problem.eval::<A>()), bits(&apart.eval::<A>()));
    for statistics in [Statistics::Batch(trained.saved()), Statistics::Fixed(problem.running())] {
        assert_eq!(problem.backward::<A>(statistics).bits(), apart.backward::<A>(statistics).bits());
    }
}

#[test]
fn channels_and_samples_are_dropped_as_a_whole() {
    // In the last two, rows of the tensor are joined to rows of a matrix: a vector has several samples.
    let more = [[64, 2, 1], [12, 16, 1], [7, 1, 40], [3, 2, 15], [5, 33, 2], [4, 17, 16], [1100, 3, 1], [522, 10, 1]];
    for &shape in SHAPES.iter().chain(&more) {
        for granularity in [Granularity::Channel, Granularity::Sample] {
            for positions in [1, 2, 3, 6].into_iter().filter(|&positions| positions == 1 || shape[2] == 1) {
                let [outer, channels, inner] = shape;
                let shape = [outer / positions * positions, channels, inner];
                let problem = normal(shape, 3).with_granularity(granularity, positions).with_mask(0.5, 5);
                let samples = outer / positions;
                let bits = if granularity == Granularity::Sample { samples } else { samples * channels };
                assert_eq!(problem.layer::<Relu>().mask_bits(), bits);
                check_that_a_shared_bit_is_that_of_every_element::<Relu>(&problem);
                let problem = problem.with_residual(class("normal"), 7);
                check_that_a_shared_bit_is_that_of_every_element::<Identity>(&problem);
            }
        }
    }
}

#[test]
fn a_tensor_without_elements_has_a_mask_without_bits() {
    for granularity in [Granularity::Element, Granularity::Channel, Granularity::Sample] {
        for [outer, channels, inner] in [[0, 3, 2], [2, 0, 3], [2, 3, 0], [2, 0, 1]] {
            let shape = Shape::new(outer, channels, inner).expect("a small shape");
            let layer = Layer::new(shape, Relu, Config { p: 0.5, granularity, ..Config::DEFAULT });
            let layer = layer.expect("constants in their ranges");
            assert_eq!((layer.mask_bits(), layer.mask_len()), (0, 0), "{granularity:?}, {shape:?}");
        }
    }
}

#[test]
fn the_positions_of_a_channels_last_shape_share_the_bits_of_their_sample() {
    let config = Config { p: 0.5, granularity: Granularity::Channel, ..Config::DEFAULT };
    let bits = |shape: Result<Shape, Error>| {
        Layer::new(shape.expect("a small shape"), Identity, config).expect("constants in their ranges").mask_bits()
    };
    for shape in [
        Shape::nc(6, 5),
        Shape::ncl(6, 5, 7),
        Shape::nchw(6, 5, 7, 3),
        Shape::ncdhw(6, 5, 7, 3, 2),
        Shape::nlc(6, 7, 5),
        Shape::nhwc(6, 7, 3, 5),
        Shape::ndhwc(6, 7, 3, 2, 5),
    ] {
        assert_eq!(bits(shape), 30, "{shape:?}");
    }
}

#[test]
fn a_missing_residual_is_0() {
    for &shape in SHAPES {
        let without = normal(shape, 1);
        let with = Problem { residual: Some(vec![0.0; without.x.len()]), ..without.clone() };
        assert_eq!(with.train::<Relu>().y, without.train::<Relu>().y, "shape {shape:?}");
        assert_eq!(with.eval::<Identity>(), without.eval::<Identity>(), "shape {shape:?}");
    }
}

/// Nothing is added where there is no residual, not even +0.0: that would change the sign of a zero.
#[test]
fn a_missing_residual_leaves_the_sign_of_zero() {
    for &shape in SHAPES {
        // The second weight is so small that its channels are normalised in f64.
        for weight in [1.0, 1e-35] {
            let mut problem = Problem::new(shape[0], shape[1], shape[2]);
            problem.weight = Some(vec![weight; shape[1]]);
            problem.bias = Some(vec![-0.0; shape[1]]);
            problem.x.fill(-0.0);
            let y = problem.eval::<Identity>();
            assert!(y.iter().all(|y| y.to_bits() == (-0.0f32).to_bits()), "shape {shape:?}, weight {weight}");
        }
    }
}

/// Twice 3e38 is no f32, but its sum with -3.1e38 is.
#[test]
fn a_sum_with_a_residual_is_finite_wherever_it_fits() {
    for &shape in SHAPES {
        let mut problem = normal(shape, 1);
        problem.running_mean.fill(0.0);
        problem.running_var.fill(1.0);
        problem.config.eps = 0.0;
        problem.weight = Some(vec![2.0; shape[1]]);
        problem.bias = None;
        problem.x.fill(3e38);
        problem.residual = Some(vec![-3.1e38; problem.x.len()]);
        let y = problem.eval::<Relu>();
        let expected = 2.0 * f64::from(3e38f32) - f64::from(3.1e38f32);
        assert!(y.iter().all(|&y| (f64::from(y) / expected - 1.0).abs() < 1e-7), "shape {shape:?}");
    }
}

/// The same in the gradients, where the channels of a row differ: those of every other sixteen pass, the others do not.
#[test]
fn a_sum_with_a_residual_is_that_of_its_channel_in_the_gradients() {
    for shape in [[9, 70, 1], [3, 35, 20], [12, 40, 2]] {
        let passes = |channel: usize| (channel / 16).is_multiple_of(2);
        let mut problem = normal(shape, 1);
        problem.running_mean.fill(0.0);
        problem.running_var.fill(1.0);
        problem.config.eps = 0.0;
        problem.weight = Some((0..shape[1]).map(|channel| if passes(channel) { 2.0 } else { -2.0 }).collect());
        problem.bias = None;
        problem.x.fill(3e38);
        let of_channel = |index| if passes(channel_of(&problem, index)) { -3.1e38 } else { 3.1e38 };
        problem.residual = Some((0..problem.x.len()).map(of_channel).collect());
        // So small that the sums of g*xhat are finite in f32: otherwise f64 would take over.
        let dy = 1.0 / 1024.0;
        problem.dy.fill(dy);
        let gradients = problem.backward::<Relu>(Statistics::Fixed(problem.running()));
        let samples = (shape[0] * shape[2]) as f32;
        for (channel, &d_bias) in gradients.d_bias.iter().enumerate() {
            assert_eq!(
                d_bias,
                if passes(channel) { samples * dy } else { 0.0 },
                "channel {channel} of shape {shape:?}"
            );
        }
        for (index, &dx) in gradients.dx.iter().enumerate() {
            let expected = if passes(channel_of(&problem, index)) { 2.0 * dy } else { 0.0 };
            assert_eq!(dx, expected, "element {index} of shape {shape:?}");
        }
    }
}

/// A vector that a run does not fill has lanes left. What a zero would become there may not fit f32, and must not make a
/// block that does not need f64 a block in f64: lanes that are worked one after the other have nothing past the end.
#[test]
fn numeric_contract_lanes_past_the_end_of_a_run_are_in_no_sum() {
    let mut problem = Problem::new(1, 2, 17);
    (problem.weight, problem.bias, problem.config.eps) = (None, None, 1e-20);
    problem.x.fill(1e29);
    problem.dy.fill(0.0);
    // In f32 the first lane has 1 + 2^-23, rounded up; in f64 it would have what it is.
    (problem.dy[0], problem.dy[1], problem.dy[16]) = (1.0, -1.0, 1.5 / (1 << 24) as f32);
    let trained = problem.train::<Identity>();
    let gradients = problem.backward::<Identity>(Statistics::Batch(trained.saved()));
    assert_eq!(gradients.d_bias, [1.0 / (1 << 23) as f32, 0.0]);
    assert_eq!(gradients.d_weight, [0.0, 0.0]);
}

#[test]
fn numeric_contract_the_saved_mean_is_a_pair_that_holds_more_than_one_f32() {
    for &shape in SHAPES {
        let mut problem = normal(shape, 21);
        problem.x.iter_mut().for_each(|x| *x += 1e6);
        let (samples, trained) = (shape[0] * shape[2], problem.train::<Identity>());
        for channel in 0..shape[1] {
            let of_channel = (0..problem.x.len()).filter(|&index| channel_of(&problem, index) == channel);
            // No rounding: less than 53 bits are in a sum of so few numbers of one magnitude.
            let exact = of_channel.map(|index| f64::from(problem.x[index])).sum::<f64>() / samples as f64;
            let (mean, tail) = (trained.mean[channel], trained.mean_tail[channel]);
            let pair = f64::from(mean) + f64::from(tail);
            assert!((pair - exact).abs() <= exact / (1u64 << 46) as f64, "shape {shape:?}: {pair:e} is not {exact:e}");
            assert_eq!(mean + tail, mean, "the first of the pair is the mean rounded");
        }
        assert!(trained.mean_tail.iter().any(|&tail| tail != 0.0), "shape {shape:?}");
    }
}

#[test]
fn mask_contract_a_mask_that_is_made_again_gives_the_gradients_of_a_stored_one() {
    for granularity in [Granularity::Element, Granularity::Channel, Granularity::Sample] {
        for &shape in SHAPES {
            let mut problem = normal(shape, 22);
            (problem.config.p, problem.config.granularity) = (0.3, granularity);
            let layer = problem.layer::<Relu>();
            let mut stored = vec![0; layer.mask_len()];
            layer.fill_mask(22, &mut stored).expect("a mask of its length");
            problem.mask = Some(stored);
            let trained = problem.train::<Relu>();
            let with_stored = problem.backward::<Relu>(Statistics::Batch(trained.saved()));
            let mut again = vec![0xA5; layer.mask_len()];
            layer.fill_mask(22, &mut again).expect("a mask of its length");
            problem.mask = Some(again);
            let with_again = problem.backward::<Relu>(Statistics::Batch(trained.saved()));
            assert_eq!(with_stored.bits(), with_again.bits());
        }
    }
}
