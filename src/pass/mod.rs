//! One walk over a tensor each: moments, apply, reduce, gradient; and the geometry that they share.

pub(crate) mod apply;
pub(crate) mod gradient;
pub(crate) mod moments;
pub(crate) mod reduce;

use crate::config::Granularity;
use crate::shape::Shape;
use crate::simd::{LANES, Lanes, Simd};

/// The vectors of a block: values of one channel that are summed in f32 before f64 takes over.
pub(crate) const BLOCK_VECTORS: usize = 16;
/// The blocks whose results are merged in sequence; the parts of a channel are merged in sequence again, which
/// keeps the rounding errors of millions of merges from adding up, and lets threads take parts.
pub(crate) const BLOCKS_PER_PART: usize = 256;
/// The columns that one table of coefficients or sums covers at most.
const STRIP_COLUMNS: usize = 512;

/// How a tensor is walked: which values share a block, and in which order blocks are merged. It depends on the
/// shape alone, and so do the bits of every result.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Walk {
    /// There is nothing to walk.
    Empty,
    /// Sixteen and more neighbours belong to one channel: lanes are neighbours.
    Planar(Planar),
    /// Fewer than sixteen neighbours belong to one channel: lanes are columns of a matrix.
    Columns(Columns),
}

/// Runs of `inner` neighbours, channel after channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Planar {
    pub(crate) outer: usize,
    pub(crate) channels: usize,
    /// At least 1; at least 16 unless there is one channel.
    pub(crate) inner: usize,
    /// The runs of one channel that share a block.
    pub(crate) runs_per_block: usize,
}

/// A matrix of `rows` full rows of `width` columns and one shorter row of `rest` columns, where column `j` belongs
/// to channel `(j / inner) % channels`.
///
/// A few channels would leave most lanes of a row idle; then several rows of the tensor are one row of the matrix.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Columns {
    pub(crate) rows: usize,
    pub(crate) width: usize,
    pub(crate) rest: usize,
    pub(crate) inner: usize,
    pub(crate) channels: usize,
}

/// A range of channels whose columns are worked together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Strip {
    pub(crate) first_channel: usize,
    pub(crate) channels: usize,
    pub(crate) first_column: usize,
    pub(crate) columns: usize,
}

impl Walk {
    pub(crate) const fn new(shape: Shape) -> Self {
        if shape.is_empty() {
            return Self::Empty;
        }
        let (outer, channels, inner) = (shape.outer(), shape.channels(), shape.inner());
        if channels == 1 {
            return Self::Planar(Planar::new(1, 1, outer * inner));
        }
        if inner >= LANES {
            return Self::Planar(Planar::new(outer, channels, inner));
        }
        // As many rows as fill whole vectors together: sixteen over the greatest common divisor with the width.
        let row = channels * inner;
        let shift = LANES.trailing_zeros() - (row | LANES).trailing_zeros();
        let shift = if row < 16 * LANES && outer >= 64 << shift { shift } else { 0 };
        let (rows, rest) = (outer >> shift, (outer & ((1 << shift) - 1)) * row);
        Self::Columns(Columns { rows, width: row << shift, rest, inner, channels })
    }

    /// The f64 values of a table with `fields` values per column.
    pub(crate) const fn table_len(self, fields: usize) -> usize {
        match self {
            Self::Empty | Self::Planar(_) => 0,
            Self::Columns(columns) => columns.strip(0).columns.div_ceil(LANES) * LANES * fields,
        }
    }
}

impl Planar {
    const fn new(outer: usize, channels: usize, inner: usize) -> Self {
        let runs_per_block = match BLOCK_VECTORS.checked_div(inner.div_ceil(LANES)) {
            Some(runs @ 1..) => runs,
            _ => 1,
        };
        Self { outer, channels, inner, runs_per_block }
    }

    /// The position of a run.
    #[inline(always)]
    pub(crate) const fn start(&self, outer: usize, channel: usize) -> usize {
        (outer * self.channels + channel) * self.inner
    }

    /// The blocks of a channel: its runs, several to a block while they fit, or each in pieces of 256 values. The
    /// rows of such a block are (pieces of) runs.
    #[inline(always)]
    pub(crate) fn blocks(&self, channel: usize) -> impl Iterator<Item = RowBlock> {
        let this = *self;
        let (mut outer, mut start) = (0, 0);
        core::iter::from_fn(move || {
            let rows = this.runs_per_block.min(this.outer - outer);
            let columns = (LANES * BLOCK_VECTORS).min(this.inner - start);
            let width = this.channels * this.inner;
            let column = channel * this.inner + start;
            let block = RowBlock { start: outer * width, rows, width, column, columns };
            start += columns;
            if start == this.inner {
                start = 0;
                outer += rows;
            }
            (rows != 0).then_some(block)
        })
    }
}

impl Columns {
    /// The strip that starts with a given channel; its width does not influence any result.
    pub(crate) const fn strip(&self, first_channel: usize) -> Strip {
        if self.width != self.channels * self.inner || self.width <= STRIP_COLUMNS {
            return Strip { first_channel, channels: self.channels, first_column: 0, columns: self.width };
        }
        // Whole tiles and whole channels: sixteen channels of any inner size.
        let most = match STRIP_COLUMNS.checked_div(LANES * self.inner) {
            Some(sixteens) => sixteens * LANES,
            None => LANES,
        };
        let rest = self.channels - first_channel;
        let channels = if rest < most { rest } else { most };
        Strip { first_channel, channels, first_column: first_channel * self.inner, columns: channels * self.inner }
    }

    /// The strips that cover all channels.
    #[inline(always)]
    pub(crate) fn strips(self) -> impl Iterator<Item = Strip> {
        let mut first = 0;
        core::iter::from_fn(move || {
            let strip = (first < self.channels).then(|| self.strip(first))?;
            first += strip.channels;
            Some(strip)
        })
    }

    /// The number of values in a column.
    #[inline(always)]
    pub(crate) const fn column_count(&self, column: usize) -> f64 {
        (self.rows + (column < self.rest) as usize) as f64
    }
}

/// Some columns of some rows of a matrix.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RowBlock {
    /// The position of the first row.
    pub(crate) start: usize,
    pub(crate) rows: usize,
    /// The width of the matrix: the distance from one row to the next.
    pub(crate) width: usize,
    /// The first column of the block.
    pub(crate) column: usize,
    pub(crate) columns: usize,
}

impl RowBlock {
    /// The position of the block's first element.
    #[inline(always)]
    pub(crate) const fn first(&self) -> usize {
        self.start + self.column
    }

    /// The whole rows that the block is part of. One check here saves one per row.
    #[inline(always)]
    pub(crate) fn rows_of(self, tensor: &[f32]) -> impl Iterator<Item = &[f32]> + Clone {
        range(tensor, self.start, self.rows * self.width).chunks_exact(self.width.max(1))
    }

    /// [`RowBlock::rows_of`], mutable.
    #[inline(always)]
    fn rows_of_mut(self, tensor: &mut [f32]) -> impl Iterator<Item = &mut [f32]> {
        range_mut(tensor, self.start, self.rows * self.width).chunks_exact_mut(self.width.max(1))
    }

    /// The block's part of each of its rows.
    #[inline(always)]
    pub(crate) fn parts_of(self, tensor: &[f32]) -> impl Iterator<Item = &[f32]> + Clone {
        self.rows_of(tensor).map(move |row| range(row, self.column, self.columns))
    }

    /// The block sixteen columns at a time; the last tile may have fewer.
    #[inline(always)]
    pub(crate) fn tiles(self) -> impl Iterator<Item = Self> {
        let mut rest = self;
        core::iter::from_fn(move || {
            let columns = rest.columns.min(LANES);
            let tile = Self { columns, ..rest };
            rest.column += columns;
            rest.columns -= columns;
            (columns != 0).then_some(tile)
        })
    }

    /// Up to sixteen values of a row of the matrix, and +0.0 in the lanes beyond the block's columns.
    #[inline(always)]
    pub(crate) fn load<S: Simd>(&self, s: S, row: &[f32]) -> S::F32 {
        load(s, range(row, self.column, self.columns))
    }

    /// Overwrites up to sixteen values of a row of the matrix.
    #[inline(always)]
    pub(crate) fn store<S: Simd>(&self, s: S, value: S::F32, row: &mut [f32]) {
        store(s, value, range_mut(row, self.column, self.columns));
    }
}

impl Columns {
    /// The full rows of a strip, at most so many at a time.
    #[inline(always)]
    pub(crate) fn full_rows(&self, strip: Strip, most: usize) -> impl Iterator<Item = RowBlock> {
        let Self { rows: total, width, .. } = *self;
        let mut row = 0;
        core::iter::from_fn(move || {
            let rows = most.min(total - row);
            let block =
                RowBlock { start: row * width, rows, width, column: strip.first_column, columns: strip.columns };
            row += rows;
            (rows != 0).then_some(block)
        })
    }

    /// The last, shorter row of the matrix, if there is one.
    #[inline(always)]
    pub(crate) fn shorter_row(&self) -> Option<RowBlock> {
        let Self { rows, width, rest, .. } = *self;
        (rest != 0).then_some(RowBlock { start: rows * width, rows: 1, width: rest, column: 0, columns: rest })
    }

    /// All rows of a strip, at most so many at a time.
    #[inline(always)]
    pub(crate) fn all_rows(&self, strip: Strip, most: usize) -> impl Iterator<Item = RowBlock> {
        self.full_rows(strip, most).chain(self.shorter_row())
    }
}

impl Strip {
    /// The channels, each once.
    #[inline(always)]
    pub(crate) fn range(self) -> core::ops::Range<usize> {
        self.first_channel..self.first_channel + self.channels
    }

    /// The channels of the strip's columns, in order: each column's own channel.
    #[inline(always)]
    pub(crate) fn column_channels(self, columns: &Columns) -> impl Iterator<Item = usize> {
        let inner = columns.inner;
        let end = self.first_channel + self.channels;
        let (mut channel, mut position) = (self.first_channel, 0);
        (0..self.columns).map(move |_| {
            let this = channel;
            position += 1;
            if position == inner {
                position = 0;
                channel += 1;
                if channel == end {
                    channel = self.first_channel;
                }
            }
            this
        })
    }

    /// The columns of the strip that belong to one channel, counted from the strip's start, in order.
    #[inline(always)]
    pub(crate) fn columns_of(self, columns: &Columns, channel: usize) -> impl Iterator<Item = usize> {
        let (inner, period) = (columns.inner, self.channels * columns.inner);
        let first = (channel - self.first_channel) * inner;
        let (mut start, mut position) = (first, 0);
        core::iter::from_fn(move || {
            if position == inner {
                position = 0;
                start += period;
            }
            let column = start + position;
            position += 1;
            (column < self.columns).then_some(column)
        })
    }
}

/// The values per tile of a table: sixteen columns, field after field.
pub(crate) type Tile<const FIELDS: usize> = [Lanes<f64>; FIELDS];

/// The scratch of a call as a table of tiles, as many as `columns` need.
#[inline(always)]
pub(crate) fn table<const FIELDS: usize>(scratch: &mut [f64], columns: usize) -> &mut [Tile<FIELDS>] {
    let tiles = scratch.as_chunks_mut::<LANES>().0.as_chunks_mut::<FIELDS>().0;
    let tiles = tiles.get_mut(..columns.div_ceil(LANES)).unwrap_or_default();
    // The last tile may have lanes without a column: what the scratch held there must not be taken for theirs.
    if let Some(last) = tiles.last_mut() {
        *last = [[0.0; LANES]; FIELDS];
    }
    tiles
}

/// The value of one lane.
#[inline(always)]
pub(crate) fn lane_of(lanes: &Lanes<f64>, lane: usize) -> f64 {
    // The remainder is the lane itself, and saves a check.
    lanes[lane % LANES]
}

/// Writes consecutive fields of one column into a table.
#[inline(always)]
pub(crate) fn put_column<const FIELDS: usize, const N: usize>(
    table: &mut [Tile<FIELDS>],
    column: usize,
    first_field: usize,
    values: [f64; N],
) {
    if let Some(tile) = table.get_mut(column / LANES) {
        for (lanes, value) in tile.iter_mut().skip(first_field).zip(values) {
            lanes[column % LANES] = value;
        }
    }
}

/// A range of a slice, or nothing if it is not all there; callers have checked that it is.
#[inline(always)]
pub(crate) fn range<T>(slice: &[T], start: usize, len: usize) -> &[T] {
    let range = slice.get(start..).and_then(|rest| rest.get(..len));
    debug_assert!(range.is_some(), "{start} + {len} is past {}", slice.len());
    range.unwrap_or_default()
}

/// [`range`], mutable.
#[inline(always)]
pub(crate) fn range_mut<T>(slice: &mut [T], start: usize, len: usize) -> &mut [T] {
    slice.get_mut(start..).and_then(|rest| rest.get_mut(..len)).unwrap_or_default()
}

/// Up to sixteen values from memory, and +0.0 in the lanes beyond.
#[inline(always)]
pub(crate) fn load<S: Simd>(s: S, from: &[f32]) -> S::F32 {
    match from.try_into() {
        Ok(lanes) => s.load(lanes),
        Err(_) => s.load_partial(from),
    }
}

/// Overwrites the range of a tensor that starts with element `first`, if there is such a tensor.
#[inline(always)]
pub(crate) fn store_at<S: Simd>(s: S, value: S::F32, tensor: Option<&mut [f32]>, (first, lanes): (usize, usize)) {
    if let Some(tensor) = tensor {
        store(s, value, range_mut(tensor, first, lanes));
    }
}

/// Overwrites up to sixteen values in memory.
#[inline(always)]
fn store<S: Simd>(s: S, value: S::F32, to: &mut [f32]) {
    match <&mut Lanes<f32>>::try_from(&mut *to) {
        Ok(lanes) => s.store(value, lanes),
        Err(_) => s.store_partial(value, to),
    }
}

/// Which elements are kept, and how.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Keep<'a> {
    /// What says so.
    pub(crate) gates: Gates<'a>,
    /// What kept elements are multiplied by.
    pub(crate) scale: f32,
}

/// What decides whether an element is kept.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Gates<'a> {
    /// All elements are kept.
    Open,
    /// No element is kept.
    Shut,
    /// A mask bit for every element.
    Each(&'a [u8]),
    /// A mask bit for many elements.
    Shared(SharedMask<'a>),
}

/// A mask with one bit for a whole channel of a sample, or for a whole sample.
#[derive(Debug, Clone, Copy)]
pub(crate) struct SharedMask<'a> {
    mask: &'a [u8],
    /// The neighbours that share a bit.
    run: usize,
    /// The runs after which the next sample begins.
    runs_per_sample: usize,
    /// The bits of one sample, for which its runs take turns.
    bits_per_sample: usize,
}

impl<'a> SharedMask<'a> {
    /// The mask of a tensor that is not empty.
    pub(crate) const fn new(shape: Shape, granularity: Granularity, mask: &'a [u8]) -> Self {
        let (positions, channels, inner) = (shape.positions(), shape.channels(), shape.inner());
        match granularity {
            Granularity::Element => Self { mask, run: 1, runs_per_sample: 1, bits_per_sample: 1 },
            Granularity::Channel => {
                Self { mask, run: inner, runs_per_sample: positions * channels, bits_per_sample: channels }
            }
            Granularity::Sample => {
                Self { mask, run: positions * channels * inner, runs_per_sample: 1, bits_per_sample: 1 }
            }
        }
    }

    /// Whether an element is kept, and how many from it on share its bit.
    #[inline(always)]
    fn at(&self, element: usize) -> (bool, usize) {
        let run = self.run.max(1);
        let (bit, _) = self.bit(element / run);
        let kept = self.mask.get(bit / 8).is_some_and(|byte| byte >> (bit % 8) & 1 == 1);
        (kept, run - element % run)
    }

    /// The bit of a run, and how many runs from it on have one bit after the other.
    #[inline(always)]
    fn bit(&self, run: usize) -> (usize, usize) {
        let (runs, bits) = (self.runs_per_sample.max(1), self.bits_per_sample.max(1));
        let within = run % runs % bits;
        (run / runs * bits + within, bits - within)
    }

    /// The bits of sixteen elements from `first` on.
    #[inline(never)]
    #[expect(clippy::cast_possible_truncation, reason = "sixteen bits")]
    fn sixteen_bits(&self, first: usize) -> u16 {
        let (mut bits, mut lane) = (0_u32, 0);
        while lane < LANES {
            let (drawn, lanes) = if self.run == 1 {
                let (bit, runs) = self.bit(first + lane);
                (u32::from(sixteen_bits(self.mask, bit)), runs)
            } else {
                let (kept, elements) = self.at(first + lane);
                (if kept { u32::MAX } else { 0 }, elements)
            };
            let lanes = lanes.min(LANES - lane);
            bits |= (drawn & ((1 << lanes) - 1)) << lane;
            lane += lanes;
        }
        bits as u16
    }
}

impl Keep<'_> {
    /// The same for the elements of a range alone, where one bit may decide about them all.
    #[inline(always)]
    pub(crate) fn within(self, first: usize, len: usize) -> Self {
        let Gates::Shared(mask) = self.gates else { return self };
        match mask.at(first) {
            (_, shared) if shared < len => self,
            (true, _) => Self { gates: Gates::Open, ..self },
            (false, _) => Self { gates: Gates::Shut, ..self },
        }
    }

    /// Zeros the lanes of dropped elements, where lane 0 is element `first`.
    #[inline(always)]
    pub(crate) fn select<S: Simd>(&self, s: S, first: usize, value: S::F32) -> S::F32 {
        match self.gates {
            Gates::Open => value,
            Gates::Shut => s.splat(0.0),
            Gates::Each(mask) => s.keep(s.mask(sixteen_bits(mask, first)), value),
            Gates::Shared(mask) => s.keep(s.mask(mask.sixteen_bits(first)), value),
        }
    }
}

/// Sixteen bits of a mask from bit `first` on; bits past its end are 0.
#[inline(always)]
#[expect(clippy::cast_possible_truncation, reason = "the lowest sixteen bits are the ones wanted")]
fn sixteen_bits(mask: &[u8], first: usize) -> u16 {
    let bytes = mask.get(first / 8..).unwrap_or_default();
    let word = match bytes.first_chunk() {
        Some(&chunk) => u32::from_le_bytes(chunk),
        None => last_bits(bytes),
    };
    (word >> (first % 8)) as u16
}

/// The bits of fewer than four bytes.
#[cold]
#[inline(never)]
fn last_bits(bytes: &[u8]) -> u32 {
    bytes.iter().rev().fold(0, |word, &byte| word << 8 | u32::from(byte))
}

/// The tensor that an elementwise pass reads and the one that it writes.
pub(crate) trait Elements {
    /// The elements of a run: read from one place, written to another or to the same.
    fn run(&mut self, start: usize, len: usize) -> impl Run;
    /// The whole rows that a block is part of.
    fn rows(&mut self, block: RowBlock) -> impl Iterator<Item = impl Slot<[f32]>>;
    /// The whole of what is read.
    fn source(&self) -> &[f32];
    /// The whole of what is written.
    fn target(&mut self) -> &mut [f32];
}

/// Elements that are read and written in vectors.
pub(crate) trait Run {
    /// The whole vectors, in order.
    fn chunks(&mut self) -> impl Iterator<Item = impl Slot<Lanes<f32>>>;
    /// What is left after the whole vectors.
    fn rest(&mut self) -> impl Slot<[f32]>;
}

/// The place of one vector.
pub(crate) trait Slot<T: ?Sized> {
    fn input(&self) -> &T;
    fn output(&mut self) -> &mut T;
}

/// Input and output apart.
#[derive(Debug)]
pub(crate) struct Apart<'a> {
    pub(crate) input: &'a [f32],
    pub(crate) output: &'a mut [f32],
}

/// The output overwrites the input.
#[derive(Debug)]
pub(crate) struct InPlace<'a> {
    pub(crate) values: &'a mut [f32],
}

impl Elements for Apart<'_> {
    #[inline(always)]
    fn run(&mut self, start: usize, len: usize) -> impl Run {
        Apart { input: range(self.input, start, len), output: range_mut(self.output, start, len) }
    }

    #[inline(always)]
    fn rows(&mut self, block: RowBlock) -> impl Iterator<Item = impl Slot<[f32]>> {
        block.rows_of(self.input).zip(block.rows_of_mut(self.output))
    }

    #[inline(always)]
    fn source(&self) -> &[f32] {
        self.input
    }

    #[inline(always)]
    fn target(&mut self) -> &mut [f32] {
        self.output
    }
}

impl Elements for InPlace<'_> {
    #[inline(always)]
    fn run(&mut self, start: usize, len: usize) -> impl Run {
        InPlace { values: range_mut(self.values, start, len) }
    }

    #[inline(always)]
    fn rows(&mut self, block: RowBlock) -> impl Iterator<Item = impl Slot<[f32]>> {
        block.rows_of_mut(self.values)
    }

    #[inline(always)]
    fn source(&self) -> &[f32] {
        self.values
    }

    #[inline(always)]
    fn target(&mut self) -> &mut [f32] {
        self.values
    }
}

impl Run for Apart<'_> {
    #[inline(always)]
    fn chunks(&mut self) -> impl Iterator<Item = impl Slot<Lanes<f32>>> {
        self.input.as_chunks().0.iter().zip(self.output.as_chunks_mut().0)
    }

    #[inline(always)]
    fn rest(&mut self) -> impl Slot<[f32]> {
        (self.input.as_chunks::<LANES>().1, self.output.as_chunks_mut::<LANES>().1)
    }
}

impl Run for InPlace<'_> {
    #[inline(always)]
    fn chunks(&mut self) -> impl Iterator<Item = impl Slot<Lanes<f32>>> {
        self.values.as_chunks_mut().0.iter_mut()
    }

    #[inline(always)]
    fn rest(&mut self) -> impl Slot<[f32]> {
        self.values.as_chunks_mut::<LANES>().1
    }
}

impl<T: ?Sized> Slot<T> for (&T, &mut T) {
    #[inline(always)]
    fn input(&self) -> &T {
        self.0
    }

    #[inline(always)]
    fn output(&mut self) -> &mut T {
        self.1
    }
}

impl<T: ?Sized> Slot<T> for &mut T {
    #[inline(always)]
    fn input(&self) -> &T {
        self
    }

    #[inline(always)]
    fn output(&mut self) -> &mut T {
        self
    }
}
