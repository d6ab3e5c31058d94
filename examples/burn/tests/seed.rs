//! How far burn's dropout can be seeded. A program of its own: the generator belongs to the process, so any other test would
//! change what this one sees.

use burn::nn::DropoutConfig;
use burn::tensor::{Device, Distribution, Tensor};
use normdrop::Config;
use normdrop_burn::BatchNormDropout;

fn flat<const D: usize>(tensor: Tensor<D>) -> Vec<f32> {
    tensor.into_data().try_to_vec().expect("f32")
}

#[test]
fn a_mask_depends_on_every_random_number_drawn_before_it_in_the_process() {
    let device = Device::flex().autodiff();
    let dropped = || flat(DropoutConfig::new(0.5).init().forward(Tensor::<1>::ones([4096], &device)));
    device.seed(42);
    let first = dropped();
    device.seed(42);
    assert_eq!(dropped(), first, "the seed does decide, as long as nobody else draws");

    device.seed(42);
    let _ = Tensor::<1>::random([1], Distribution::Default, &device);
    assert_ne!(dropped(), first, "one number drawn elsewhere");

    let layer = BatchNormDropout::new(64, Config { p: 0.5, ..Config::DEFAULT }, 42, &device).expect("in range");
    let x = Tensor::<2>::random([64, 64], Distribution::Normal(0.0, 1.0), &device);
    let first = flat(layer.forward(x.clone()));
    layer.set_step(0);
    let _ = Tensor::<1>::random([1], Distribution::Default, &device);
    assert_eq!(flat(layer.forward(x)), first);
}
