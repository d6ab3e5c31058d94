//! What the crate promises, promise by promise. One program, because the kernels are compiled again for every program
//! that uses them.

mod accuracy;
mod activations;
mod backends;
mod bounds;
mod conventions;
mod digest;
mod environment;
mod fold;
mod gates;
#[cfg(feature = "half-precision")]
mod half;
mod mask;
mod masked;
mod noise;
#[cfg(feature = "alloc")]
mod owned;
mod padding;
mod phases;
mod prelu;
mod prepared;
mod pytorch;
mod safety;
mod semantics;
mod stored;
mod support;
#[cfg(feature = "rayon")]
mod threads;
mod usage;
