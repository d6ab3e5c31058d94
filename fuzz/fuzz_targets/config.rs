//! A layer of any constants.

#![no_main]

use libfuzzer_sys::fuzz_target;
use normdrop_fuzz::input::ConfigInput;
use normdrop_fuzz::targets;

fuzz_target!(|input: ConfigInput| targets::config(&input));
