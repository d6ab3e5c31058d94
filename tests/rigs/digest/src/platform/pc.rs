//! A PC without an operating system, bare or under UEFI: text and exit status by two ports that QEMU has.
//!
//! Floats are computed in software there. Bare, no vector register can be used at all: the control registers say so from
//! the first instruction on, and one that would use a register of SSE or of the x87 unit ends the emulator.

use core::arch::asm;
use core::fmt::{self, Write};
use core::panic::PanicInfo;

/// `-debugcon stdio`
const TEXT: u16 = 0xE9;
/// `-device isa-debug-exit,iobase=0xf4,iosize=4`: the emulator ends with twice the number and 1.
const EXIT: u16 = 0xF4;
const SUCCESS: u32 = 16;
const FAILURE: u32 = 17;

struct Port;

impl Write for Port {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for byte in text.bytes() {
            // SAFETY: nothing else is at this port of QEMU, and the instruction touches no memory.
            unsafe { asm!("out dx, al", in("dx") TEXT, in("al") byte, options(nomem, nostack, preserves_flags)) };
        }
        Ok(())
    }
}

fn exit(status: u32) -> ! {
    loop {
        // SAFETY: as above. Where the port is not there, the program waits here.
        unsafe { asm!("out dx, eax", in("dx") EXIT, in("eax") status, options(nomem, nostack, preserves_flags)) };
    }
}

fn run() -> ! {
    match crate::run(&mut Port) {
        Ok(()) => exit(SUCCESS),
        Err(failure) => panic!("{failure}"),
    }
}

#[panic_handler]
fn panic(info: &PanicInfo<'_>) -> ! {
    let _ = writeln!(Port, "{info}");
    exit(FAILURE)
}

/// Where UEFI starts a program.
#[cfg(target_os = "uefi")]
#[unsafe(no_mangle)]
extern "efiapi" fn efi_main(_image: *mut (), _system: *mut ()) -> usize {
    // SAFETY: nothing here waits for an interrupt; the watchdog of the firmware, which does, would end a slow run.
    unsafe { asm!("cli", options(nomem, nostack)) };
    run()
}

// Where a Xen guest is started, and QEMU starts such: 32 bits, no paging (the PVH boot protocol). From there to 64 bits, with
// the first GiB of memory mapped to itself. CR0.EM stays set, and CR4.OSFXSR clear: no floating-point unit.
#[cfg(target_os = "none")]
core::arch::global_asm!(
    r#"
    .section .note.pvh, "a", @note
    .long 4, 4, 18
    .asciz "Xen"
    .long start

    .section .text.start, "ax"
    .global start
    .code32
start:
    cli
    movl $stack_top, %esp
    movl $(pointers + 3), %eax
    movl %eax, tables
    movl $(directory + 3), %eax
    movl %eax, pointers
    movl $0x83, %eax
    xorl %ecx, %ecx
2:  movl %eax, directory(,%ecx,8)
    addl $0x200000, %eax
    incl %ecx
    cmpl $512, %ecx
    jne 2b
    movl $tables, %eax
    movl %eax, %cr3
    movl %cr4, %eax
    orl $0x20, %eax
    movl %eax, %cr4
    movl $0xC0000080, %ecx
    rdmsr
    orl $0x100, %eax
    wrmsr
    movl %cr0, %eax
    orl $0x80000004, %eax
    movl %eax, %cr0
    lgdt segments_pointer
    ljmp $8, $start_64
    .code64
start_64:
    xorl %eax, %eax
    movw %ax, %ss
    movw %ax, %ds
    movw %ax, %es
    call bare_main

    .section .rodata.segments, "a"
    .balign 8
segments:
    .quad 0
    .quad 0x00209A0000000000
segments_pointer:
    .word 15
    .long segments

    .section .bss.boot, "aw", @nobits
    .balign 4096
tables:
    .skip 4096
pointers:
    .skip 4096
directory:
    .skip 4096
    .skip 0x40000
stack_top:
    "#,
    options(att_syntax)
);

#[cfg(target_os = "none")]
#[unsafe(no_mangle)]
extern "C" fn bare_main() -> ! {
    run()
}
