//! The layer against burn's own layers and operations, which compute the exact results in f64.

#![expect(unreachable_pub, reason = "a module that the tests of several packages share")]

#[path = "../../shared/case.rs"]
mod case;

use std::panic::{AssertUnwindSafe, catch_unwind};

use burn::backend::ExecutionError;
use burn::module::{Module, Param, RunningState};
use burn::nn::{BatchNorm, BatchNormConfig};
use burn::optim::{GradientsParams, SgdConfig};
use burn::tensor::activation::relu;
use burn::tensor::{DType, Device, Tensor, TensorData};
use normdrop::{Config, Layer, Relu, Shape};
use normdrop_burn::BatchNormDropout;

use case::{Case, EPS, Results, factors, widened};

const SEED: u64 = 42;
const CONFIG: Config = Config { eps: EPS, ..Config::DEFAULT };

fn training() -> Device {
    Device::flex().autodiff()
}

fn tensor<const D: usize>(values: &[f32], dims: &[usize], device: &Device) -> Tensor<D> {
    Tensor::from_data(TensorData::new(values.to_vec(), dims.to_vec()), device)
}

fn tensor64<const D: usize>(values: &[f32], dims: &[usize], device: &Device) -> Tensor<D> {
    Tensor::from_data(TensorData::new(widened(values), dims.to_vec()), (device, DType::F64))
}

fn flat<const D: usize>(tensor: Tensor<D>) -> Vec<f32> {
    tensor.into_data().try_to_vec().expect("f32")
}

fn flat64<const D: usize>(tensor: Tensor<D>) -> Vec<f64> {
    tensor.into_data().try_to_vec().expect("f64")
}

/// A layer with the parameters and running statistics of a case.
fn layer_of(case: &Case, config: Config) -> BatchNormDropout {
    layer_on(&training(), case, config)
}

fn layer_on(device: &Device, case: &Case, config: Config) -> BatchNormDropout {
    let of = |values: &[f32]| tensor::<1>(values, &[case.channels()], device);
    let mut layer = BatchNormDropout::new(case.channels(), config, SEED, device).expect("the constants are in range");
    layer.gamma = Param::from_tensor(of(&case.weight));
    layer.beta = Param::from_tensor(of(&case.bias));
    layer.running_mean = RunningState::new(of(&case.running_mean));
    layer.running_var = RunningState::new(of(&case.running_var));
    layer
}

/// Forward and backward through the layer. `view` is what the layer gets of `x`.
fn ours<const D: usize>(layer: &BatchNormDropout, case: &Case, x: &Tensor<D>, view: Tensor<D>) -> Results<f32> {
    let y = layer.forward(view);
    let grad_output = tensor::<D>(&case.grad_output, &case.dims, &training());
    let gradients = (y.clone() * grad_output).sum().backward();
    Results {
        y: flat(y),
        dx: flat(x.grad(&gradients).expect("x is tracked")),
        d_weight: flat(layer.gamma.grad(&gradients).expect("gamma is tracked")),
        d_bias: flat(layer.beta.grad(&gradients).expect("beta is tracked")),
        running_mean: flat(layer.running_mean.value_sync()),
        running_var: flat(layer.running_var.value_sync()),
    }
}

fn run_in<const D: usize>(layer: &BatchNormDropout, case: &Case) -> Results<f32> {
    let x = tensor::<D>(&case.x, &case.dims, &training()).require_grad();
    ours(layer, case, &x, x.clone())
}

fn run(layer: &BatchNormDropout, case: &Case) -> Results<f32> {
    if case.dims.len() == 2 { run_in::<2>(layer, case) } else { run_in::<4>(layer, case) }
}

/// The layer as fine-tuning has it: on a device with autodiff, and not in training.
fn frozen(layer: BatchNormDropout) -> BatchNormDropout {
    let mut layer = layer;
    layer.training = layer.training.with_value(false);
    layer
}

/// The same by burn's batch norm in f64, its ReLU, and a multiplication by the mask.
fn exactly_in<const D: usize>(case: &Case, train: bool, momentum: f64, factors: &[f32]) -> Results<f64> {
    let device = training();
    let channels = [case.channels()];
    let of = |values: &[f32]| tensor64::<1>(values, &channels, &device);
    let mut norm: BatchNorm =
        BatchNormConfig::new(case.channels()).with_epsilon(EPS.into()).with_momentum(momentum).init(&device);
    norm.gamma = Param::from_tensor(of(&case.weight));
    norm.beta = Param::from_tensor(of(&case.bias));
    norm.running_mean = RunningState::new(of(&case.running_mean));
    norm.running_var = RunningState::new(of(&case.running_var));
    norm.training = norm.training.with_value(train);
    let x = tensor64::<D>(&case.x, &case.dims, &device).require_grad();
    let y = relu(norm.forward(x.clone())) * tensor64(factors, &case.dims, &device);
    let gradients = (y.clone() * tensor64(&case.grad_output, &case.dims, &device)).sum().backward();
    Results {
        y: flat64(y),
        dx: flat64(x.grad(&gradients).expect("x is tracked")),
        d_weight: flat64(norm.gamma.grad(&gradients).expect("gamma is tracked")),
        d_bias: flat64(norm.beta.grad(&gradients).expect("beta is tracked")),
        running_mean: flat64(norm.running_mean.value_sync()),
        running_var: flat64(norm.running_var.value_sync()),
    }
}

fn exactly(case: &Case, train: bool, momentum: f64, factors: &[f32]) -> Results<f64> {
    if case.dims.len() == 2 {
        exactly_in::<2>(case, train, momentum, factors)
    } else {
        exactly_in::<4>(case, train, momentum, factors)
    }
}

/// With the biased running variance, which burn has.
const AS_BURN: Config = Config { running_var: normdrop::RunningVariance::Biased, ..CONFIG };

fn cases() -> impl Iterator<Item = Case> {
    let large = [Case::of(&[131, 67], 1), Case::of(&[3, 5, 31, 33], 2), Case::of(&[2, 1], 3)];
    (0..40).flat_map(|seed| [Case::random(2, seed), Case::random(4, seed)]).chain(large)
}

/// The mask of the layer's next step, as what each element is multiplied by.
fn factors_of(layer: &BatchNormDropout, case: &Case, config: Config) -> Vec<f32> {
    let shape = Shape::new(case.dims[0], case.channels(), case.dims[2..].iter().product()).expect("a small shape");
    let plan = Layer::new(shape, Relu, config).expect("the constants are in range");
    let mut mask = vec![0; plan.mask_len()];
    plan.fill_mask(layer.mask_seed(layer.step()), &mut mask).expect("the mask has its length");
    factors(&mask, plan.keep().scale(), case.x.len())
}

#[test]
fn training_is_within_the_bounds_of_burns_batch_norm_and_relu() {
    for (case, momentum) in cases().zip([0.1, 0.5, 0.0, 1.0].into_iter().cycle()) {
        let layer = layer_of(&case, Config { momentum, ..AS_BURN });
        let all = vec![1.0; case.x.len()];
        case.check(true, momentum, &all, &run(&layer, &case), &exactly(&case, true, momentum, &all));
    }
}

#[test]
fn training_with_dropout_is_within_the_bounds_of_a_multiplication_by_the_mask() {
    for (case, p) in cases().zip([0.5, 0.1, 0.9, 0.25].into_iter().cycle()) {
        let config = Config { p, ..AS_BURN };
        let layer = layer_of(&case, config);
        let factors = factors_of(&layer, &case, config);
        let exact = exactly(&case, true, config.momentum, &factors);
        case.check(true, config.momentum, &factors, &run(&layer, &case), &exact);
    }
}

#[test]
fn evaluation_uses_the_running_statistics_and_drops_nothing() {
    for case in cases() {
        let layer = frozen(layer_of(&case, Config { p: 0.5, ..CONFIG }));
        let all = vec![1.0; case.x.len()];
        let results = run(&layer, &case);
        case.check(false, CONFIG.momentum, &all, &results, &exactly(&case, false, CONFIG.momentum, &all));
        assert_eq!(results.running_mean, case.running_mean);
        assert_eq!(results.running_var, case.running_var);
        assert_eq!(layer.step(), 0, "an evaluation takes no mask");
        // Without autodiff, as `valid` leaves a module.
        let layer = layer_of(&case, Config { p: 0.5, ..CONFIG }).valid();
        let device = Device::flex();
        let y = if case.dims.len() == 2 {
            flat(layer.forward(tensor::<2>(&case.x, &case.dims, &device)))
        } else {
            flat(layer.forward(tensor::<4>(&case.x, &case.dims, &device)))
        };
        assert_eq!(y, results.y);
    }
    // Made on such a device it is not in training, although `training` is on.
    let layer = BatchNormDropout::new(3, Config { p: 1.0, ..CONFIG }, SEED, &Device::flex()).expect("in range");
    assert!(layer.training.is_enabled());
    let y = flat(layer.forward(Tensor::<2>::ones([4, 3], &Device::flex())));
    assert!(y.iter().all(|&value| value > 0.9), "{y:?}");
    assert_eq!(layer.step(), 0);
}

#[test]
fn a_step_of_training_is_in_the_next_evaluation() {
    let case = Case::of(&[16, 8], 13);
    let layer = layer_of(&case, CONFIG);
    let results = run(&layer, &case);
    let mut trained = case.clone();
    (trained.running_mean, trained.running_var) = (results.running_mean, results.running_var);
    let expected = run(&frozen(layer_of(&trained, CONFIG)), &case);
    // No one has asked for the running statistics in between, which burn would bring up to date.
    let layer = layer_of(&case, CONFIG);
    let _ = layer.forward(tensor::<2>(&case.x, &case.dims, &training()));
    assert_eq!(run(&frozen(layer), &case).y, expected.y);
}

#[test]
fn halves_give_the_results_of_f32_rounded_once() {
    fn check<const D: usize>(case: &Case, config: Config, dtype: DType, train: bool) {
        let device = training();
        // What the halves are, as f32.
        let rounded = |values: &[f32]| flat(tensor::<1>(values, &[values.len()], &device).cast(dtype).cast(DType::F32));
        let mut case = case.clone();
        (case.x, case.grad_output) = (rounded(&case.x), rounded(&case.grad_output));
        let layer = || if train { layer_of(&case, config) } else { frozen(layer_of(&case, config)) };
        let expected = run_in::<D>(&layer(), &case);
        let x = tensor::<D>(&case.x, &case.dims, &device).cast(dtype).detach().require_grad();
        let layer = layer();
        let y = layer.forward(x.clone());
        let grad_output = tensor::<D>(&case.grad_output, &case.dims, &device).cast(dtype);
        let gradients = (y.clone() * grad_output).sum().backward();
        let dx = x.grad(&gradients).expect("x is tracked");
        assert_eq!((y.dtype(), dx.dtype()), (dtype, dtype));
        assert_eq!(flat(y.cast(DType::F32)), rounded(&expected.y));
        assert_eq!(flat(dx.cast(DType::F32)), rounded(&expected.dx));
        assert_eq!(flat(layer.gamma.grad(&gradients).expect("gamma is tracked")), expected.d_weight);
        assert_eq!(flat(layer.beta.grad(&gradients).expect("beta is tracked")), expected.d_bias);
        let running = [flat(layer.running_mean.value_sync()), flat(layer.running_var.value_sync())];
        assert_eq!(running, [expected.running_mean, expected.running_var]);
    }
    for dtype in [DType::BF16, DType::F16] {
        for train in [true, false] {
            let config = Config { p: 0.3, ..CONFIG };
            check::<2>(&Case::of(&[64, 24], 20), config, dtype, train);
            check::<4>(&Case::of(&[5, 6, 7, 3], 21), config, dtype, train);
        }
    }
}

#[test]
fn a_view_gives_the_bits_of_its_copy() {
    let case = Case::of(&[5, 6, 7, 3], 4);
    let config = Config { p: 0.3, ..CONFIG };
    for train in [true, false] {
        let layer = || if train { layer_of(&case, config) } else { frozen(layer_of(&case, config)) };
        let expected = run(&layer(), &case);
        // The same numbers with the last two dimensions in the other order, and the view that puts them back.
        let x = tensor::<4>(&case.x, &case.dims, &training());
        let turned = x.clone().permute([0, 1, 3, 2]).into_data();
        let turned = Tensor::<4>::from_data(turned, &training()).require_grad();
        let mut results = ours(&layer(), &case, &turned, turned.clone().permute([0, 1, 3, 2]));
        let dims = [case.dims[0], case.dims[1], case.dims[3], case.dims[2]];
        results.dx = flat(tensor::<4>(&results.dx, &dims, &training()).permute([0, 1, 3, 2]));
        assert_eq!(results, expected);
        // Part of a larger tensor: contiguous, but not from its start on.
        let larger = Tensor::cat(vec![x.clone().neg(), x], 0).require_grad();
        let view = larger.clone().narrow(0, case.dims[0], case.dims[0]);
        let mut results = ours(&layer(), &case, &larger, view);
        assert!(results.dx.drain(..case.x.len()).all(|value| value == 0.0));
        assert_eq!(results, expected);
    }
}

#[test]
fn a_view_of_channels_last_is_read_where_it_is() {
    let config = Config { p: 0.3, ..CONFIG };
    // With more and with fewer channels than a vector has.
    for (seed, dims) in [(24, [5, 6, 7, 3]), (25, [2, 40, 3, 5])] {
        for train in [true, false] {
            let case = Case::of(&dims, seed);
            let last = |values: &[f32]| flat(tensor::<4>(values, &dims, &training()).permute([0, 2, 3, 1]));
            // The same memory is a matrix of channels, with the same masks and sums. Of a copy there would be others.
            let mut matrix = case.clone();
            matrix.dims = vec![case.x.len() / dims[1], dims[1]];
            (matrix.x, matrix.grad_output) = (last(&case.x), last(&case.grad_output));
            let of = |case: &Case| if train { layer_of(case, config) } else { frozen(layer_of(case, config)) };
            let expected = run(&of(&matrix), &matrix);

            let dims = [dims[0], dims[2], dims[3], dims[1]];
            let x = tensor::<4>(&matrix.x, &dims, &training()).require_grad();
            let mut results = ours(&of(&case), &case, &x, x.clone().permute([0, 3, 1, 2]));
            results.y = last(&results.y);
            assert_eq!(results, expected);
        }
    }
}

#[test]
fn a_prepared_layer_has_the_bits_of_an_evaluation() {
    fn check<const D: usize>(case: &Case, dtype: DType) {
        let layer = layer_of(case, Config { p: 0.5, ..CONFIG });
        let prepared = layer.prepare().expect("a variance is positive");
        let x = tensor::<D>(&case.x, &case.dims, &Device::flex()).cast(dtype);
        let (found, expected) = (prepared.forward(x.clone()), layer.valid().forward(x));
        assert_eq!((found.dtype(), found.dims()), (dtype, expected.dims()));
        assert_eq!(flat(found.cast(DType::F32)), flat(expected.cast(DType::F32)));
    }
    for dtype in [DType::F32, DType::BF16, DType::F16] {
        check::<2>(&Case::of(&[9, 5], 29), dtype);
        check::<4>(&Case::of(&[3, 6, 4, 5], 29), dtype);
        check::<2>(&Case::of(&[0, 4], 29), dtype);
    }
    let mut case = Case::of(&[4, 3], 30);
    let prepared = layer_of(&case, CONFIG).prepare().expect("a variance is positive");
    let refused = |x: Tensor<2>| prepared.try_forward(x).expect_err("it is wrong").to_string();
    assert!(refused(Tensor::zeros([4, 3], &training())).contains("no gradients"));
    assert!(refused(Tensor::zeros([4, 2], &Device::flex())).contains("3 channels"));
    assert!(refused(Tensor::zeros([4, 3], (&Device::flex(), DType::F64))).contains("F64"));
    case.running_var[1] = -1.0;
    assert!(layer_of(&case, CONFIG).prepare().is_err());
}

#[test]
fn a_gradient_that_is_one_number_expanded_counts_for_every_element() {
    let mut case = Case::of(&[9, 4], 5);
    case.grad_output.fill(1.0);
    let expected = run(&layer_of(&case, CONFIG), &case);
    let x = tensor::<2>(&case.x, &case.dims, &training()).require_grad();
    let gradients = layer_of(&case, CONFIG).forward(x.clone()).sum().backward();
    assert_eq!(flat(x.grad(&gradients).expect("x is tracked")), expected.dx);
}

#[test]
fn gradient_checkpointing_changes_no_bit() {
    let case = Case::of(&[33, 12], 12);
    let config = Config { p: 0.4, ..CONFIG };
    let gradients_on = |device: &Device| {
        let layer = layer_on(device, &case, config);
        let x = tensor::<2>(&case.x, &case.dims, device).require_grad();
        // An operation that checkpointing makes again, before the layer.
        let gradients = layer.forward(x.clone().mul_scalar(2.0)).sum().backward();
        (flat(x.grad(&gradients).expect("x is tracked")), flat(layer.gamma.grad(&gradients).expect("gamma is tracked")))
    };
    assert_eq!(gradients_on(&training().gradient_checkpointing()), gradients_on(&training()));
}

#[test]
fn p_0_keeps_all_and_p_1_drops_all() {
    let case = Case::of(&[8, 5, 3, 3], 6);
    let all = vec![1.0; case.x.len()];
    let kept = run(&layer_of(&case, AS_BURN), &case);
    case.check(true, CONFIG.momentum, &all, &kept, &exactly(&case, true, CONFIG.momentum, &all));

    let dropped = run(&layer_of(&case, Config { p: 1.0, ..AS_BURN }), &case);
    for (name, values) in
        [("y", &dropped.y), ("dx", &dropped.dx), ("d_weight", &dropped.d_weight), ("d_bias", &dropped.d_bias)]
    {
        assert!(values.iter().all(|value| value.to_bits() == 0), "{name}: {values:?}");
    }
    assert_eq!((dropped.running_mean, dropped.running_var), (kept.running_mean, kept.running_var));
}

#[test]
fn masks_are_a_function_of_seed_rank_and_step() {
    let case = Case::of(&[64, 32], 7);
    let config = Config { p: 0.5, ..CONFIG };
    let two_steps = |layer: &BatchNormDropout| {
        [run(layer, &case), run(layer, &case)].map(|results| (results.y, results.dx, results.d_weight))
    };
    let layer = layer_of(&case, config);
    let [first, second] = two_steps(&layer);
    assert_ne!(first.0, second.0, "every step has a mask of its own");
    assert_eq!(layer.step(), 2);
    layer.set_step(0);
    assert_eq!(two_steps(&layer)[1], second, "a step can be made again");
    assert_eq!(two_steps(&layer_of(&case, config)), [first.clone(), second], "same seed, same bits");
    assert_ne!(two_steps(&layer_of(&case, config).with_rank(1))[0].0, first.0, "other ranks, other masks");
    let other = BatchNormDropout::new(32, config, SEED + 1, &training()).expect("the constants are in range");
    assert_ne!(other.mask_seed(0), layer.mask_seed(0));
    // No sum of the three counts: a step further is not the next rank.
    assert_ne!(layer_of(&case, config).with_rank(1).mask_seed(0), layer.mask_seed(1));
}

#[test]
fn an_optimiser_trains_the_parameters_and_nothing_else() {
    let case = Case::of(&[16, 8], 8);
    let layer = layer_of(&case, Config { p: 0.5, ..CONFIG });
    let loss = layer.forward(tensor::<2>(&case.x, &case.dims, &training())).powi_scalar(2).mean();
    let running_mean = flat(layer.running_mean.value_sync());
    let gradients = GradientsParams::from_grads(loss.backward(), &layer);
    let layer = SgdConfig::new().init().step(0.1, layer, gradients);
    assert_ne!(flat(layer.gamma.val()), case.weight);
    assert_ne!(flat(layer.beta.val()), case.bias);
    assert_ne!(running_mean, case.running_mean);
    assert_eq!(flat(layer.running_mean.value_sync()), running_mean);
    assert_eq!(layer.step(), 1, "the module that comes out of the optimiser counts on");
    // Two parameters and two running statistics of eight channels.
    assert_eq!(layer.num_params(), 32);
}

#[test]
fn an_input_that_is_not_tracked_gets_no_gradient() {
    let case = Case::of(&[16, 8], 9);
    let layer = layer_of(&case, CONFIG);
    let x = tensor::<2>(&case.x, &case.dims, &training());
    let gradients = layer.forward(x.clone()).sum().backward();
    assert!(x.grad(&gradients).is_none());
    assert!(layer.gamma.grad(&gradients).is_some());
}

#[test]
fn what_is_wrong_is_an_error_of_burn_and_changes_nothing() {
    fn refused<const D: usize>(case: &Case, layer: &BatchNormDropout, x: Tensor<D>, expected: &str) {
        let error: ExecutionError = layer.try_forward(x.clone()).expect_err(expected);
        assert!(error.to_string().contains(expected), "{error}");
        // What burn's own layers do.
        assert!(catch_unwind(AssertUnwindSafe(|| layer.forward(x))).is_err());
        assert_eq!(flat(layer.running_mean.value_sync()), case.running_mean);
        assert_eq!(flat(layer.running_var.value_sync()), case.running_var);
        assert_eq!(layer.step(), 0);
    }
    let case = Case::of(&[4, 3], 10);
    let layer = layer_of(&case, Config { p: 0.5, ..CONFIG });
    let device = training();
    refused(&case, &layer, Tensor::<2>::zeros([4, 5], &device), "the layer has 3 channels");
    refused(&case, &layer, Tensor::<4>::zeros([3, 4, 3, 3], &device), "the layer has 3 channels");
    refused(&case, &layer, Tensor::<1>::zeros([3], &device), "fewer than two dimensions");
    refused(&case, &layer, Tensor::<2>::zeros([4, 3], (&device, DType::F64)), "F64");
    refused(&case, &layer, Tensor::<2>::zeros([1, 3], &device), "more than one value per channel");
    refused(&case, &layer, Tensor::<2>::zeros([1, 3], &device).require_grad(), "more than one value per channel");
    assert!(frozen(layer).try_forward(Tensor::<2>::zeros([1, 3], &device)).is_ok());
}

#[test]
fn an_empty_batch_gives_an_empty_result_and_changes_no_statistics() {
    let case = Case::of(&[0, 3, 4, 4], 11);
    let results = run(&layer_of(&case, Config { p: 0.5, ..CONFIG }), &case);
    assert!(results.y.is_empty() && results.dx.is_empty());
    // Made by burn, and not of a vector of f32: its pointer need not be one to f32.
    let y = layer_of(&case, CONFIG).forward(Tensor::<4>::zeros([0, 3, 4, 4], &training()));
    assert_eq!(y.dims(), [0, 3, 4, 4]);
    assert_eq!([results.d_weight, results.d_bias], [[0.0; 3]; 2]);
    assert_eq!([results.running_mean, results.running_var], [case.running_mean, case.running_var]);
}

#[test]
fn constants_out_of_range_are_refused_where_the_layer_is_made() {
    for config in [
        Config { p: 1.5, ..CONFIG },
        Config { p: f64::NAN, ..CONFIG },
        Config { momentum: -0.1, ..CONFIG },
        Config { eps: 0.0, ..CONFIG },
        Config { eps: f32::INFINITY, ..CONFIG },
    ] {
        assert!(BatchNormDropout::new(3, config, SEED, &training()).is_err(), "{config:?}");
    }
}
