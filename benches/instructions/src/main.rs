//! The number of instructions that the calls of a layer take on AArch64 with NEON.
//!
//! `run.py` beside it builds it for two versions of normdrop, starts it in QEMU and writes the table.
//! For each shape and call it prints one line: the shape, its elements, the call, the instructions.

#![no_std]
#![no_main]

use core::arch::asm;

use aarch64_rt::{ExceptionHandlers, InitialPagetable, entry, exception_handlers, initial_pagetable};
use normdrop::{
    Backward, Config, Dropout, Eval, Layer, ParameterGradients, Parameters, Relu, Running, Saved, SavedMut, Shape,
    Statistics, Train,
};
use semihosting::{println, process};

/// The event that a counter counts: an instruction was executed.
const INST_RETIRED: u64 = 8;

/// The largest shape.
const ELEMENTS: usize = 32_768;
const CHANNELS: usize = 256;
const SCRATCH: usize = 1 << 14;
/// 4 MiB for the tensors, in pages.
const STACK_PAGES: usize = 1024;

const SHAPES: [(&str, usize, usize, usize); 7] = [
    ("NCL 2x4x4096", 2, 4, 4096),
    ("NCHW 4x32x14x14", 4, 32, 14 * 14),
    ("NCHW 4x64x7x7", 4, 64, 7 * 7),
    ("NC 128x256", 128, 256, 1),
    ("NHWC 2x14x14x64", 2 * 14 * 14, 64, 1),
    ("NHWC 2x28x28x16", 2 * 28 * 28, 16, 1),
    ("NC 32x64", 32, 64, 1),
];

// The first GiB is devices, the second one the memory.
initial_pagetable!({
    const VALID: usize = 1;
    const NORMAL: usize = 1 << 2;
    const SHARED: usize = 3 << 8;
    const ACCESSED: usize = 1 << 10;
    let mut table = [0_usize; 512];
    table[0] = VALID | ACCESSED;
    table[1] = VALID | NORMAL | SHARED | ACCESSED | 0x4000_0000;
    InitialPagetable(table)
});

exception_handlers!(Exceptions);
struct Exceptions;
impl ExceptionHandlers for Exceptions {}

entry!(main, STACK_PAGES);
fn main(_: u64, _: u64, _: u64, _: u64) -> ! {
    // SAFETY: the registers of the performance monitor influence nothing but its counters.
    unsafe {
        asm!("msr pmevtyper0_el0, {}", "msr pmcntenset_el0, {}", "msr pmcr_el0, {}", "isb",
             in(reg) INST_RETIRED, in(reg) 1_u64, in(reg) 1_u64);
    }
    // A loop of two instructions a turn, so that a counter of something else is noticed.
    let turns = |count: u64| {
        counted(|| {
            // SAFETY: it changes one register, and the flags.
            unsafe { asm!("2:", "subs {0}, {0}, #1", "b.ne 2b", inout(reg) count => _) }
        })
    };
    let (short, long) = (turns(1000), turns(3000));
    if long - short != 4000 {
        println!("2000 turns of a loop of two instructions are counted as {}", long - short);
        process::exit(1);
    }

    let mut values = Uniform(1);
    let (mut x, mut dy) = ([0.0; ELEMENTS], [0.0; ELEMENTS]);
    x.fill_with(|| values.next());
    dy.fill_with(|| values.next());
    let (weight, bias) = ([0.75; CHANNELS], [0.125; CHANNELS]);
    let (running_mean, running_var) = ([0.0; CHANNELS], [1.0; CHANNELS]);
    let (mut y, mut dx) = ([0.0; ELEMENTS], [0.0; ELEMENTS]);
    let mut mask = [0; ELEMENTS / 8];
    let (mut mean, mut mean_tail, mut inv_std) = ([0.0; CHANNELS], [0.0; CHANNELS], [0.0; CHANNELS]);
    let (mut d_weight, mut d_bias) = ([0.0; CHANNELS], [0.0; CHANNELS]);
    let mut scratch = [0.0; SCRATCH];

    for (name, outer, channels, inner) in SHAPES {
        let shape = Shape::new(outer, channels, inner).expect("the shapes are small");
        let layer = Layer::new(shape, Relu, Config { p: 0.1, ..Config::DEFAULT }).expect("p is a probability");
        let elements = shape.len();
        let parameters = Parameters { weight: Some(&weight[..channels]), bias: Some(&bias[..channels]) };
        let mask = &mut mask[..layer.mask_len()];
        let print = |call, count: u64| println!("{name},{elements},{call},{count}");

        let fill = || {
            let _ = layer.fill_mask(7, mask).expect("the lengths are right");
        };
        print("mask", counted(fill));

        let dropout = Dropout::Mask(mask);
        let train = Train {
            parameters,
            running: None,
            dropout,
            input: &x[..elements],
            residual: None,
            output: &mut y[..elements],
            saved: SavedMut {
                mean: &mut mean[..channels],
                mean_tail: &mut mean_tail[..channels],
                inv_std: &mut inv_std[..channels],
            },
            scratch: &mut scratch,
        };
        print("train", counted(|| layer.train(train).expect("the lengths are right")));

        let saved = Saved { mean: &mean[..channels], mean_tail: &mean_tail[..channels], inv_std: &inv_std[..channels] };
        let backward = Backward {
            parameters,
            statistics: Statistics::Batch(saved),
            dropout,
            input: &x[..elements],
            residual: None,
            grad_output: &dy[..elements],
            grad_input: Some(&mut dx[..elements]),
            grad_residual: None,
            grad_parameters: ParameterGradients {
                weight: Some(&mut d_weight[..channels]),
                bias: Some(&mut d_bias[..channels]),
            },
            scratch: &mut scratch,
        };
        print("backward", counted(|| layer.backward(backward).expect("the lengths are right")));

        let running = Running {
            mean: &running_mean[..channels],
            #[cfg(not(feature = "without-tails"))]
            mean_tail: None,
            var: &running_var[..channels],
        };
        let eval = Eval {
            parameters,
            running,
            dropout: Dropout::Off,
            input: &x[..elements],
            residual: None,
            output: &mut y[..elements],
            scratch: &mut scratch,
        };
        print("eval", counted(|| layer.eval(eval).expect("the lengths are right")));
    }
    process::exit(0)
}

/// The instructions that `call` takes, and some ten around it.
#[inline(never)]
fn counted(call: impl FnOnce()) -> u64 {
    let before = instructions();
    call();
    instructions() - before
}

fn instructions() -> u64 {
    let count;
    // SAFETY: it reads a counter, which `main` has started.
    unsafe { asm!("isb", "mrs {}, pmevcntr0_el0", "isb", out(reg) count) }
    count
}

/// Numbers from -1 to 1 that look random.
struct Uniform(u32);

impl Uniform {
    fn next(&mut self) -> f32 {
        self.0 = self.0.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        self.0.cast_signed() as f32 / 2_147_483_648.0
    }
}
