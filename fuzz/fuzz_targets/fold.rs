//! Batch norm folded into weights.

#![no_main]

use libfuzzer_sys::fuzz_target;
use normdrop_fuzz::input::FoldInput;
use normdrop_fuzz::targets;

fuzz_target!(|input: FoldInput| targets::fold(&input));
