//! A batch norm in C against the reference of normdrop.
//!
//! [`Input`] is what a fuzzer or a property test draws, [`check`] what it has to find a mistake with.

mod kernel;

use normdrop_reference::case::{Case, Errors, Output};
use normdrop_reference::classes::{CLASSES, Class};
use normdrop_reference::errors::{Bounds, Differentiated};
use normdrop_reference::layer::Shape;

pub use crate::kernel::Kernel;

/// A problem in five small numbers, each of them valid. So no input of a fuzzer is wasted, and one that fails can be
/// written down.
#[derive(Debug, Clone, Copy, arbitrary::Arbitrary)]
pub struct Input {
    /// The samples, up to 256.
    pub outer: u8,
    /// The channels, up to 4.
    pub channels: u8,
    /// The positions of a sample, up to 16.
    pub inner: u8,
    /// The kind of data; channel after channel takes the next one.
    pub class: u8,
    /// The seed of the data.
    pub seed: u16,
}

impl Input {
    /// What the kernel is given.
    #[must_use]
    pub fn case(self) -> Case {
        let shape = Shape {
            outer: usize::from(self.outer) + 1,
            channels: usize::from(self.channels % 4) + 1,
            inner: usize::from(self.inner % 16) + 1,
        };
        // This kernel promises nothing for NaN and infinities. A class for each channel, in turn, from the first one on.
        let classes: Vec<Class> = CLASSES.iter().copied().filter(|class| class.finite).collect();
        let first = usize::from(self.class) % classes.len();
        let classes: Vec<Class> = classes.iter().cycle().skip(first).take(shape.channels).copied().collect();
        Case::new(shape, &classes, self.seed.into())
    }
}

/// What a kernel is held to: a relative error of 6e-5, which 4096 values added up in f32 keep and no wrong formula does. The
/// kernel without the mistake keeps what normdrop promises of itself, too:
/// [`PROMISE`](normdrop_reference::errors::PROMISE).
pub const BOUNDS: Bounds = Bounds::all(1000.0);

/// Runs a kernel and compares all that it has written with what it should have.
///
/// # Errors
/// A sentence about the first result that is out of bounds.
pub fn check(kernel: Kernel, case: &Case, bounds: &Bounds) -> Result<Errors, String> {
    let made = kernel.run(case);
    case.check(
        Output {
            statistics: Some((&made.mean, &made.var)),
            y: Some(&made.y),
            gradients: Some(Differentiated {
                dx: &made.dx,
                d_residual: &[],
                d_weight: &made.d_weight,
                d_bias: &made.d_bias,
            }),
            z: None,
        },
        bounds,
    )
}
