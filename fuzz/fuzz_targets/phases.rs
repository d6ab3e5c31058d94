//! A batch in parts, phase by phase.

#![no_main]

use libfuzzer_sys::fuzz_target;
use normdrop_fuzz::input::PhasesInput;
use normdrop_fuzz::targets;

fuzz_target!(|input: PhasesInput| targets::phases(&input));
