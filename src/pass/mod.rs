//! The passes, each one walk over a tensor: moments, apply, reduce, gradient. This file has the functions
//! on tables, rows and elements that they share.

pub(crate) mod apply;
pub(crate) mod channelwise;
mod elementwise;
mod exact;
pub(crate) mod gradient;
pub(crate) mod keep;
pub(crate) mod moments;
pub(crate) mod noise;
pub(crate) mod prelu;
pub(crate) mod reduce;
pub(crate) mod sums;

use keep::Keep;

use crate::bits::{BITS, Buffer, FourBits, each_four};
use crate::channel::Channels;
use crate::simd::{LANES, Lane, Lanes, Simd, first_lanes, load};
use crate::slices::take_front;
use crate::storage::{Ahead, Load, PIECE, Storage};
use crate::walk::{BLOCK_VALUES, Group, LINE, RowBlock, Tile, Values};

impl Group {
    /// Writes a pair of vectors of sixteen channels into all of their columns.
    #[inline(always)]
    pub(crate) fn put_pair<S: Simd, const FIELDS: usize>(
        self,
        s: S,
        channels: Channels,
        table: &mut [Tile<FIELDS>],
        field: usize,
        pair: [S::F32; 2],
    ) {
        let table = table.as_flattened_mut();
        if S::AT_ONCE && self.has_whole_tiles() {
            for tile in self.whole_tiles_of(channels) {
                if let Some(to) = table.get_mut(tile * FIELDS + field) {
                    s.store_pair(pair[0], pair[1], to);
                }
            }
            return;
        }
        if !S::AT_ONCE {
            s.each_lane(channels.len, pair, |lane, pair| {
                self.put_pair_of(channels.first + lane, table, (FIELDS, field), pair);
            });
            return;
        }
        let mut values = [[0.0; LANES]; 2];
        s.store(pair[0], &mut values[0]);
        s.store(pair[1], &mut values[1]);
        self.put_pairs(channels, table, (FIELDS, field), &values);
    }

    /// A pair of vectors of sixteen channels, from their first columns.
    #[inline(always)]
    pub(crate) fn pair_of<S: Simd, const FIELDS: usize>(
        self,
        s: S,
        channels: Channels,
        table: &[Tile<FIELDS>],
        field: usize,
    ) -> [S::F32; 2] {
        if self.has_whole_tiles() {
            let Some(tile) = self.whole_tiles_of(channels).next().and_then(|tile| table.get(tile)) else {
                return [s.splat(0.0); 2];
            };
            let (first, second) = s.load_pair(&tile[field % FIELDS]);
            return [first, second];
        }
        let mut vectors = [[0.0; LANES]; 2];
        for lane in 0..channels.len {
            let column = self.columns_of(channels.first + lane).next().unwrap_or(0);
            let pair = table.get(column / LANES).map_or([0.0; 2], |tile| pair_lane(&tile[field % FIELDS], column));
            for (vector, value) in vectors.iter_mut().zip(pair) {
                vector[lane % LANES] = value;
            }
        }
        [s.load(&vectors[0]), s.load(&vectors[1])]
    }

    /// Writes f64 values of sixteen channels into all of their columns.
    #[inline(always)]
    pub(crate) fn put_f64<S: Simd, const FIELDS: usize>(
        self,
        s: S,
        channels: Channels,
        table: &mut [Tile<FIELDS>],
        field: usize,
        value: S::F64,
    ) {
        let table = table.as_flattened_mut();
        if S::AT_ONCE && self.has_whole_tiles() {
            for tile in self.whole_tiles_of(channels) {
                if let Some(to) = table.get_mut(tile * FIELDS + field) {
                    s.store_f64(value, to);
                }
            }
            return;
        }
        s.each_lane_f64(channels.len, value, |lane, value| {
            self.put_f64_of(channels.first + lane, table, (FIELDS, field), value);
        });
    }

    /// [`Self::put_pair`] of values in memory. Sixteen channels have neighbouring columns, again and again
    /// if a row of the matrix is several rows of the tensor.
    #[inline(never)]
    fn put_pairs(
        self,
        channels: Channels,
        table: &mut [Lanes<f64>],
        (fields, field): (usize, usize),
        [first, second]: &[Lanes<f32>; 2],
    ) {
        let (inner, period) = (self.inner.max(1), self.channels.max(1) * self.inner.max(1));
        let mut start = (channels.first - self.first_channel) * inner;
        while start < self.columns {
            let mut column = start;
            for lane in 0..channels.len {
                for _ in 0..inner {
                    if let Some(to) = table.get_mut(column / LANES * fields + field) {
                        Lane::of_column(column).store_pair(first[lane % LANES], second[lane % LANES], to);
                    }
                    column += 1;
                }
            }
            start += period;
        }
    }

    /// [`Self::put_pair`] of one channel. `place` is the number of fields of the table, and the number of
    /// the field that gets the pair.
    #[inline(never)]
    fn put_pair_of(self, channel: usize, table: &mut [Lanes<f64>], place: (usize, usize), pair: [f32; 2]) {
        self.each_column(channel, table, place, |lane, to| lane.store_pair(pair[0], pair[1], to));
    }

    /// [`Self::put_f64`] of one channel. `place` is the number of fields of the table, and the number of
    /// the field that gets the value.
    #[inline(never)]
    fn put_f64_of(self, channel: usize, table: &mut [Lanes<f64>], place: (usize, usize), value: f64) {
        self.each_column(channel, table, place, |lane, to| lane.store_f64(value, to));
    }

    /// Calls `put` for each column of one channel, with its lane and the vector that has this lane in the
    /// field number `field` of a table with `fields` fields.
    #[inline(always)]
    fn each_column(
        self,
        channel: usize,
        table: &mut [Lanes<f64>],
        (fields, field): (usize, usize),
        mut put: impl FnMut(Lane, &mut Lanes<f64>),
    ) {
        for column in self.columns_of(channel) {
            if let Some(to) = table.get_mut(column / LANES * fields + field) {
                put(Lane::of_column(column), to);
            }
        }
    }
}

impl RowBlock {
    /// [`Self::prefetch_next`] of a tensor of one type.
    #[inline(always)]
    pub(crate) fn prefetch_next_of<S: Simd, E>(self, s: S, tensor: &[E]) {
        if self.rows == 1 && tensor.len() >= STREAMED_VALUES {
            for vector in self.row(tensor, 0).as_chunks::<LANES>().0 {
                s.prefetch_second(vector, 4 * BLOCK_VALUES);
            }
        }
    }

    /// If the block is one row, asks the second cache for values that come after this row in a tensor that
    /// comes from memory.
    #[inline(always)]
    pub(crate) fn prefetch_next<S: Simd, T: Storage>(self, s: S, tensor: T::Ref<'_>) {
        if self.rows == 1 && T::len(tensor) >= STREAMED_VALUES {
            T::prefetch(s, tensor, (self.first(), self.columns), Ahead::second(4 * BLOCK_VALUES));
        }
    }
}

/// The length of the longest runs that are one four.
pub(crate) const SHORT: usize = 4 * LANES;

/// The lanes of vector number `vector` that belong to a run of `run_len` values.
#[inline(always)]
pub(crate) fn lanes_from(run_len: usize, vector: usize) -> u16 {
    first_lanes(run_len.saturating_sub(vector * LANES).min(LANES))
}

/// The mask bits of a piece of four rows of a matrix, a vector of each at a time. They are 0 in rows that
/// `rows` does not have.
///
/// They are written to `bits` first and read from there: an iterator that makes them from `keep` would be
/// a function of its own.
#[inline(always)]
pub(crate) fn four_bits<'a>(
    keep: &Keep<'_>,
    rows: RowBlock,
    bits: &'a mut FourBits,
    buffer: &mut Buffer,
) -> impl Iterator<Item = [u16; 4]> + use<'a> {
    fill_four_bits(keep, rows, bits, buffer);
    each_four(bits)
}

/// Writes the mask bits of a piece of four rows of a matrix; all are 0 in rows that the block does not have.
#[inline(never)]
pub(crate) fn fill_four_bits(keep: &Keep<'_>, rows: RowBlock, bits: &mut FourBits, buffer: &mut Buffer) {
    for (row, bits) in bits.iter_mut().enumerate() {
        let bits = first_bits(bits, rows.columns);
        if row < rows.rows {
            keep.bits(rows.first() + row * rows.width, bits.len(), buffer).put(bits);
        } else {
            bits.fill(0);
        }
    }
}

/// A vector of neighbours or of a column.
#[inline(always)]
pub(crate) fn load_values<S: Simd, T: Storage>(s: S, tensor: T::Ref<'_>, place: Values, room: &mut T::Room) -> S::F32 {
    if place.stride == 1 {
        return load(s, T::read(s, T::shorter(tensor), (place.start, place.len), Ahead::NOT, room));
    }
    s.load(&column_values::<T>(tensor, place))
}

/// The values of a column. It is a function of its own, so that the loops over neighbours keep their
/// values in registers.
#[cold]
#[inline(never)]
fn column_values<T: Storage>(tensor: T::Ref<'_>, place: Values) -> Lanes<f32> {
    let mut values = [0.0; LANES];
    for (lane, value) in values.iter_mut().enumerate().take(place.len) {
        *value = T::at(T::shorter(tensor), place.element(lane));
    }
    values
}

/// Stores a vector of neighbours or of a column, neighbours past the caches if `stream`.
#[inline(always)]
pub(crate) fn put_values<S: Simd, T: Storage>(
    s: S,
    stream: bool,
    value: S::F32,
    (tensor, place): (&mut T::Mut<'_>, Values),
    room: &mut T::Room,
) {
    let at = (place.start, place.len);
    if place.stride == 1 {
        s.store_partial(value, T::place(tensor, at, room));
        return T::finish(s, stream, tensor, at, room);
    }
    let mut values = [0.0; LANES];
    s.store(value, &mut values);
    put_column_values::<T>(&values, tensor, place);
}

/// Stores the values of a column.
#[cold]
#[inline(never)]
fn put_column_values<T: Storage>(values: &Lanes<f32>, tensor: &mut T::Mut<'_>, place: Values) {
    for (lane, &value) in values.iter().enumerate().take(place.len) {
        T::put(tensor, place.element(lane), value);
    }
}

/// The last values of each of four rows, up to sixteen of each.
#[inline(always)]
pub(crate) fn load_partial_four<S: Simd, E: Load>(s: S, [a, b, c, d]: [&[E]; 4]) -> [S::F32; 4] {
    [E::load_partial(s, a), E::load_partial(s, b), E::load_partial(s, c), E::load_partial(s, d)]
}

/// Takes a table of `tiles` tiles from the front of the scratch of a call. It begins with the first whole
/// line of the caches: a vector that lies across two lines takes longer to load and to store.
#[inline(always)]
pub(crate) fn table<'a, const FIELDS: usize>(scratch: &mut &'a mut [f64], tiles: usize) -> &'a mut [Tile<FIELDS>] {
    let before = scratch.as_ptr().align_offset(LINE * size_of::<f64>());
    // Where an f64 may have an address that is no multiple of its size, and has one, nothing is skipped.
    let _ = take_front(scratch, if before < LINE { before } else { 0 });
    let values = take_front(scratch, tiles * LANES * FIELDS);
    let tiles = values.as_chunks_mut::<LANES>().0.as_chunks_mut::<FIELDS>().0;
    // The last tile may have lanes without a column, for which no call may take the old values of scratch.
    if let Some(last) = tiles.last_mut() {
        *last = [[0.0; LANES]; FIELDS];
    }
    tiles
}

/// The scratch of a call with statistics, as a table of the group and a table for each task.
#[inline(always)]
pub(crate) fn tables<const FIELDS: usize, const TASK_FIELDS: usize>(
    mut scratch: &mut [f64],
    group: Group,
    tasks: usize,
) -> (&mut [Tile<FIELDS>], &mut [Tile<TASK_FIELDS>]) {
    (table(&mut scratch, group.tiles()), table(&mut scratch, group.tiles() * tasks))
}

/// One lane of a pair of vectors in a table, as [`Simd::store_pair`] has put them there.
#[inline(always)]
pub(crate) fn pair_lane(pair: &Lanes<f64>, column: usize) -> [f32; 2] {
    let (first, second) = Lane::of_column(column).load_pair(pair);
    [first, second]
}

/// The value of `of_column` for each column of a group with sixteen columns at most.
#[inline(always)]
pub(crate) fn of_columns<T: Copy>(group: Group, mut of_column: impl FnMut(usize) -> T) -> Lanes<T> {
    let mut columns = [of_column(0); LANES];
    // Conditions take the place of `take` and `skip`, which together would be a function of their own.
    for (column, of) in columns.iter_mut().enumerate() {
        if column != 0 && column < group.columns {
            *of = of_column(column);
        }
    }
    columns
}

/// `len` neighbours from element `start` on, in pieces whose mask bits are made at once.
#[inline(always)]
pub(crate) const fn pieces(start: usize, len: usize) -> Pieces {
    Pieces { start, left: len }
}

/// The start and the length of one piece after the other: see [`pieces`]. An iterator by steps would begin with a division, which
/// short rows feel.
#[derive(Debug)]
pub(crate) struct Pieces {
    start: usize,
    left: usize,
}

impl Iterator for Pieces {
    type Item = (usize, usize);

    #[inline(always)]
    fn next(&mut self) -> Option<(usize, usize)> {
        if self.left == 0 {
            return None;
        }
        let piece = (self.start, PIECE.min(self.left));
        self.start += piece.1;
        self.left -= piece.1;
        Some(piece)
    }
}

/// The words of `bits` for the first `elements` elements.
#[inline(always)]
pub(crate) fn first_bits(bits: &mut [u16; BITS], elements: usize) -> &mut [u16] {
    bits.get_mut(..elements.div_ceil(LANES)).unwrap_or_default()
}

/// The two tensors of an elementwise pass, of which one may take the place of the other: `x` and `y`, or
/// `dy` and `dx`.
#[derive(Debug)]
pub(crate) struct Elements<'a, T: Storage> {
    /// The whole tensor that is read; `None` if it is overwritten.
    pub(crate) read: Option<T::Ref<'a>>,
    /// The elements from `base` on of the tensor that is written.
    pub(crate) write: T::Mut<'a>,
    pub(crate) base: usize,
    /// Whether the elements are written past the caches.
    pub(crate) stream: bool,
}

/// The number of values from which on a tensor comes from memory and is written past the caches: 12 MiB.
/// In the caches such an output would push out values that are needed again, and its own; and its memory
/// would be read before it is overwritten.
const STREAMED_VALUES: usize = 3 << 20;

/// The place of some neighbours in [`Elements`].
#[derive(Debug)]
pub(crate) struct Place<'a> {
    pub(crate) read: &'a [f32],
    pub(crate) write: &'a mut [f32],
}

/// Stores a vector of a tensor that is written.
#[inline(always)]
pub(crate) fn put<S: Simd>(s: S, stream: bool, value: S::F32, to: &mut Lanes<f32>) {
    if stream { s.stream(value, to) } else { s.store(value, to) }
}

/// Rooms for the tensors of an elementwise pass.
pub(crate) struct Rooms<T: Storage> {
    /// The values of the tensor that is read, or the old values of a tensor that is overwritten.
    pub(crate) read: T::Room,
    pub(crate) write: T::Room,
    pub(crate) residual: T::Room,
}

impl<T: Storage> Rooms<T> {
    #[inline(always)]
    pub(crate) fn new() -> Self {
        Self { read: T::room(), write: T::room(), residual: T::room() }
    }
}

impl<'a, T: Storage> Elements<'a, T> {
    /// The elements from `base` on. A tensor that is overwritten is in the caches already.
    #[inline(always)]
    pub(crate) fn new(read: Option<T::Ref<'a>>, write: T::Mut<'a>, base: usize) -> Self {
        let stream = read.is_some_and(|read| T::len(read) >= STREAMED_VALUES);
        Self { read, write, base, stream }
    }

    /// The length of the tensor that is read.
    #[inline(always)]
    pub(crate) fn len(&self) -> usize {
        match self.read {
            Some(read) => T::len(read),
            None => T::len_mut(&self.write),
        }
    }

    /// Whether the loops over a piece store past the caches.
    #[inline(always)]
    pub(crate) fn streams(&self) -> bool {
        self.stream && T::is_direct(&self.write)
    }

    /// Whether four rows of a matrix are best written in turn: from memory, if all tensors are of one type, `other` among them.
    #[inline(always)]
    pub(crate) fn in_turn(&self, other: Option<T::Ref<'_>>) -> bool {
        let Some(read) = self.read else { return false };
        let other = other.map_or(T::shorter(read), |other| T::shorter(other));
        self.stream && T::has_four_rows([T::shorter(read), other], &self.write)
    }

    /// The values of `len` neighbours from element `start` on, before any of them is overwritten.
    #[inline(always)]
    pub(crate) fn values_of<'b, S: Simd>(&'b self, s: S, start: usize, len: usize, room: &'b mut T::Room) -> &'b [f32] {
        match self.read {
            Some(read) => T::read(s, T::shorter(read), (start, len), Ahead::NOT, room),
            None => T::read(s, T::as_ref(&self.write), (start - self.base, len), Ahead::NOT, room),
        }
    }

    /// Stores one vector.
    #[inline(always)]
    pub(crate) fn put_values<S: Simd>(&mut self, s: S, value: S::F32, place: Values, room: &mut T::Room) {
        put_values::<S, T>(s, self.stream, value, (&mut self.write, place.after(self.base)), room);
    }

    /// The tensor that is read, and the index of its first element.
    #[inline(always)]
    pub(crate) fn source(&self) -> (T::Ref<'_>, usize) {
        match self.read {
            Some(read) => (T::shorter(read), 0),
            None => (T::as_ref(&self.write), self.base),
        }
    }

    /// The elements of a piece. Where they are overwritten, their old values are copied to `copy`, so
    /// that there is one kind of loop. [`Self::finish`] comes after the loop.
    #[inline(always)]
    pub(crate) fn piece<'b, S: Simd>(
        &'b mut self,
        s: S,
        (start, len): (usize, usize),
        ahead: Ahead,
        copy: &'b mut [f32],
        (read, write): (&'b mut T::Room, &'b mut T::Room),
    ) -> Place<'b> {
        let tensors = (self.read.map(|read| T::shorter(read)), &mut self.write, self.base);
        let (read, write) = T::pair(s, tensors, (start, len), ahead, (copy, read, write));
        Place { read, write }
    }

    /// The place for the new values of `len` neighbours from element `start` on. [`Self::finish`] comes after
    /// they are written.
    #[inline(always)]
    pub(crate) fn place<'b>(&'b mut self, start: usize, len: usize, room: &'b mut T::Room) -> &'b mut [f32] {
        T::place(&mut self.write, (start - self.base, len), room)
    }

    /// Stores what a loop over a piece has put into a room.
    #[inline(always)]
    pub(crate) fn finish<S: Simd>(&mut self, s: S, start: usize, len: usize, room: &T::Room) {
        T::finish(s, self.stream, &mut self.write, (start - self.base, len), room);
    }
}

#[cfg(test)]
mod tests {
    use super::{LANES, LINE, table};

    #[test]
    fn safety_contract_tables_begin_with_a_line_of_the_caches() {
        const TILES: usize = 3;
        let mut scratch = [1.0; LANES * TILES * 2 + 2 * (LINE - 1)];
        for before in 0..LINE {
            let mut rest = &mut scratch[before..][..LANES * TILES * 2 + LINE - 1];
            let tiles = table::<2>(&mut rest, TILES);
            assert_eq!(tiles.len(), TILES, "the scratch of a call is long enough");
            if align_of::<f64>() == size_of::<f64>() {
                assert!(tiles.as_ptr().addr().is_multiple_of(64));
            }
            assert_eq!(tiles[TILES - 1], [[0.0; LANES]; 2], "the last tile is cleared");
        }
    }
}
