//! Weight layers in plain loops: one order of all sums, and nothing fused.

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
    pub fn forward(&self, x: &[f32; IN], y: &mut [f32; OUT]) {
        *y = self.bias;
        for (&x, weight) in x.iter().zip(&self.weight) {
            add_scaled(x, weight, y);
        }
    }

    /// Adds the gradients of weight and bias for one input to `gradient`.
    pub fn add_gradient(x: &[f32; IN], dy: &[f32; OUT], gradient: &mut Self) {
        for (&x, gradient) in x.iter().zip(&mut gradient.weight) {
            add_scaled(x, dy, gradient);
        }
        add_scaled(1.0, dy, &mut gradient.bias);
    }

    /// The gradient of one input.
    pub fn grad_input(&self, dy: &[f32; OUT], dx: &mut [f32; IN]) {
        for (dx, weight) in dx.iter_mut().zip(&self.weight) {
            *dx = 0.0;
            for (&weight, &dy) in weight.iter().zip(dy) {
                *dx += weight * dy;
            }
        }
    }

    /// Goes down the gradient.
    pub fn descend(&mut self, rate: f32, gradient: &Self) {
        add_scaled(-rate, gradient.weight.as_flattened(), self.weight.as_flattened_mut());
        add_scaled(-rate, &gradient.bias, &mut self.bias);
    }
}

/// `y += factor*x`.
pub fn add_scaled(factor: f32, x: &[f32], y: &mut [f32]) {
    for (y, &x) in y.iter_mut().zip(x) {
        *y += factor * x;
    }
}
