//! Every public call of `normdrop` behind a C function, with arguments that the compiler knows nothing about.
//!
//! It is built to be looked at, not to be used: `.ci/panic-free` links the static library, keeps what these functions
//! reach and fails if a panic or an allocation is among it. Lengths, shapes, constants and options all come from
//! outside, so the compiler can leave out a check only where the crate itself has made it unnecessary.
//!
//! What is not here: `Display` and `Debug`, which are the formatting of `core`, and `core` may panic in it.
#![no_std]

use core::panic::PanicInfo;

#[cfg(not(feature = "self-test"))]
mod calls;

unsafe extern "C" {
    /// Defined nowhere: a library that can reach it shows it as undefined.
    fn normdrop_can_panic() -> !;
}

#[panic_handler]
fn panic(_: &PanicInfo<'_>) -> ! {
    // SAFETY: never called; that it is not even linked is what this library is for.
    unsafe { normdrop_can_panic() }
}

/// An index that may be out of bounds, in place of all calls: the check must refuse it.
#[cfg(feature = "self-test")]
#[unsafe(no_mangle)]
pub extern "C" fn normdrop_self_test(values: &[f32; 16], index: usize) -> f32 {
    values[index]
}
