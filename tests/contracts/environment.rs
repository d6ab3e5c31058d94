//! Bits do not depend on the floating-point environment of the caller, and a call leaves it as it was.
//!
//! The corpus of the digests makes every call in another environment, on every backend and on other targets: see
//! `digest` and tests/rigs/digest. Here are the cases that have a name, threads, and the flags that a call in the
//! default environment must not raise.

#[cfg(feature = "rayon")]
use normdrop::Relu;
use normdrop::{
    Backend, Bernoulli, Config, Dropout, Error, Eval, FoldPadding, Identity, Layer, Parameters, Running, SavedMut,
    Shape, Stored, Train, first_min_pooled, fold_padding,
};

use crate::backends::{Data, Problem, Results, SMALL, WALKS, run};
use crate::digest::backends;
#[cfg(feature = "rayon")]
use crate::digest::corpus::environment::State;
use crate::digest::corpus::environment::{CONTROLS, enter, leave};
use crate::support::{ACTIVATIONS, Oracle, Visitor, with_activation};

/// Does something in every environment and fails if one of them is not as before.
pub(crate) fn in_every_environment<T>(mut work: impl FnMut() -> T) -> Vec<T> {
    // Each once with flags that are raised already, and once without.
    let environments = 0..2 * CONTROLS.len();
    environments
        .map(|number| {
            let entered = enter(number);
            let result = work();
            assert!(leave(entered), "{entered:x?} has changed");
            result
        })
        .collect()
}

fn on_every_backend(shape: Shape, config: Config, mut work: impl FnMut(&Layer<Identity>)) {
    for backend in backends() {
        let layer = Layer::new(shape, Identity, config).and_then(|layer| layer.with_backend(backend));
        work(&layer.expect("an available backend"));
    }
}

fn nc(n: usize, c: usize) -> Shape {
    Shape::nc(n, c).expect("a small shape")
}

fn eval(layer: &Layer<Identity>, var: f32, x: &[f32], y: &mut [f32]) -> Result<(), Error> {
    layer.eval(Eval {
        parameters: Parameters::default(),
        running: Running::new(&[0.0], &[var]),
        dropout: Dropout::Off,
        input: x,
        residual: None,
        output: y,
        scratch: &mut [0.0; 64],
    })
}

/// Trains a layer of one channel and returns what it saves, as bits: mean, tail, inverse standard deviation.
fn train(layer: &Layer<Identity>, x: &[f32], y: &mut [f32]) -> (u32, u32, u64) {
    let (mut mean, mut mean_tail, mut inv_std) = ([0.0], [0.0], [0.0]);
    layer
        .train(Train {
            parameters: Parameters::default(),
            running: None,
            dropout: Dropout::Off,
            input: x,
            residual: None,
            output: y,
            saved: SavedMut { mean: &mut mean, mean_tail: &mut mean_tail, inv_std: &mut inv_std },
            scratch: &mut [0.0; 128],
        })
        .expect("a training call without faults");
    (mean[0].to_bits(), mean_tail[0].to_bits(), inv_std[0].to_bits())
}

/// Bits, because a comparison of floats is made in the environment in which it is.
fn bits<const N: usize>(values: [f32; N]) -> [u32; N] {
    values.map(f32::to_bits)
}

#[test]
fn environment_contract_a_subnormal_value_is_evaluated_as_it_is() {
    on_every_backend(nc(1, 1), Config { eps: 0.0, ..Config::DEFAULT }, |layer| {
        for y in in_every_environment(|| {
            let mut y = [0.0];
            eval(layer, 1.0, &[2e-40], &mut y).expect("an evaluation call without faults");
            bits(y)
        }) {
            assert_eq!(y, bits([2e-40]));
        }
    });
}

#[test]
fn environment_contract_training_of_large_values_is_rounded_to_nearest() {
    on_every_backend(nc(4, 1), Config::DEFAULT, |layer| {
        let trained = in_every_environment(|| {
            let mut y = [0.0; 4];
            let saved = train(layer, &[3e30, 1e30, -2e30, 0.0], &mut y);
            (bits(y), saved)
        });
        for (y, expected) in trained[0].0.map(f32::from_bits).into_iter().zip([1.387, 0.277, -1.387, -0.277]) {
            assert!((y - expected).abs() < 1e-3, "{y} is not about {expected}");
        }
        for other in &trained {
            assert_eq!(other, &trained[0]);
        }
    });
}

/// Denormals-are-zero takes a subnormal `eps` for 0, of either sign, and a comparison with 0 then accepts or refuses it.
#[test]
fn environment_contract_a_subnormal_eps_is_what_it_is() {
    let config = Config { eps: 1e-40, ..Config::DEFAULT };
    on_every_backend(nc(2, 1), config, |layer| {
        let trained = in_every_environment(|| {
            assert_eq!(Layer::new(nc(2, 1), Identity, config).map(|layer| layer.shape().len()), Ok(2));
            let refused = Layer::new(nc(2, 1), Identity, Config { eps: -1e-40, ..config });
            assert!(matches!(refused, Err(Error::Eps { .. })));
            // A constant channel: `eps` alone is its variance.
            let (_, _, inv_std) = train(layer, &[0.5; 2], &mut [0.0; 2]);
            // A variance that `eps` makes positive, and one that it does not.
            let mut y = [0.0; 2];
            eval(layer, -5e-41, &[1e-20; 2], &mut y).expect("an evaluation call without faults");
            assert!(matches!(eval(layer, -2e-40, &[1e-20; 2], &mut [0.0; 2]), Err(Error::Variance { .. })));
            (inv_std, bits(y))
        });
        assert!((f64::from_bits(trained[0].0) * 1e-20 - 1.0).abs() < 1e-4, "the root of 1e40");
        for other in &trained {
            assert_eq!(other, &trained[0]);
        }
    });
}

/// What files of other frameworks may hold: subnormal weights and deviations whose square is subnormal.
#[test]
fn environment_contract_statistics_and_padding_of_a_fold_are_the_same() {
    let of = || {
        let (mut mean, mut var) = ([1e-40, 3.0], [1e-20, 0.3]);
        let eps = Stored::Deviation.into_running(&mut mean, &mut var).expect("deviations above 0");
        let parameters = Parameters { weight: Some(&[-1e-40, 3.0]), bias: Some(&[1e-42, 0.7]) };
        let mut padding = [0.0; 2];
        fold_padding(FoldPadding { parameters, running: Running::new(&mean, &var), eps, padding: &mut padding })
            .expect("slopes that are not 0");
        (bits(mean), bits(var), bits(padding), first_min_pooled(parameters))
    };
    let found = in_every_environment(of);
    assert_eq!((found[0].1[0], found[0].3), (1e-40_f32.to_bits(), Some(0)));
    for other in &found {
        assert_eq!(other, &found[0]);
    }
}

/// Constants are made of floats, too.
#[test]
fn environment_contract_a_probability_gives_the_same_mask() {
    let probabilities = [0.1, 1.0 / 3.0, 0.9, 1e-9, 0.7, 1e-17, f64::from_bits(1), 0.5 - 1e-17];
    let of = |p: f64| {
        let keep = Bernoulli::new(p).expect("a probability");
        (keep.threshold(), keep.keep_probability().to_bits(), keep.scale().to_bits())
    };
    let expected = probabilities.map(of);
    for found in in_every_environment(|| {
        assert!(matches!(Bernoulli::new(-f64::from_bits(1)), Err(Error::Probability { .. })));
        probabilities.map(of)
    }) {
        assert_eq!(found, expected);
    }
}

/// What a callback of JAX does: it comes on a thread that flushes, and its tasks go to threads that do, or do not.
#[cfg(feature = "rayon")]
#[test]
fn environment_contract_the_threads_of_a_pool_may_have_any_environment() {
    let problem = Problem::new([40, 16, 1000], Data::Subnormal, Some(0.1), 4);
    let (mut one, mut many) = (Results::default(), Results::default());
    run(&problem.layer(Relu, None), &problem, &mut one);
    let layer = problem.layer(Relu, None).with_tasks(4);
    let pool = |number: usize| {
        let start = move |_| {
            enter(number);
        };
        rayon::ThreadPoolBuilder::new().num_threads(3).start_handler(start).build().expect("a pool of threads")
    };
    // Without those that trap exceptions, which the last ones of every list do: the test itself compares subnormal numbers.
    const MASKED: usize = 6;
    for number in (0..2 * CONTROLS.len()).filter(|number| number % CONTROLS.len() < MASKED) {
        // All of the pool, and the caller alone.
        pool(number).install(|| run_in(number, &layer, &problem, &mut many));
        crate::backends::compare(&problem, Relu, ("a pool with another environment", "one"), &many, &one);
        pool(0).install(|| run_in(number, &layer, &problem, &mut many));
        crate::backends::compare(&problem, Relu, ("a caller with another environment", "one"), &many, &one);
    }

    fn run_in(number: usize, layer: &Layer<Relu>, problem: &Problem, results: &mut Results) {
        let entered = enter(number);
        run(layer, problem, results);
        let found = State::read();
        // Comparisons of the test itself may raise flags.
        let as_before = leave(entered) || found.without_flags() == entered.without_flags();
        assert!(as_before, "{entered:x?} has changed to {found:x?}");
    }
}

/// Training and evaluation of ordinary numbers, on every backend and with every activation. In the default environment
/// the flags of a call stay, and a program that looks at them, or traps them, must find none that it has no part in.
#[test]
fn environment_contract_ordinary_numbers_raise_no_flag_but_inexact_and_underflow() {
    struct Calls<'a>(&'a Problem, Option<Backend>, &'a mut Vec<String>);
    impl Visitor for Calls<'_> {
        type Result = ();

        fn visit<A: Oracle>(self) {
            let Self(problem, backend, found) = self;
            let mut results = Results::default();
            let entered = enter(0);
            let default = leave(entered);
            assert!(default);
            run(&problem.layer(A::ACTIVATION, backend), problem, &mut results);
            if let Some((call, variant)) = results.raised {
                found.push(format!("{call} ({variant}), {:?}, {:?}, {backend:?}", A::ACTIVATION, problem.shape));
            }
        }
    }
    let mut found = Vec::new();
    let mut turn = 0;
    let small = (1..40).flat_map(|n| [[n, 3, 2], [2, n, 1], [3, n, 17], [2, 2, n], [n, 1, 1]]);
    let walks = WALKS.iter().map(|(shape, _)| *shape).filter(|shape| shape.iter().product::<usize>() < SMALL);
    for (seed, shape) in small.chain(walks).enumerate() {
        for p in [None, Some(0.5)] {
            let problem = Problem::new(shape, Data::Ordinary, p, 3 * seed + 1);
            for backend in backends() {
                for _ in 0..3 {
                    with_activation(turn % ACTIVATIONS, Calls(&problem, Some(backend), &mut found));
                    turn += 1;
                }
            }
        }
    }
    assert!(found.is_empty(), "{} of {turn}:\n{}", found.len(), found.join("\n"));
}
