//! Moments and sums of the parts of a batch. They are computed for each part, merged, and finished
//! for the whole batch.
//!
//! The moments of `C` channels are one flat slice of `3*C` f64: first the counts, then the means,
//! then the sums of squared deviations from the mean, each per channel. The slice can be stored,
//! sent, and merged with the moments of any other part with the same number of channels.

use crate::channel;
use crate::error::{Buffer, Error, check_len};
use crate::simd::in_default;

/// The length of the moments of `channels` channels: 3 values per channel.
#[must_use]
pub const fn moments_len(channels: usize) -> usize {
    channels.saturating_mul(3)
}

/// The length of the sums of `channels` channels: 2 values per channel.
pub(crate) const fn sums_len(channels: usize) -> usize {
    channels.saturating_mul(2)
}

/// Merges the moments `from` of one part of a batch into the moments `into` of another part.
/// Afterwards `into` has the moments of both parts together, by the formula of Chan, Golub and
/// LeVeque (*Updating formulae and a pairwise algorithm for computing sample variances*, 1979).
///
/// Merging the same parts in the same order gives the same bits. A part without values changes
/// nothing.
///
/// # Errors
/// [`Error::Length`] if `from` does not have the length of `into`, and [`Error::LengthMultiple`] if
/// the length of `into` is not a multiple of 3. Nothing is written then.
pub fn merge_moments(into: &mut [f64], from: &[f64]) -> Result<(), Error> {
    check_both(Buffer::Moments, 3, into.len(), from.len())?;
    in_default(|| merge_channels(into, 0, from));
    Ok(())
}

/// Merges the moments `from` of some channels of a part into the moments `into` of all channels, from
/// channel `first` on.
pub(crate) fn merge_channels(into: &mut [f64], first: usize, from: &[f64]) {
    let (counts, means, m2s) = fields(into);
    let into = counts.iter_mut().zip(means).zip(m2s).skip(first);
    for (channel, ((count, mean), m2)) in into.take(from.len() / 3).enumerate() {
        let other = channel_moments(from, channel);
        if other.count != 0.0 {
            let mut both = channel::Moments { count: *count, mean: *mean, m2: *m2 };
            both.merge(other);
            (*count, *mean, *m2) = (both.count, both.mean, both.m2);
        }
    }
}

/// Merges the sums `from` of one part of a batch into the sums `into` of another part: a plain
/// addition, element by element.
///
/// # Errors
/// [`Error::Length`] if `from` does not have the length of `into`, and [`Error::LengthMultiple`] if
/// the length of `into` is not a multiple of 2. Nothing is written then.
pub fn merge_sums(into: &mut [f64], from: &[f64]) -> Result<(), Error> {
    check_both(Buffer::Sums, 2, into.len(), from.len())?;
    in_default(|| {
        for (into, from) in into.iter_mut().zip(from) {
            *into += from;
        }
    });
    Ok(())
}

/// Checks that two slices have the same length, a multiple of `fields`, the number of values per
/// channel.
fn check_both(buffer: Buffer, fields: usize, into: usize, from: usize) -> Result<(), Error> {
    if !into.is_multiple_of(fields) {
        return Err(Error::LengthMultiple { buffer, fields, actual: into });
    }
    check_len(buffer, into, from)
}

/// Splits moments into counts, means and sums of squared deviations.
pub(crate) fn fields(moments: &mut [f64]) -> (&mut [f64], &mut [f64], &mut [f64]) {
    let channels = moments.len() / 3;
    let (counts, rest) = moments.split_at_mut_checked(channels).unwrap_or_default();
    let (means, m2s) = rest.split_at_mut_checked(channels).unwrap_or_default();
    (counts, means, m2s)
}

/// The moments of one channel, taken from the moments of all channels.
fn channel_moments(moments: &[f64], channel: usize) -> channel::Moments {
    let channels = moments.len() / 3;
    match (moments.get(channel), moments.get(channels + channel), moments.get(2 * channels + channel)) {
        (Some(&count), Some(&mean), Some(&m2)) => channel::Moments { count, mean, m2 },
        _ => channel::Moments::EMPTY,
    }
}
