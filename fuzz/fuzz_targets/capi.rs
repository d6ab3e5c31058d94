//! The C interface, right and wrong.

#![no_main]

use libfuzzer_sys::fuzz_target;
use normdrop_fuzz::input::CapiInput;
use normdrop_fuzz::targets;

fuzz_target!(|input: CapiInput| targets::capi(&input));
