//! Prepared statistics: fixed statistics and parameters as the numbers that calls compute with, in
//! a slice of the caller. With `T = ceil(C/16)` tiles of sixteen channels each, the slice has
//!
//! | f64 values | |
//! |---|---|
//! | `32*T` | the tiles: coefficients in f32, in the form of the tables of `pass::apply` |
//! | `4*C` | for each channel slope, shift, inverse standard deviation, and tail in standard deviations: fields one after the other |
//! | 1 | whether a channel needs f64 |
//! | 1 | the mark, with the number of channels |
//!
//! Slope and shift are without the dropout scale, so that one slice serves every call: with and
//! without dropout, in every layout, on every backend.

use crate::error::{Buffer, Error, check_len};
use crate::simd::{LANES, Lane, Lanes, Simd};
use crate::slices::{range, range_mut};

/// The vectors of a tile: mean and slope, shift and 1 where f64 is needed.
const TILE: usize = 2;

/// A number of a channel in f64.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Field {
    /// `weight*inv_std`.
    Slope,
    /// `bias - weight*tail*inv_std`.
    Shift,
    /// `1/sqrt(var + eps)`.
    InvStd,
    /// `tail*inv_std`.
    TailXhat,
}

/// The number of fields.
const FIELDS: usize = 4;
/// The number of values at the end: whether a channel needs f64, and the mark.
const END: usize = 2;
/// The bits of the mark for 0 channels: a number that no other buffer has.
const MARK: u64 = u64::from_be_bytes(*b"normdrop");

/// The number of f64 values of the tiles.
const fn tiles_len(channels: usize) -> usize {
    channels.div_ceil(LANES).saturating_mul(TILE * LANES)
}

/// The number of f64 values of prepared statistics.
pub(crate) const fn prepared_len(channels: usize) -> usize {
    tiles_len(channels).saturating_add(channels.saturating_mul(FIELDS)).saturating_add(END)
}

/// The mark of statistics of `channels` channels.
const fn mark(channels: usize) -> u64 {
    MARK ^ channels as u64
}

/// Prepared statistics that are read.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Prepared<'a> {
    values: &'a [f64],
    channels: usize,
}

impl<'a> Prepared<'a> {
    /// The contents of a slice that [`check`] has accepted.
    #[inline(always)]
    #[expect(clippy::cast_possible_truncation, reason = "the number was a `usize`")]
    pub(crate) const fn of(values: &'a [f64]) -> Self {
        let channels = match values {
            [.., last] => last.to_bits() ^ MARK,
            [] => 0,
        };
        Self { values, channels: channels as usize }
    }

    /// The tiles of sixteen channels.
    #[inline(always)]
    pub(crate) fn tiles(self) -> &'a [[Lanes<f64>; TILE]] {
        range(self.values, 0, tiles_len(self.channels)).as_chunks().0.as_chunks().0
    }

    /// A field of all channels.
    #[inline(always)]
    pub(crate) fn field(self, field: Field) -> &'a [f64] {
        range(self.values, tiles_len(self.channels) + field as usize * self.channels, self.channels)
    }

    /// Whether a channel needs f64.
    #[inline(always)]
    pub(crate) fn needs_f64(self) -> bool {
        match self.values {
            // By its bits, because a CPU without f64 takes long to compare numbers.
            [.., any, _] => any.to_bits() != 0,
            _ => false,
        }
    }

    /// Mean and slope, shift and 1 where f64 is needed, of one channel.
    #[inline(never)]
    pub(crate) fn of_channel(self, channel: usize) -> [f32; 4] {
        let lane = Lane::of_column(channel);
        let [first, second] = self.tiles().get(channel / LANES).unwrap_or(&[[0.0; LANES]; TILE]);
        let ((mean, slope), (shift, exact)) = (lane.load_pair(first), lane.load_pair(second));
        [mean, slope, shift, exact]
    }
}

/// Prepared statistics that are written.
#[derive(Debug)]
pub(crate) struct PreparedMut<'a> {
    values: &'a mut [f64],
    channels: usize,
}

impl<'a> PreparedMut<'a> {
    /// Begins the statistics of `channels` channels in `values`, a slice of [`prepared_len`] values.
    pub(crate) fn new(values: &'a mut [f64], channels: usize) -> Self {
        values.fill(0.0);
        Self { values, channels }
    }

    /// Writes a channel: mean and slope, shift and 1 where f64 is needed; and its fields in order.
    pub(crate) fn put(&mut self, channel: usize, [mean, slope, shift, exact]: [f32; 4], fields: [f64; FIELDS]) {
        let tiles = tiles_len(self.channels);
        let vectors = range_mut(self.values, 0, tiles).as_chunks_mut::<LANES>().0;
        if let [first, second] = range_mut(vectors, channel / LANES * TILE, TILE) {
            let lane = Lane::of_column(channel);
            lane.store_pair(mean, slope, first);
            lane.store_pair(shift, exact, second);
        }
        let channels = self.channels.max(1);
        for (of_channels, field) in
            range_mut(self.values, tiles, FIELDS * channels).chunks_exact_mut(channels).zip(fields)
        {
            if let Some(to) = of_channels.get_mut(channel) {
                *to = field;
            }
        }
        if let (true, [.., any, _]) = (exact != 0.0, &mut *self.values) {
            *any = 1.0;
        }
    }

    /// Ends the statistics: from here on calls accept the slice.
    pub(crate) fn finish(self) {
        if let Some(last) = self.values.last_mut() {
            *last = f64::from_bits(mark(self.channels));
        }
    }
}

/// Checks that `values` are the prepared statistics of `channels` channels.
pub(crate) fn check(channels: usize, values: &[f64]) -> Result<(), Error> {
    check_len(Buffer::Prepared, prepared_len(channels), values.len())?;
    match values.last() {
        Some(last) if last.to_bits() == mark(channels) => Ok(()),
        _ => Err(Error::NotPrepared { channels }),
    }
}
