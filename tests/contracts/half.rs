//! Tensors of halves: the results of every call are those of f32 on the widened values, to the bit, rounded once where they
//! are stored as halves. Statistics, sums and gradients of parameters are not rounded at all.

use normdrop::{
    AnyActivation, Apply, ApplyGradient, Backend, Backward, BackwardInPlace, Bf16, Buffer, Config, Dropout, Element,
    Elu, Error, Eval, EvalInPlace, EvalPrepared, EvalPreparedInPlace, F16, Finish, Gelu, Granularity, Identity, Layer,
    Moments, ParameterGradients, Parameters, Prepare, Reduce, Relu, Running, RunningMut, SavedMut, Shape, Statistics,
    Train, mask_len,
};
use normdrop_reference::random::SplitMix64;
use proptest::prelude::*;

/// A type of elements, and what the tests convert with: one value at a time, by the crate's own conversions, which the tests
/// of `src/simd/conversions.rs` compare with the definition of rounding.
trait Stored: Element + PartialEq {
    const NAME: &'static str;
    fn narrow(value: f32) -> Self;
    fn wide(self) -> f32;
}

macro_rules! stored {
    ($($name:ident: $narrow:expr;)*) => {$(
        impl Stored for $name {
            const NAME: &'static str = stringify!($name);

            fn narrow(value: f32) -> Self {
                $narrow(value)
            }

            fn wide(self) -> f32 {
                f32::from(self)
            }
        }
    )*};
}
stored! {
    f32: f32::from;
    F16: F16::from_f32;
    Bf16: Bf16::from_f32;
}

fn narrowed<E: Stored>(values: &[f32]) -> Vec<E> {
    values.iter().map(|&value| E::narrow(value)).collect()
}

/// What a call has written.
#[derive(Debug, Clone)]
enum Written {
    /// A tensor of the type of `x`, widened.
    X(Vec<f32>),
    /// A tensor of the type of `y`, widened.
    Y(Vec<f32>),
    /// What no type of elements changes.
    Same(Vec<u64>),
}

impl Written {
    fn x<E: Stored>(tensor: &[E]) -> Self {
        Self::X(tensor.iter().map(|value| value.wide()).collect())
    }

    fn y<E: Stored>(tensor: &[E]) -> Self {
        Self::Y(tensor.iter().map(|value| value.wide()).collect())
    }

    fn singles(values: &[f32]) -> Self {
        Self::Same(values.iter().map(|&value| single_bits(value).into()).collect())
    }

    fn doubles(values: &[f64]) -> Self {
        let bits = |value: &f64| if value.is_nan() { f64::NAN } else { *value }.to_bits();
        Self::Same(values.iter().map(bits).collect())
    }

    /// The bits once the tensors are stored as `X` and `Y`; every NaN counts as the same.
    fn bits<X: Stored, Y: Stored>(&self) -> Vec<u64> {
        match self {
            Self::X(values) => values.iter().map(|&value| single_bits(X::narrow(value).wide()).into()).collect(),
            Self::Y(values) => values.iter().map(|&value| single_bits(Y::narrow(value).wide()).into()).collect(),
            Self::Same(bits) => bits.clone(),
        }
    }
}

fn single_bits(value: f32) -> u32 {
    if value.is_nan() { f32::NAN } else { value }.to_bits()
}

/// What the calls of a layer are given.
#[derive(Debug, Clone)]
struct Problem {
    layer: Layer<AnyActivation>,
    weight: Vec<f32>,
    bias: Vec<f32>,
    mean: Vec<f32>,
    var: Vec<f32>,
    /// A mask, if anything is dropped.
    mask: Option<Vec<u8>>,
    x: Vec<f32>,
    residual: Option<Vec<f32>>,
    dy: Vec<f32>,
    /// The layer of the calls with PReLU, if it has no activation.
    prelu: Option<Layer<Identity>>,
    /// Its slopes: one for each channel, or one for all.
    slopes: Vec<f32>,
}

/// What some channels have: the range of either half and what lies beyond it, subnormal numbers, and what f32 is too small for.
const MAGNITUDES: [f32; 10] = [1.0, 1e-6, 3e-8, 6e4, 1e-39, 1.0, 1e19, 2e38, 1.0, 1e-30];

#[expect(clippy::cast_possible_truncation, reason = "any number near it")]
fn normal(random: &mut SplitMix64, len: usize) -> Vec<f32> {
    (0..len).map(|_| random.next_normal() as f32).collect()
}

impl Problem {
    fn new(layer: Layer<AnyActivation>, extreme: bool, residual: bool, seed: u64) -> Self {
        let mut random = SplitMix64::new(seed);
        let (shape, channels) = (layer.shape(), layer.shape().channels());
        let mut tensor = |offset: f32| {
            let mut values = normal(&mut random, shape.len());
            for (element, value) in values.iter_mut().enumerate() {
                *value += offset;
                if extreme {
                    let channel = element / shape.inner() % channels;
                    *value *= MAGNITUDES[channel % MAGNITUDES.len()];
                    match random.next_u64() % 400 {
                        0 if channel % 4 == 0 => *value = f32::NAN,
                        1 if channel % 4 == 1 => *value = f32::INFINITY,
                        _ => {}
                    }
                }
            }
            values
        };
        let (x, dy) = (tensor(0.5), tensor(0.0));
        let residual = residual.then(|| tensor(0.0));
        let mut mask = vec![0; layer.mask_len()];
        let mask = (layer.config().p > 0.0).then(|| {
            layer.fill_mask(seed, &mut mask).expect("a mask of the right length");
            mask
        });
        let (weight, bias, mean) =
            (normal(&mut random, channels), normal(&mut random, channels), normal(&mut random, channels));
        let var = normal(&mut random, channels).iter().map(|value| value * value + 0.1).collect();
        let identity = AnyActivation::Identity(Identity);
        let prelu = (Layer::new(shape, identity, layer.config()) == Ok(layer))
            .then(|| Layer::new(shape, Identity, layer.config()).expect("constants that have been checked"));
        let slopes = normal(&mut random, if seed.is_multiple_of(2) { 1 } else { channels });
        Self { layer, weight, bias, mean, var, mask, x, residual, dy, prelu, slopes }
    }

    /// The same numbers, with each tensor rounded to its type.
    fn rounded<X: Stored, Y: Stored>(&self) -> Self {
        let x = |values: &Vec<f32>| values.iter().map(|&value| X::narrow(value).wide()).collect();
        let y = |values: &Vec<f32>| values.iter().map(|&value| Y::narrow(value).wide()).collect();
        Self { x: x(&self.x), residual: self.residual.as_ref().map(x), dy: y(&self.dy), ..self.clone() }
    }

    /// Every call with tensors, with `x`, the residual and their gradients as `X`, and `y` and its gradient as `Y`.
    #[expect(clippy::too_many_lines, reason = "every call once")]
    fn run<X: Stored, Y: Stored>(&self) -> Vec<(&'static str, Written)> {
        let Self { layer, weight, bias, mean, var, mask, .. } = self;
        let (len, channels) = (self.x.len(), layer.shape().channels());
        let (x, dy) = (&narrowed::<X>(&self.x)[..], &narrowed::<Y>(&self.dy)[..]);
        let residual = self.residual.as_ref().map(|residual| narrowed::<X>(residual));
        let residual = residual.as_deref();
        let parameters = Parameters { weight: Some(weight), bias: Some(bias) };
        let dropout = mask.as_deref().map_or(Dropout::Off, Dropout::Mask);
        let running = Running::new(mean, var);
        let scratch = &mut vec![f64::NAN; layer.scratch_len()];
        let (new_x, new_y) = (|| vec![X::narrow(f32::NAN); len], || vec![Y::narrow(f32::NAN); len]);
        let mut written = Vec::new();
        let mut all = |name, what| written.push((name, what));

        let (mut y, mut saved) = (new_y(), (vec![0.0; channels], vec![0.0; channels], vec![0.0; channels]));
        let (mut running_mean, mut running_var) = (mean.clone(), var.clone());
        macro_rules! train {
            ($dropout:expr) => {
                Train {
                    parameters,
                    running: Some(RunningMut::new(&mut running_mean, &mut running_var)),
                    dropout: $dropout,
                    residual,
                    ..Train::new(
                        x,
                        &mut y,
                        SavedMut { mean: &mut saved.0, mean_tail: &mut saved.1, inv_std: &mut saved.2 },
                        scratch,
                    )
                }
            };
        }
        layer.train(train!(dropout)).unwrap();
        all("y of training", Written::y(&y));
        all("running mean", Written::singles(&running_mean));
        all("running variance", Written::singles(&running_var));
        let mut gates = vec![0; mask_len(len)];
        let has_gates = layer.has_gates();
        if has_gates {
            y = new_y();
            layer.train_with_gates(train!(dropout), &mut gates).unwrap();
            all("y of training with gates", Written::y(&y));
            all("gates", Written::Same(gates.iter().map(|&byte| byte.into()).collect()));
        }
        all("mean", Written::singles(&saved.0));
        all("tail", Written::singles(&saved.1));
        all("inverse standard deviation", Written::doubles(&saved.2));
        let saved = normdrop::Saved { mean: &saved.0, mean_tail: &saved.1, inv_std: &saved.2 };

        let mut y = new_y();
        layer.eval(Eval { parameters, dropout, residual, ..Eval::new(running, x, &mut y, scratch) }).unwrap();
        all("y of evaluation", Written::y(&y));
        let mut values = x.to_vec();
        let call = EvalInPlace { parameters, dropout, residual, ..EvalInPlace::new(running, &mut values, scratch) };
        layer.eval_in_place(call).unwrap();
        all("y in place", Written::x(&values));
        let mut prepared = vec![0.0; layer.prepared_len()];
        layer.prepare(Prepare { parameters, ..Prepare::new(running, &mut prepared) }).unwrap();
        let mut y = new_y();
        let call = EvalPrepared { dropout, residual, ..EvalPrepared::new(&prepared, x, &mut y, scratch) };
        layer.eval_prepared(call).unwrap();
        all("y of prepared statistics", Written::y(&y));
        let mut values = x.to_vec();
        let call = EvalPreparedInPlace::new(&prepared, &mut values, scratch);
        layer.eval_prepared_in_place(EvalPreparedInPlace { dropout, residual, ..call }).unwrap();
        all("y of prepared statistics in place", Written::x(&values));
        let mut y = new_y();
        layer.apply(Apply { parameters, dropout, residual, ..Apply::new(saved, x, &mut y, scratch) }).unwrap();
        all("y of apply", Written::y(&y));

        let every = [Statistics::Batch(saved), Statistics::Fixed(running), Statistics::Prepared(&prepared)];
        for statistics in every {
            for dropout in
                [dropout, if mask.is_some() { Dropout::Gates(&gates) } else { Dropout::UnscaledGates(&gates) }]
            {
                if matches!(dropout, Dropout::Gates(_) | Dropout::UnscaledGates(_)) && !has_gates {
                    continue;
                }
                let (mut dx, mut d_residual) = (new_x(), new_x());
                let (mut d_weight, mut d_bias) = (vec![0.0; channels], vec![0.0; channels]);
                layer
                    .backward(Backward {
                        parameters,
                        dropout,
                        residual,
                        grad_input: Some(&mut dx),
                        grad_residual: Some(&mut d_residual),
                        grad_parameters: ParameterGradients::new(&mut d_weight, &mut d_bias),
                        ..Backward::new(statistics, x, dy, scratch)
                    })
                    .unwrap();
                all("dx", Written::x(&dx));
                all("gradient of the residual", Written::x(&d_residual));
                all("gradient of the weight", Written::singles(&d_weight));
                all("gradient of the bias", Written::singles(&d_bias));
                let (mut values, mut d_residual) = (dy.to_vec(), new_x());
                layer
                    .backward_in_place(BackwardInPlace {
                        parameters,
                        dropout,
                        residual,
                        grad_residual: Some(&mut d_residual),
                        ..BackwardInPlace::new(statistics, x, &mut values, scratch)
                    })
                    .unwrap();
                all("dx in place", Written::y(&values));
                all("gradient of the residual beside it", Written::x(&d_residual));
                let mut d_residual = new_x();
                layer
                    .backward(Backward {
                        parameters,
                        dropout,
                        residual,
                        grad_residual: Some(&mut d_residual),
                        ..Backward::new(statistics, x, dy, scratch)
                    })
                    .unwrap();
                all("gradient of the residual alone", Written::x(&d_residual));
            }
        }

        let mut moments = vec![0.0; layer.moments_len()];
        layer.moments(Moments::new(x, &mut moments, scratch)).unwrap();
        all("moments", Written::doubles(&moments));
        let (mut a, mut b, mut c) = (vec![0.0; channels], vec![0.0; channels], vec![0.0; channels]);
        layer.finish(Finish::new(&moments, SavedMut { mean: &mut a, mean_tail: &mut b, inv_std: &mut c })).unwrap();
        let mut sums = vec![0.0; layer.sums_len()];
        let call = Reduce::new(Statistics::Batch(saved), x, dy, &mut sums, scratch);
        layer.reduce(Reduce { parameters, dropout, residual, ..call }).unwrap();
        all("sums", Written::doubles(&sums));
        let (mut dx, mut d_residual) = (new_x(), new_x());
        layer
            .apply_gradient(ApplyGradient {
                parameters,
                dropout,
                residual,
                grad_residual: Some(&mut d_residual),
                ..ApplyGradient::new(saved, 2.0 * len as f64, &sums, x, dy, &mut dx, scratch)
            })
            .unwrap();
        all("dx of apply", Written::x(&dx));
        all("gradient of the residual of apply", Written::x(&d_residual));
        self.run_prelu::<X, Y>(saved, &prepared, &mut written);
        written
    }

    /// Every call with PReLU, of a layer without an activation.
    fn run_prelu<X: Stored, Y: Stored>(
        &self,
        saved: normdrop::Saved<'_>,
        prepared: &[f64],
        written: &mut Vec<(&'static str, Written)>,
    ) {
        let Self { prelu: Some(layer), weight, bias, mean, var, mask, slopes, .. } = self else { return };
        let (len, channels) = (self.x.len(), layer.shape().channels());
        let (x, dy) = (&narrowed::<X>(&self.x)[..], &narrowed::<Y>(&self.dy)[..]);
        let residual = self.residual.as_ref().map(|residual| narrowed::<X>(residual));
        let residual = residual.as_deref();
        let parameters = Parameters { weight: Some(weight), bias: Some(bias) };
        let dropout = mask.as_deref().map_or(Dropout::Off, Dropout::Mask);
        let running = Running::new(mean, var);
        let scratch = &mut vec![f64::NAN; layer.prelu_half_scratch_len()];
        let mut all = |name, what| written.push((name, what));

        let mut y = vec![Y::narrow(f32::NAN); len];
        let (mut a, mut b, mut c) = (vec![0.0; channels], vec![0.0; channels], vec![0.0; channels]);
        let call = Train::new(x, &mut y, SavedMut { mean: &mut a, mean_tail: &mut b, inv_std: &mut c }, scratch);
        layer.train_prelu(Train { parameters, dropout, residual, ..call }, slopes).unwrap();
        all("y of PReLU in training", Written::y(&y));
        all("statistics of training with PReLU", Written::doubles(&c));
        y.fill(Y::narrow(f32::NAN));
        let call = Eval { parameters, dropout, residual, ..Eval::new(running, x, &mut y, scratch) };
        layer.eval_prelu(call, slopes).unwrap();
        all("y of PReLU", Written::y(&y));
        let mut values = x.to_vec();
        let call = EvalInPlace { parameters, dropout, residual, ..EvalInPlace::new(running, &mut values, scratch) };
        layer.eval_prelu_in_place(call, slopes).unwrap();
        all("y of PReLU in place", Written::x(&values));
        for statistics in [Statistics::Batch(saved), Statistics::Fixed(running), Statistics::Prepared(prepared)] {
            let (mut dx, mut d_residual) = (vec![X::narrow(f32::NAN); len], vec![X::narrow(f32::NAN); len]);
            let (mut d_weight, mut d_bias) = (vec![0.0; channels], vec![0.0; channels]);
            let mut d_slope = vec![f32::NAN; slopes.len()];
            let call = Backward {
                parameters: if matches!(statistics, Statistics::Prepared(_)) {
                    Parameters::default()
                } else {
                    parameters
                },
                dropout,
                residual,
                grad_input: Some(&mut dx),
                grad_residual: Some(&mut d_residual),
                grad_parameters: ParameterGradients::new(&mut d_weight, &mut d_bias),
                ..Backward::new(statistics, x, dy, scratch)
            };
            layer.backward_prelu(call, slopes, Some(&mut d_slope)).unwrap();
            all("dx of PReLU", Written::x(&dx));
            all("gradient of the residual of PReLU", Written::x(&d_residual));
            all("gradient of the weight before PReLU", Written::singles(&d_weight));
            all("gradient of the bias before PReLU", Written::singles(&d_bias));
            all("gradient of the slopes", Written::singles(&d_slope));
        }
    }

    /// Compares the calls on tensors of these types with those on f32.
    fn check<X: Stored, Y: Stored>(&self) {
        let singles = self.rounded::<X, Y>().run::<f32, f32>();
        for ((name, expected), (_, written)) in singles.iter().zip(self.run::<X, Y>()) {
            let (expected, written) = (expected.bits::<X, Y>(), written.bits::<X, Y>());
            let first = expected.iter().zip(&written).position(|(expected, written)| expected != written);
            let of = first.map(|first| (first, expected[first], written[first]));
            assert_eq!(of, None, "{name} of {} and {}, {:?}, {:?}", X::NAME, Y::NAME, self.layer, self.mask.is_some());
            assert_eq!(expected.len(), written.len());
        }
    }

    /// All types that go together, on all backends and, with the feature `rayon`, in several tasks.
    fn check_all(&self) {
        for backend in Backend::ALL.into_iter().filter(|backend| backend.is_available()) {
            let mut problem = self.clone();
            problem.layer = problem.layer.with_backend(backend).unwrap();
            problem.prelu = problem.prelu.map(|layer| layer.with_backend(backend).unwrap());
            #[cfg(feature = "rayon")]
            if backend == Backend::detect() {
                problem.layer = problem.layer.with_tasks(3);
                problem.prelu = problem.prelu.map(|layer| layer.with_tasks(3));
            }
            problem.check::<F16, F16>();
            problem.check::<Bf16, Bf16>();
            problem.check::<Bf16, f32>();
            problem.check::<f32, F16>();
            problem.check::<F16, Bf16>();
        }
    }
}

/// No curve, a curve of each kind, and both that have gates.
const ACTIVATIONS: [AnyActivation; 4] = [
    AnyActivation::Identity(Identity),
    AnyActivation::Relu(Relu),
    AnyActivation::Gelu(Gelu),
    AnyActivation::Elu(match Elu::new(0.7) {
        Ok(elu) => elu,
        Err(_) => panic!("a finite alpha"),
    }),
];

fn layer(shape: [usize; 3], activation: AnyActivation, p: f64, granularity: Granularity) -> Layer<AnyActivation> {
    let [outer, channels, inner] = shape;
    let config = Config { p, granularity, ..Config::DEFAULT };
    Layer::new(Shape::new(outer, channels, inner).unwrap(), activation, config).unwrap()
}

/// Runs of whole vectors and others, joined and alone; one channel; columns, narrow and wide; two groups of channels.
const SHAPES: &[[usize; 3]] = &[
    [3, 5, 16],
    [5, 18, 49],
    [2, 3, 300],
    [3, 1, 1100],
    [9, 7, 5],
    [130, 3, 1],
    [40, 257, 1],
    [37, 530, 1],
    [2, 20, 1031],
    [2, 1, 1],
];

#[test]
fn half_contract_results_are_those_of_f32_rounded_once_in_every_call() {
    for (number, &shape) in SHAPES.iter().enumerate() {
        for (activation, extreme, residual, p) in [
            (0, false, false, 0.0),
            (1, false, true, 0.3),
            (1, true, false, 0.3),
            (number % 2, true, true, 0.0),
            (2 + number % 2, true, number % 3 == 0, 0.5),
        ] {
            let layer = layer(shape, ACTIVATIONS[activation], p, Granularity::Element);
            Problem::new(layer, extreme, residual, 1 + number as u64).check_all();
        }
    }
}

#[test]
#[cfg(feature = "rayon")]
fn half_contract_results_are_those_of_f32_on_several_threads() {
    // As many elements as are shared, and more than are written past the caches.
    for (shape, residual) in [([8, 20, 3600], true), ([2100, 260, 1], false)] {
        let layer = layer(shape, ACTIVATIONS[1], 0.2, Granularity::Element).with_tasks(3);
        Problem::new(layer, true, residual, 5).check::<Bf16, Bf16>();
    }
    for shape in [[8, 20, 3600], [2100, 260, 1], [12_000, 9, 5]] {
        let layer = layer(shape, ACTIVATIONS[0], 0.2, Granularity::Element);
        let mut problem = Problem::new(layer, true, true, 5);
        problem.prelu = problem.prelu.map(|layer| layer.with_tasks(3));
        problem.check::<F16, Bf16>();
    }
}

/// What does not fit the caches is written past them.
#[test]
fn half_contract_results_are_those_of_f32_past_the_caches() {
    let layer = layer([3, 1, 1_400_003], ACTIVATIONS[1], 0.2, Granularity::Element);
    Problem::new(layer, false, true, 5).check::<F16, F16>();
    Problem::new(layer, false, false, 6).check::<Bf16, Bf16>();
    // Columns: rows that are written one after the other, four rows in turn, and four rows with an odd number of vectors.
    for shape in [[50_003, 64, 1], [771, 4096, 1], [3_025, 1040, 1]] {
        let layer = self::layer(shape, ACTIVATIONS[1], 0.2, Granularity::Element);
        Problem::new(layer, false, false, 7).check::<Bf16, Bf16>();
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: if cfg!(debug_assertions) { 40 } else { 60 }, ..ProptestConfig::default() })]

    #[test]
    fn half_contract_results_are_those_of_f32_for_any_shape(
        (outer, channels, inner) in (2..40_usize, 1..40_usize, prop_oneof![Just(1_usize), 2..20_usize, 20..400_usize]),
        activation in 0..ACTIVATIONS.len(),
        (extreme, residual) in any::<(bool, bool)>(),
        p in prop_oneof![Just(0.0), Just(1.0), 0.0..1.0_f64],
        granularity in prop_oneof![Just(Granularity::Element), Just(Granularity::Channel), Just(Granularity::Sample)],
        seed in any::<u64>(),
    ) {
        let layer = layer([outer, channels, inner], ACTIVATIONS[activation], p, granularity);
        Problem::new(layer, extreme, residual, seed).check_all();
    }
}

/// The lengths of tensors of halves are checked as those of others are, before anything is written.
#[test]
fn half_contract_a_tensor_of_the_wrong_length_is_an_error_that_names_it() {
    let layer = layer([2, 3, 4], ACTIVATIONS[1], 0.0, Granularity::Element);
    let (x, mut y, mut scratch) = ([Bf16::ZERO; 24], [F16::from_f32(7.0); 23], vec![0.0; layer.scratch_len()]);
    let running = Running::new(&[0.0; 3], &[1.0; 3]);
    let length = |buffer, actual| Err(Error::Length { buffer, expected: 24, actual });
    assert_eq!(layer.eval(Eval::new(running, &x, &mut y, &mut scratch)), length(Buffer::Output, 23));
    assert_eq!(y, [F16::from_f32(7.0); 23]);
    assert_eq!(layer.eval(Eval::new(running, &x[1..], &mut [F16::ZERO; 24], &mut scratch)), length(Buffer::Input, 23));
    assert_eq!(layer.eval_in_place(EvalInPlace::new(running, &mut y, &mut scratch)), length(Buffer::Values, 23));
}

/// Scratch has room for `y` as f32.
#[test]
fn half_contract_prelu_of_halves_needs_more_scratch() {
    let layer = Layer::new(Shape::ncl(2, 3, 5).unwrap(), Identity, Config::DEFAULT).unwrap();
    let (x, mut y, running) = ([Bf16::ZERO; 30], [F16::from_f32(7.0); 30], Running::new(&[0.0; 3], &[1.0; 3]));
    let refused =
        |needed: usize| Err(Error::Length { buffer: Buffer::Scratch, expected: needed + 15, actual: needed + 14 });
    let eval = layer.eval_scratch_len();
    let mut scratch = vec![0.0; eval + 14];
    assert_eq!(layer.eval_prelu(Eval::new(running, &x, &mut y, &mut scratch), &[0.5]), refused(eval));
    assert_eq!(layer.eval_prelu_in_place(EvalInPlace::new(running, &mut y, &mut scratch), &[0.5]), refused(eval));
    let (train, mut saved) = (layer.train_scratch_len(), normdrop::SavedArrays::<3>::new());
    let mut scratch = vec![0.0; train + 14];
    let call = Train::new(&x, &mut y, saved.as_mut(), &mut scratch);
    assert_eq!(layer.train_prelu(Train { dropout: Dropout::Off, ..call }, &[0.5]), refused(train));
    let backward = layer.prelu_scratch_len();
    let mut scratch = vec![0.0; backward + 14];
    let (mut dx, statistics) = ([Bf16::from_f32(7.0); 30], Statistics::Fixed(running));
    let call = Backward::new(statistics, &x, &y, &mut scratch);
    assert_eq!(layer.backward_prelu(Backward { grad_input: Some(&mut dx), ..call }, &[0.5], None), refused(backward));
    assert_eq!((y, dx), ([F16::from_f32(7.0); 30], [Bf16::from_f32(7.0); 30]));
    assert_eq!(layer.prelu_half_scratch_len(), backward + 15);
}

/// What rounding makes of a result that the half type cannot hold: infinity in F16, and the nearest number in Bf16; what is
/// smaller than the smallest normal number stays.
#[test]
fn half_contract_what_is_too_large_becomes_infinite_and_what_is_small_stays() {
    let layer = Layer::new(Shape::nc(1, 4).unwrap(), Identity, Config { eps: 0.0, ..Config::DEFAULT }).unwrap();
    let running = Running::new(&[0.0; 4], &[1.0; 4]);
    let x = [65519.0_f32, -65520.0, 2.0_f32.powi(-24), 1e-40];
    let mut scratch = vec![0.0; layer.scratch_len()];
    let mut y = [F16::ZERO; 4];
    layer.eval(Eval::new(running, &x, &mut y, &mut scratch)).unwrap();
    assert_eq!(y.map(F16::to_bits), [0x7bff, 0xfc00, 0x0001, 0x0000]);
    let mut y = [Bf16::ZERO; 4];
    layer.eval(Eval::new(running, &x, &mut y, &mut scratch)).unwrap();
    assert_eq!(y.map(Bf16::to_bits), [0x4780, 0xc780, 0x3380, 0x0001]);
}

/// The padding of a tensor of halves.
#[test]
fn half_contract_padding_is_cleared_in_halves() {
    let layer = Layer::new(Shape::nlc(2, 2, 1).unwrap(), Identity, Config::DEFAULT).unwrap();
    let mut values = [Bf16::from_f32(3.0); 4];
    layer.clear_padding(&[1, 2], &mut values).unwrap();
    assert_eq!(values.map(f32::from), [3.0, 0.0, 3.0, 3.0]);
}

/// Bits of other libraries are elements where they are.
#[test]
fn half_contract_bits_in_memory_are_elements() {
    let (mut bits, values) = ([0x3c00, 0xc000], [1.0, -2.0]);
    assert_eq!(F16::from_bits_slice(&bits).iter().map(|&half| f32::from(half)).collect::<Vec<_>>(), values);
    F16::from_bits_slice_mut(&mut bits)[1] = F16::from_f32(0.5);
    assert_eq!(bits, [0x3c00, 0x3800]);
    let mut bits = [0x3f80, 0xc000];
    assert_eq!(Bf16::from_bits_slice(&bits).iter().map(|&half| f32::from(half)).collect::<Vec<_>>(), values);
    Bf16::from_bits_slice_mut(&mut bits)[1] = Bf16::from_f32(0.5);
    assert_eq!(bits, [0x3f80, 0x3f00]);
}

/// The types of the crate `half` are elements, and their conversions have the same bits.
#[test]
#[cfg(feature = "half")]
fn half_contract_the_types_of_the_crate_half_are_elements() {
    use half::{bf16, f16};

    for bits in (0..=u16::MAX).filter(|bits| !f16::from_bits(*bits).is_nan() && !bf16::from_bits(*bits).is_nan()) {
        assert_eq!(F16::from(f16::from_bits(bits)).wide().to_bits(), f16::from_bits(bits).to_f32().to_bits());
        assert_eq!(Bf16::from(bf16::from_bits(bits)).wide().to_bits(), bf16::from_bits(bits).to_f32().to_bits());
        assert_eq!(
            (f16::from(F16::from_bits(bits)).to_bits(), bf16::from(Bf16::from_bits(bits)).to_bits()),
            (bits, bits)
        );
    }
    let layer = layer([2, 3, 4], ACTIVATIONS[1], 0.0, Granularity::Element);
    let (running, mut scratch) = (Running::new(&[0.5; 3], &[1.0; 3]), vec![0.0; layer.scratch_len()]);
    let x: Vec<f32> = (0..24_u8).map(|index| f32::from(index) * 0.37).collect();
    let (mut y, mut others) = ([F16::ZERO; 24], [f16::ZERO; 24]);
    layer.eval(Eval::new(running, &narrowed::<Bf16>(&x), &mut y, &mut scratch)).unwrap();
    let x: Vec<bf16> = x.into_iter().map(bf16::from_f32).collect();
    layer.eval(Eval::new(running, &x, &mut others, &mut scratch)).unwrap();
    assert_eq!(y.map(F16::to_bits), others.map(f16::to_bits));
}
