//! PReLU, whose slopes are learned.

#![no_main]

use libfuzzer_sys::fuzz_target;
use normdrop_fuzz::input::LayerInput;
use normdrop_fuzz::targets;

fuzz_target!(|input: LayerInput| targets::prelu(&input));
