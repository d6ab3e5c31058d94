//! How a tensor is walked: which values share a block, which channels a group, and in which order. Integers alone.
//!
//! A tensor is worked in groups of channels: statistics, then coefficients, then elements, before the next group. What is
//! known of a group is a table of sixteen columns a tile: a channel each where lanes are neighbours of one channel, a column
//! of the matrix each where lanes are columns.
//!
//! Statistics are made of *parts* of 256 blocks and elements are worked in *units* (runs or rows). Both depend on the
//! shape alone; how many of them a task takes does not influence any result.

use core::ops::Range;

use crate::channel::Channels;
use crate::shape::Shape;
use crate::simd::{CHANNELWISE, LANES, Lanes};
use crate::slices::range;

// What decides which values are added in which order, and so the bits of results.

/// The vectors of a block: values of one channel that are summed in f32 before f64 takes over.
pub(crate) const BLOCK_VECTORS: usize = 16;
/// The values of a block at most, where they are neighbours.
pub(crate) const BLOCK_VALUES: usize = LANES * BLOCK_VECTORS;
/// The blocks whose results are merged in sequence; the parts of a channel are merged in sequence again, which
/// keeps the rounding errors of millions of merges from adding up, and lets threads take parts.
const BLOCKS_PER_PART: usize = 256;
/// The rows that a matrix has at least after several of its rows have become one.
const FOLDED_ROWS: usize = 64;
/// The columns that it has at most then, unless fewer would not fill whole vectors.
const FOLDED_COLUMNS: usize = 256;

// What decides speed and the length of scratch alone.

/// The columns that one table of coefficients or sums covers at most.
const STRIP_COLUMNS: usize = 4096;
/// The longest runs whose elements are worked together with those of the next channel: runs of whole vectors, and others, of
/// which most vectors lie across two cache lines and the last one is not whole.
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

/// A range of channels that are worked together, and their columns in a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Group {
    pub(crate) first_channel: usize,
    pub(crate) channels: usize,
    /// The column of the matrix that is the first of the table.
    pub(crate) first_column: usize,
    pub(crate) columns: usize,
    /// The neighbouring columns of one channel; the channels take turns.
    pub(crate) inner: usize,
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
    pub(crate) const fn new(outer: usize, channels: usize, inner: usize) -> Self {
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

/// The values per tile of a table: sixteen columns, field after field.
pub(crate) type Tile<const FIELDS: usize> = [Lanes<f64>; FIELDS];
