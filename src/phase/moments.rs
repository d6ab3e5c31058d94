//! The moments of a part of a batch, top to bottom. For each group of channels: the moments of its
//! blocks, merged.

use crate::parts::fields;
use crate::pass::{channelwise, moments, tables};
use crate::plan::{MomentsCall, Plan};
use crate::simd::{CHANNELWISE, Kernel, Machine, Simd};
use crate::storage::Storage;
use crate::walk::{Group, Tile, Walk};

/// Computes the moments of a part whose buffers have been checked.
#[inline(always)]
pub(crate) fn run<T: Storage>(plan: &Plan, call: MomentsCall<'_, T>) {
    let MomentsCall { input, moments, scratch } = call;
    if plan.shape.is_empty() {
        moments.fill(0.0);
        return;
    }
    let (tasks, walk) = (plan.tasks(), &plan.walk());
    let samples = plan.shape.samples() as f64;
    if CHANNELWISE {
        let (counts, means, m2s) = fields(moments);
        for (channel, ((count, mean), m2)) in counts.iter_mut().zip(means).zip(m2s).enumerate() {
            let of_channel = channelwise::moments::<T>(walk, plan.shape, channel, input);
            (*count, *mean, *m2) = (samples, of_channel.mean, of_channel.m2);
        }
        return;
    }
    for group in walk.groups(usize::MAX, tasks.count) {
        let (table, parts) = tables(scratch, group, tasks.count);
        moments::of_group::<T>(tasks, (walk, plan.shape), group, input, table, parts);
        tasks.run(PutMoments { walk, group, table, samples, moments });
    }
}

/// The kernel that writes the moments of a group into the caller's buffer.
struct PutMoments<'a> {
    walk: &'a Walk,
    group: Group,
    table: &'a [Tile<{ moments::FIELDS }>],
    samples: f64,
    moments: &'a mut [f64],
}

impl Kernel for PutMoments<'_> {
    #[inline(always)]
    fn run<M: Machine>(self, m: M) {
        let Self { walk, group, table, samples, moments } = self;
        let (counts, means, m2s) = fields(moments);
        for channels in group.sixteens() {
            for s in m.each(channels.len) {
                let moments = moments::of_channels(s, walk, group, channels, table, samples);
                s.store_partial_f64(moments.count, channels.of_mut(counts));
                s.store_partial_f64(moments.mean, channels.of_mut(means));
                s.store_partial_f64(moments.m2, channels.of_mut(m2s));
            }
        }
    }
}
