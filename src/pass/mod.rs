//! One walk over a tensor each: moments, apply, reduce, gradient; and the geometry that they share.
//!
//! A tensor is worked in groups of channels: statistics, then coefficients, then elements, before the next group. What is
//! known of a group is a table of sixteen columns a tile: a channel each where lanes are neighbours of one channel, a column
//! of the matrix each where lanes are columns.
//!
//! Statistics are made of *parts* of 256 blocks and elements are worked in *units* (runs or rows). Both depend on the
//! shape alone; how many of them a task takes does not influence any result.

pub(crate) mod apply;
pub(crate) mod channelwise;
pub(crate) mod gradient;
pub(crate) mod keep;
pub(crate) mod moments;
pub(crate) mod reduce;

use core::ops::{Add, Range};

use keep::{BITS, Buffer, Keep};

use crate::channel::Channels;
use crate::shape::Shape;
use crate::simd::{CHANNELWISE, LANES, Lane, Lanes, Simd, first_lanes};
use crate::slices::{range, range_mut, take_front};

/// The vectors of a block: values of one channel that are summed in f32 before f64 takes over.
pub(crate) const BLOCK_VECTORS: usize = 16;
/// The values of a block at most, where they are neighbours.
const BLOCK_VALUES: usize = LANES * BLOCK_VECTORS;
/// The blocks whose results are merged in sequence; the parts of a channel are merged in sequence again, which
/// keeps the rounding errors of millions of merges from adding up, and lets threads take parts.
const BLOCKS_PER_PART: usize = 256;
/// The rows that a matrix has at least after several of its rows have become one.
const FOLDED_ROWS: usize = 64;
/// The columns that it has at most then, unless fewer would not fill whole vectors.
const FOLDED_COLUMNS: usize = 256;
/// The values of a page of memory, beyond which the hardware does not read ahead.
const PAGE: usize = 1024;
/// The values of a tensor that caches of the second level hold.
const CACHED_TENSOR: usize = 1 << 18;
/// The columns that one table of coefficients or sums covers at most.
const STRIP_COLUMNS: usize = 4096;
/// The longest runs whose elements are worked together with those of the next channel: runs of whole vectors, and others, of which
/// most vectors lie across two cache lines and the last one is not whole.
const JOINED_WHOLE: usize = 192;
const JOINED_RAGGED: usize = 1024;
/// The tiles of a group of runs that several tasks share, at least if there are as many: they meet after each walk over a group.
const SHARED_TILES: usize = 16;
/// The columns at most that a group gets in order to be shared.
const SHARED_COLUMNS: usize = 4 * STRIP_COLUMNS;
/// The least elements that are shared: a hundred microseconds of work and more. To wake a thread and to wait for it takes up
/// to fifty in a virtual machine.
pub(crate) const LEAST_SHARED: usize = 1 << 19;
/// The values in which the one run of a tensor with one channel is worked.
const LONG_RUN: usize = 1 << 16;

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
    outer: usize,
    channels: usize,
    /// At least 1; at least 16 unless there is one channel.
    inner: usize,
    /// The runs of one channel that share a block.
    runs_per_block: usize,
}

/// A matrix of `rows` full rows of `width` columns and one shorter row of `rest` columns, where column `j` belongs
/// to channel `(j / inner) % channels`.
///
/// A few channels would leave most lanes of a row idle; then several rows of the tensor are one row of the matrix.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Columns {
    rows: usize,
    width: usize,
    rest: usize,
    inner: usize,
    channels: usize,
}

/// A range of channels that are worked together, and their columns in a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Group {
    pub(crate) first_channel: usize,
    pub(crate) channels: usize,
    /// The column of the matrix that is the first of the table.
    pub(crate) first_column: usize,
    pub(crate) columns: usize,
    /// The neighbouring columns of one channel; the channels take turns.
    inner: usize,
}

/// Some neighbours whose elements are worked together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Unit {
    pub(crate) start: usize,
    pub(crate) len: usize,
    /// The column of the table that the first one belongs to.
    pub(crate) column: usize,
    /// The columns from one to the next.
    pub(crate) step: usize,
}

/// Some columns of a group's table and a part of their values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Piece {
    pub(crate) part: usize,
    /// The first column, a multiple of sixteen where lanes are columns.
    pub(crate) first: usize,
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
        let whole = LANES.trailing_zeros() - (row | LANES).trailing_zeros();
        let mut shift = if row < 16 * LANES && outer >= FOLDED_ROWS << whole { whole } else { 0 };
        // Twice as many as long as a row is narrow.
        while shift >= whole && row << (shift + 1) <= FOLDED_COLUMNS && outer >= FOLDED_ROWS << (shift + 1) {
            shift += 1;
        }
        let (rows, rest) = (outer >> shift, (outer & ((1 << shift) - 1)) * row);
        Self::Columns(Columns { rows, width: row << shift, rest, inner, channels })
    }

    /// The group that starts with a given channel. Its size does not influence any result. It has so many values at most where
    /// its statistics are wanted before its elements, and more channels than otherwise where several tasks share it.
    const fn group(&self, first_channel: usize, values: usize, tasks: usize) -> Group {
        match self {
            Self::Empty => Group { first_channel, channels: 0, first_column: 0, columns: 0, inner: 1 },
            Self::Planar(planar) => planar.group(first_channel, values, tasks),
            Self::Columns(columns) => columns.group(first_channel, tasks),
        }
    }

    /// The groups that cover all channels.
    pub(crate) fn groups(self, values: usize, tasks: usize) -> impl Iterator<Item = Group> {
        let channels = match self {
            Self::Empty => 0,
            Self::Planar(planar) => planar.channels,
            Self::Columns(columns) => columns.channels,
        };
        let mut first = 0;
        core::iter::from_fn(move || {
            let group = (first < channels).then(|| self.group(first, values, tasks))?;
            first += group.channels;
            Some(group)
        })
    }

    /// The f64 values of a table with `fields` values per column; without vector registers no call needs one.
    pub(crate) const fn table_len(self, fields: usize, tasks: usize) -> usize {
        // The first group has the most columns.
        if CHANNELWISE { 0 } else { self.group(0, usize::MAX, tasks).tiles() * LANES * fields }
    }

    /// The groups of one tile each as which a group of runs is worked; others stay as they are.
    #[inline(always)]
    pub(crate) fn tiles_of(&self, group: Group) -> impl Iterator<Item = TileGroup> + use<> {
        let all = group.channels;
        let most = if matches!(self, Self::Planar(_)) { LANES } else { all.max(1) };
        (0..all).step_by(most).map(move |first| {
            let channels = most.min(all - first);
            let columns = if channels == all { group.columns } else { channels };
            let group = Group { first_channel: group.first_channel + first, channels, columns, ..group };
            TileGroup { group, first, all }
        })
    }

    /// The values of a group.
    pub(crate) fn values_in(&self, group: Group) -> usize {
        match self {
            Self::Empty => 0,
            Self::Planar(planar) => planar.outer * planar.inner * group.channels,
            Self::Columns(columns) => columns.rows * group.columns + columns.rest,
        }
    }

    /// Whether lanes are columns of a matrix.
    pub(crate) const fn has_columns(&self) -> bool {
        matches!(self, Self::Columns(_))
    }

    /// The parts of which the statistics of every column are made.
    pub(crate) const fn parts(&self) -> usize {
        match self {
            Self::Empty => 0,
            Self::Planar(planar) => planar.blocks().div_ceil(BLOCKS_PER_PART),
            Self::Columns(columns) => columns.all_rows().div_ceil(BLOCK_VECTORS * BLOCKS_PER_PART),
        }
    }

    /// The values of a column in the parts before a given one.
    #[inline(always)]
    pub(crate) fn values_before(&self, part: usize) -> f64 {
        match self {
            Self::Empty => 0.0,
            Self::Planar(planar) => planar.values_before(part * BLOCKS_PER_PART) as f64,
            Self::Columns(columns) => columns.rows.min(part * (BLOCK_VECTORS * BLOCKS_PER_PART)) as f64,
        }
    }

    /// The runs or rows of a group, which elementwise work is divided into.
    pub(crate) fn units(&self, group: Group) -> usize {
        match self {
            Self::Empty => 0,
            Self::Planar(planar) => planar.run_rows() * group.channels,
            Self::Columns(columns) => columns.all_rows(),
        }
    }

    /// A unit of a group.
    pub(crate) fn unit(&self, group: Group, unit: usize) -> Unit {
        match self {
            Self::Empty => Unit { start: 0, len: 0, column: 0, step: 0 },
            Self::Planar(planar) => {
                let start = self.unit_start(group, unit);
                let len = planar.run_len().min(planar.outer * planar.channels * planar.inner - start);
                Unit { start, len, column: unit % group.channels.max(1), step: 0 }
            }
            Self::Columns(columns) => {
                let len = if unit == columns.rows { columns.rest } else { group.columns };
                Unit { start: unit * columns.width + group.first_column, len, column: 0, step: 1 }
            }
        }
    }

    /// An element of the tensor that is not after the first of a unit of a group, and not before the end of all units before it.
    pub(crate) fn unit_start(&self, group: Group, unit: usize) -> usize {
        match self {
            Self::Empty => 0,
            Self::Planar(planar) => {
                let channels = group.channels.max(1);
                planar.run_start(unit / channels, group.first_channel + unit % channels)
            }
            Self::Columns(columns) => unit * columns.width,
        }
    }
}

/// Some channels of a group whose table is a part of the group's.
#[derive(Debug, Clone, Copy)]
pub(crate) struct TileGroup {
    pub(crate) group: Group,
    /// The first of them in the group that they are of, and how many that has.
    first: usize,
    all: usize,
}

impl TileGroup {
    /// Their table from its first tile on.
    #[inline(always)]
    pub(crate) fn table<'a, const FIELDS: usize>(&self, table: &'a [Tile<FIELDS>]) -> &'a [Tile<FIELDS>] {
        table.get(self.first / LANES..).unwrap_or_default()
    }

    /// [`Self::table`], mutable.
    #[inline(always)]
    pub(crate) fn table_mut<'a, const FIELDS: usize>(&self, table: &'a mut [Tile<FIELDS>]) -> &'a mut [Tile<FIELDS>] {
        table.get_mut(self.first / LANES..).unwrap_or_default()
    }

    /// Their units among some of those of all: in each row those of the channels follow each other.
    #[inline(always)]
    pub(crate) fn units(&self, units: Range<usize>) -> Range<usize> {
        let (channels, all) = (self.group.channels, self.all.max(1));
        if channels == all {
            return units;
        }
        let before = |unit: usize| unit / all * channels + (unit % all).saturating_sub(self.first).min(channels);
        before(units.start)..before(units.end)
    }

    /// What a piece has of their columns, if anything.
    #[inline(always)]
    pub(crate) fn piece(&self, piece: Piece) -> Option<Piece> {
        if self.group.channels == self.all {
            return Some(piece);
        }
        let first = piece.first.max(self.first);
        let columns = (piece.first + piece.columns).min(self.first + self.group.channels).saturating_sub(first);
        (columns != 0).then(|| Piece { first: first - self.first, columns, ..piece })
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

    const fn group(&self, first_channel: usize, values: usize, tasks: usize) -> Group {
        let samples = self.outer * self.inner;
        let is_shared = tasks > 1 && samples * self.channels >= LEAST_SHARED;
        let limit = if is_shared { LANES * at_least(SHARED_TILES, shared_tiles(samples, LANES)) } else { LANES };
        let most = match values.checked_div(samples) {
            Some(0) => 1,
            Some(channels @ ..LANES) => channels,
            Some(channels) if channels < limit => channels / LANES * LANES,
            _ => limit,
        };
        let rest = self.channels - first_channel;
        let channels = if rest < most { rest } else { most };
        Group { first_channel, channels, first_column: 0, columns: channels, inner: 1 }
    }

    /// The pieces in which the runs of a block's height are cut.
    const fn blocks_per_run(&self) -> usize {
        self.inner.div_ceil(BLOCK_VALUES)
    }

    const fn blocks(&self) -> usize {
        div_ceil(self.outer, self.runs_per_block).saturating_mul(self.blocks_per_run())
    }

    /// The blocks of a part in one channel.
    pub(crate) fn blocks_in(&self, part: usize) -> usize {
        BLOCKS_PER_PART.min(self.blocks() - part * BLOCKS_PER_PART)
    }

    /// The values of one channel in its first blocks.
    #[inline(always)]
    fn values_before(&self, block: usize) -> usize {
        let per_run = self.blocks_per_run().max(1);
        let runs = (block / per_run).saturating_mul(self.runs_per_block);
        if runs >= self.outer { self.outer * self.inner } else { runs * self.inner + block % per_run * BLOCK_VALUES }
    }

    /// The blocks of a part, each in the first channel: several runs to a block while they fit, or each run in pieces of
    /// 256 values. The rows of a block are (pieces of) runs.
    #[inline(always)]
    pub(crate) fn blocks_of(&self, part: usize) -> impl Iterator<Item = RowBlock> {
        self.stretches_of::<1>(part)
    }

    /// The same, up to so many blocks of one run together.
    #[inline(always)]
    pub(crate) fn stretches_of<const BLOCKS: usize>(&self, part: usize) -> impl Iterator<Item = RowBlock> {
        let this = *self;
        let first = part * BLOCKS_PER_PART;
        let per_run = this.blocks_per_run().max(1);
        let (mut outer, mut start) = (first / per_run * this.runs_per_block, first % per_run * BLOCK_VALUES);
        let mut blocks = BLOCKS_PER_PART;
        core::iter::from_fn(move || {
            if outer >= this.outer || blocks == 0 {
                return None;
            }
            let rows = this.runs_per_block.min(this.outer - outer);
            let columns = (blocks.min(BLOCKS) * BLOCK_VALUES).min(this.inner - start);
            blocks -= columns.div_ceil(BLOCK_VALUES);
            let width = this.channels * this.inner;
            let block = RowBlock { start: outer * width, rows, width, column: start, columns };
            start += columns;
            if start == this.inner {
                start = 0;
                outer += rows;
            }
            Some(block)
        })
    }

    /// A block of another channel at the place of one in the first channel.
    #[inline(always)]
    pub(crate) const fn in_channel(&self, block: RowBlock, channel: usize) -> RowBlock {
        RowBlock { column: block.column + channel * self.inner, ..block }
    }

    /// The length of the runs that elements are worked in; with one channel the last may be shorter.
    #[inline(always)]
    const fn run_len(&self) -> usize {
        if self.channels == 1 && self.inner > LONG_RUN { LONG_RUN } else { self.inner }
    }

    /// The runs of each channel.
    #[inline(always)]
    fn run_rows(&self) -> usize {
        if self.channels == 1 { div_ceil(self.inner, self.run_len()) } else { self.outer }
    }

    #[inline(always)]
    fn run_start(&self, row: usize, channel: usize) -> usize {
        (row * self.channels + channel) * self.run_len()
    }

    /// The rows of a group among some of its units, each all of its runs in one sample, which are neighbours; and the units
    /// before and after. Nothing where runs are long enough to be worked alone.
    #[inline(always)]
    pub(crate) fn rows_of(&self, group: Group, units: Range<usize>) -> Option<(RowBlock, [Range<usize>; 2])> {
        let channels = group.channels.max(1);
        let (first, end) = (div_ceil(units.start, channels), units.end / channels);
        let rows = end.saturating_sub(first);
        let longest = if self.inner.is_multiple_of(LANES) { JOINED_WHOLE } else { JOINED_RAGGED };
        if self.channels == 1 || rows == 0 || self.inner > longest {
            return None;
        }
        let width = self.channels * self.inner;
        let (column, columns) = (group.first_channel * self.inner, channels * self.inner);
        let block = RowBlock { start: first * width, rows, width, column, columns };
        Some((block, [units.start..first * channels, end * channels..units.end]))
    }

    /// What is known of the channels of a group, for one vector after the other of a row of their runs.
    #[inline(always)]
    pub(crate) fn of_runs<'a, S: Simd, const FIELDS: usize>(
        &self,
        s: S,
        of_channels: &'a Lanes<[f32; FIELDS]>,
    ) -> RowOfRuns<'a, S, FIELDS> {
        let mut this = [s.splat(0.0); FIELDS];
        for (this, value) in this.iter_mut().zip(of_channels[0]) {
            *this = s.splat(value);
        }
        RowOfRuns { s, of_channels, inner: self.inner, channel: 0, left: self.inner, this }
    }

    /// The runs of some units of a group: column, start and length.
    #[inline(always)]
    pub(crate) fn runs(&self, group: Group, units: Range<usize>) -> impl Iterator<Item = (usize, usize, usize)> {
        let this = *self;
        let (channels, len, all) = (group.channels.max(1), this.run_len(), this.outer * this.channels * this.inner);
        let (mut row, mut column) = (units.start / channels, units.start % channels);
        units.map(move |_| {
            let start = this.run_start(row, group.first_channel + column);
            let run = (column, start, len.min(all - start));
            column += 1;
            if column == channels {
                (row, column) = (row + 1, 0);
            }
            run
        })
    }
}

impl Columns {
    const fn group(&self, first_channel: usize, tasks: usize) -> Group {
        let Self { width, inner, channels, .. } = *self;
        if width != channels * inner || width <= STRIP_COLUMNS {
            return Group { first_channel, channels, first_column: 0, columns: width, inner };
        }
        // Whole tiles and whole channels: sixteen channels of any inner size.
        let sixteen = inner * LANES;
        let is_shared = tasks > 1 && self.rows * width >= LEAST_SHARED;
        let shared = if is_shared { shared_tiles(self.rows, sixteen) } else { 0 };
        let most = LANES * at_least(div_floor(STRIP_COLUMNS, sixteen), shared);
        let rest = channels - first_channel;
        let channels = if rest < most { rest } else { most };
        Group { first_channel, channels, first_column: first_channel * inner, columns: channels * inner, inner }
    }

    /// The rows, the shorter one included.
    const fn all_rows(&self) -> usize {
        self.rows + (self.rest != 0) as usize
    }

    /// The values of every column in the full rows.
    #[inline(always)]
    pub(crate) const fn full_rows(&self) -> f64 {
        self.rows as f64
    }

    /// All columns of a group in the part that has the shorter row.
    pub(crate) const fn last_piece(&self, group: Group) -> Piece {
        Piece { part: self.rows / (BLOCK_VECTORS * BLOCKS_PER_PART), first: 0, columns: group.columns }
    }

    /// The number of values in a column.
    #[inline(always)]
    pub(crate) const fn column_count(&self, column: usize) -> f64 {
        (self.rows + (column < self.rest) as usize) as f64
    }

    /// The blocks of the full rows of a part, in some columns of a group.
    #[inline(always)]
    pub(crate) fn blocks_of(&self, group: Group, piece: Piece) -> impl Iterator<Item = RowBlock> {
        let Self { rows: total, width, .. } = *self;
        let row = piece.part * (BLOCK_VECTORS * BLOCKS_PER_PART);
        let end = total.min(row + BLOCK_VECTORS * BLOCKS_PER_PART);
        let (column, columns) = (group.first_column + piece.first, piece.columns);
        (row..end).step_by(BLOCK_VECTORS).map(move |row| {
            let rows = BLOCK_VECTORS.min(end - row);
            RowBlock { start: row * width, rows, width, column, columns }
        })
    }

    /// The last, shorter row of the matrix in some columns of a group, if there is one and it is part of the piece.
    #[inline(always)]
    pub(crate) fn shorter_row(&self, group: Group, piece: Piece) -> Option<RowBlock> {
        let Self { rows, width, rest, .. } = *self;
        let last = rows / (BLOCK_VECTORS * BLOCKS_PER_PART);
        let column = group.first_column + piece.first;
        let columns = rest.saturating_sub(column).min(piece.columns);
        (last == piece.part && columns != 0).then_some(RowBlock {
            start: rows * width,
            rows: 1,
            width: rest,
            column,
            columns,
        })
    }

    /// Takes four full rows of a group from the front of some, if there are four.
    #[inline(always)]
    pub(crate) fn next_four(&self, group: Group, rows: &mut Range<usize>) -> Option<RowBlock> {
        let (first, end) = (rows.start, rows.end.min(self.rows));
        if end.saturating_sub(first) < 4 {
            return None;
        }
        rows.start += 4;
        let (start, column) = (first * self.width, group.first_column);
        Some(RowBlock { start, rows: 4, width: self.width, column, columns: group.columns })
    }

    /// Some rows of a group: the start and the columns of each.
    #[inline(always)]
    pub(crate) fn rows_of(&self, group: Group, rows: Range<usize>) -> impl Iterator<Item = (usize, usize)> {
        let this = *self;
        rows.map(move |row| {
            let columns = if row == this.rows { this.rest } else { group.columns };
            (row * this.width + group.first_column, columns)
        })
    }
}

impl Group {
    /// The tiles of its table.
    #[inline(always)]
    pub(crate) const fn tiles(&self) -> usize {
        self.columns.div_ceil(LANES)
    }

    /// The channels, sixteen at a time.
    #[inline(always)]
    pub(crate) fn sixteens(self) -> impl Iterator<Item = Channels> {
        let end = self.first_channel + self.channels;
        (self.first_channel..end).step_by(LANES).map(move |first| Channels { first, len: LANES.min(end - first) })
    }

    /// Whether every channel has one column, so that sixteen channels are a tile.
    #[inline(always)]
    pub(crate) const fn is_direct(&self) -> bool {
        self.columns == self.channels
    }

    /// The tile of sixteen channels that have a column each.
    #[inline(always)]
    pub(crate) const fn tile_of(&self, channels: Channels) -> usize {
        (channels.first - self.first_channel) / LANES
    }

    /// The channel of a column of the table.
    pub(crate) fn channel_of(&self, column: usize) -> usize {
        self.first_channel + column.checked_div(self.inner).unwrap_or(0) % self.channels.max(1)
    }

    /// The columns of the table that belong to one channel, in order.
    #[inline(always)]
    pub(crate) fn columns_of(self, channel: usize) -> impl Iterator<Item = usize> {
        let (inner, period) = (self.inner, self.channels * self.inner);
        let (mut start, mut position) = ((channel - self.first_channel) * inner, 0);
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
        if S::AT_ONCE && self.is_direct() {
            if let Some(to) = table.get_mut(self.tile_of(channels) * FIELDS + field) {
                s.store_pair(pair[0], pair[1], to);
            }
            return;
        }
        s.each_lane(channels.len, pair, |lane, pair| {
            self.put_pair_of(channels.first + lane, table, (FIELDS, field), pair);
        });
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
        if S::AT_ONCE && self.is_direct() {
            if let Some(to) = table.get_mut(self.tile_of(channels) * FIELDS + field) {
                s.store_f64(value, to);
            }
            return;
        }
        s.each_lane_f64(channels.len, value, |lane, value| {
            self.put_f64_of(channels.first + lane, table, (FIELDS, field), value);
        });
    }

    /// [`Self::put_pair`] of one channel, into one of so many fields.
    #[inline(never)]
    fn put_pair_of(self, channel: usize, table: &mut [Lanes<f64>], place: (usize, usize), pair: [f32; 2]) {
        self.each_column(channel, table, place, |lane, to| lane.store_pair(pair[0], pair[1], to));
    }

    /// [`Self::put_f64`] of one channel, into one of so many fields.
    #[inline(never)]
    fn put_f64_of(self, channel: usize, table: &mut [Lanes<f64>], place: (usize, usize), value: f64) {
        self.each_column(channel, table, place, |lane, to| lane.store_f64(value, to));
    }

    /// Goes through the columns of one channel: the lane of each and the vector that has it, in one of so many fields.
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

/// Whether the rows of a matrix are best read one after the other, because they are shorter than a page and not in the
/// caches: the hardware reads ahead where it sees a sequence.
pub(crate) const fn in_sequence(width: usize, tensor: &[f32]) -> bool {
    width < PAGE && tensor.len() > CACHED_TENSOR
}

/// How many values ahead of a vector the first and the second cache are asked for others, if not 0.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ahead {
    first: usize,
    second: usize,
}

impl Ahead {
    /// Not at all: the caches have them, or the hardware reads ahead.
    pub(crate) const NOT: Self = Self { first: 0, second: 0 };

    /// In rows of a matrix that follow each other in memory.
    pub(crate) const fn in_sequence(width: usize, tensor: &[f32]) -> Self {
        if in_sequence(width, tensor) { Self { first: 128, second: 1024 } } else { Self::NOT }
    }

    /// In rows of a matrix, of which some columns are worked row by row: those of the next row.
    pub(crate) const fn next_row(width: usize, tensor: &[f32]) -> Self {
        if tensor.len() > CACHED_TENSOR { Self { first: 0, second: width } } else { Self::NOT }
    }

    #[inline(always)]
    pub(crate) fn prefetch<S: Simd>(self, s: S, from: &Lanes<f32>) {
        if self.first != 0 {
            s.prefetch_first(from, self.first);
        }
        if self.second != 0 {
            s.prefetch_second(from, self.second);
        }
    }
}

/// The tiles of so many columns and values in each with which a group is worth sharing, as far as scratch should be that large.
const fn shared_tiles(values: usize, columns: usize) -> usize {
    let (tiles, most) = (div_ceil(LEAST_SHARED, values.saturating_mul(columns)), div_floor(SHARED_COLUMNS, columns));
    if tiles < most { tiles } else { most }
}

/// The quotient rounded down; a divisor of 0, which never occurs, counts as 1.
const fn div_floor(number: usize, divisor: usize) -> usize {
    match number.checked_div(divisor) {
        Some(quotient) => quotient,
        None => number,
    }
}

/// The larger number.
const fn at_least(least: usize, number: usize) -> usize {
    if number > least { number } else { least }
}

/// The quotient rounded up; a divisor of 0, which never occurs, counts as 1.
pub(crate) const fn div_ceil(number: usize, divisor: usize) -> usize {
    match number.checked_sub(1) {
        None => 0,
        Some(below) => match below.checked_div(divisor) {
            Some(quotient) => quotient + 1,
            None => number,
        },
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
    /// A block of nothing.
    pub(crate) const NONE: Self = Self { start: 0, rows: 0, width: 0, column: 0, columns: 0 };

    /// The position of the block's first element.
    #[inline(always)]
    pub(crate) const fn first(&self) -> usize {
        self.start + self.column
    }

    /// The positions of one of its rows.
    #[inline(always)]
    pub(crate) const fn elements(self, row: usize) -> Range<usize> {
        let first = self.first() + row * self.width;
        first..first + self.columns
    }

    /// A stretch of a run as blocks.
    #[inline(always)]
    pub(crate) fn blocks(self) -> impl Iterator<Item = Self> {
        (0..self.columns).step_by(BLOCK_VALUES).map(move |first| {
            let columns = BLOCK_VALUES.min(self.columns - first);
            Self { column: self.column + first, columns, ..self }
        })
    }

    /// The block's part of one of its rows.
    #[inline(always)]
    pub(crate) fn row(self, tensor: &[f32], row: usize) -> &[f32] {
        range(tensor, self.first() + row * self.width, self.columns)
    }

    /// The block's part of each of its rows. Not by `chunks_exact`, whose zip divides by the width to know its length.
    #[inline(always)]
    pub(crate) fn rows_of(self, tensor: &[f32]) -> impl Iterator<Item = &[f32]> + Clone {
        (0..self.rows).map(move |row| self.row(tensor, row))
    }

    /// Asks the second cache for what follows the one row of the block in a tensor that comes from memory.
    #[inline(always)]
    pub(crate) fn prefetch_next<S: Simd>(self, s: S, tensor: &[f32]) {
        if self.rows == 1 && tensor.len() >= STREAMED_VALUES {
            for vector in self.row(tensor, 0).as_chunks().0 {
                s.prefetch_second(vector, 4 * BLOCK_VALUES);
            }
        }
    }

    /// As many rows of the block as wanted; the first one again for those that it does not have.
    #[inline(always)]
    pub(crate) fn array_of<const ROWS: usize>(self, tensor: &[f32]) -> [&[f32]; ROWS] {
        let mut array = [self.row(tensor, 0); ROWS];
        for (number, row) in array.iter_mut().enumerate().skip(1) {
            if number < self.rows {
                *row = self.row(tensor, number);
            }
        }
        array
    }

    /// A column of the block.
    pub(crate) const fn column(self, column: usize) -> Self {
        Self { column: self.column + column, columns: 1, ..self }
    }

    /// So many columns of the block, from a given one on.
    #[inline(always)]
    pub(crate) const fn columns_from(self, first: usize, columns: usize) -> Self {
        Self { columns, ..self.column(first) }
    }

    /// The columns of the block from one of its vectors on.
    pub(crate) const fn since_vector(self, vector: usize) -> Self {
        let first = vector * LANES;
        Self { column: self.column + first, columns: self.columns.saturating_sub(first), ..self }
    }

    /// Up to sixteen columns of the block.
    pub(crate) const fn tile(self, tile: usize) -> Self {
        let rest = self.since_vector(tile);
        Self { columns: if rest.columns < LANES { rest.columns } else { LANES }, ..rest }
    }
}

/// The levels of pairs in a block's sums at most: the sixteen rows of a block of columns are one tree.
const LEVELS: usize = 4;

/// A sum of the rows of a block: rows in pairs, pairs in pairs, and these in sequence.
#[derive(Clone, Copy)]
pub(crate) struct RowSum<T> {
    sum: T,
    pair: T,
    row: T,
    rows: usize,
}

impl<T: Copy + Add<Output = T>> RowSum<T> {
    #[inline(always)]
    pub(crate) const fn new(zero: T) -> Self {
        Self { sum: zero, pair: zero, row: zero, rows: 0 }
    }

    /// Adds the next row.
    #[inline(always)]
    pub(crate) fn add(&mut self, row: T) {
        match self.rows % 4 {
            0 | 2 => self.row = row,
            1 => self.pair = self.row + row,
            _ => self.sum = self.sum + (self.pair + (self.row + row)),
        }
        self.rows += 1;
    }

    /// The sum of all rows.
    #[inline(always)]
    pub(crate) fn total(self) -> T {
        match self.rows % 4 {
            0 => self.sum,
            1 => self.sum + self.row,
            2 => self.sum + self.pair,
            _ => self.sum + (self.pair + self.row),
        }
    }
}

/// A sum as blocks are summed: `2^levels` values in pairs, pairs in pairs and so on, and these sums in sequence. For lanes that
/// are worked one after the other, where one piece of code for every value matters more than a loop without branches.
#[inline(always)]
pub(crate) fn tree<T: Copy + Add<Output = T>>(
    levels: usize,
    count: usize,
    zero: T,
    mut value: impl FnMut(usize) -> T,
) -> T {
    let (mut sum, mut halves) = (zero, [zero; LEVELS]);
    for number in 0..count {
        // Whole halves on the left of this value are as many as its number ends in ones.
        let mut value = value(number);
        let mut halves = halves.iter_mut().take(levels).enumerate();
        sum = loop {
            match halves.next() {
                None => break sum + value,
                Some((level, half)) if number >> level & 1 == 1 => value = *half + value,
                Some((_, half)) => {
                    *half = value;
                    break sum;
                }
            }
        };
    }
    let mut rest = zero;
    for (level, &half) in halves.iter().take(levels).enumerate() {
        if count >> level & 1 == 1 {
            rest = half + rest;
        }
    }
    sum + rest
}

/// Four rows, sixteen columns at a time. Zips of zips keep one position for all rows.
#[inline(always)]
pub(crate) fn four_rows([a, b, c, d]: [&[Lanes<f32>]; 4]) -> impl Iterator<Item = [&Lanes<f32>; 4]> {
    a.iter().zip(b).zip(c.iter().zip(d)).map(|((a, b), (c, d))| [a, b, c, d])
}

/// The mask bits of a piece of four rows.
pub(crate) type FourBits = [[u16; BITS]; 4];

/// The mask bits of a piece of four rows of a matrix, a vector of each at a time; all are 0 in rows that there are not.
///
/// Written first and read one by one: an iterator over what they are made of would be a function of its own.
#[inline(always)]
pub(crate) fn four_bits<'a>(
    keep: &Keep<'_>,
    rows: RowBlock,
    bits: &'a mut FourBits,
    buffer: &mut Buffer,
) -> impl Iterator<Item = [u16; 4]> + use<'a> {
    for (row, bits) in bits.iter_mut().enumerate() {
        let bits = first_bits(bits, rows.columns);
        if row < rows.rows {
            keep.bits(rows.first() + row * rows.width, bits.len(), buffer).put(bits);
        } else {
            bits.fill(0);
        }
    }
    let [a, b, c, d] = &*bits;
    a.iter().zip(b).zip(c.iter().zip(d)).map(|((&a, &b), (&c, &d))| [a, b, c, d])
}

/// A vector of each of four rows. Neither `map` nor an iterator of an array: they would move the vectors through memory.
#[inline(always)]
pub(crate) fn load_four<S: Simd>(s: S, [a, b, c, d]: [&Lanes<f32>; 4]) -> [S::F32; 4] {
    [s.load(a), s.load(b), s.load(c), s.load(d)]
}

/// What is left of each of four rows, up to sixteen values.
#[inline(always)]
pub(crate) fn load_partial_four<S: Simd>(s: S, [a, b, c, d]: [&[f32]; 4]) -> [S::F32; 4] {
    [s.load_partial(a), s.load_partial(b), s.load_partial(c), s.load_partial(d)]
}

/// Whole vectors of some rows, and what is left of them.
#[inline(always)]
pub(crate) fn whole_vectors<const ROWS: usize>(rows: [&[f32]; ROWS]) -> ([&[Lanes<f32>]; ROWS], [&[f32]; ROWS]) {
    (rows.map(|row| row.as_chunks().0), rows.map(|row| row.as_chunks::<LANES>().1))
}

/// The values per tile of a table: sixteen columns, field after field.
pub(crate) type Tile<const FIELDS: usize> = [Lanes<f64>; FIELDS];

/// What is known of sixteen neighbouring positions in a row of runs.
#[derive(Debug, Clone, Copy)]
pub(crate) struct OfRuns<S: Simd, const FIELDS: usize>(pub(crate) [S::F32; FIELDS]);

/// What is known of the positions in a row of runs, of sixteen values and more, vector by vector.
pub(crate) struct RowOfRuns<'a, S: Simd, const FIELDS: usize> {
    s: S,
    of_channels: &'a Lanes<[f32; FIELDS]>,
    inner: usize,
    /// The channel of the next vector's first value, how many values of its run are left, and what is known of it.
    channel: usize,
    left: usize,
    this: [S::F32; FIELDS],
}

impl<S: Simd, const FIELDS: usize> RowOfRuns<'_, S, FIELDS> {
    /// What is known of the next sixteen positions.
    #[inline(always)]
    pub(crate) fn next(&mut self) -> OfRuns<S, FIELDS> {
        if self.left > LANES {
            self.left -= LANES;
            return OfRuns(self.this);
        }
        // A vector has values of two channels at most.
        let s = self.s;
        let of_this = s.mask(first_lanes(self.left));
        let mut both = self.this;
        self.channel += 1;
        let next = self.of_channels[self.channel % LANES];
        for ((both, this), next) in both.iter_mut().zip(&mut self.this).zip(next) {
            let next = s.splat(next);
            *both = s.select(of_this, *this, next);
            *this = next;
        }
        self.left += self.inner - LANES;
        OfRuns(both)
    }
}

/// Takes a table of so many tiles from the front of the scratch of a call.
#[inline(always)]
pub(crate) fn table<'a, const FIELDS: usize>(scratch: &mut &'a mut [f64], tiles: usize) -> &'a mut [Tile<FIELDS>] {
    let values = take_front(scratch, tiles * LANES * FIELDS);
    let tiles = values.as_chunks_mut::<LANES>().0.as_chunks_mut::<FIELDS>().0;
    // The last tile may have lanes without a column: what the scratch held there must not be taken for theirs.
    if let Some(last) = tiles.last_mut() {
        *last = [[0.0; LANES]; FIELDS];
    }
    tiles
}

/// The scratch of a call with statistics as the table of a group and one for each task.
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

/// The elements whose mask bits are made at once.
pub(crate) const PIECE: usize = BITS * LANES;

/// What is known of each column of a group with sixteen columns at most.
#[inline(always)]
pub(crate) fn of_columns<T: Copy>(group: Group, mut of_column: impl FnMut(usize) -> T) -> Lanes<T> {
    let mut columns = [of_column(0); LANES];
    // Neither `take` nor `skip`, which are functions of their own together.
    for (column, of) in columns.iter_mut().enumerate() {
        if column != 0 && column < group.columns {
            *of = of_column(column);
        }
    }
    columns
}

/// Neighbours in pieces whose mask bits are made at once: start and length of each.
#[inline(always)]
pub(crate) fn pieces(start: usize, len: usize) -> impl Iterator<Item = (usize, usize)> {
    (0..len).step_by(PIECE).map(move |done| (start + done, PIECE.min(len - done)))
}

/// The bits of so many elements.
#[inline(always)]
pub(crate) fn first_bits(bits: &mut [u16; BITS], elements: usize) -> &mut [u16] {
    bits.get_mut(..elements.div_ceil(LANES)).unwrap_or_default()
}

/// The two tensors that an elementwise pass may have one in place of the other: `x` and `y`, or `dy` and `dx`.
#[derive(Debug)]
pub(crate) struct Elements<'a> {
    /// The whole tensor that is read, or nothing where it is overwritten.
    pub(crate) read: Option<&'a [f32]>,
    /// The elements from `base` on of the tensor that is written.
    pub(crate) write: &'a mut [f32],
    pub(crate) base: usize,
    /// Whether they are written past the caches.
    pub(crate) stream: bool,
}

/// The values of a tensor from which on it comes from memory and is written past the caches: 16 MiB. An output would push
/// out of them what is needed again, and itself; and memory would be read before it is overwritten.
const STREAMED_VALUES: usize = 1 << 22;

/// The place of some neighbours in [`Elements`].
#[derive(Debug)]
pub(crate) struct Place<'a> {
    pub(crate) read: &'a [f32],
    pub(crate) write: &'a mut [f32],
}

impl<'a> Elements<'a> {
    /// The elements from `base` on. A tensor that is overwritten is in the caches already.
    #[inline(always)]
    pub(crate) fn new(read: Option<&'a [f32]>, write: &'a mut [f32], base: usize) -> Self {
        let stream = read.is_some_and(|read| read.len() >= STREAMED_VALUES);
        Self { read, write, base, stream }
    }

    /// Stores a vector of the tensor that is written.
    #[inline(always)]
    pub(crate) fn put<S: Simd>(s: S, stream: bool, value: S::F32, to: &mut Lanes<f32>) {
        if stream { s.stream(value, to) } else { s.store(value, to) }
    }

    /// The elements of a piece. Where they are overwritten, what they were is copied to `copy`, so that there is one kind
    /// of loop.
    #[inline(always)]
    pub(crate) fn piece<'b>(&'b mut self, start: usize, len: usize, copy: &'b mut [f32; PIECE]) -> Place<'b> {
        let write = range_mut(self.write, start - self.base, len);
        let read = match self.read {
            Some(read) => range(read, start, len),
            None => {
                let copy = copy.get_mut(..len).unwrap_or_default();
                for (copy, value) in copy.iter_mut().zip(&*write) {
                    *copy = *value;
                }
                copy
            }
        };
        Place { read, write }
    }

    /// Where four rows of a matrix are written, the first of which starts at `start`.
    #[inline(always)]
    pub(crate) fn four_rows(&mut self, start: usize, width: usize, len: usize) -> [&mut [f32]; 4] {
        let mut rest = range_mut(self.write, start - self.base, 3 * width + len);
        let rows = [(); 4].map(|()| {
            let width = width.min(rest.len());
            take_front(&mut rest, width)
        });
        rows.map(|row| row.get_mut(..len).unwrap_or_default())
    }

    /// The values of some neighbours one after the other, each with the place for what becomes of it.
    #[inline(always)]
    pub(crate) fn values(&mut self, start: usize, len: usize) -> impl Iterator<Item = (f32, &mut f32)> {
        let read = self.read.map(|read| range(read, start, len)).unwrap_or_default();
        let write = range_mut(self.write, start - self.base, len);
        write.iter_mut().enumerate().map(move |(index, write)| (read.get(index).copied().unwrap_or(*write), write))
    }
}

/// [`four_rows`], mutable.
#[inline(always)]
pub(crate) fn four_rows_mut([a, b, c, d]: [&mut [Lanes<f32>]; 4]) -> impl Iterator<Item = [&mut Lanes<f32>; 4]> {
    a.iter_mut().zip(b).zip(c.iter_mut().zip(d)).map(|((a, b), (c, d))| [a, b, c, d])
}

/// Whole vectors of four rows, and what is left of them, mutable.
#[inline(always)]
pub(crate) fn whole_vectors_mut([a, b, c, d]: [&mut [f32]; 4]) -> ([&mut [Lanes<f32>]; 4], [&mut [f32]; 4]) {
    let (a, b, c, d) = (a.as_chunks_mut(), b.as_chunks_mut(), c.as_chunks_mut(), d.as_chunks_mut());
    ([a.0, b.0, c.0, d.0], [a.1, b.1, c.1, d.1])
}
