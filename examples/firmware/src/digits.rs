//! The images: handwritten digits that the network was not trained on.

use crate::linear::Activation;
use crate::network::PIXELS;

/// An image and what it shows.
#[derive(Debug, Clone, Copy)]
pub struct Digit {
    ink: &'static [u8; PIXELS],
    /// The digit that it shows.
    pub label: u8,
}

/// How the camera hangs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Camera {
    /// As it did when the network was trained.
    Upright,
    /// Turned by 90 degrees.
    Turned,
}

/// Pixels from 0 to 16, then the digit; as `cargo run --release -p digits -- --export FOLDER` writes them.
static FILE: &[u8] = include_bytes!("../trained/digits.u8");

/// All images.
pub fn all() -> impl ExactSizeIterator<Item = Digit> + Clone {
    let (digits, _) = FILE.as_chunks::<{ PIXELS + 1 }>();
    digits.iter().map(|[ink @ .., label]| Digit { ink, label: *label })
}

impl Digit {
    /// What the camera sees, from 0 for paper to 1 for ink: numbers of four bits, which a half has as they are.
    pub fn pixels<E: Activation>(&self, camera: Camera, pixels: &mut [E; PIXELS]) {
        let (rows, _) = self.ink.as_chunks::<8>();
        let (seen, _) = pixels.as_chunks_mut::<8>();
        for (y, row) in rows.iter().enumerate() {
            match camera {
                Camera::Upright => {
                    for (pixel, &ink) in seen.iter_mut().skip(y).take(1).flatten().zip(row) {
                        *pixel = E::nearest(f32::from(ink) / 16.0);
                    }
                }
                Camera::Turned => {
                    // A row from left to right is a column from top to bottom, the first row the last column.
                    for (pixel, &ink) in seen.iter_mut().filter_map(|row| row.iter_mut().rev().nth(y)).zip(row) {
                        *pixel = E::nearest(f32::from(ink) / 16.0);
                    }
                }
            }
        }
    }
}
