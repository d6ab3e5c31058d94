//! Weight layers in plain loops: one order of all sums, and nothing fused.

use normdrop::{Bf16, Element};

/// How activations are stored. Sums of them are f32, and are rounded once when they are stored.
pub trait Activation: Element + Into<f32> {
    /// Zero.
    const ZERO: Self;

    /// The number nearest to `value`.
    fn nearest(value: f32) -> Self;
}

impl Activation for f32 {
    const ZERO: Self = 0.0;

    fn nearest(value: f32) -> Self {
        value
    }
}

impl Activation for Bf16 {
    const ZERO: Self = Self::ZERO;

    fn nearest(value: f32) -> Self {
        Self::from_f32(value)
    }
}

/// `y = x*W + b`.
#[derive(Debug)]
pub struct Linear<const IN: usize, const OUT: usize> {
    /// A row for each input.
    pub weight: [[f32; OUT]; IN],
    /// One for each output.
    pub bias: [f32; OUT],
}

impl<const IN: usize, const OUT: usize> Linear<IN, OUT> {
    /// All zero.
    pub const fn zero() -> Self {
        Self { weight: [[0.0; OUT]; IN], bias: [0.0; OUT] }
    }

    /// Becomes the same as another, without a copy of it on the stack.
    pub fn copy_from(&mut self, other: &Self) {
        let Self { weight, bias } = self;
        (*weight, *bias) = (other.weight, other.bias);
    }

    /// Becomes all zero.
    pub fn clear(&mut self) {
        self.weight.as_flattened_mut().fill(0.0);
        self.bias.fill(0.0);
    }

    /// The output for one input.
    pub fn forward(&self, x: &[impl Activation; IN], y: &mut [f32; OUT]) {
        *y = self.bias;
        for (&x, weight) in x.iter().zip(&self.weight) {
            add_scaled(x.into(), weight, y);
        }
    }

    /// Adds the gradients of weight and bias for one input to `gradient`.
    pub fn add_gradient(x: &[impl Activation; IN], dy: &[impl Activation; OUT], gradient: &mut Self) {
        for (&x, gradient) in x.iter().zip(&mut gradient.weight) {
            add_scaled(x.into(), dy, gradient);
        }
        add_scaled(1.0, dy, &mut gradient.bias);
    }

    /// The gradient of one input.
    pub fn grad_input<E: Activation>(&self, dy: &[f32; OUT], dx: &mut [E; IN]) {
        for (dx, weight) in dx.iter_mut().zip(&self.weight) {
            let mut sum = 0.0;
            for (&weight, &dy) in weight.iter().zip(dy) {
                sum += weight * dy;
            }
            *dx = E::nearest(sum);
        }
    }

    /// Goes down the gradient.
    pub fn descend(&mut self, rate: f32, gradient: &Self) {
        add_scaled(-rate, gradient.weight.as_flattened(), self.weight.as_flattened_mut());
        add_scaled(-rate, &gradient.bias, &mut self.bias);
    }
}

/// `y += factor*x`.
pub fn add_scaled(factor: f32, x: &[impl Activation], y: &mut [f32]) {
    for (y, &x) in y.iter_mut().zip(x) {
        let x: f32 = x.into();
        *y += factor * x;
    }
}
