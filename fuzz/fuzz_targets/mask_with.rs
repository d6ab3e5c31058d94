//! Masks of a caller's own generator.

#![no_main]

use libfuzzer_sys::fuzz_target;
use normdrop_fuzz::input::MaskWithInput;
use normdrop_fuzz::targets;

fuzz_target!(|input: MaskWithInput| targets::mask_with(&input));
