//! One training step and one evaluation of a layer, on buffers of its caller: 4 samples of 3 channels.
//!
//! ```sh
//! cargo run --example smallest
//! ```

use normdrop::{
    Backward, Config, Error, Eval, Layer, ParameterGradients, Parameters, Relu, Running, RunningMut, SavedArrays,
    Shape, Statistics, Train,
};

fn main() -> Result<(), Error> {
    let layer = Layer::new(Shape::nc(4, 3)?, Relu, Config { p: 0.5, ..Config::DEFAULT })?;
    let x = [0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0, 10.0, 11.0];
    let parameters = Parameters::new(&[1.0; 3], &[0.0; 3]);
    let (mut running_mean, mut running_var, mut saved) = ([0.0; 3], [1.0; 3], SavedArrays::<3>::new());
    let (mut y, mut dx, mut d_weight, mut d_bias) = ([0.0; 12], [0.0; 12], [0.0; 3], [0.0; 3]);
    let (mut mask, mut scratch) = (vec![0; layer.mask_len()], vec![0.0; layer.scratch_len()]);

    let dropout = layer.fill_mask(42, &mut mask)?;
    let running = Some(RunningMut::new(&mut running_mean, &mut running_var));
    let call = Train::new(&x, &mut y, saved.as_mut(), &mut scratch);
    layer.train(Train { parameters, running, dropout, ..call })?;
    println!("y in training    {y:?}\nrunning mean     {running_mean:?}\nrunning variance {running_var:?}");

    // The gradient of the loss sum(y*y)/2 is y.
    layer.backward(Backward {
        parameters,
        dropout,
        grad_input: Some(&mut dx),
        grad_parameters: ParameterGradients::new(&mut d_weight, &mut d_bias),
        ..Backward::new(Statistics::Batch(saved.as_saved()), &x, &y, &mut scratch)
    })?;
    println!("dx {dx:?}\nd_weight {d_weight:?}\nd_bias   {d_bias:?}");

    let running = Running::new(&running_mean, &running_var);
    layer.eval(Eval { parameters, ..Eval::new(running, &x, &mut y, &mut scratch) })?;
    println!("y in evaluation  {y:?}");
    Ok(())
}
