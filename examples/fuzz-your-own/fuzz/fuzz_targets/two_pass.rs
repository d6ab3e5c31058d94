//! The kernel with the variance in two passes: the fuzzer finds nothing.

#![no_main]

use fuzz_your_own::{BOUNDS, Input, Kernel, check};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: Input| {
    if let Err(sentence) = check(Kernel::TwoPass, &input.case(), &BOUNDS) {
        panic!("{sentence}");
    }
});
