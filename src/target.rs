//! Targets on which the promises cannot be kept are refused when they are compiled.
//!
//! This file is complete in itself and needs not even `core`: `.ci/targets` compiles it for every target that the compiler
//! knows and compares the ones that are refused with a list.

#[cfg(target_pointer_width = "16")]
compile_error!("normdrop needs a usize of at least 32 bits");

// UEFI of 32 bits is made for integer registers alone: its floats are computed in software, by the rules.
#[cfg(all(target_arch = "x86", not(target_feature = "sse2"), not(target_os = "uefi")))]
compile_error!(
    "normdrop promises the same bits on every target, and the x87 unit rounds f32 and f64 otherwise (80 bits in its \
     registers): build for a target with SSE2, such as i686-unknown-linux-gnu instead of i586-unknown-linux-gnu"
);

// The e500 core family reference manual, on embedded floating point: without the software that may assist it, the unit takes
// subnormal numbers for 0, and infinities and NaN for the largest finite number.
#[cfg(all(target_arch = "powerpc", target_abi = "spe"))]
compile_error!(
    "normdrop promises the same bits on every target, and the floats of the signal processing engine (SPE) have neither \
     subnormal numbers nor infinities: build for powerpc-unknown-linux-gnu"
);
