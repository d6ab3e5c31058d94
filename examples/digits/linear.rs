//! The weight layer: plain matrix products, and the optimiser that moves what is learned.

use rand_xoshiro::Xoshiro128PlusPlus;
use rand_xoshiro::rand_core::Rng;

/// Learned numbers, their gradient and the averages of it.
#[derive(Clone)]
struct Parameter {
    value: Vec<f32>,
    gradient: Vec<f32>,
    averages: Averages,
}

impl Parameter {
    fn new(value: Vec<f32>) -> Self {
        Self { gradient: vec![0.0; value.len()], averages: Averages::new(value.len()), value }
    }

    fn borrow(&mut self) -> ParameterMut<'_> {
        ParameterMut { value: &mut self.value, gradient: &self.gradient, averages: &mut self.averages }
    }
}

/// The two averages that Adam keeps of a gradient.
#[derive(Clone)]
pub(crate) struct Averages {
    mean: Vec<f32>,
    mean_square: Vec<f32>,
}

impl Averages {
    pub(crate) fn new(len: usize) -> Self {
        Self { mean: vec![0.0; len], mean_square: vec![0.0; len] }
    }
}

/// Learned numbers as the optimiser sees them, wherever they are.
pub(crate) struct ParameterMut<'a> {
    pub(crate) value: &'a mut [f32],
    pub(crate) gradient: &'a [f32],
    pub(crate) averages: &'a mut Averages,
}

/// Adam with its published constants (Kingma and Ba 2015, algorithm 1).
pub(crate) struct Adam {
    rate: f32,
    /// `BETA^steps`: how much of the averages is still the zero that they started from.
    mean_start: f32,
    square_start: f32,
}

impl Adam {
    const BETA: (f32, f32) = (0.9, 0.999);
    const EPSILON: f32 = 1e-8;

    pub(crate) fn new(rate: f32) -> Self {
        Self { rate, mean_start: 1.0, square_start: 1.0 }
    }

    /// Begins the next step.
    pub(crate) fn advance(&mut self) {
        self.mean_start *= Self::BETA.0;
        self.square_start *= Self::BETA.1;
    }

    pub(crate) fn update(&self, parameter: ParameterMut<'_>) {
        let ParameterMut { value, gradient, averages: Averages { mean, mean_square } } = parameter;
        let (rate, correction) = (self.rate / (1.0 - self.mean_start), 1.0 / (1.0 - self.square_start));
        for (((value, &gradient), mean), square) in value.iter_mut().zip(gradient).zip(mean).zip(mean_square) {
            *mean = Self::BETA.0 * *mean + (1.0 - Self::BETA.0) * gradient;
            *square = Self::BETA.1 * *square + (1.0 - Self::BETA.1) * gradient * gradient;
            *value -= rate * *mean / ((*square * correction).sqrt() + Self::EPSILON);
        }
    }
}

/// `y = x*W + b`.
#[derive(Clone)]
pub(crate) struct Linear {
    /// `[inputs, outputs]`.
    weight: Parameter,
    bias: Parameter,
}

impl Linear {
    /// Random weights of variance `2 / inputs` (He et al. 2015), bias 0.
    pub(crate) fn new(inputs: usize, outputs: usize, rng: &mut Xoshiro128PlusPlus) -> Self {
        let bound = (6.0 / inputs as f32).sqrt();
        let weight = (0..inputs * outputs).map(|_| bound * (2.0 * uniform(rng) - 1.0)).collect();
        Self { weight: Parameter::new(weight), bias: Parameter::new(vec![0.0; outputs]) }
    }

    fn inputs(&self) -> usize {
        self.weight.value.len() / self.outputs()
    }

    fn outputs(&self) -> usize {
        self.bias.value.len()
    }

    pub(crate) fn forward(&self, x: &[f32]) -> Vec<f32> {
        let mut y = self.bias.value.repeat(x.len() / self.inputs());
        add_product(x, &self.weight.value, self.outputs(), &mut y);
        y
    }

    /// Sets the gradients of weight and bias: `xᵀ*dy` and the column sums of `dy`.
    pub(crate) fn backward(&mut self, x: &[f32], dy: &[f32]) {
        let (inputs, outputs) = (self.inputs(), self.outputs());
        self.weight.gradient.fill(0.0);
        add_product(&transposed(x, inputs), dy, outputs, &mut self.weight.gradient);
        self.bias.gradient.fill(0.0);
        for row in dy.chunks_exact(outputs) {
            add_scaled(1.0, row, &mut self.bias.gradient);
        }
    }

    /// The gradient of the input, `dy*Wᵀ`.
    pub(crate) fn grad_input(&self, dy: &[f32]) -> Vec<f32> {
        let mut dx = vec![0.0; dy.len() / self.outputs() * self.inputs()];
        add_product(dy, &transposed(&self.weight.value, self.outputs()), self.inputs(), &mut dx);
        dx
    }

    pub(crate) fn parameters(&mut self) -> [ParameterMut<'_>; 2] {
        [self.weight.borrow(), self.bias.borrow()]
    }

    /// Weights and bias, read.
    pub(crate) fn in_use(&self) -> [&[f32]; 2] {
        [&self.weight.value, &self.bias.value]
    }
}

/// A number in `[0, 1)` from 24 random bits, which an f32 holds exactly.
fn uniform(rng: &mut Xoshiro128PlusPlus) -> f32 {
    (rng.next_u32() >> 8) as f32 / (1 << 24) as f32
}

/// Adds the product of `a` and `b`, which has `columns` columns, to `c`; all row-major.
///
/// The innermost loop runs along rows, so that it vectorises and no sum is reordered; four rows of `b` at once, so
/// that `c` is read and written a quarter as often.
fn add_product(a: &[f32], b: &[f32], columns: usize, c: &mut [f32]) {
    let depth = b.len() / columns;
    for (a, c) in a.chunks_exact(depth).zip(c.chunks_exact_mut(columns)) {
        let (fours, rest) = a.as_chunks();
        let mut rows = b.chunks_exact(4 * columns);
        for (&[a0, a1, a2, a3], rows) in fours.iter().zip(&mut rows) {
            let (b0, rows) = rows.split_at(columns);
            let (b1, rows) = rows.split_at(columns);
            let (b2, b3) = rows.split_at(columns);
            for ((((c, b0), b1), b2), b3) in c.iter_mut().zip(b0).zip(b1).zip(b2).zip(b3) {
                *c = *c + a0 * b0 + a1 * b1 + a2 * b2 + a3 * b3;
            }
        }
        for (&a, b) in rest.iter().zip(rows.remainder().chunks_exact(columns)) {
            add_scaled(a, b, c);
        }
    }
}

fn add_scaled(factor: f32, x: &[f32], y: &mut [f32]) {
    for (y, &x) in y.iter_mut().zip(x) {
        *y += factor * x;
    }
}

/// The transpose of a matrix of `columns` columns.
fn transposed(matrix: &[f32], columns: usize) -> Vec<f32> {
    let rows = matrix.len() / columns;
    let mut transpose = vec![0.0; matrix.len()];
    for (row, values) in matrix.chunks_exact(columns).enumerate() {
        for (&value, transposed) in values.iter().zip(transpose.chunks_exact_mut(rows)) {
            transposed[row] = value;
        }
    }
    transpose
}
