//! One training step and one evaluation of a layer, on buffers of its caller: 4 samples of 3 channels.
//!
//! ```sh
//! cargo run --example smallest
//! ```

use normdrop::{
    Backward, Config, Dropout, Error, Eval, Layer, ParameterGradients, Parameters, Relu, Running, RunningMut, Saved,
    SavedMut, Shape, Statistics, Train,
};

fn main() -> Result<(), Error> {
    let layer = Layer::new(Shape::nc(4, 3)?, Relu, Config { p: 0.5, ..Config::DEFAULT })?;
    let x = [0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0, 10.0, 11.0];
    let parameters = Parameters { weight: Some(&[1.0; 3]), bias: Some(&[0.0; 3]) };
    let (mut running_mean, mut running_var) = ([0.0; 3], [1.0; 3]);
    let (mut mean, mut mean_tail, mut inv_std) = ([0.0; 3], [0.0; 3], [0.0; 3]);
    let (mut y, mut dx, mut d_weight, mut d_bias) = ([0.0; 12], [0.0; 12], [0.0; 3], [0.0; 3]);
    let mut mask = vec![0; layer.mask_len()];
    let mut scratch = vec![0.0; layer.scratch_len()];

    layer.fill_mask(42, &mut mask)?;
    layer.train(Train {
        parameters,
        running: Some(RunningMut::new(&mut running_mean, &mut running_var)),
        dropout: Dropout::Mask(&mask),
        input: &x,
        residual: None,
        output: &mut y,
        saved: SavedMut { mean: &mut mean, mean_tail: &mut mean_tail, inv_std: &mut inv_std },
        scratch: &mut scratch,
    })?;
    println!("y in training    {y:?}\nrunning mean     {running_mean:?}\nrunning variance {running_var:?}");

    // The gradient of the loss sum(y*y)/2 is y.
    layer.backward(Backward {
        parameters,
        statistics: Statistics::Batch(Saved { mean: &mean, mean_tail: &mean_tail, inv_std: &inv_std }),
        dropout: Dropout::Mask(&mask),
        input: &x,
        residual: None,
        grad_output: &y,
        grad_input: Some(&mut dx),
        grad_residual: None,
        grad_parameters: ParameterGradients { weight: Some(&mut d_weight), bias: Some(&mut d_bias) },
        scratch: &mut scratch,
    })?;
    println!("dx {dx:?}\nd_weight {d_weight:?}\nd_bias   {d_bias:?}");

    layer.eval(Eval {
        parameters,
        running: Running::new(&running_mean, &running_var),
        dropout: Dropout::Off,
        input: &x,
        residual: None,
        output: &mut y,
        scratch: &mut scratch,
    })?;
    println!("y in evaluation  {y:?}");
    Ok(())
}
