//! Backward in place.

#![no_main]

use libfuzzer_sys::fuzz_target;
use normdrop_fuzz::input::LayerInput;
use normdrop_fuzz::targets;

fuzz_target!(|input: LayerInput| targets::backward_in_place(&input));
