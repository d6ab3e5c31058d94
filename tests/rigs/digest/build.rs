//! The memory of the emulated machines, for the linker.

use std::path::PathBuf;
use std::{env, fs};

/// nRF51 of the micro:bit.
const MICROBIT: &str = "MEMORY
{
  FLASH : ORIGIN = 0x00000000, LENGTH = 256K
  RAM : ORIGIN = 0x20000000, LENGTH = 16K
}
";

/// ARM's FPGA images AN385, AN386 and AN500.
const MPS2: &str = "MEMORY
{
  FLASH : ORIGIN = 0x00000000, LENGTH = 4M
  RAM : ORIGIN = 0x20000000, LENGTH = 4M
}
";

/// ARM's FPGA image AN505, secure.
const MPS2_TRUSTZONE: &str = "MEMORY
{
  FLASH : ORIGIN = 0x10000000, LENGTH = 4M
  RAM : ORIGIN = 0x38000000, LENGTH = 4M
}
";

/// ARM's FPGA image AN547: the memory beside the core for the program, the board's for data.
const MPS3: &str = "MEMORY
{
  FLASH : ORIGIN = 0x00000000, LENGTH = 512K
  RAM : ORIGIN = 0x60000000, LENGTH = 4M
}
";

/// QEMU's `virt`.
const RISCV: &str = "MEMORY
{
  RAM : ORIGIN = 0x80000000, LENGTH = 32M
}
REGION_ALIAS(\"REGION_TEXT\", RAM);
REGION_ALIAS(\"REGION_RODATA\", RAM);
REGION_ALIAS(\"REGION_DATA\", RAM);
REGION_ALIAS(\"REGION_BSS\", RAM);
REGION_ALIAS(\"REGION_HEAP\", RAM);
REGION_ALIAS(\"REGION_STACK\", RAM);
";

/// A PC that is started as a Xen guest is, at the entry that the note names: the whole script, because no crate brings one.
const PC: &str = "ENTRY(start)
SECTIONS
{
  . = 1M;
  .note.pvh : { KEEP(*(.note.pvh)) }
  .text : { *(.text .text.*) }
  .rodata : { *(.rodata .rodata.*) }
  .data : { *(.data .data.*) }
  .bss : { *(.bss .bss.*) *(COMMON) }
  /DISCARD/ : { *(.eh_frame .eh_frame_hdr .comment) }
}
";

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    let target = env::var("TARGET").expect("cargo sets TARGET");
    // The host needs no script: clippy and the editor look at the package there.
    if env::var("CARGO_CFG_TARGET_OS").as_deref() != Ok("none") {
        return;
    }
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets OUT_DIR"));
    println!("cargo:rustc-link-search={}", out.display());
    if target.starts_with("x86_64") {
        fs::write(out.join("pc.x"), PC).expect("the folder of the build is there");
        println!("cargo:rustc-link-arg-bins=-Tpc.x");
        return;
    }
    let flags = env::var("CARGO_ENCODED_RUSTFLAGS").unwrap_or_default();
    let memory = match target.split('-').next() {
        Some("thumbv6m") if env::var_os("CARGO_FEATURE_MICROBIT").is_some() => MICROBIT,
        Some("thumbv6m" | "thumbv7m" | "thumbv7em") => MPS2,
        Some("thumbv8m.main") if flags.contains("cortex-m55") => MPS3,
        Some("thumbv8m.main") => MPS2_TRUSTZONE,
        Some(arch) if arch.starts_with("riscv") => RISCV,
        _ => panic!("no machine is known for {target}"),
    };
    fs::write(out.join("memory.x"), memory).expect("the folder of the build is there");
    println!("cargo:rustc-link-arg-bins=-Tlink.x");
}
