//! The activation functions, one number at a time: every finite f32 against the exact function.
//!
//! A layer without weight and bias, with running mean 0, running variance 1, eps 0 and without dropout has `z = x`, and
//! its backward call past these statistics gives `dx = act'(x)*dy`. `cargo test --release --test contracts activations
//! -- --ignored --nocapture` takes all 2^32 numbers and prints the worst error of each function.

use crate::support::{Oracle, Problem, Visitor, bits, every_activation};
use normdrop::{
    Config, Elu, Error, Gelu, GeluTanh, HardSwish, LeakyRelu, Mish, Relu6, Selu, Sigmoid, Silu, Softplus, Statistics,
    Tanh,
};
use normdrop_reference::layer::Activation;
use normdrop_reference::units::U;

/// A forward pass is within so many ulp of the exact function, where the ulp is that of the exact result.
const FORWARD: f64 = 2.0;

/// A derivative is within so many u of `max(|act'|, 1/4)`. Over all numbers the worst is GELU's, 6.17 u at -1.4984347.
const BACKWARD: f64 = 7.0;

/// Numbers per call.
const CHUNK: u64 = 1 << 16;

/// A layer whose `z` is `x`.
fn layer_of(x: Vec<f32>) -> Problem {
    let mut problem = Problem::new(x.len(), 1, 1);
    problem.config = Config { eps: 0.0, ..Config::DEFAULT };
    problem.dy = vec![1.0; x.len()];
    problem.x = x;
    problem
}

fn values<A: Oracle>(x: &[f32]) -> Vec<f32> {
    layer_of(x.to_vec()).eval::<A>()
}

fn derivatives<A: Oracle>(x: &[f32]) -> Vec<f32> {
    let problem = layer_of(x.to_vec());
    problem.backward::<A>(Statistics::Fixed(problem.running())).dx
}

/// The unit in the last place of an f32 result.
fn ulp(exact: f64) -> f64 {
    let exponent = ((exact.abs().to_bits() >> 52) as i32 - 1023).clamp(-126, 127);
    f64::from(exponent - 23).exp2()
}

/// The distance of a result from the exact one. An infinite result is right for every number that would be rounded to
/// it.
fn difference(result: f32, exact: f64) -> f64 {
    const ROUNDED_TO_INFINITY: f64 = f32::MAX as f64 * (1.0 + U / 2.0);
    if result.is_infinite() && f64::from(result).signum() == exact.signum() {
        return (ROUNDED_TO_INFINITY - exact.abs()).max(0.0);
    }
    (f64::from(result) - exact).abs()
}

/// The worst error of a function so far, and its argument.
#[derive(Debug, Clone, Copy, Default)]
struct Worst {
    error: f64,
    at: f32,
}

impl Worst {
    fn add(&mut self, error: f64, at: f32) {
        // NaN is worst of all.
        if error.is_nan() || error > self.error {
            *self = Self { error: if error.is_nan() { f64::INFINITY } else { error }, at };
        }
    }

    fn merge(&mut self, other: Self) {
        if other.error > self.error {
            *self = other;
        }
    }
}

/// The worst errors of value and derivative at some numbers, of which those that are not finite do not count.
fn worst_of<A: Oracle>(x: &[f32]) -> [Worst; 2] {
    let (mut forward, mut backward) = (Worst::default(), Worst::default());
    for (&x, (&y, &dx)) in x.iter().zip(values::<A>(x).iter().zip(&derivatives::<A>(x))) {
        if !x.is_finite() {
            continue;
        }
        let z = f64::from(x);
        let (value, derivative) = (A::REFERENCE.value(z), A::REFERENCE.derivative(z).unwrap_or(0.0));
        forward.add(difference(y, value) / ulp(value), x);
        backward.add((f64::from(dx) - derivative).abs() / (U * derivative.abs().max(0.25)), x);
        let (least, most) = range_of(A::REFERENCE);
        assert!(y >= least && y <= most, "{:?} of {x:e} is {y:e}", A::ACTIVATION);
    }
    [forward, backward]
}

/// What no value is beyond.
fn range_of(activation: Activation) -> (f32, f32) {
    match activation {
        Activation::Identity | Activation::LeakyRelu(_) => (f32::MIN, f32::MAX),
        Activation::Relu => (0.0, f32::MAX),
        Activation::Relu6 => (0.0, 6.0),
        Activation::Sigmoid => (0.0, 1.0),
        Activation::Tanh => (-1.0, 1.0),
        Activation::HardSwish => (-0.375_000_1, f32::MAX),
        Activation::Silu => (-0.278_464_6, f32::MAX),
        Activation::GeluTanh => (-0.170_041, f32::MAX),
        Activation::Gelu => (-0.169_971_25, f32::MAX),
        // The alpha of the table of these tests.
        Activation::Elu(_) => (-0.2, f32::MAX),
        // What does not fit is infinite.
        Activation::Selu => (-1.758_099_3, f32::INFINITY),
        Activation::Mish => (-0.308_843_5, f32::MAX),
        Activation::Softplus => (0.0, f32::MAX),
    }
}

fn check<A: Oracle>([forward, backward]: [Worst; 2]) {
    let name = format!("{:?}", A::ACTIVATION);
    println!("{name}: forward {:.4} ulp at {:e}, ", forward.error, forward.at);
    println!("{name}: backward {:.4} u of max(|act'|, 1/4) at {:e}", backward.error, backward.at);
    assert!(forward.error <= FORWARD, "{name} is wrong by {} ulp at {:e}", forward.error, forward.at);
    assert!(backward.error <= BACKWARD, "{name}' is wrong by {} u at {:e}", backward.error, backward.at);
}

/// Every number at which a function or its computation changes, with thousands of its neighbours on either side, and
/// both signs of each.
fn special() -> Vec<f32> {
    const NEIGHBOURS: u32 = 3_000;
    let ln_2 = std::f32::consts::LN_2;
    // Kinks, clamps, where results become subnormal or zero, and where they round to 1.
    let mut places = vec![
        0.0,
        1e-45,
        f32::MIN_POSITIVE,
        1e-30,
        1e-10,
        0.75246,
        1.498_434_7,
        1.0,
        1.27846,
        3.0,
        6.0,
        8.66,
        9.01,
        9.1,
        10.0,
        10.7,
        11.0,
        11.83,
        16.64,
        35.0,
        55.0,
        70.0,
        83.0,
        87.34,
        88.7,
        89.0,
        92.3,
        103.3,
        104.0,
        107.0,
        110.0,
        1e10,
        1.2e19,
        5e25,
        f32::MAX,
    ];
    // Where n changes, for exp(z) and exp(2*z).
    places.extend((0..160).map(|n| (n as f32 + 0.5) * ln_2));
    places.extend((0..80).map(|n| (n as f32 + 0.5) * ln_2 / 2.0));
    let neighbours = |place: f32| {
        let bits = place.to_bits();
        bits.saturating_sub(NEIGHBOURS)..=(bits + NEIGHBOURS).min(f32::MAX.to_bits())
    };
    let sides = |bits: u32| [f32::from_bits(bits), -f32::from_bits(bits)];
    places.into_iter().flat_map(neighbours).flat_map(sides).collect()
}

/// Every so many-th f32.
#[derive(Clone, Copy)]
struct EveryFloat {
    stride: u64,
}

impl Visitor for EveryFloat {
    type Result = ();

    #[expect(clippy::cast_possible_truncation, reason = "bits of f32, and strides between them")]
    fn visit<A: Oracle>(self) {
        let threads = std::thread::available_parallelism().map_or(1, |threads| threads.get() as u64);
        let span = CHUNK * self.stride;
        let part = |first: u64| {
            let mut worst = [Worst::default(); 2];
            for start in (first * span..1 << 32).step_by((threads * span) as usize) {
                let numbers = (start..(start + span).min(1 << 32)).step_by(self.stride as usize);
                let x: Vec<f32> = numbers.map(|bits| f32::from_bits(bits as u32)).collect();
                for (worst, other) in worst.iter_mut().zip(worst_of::<A>(&x)) {
                    worst.merge(other);
                }
            }
            worst
        };
        let mut worst = [Worst::default(); 2];
        std::thread::scope(|scope| {
            let parts: Vec<_> = (0..threads).map(|first| scope.spawn(move || part(first))).collect();
            for other in parts {
                let other = other.join().expect("every number is in the range of its function");
                worst.iter_mut().zip(other).for_each(|(worst, other)| worst.merge(other));
            }
        });
        check::<A>(worst);
    }
}

#[test]
fn every_activation_is_within_its_bounds_at_some_thousands_of_numbers() {
    every_activation(&EveryFloat { stride: 4_999 });
}

#[test]
#[ignore = "all 2^32 numbers"]
fn every_activation_is_within_its_bounds_at_every_finite_number() {
    every_activation(&EveryFloat { stride: 1 });
}

#[derive(Clone)]
struct SpecialPlaces(Vec<f32>);

impl Visitor for SpecialPlaces {
    type Result = ();

    fn visit<A: Oracle>(self) {
        check::<A>(worst_of::<A>(&self.0));
    }
}

#[test]
fn every_activation_is_within_its_bounds_around_every_number_at_which_something_changes() {
    every_activation(&SpecialPlaces(special()));
}

#[test]
fn z_is_x_to_the_bit_in_the_layer_that_these_tests_use() {
    let x = special();
    // Adding a bias of 0 makes one zero of the two.
    let expected: Vec<f32> = x.iter().map(|&x| x + 0.0).collect();
    assert_eq!(bits(&values::<normdrop::Identity>(&x)), bits(&expected));
    assert!(derivatives::<normdrop::Identity>(&x).iter().all(|&dx| dx == 1.0));
}

/// Limits at the infinities, and NaN.
fn check_limits<A: Oracle>(at_infinities: [f32; 2], derivatives_there: [f32; 2]) {
    let x = [f32::NEG_INFINITY, f32::INFINITY, f32::NAN, -f32::NAN];
    let (y, dx) = (values::<A>(&x), derivatives::<A>(&x));
    let name = format!("{:?}", A::ACTIVATION);
    assert_eq!(bits(&y[..2]), bits(&at_infinities), "{name}: {y:?}");
    assert_eq!(dx[..2], derivatives_there, "{name}'");
    assert!(y[2..].iter().chain(&dx[2..]).all(|value| value.is_nan()), "{name}: {y:?}, {dx:?}");
}

#[test]
fn activations_and_their_derivatives_have_their_limits_at_the_infinities_and_pass_nan() {
    let infinity = f32::INFINITY;
    check_limits::<Relu6>([0.0, 6.0], [0.0, 0.0]);
    check_limits::<LeakyRelu>([-infinity, infinity], [0.2, 1.0]);
    check_limits::<HardSwish>([0.0, infinity], [0.0, 1.0]);
    check_limits::<Sigmoid>([0.0, 1.0], [0.0, 0.0]);
    check_limits::<Tanh>([-1.0, 1.0], [0.0, 0.0]);
    check_limits::<Silu>([-0.0, infinity], [0.0, 1.0]);
    check_limits::<GeluTanh>([-0.0, infinity], [0.0, 1.0]);
    check_limits::<Gelu>([-0.0, infinity], [0.0, 1.0]);
    check_limits::<Elu>([-0.2, infinity], [0.0, 1.0]);
    check_limits::<Selu>([-1.758_099_3, infinity], [0.0, 1.050_701]);
    check_limits::<Mish>([-0.0, infinity], [0.0, 1.0]);
    check_limits::<Softplus>([0.0, infinity], [0.0, 1.0]);
}

/// Far from 0, derivatives are their limits, and none is subnormal: CPUs take long for subnormal gradients.
fn check_far<A: Oracle>(nearest: f32) {
    let bits = (nearest.to_bits()..f32::INFINITY.to_bits()).step_by(9_973);
    let x: Vec<f32> = bits.flat_map(|bits| [f32::from_bits(bits), -f32::from_bits(bits)]).collect();
    let limits = derivatives::<A>(&[f32::INFINITY, f32::NEG_INFINITY]);
    for (x, dx) in x.chunks(2).zip(derivatives::<A>(&x).chunks(2)) {
        assert_eq!(dx, limits, "{:?}' at {x:?}", A::ACTIVATION);
    }
    let all: Vec<f32> = (0..f32::INFINITY.to_bits()).step_by(49_999).map(|bits| -f32::from_bits(bits)).collect();
    for (x, dx) in all.iter().zip(derivatives::<A>(&all)) {
        assert!(!dx.is_subnormal(), "{:?}' is {dx:e} at {x:e}", A::ACTIVATION);
    }
}

#[test]
fn numeric_contract_derivatives_far_from_0_are_their_limits_and_none_is_subnormal() {
    check_far::<Sigmoid>(70.01);
    check_far::<Tanh>(35.01);
    check_far::<Silu>(70.01);
    check_far::<GeluTanh>(9.3);
    check_far::<Gelu>(11.84);
    check_far::<Elu>(70.01);
    check_far::<Selu>(70.01);
    check_far::<Mish>(70.01);
    check_far::<Softplus>(70.01);
}

#[test]
fn derivatives_at_kinks_are_those_of_the_documentation() {
    assert_eq!(derivatives::<Relu6>(&[0.0, 1e-45, 5.999_999_5, 6.0]), [0.0, 1.0, 1.0, 0.0]);
    assert_eq!(derivatives::<LeakyRelu>(&[-1e-45, 0.0, 1e-45]), [0.2, 0.2, 1.0]);
    assert_eq!(derivatives::<Elu>(&[-1e-45, 0.0, 1e-45]), [0.2, 0.2, 1.0]);
    assert_eq!(derivatives::<Selu>(&[-1e-45, 0.0, 1e-45]), [1.758_099_3, 1.758_099_3, 1.050_701]);
    let next = 3.0f32.next_down();
    let dx = derivatives::<HardSwish>(&[-3.0, -next, next, 3.0]);
    assert_eq!([dx[0], dx[3]], [0.0, 1.0]);
    assert!((dx[1] + 0.5).abs() < 1e-6 && (dx[2] - 1.5).abs() < 1e-6, "{dx:?}");
}

/// A gate that is shut keeps out everything; a derivative that is a number multiplies.
#[test]
fn a_shut_gate_lets_no_infinity_and_no_nan_through() {
    for dy in [f32::NAN, f32::INFINITY] {
        let of = |x: f32, shut: bool, dx: fn(&Problem) -> Vec<f32>| {
            let mut problem = layer_of(vec![x]);
            problem.dy = vec![dy];
            assert_eq!(dx(&problem)[0] == 0.0, shut, "x = {x}, dy = {dy}");
        };
        let relu6 = |problem: &Problem| problem.backward::<Relu6>(Statistics::Fixed(problem.running())).dx;
        let hard_swish = |problem: &Problem| problem.backward::<HardSwish>(Statistics::Fixed(problem.running())).dx;
        for (x, shut) in [(-1.0, true), (0.0, true), (3.0, false), (6.0, true)] {
            of(x, shut, relu6);
        }
        for (x, shut) in [(-4.0, true), (-3.0, true), (0.0, false), (4.0, false)] {
            of(x, shut, hard_swish);
        }
    }
}

#[test]
fn the_slope_of_a_leaky_relu_must_be_finite() {
    for slope in [f32::INFINITY, f32::NEG_INFINITY, f32::NAN] {
        let error = LeakyRelu::new(slope).expect_err("a slope that is not finite");
        assert!(matches!(error, Error::Slope { slope: found } if found.to_bits() == slope.to_bits()));
        assert_eq!(error.to_string(), format!("the slope must be finite but is {slope}"));
    }
    for slope in [0.0, -1.0, 0.2, f32::MAX] {
        assert_eq!(LeakyRelu::new(slope).map(LeakyRelu::slope), Ok(slope));
    }
    assert_eq!(LeakyRelu::default().slope(), 0.01);
}

#[test]
fn the_alpha_of_an_elu_must_be_finite() {
    for alpha in [f32::INFINITY, f32::NEG_INFINITY, f32::NAN] {
        let error = Elu::new(alpha).expect_err("an alpha that is not finite");
        assert!(matches!(error, Error::Alpha { alpha: found } if found.to_bits() == alpha.to_bits()));
        assert_eq!(error.to_string(), format!("alpha must be finite but is {alpha}"));
    }
    for alpha in [0.0, -1.0, 0.7, f32::MAX] {
        assert_eq!(Elu::new(alpha).map(Elu::alpha), Ok(alpha));
    }
    assert_eq!(Elu::default().alpha(), 1.0);
}

/// An ELU keeps its bounds with every alpha, the smallest and the largest too, where products underflow or are large.
#[test]
fn an_elu_is_within_its_bounds_with_every_alpha() {
    let x: Vec<f32> = special().into_iter().filter(|&x| x <= 0.0).step_by(7).collect();
    for alpha in [1e-45, 1e-40, 1e-30, 1.0, 1.000_000_1, 1.999_999_9, -3.3, 1e30, f32::MAX, 0.0] {
        let mut problem = layer_of(x.clone());
        problem.slope = alpha;
        let reference = Activation::Elu(alpha.into());
        let y = problem.eval::<Elu>();
        let dx = problem.backward::<Elu>(Statistics::Fixed(problem.running())).dx;
        for (&x, (&y, &dx)) in x.iter().zip(y.iter().zip(&dx)) {
            let (value, derivative) = (reference.value(x.into()), reference.derivative(x.into()).unwrap_or(0.0));
            let forward = difference(y, value) / ulp(value);
            let backward = (f64::from(dx) - derivative).abs() / (U * derivative.abs().max(0.25));
            assert!(
                forward <= FORWARD && backward <= BACKWARD,
                "alpha {alpha:e}, x {x:e}: {forward} ulp, {backward} u"
            );
        }
    }
}
