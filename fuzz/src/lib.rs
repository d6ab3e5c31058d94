//! What the fuzz targets of `normdrop` share: structured inputs, buffers that a sanitizer watches, the calls on every
//! backend, and the comparison with the reference.

mod bounds;
mod buffer;
mod calls;
mod capi;
mod case;
mod constants;
pub mod encode;
mod folds;
mod gates;
mod guard;
mod halves;
pub mod input;
mod masks;
mod padded;
mod phases;
mod prelu;
pub mod seeds;
pub mod targets;
