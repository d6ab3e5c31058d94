//! Every call against the reference, in units `u = 2^-24` of each result's own scale.
//!
//! With `size = max(|xhat|, 1)` and a `g` that includes the dropout scale, the scales are
//! ```text
//! variance, inv_std   the value itself
//! mean                max(|mean|, std)
//! y                   dropout scale * (|weight|*size + |bias|)
//! dx                  |weight|*inv_std*(|g| + mean(|g|) + size*mean(|g|*size))     batch statistics
//!                     |weight|*inv_std*|g|                                         fixed statistics
//! d_weight, d_bias    sum(|g|*size), sum(|g|)
//! ```
//! The other activations' own errors and what they make of an error of `z` are added to the scales, as stated at
//! `normdrop_reference::activation::Activation::value_scale` and `derivative_scale`.
//!
//! Some derivatives jump, that of ReLU at 0, where rounding decides: there the reference takes the side from the crate's
//! own `z`, which is the output of the same layer without an activation, and everywhere else from the exact `z`.
//!
//! The properties draw the same cases in every run, because the bounds are measured ones; `PROPTEST_RNG_SEED` and
//! `PROPTEST_CASES` draw others. `cargo test --test contracts accuracy -- --nocapture` prints the worst error of every class.

use crate::support::{ACTIVATIONS, Differentiated, Oracle, Problem, Trained, Visitor, with_activation};
use normdrop::{Config, Granularity, Identity, Layer, Relu, RunningVariance, Shape, Statistics};
use normdrop_reference::classes::{CLASSES, Class, MEASURED, PLACED, class};
use normdrop_reference::errors::{self, Bounds, CallErrors, PROMISE, StatisticsErrors};
use normdrop_reference::layer::{self as reference, Centre, joined, widened};
use normdrop_reference::mask;
use normdrop_reference::random::SplitMix64;
use normdrop_reference::units::{SMALLEST, U, Worst};
use proptest::prelude::*;
use proptest::sample::select;
use proptest::test_runner::RngSeed;

/// Where a few values carry the whole variance, its error of up to 8 u is theirs as well: `y` takes half of it, and
/// `dx`, which depends on `inv_std` three times over there, one and a half times.
const HEAVY_TAILS: Bounds = Bounds { y: PROMISE.y + 0.5 * PROMISE.var, dx: PROMISE.dx + 1.5 * PROMISE.var, ..PROMISE };

/// With fixed statistics, whatever the data.
const FIXED: Bounds = Bounds { dx: 3.0, ..PROMISE };

/// Gradients in steps have large sums of one sign in every block, and `d_bias` is just within 3 u (2.98 u) here.
const STEPS: Bounds = Bounds { d_bias: 4.0, ..PROMISE };

/// The worst error of each kind of result, and how large it may be.
#[derive(Debug, Clone)]
pub(crate) struct Errors {
    statistics: StatisticsErrors,
    inv_std: Worst,
    batch: CallErrors,
    fixed: CallErrors,
    bounds: Bounds,
}

impl Errors {
    pub(crate) fn none(bounds: Bounds) -> Self {
        Self {
            statistics: StatisticsErrors::none(),
            inv_std: Worst::new("inv_std"),
            batch: CallErrors::none(),
            fixed: CallErrors::none(),
            bounds,
        }
    }

    /// Every error with its bound; that of `inv_std` follows from the variance's.
    pub(crate) fn each(&self) -> impl Iterator<Item = (&Worst, f64)> {
        let Self { statistics, inv_std, batch, fixed, bounds } = self;
        let statistics = [(&statistics.mean, bounds.mean), (&statistics.var, bounds.var), (inv_std, bounds.var / 2.0)];
        let of_call = |errors, bounds| std::iter::zip(CallErrors::each(errors), Bounds::of_call(bounds));
        statistics
            .into_iter()
            .chain(of_call(batch, bounds))
            .chain(of_call(fixed, &Bounds { d_bias: bounds.d_bias, ..FIXED }))
    }

    /// The worst errors of a line of a table, in the order of [`Errors::each`].
    pub(crate) fn units(&self) -> String {
        self.each().map(|(worst, _)| format!("{:.2}", worst.units())).collect::<Vec<_>>().join(" | ")
    }

    /// Whether every result is within its bound, and if not, a sentence each about those that are not.
    pub(crate) fn check(&self) -> Result<(), String> {
        let of_call = |number| match number {
            0..3 => "",
            3..8 => "batch statistics: ",
            _ => "fixed statistics: ",
        };
        let faults: Vec<String> = (0..)
            .zip(self.each())
            .filter_map(|(number, (worst, bound))| Some(format!("{}{}", of_call(number), worst.within(bound).err()?)))
            .collect();
        if faults.is_empty() { Ok(()) } else { Err(faults.join("\n")) }
    }

    pub(crate) fn merge(&mut self, other: &Self) {
        self.statistics.merge(&other.statistics);
        self.inv_std.merge(&other.inv_std);
        self.batch.merge(&other.batch);
        self.fixed.merge(&other.fixed);
    }
}

/// A problem as the reference takes it.
pub(crate) struct Exact<'a> {
    problem: &'a Problem,
    layer: reference::Layer,
    weight: Option<Vec<f64>>,
    bias: Option<Vec<f64>>,
    residual: Option<Vec<f64>>,
    mask: Option<Vec<u8>>,
    x: Vec<f64>,
    dy: Vec<f64>,
}

impl<'a> Exact<'a> {
    pub(crate) fn new<A: Oracle>(problem: &'a Problem) -> Self {
        Self {
            problem,
            layer: problem.reference::<A>(),
            weight: problem.weight.as_deref().map(widened),
            bias: problem.bias.as_deref().map(widened),
            residual: problem.residual.as_deref().map(widened),
            mask: problem.mask_of_elements(),
            x: widened(&problem.x),
            dy: widened(&problem.dy),
        }
    }

    fn parameters(&self) -> reference::Parameters<'_> {
        reference::Parameters {
            weight: self.weight.as_deref(),
            bias: self.bias.as_deref(),
            residual: self.residual.as_deref(),
        }
    }

    pub(crate) fn has_kinks(&self) -> bool {
        !self.layer.activation.kinks().is_empty()
    }

    fn compare_y(&self, centres: &[Centre], y: &[f32], errors: &mut CallErrors) {
        for (index, &y) in y.iter().enumerate().filter(|&(index, _)| self.problem.drops(index)) {
            assert_eq!(y.to_bits(), 0, "a dropped element is not +0.0, at {index}");
        }
        errors.add_forward(&self.layer.forward(self.parameters(), centres, self.mask.as_deref(), &self.x), y);
    }

    fn compare_gradients(
        &self,
        centres: &[Centre],
        statistics: reference::Statistics,
        z: Option<&[f32]>,
        actual: &Differentiated,
        errors: &mut CallErrors,
    ) {
        let call = reference::Backward { mask: self.mask.as_deref(), x: &self.x, dy: &self.dy, z };
        let exact = self.layer.backward(self.parameters(), centres, statistics, call);
        let Differentiated { dx, d_residual, d_weight, d_bias } = actual;
        errors.add_backward(self.layer.shape, &exact, errors::Differentiated { dx, d_residual, d_weight, d_bias });
    }

    /// A training call and the backward call after it.
    fn compare_training<A: Oracle>(&self, errors: &mut Errors) {
        let trained = self.problem.train::<A>();
        let gradients = self.problem.backward::<A>(Statistics::Batch(trained.saved()));
        let z = self.has_kinks().then(|| self.problem.sides::<A>().train::<Identity>().y);
        self.compare_trained(&trained, z.as_deref(), &gradients, errors);
    }

    /// The results of a training call and of the backward call after it.
    pub(crate) fn compare_trained(
        &self,
        trained: &Trained,
        z: Option<&[f32]>,
        gradients: &Differentiated,
        errors: &mut Errors,
    ) {
        let moments = self.layer.moments(&self.x);
        let centres = self.layer.batch_statistics(&moments);
        for (channel, _) in moments.iter().enumerate().filter(|(_, moments)| moments.var.is_nan()) {
            assert!(!trained.running_mean[channel].is_finite(), "the mean of what is not finite");
            assert!(trained.running_var[channel].is_nan(), "the variance of what is not finite");
        }
        if self.problem.reference_average().momentum(self.problem.config.momentum) == 1.0 {
            errors.statistics.add(&self.layer, &moments, &trained.running_mean, &trained.running_var);
        }
        for (channel, centre) in centres.iter().enumerate() {
            errors.inv_std.add(channel, trained.inv_std[channel], centre.inv_std, centre.inv_std, 0.0);
        }
        self.compare_y(&centres, &trained.y, &mut errors.batch);
        let kind = reference::Statistics::Batch;
        self.compare_gradients(&centres, kind, z, gradients, &mut errors.batch);
    }

    /// An evaluation call and the backward call after it.
    fn compare_evaluation<A: Oracle>(&self, errors: &mut Errors) {
        let mean = joined(&self.problem.running_mean, self.problem.running_mean_tail.as_deref());
        let centres = self.layer.fixed_statistics(&mean, &widened(&self.problem.running_var));
        let y = self.problem.eval::<A>();
        self.compare_y(&centres, &y, &mut errors.fixed);
        let gradients = self.problem.backward::<A>(Statistics::Fixed(self.problem.running()));
        let z = self.has_kinks().then(|| self.problem.sides::<A>().eval::<Identity>());
        self.compare_gradients(&centres, reference::Statistics::Fixed, z.as_deref(), &gradients, &mut errors.fixed);
    }
}

/// The errors of every call of a layer.
pub(crate) fn errors<A: Oracle>(problem: &Problem, bounds: Bounds) -> Errors {
    let (exact, mut errors) = (Exact::new::<A>(problem), Errors::none(bounds));
    exact.compare_training::<A>(&mut errors);
    exact.compare_evaluation::<A>(&mut errors);
    errors
}

/// [`errors`] of whichever activation.
#[derive(Clone, Copy)]
struct ErrorsOf<'a>(&'a Problem, Bounds);

impl Visitor for ErrorsOf<'_> {
    type Result = Errors;

    fn visit<A: Oracle>(self) -> Errors {
        errors::<A>(self.0, self.1)
    }
}

pub(crate) fn bounds_for(class: &Class) -> Bounds {
    if class.name == "heavy tails" { HEAVY_TAILS } else { PROMISE }
}

/// Shapes on either side of every boundary between the walks, blocks and tails of the kernels.
const SHAPES: &[[usize; 3]] = &[
    [2, 1, 1],
    [7, 3, 1],
    [64, 5, 1],
    [200, 3, 1],
    [257, 16, 1],
    [300, 17, 1],
    [70, 40, 1],
    [33, 6, 4],
    [40, 9, 15],
    [20, 3, 16],
    [19, 2, 17],
    [9, 3, 49],
    [5, 2, 128],
    [5, 3, 129],
    [3, 2, 256],
    [3, 2, 257],
    [2, 3, 300],
    [1, 2, 4097],
    [4200, 3, 1],
];

#[test]
fn every_class_of_data_is_within_the_bounds_of_every_result() {
    let of_call = "y | dx | d_residual | d_weight | d_bias";
    println!("| class | mean | var | inv_std | {of_call} | fixed: {of_call} |");
    let (mut faults, mut shapes_seen) = (Vec::new(), 0);
    for class in CLASSES {
        let mut worst = Errors::none(bounds_for(class));
        for (seed, &shape) in (0..).zip(SHAPES) {
            let plain = Problem::random(shape, |_| *class, seed);
            let dropping = plain.clone().with_mask(0.1, seed);
            worst.merge(&errors::<Identity>(&plain, PROMISE));
            worst.merge(&errors::<Relu>(&dropping, PROMISE));
            // The others take turns, one without dropout and one with it.
            for (problem, turn) in [(&plain, 2 * shapes_seen), (&dropping, 2 * shapes_seen + 1)] {
                worst.merge(&with_activation(turn % ACTIVATIONS, ErrorsOf(problem, PROMISE)));
            }
            shapes_seen += 1;
        }
        println!("| {} | {} |", class.name, worst.units());
        faults.extend(worst.check().err().map(|fault| format!("{}: {fault}", class.name)));
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

/// A problem with the classes of places, a channel each in turn, and with the next such class as its gradients.
fn placed(shape: [usize; 3], seed: u64) -> Problem {
    let class_of = |channel: usize| PLACED[channel % PLACED.len()];
    let mut problem = Problem::random(shape, class_of, seed);
    let (samples, shape) = (problem.outer * problem.inner, problem.reference_shape());
    let turn = usize::try_from(seed).expect("a small number") + 1;
    problem.dy = shape.tensor(|channel| class_of(channel + turn).values(seed ^ channel as u64, samples));
    problem
}

#[test]
fn values_and_gradients_that_are_large_in_places_are_within_the_bounds_of_every_result() {
    let (mut worst, mut faults) = (Errors::none(STEPS), Vec::new());
    for &[outer, _, inner] in SHAPES {
        for seed in 0..PLACED.len() as u64 {
            let problem = placed([outer, PLACED.len(), inner], seed);
            let errors = errors::<Identity>(&problem, STEPS);
            faults.extend(errors.check().err().map(|fault| format!("[{outer}, _, {inner}], seed {seed}: {fault}")));
            worst.merge(&errors);
        }
    }
    println!("{}", worst.units());
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn steps_and_ramps_over_four_parts_are_within_the_bounds_channels_first() {
    // A block of each run, 256 blocks a part.
    for seed in 0..PLACED.len() as u64 {
        check_training::<Identity>(&placed([900, PLACED.len(), 129], seed));
    }
}

#[test]
fn steps_and_ramps_over_four_parts_are_within_the_bounds_channels_last() {
    // A matrix that is too wide to be folded; three parts of 4096 rows and one of twelve.
    check_training::<Identity>(&placed([12_300, 144, 1], 3));
}

/// The configuration of every property: see the module's documentation.
fn configuration() -> ProptestConfig {
    let configuration = ProptestConfig { failure_persistence: None, ..ProptestConfig::default() };
    match configuration.rng_seed {
        RngSeed::Random => ProptestConfig { rng_seed: RngSeed::Fixed(0x6E6F_726D), ..configuration },
        RngSeed::Fixed(_) => configuration,
    }
}

fn shapes() -> impl Strategy<Value = [usize; 3]> {
    let inner = select(vec![1, 1, 1, 2, 3, 4, 9, 15, 16, 17, 31, 49, 50, 100, 127, 128, 129, 196, 256, 257, 300, 1000]);
    (inner, 1usize..=40, 1usize..=400).prop_map(|(inner, channels, outer)| {
        // About 8000 elements at most, and two values per channel at least.
        let outer = outer.min((8_000 / (inner * channels)).max(1));
        [if inner == 1 { outer.max(2) } else { outer }, channels, inner]
    })
}

fn probabilities() -> impl Strategy<Value = Option<f64>> {
    prop_oneof![
        3 => Just(None),
        4 => select(vec![0.0, 1.0, 0.5, 0.1]).prop_map(Some),
        2 => (0.0..1.0f64).prop_map(Some),
    ]
}

/// What a random problem is made from, in a form that a failure can be reported in.
#[derive(Debug, Clone)]
struct Draw {
    shape: [usize; 3],
    /// The class of the first channel, and how many further in the list that of each next one is.
    classes: (usize, usize),
    gradient: &'static str,
    seed: u64,
    p: Option<f64>,
    weight: bool,
    bias: bool,
    residual: Option<&'static str>,
    granularity: Granularity,
    positions: usize,
    eps: f32,
    running_var: RunningVariance,
    /// The number of the activation, where the property is about all of them.
    activation: usize,
}

fn draws() -> impl Strategy<Value = Draw> {
    let gradients = ["normal", "sparse", "lattice", "offset 1e2", "alternating signs", "1e-30", "subnormal", "1e30"];
    let variances = select(vec![RunningVariance::Unbiased, RunningVariance::Biased]);
    let switches = (any::<bool>(), any::<bool>(), select(vec![1e-5f32, 1e-3, 1e-12, 1e-30]), variances);
    let data = (any::<(u16, u16)>(), select(gradients.to_vec()), any::<u64>());
    let residuals = prop_oneof![2 => Just(None), 1 => select(gradients.to_vec()).prop_map(Some)];
    let granularities = select(vec![Granularity::Element, Granularity::Channel, Granularity::Sample]);
    let variants = (residuals, granularities, 1usize..=9, 0..ACTIVATIONS);
    (shapes(), data, probabilities(), switches, variants).prop_map(
        |([outer, channels, inner], (classes, gradient, seed), p, (weight, bias, eps, running_var), variants)| {
            let (residual, granularity, positions, activation) = variants;
            // Positions are part of `outer` in channels-last shapes alone.
            let positions = if inner == 1 && outer >= positions { positions } else { 1 };
            Draw {
                shape: [outer / positions * positions, channels, inner],
                residual,
                granularity,
                positions,
                classes: (classes.0.into(), classes.1.into()),
                gradient,
                seed,
                p,
                weight,
                bias,
                eps,
                running_var,
                activation,
            }
        },
    )
}

impl Draw {
    /// The problem, whose channels hold data of different classes, side by side.
    fn problem(&self, classes: &[Class]) -> Problem {
        let (first, stride) = self.classes;
        let class_of = |channel: usize| classes[(first + stride * channel) % classes.len()];
        let mut problem = Problem::random(self.shape, class_of, self.seed);
        problem.dy = class(self.gradient).values(self.seed, problem.dy.len());
        problem.config = Config { eps: self.eps, running_var: self.running_var, ..problem.config };
        problem.weight = problem.weight.filter(|_| self.weight);
        problem.bias = problem.bias.filter(|_| self.bias);
        if let Some(name) = self.residual {
            problem = problem.with_residual(class(name), self.seed ^ 1);
        }
        problem = problem.with_granularity(self.granularity, self.positions);
        if self.seed % 2 == 1 {
            problem = problem.with_running_mean_tail();
        }
        match self.p {
            Some(p) => problem.with_mask(p, self.seed),
            None => problem,
        }
    }
}

fn classes(choose: impl Fn(&Class) -> bool) -> Vec<Class> {
    CLASSES.iter().copied().filter(choose).collect()
}

/// Fails a property with a sentence.
fn within_bounds(errors: &Errors) -> Result<(), TestCaseError> {
    errors.check().map_err(TestCaseError::fail)
}

proptest! {
    #![proptest_config(configuration())]

    #[test]
    fn every_call_is_within_the_bounds_without_an_activation(draw in draws()) {
        let problem = draw.problem(&classes(|class| class.name != "heavy tails"));
        within_bounds(&errors::<Identity>(&problem, PROMISE))?;
    }

    #[test]
    fn every_call_is_within_the_bounds_with_relu(draw in draws()) {
        let problem = draw.problem(&classes(|class| class.name != "heavy tails"));
        within_bounds(&errors::<Relu>(&problem, PROMISE))?;
    }

    #[test]
    fn every_call_is_within_the_bounds_with_any_activation(draw in draws()) {
        let problem = draw.problem(&classes(|class| class.name != "heavy tails"));
        within_bounds(&with_activation(draw.activation, ErrorsOf(&problem, PROMISE)))?;
    }

    #[test]
    fn heavy_tails_are_within_their_bounds(draw in draws()) {
        let problem = draw.problem(&[class("heavy tails")]);
        within_bounds(&with_activation(draw.activation, ErrorsOf(&problem, HEAVY_TAILS)))?;
    }

    /// An infinity or a NaN is within no bound, unless the exact result does not fit an f32.
    #[test]
    fn finite_data_and_parameters_of_any_magnitude_give_finite_results(
        draw in draws(),
        exponents in prop::array::uniform3(-126..=126i32),
    ) {
        let [weight, bias, gradient] = exponents.map(|exponent| 2.0f32.powi(exponent));
        let mut problem = draw.problem(&classes(|class| class.finite));
        for (values, factor) in [(&mut problem.weight, weight), (&mut problem.bias, bias)] {
            values.iter_mut().flatten().for_each(|value| *value *= factor);
        }
        problem.dy = class("normal").values(draw.seed, problem.dy.len());
        // Derivatives are up to 1.5, and a product with one has to fit an f32.
        let most = if draw.activation < 2 { f32::MAX } else { f32::MAX / 1.5 };
        problem.dy.iter_mut().for_each(|value| *value = (*value * gradient).clamp(-most, most));
        within_bounds(&with_activation(draw.activation, ErrorsOf(&problem, HEAVY_TAILS)))?;
    }

    /// Each term of the average is as accurate as the statistic itself, and their sum is rounded once.
    #[test]
    fn running_statistics_of_any_average_are_within_the_bounds(
        draw in draws(),
        momentum in prop_oneof![select(vec![0.0, 1.0, 0.1, 1e-9]), 0.0..=1.0f64],
        batches in prop_oneof![Just(None), (0..=5u64).prop_map(Some), any::<u64>().prop_map(Some)],
    ) {
        let mut problem = draw.problem(&classes(|class| class.finite && class.name != "heavy tails"));
        problem.config.momentum = momentum;
        problem.batches = batches;
        let layer = problem.reference::<Identity>();
        let moments = layer.moments(&widened(&problem.x));
        let (mut mean, mut var) =
            (joined(&problem.running_mean, problem.running_mean_tail.as_deref()), widened(&problem.running_var));
        layer.update_running(&moments, problem.reference_average(), &mut mean, &mut var);
        let trained = problem.train::<Identity>();
        let pairs = joined(&trained.running_mean, trained.running_mean_tail.as_deref());
        prop_assert_eq!(trained.batches, batches.map(|batches| batches.saturating_add(1)));
        let momentum = problem.reference_average().momentum(momentum);
        let (mut means, mut vars) = (Worst::new("running mean"), Worst::new("running variance"));
        let mut pairs_of_means = Worst::new("running mean with its tail");
        for (channel, moments) in moments.iter().enumerate() {
            let scale = |before: f32, of_batch: f64| (1.0 - momentum) * f64::from(before).abs() + momentum * of_batch;
            let of_mean = scale(problem.running_mean[channel], moments.mean.rounded().abs().max(moments.var.sqrt()));
            let of_var = scale(problem.running_var[channel], layer.running_var.of(moments));
            means.add(channel, trained.running_mean[channel].into(), mean[channel], of_mean, SMALLEST);
            if problem.running_mean_tail.is_some() {
                // Nothing is left but the error of the batch mean, in standard deviations, and the
                // last of 48 bits.
                let last = scale(problem.running_mean[channel], moments.mean.rounded().abs()) / (1u64 << 46) as f64;
                pairs_of_means.add(channel, pairs[channel], mean[channel], momentum * moments.var.sqrt(), last + SMALLEST);
            }
            vars.add(channel, trained.running_var[channel].into(), var[channel], of_var, SMALLEST);
        }
        means.within(PROMISE.mean).map_err(TestCaseError::fail)?;
        pairs_of_means.within(PROMISE.mean).map_err(TestCaseError::fail)?;
        vars.within(PROMISE.var).map_err(TestCaseError::fail)?;
    }

    #[test]
    fn finite_data_of_any_bits_gives_finite_results(
        shape in shapes(),
        activation in 0..ACTIVATIONS,
        values in prop::collection::vec(prop::num::f32::NORMAL | prop::num::f32::SUBNORMAL | prop::num::f32::ZERO, 64),
    ) {
        let mut problem = Problem::random(shape, |_| class("normal"), 1);
        for (value, &other) in problem.x.iter_mut().zip(values.iter().cycle()) {
            *value = other;
        }
        for (value, &other) in problem.dy.iter_mut().zip(values.iter().rev().cycle()) {
            // Derivatives are up to 1.5, and a product with one has to fit an f32.
            *value = if activation < 2 { other } else { other / 1.5 };
        }
        within_bounds(&with_activation(activation, ErrorsOf(&problem, HEAVY_TAILS)))?;
    }
}

#[test]
fn tiny_data_is_normalised_as_well_when_eps_is_tiny() {
    for name in ["1e-10", "1e-20", "1e-30", "subnormal", "smallest"] {
        for eps in [1e-20, 1e-30, 1e-45] {
            for (seed, &shape) in (0..).zip(SHAPES) {
                let mut problem = Problem::random(shape, |_| class(name), seed);
                problem.config.eps = eps;
                if let Err(fault) = errors::<Identity>(&problem, PROMISE).check() {
                    panic!("{name}, eps {eps:e}, shape {shape:?}: {fault}");
                }
            }
        }
    }
}

/// A tensor of zeros needs no second walk. One number whose square is 0 in f32 is enough for a second walk, wherever it is.
#[test]
fn one_tiny_number_among_zeros_has_a_variance() {
    let value = 1e-25_f32;
    for shape in
        [Shape::nc(5, 3), Shape::nc(9, 40), Shape::ncl(3, 2, 17), Shape::ncl(2, 18, 7), Shape::nhwc(2, 2, 3, 33)]
    {
        let shape = shape.expect("the shape is not too large");
        let layer = Layer::new(shape, Identity, Config::DEFAULT).expect("the settings are right");
        let (mut moments, mut scratch) = (vec![0.0; layer.moments_len()], vec![0.0; layer.train_scratch_len()]);
        let mut sums_of_squares = |x: &[f32]| {
            layer.moments(normdrop::Moments::new(x, &mut moments, &mut scratch)).expect("every length is right");
            moments[2 * shape.channels()..].to_vec()
        };
        let zeros: Vec<f32> = (0..shape.len()).map(|element| if element % 3 == 0 { -0.0 } else { 0.0 }).collect();
        assert!(sums_of_squares(&zeros).iter().all(|&sum| sum == 0.0), "{shape:?}");
        let count = f64::from(u32::try_from(shape.len() / shape.channels()).expect("a small number"));
        let exact = f64::from(value) * f64::from(value) * (1.0 - 1.0 / count);
        for element in 0..shape.len() {
            let mut x = zeros.clone();
            x[element] = value;
            let sums = sums_of_squares(&x);
            let sum: f64 = sums.iter().sum();
            assert!((sum - exact).abs() <= 8.0 * U * exact, "{shape:?}, element {element}: {sum:e} and not {exact:e}");
            assert_eq!(sums.iter().filter(|&&sum| sum != 0.0).count(), 1, "{shape:?}, element {element}");
        }
    }
}

/// A channel whose coefficients leave the range of f32 arithmetic. Of so many values the first is `low`, the others are
/// `high`.
struct OutOfRange {
    what: &'static str,
    period: usize,
    low: f32,
    high: f32,
    running_mean: f32,
    weight: f32,
    bias: f32,
    /// The parts of `dy` that are constant, that are proportional to the deviations, and that have nothing to do with them.
    dy: [f32; 3],
}

impl OutOfRange {
    const fn new(what: &'static str, [low, high]: [f32; 2], weight: f32, dy: [f32; 3]) -> Self {
        Self { what, period: 2, low, high, running_mean: 0.0, weight, bias: 0.0, dy }
    }
}

/// Everything that can leave it, alone and two at a time: each must be enough for f64.
const OUT_OF_RANGE: &[OutOfRange] = &[
    OutOfRange::new("slope", [-1e10, 1e10], 1e-32, [0.0, 0.0, 1e20]),
    OutOfRange::new("slope and inv_std", [-3e38, 3e38], 1e-3, [0.0, 0.0, 1.0]),
    OutOfRange { period: 4, ..OutOfRange::new("inv_std and mean", [-3e38, 3e38], 1e10, [0.0, 0.0, 1.0]) },
    OutOfRange::new("slope, inv_std and mean", [1e38, 3e38], 1e-3, [0.0, 0.0, 1e20]),
    OutOfRange { bias: 2e31, ..OutOfRange::new("slope and shift", [-1e-3, 1e-3], 3e38, [0.0, 0.0, 1e-5]) },
    OutOfRange {
        running_mean: 3e38,
        bias: 2e38,
        ..OutOfRange::new("mean and shift", [-3e38, -3e38], 0.5, [0.0, 0.0, 1.0])
    },
    OutOfRange::new("offset", [-1e10, 1e10], 1e38, [1e11, 0.0, 0.0]),
    OutOfRange::new("products with tilt", [-1e10, 1e10], 1e38, [0.0, 1e11, 0.0]),
    OutOfRange::new("offset and products with tilt", [-1e10, 1e10], 1e38, [1e11, 1e11, 0.0]),
    OutOfRange { period: 4, ..OutOfRange::new("mean and products with tilt", [-3e38, 3e38], 1e38, [0.0, 1e29, 0.0]) },
    OutOfRange::new("slope and offset", [-1e8, 1e8], 3e38, [1e9, 0.0, 0.0]),
    OutOfRange::new("slope and tilt", [-1e4, 1e4], 1e-38, [0.0, 1e15, 1e15]),
];

#[test]
#[expect(clippy::cast_precision_loss, reason = "a small number")]
fn what_leaves_the_range_of_f32_is_computed_in_f64() {
    for case in OUT_OF_RANGE {
        // The last is worked in two runs, the second of which is shorter.
        for [outer, channels, inner] in
            [[40, 1, 1], [8, 5, 20], [2, 3, 300], [20, 19, 1], [132, 3, 1], [8, 7, 5], [1, 1, 65_541]]
        {
            let mut problem = Problem::new(outer, channels, inner);
            let shape = problem.reference_shape();
            let samples = |of: &dyn Fn(usize) -> f32| shape.tensor(|_| (0..outer * inner).map(of).collect());
            let is_low = |sample: usize| sample.is_multiple_of(case.period);
            let [constant, along, apart] = case.dy;
            problem.x = samples(&|sample| if is_low(sample) { case.low } else { case.high });
            problem.dy = samples(&|sample| {
                let deviation = if is_low(sample) { 1.0 - case.period as f32 } else { 1.0 };
                constant + along * deviation + apart * if sample & 2 == 0 { -1.0 } else { 1.0 }
            });
            problem.running_mean.fill(case.running_mean);
            problem.weight = Some(vec![case.weight; channels]);
            problem.bias = Some(vec![case.bias; channels]);
            if let Err(fault) = errors::<Identity>(&problem, PROMISE).check() {
                panic!("{}, shape [{outer}, {channels}, {inner}]: {fault}", case.what);
            }
        }
    }
}

/// It is part of the bits of a result where that is. The numbers are such that two roundings give another result than one.
#[test]
#[expect(clippy::cast_possible_truncation, reason = "rounded to f32")]
fn f64_takes_over_at_the_same_coefficients_everywhere() {
    // The dropout scale, at most 2^32, comes on top of the largest slope.
    let (small, large) = (2.0f32.powi(-100), 2.0f32.powi(68));
    let (x, mean) = (1.0 + f32::EPSILON, -f32::EPSILON / 2.0);
    for (slope, shift, in_f64) in [
        (small, -small, false),
        (small.next_down(), -small, true),
        (large.next_up(), -large, true),
        (large, -large.next_down(), false),
    ] {
        let once = ((f64::from(x) - f64::from(mean)) * f64::from(slope) + f64::from(shift)) as f32;
        let twice = (x - mean) * slope + shift;
        assert_ne!(once, twice);
        for [outer, channels, inner] in [[8, 5, 20], [20, 19, 1]] {
            let mut problem = Problem::new(outer, channels, inner);
            problem.config.eps = 0.0;
            problem.running_mean.fill(mean);
            problem.weight = Some(vec![slope; channels]);
            problem.bias = Some(vec![shift; channels]);
            problem.x.fill(x);
            let y = problem.eval::<Identity>();
            assert!(y.iter().all(|&y| y == if in_f64 { once } else { twice }), "slope {slope:e}");
        }
    }
}

/// Evaluation with the statistics that training has left, against the exact statistics of the
/// batch.
#[test]
fn evaluation_with_the_tail_of_the_running_mean_is_within_the_bound_of_training_up_to_1e7_deviations() {
    let names: Vec<&str> = CLASSES.iter().map(|class| class.name).filter(|name| name.starts_with("offset")).collect();
    assert!(names.contains(&"offset 1e7"), "{names:?}");
    for &[outer, _, inner] in SHAPES.iter().filter(|[outer, _, inner]| outer * inner > 2) {
        let mut problem = Problem::random([outer, names.len(), inner], |channel| class(names[channel]), 11);
        problem.config.running_var = RunningVariance::Biased;
        let evaluate = |tail: Option<Vec<f32>>| {
            let trained = Problem { running_mean_tail: tail, ..problem.clone() }.train::<Identity>();
            let evaluated = Problem {
                running_mean: trained.running_mean,
                running_mean_tail: trained.running_mean_tail,
                running_var: trained.running_var,
                ..problem.clone()
            };
            let (exact, mut errors) = (Exact::new::<Identity>(&evaluated), CallErrors::none());
            let centres = exact.layer.batch_statistics(&exact.layer.moments(&exact.x));
            exact.compare_y(&centres, &evaluated.eval::<Identity>(), &mut errors);
            let gradients = evaluated.backward::<Identity>(Statistics::Fixed(evaluated.running()));
            exact.compare_gradients(&centres, reference::Statistics::Fixed, None, &gradients, &mut errors);
            errors
        };
        for (worst, bound) in evaluate(Some(vec![0.0; names.len()])).each().into_iter().zip(FIXED.of_call()) {
            worst.within(bound).unwrap_or_else(|fault| panic!("shape [{outer}, _, {inner}]: {fault}"));
        }
        let without = evaluate(None);
        let [y, ..] = without.each();
        assert!(y.units() > 1e4, "shape [{outer}, _, {inner}]: one f32 is {} u wrong, and should be lost", y.units());
    }
}

/// A cumulative average of twenty thousand batches, whose mean moves from 100000 to 100005 after
/// half of them.
#[test]
fn a_running_mean_with_a_tail_goes_on_where_one_f32_stands_still() {
    for [outer, channels, inner] in [[2, 1, 1], [1, 3, 2], [2, 17, 1]] {
        let mut problem = Problem::new(outer, channels, inner);
        let batch = |values: [f32; 2]| problem.reference_shape().tensor(|_| values.to_vec());
        let batches = [batch([99_999.0, 100_001.0]), batch([100_004.0, 100_006.0])];
        for tail in [None, Some(vec![0.0; channels])] {
            (problem.running_mean_tail, problem.batches) = (tail, Some(0));
            for x in &batches {
                problem.x.clone_from(x);
                for _ in 0..10_000 {
                    let trained = problem.train::<Identity>();
                    (problem.running_mean, problem.running_var) = (trained.running_mean, trained.running_var);
                    (problem.running_mean_tail, problem.batches) = (trained.running_mean_tail, trained.batches);
                }
            }
            let means = joined(&problem.running_mean, problem.running_mean_tail.as_deref());
            let exact = if problem.running_mean_tail.is_some() { 100_002.5 } else { 100_000.0 };
            for mean in means {
                assert!((mean - exact).abs() < 1e-6, "{mean} instead of {exact}, shape [{outer}, {channels}, {inner}]");
            }
        }
        // The mean itself is normalised to 0.
        problem.x.fill(100_002.5);
        assert!(problem.eval::<Identity>().iter().all(|y| y.abs() < 4.0 / (1u32 << 24) as f32));
    }
}

/// A constant channel has variance 0, and every deviation is 0, whatever rounding does to the mean.
#[test]
fn a_constant_channel_gives_exactly_its_bias() {
    let constants =
        [0.0, -0.0, 0.1, -0.1, 0.3, 1.0, 7.0, 1e-3, 16_777_215.0, 1e8, 1e20, 1e30, 3e38, -3.4e38, 1e-38, 1e-45];
    let biases: [f32; 4] = [0.0, 0.25, -1.7, 1e-20];
    for &[outer, _, inner] in SHAPES.iter().chain(&[[10_003, 1, 1], [3, 1, 4_000]]) {
        let mut problem = Problem::new(outer, constants.len(), inner);
        problem.config = Config { momentum: 1.0, ..problem.config };
        problem.x = problem.reference_shape().tensor(|channel| vec![constants[channel]; outer * inner]);
        for eps in [1e-5, 1e-45] {
            problem.config.eps = eps;
            for bias in biases {
                problem.bias = Some(vec![bias; constants.len()]);
                let trained = problem.train::<Identity>();
                let rectified = problem.train::<Relu>();
                for (index, (&y, &rectified)) in trained.y.iter().zip(&rectified.y).enumerate() {
                    let constant = constants[index / inner % constants.len()];
                    assert_eq!(y, bias, "constant {constant:e}, shape [{outer}, _, {inner}], eps {eps:e}");
                    assert_eq!(
                        rectified,
                        bias.max(0.0),
                        "constant {constant:e}, shape [{outer}, _, {inner}], eps {eps:e}"
                    );
                }
                assert_eq!(trained.running_mean, constants);
                assert_eq!(trained.running_var, [0.0; 16]);
            }
        }
    }
}

fn check_training<A: Oracle>(problem: &Problem) {
    let mut errors = Errors::none(PROMISE);
    Exact::new::<A>(problem).compare_training::<A>(&mut errors);
    println!("[{}, {}, {}]: {}", problem.outer, problem.channels, problem.inner, errors.units());
    if let Err(fault) = errors.check() {
        panic!("{fault}");
    }
}

/// A problem with some of the measured classes, a channel each.
fn measured([outer, inner]: [usize; 2], names: &[&str]) -> Problem {
    Problem::random([outer, names.len(), inner], |channel| class(names[channel]), 1)
}

/// At a million values each layout takes half of the classes, to save time.
fn every_other(first: usize) -> Vec<&'static str> {
    MEASURED.into_iter().skip(first).step_by(2).collect()
}

#[test]
fn every_measured_class_is_within_the_bounds_of_the_accuracy_table_channels_first() {
    check_training::<Relu>(&measured([1, 65_537], &MEASURED).with_mask(0.5, 1));
    check_training::<Relu>(&measured([2, 1 << 19], &every_other(0)).with_mask(0.5, 1));
}

#[test]
fn every_measured_class_is_within_the_bounds_of_the_accuracy_table_channels_last() {
    check_training::<Relu>(&measured([65_537, 1], &MEASURED).with_mask(0.5, 1));
    check_training::<Relu>(&measured([1 << 20, 1], &every_other(1)).with_mask(0.5, 1));
}

/// The largest size that the crate's promise names.
const LARGEST: usize = (1 << 24) + 17;

#[test]
fn the_largest_size_is_within_the_bounds_of_the_accuracy_table_channels_first() {
    for name in ["offset 1e7", "one outlier"] {
        check_training::<Identity>(&measured([1, LARGEST], &[name]));
    }
}

#[test]
fn the_largest_size_is_within_the_bounds_of_the_accuracy_table_channels_last() {
    check_training::<Identity>(&measured([LARGEST, 1], &["offset 1e7", "alternating 1e8 and 1e-3"]));
}

#[test]
#[ignore = "minutes; the two tests before it take the classes that are hardest at this size"]
fn every_measured_class_is_within_the_bounds_of_the_accuracy_table_at_the_largest_size() {
    for names in MEASURED.as_chunks::<2>().0 {
        check_training::<Identity>(&measured([1, LARGEST], names));
        check_training::<Identity>(&measured([LARGEST, 1], names));
    }
}

/// A loss of the reference's output, as a function of all that can be differentiated.
struct Loss {
    layer: reference::Layer,
    mask: Option<Vec<u8>>,
    running: Option<[Vec<f64>; 2]>,
    dy: Vec<f64>,
}

impl Loss {
    fn centres(&self, x: &[f64]) -> Vec<Centre> {
        match &self.running {
            Some([mean, var]) => self.layer.fixed_statistics(mean, var),
            None => self.layer.batch_statistics(&self.layer.moments(x)),
        }
    }

    /// `sum(dy*y)`, whose gradient with respect to `y` is `dy`.
    fn value(&self, [x, weight, bias, residual]: [&[f64]; 4]) -> f64 {
        let parameters = reference::Parameters { weight: Some(weight), bias: Some(bias), residual: Some(residual) };
        let forward = self.layer.forward(parameters, &self.centres(x), self.mask.as_deref(), x);
        forward.y.iter().zip(&self.dy).map(|(y, dy)| y * dy).sum()
    }

    /// Central differences with respect to argument number `which`.
    fn differences(&self, arguments: [&[f64]; 4], which: usize) -> Vec<f64> {
        const STEP: f64 = 1.0 / (1 << 16) as f64;
        let moved = |index: usize, step: f64| {
            let mut argument = arguments[which].to_vec();
            argument[index] += step;
            let mut arguments = arguments;
            arguments[which] = &argument;
            self.value(arguments)
        };
        (0..arguments[which].len()).map(|index| (moved(index, STEP) - moved(index, -STEP)) / (2.0 * STEP)).collect()
    }
}

/// The activation of the reference.
struct Reference;

impl Visitor for Reference {
    type Result = reference::Activation;

    fn visit<A: Oracle>(self) -> reference::Activation {
        A::REFERENCE
    }
}

/// The oracle's gradients are the derivatives of its own forward pass.
#[test]
fn gradients_of_the_reference_are_its_finite_differences() {
    let shape = reference::Shape { outer: 3, channels: 2, inner: 4 };
    let mut random = SplitMix64::new(3);
    let mut normal = |count: usize| (0..count).map(|_| random.next_normal()).collect::<Vec<f64>>();
    for activation in (0..ACTIVATIONS).map(|number| with_activation(number, Reference)) {
        for running in [None, Some([vec![0.3, -0.2], vec![0.7, 2.0]])] {
            for p in [None, Some(0.4)] {
                let threshold = mask::threshold(p.unwrap_or(0.0));
                let running_var = reference::RunningVariance::Unbiased;
                let layer = reference::Layer { shape, eps: 0.1, momentum: 0.1, running_var, threshold, activation };
                let mask = p.map(|_| mask::bytes(1, threshold, shape.len()));
                let (x, weight, bias, residual) = (normal(shape.len()), normal(2), normal(2), normal(shape.len()));
                let loss = Loss { layer, mask, running: running.clone(), dy: normal(shape.len()) };
                let centres = loss.centres(&x);
                let parameters =
                    reference::Parameters { weight: Some(&weight), bias: Some(&bias), residual: Some(&residual) };
                let z = layer.forward(parameters, &centres, loss.mask.as_deref(), &x).z;
                let distances = z.iter().flat_map(|z| activation.kinks().iter().map(move |kink| (z - kink).abs()));
                assert!(
                    distances.into_iter().all(|distance| distance > 1e-3),
                    "a difference across a kink means nothing"
                );

                let kind = if running.is_some() { reference::Statistics::Fixed } else { reference::Statistics::Batch };
                let call = reference::Backward { mask: loss.mask.as_deref(), x: &x, dy: &loss.dy, z: None };
                let gradients = layer.backward(parameters, &centres, kind, call);
                let all = [&gradients.dx, &gradients.d_weight, &gradients.d_bias, &gradients.d_residual];
                for (which, gradient) in all.into_iter().enumerate() {
                    let differences = loss.differences([&x, &weight, &bias, &residual], which);
                    for (index, (gradient, difference)) in gradient.iter().zip(&differences).enumerate() {
                        assert!(
                            (gradient - difference).abs() < 1e-7,
                            "gradient {which} at {index} is {gradient} but the difference is {difference}: {layer:?}"
                        );
                    }
                }
            }
        }
    }
}
