//! Masks of a seed.

#![no_main]

use libfuzzer_sys::fuzz_target;
use normdrop_fuzz::input::MaskInput;
use normdrop_fuzz::targets;

fuzz_target!(|input: MaskInput| targets::mask(&input));
