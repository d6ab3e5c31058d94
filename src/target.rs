//! A target on which the crate cannot keep its promises is refused at compile time.
//!
//! This file needs no other file and not even `core`. `.ci/targets` compiles it for every target
//! that the compiler knows and compares the refused targets with a list.

#[cfg(target_pointer_width = "16")]
compile_error!("normdrop needs a usize of at least 32 bits");

// UEFI of 32 bits uses integer registers alone. It computes floats in software, by the rules of
// IEEE 754.
#[cfg(all(target_arch = "x86", not(target_feature = "sse2"), not(target_os = "uefi")))]
compile_error!(
    "normdrop promises the same bits on every target, and the x87 unit rounds f32 and f64 otherwise (80 bits in its \
     registers): build for a target with SSE2, such as i686-unknown-linux-gnu instead of i586-unknown-linux-gnu"
);

// The e500 core family reference manual says of embedded floating point: without the software that
// may assist it, the unit takes a subnormal number for 0, and an infinity or a NaN for the largest
// finite number.
#[cfg(all(target_arch = "powerpc", target_abi = "spe"))]
compile_error!(
    "normdrop promises the same bits on every target, and the floats of the signal processing engine (SPE) have neither \
     subnormal numbers nor infinities: build for powerpc-unknown-linux-gnu"
);
