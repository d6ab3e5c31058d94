//! What burn's own batch norm and dropout do where one might expect something else; the README has the list. A test that fails
//! here says that burn has changed and the list must, too.

#[path = "../../shared/channel.rs"]
mod channel;

use std::panic::{AssertUnwindSafe, catch_unwind};

use burn::module::{Module, RunningState};
use burn::nn::{BatchNorm, BatchNormConfig, DropoutConfig};
use burn::tensor::{Device, Tensor, TensorData};
use normdrop::{Config, RunningVariance};
use normdrop_burn::BatchNormDropout;

use channel::{normal, normalised};

fn device() -> Device {
    Device::flex().autodiff()
}

fn own(channels: usize) -> BatchNorm {
    BatchNormConfig::new(channels).init(&device())
}

fn ours(channels: usize, config: Config) -> BatchNormDropout {
    BatchNormDropout::new(channels, config, 0, &device()).expect("the constants are in range")
}

fn column(values: &[f32]) -> Tensor<2> {
    Tensor::from_data(TensorData::new(values.to_vec(), [values.len(), 1]), &device())
}

fn flat<const D: usize>(tensor: Tensor<D>) -> Vec<f32> {
    tensor.into_data().try_to_vec().expect("f32")
}

fn running(norm: &BatchNorm) -> [f32; 2] {
    [flat(norm.running_mean.value_sync())[0], flat(norm.running_var.value_sync())[0]]
}

fn running_of(layer: &BatchNormDropout) -> [f32; 2] {
    [flat(layer.running_mean.value_sync())[0], flat(layer.running_var.value_sync())[0]]
}

/// The largest absolute errors of a training call on one channel, burn's and the layer's. With the layer, what ReLU lets through.
fn largest_errors(x: &[f32]) -> [f64; 2] {
    let largest = |y: Vec<f32>, least: f64| {
        y.iter().zip(normalised(x)).map(|(&y, exact)| (f64::from(y) - exact.max(least)).abs()).fold(0.0, f64::max)
    };
    let own = flat(own(1).forward(column(x)));
    let ours = flat(ours(1, Config::DEFAULT).forward(column(x)));
    [largest(own, f64::NEG_INFINITY), largest(ours, 0.0)]
}

#[test]
fn dropout_with_p_1_is_refused_where_it_is_made_and_nan_where_it_is_set() {
    assert!(catch_unwind(|| DropoutConfig::new(1.0).init()).is_err());
    let mut dropout = DropoutConfig::new(0.5).init();
    dropout.prob = 1.0;
    assert!(flat(dropout.forward(Tensor::<1>::ones([64], &device()))).iter().all(|value| value.is_nan()));
}

#[test]
fn dropout_turns_a_dropped_infinity_into_nan() {
    let infinite = Tensor::<1>::full([4096], f32::INFINITY, &device());
    let dropped = flat(DropoutConfig::new(0.5).init().forward(infinite));
    assert!(dropped.iter().any(|value| value.is_nan()));
    let y = ours(1, Config { p: 1.0, ..Config::DEFAULT }).forward(column(&[f32::NAN; 8]));
    assert!(flat(y).iter().all(|value| value.to_bits() == 0));
}

#[test]
fn the_running_variance_is_biased() {
    let x = column(&[1.0, 3.0]); // biased 1, unbiased 2
    let norm = own(1);
    norm.forward(x.clone());
    assert_eq!(running(&norm), [0.2, 1.0]);
    let layer = ours(1, Config::DEFAULT);
    let _ = layer.forward(x.clone());
    assert_eq!(running_of(&layer), [0.2, 1.1]);
    let layer = ours(1, Config { running_var: RunningVariance::Biased, ..Config::DEFAULT });
    let _ = layer.forward(x);
    assert_eq!(running_of(&layer), [0.2, 1.0]);
}

#[test]
fn a_batch_of_one_is_no_error_and_shrinks_the_running_variance() {
    let norm = own(1);
    for _ in 0..100 {
        assert_eq!(flat(norm.forward(column(&[3.0]))), [0.0]);
    }
    let [_, var] = running(&norm);
    assert!(var < 3e-5, "{var}");

    let layer = ours(1, Config::DEFAULT);
    assert!(layer.try_forward(column(&[3.0])).is_err());
    assert_eq!(running_of(&layer), [0.0, 1.0]);
}

#[test]
fn an_empty_batch_turns_the_running_statistics_into_nan() {
    let norm = own(1);
    let result = catch_unwind(AssertUnwindSafe(|| norm.forward(column(&[]))));
    assert!(result.is_ok());
    assert!(running(&norm).iter().all(|value| value.is_nan()));

    let layer = ours(1, Config::DEFAULT);
    let _ = layer.forward(column(&[]));
    assert_eq!(running_of(&layer), [0.0, 1.0]);
}

#[test]
fn data_far_from_zero_is_normalised_wrongly() {
    for (mean, at_least) in [(1e4, 1e-4), (1e6, 1e-3)] {
        let [own, ours] = largest_errors(&normal(1 << 16, mean));
        println!("mean {mean:e}: burn {own:e}, normdrop {ours:e}");
        assert!(own > at_least, "mean {mean:e}: {own:e}");
        assert!(ours < 2e-6, "mean {mean:e}: {ours:e}");
    }
}

#[test]
fn many_values_a_channel_of_data_far_from_zero_have_no_variance_to_speak_of() {
    let [own, ours] = largest_errors(&normal(1 << 20, 1e6));
    println!("burn {own:e}, normdrop {ours:e}");
    assert!(own > 1.0, "{own:e}");
    assert!(ours < 2e-6, "{ours:e}");
}

#[test]
fn a_constant_channel_is_not_the_bias() {
    let x = [0.1f32; 4099];
    let [own, ours] = largest_errors(&x);
    println!("burn {own:e}, normdrop {ours:e}");
    assert!(own > 0.0);
    assert_eq!(ours, 0.0);
}

#[test]
fn large_finite_values_come_out_as_zeros() {
    let x = [1e30f32, -1e30, 2e30, -2e30];
    assert!(flat(own(1).forward(column(&x))).iter().all(|&value| value == 0.0));
    let [_, ours] = largest_errors(&x);
    assert!(ours < 1e-6, "{ours}");
}

#[test]
fn momentum_1_does_not_replace_a_nan() {
    let nan = || RunningState::new(Tensor::<1>::full([1], f32::NAN, &device()));
    let mut norm = BatchNormConfig::new(1).with_momentum(1.0).init(&device());
    norm.running_mean = nan();
    norm.forward(column(&[1.0, 3.0]));
    assert!(running(&norm)[0].is_nan());

    let mut layer = ours(1, Config { momentum: 1.0, ..Config::DEFAULT });
    layer.running_mean = nan();
    let _ = layer.forward(column(&[1.0, 3.0]));
    assert_eq!(running_of(&layer), [2.0, 2.0]);
}

#[test]
fn a_frozen_batch_norm_evaluates_without_the_last_step() {
    let x = column(&[1.0, 3.0]);
    let norm = own(1);
    norm.forward(x.clone());
    let stale = flat(norm.clone().freeze().forward(x.clone()));
    let fresh = flat(norm.valid().forward(x.clone().inner()));
    assert_ne!(stale, fresh);
    assert_eq!(stale, flat(own(1).freeze().forward(x.clone())), "as if there had been no step");

    let layer = ours(1, Config::DEFAULT);
    let _ = layer.forward(x.clone());
    assert_eq!(flat(layer.clone().freeze().forward(x.clone())), flat(layer.valid().forward(x.inner())));
}

#[test]
fn a_wrong_shape_is_a_panic() {
    let norm = own(3);
    assert!(catch_unwind(AssertUnwindSafe(|| norm.forward(Tensor::<2>::zeros([4, 5], &device())))).is_err());
    assert!(ours(3, Config::DEFAULT).try_forward(Tensor::<2>::zeros([4, 5], &device())).is_err());
}
