//! Prepared statistics: every result has the bits of the same call with running statistics and parameters.
//!
//! `Problem::eval` and `Problem::backward` make each call with prepared statistics as well, so that every test of this
//! program compares them. Here are the combinations of options, and what is said of the slice itself.

use normdrop::{
    Backend, Buffer, Config, Error, EvalPrepared, EvalPreparedInPlace, Granularity, Identity, Layer, Parameters,
    Prepare, Reduce, Relu, Running, Shape, Statistics,
};
use normdrop_reference::classes::class;

use crate::support::{Oracle, Problem, Visitor, bits, every_activation};

/// Layouts whose tables differ: planar of one and of two tiles, runs long and short, one channel, columns with one channel
/// each, runs of columns, folded rows, more channels than a table has.
const SHAPES: &[[usize; 3]] = &[
    [2, 3, 16],
    [3, 20, 49],
    [1, 35, 300],
    [5, 1, 7],
    [2, 256, 1],
    [9, 33, 1],
    [4, 5, 7],
    [2, 17, 15],
    [300, 3, 1],
    [129, 16, 1],
    [2, 4100, 1],
];

/// Data whose coefficients leave the range of f32, and ordinary data, by channel.
const CLASSES: [&str; 7] =
    ["normal", "1e30 with an offset", "1e-30", "constant", "offset 1e7", "one NaN", "3e38 of both signs"];

/// A problem with data of all classes; with parameters far beyond the ordinary in some channels if `extreme`.
fn problem(shape: [usize; 3], seed: u64, extreme: bool) -> Problem {
    let ordinary = ["normal", "offset 1e4"];
    let name = |channel: usize| if extreme { CLASSES[channel % CLASSES.len()] } else { ordinary[channel % 2] };
    let mut problem = Problem::random(shape, |channel| class(name(channel)), seed);
    if extreme {
        let (weights, biases) = ([1e-38, 1.5, 3e38, -2.0, 0.0], [0.5, 3e38, -0.0, 1e-40]);
        problem.weight = Some((0..shape[1]).map(|channel| weights[channel % weights.len()]).collect());
        problem.bias = Some((0..shape[1]).map(|channel| biases[channel % biases.len()]).collect());
    }
    problem
}

/// Every option that has an influence on coefficients or on the loops that read them.
fn with_options(problem: &Problem) -> Vec<Problem> {
    let with_tail = problem.clone().with_running_mean_tail();
    let positions = if problem.inner == 1 { problem.outer } else { 1 };
    vec![
        Problem { weight: None, ..problem.clone() },
        Problem { bias: None, ..with_tail.clone() },
        Problem { weight: None, bias: None, ..problem.clone() }.with_mask(0.3, 5),
        problem.clone().with_mask(0.5, 1).with_residual(class("normal"), 2),
        with_tail.clone().with_residual(class("3e38 of both signs"), 3),
        with_tail.clone().with_mask(0.9, 7),
        with_tail.clone().with_mask(1.0, 7),
        with_tail.with_granularity(Granularity::Channel, positions).with_mask(0.4, 8),
    ]
}

#[derive(Clone)]
struct Compare<'a> {
    problem: &'a Problem,
}

impl Visitor for Compare<'_> {
    type Result = ();

    fn visit<A: Oracle>(self) {
        // Each makes its call with prepared statistics, too.
        self.problem.eval::<A>();
        self.problem.backward::<A>(Statistics::Fixed(self.problem.running()));
    }
}

#[test]
fn numeric_contract_prepared_statistics_give_the_bits_of_unprepared_ones() {
    for (number, &shape) in (0..).zip(SHAPES) {
        for extreme in [false, true] {
            let problem = problem(shape, number, extreme);
            for problem in with_options(&problem) {
                Compare { problem: &problem }.visit::<Relu>();
                Compare { problem: &problem }.visit::<Identity>();
            }
            every_activation(&Compare { problem: &problem.with_mask(0.2, 9) });
        }
    }
}

/// A layer of one channel count and everything that a call of it needs.
fn prepared(layer: &Layer<Relu>, problem: &Problem) -> Vec<f64> {
    problem.try_prepare(layer).expect("statistics that can be prepared")
}

#[test]
fn numeric_contract_prepared_statistics_serve_every_backend_batch_size_layout_and_activation() {
    for extreme in [false, true] {
        let one = problem([3, 40, 17], 4, extreme).with_running_mean_tail();
        let of_one = prepared(&one.layer::<Relu>(), &one);
        for backend in Backend::ALL.into_iter().filter(|backend| backend.is_available()) {
            let layer = one.layer::<Relu>().with_backend(backend).expect("an available backend");
            let again = prepared(&layer, &one);
            assert_eq!(bits_of(&again), bits_of(&of_one), "{backend:?} prepares other bits");
            for shape in [[9, 40, 1], [1, 40, 1], [2, 40, 5], [300, 40, 1], [2, 40, 64]] {
                let len = shape.iter().product();
                let x = class("normal").values(8, len);
                let other = Problem { outer: shape[0], inner: shape[2], x, dy: vec![0.0; len], ..one.clone() }
                    .with_mask(0.25, 3);
                let layer = other.layer::<Identity>().with_backend(backend).expect("an available backend");
                let mut y = vec![f32::NAN; len];
                layer
                    .eval_prepared(EvalPrepared {
                        prepared: &of_one,
                        dropout: other.dropout(),
                        input: &other.x,
                        residual: None,
                        output: &mut y,
                        scratch: &mut vec![f64::NAN; layer.eval_scratch_len()],
                    })
                    .expect("a call without faults");
                assert_eq!(bits(&y), bits(&other.eval::<Identity>()), "{shape:?} on {backend:?}");
            }
        }
    }
}

fn bits_of(values: &[f64]) -> Vec<u64> {
    values.iter().map(|value| if value.is_nan() { f64::NAN.to_bits() } else { value.to_bits() }).collect()
}

#[test]
fn numeric_contract_sums_with_prepared_statistics_are_those_of_unprepared_ones() {
    let problem = problem([5, 18, 21], 6, false).with_running_mean_tail().with_mask(0.3, 2);
    let layer = problem.layer::<Relu>();
    let prepared = prepared(&layer, &problem);
    let sums_of = |parameters, statistics| {
        let mut sums = vec![f64::NAN; layer.sums_len()];
        layer
            .reduce(Reduce {
                parameters,
                statistics,
                dropout: problem.dropout(),
                input: &problem.x,
                residual: None,
                grad_output: &problem.dy,
                sums: &mut sums,
                scratch: &mut vec![f64::NAN; layer.backward_scratch_len()],
            })
            .expect("a call without faults");
        bits_of(&sums)
    };
    let unprepared = sums_of(problem.parameters(), Statistics::Fixed(problem.running()));
    assert_eq!(sums_of(Parameters::default(), Statistics::Prepared(&prepared)), unprepared);
    // The parameters of the call are in the slice already.
    let others = vec![7.0; problem.channels];
    let others = Parameters { weight: Some(&others), bias: Some(&others) };
    assert_eq!(sums_of(others, Statistics::Prepared(&prepared)), unprepared);
}

/// The slice has the numbers of the moment: what changes afterwards has no influence.
#[test]
fn prepared_statistics_stay_as_they_are_when_parameters_change() {
    let before = problem([4, 19, 1], 1, false);
    let layer = before.layer::<Relu>();
    let prepared = prepared(&layer, &before);
    let after = Problem { running_mean: vec![3.0; 19], weight: None, ..before.clone() };
    let eval = |prepared: &[f64]| {
        let mut values = before.x.clone();
        layer
            .eval_prepared_in_place(EvalPreparedInPlace {
                prepared,
                dropout: before.dropout(),
                residual: None,
                values: &mut values,
                scratch: &mut vec![0.0; layer.eval_scratch_len()],
            })
            .expect("a call without faults");
        bits(&values)
    };
    assert_eq!(eval(&prepared), bits(&before.eval::<Relu>()));
    assert_ne!(eval(&prepared), bits(&after.eval::<Relu>()));
    assert_eq!(eval(&after.try_prepare(&layer).expect("statistics that can be prepared")), bits(&after.eval::<Relu>()));
}

/// What `eval_prepared` says of a slice; nothing must have been written.
fn refusal(layer: &Layer<Relu>, prepared: &[f64]) -> Result<(), Error> {
    let len = layer.shape().len();
    let (x, mut y, mut scratch) = (vec![1.0; len], vec![0.25; len], vec![0.5; layer.scratch_len()]);
    let refused = layer.eval_prepared(EvalPrepared {
        prepared,
        dropout: normdrop::Dropout::Off,
        input: &x,
        residual: None,
        output: &mut y,
        scratch: &mut scratch,
    });
    if refused.is_err() {
        assert!(y.iter().all(|&y| y == 0.25), "the output was written");
        let mut dx = vec![0.25; len];
        let backward = layer.backward(normdrop::Backward {
            parameters: Parameters::default(),
            statistics: Statistics::Prepared(prepared),
            dropout: normdrop::Dropout::Off,
            input: &x,
            residual: None,
            grad_output: &x,
            grad_input: Some(&mut dx),
            grad_residual: None,
            grad_parameters: normdrop::ParameterGradients::default(),
            scratch: &mut scratch,
        });
        assert_eq!(backward, refused);
        assert!(dx.iter().all(|&dx| dx == 0.25), "the gradient was written");
        assert!(scratch.iter().all(|&value| value == 0.5), "scratch was written");
    }
    refused
}

#[test]
fn safety_contract_a_slice_that_was_not_prepared_for_as_many_channels_is_refused() {
    let layer = |channels| Layer::new(Shape::nc(2, channels).expect("small"), Relu, Config::DEFAULT).expect("in range");
    let of = |channels: usize| {
        let (mean, var) = (vec![0.5; channels], vec![2.0; channels]);
        let mut prepared = vec![0.0; layer(channels).prepared_len()];
        let call =
            Prepare { parameters: Parameters::default(), running: Running::new(&mean, &var), prepared: &mut prepared };
        layer(channels).prepare(call).expect("statistics that can be prepared");
        prepared
    };
    let right = of(20);
    assert_eq!(right.len(), 2 * 32 + 4 * 20 + 2);
    assert_eq!(refusal(&layer(20), &right), Ok(()));
    let length = |actual| Err(Error::Length { buffer: Buffer::Prepared, expected: right.len(), actual });
    assert_eq!(refusal(&layer(20), &of(19)), length(right.len() - 4));
    assert_eq!(refusal(&layer(20), &[]), length(0));
    let not_prepared = Err(Error::NotPrepared { channels: 20 });
    assert_eq!(refusal(&layer(20), &vec![0.0; right.len()]), not_prepared, "never prepared");
    assert_eq!(refusal(&layer(20), &vec![f64::NAN; right.len()]), not_prepared);
    // No two numbers of channels have the same length. The mark of another one alone:
    let mut other = right.clone();
    *other.last_mut().expect("not empty") = *of(12).last().expect("not empty");
    assert_eq!(refusal(&layer(20), &other), not_prepared);
}

#[test]
fn safety_contract_what_cannot_be_prepared_is_refused_and_nothing_is_written() {
    // An empty tensor as well: the slice serves layers that are not empty.
    for outer in [0, 3] {
        let shape = Shape::nc(outer, 3).expect("small");
        let layer = Layer::new(shape, Relu, Config { eps: 0.5, ..Config::DEFAULT }).expect("in range");
        let prepare = |weight: &[f32], mean: &[f32], var: &[f32], len: usize| {
            let mut prepared = vec![0.25; len];
            let parameters = Parameters { weight: Some(weight), bias: None };
            let refused =
                layer.prepare(Prepare { parameters, running: Running::new(mean, var), prepared: &mut prepared });
            assert_eq!(prepared.iter().all(|&value| value == 0.25), refused.is_err());
            refused
        };
        let (len, three) = (layer.prepared_len(), [1.0; 3]);
        let length = |buffer, expected, actual| Err(Error::Length { buffer, expected, actual });
        assert_eq!(prepare(&three, &three, &three, len), Ok(()));
        assert_eq!(prepare(&[1.0; 2], &three, &three, len), length(Buffer::Weight, 3, 2));
        assert_eq!(prepare(&three, &[1.0; 4], &three, len), length(Buffer::RunningMean, 3, 4));
        assert_eq!(prepare(&three, &three, &[], len), length(Buffer::RunningVar, 3, 0));
        assert_eq!(prepare(&three, &three, &three, len + 1), length(Buffer::Prepared, len, len + 1));
        let negative = Err(Error::Variance { channel: 2, var: -0.5 });
        assert_eq!(prepare(&three, &three, &[1.0, -0.25, -0.5], len), negative);
        assert_eq!(prepare(&three, &three, &[1.0, f32::NAN, 2.0], len), Ok(()));
    }
}
