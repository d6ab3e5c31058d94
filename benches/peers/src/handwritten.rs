//! What a careful user writes without SIMD: loops that the compiler can make vectors of.
//!
//! Statistics in two passes, so that they are accurate; sums in several accumulators, and f64 above them; the scale of
//! dropout folded into that of batch norm; a byte per element for the mask, and for ReLU; one draw of 64 bits for two elements; no
//! pass over memory that could be saved by such means.

use std::hint::black_box;

use aligned_vec::AVec;
use multiversion::multiversion;
use rand_xoshiro::Xoshiro256PlusPlus;
use rand_xoshiro::rand_core::{Rng, SeedableRng};

use crate::data::Data;
use crate::peer::{Library, Result};
use crate::workload::{EPS, MOMENTUM, Op, P, Workload};

/// Accumulators of a sum over a run of one channel: two vectors of 512 bits, or four of 256.
const ACCUMULATORS: usize = 32;
/// Rows that are summed up in f32 before they are added to a sum in f64.
const ROWS: usize = 64;

pub(crate) struct Handwritten {
    data: Data,
    channels: usize,
    inner: usize,
    output: AVec<f32>,
    keep: AVec<u8>,
    rng: Xoshiro256PlusPlus,
    mean: Vec<f32>,
    inv_std: Vec<f32>,
    running_mean: Vec<f32>,
    running_var: Vec<f32>,
    grad_weight: Vec<f32>,
    grad_bias: Vec<f32>,
}

impl Library for Handwritten {
    fn new(workload: &Workload) -> Result<Self> {
        let channels = workload.channels();
        let data = Data::new(workload);
        let mut library = Self {
            channels,
            inner: workload.outer_and_inner().1,
            output: data.input.clone(),
            keep: AVec::from_iter(0, data.input.iter().map(|_| 1)),
            data,
            rng: Xoshiro256PlusPlus::seed_from_u64(1),
            mean: vec![0.0; channels],
            inv_std: vec![0.0; channels],
            running_mean: vec![0.0; channels],
            running_var: vec![1.0; channels],
            grad_weight: vec![0.0; channels],
            grad_bias: vec![0.0; channels],
        };
        library.run(Op::Forward)?;
        Ok(library)
    }

    fn run(&mut self, op: Op) -> Result<()> {
        black_box(&mut self.data.input);
        black_box(&mut self.data.grad_output);
        match op {
            Op::Forward => forward(self),
            Op::ReluForward => relu_forward(self),
            Op::NormForward => norm_forward(self),
            // The byte of an element says whether ReLU let it through, too.
            Op::Backward | Op::ReluBackward => backward(self),
            Op::NormBackward => norm_backward(self),
            Op::Step | Op::ReluStep | Op::NormStep => return Err("a sum is not run".into()),
        }
        black_box(&mut self.output);
        Ok(())
    }
}

#[multiversion(targets = "simd")]
fn forward(library: &mut Handwritten) {
    library.forward::<true, false>();
}

#[multiversion(targets = "simd")]
fn relu_forward(library: &mut Handwritten) {
    library.forward::<true, true>();
}

#[multiversion(targets = "simd")]
fn norm_forward(library: &mut Handwritten) {
    library.forward::<false, false>();
}

#[multiversion(targets = "simd")]
fn backward(library: &mut Handwritten) {
    library.backward::<true>();
}

#[multiversion(targets = "simd")]
fn norm_backward(library: &mut Handwritten) {
    library.backward::<false>();
}

// Inlined, here and below, into the functions that have the instruction sets.
impl Handwritten {
    #[inline(always)]
    const fn scale<const DROPOUT: bool>() -> f32 {
        if DROPOUT { 1.0 / (1.0 - P) } else { 1.0 }
    }

    #[inline(always)]
    fn samples(&self) -> f64 {
        (self.data.input.len() / self.channels) as f64
    }

    #[inline(always)]
    fn forward<const DROPOUT: bool, const RELU: bool>(&mut self) {
        let samples = self.samples();
        let zeros = vec![0.0; self.channels];
        let [sum, _] = self.sums(&zeros, |x, _, _, _| [x, 0.0]);
        for (mean, sum) in self.mean.iter_mut().zip(sum) {
            *mean = (sum / samples) as f32;
        }
        let [sum, _] = self.sums(&self.mean, |x, _, _, mean| [(x - mean) * (x - mean), 0.0]);
        let mut factor = vec![0.0; self.channels];
        let mut term = vec![0.0; self.channels];
        for (c, sum) in sum.into_iter().enumerate() {
            let var = (sum / samples) as f32;
            self.inv_std[c] = 1.0 / (var + EPS).sqrt();
            factor[c] = self.data.weight[c] * self.inv_std[c] * Self::scale::<DROPOUT>();
            term[c] = self.data.bias[c] * Self::scale::<DROPOUT>() - self.mean[c] * factor[c];
            let unbiased = var * (samples / (samples - 1.0)) as f32;
            self.running_mean[c] += MOMENTUM * (self.mean[c] - self.running_mean[c]);
            self.running_var[c] += MOMENTUM * (unbiased - self.running_var[c]);
        }

        let run = if self.inner == 1 { self.channels } else { self.inner };
        let rows = self.data.input.chunks_exact(run).zip(self.keep.chunks_exact_mut(run));
        for (i, ((x, keep), y)) in rows.zip(self.output.chunks_exact_mut(run)).enumerate() {
            if DROPOUT {
                draw(&mut self.rng, keep);
            }
            if self.inner == 1 {
                for ((((y, x), keep), factor), term) in y.iter_mut().zip(x).zip(keep).zip(&factor).zip(&term) {
                    *y = output::<DROPOUT, RELU>(x * factor + term, keep);
                }
            } else {
                let (factor, term) = (factor[i % self.channels], term[i % self.channels]);
                for ((y, x), keep) in y.iter_mut().zip(x).zip(keep) {
                    *y = output::<DROPOUT, RELU>(x * factor + term, keep);
                }
            }
        }
    }

    #[inline(always)]
    fn backward<const DROPOUT: bool>(&mut self) {
        let samples = self.samples();
        let gradient = |dy: f32, keep: u8| if DROPOUT { f32::from(keep) * Self::scale::<true>() * dy } else { dy };
        let [sum, product] = self.sums(&self.mean, |x, dy, keep, mean| {
            let g = gradient(dy, keep);
            [g, g * (x - mean)]
        });
        // dx = factor*g + slope*x + term
        let mut factor = vec![0.0; self.channels];
        let mut slope = vec![0.0; self.channels];
        let mut term = vec![0.0; self.channels];
        for c in 0..self.channels {
            let inv_std = f64::from(self.inv_std[c]);
            self.grad_bias[c] = sum[c] as f32;
            self.grad_weight[c] = (product[c] * inv_std) as f32;
            let scale = f64::from(self.data.weight[c]) * inv_std;
            let by_x = -scale * inv_std * inv_std * product[c] / samples;
            factor[c] = scale as f32;
            slope[c] = by_x as f32;
            term[c] = (-scale * sum[c] / samples - by_x * f64::from(self.mean[c])) as f32;
        }
        let run = if self.inner == 1 { self.channels } else { self.inner };
        let rows = self.data.input.chunks_exact(run).zip(self.data.grad_output.chunks_exact(run));
        let rows = rows.zip(self.keep.chunks_exact(run)).zip(self.output.chunks_exact_mut(run));
        for (i, (((x, dy), keep), dx)) in rows.enumerate() {
            let elements = dx.iter_mut().zip(x).zip(dy).zip(keep);
            if self.inner == 1 {
                for ((((((dx, x), dy), keep), factor), slope), term) in elements.zip(&factor).zip(&slope).zip(&term) {
                    *dx = gradient(*dy, *keep) * factor + (x * slope + term);
                }
            } else {
                let c = i % self.channels;
                let (factor, slope, term) = (factor[c], slope[c], term[c]);
                for (((dx, x), dy), keep) in elements {
                    *dx = gradient(*dy, *keep) * factor + (x * slope + term);
                }
            }
        }
    }

    /// Two sums per channel of what `terms` makes of x, dy, the mask and the channel's own value.
    #[inline(always)]
    fn sums(&self, of_channel: &[f32], terms: impl Fn(f32, f32, u8, f32) -> [f32; 2]) -> [Vec<f64>; 2] {
        let (channels, inner) = (self.channels, self.inner);
        let mut sums = [vec![0.0; channels], vec![0.0; channels]];
        if inner == 1 {
            let mut partial = [vec![0.0_f32; channels], vec![0.0_f32; channels]];
            let block = channels * ROWS;
            let blocks = self.data.input.chunks(block).zip(self.data.grad_output.chunks(block));
            for ((x, dy), keep) in blocks.zip(self.keep.chunks(block)) {
                let rows = x.chunks_exact(channels).zip(dy.chunks_exact(channels)).zip(keep.chunks_exact(channels));
                for ((x, dy), keep) in rows {
                    let [first, second] = &mut partial;
                    let elements = x.iter().zip(dy).zip(keep).zip(of_channel);
                    for ((((x, dy), keep), value), (first, second)) in
                        elements.zip(first.iter_mut().zip(second.iter_mut()))
                    {
                        let [a, b] = terms(*x, *dy, *keep, *value);
                        *first += a;
                        *second += b;
                    }
                }
                for (sums, partial) in sums.iter_mut().zip(&mut partial) {
                    for (sum, partial) in sums.iter_mut().zip(partial) {
                        *sum += f64::from(*partial);
                        *partial = 0.0;
                    }
                }
            }
        } else {
            let rows = self.data.input.chunks_exact(inner).zip(self.data.grad_output.chunks_exact(inner));
            for (i, ((x, dy), keep)) in rows.zip(self.keep.chunks_exact(inner)).enumerate() {
                let value = of_channel[i % channels];
                let (mut first, mut second) = ([0.0_f32; ACCUMULATORS], [0.0_f32; ACCUMULATORS]);
                let (x, x_rest) = x.as_chunks::<ACCUMULATORS>();
                let (dy, dy_rest) = dy.as_chunks::<ACCUMULATORS>();
                let (keep, keep_rest) = keep.as_chunks::<ACCUMULATORS>();
                for ((x, dy), keep) in x.iter().zip(dy).zip(keep) {
                    for lane in 0..ACCUMULATORS {
                        let [a, b] = terms(x[lane], dy[lane], keep[lane], value);
                        first[lane] += a;
                        second[lane] += b;
                    }
                }
                for (lane, ((x, dy), keep)) in x_rest.iter().zip(dy_rest).zip(keep_rest).enumerate() {
                    let [a, b] = terms(*x, *dy, *keep, value);
                    first[lane] += a;
                    second[lane] += b;
                }
                sums[0][i % channels] += f64::from(first.iter().sum::<f32>());
                sums[1][i % channels] += f64::from(second.iter().sum::<f32>());
            }
        }
        sums
    }
}

/// An output. With ReLU, `keep` becomes zero where the output is zero.
#[inline(always)]
fn output<const DROPOUT: bool, const RELU: bool>(z: f32, keep: &mut u8) -> f32 {
    if RELU {
        *keep &= u8::from(z > 0.0);
    }
    if DROPOUT { f32::from(*keep) * z } else { z }
}

/// One where an element is kept, zero where it is dropped.
#[inline(always)]
fn draw(rng: &mut Xoshiro256PlusPlus, keep: &mut [u8]) {
    const DROPPED: u32 = (P as f64 * (1_u64 << 32) as f64) as u32;
    let (pairs, rest) = keep.as_chunks_mut::<2>();
    for pair in pairs {
        let bits = rng.next_u64();
        *pair = [u8::from(bits as u32 >= DROPPED), u8::from((bits >> 32) as u32 >= DROPPED)];
    }
    for keep in rest {
        *keep = u8::from(rng.next_u32() >= DROPPED);
    }
}
