//! Every constructor of a shape, and a layer of each.

#![no_main]

use libfuzzer_sys::fuzz_target;
use normdrop_fuzz::input::ShapeInput;
use normdrop_fuzz::targets;

fuzz_target!(|input: ShapeInput| targets::shape(&input));
