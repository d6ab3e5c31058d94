//! The memory of the microcontrollers, for the linker.

use std::path::PathBuf;
use std::{env, fs};

/// nRF51 of the micro:bit.
const MICROBIT: &str = "MEMORY
{
  FLASH : ORIGIN = 0x00000000, LENGTH = 256K
  RAM : ORIGIN = 0x20000000, LENGTH = 16K
}
";

/// ARM's FPGA image AN386 has 4 MiB of each; here as much as the smaller chips with this CPU have.
const CORTEX_M4F: &str = "MEMORY
{
  FLASH : ORIGIN = 0x00000000, LENGTH = 256K
  RAM : ORIGIN = 0x20000000, LENGTH = 64K
}
";

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    let target = env::var("TARGET").expect("cargo sets TARGET");
    // The host needs no script.
    if env::var("CARGO_CFG_TARGET_OS").as_deref() != Ok("none") {
        return;
    }
    let memory = match target.split('-').next() {
        Some("thumbv6m") => MICROBIT,
        Some("thumbv7em") => CORTEX_M4F,
        _ => panic!("no machine is known for {target}"),
    };
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets OUT_DIR"));
    fs::write(out.join("memory.x"), memory).expect("the folder of the build is there");
    println!("cargo:rustc-link-search={}", out.display());
    println!("cargo:rustc-link-arg-bins=-Tlink.x");
}
