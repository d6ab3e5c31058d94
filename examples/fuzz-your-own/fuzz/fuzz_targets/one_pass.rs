//! The kernel with the variance in one pass: the fuzzer finds the mistake.

#![no_main]

use fuzz_your_own::{BOUNDS, Input, Kernel, check};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: Input| {
    if let Err(sentence) = check(Kernel::OnePass, &input.case(), &BOUNDS) {
        panic!("{sentence}");
    }
});
