//! The kernels as properties: for any input, within the bounds.

use fuzz_your_own::{BOUNDS, Input, Kernel, check};
use normdrop_reference::case::Case;
use normdrop_reference::classes::class;
use normdrop_reference::errors::PROMISE;
use normdrop_reference::layer::Shape;
use proptest::prelude::*;
use proptest::test_runner::{Config, RngSeed, TestError, TestRunner};

/// The same inputs in every run, unless `PROPTEST_RNG_SEED` says otherwise; one that fails is printed and not stored in a file,
/// because five numbers can be copied into a test of their own.
fn config() -> Config {
    let config = Config { failure_persistence: None, ..Config::default() };
    match config.rng_seed {
        RngSeed::Random => Config { rng_seed: RngSeed::Fixed(1), ..config },
        RngSeed::Fixed(_) => config,
    }
}

fn inputs() -> impl Strategy<Value = Input> {
    (any::<u8>(), any::<u8>(), any::<u8>(), any::<u8>(), any::<u16>())
        .prop_map(|(outer, channels, inner, class, seed)| Input { outer, channels, inner, class, seed })
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn two_passes_are_within_the_bounds(input in inputs()) {
        check(Kernel::TwoPass, &input.case(), &BOUNDS).map_err(TestCaseError::fail)?;
    }

    #[test]
    fn two_passes_are_within_those_of_normdrop(input in inputs()) {
        check(Kernel::TwoPass, &input.case(), &PROMISE).map_err(TestCaseError::fail)?;
    }
}

/// What one would write for a kernel of one's own is the test above. This one is for the example: the mistake is found, and
/// brought down to an input that fits a line.
#[test]
fn one_pass_is_found_out() {
    let property = |input: Input| {
        let result = check(Kernel::OnePass, &input.case(), &BOUNDS);
        result.map(|_| ()).map_err(TestCaseError::fail)
    };
    match TestRunner::new(config()).run(&inputs(), property) {
        Err(TestError::Fail(reason, input)) => {
            println!("{reason}\n{input:?}");
            assert!(reason.message().contains("is wrong by"), "{reason}");
        }
        other => panic!("a variance in one pass was not found: {other:?}"),
    }
}

/// Why there are classes of data: on normal numbers the mistake is no larger than what the bounds forgive.
#[test]
fn normal_numbers_do_not_find_it() {
    let errors_on = |name| {
        let case = Case::new(Shape { outer: 256, channels: 4, inner: 16 }, &[class(name)], 1);
        check(Kernel::OnePass, &case, &BOUNDS)
    };
    println!("normal: {}", errors_on("normal").expect("the mistake does not show"));
    println!("offset 1e3: {}", errors_on("offset 1e3").expect_err("no digit is right"));
}
