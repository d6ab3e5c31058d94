//! The network and its numbers, as the example `digits` has trained and exported them.

use normdrop::{Config, Layer, Parameters, Relu, Running, Shape};

use crate::linear::Linear;

/// The pixels of an image, 8 by 8.
pub const PIXELS: usize = 64;
/// The hidden units.
pub const HIDDEN: usize = 32;
/// The digits 0 to 9.
pub const CLASSES: usize = 10;

/// Batch norm, ReLU and dropout of the hidden units for so many images at once. A layer that cannot exist does not compile.
pub const fn layer(images: usize) -> Layer<Relu> {
    match Shape::nc(images, HIDDEN) {
        Ok(shape) => match Layer::new(shape, Relu, Config { p: 0.2, ..Config::DEFAULT }) {
            Ok(layer) => layer,
            Err(_) => panic!("eps or p is out of range"),
        },
        Err(_) => panic!("the shape is too large"),
    }
}

/// Everything that was learned.
#[derive(Debug)]
pub struct Network {
    /// From the pixels to the hidden units.
    pub hidden: Linear<PIXELS, HIDDEN>,
    /// The batch norm of the hidden units.
    pub norm: BatchNorm,
    /// From the hidden units to the digits.
    pub output: Linear<HIDDEN, CLASSES>,
}

/// What a batch norm has learned.
#[derive(Debug, Clone, Copy)]
pub struct BatchNorm {
    /// The scale of each unit.
    pub weight: [f32; HIDDEN],
    /// The shift of each unit.
    pub bias: [f32; HIDDEN],
    /// The running mean of each unit.
    pub mean: [f32; HIDDEN],
    /// The running variance of each unit.
    pub var: [f32; HIDDEN],
}

impl BatchNorm {
    /// Scale and shift.
    pub fn parameters(&self) -> Parameters<'_> {
        Parameters { weight: Some(&self.weight), bias: Some(&self.bias) }
    }

    /// The running statistics.
    pub fn running(&self) -> Running<'_> {
        Running::new(&self.mean, &self.var)
    }
}

/// The trained network, in flash.
pub static TRAINED: Network = Network::from_bytes(include_bytes!("../trained/network.f32"));

impl Network {
    /// The numbers of a network, all of them.
    pub const LEN: usize = size_of::<Self>() / size_of::<f32>();

    /// A network that knows nothing.
    pub const fn zero() -> Self {
        Self {
            hidden: Linear::zero(),
            norm: BatchNorm { weight: [0.0; HIDDEN], bias: [0.0; HIDDEN], mean: [0.0; HIDDEN], var: [0.0; HIDDEN] },
            output: Linear::zero(),
        }
    }

    /// The network from its numbers, little-endian, in the order of the fields.
    const fn from_bytes(bytes: &[u8; 4 * Self::LEN]) -> Self {
        let numbers = &mut Numbers { bytes, read: 0 };
        Self {
            hidden: numbers.linear(),
            norm: BatchNorm { weight: numbers.next(), bias: numbers.next(), mean: numbers.next(), var: numbers.next() },
            output: numbers.linear(),
        }
    }

    /// Becomes the same as another, without a copy of it on the stack.
    pub fn copy_from(&mut self, other: &Self) {
        self.hidden.copy_from(&other.hidden);
        self.norm = other.norm;
        self.output.copy_from(&other.output);
    }

    /// All numbers, in the order of the file.
    pub fn numbers(&self) -> impl Iterator<Item = &f32> {
        let Self { hidden, norm, output } = self;
        let hidden = hidden.weight.as_flattened().iter().chain(&hidden.bias);
        let norm = norm.weight.iter().chain(&norm.bias).chain(&norm.mean).chain(&norm.var);
        hidden.chain(norm).chain(output.weight.as_flattened()).chain(&output.bias)
    }
}

/// Reads numbers while the program is compiled.
struct Numbers<'a> {
    bytes: &'a [u8],
    read: usize,
}

impl Numbers<'_> {
    const fn next<const N: usize>(&mut self) -> [f32; N] {
        let mut numbers = [0.0; N];
        let mut index = 0;
        while index < N {
            let at = self.read;
            let &[a, b, c, d] = &[self.bytes[at], self.bytes[at + 1], self.bytes[at + 2], self.bytes[at + 3]];
            numbers[index] = f32::from_le_bytes([a, b, c, d]);
            self.read += 4;
            index += 1;
        }
        numbers
    }

    const fn linear<const IN: usize, const OUT: usize>(&mut self) -> Linear<IN, OUT> {
        let mut weight = [[0.0; OUT]; IN];
        let mut input = 0;
        while input < IN {
            weight[input] = self.next();
            input += 1;
        }
        Linear { weight, bias: self.next() }
    }
}
