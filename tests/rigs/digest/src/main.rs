//! Prints a digest of every public call, computed on this very target, as `tests/digest.txt` has them.
//!
//! The same program everywhere, without std: on Linux with a few functions of C, on bare metal and under UEFI in an emulator that passes
//! text on, in WebAssembly with one function of the host's.
#![no_std]
#![no_main]

#[cfg_attr(target_os = "linux", path = "platform/linux.rs")]
#[cfg_attr(all(target_os = "none", not(target_arch = "x86_64")), path = "platform/bare.rs")]
#[cfg_attr(any(all(target_os = "none", target_arch = "x86_64"), target_os = "uefi"), path = "platform/pc.rs")]
#[cfg_attr(target_family = "wasm", path = "platform/wasm.rs")]
mod platform;

use core::fmt::Write;

use digest::corpus::{self, Corpus, Data, Failure, Small};
use normdrop::Backend;

#[cfg(not(feature = "small"))]
static mut MEMORY: corpus::LargeMemory = corpus::LargeMemory::new();
#[cfg(feature = "small")]
static mut MEMORY: corpus::SmallMemory = corpus::SmallMemory::new();

/// [`Small`], with every activation or with two: that is built in a fraction of the time.
struct Chosen;

impl Corpus for Chosen {
    const NAME: &'static str = Small::NAME;
    const SHAPES: &'static [[usize; 3]] = Small::SHAPES;
    const LARGE_SHAPES: &'static [[usize; 3]] = Small::LARGE_SHAPES;
    const MASKED_SHAPES: &'static [[usize; 3]] = Small::MASKED_SHAPES;
    const DATA: &'static [Data] = Small::DATA;
    const EVERY_ACTIVATION: bool = !cfg!(feature = "few");
    #[cfg(feature = "half-precision")]
    const HALVES: bool = false;
}

/// The whole program, for whatever starts it.
fn run(out: &mut impl Write) -> Result<(), Failure> {
    writeln!(out, "# backend: {}", Backend::detect().name())?;
    let memory = &raw mut MEMORY;
    // SAFETY: the program has one thread, and its start calls this function once.
    let memory = unsafe { &mut *memory };
    memory.run::<Chosen>(None, out)?;
    #[cfg(not(feature = "small"))]
    memory.run::<corpus::Large>(None, out)?;
    Ok(())
}
