//! The tensors that all libraries of this process are given.

use aligned_vec::AVec;
use rand_xoshiro::Xoshiro128PlusPlus;
use rand_xoshiro::rand_core::{Rng, SeedableRng};

use crate::workload::Workload;

/// Uniform values, each tensor at the start of a cache line.
pub(crate) struct Data {
    pub(crate) input: AVec<f32>,
    pub(crate) grad_output: AVec<f32>,
    pub(crate) weight: Vec<f32>,
    pub(crate) bias: Vec<f32>,
}

impl Data {
    pub(crate) fn new(workload: &Workload) -> Self {
        let mut rng = Xoshiro128PlusPlus::seed_from_u64(1);
        let mut values = |count: usize, low: f32, high: f32| -> Vec<f32> {
            (0..count).map(|_| low + (rng.next_u32() >> 8) as f32 / (1 << 24) as f32 * (high - low)).collect()
        };
        let (elements, channels) = (workload.elements(), workload.channels());
        Self {
            input: AVec::from_slice(0, &values(elements, -1.0, 2.0)),
            grad_output: AVec::from_slice(0, &values(elements, -1.0, 1.0)),
            weight: values(channels, 0.5, 1.5),
            bias: values(channels, -0.5, 0.5),
        }
    }
}
