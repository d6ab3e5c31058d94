//! Learns to tell two spirals apart, 2-64-64-1: `cargo run --release --features alloc --example mlp`
use normdrop::{BatchNormDropout, Config, Error, Relu, Shape, seed_for};

/// A weight layer without a bias, because batch norm has one: `inputs` and the weights `[outputs, inputs]`.
struct Linear(usize, Vec<f32>);

impl Linear {
    fn new(inputs: usize, outputs: usize) -> Self {
        let weight = |i: usize| ((i * 7919 % 1009) as f32 / 1009.0 - 0.5) * (12.0 / inputs as f32).sqrt();
        Self(inputs, (1..=inputs * outputs).map(weight).collect())
    }
    fn forward(&self, x: &[f32]) -> Vec<f32> {
        let dot = |x: &[f32], weight: &[f32]| x.iter().zip(weight).map(|(x, w)| x * w).sum();
        x.chunks(self.0).flat_map(|x| self.1.chunks(self.0).map(move |weight| dot(x, weight))).collect()
    }
    /// Moves the weights against their gradient and returns the gradient of `x`.
    fn backward(&mut self, x: &[f32], dy: &[f32], rate: f32) -> Vec<f32> {
        let (inputs, weight, mut dx) = (self.0, self.1.clone(), vec![0.0; x.len()]);
        for (i, dy) in dy.iter().enumerate() {
            let (row, output) = (i * inputs / weight.len() * inputs, i * inputs % weight.len());
            for k in 0..inputs {
                dx[row + k] += dy * weight[output + k];
                self.1[output + k] -= rate * dy * x[row + k];
            }
        }
        dx
    }
}

fn main() -> Result<(), Error> {
    let sign = |i: usize| if i.is_multiple_of(2) { 1.0 } else { -1.0 }; // the spiral of point i
    let place = |i: usize, r: f32| [sign(i) * r * r.cos(), sign(i) * r * r.sin()];
    let x: Vec<f32> = (0..400).flat_map(|i| place(i, 0.5 + i as f32 / 50.0)).collect();
    let (shape, config, rate) = (Shape::nc(400, 64)?, Config { p: 0.1, ..Config::DEFAULT }, 0.1);
    let mut norms = [BatchNormDropout::new(64, Relu, config)?, BatchNormDropout::new(64, Relu, config)?];
    let (mut linears, mut last) = ([Linear::new(2, 64), Linear::new(64, 64)], Linear::new(64, 1));
    for step in 0..=600 {
        let (mut inputs, mut values) = (vec![x.clone()], vec![0.0; shape.len()]);
        for layer in 0..2 {
            let (z, seed) = (linears[layer].forward(&inputs[layer]), seed_for(42, layer as u64, step, 0));
            norms[layer].train(shape, seed, &z, &mut values)?;
            inputs.push(values.clone());
        }
        let y = last.forward(&values);
        let right = y.iter().enumerate().filter(|&(i, y)| y * sign(i) > 0.0).count();
        if step % 100 == 0 {
            println!("step {step}: {right} of 400 points right, with dropout");
        }
        let dy: Vec<f32> = y.iter().enumerate().map(|(i, y)| (y - sign(i)) / 400.0).collect();
        let (mut gradient, mut dz) = (last.backward(&values, &dy, rate), vec![0.0; shape.len()]);
        for layer in [1, 0] {
            norms[layer].backward(&gradient, &mut dz)?;
            for (values, gradients) in norms[layer].parameters_mut() {
                values.iter_mut().zip(gradients).for_each(|(value, gradient)| *value -= rate * gradient);
            }
            gradient = linears[layer].backward(&inputs[layer], &dz, rate);
        }
    }
    Ok(())
}
