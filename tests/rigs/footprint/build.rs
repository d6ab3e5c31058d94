//! The memory of QEMU's `mps2-an386` (ARM's FPGA image AN386, a Cortex-M4 with a single-precision FPU), for the linker.

use std::path::PathBuf;
use std::{env, fs};

const MEMORY: &str = "MEMORY
{
  FLASH : ORIGIN = 0x00000000, LENGTH = 4M
  RAM : ORIGIN = 0x20000000, LENGTH = 4M
}
";

fn main() {
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets OUT_DIR"));
    fs::write(out.join("memory.x"), MEMORY).expect("the folder of the build is there");
    println!("cargo:rerun-if-changed=build.rs");
    // The host has no use for the script of cortex-m-rt: clippy and the editor look at the package there.
    if env::var("CARGO_CFG_TARGET_OS").as_deref() == Ok("none") {
        println!("cargo:rustc-link-search={}", out.display());
        println!("cargo:rustc-link-arg-bins=-Tlink.x");
    }
}
