//! The geometry of a pass over a tensor: which values form a block, which channels form a group,
//! and in which order. This file has only integers.
//!
//! A call processes a tensor in groups of channels: statistics, then coefficients, then elements,
//! before the next group. The numbers of a group are in a table of tiles with sixteen columns each.
//! In the planar layout, where lanes are neighbours of one channel, a column of the table is a
//! channel. In the layout of columns it is a column of the matrix.
//!
//! Statistics are made from *parts* of 256 blocks, and elements are processed in *units* (runs or
//! rows). Both depend on the shape alone. The number of parts or units that a task takes does not
//! influence any result.

use core::ops::Range;

use crate::channel::Channels;
use crate::shape::Shape;
use crate::simd::{CHANNELWISE, LANES, Lanes};
use crate::slices::{range, range_mut, take_front};

// These constants decide which values are added in which order, and so the bits of results.

/// The vectors of a block: values of one channel that are summed in f32 before f64 takes over.
pub(crate) const BLOCK_VECTORS: usize = 16;
/// The largest number of values of a block in the planar layout.
pub(crate) const BLOCK_VALUES: usize = LANES * BLOCK_VECTORS;
/// The number of blocks of a part. The blocks of a part are merged in sequence, and then the parts
/// of a channel in sequence. Two levels keep the rounding errors of millions of merges from adding
/// up, and let threads take parts.
const BLOCKS_PER_PART: usize = 256;
/// The smallest number of rows of a matrix after folding, which makes one row of several rows.
const FOLDED_ROWS: usize = 64;
/// The largest number of columns of a matrix after folding, unless whole vectors need more columns.
const FOLDED_COLUMNS: usize = 256;

// These constants decide only speed and the length of scratch.

/// The largest number of columns of one table of coefficients or sums.
const STRIP_COLUMNS: usize = 4096;
/// The longest runs that are joined to a row with the runs of the next channels: runs of whole
/// vectors (`JOINED_WHOLE`) and other runs (`JOINED_RAGGED`). In other runs most vectors lie across
/// two cache lines, and the last vector is partial.
const JOINED_WHOLE: usize = 192;
const JOINED_RAGGED: usize = 1024;
/// The smallest number of tiles of a group of runs that several tasks share, if the tensor has as
/// many. The tasks wait for each other after each pass over a group.
const SHARED_TILES: usize = 16;
/// The largest number of columns of a group that is made larger in order to be shared.
const SHARED_COLUMNS: usize = 4 * STRIP_COLUMNS;
/// The smallest number of elements that tasks share: a hundred microseconds of work and more.
/// Waking a thread and waiting for it takes up to fifty microseconds in a virtual machine.
pub(crate) const LEAST_SHARED: usize = 1 << 19;
/// The chunk length for a tensor with one channel, which is one run.
const LONG_RUN: usize = 1 << 16;

/// The blocks of a tensor, and the order in which they are merged. Both depend on the shape alone,
/// and so do the bits of every result.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Walk {
    /// The tensor is empty.
    Empty,
    /// Sixteen and more neighbours belong to one channel: lanes are neighbours.
    Planar(Planar),
    /// Fewer than sixteen neighbours belong to one channel: lanes are columns of a matrix.
    Columns(Columns),
}

/// The planar layout: runs of `inner` neighbours of one channel, channel after channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Planar {
    pub(crate) outer: usize,
    pub(crate) channels: usize,
    /// The length of a run: at least 16, or at least 1 if there is one channel.
    pub(crate) inner: usize,
    /// The number of runs of one channel in a block.
    pub(crate) runs_per_block: usize,
}

/// A matrix of `rows` full rows of `width` columns and one shorter row of `rest` columns, where
/// column `j` belongs to channel `(j / inner) % channels`.
///
/// A row of few channels would leave most lanes idle. Then several rows of the tensor are folded
/// into one row of the matrix.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Columns {
    pub(crate) rows: usize,
    pub(crate) width: usize,
    pub(crate) rest: usize,
    pub(crate) inner: usize,
    pub(crate) channels: usize,
}

/// A range of channels that are processed together, and their columns in a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Group {
    pub(crate) first_channel: usize,
    pub(crate) channels: usize,
    /// The column of the matrix that is the first column of the table.
    pub(crate) first_column: usize,
    pub(crate) columns: usize,
    /// The number of neighbouring columns of one channel. After the last channel the first channel
    /// follows again.
    pub(crate) inner: usize,
}

/// A piece of the statistics of a group: some columns of its table, and one part of their values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Piece {
    pub(crate) part: usize,
    /// The first column; a multiple of sixteen if lanes are columns.
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
        // `1 << whole` is the smallest number of rows that together fill whole vectors: 16 divided
        // by the greatest common divisor of 16 and the width of a row.
        let row = channels * inner;
        let whole = LANES.trailing_zeros() - (row | LANES).trailing_zeros();
        let mut shift = if row < 16 * LANES && outer >= FOLDED_ROWS << whole { whole } else { 0 };
        // Then double the number of rows as long as the folded row is narrow.
        while shift >= whole && row << (shift + 1) <= FOLDED_COLUMNS && outer >= FOLDED_ROWS << (shift + 1) {
            shift += 1;
        }
        let (rows, rest) = (outer >> shift, (outer & ((1 << shift) - 1)) * row);
        Self::Columns(Columns { rows, width: row << shift, rest, inner, channels })
    }

    /// The group that starts with channel `first_channel`. Its size does not influence any result.
    /// `values` caps the group, so that `x` is still in the cache when its elements are processed.
    /// `tasks > 1` asks for more channels, enough to share.
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

    /// The number of f64 values that scratch needs for a table with `fields` values per column. The
    /// table begins with a line of the caches. 0 without vector registers, where no call needs a table.
    pub(crate) const fn table_len(self, fields: usize, tasks: usize) -> usize {
        // The first group has the most columns.
        match if CHANNELWISE { 0 } else { self.group(0, usize::MAX, tasks).tiles() } {
            0 => 0,
            tiles => tiles * LANES * fields + (LINE - 1),
        }
    }

    /// Splits a planar group into groups of one tile each, which are processed in turn. Other groups
    /// are not split.
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

    /// All columns of one channel, in order.
    pub(crate) fn columns_of(&self, channel: usize) -> impl Iterator<Item = usize> {
        let (channels, columns, inner) = match *self {
            Self::Empty => (0, 0, 1),
            Self::Planar(Planar { channels, .. }) => (channels, channels, 1),
            Self::Columns(Columns { channels, width, inner, .. }) => (channels, width, inner),
        };
        Group { first_channel: 0, channels, first_column: 0, columns, inner }.columns_of(channel)
    }

    /// The number of values of a group.
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

    /// The number of parts from which the statistics of every column are made.
    pub(crate) const fn parts(&self) -> usize {
        match self {
            Self::Empty => 0,
            Self::Planar(planar) => planar.blocks().div_ceil(BLOCKS_PER_PART),
            Self::Columns(columns) => columns.all_rows().div_ceil(BLOCK_VECTORS * BLOCKS_PER_PART),
        }
    }

    /// The number of values of a column in the parts before `part`.
    #[inline(always)]
    pub(crate) fn values_before(&self, part: usize) -> f64 {
        match self {
            Self::Empty => 0.0,
            Self::Planar(planar) => planar.values_before(part * BLOCKS_PER_PART) as f64,
            Self::Columns(columns) => columns.rows.min(part * (BLOCK_VECTORS * BLOCKS_PER_PART)) as f64,
        }
    }

    /// The number of units of a group: runs or rows, into which elementwise work is divided.
    pub(crate) fn units(&self, group: Group) -> usize {
        match self {
            Self::Empty => 0,
            Self::Planar(planar) => planar.run_rows() * group.channels,
            Self::Columns(columns) => columns.all_rows(),
        }
    }

    /// The index of an element at which the tensor may be cut before unit `unit` of a group: not
    /// after the first element of this unit, and not before the end of all units before it.
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

/// Some channels of a group. Their table is a part of the table of the group.
#[derive(Debug, Clone, Copy)]
pub(crate) struct TileGroup {
    pub(crate) group: Group,
    /// The index of the first of these channels in the whole group, and (`all`) the number of
    /// channels of the whole group.
    first: usize,
    all: usize,
}

impl TileGroup {
    /// The part of the table of the whole group that begins with the tile of these channels.
    #[inline(always)]
    pub(crate) fn table<'a, const FIELDS: usize>(&self, table: &'a [Tile<FIELDS>]) -> &'a [Tile<FIELDS>] {
        table.get(self.first / LANES..).unwrap_or_default()
    }

    /// [`Self::table`] of a mutable table.
    #[inline(always)]
    pub(crate) fn table_mut<'a, const FIELDS: usize>(&self, table: &'a mut [Tile<FIELDS>]) -> &'a mut [Tile<FIELDS>] {
        table.get_mut(self.first / LANES..).unwrap_or_default()
    }

    /// The units of these channels among the units `units` of the whole group. In each row of runs
    /// the units of these channels are neighbours.
    #[inline(always)]
    pub(crate) fn units(&self, units: Range<usize>) -> Range<usize> {
        let (channels, all) = (self.group.channels, self.all.max(1));
        if channels == all {
            return units;
        }
        let before = |unit: usize| unit / all * channels + (unit % all).saturating_sub(self.first).min(channels);
        before(units.start)..before(units.end)
    }

    /// The columns of a piece that belong to these channels; `None` if the piece has no such column.
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

    /// The number of blocks into which a run is cut.
    const fn blocks_per_run(&self) -> usize {
        self.inner.div_ceil(BLOCK_VALUES)
    }

    const fn blocks(&self) -> usize {
        div_ceil(self.outer, self.runs_per_block).saturating_mul(self.blocks_per_run())
    }

    /// The number of values of one channel before block `block`.
    #[inline(always)]
    fn values_before(&self, block: usize) -> usize {
        let per_run = self.blocks_per_run().max(1);
        let runs = (block / per_run).saturating_mul(self.runs_per_block);
        if runs >= self.outer { self.outer * self.inner } else { runs * self.inner + block % per_run * BLOCK_VALUES }
    }

    /// The blocks of `part` in the first channel. A block has several runs if they fit, or 256
    /// values of one run. The rows of a block are runs or pieces of runs.
    #[inline(always)]
    pub(crate) fn blocks_of(&self, part: usize) -> impl Iterator<Item = RowBlock> {
        self.stretches_of::<1>(part)
    }

    /// [`Self::blocks_of`], with up to `BLOCKS` blocks of one run together.
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

    /// The block of channel `channel` at the place of `block` in the first channel.
    #[inline(always)]
    pub(crate) const fn in_channel(&self, block: RowBlock, channel: usize) -> RowBlock {
        RowBlock { column: block.column + channel * self.inner, ..block }
    }

    /// The length of the runs in which elements are processed. With one channel the last run may be
    /// shorter.
    #[inline(always)]
    const fn run_len(&self) -> usize {
        if self.channels == 1 && self.inner > LONG_RUN { LONG_RUN } else { self.inner }
    }

    /// The number of runs of each channel.
    #[inline(always)]
    fn run_rows(&self) -> usize {
        if self.channels == 1 { div_ceil(self.inner, self.run_len()) } else { self.outer }
    }

    #[inline(always)]
    fn run_start(&self, row: usize, channel: usize) -> usize {
        (row * self.channels + channel) * self.run_len()
    }

    /// The rows of a group among `units`, and the units before and after these rows. A row is all
    /// runs of the group in one sample, which are neighbours in memory. `None` if runs are long
    /// enough to be processed alone.
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

    /// The runs of the units `units` of a group: column, start and length.
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

    /// The number of rows, including the shorter row.
    const fn all_rows(&self) -> usize {
        self.rows + (self.rest != 0) as usize
    }

    /// The number of values of a column in the full rows.
    #[inline(always)]
    pub(crate) const fn full_rows(&self) -> f64 {
        self.rows as f64
    }

    /// The piece with all columns of a group in the part that has the shorter row.
    pub(crate) const fn last_piece(&self, group: Group) -> Piece {
        Piece { part: self.rows / (BLOCK_VECTORS * BLOCKS_PER_PART), first: 0, columns: group.columns }
    }

    /// The number of values in a column.
    #[inline(always)]
    pub(crate) const fn column_count(&self, column: usize) -> f64 {
        (self.rows + (column < self.rest) as usize) as f64
    }

    /// The blocks of the full rows of a piece: a part, in some columns of a group.
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

    /// The last, shorter row of the matrix in the columns of a piece, if the piece contains it.
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

    /// The start and the columns of each of the rows `rows` of a group.
    #[inline(always)]
    pub(crate) fn rows_of(&self, group: Group, rows: Range<usize>) -> impl Iterator<Item = (usize, usize)> {
        let this = *self;
        rows.map(move |row| {
            let columns = if row == this.rows { this.rest } else { group.columns };
            (row * this.width + group.first_column, columns)
        })
    }

    /// Takes four full rows from the front of `rows`, with all columns of a group; `None` if `rows` has
    /// fewer full rows.
    #[inline(always)]
    pub(crate) fn next_four(&self, group: Group, rows: &mut Range<usize>) -> Option<RowBlock> {
        let first = rows.start;
        if rows.end.min(self.rows) < first + 4 {
            return None;
        }
        rows.start += 4;
        let (start, column, columns) = (first * self.width, group.first_column, group.columns);
        Some(RowBlock { start, rows: 4, width: self.width, column, columns })
    }

    /// The start and the length of the rows `rows` of a matrix, all of whose columns are in one group.
    #[inline(always)]
    pub(crate) fn neighbours(&self, rows: Range<usize>) -> (usize, usize) {
        let start = rows.start * self.width;
        (start, (rows.end * self.width).min(self.rows * self.width + self.rest) - start)
    }

    /// The vectors of a tile in the rows `rows` of a group, from column `column` of the group on.
    #[inline(always)]
    pub(crate) fn vectors_of(&self, group: Group, rows: Range<usize>, column: usize) -> Vectors {
        let len = group.columns.saturating_sub(column).min(LANES);
        let in_shorter = self.rest.saturating_sub(column).min(len);
        let has_shorter = !rows.is_empty() && rows.end > self.rows;
        Vectors {
            start: rows.start * self.width + group.first_column + column,
            step: self.width,
            stride: 1,
            // In the shorter row the tile may have no column.
            count: rows.len() - usize::from(has_shorter && in_shorter == 0),
            len,
            last: if has_shorter && in_shorter != 0 { in_shorter } else { len },
        }
    }

    /// The vectors of one column of a group in the rows `rows`, sixteen rows each.
    #[inline(always)]
    pub(crate) fn vectors_of_column(&self, group: Group, rows: Range<usize>, column: usize) -> Vectors {
        let has_shorter = !rows.is_empty() && rows.end > self.rows;
        let values = rows.len() - usize::from(has_shorter && column >= self.rest);
        let count = values.div_ceil(LANES);
        Vectors {
            start: rows.start * self.width + group.first_column + column,
            step: LANES * self.width,
            stride: self.width,
            count,
            len: LANES,
            last: values + LANES - count * LANES,
        }
    }
}

/// The place of a vector: up to sixteen values, with the same distance from one to the next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Values {
    /// The first element.
    pub(crate) start: usize,
    /// The distance from one value to the next: 1 for neighbours, more for values of a column.
    pub(crate) stride: usize,
    pub(crate) len: usize,
}

impl Values {
    /// The element of lane `lane`.
    #[inline(always)]
    pub(crate) const fn element(self, lane: usize) -> usize {
        self.start + lane * self.stride
    }

    /// This place in a part of the tensor that begins with element `base`.
    #[inline(always)]
    pub(crate) const fn after(self, base: usize) -> Self {
        Self { start: self.start - base, ..self }
    }

    /// A bit for each value: 1 where `is_set` is true of its element.
    #[inline(always)]
    pub(crate) fn bits(self, is_set: impl Fn(usize) -> bool) -> u16 {
        let mut bits = 0;
        for lane in 0..self.len {
            bits |= u16::from(is_set(self.element(lane))) << lane;
        }
        bits
    }
}

/// Vectors with the same distance from one to the next: the vectors of a run, of a tile in some rows,
/// or of a column, whose lanes are rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Vectors {
    start: usize,
    step: usize,
    /// The distance from one value of a vector to the next.
    stride: usize,
    count: usize,
    /// The number of values of a vector.
    len: usize,
    /// The number of values of the last vector; at most `len`.
    last: usize,
}

impl Vectors {
    /// The vectors of a run of `len` values, one at least.
    #[inline(always)]
    pub(crate) const fn of_run(start: usize, len: usize) -> Self {
        let count = len.div_ceil(LANES);
        Self { start, step: LANES, stride: 1, count, len: LANES, last: len + LANES - count * LANES }
    }

    /// Vectors that follow each other, at most `most` of them from number `first` on.
    #[inline(always)]
    pub(crate) fn from(self, first: usize, most: usize) -> impl Iterator<Item = Values> {
        let Self { start, step, stride, count, len, last } = self;
        (first..count.min(first + most)).map(move |number| Values {
            start: start + number * step,
            stride,
            len: if number + 1 == count { last } else { len },
        })
    }

    /// The number of vectors.
    #[inline(always)]
    pub(crate) const fn count(&self) -> usize {
        self.count
    }
}

impl Group {
    /// The number of tiles of the table of the group.
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

    /// Whether the columns of sixteen channels are whole tiles: one tile, or one tile for each row of the
    /// tensor in a row of the matrix.
    #[inline(always)]
    pub(crate) const fn has_whole_tiles(&self) -> bool {
        self.is_direct() || (self.inner == 1 && self.channels.is_multiple_of(LANES))
    }

    /// The tiles of sixteen channels whose columns are whole tiles, in order.
    #[inline(always)]
    pub(crate) fn whole_tiles_of(self, channels: Channels) -> impl Iterator<Item = usize> {
        let (period, end) = (self.channels.div_ceil(LANES), self.tiles());
        let mut next = (channels.first - self.first_channel) / LANES;
        core::iter::from_fn(move || {
            let tile = next;
            next += period;
            (tile < end).then_some(tile)
        })
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

/// The number of tiles that a group needs before sharing it pays (`LEAST_SHARED` elements), capped
/// at `SHARED_COLUMNS` columns of scratch.
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

/// The larger of the two numbers.
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

/// A block: some columns of some rows of a matrix.
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

    /// The range of one of the block's rows.
    #[inline(always)]
    pub(crate) const fn elements(self, row: usize) -> Range<usize> {
        let first = self.first() + row * self.width;
        first..first + self.columns
    }

    /// Some of the block's columns.
    #[inline(always)]
    pub(crate) const fn columns_from(self, first: usize, columns: usize) -> Self {
        Self { column: self.column + first, columns, ..self }
    }

    /// Splits a stretch of a run into blocks.
    #[inline(always)]
    pub(crate) fn blocks(self) -> impl Iterator<Item = Self> {
        (0..self.columns).step_by(BLOCK_VALUES).map(move |first| {
            let columns = BLOCK_VALUES.min(self.columns - first);
            Self { column: self.column + first, columns, ..self }
        })
    }

    /// The block's part of one of its rows.
    #[inline(always)]
    pub(crate) fn row<T>(self, tensor: &[T], row: usize) -> &[T] {
        range(tensor, self.first() + row * self.width, self.columns)
    }

    /// Four rows of the block in a tensor that is written, whose first element is number `base`.
    #[inline(always)]
    pub(crate) fn four_rows_mut<T>(self, mut tensor: &mut [T], base: usize) -> [&mut [T]; 4] {
        let _ = take_front(&mut tensor, self.first() - base);
        let (a, b) = (take_front(&mut tensor, self.width), take_front(&mut tensor, self.width));
        let c = take_front(&mut tensor, self.width);
        [
            range_mut(a, 0, self.columns),
            range_mut(b, 0, self.columns),
            range_mut(c, 0, self.columns),
            range_mut(tensor, 0, self.columns),
        ]
    }

    /// `ROWS` rows of the block; the first row again for rows that the block does not have.
    #[inline(always)]
    pub(crate) fn array_of<T, const ROWS: usize>(self, tensor: &[T]) -> [&[T]; ROWS] {
        let mut array = [self.row(tensor, 0); ROWS];
        for (number, row) in array.iter_mut().enumerate().skip(1) {
            if number < self.rows {
                *row = self.row(tensor, number);
            }
        }
        array
    }

    /// The columns of the block from its vector number `vector` on.
    pub(crate) const fn since_vector(self, vector: usize) -> Self {
        let first = vector * LANES;
        Self { column: self.column + first, columns: self.columns.saturating_sub(first), ..self }
    }

    /// The columns of the block's tile number `tile`, at most sixteen.
    pub(crate) const fn tile(self, tile: usize) -> Self {
        let rest = self.since_vector(tile);
        Self { columns: if rest.columns < LANES { rest.columns } else { LANES }, ..rest }
    }
}

/// The f64 values of a line of the caches.
pub(crate) const LINE: usize = 64 / size_of::<f64>();

/// The values per tile of a table: sixteen columns, field after field.
pub(crate) type Tile<const FIELDS: usize> = [Lanes<f64>; FIELDS];

#[cfg(test)]
mod tests {
    extern crate std;

    use std::vec;
    use std::vec::Vec;

    use super::{Columns, Group, LANES, Piece, Planar, RowBlock, Vectors, Walk};
    use crate::shape::Shape;

    /// Shapes with every kind of walk: outer, channels, inner.
    const SHAPES: [[usize; 3]; 28] = [
        [1, 1, 1],
        [1, 1, 15],
        [3, 1, 17],
        [1, 1, 70_000],
        [2, 5, 16],
        [7, 3, 49],
        [40, 18, 17],
        [2, 33, 100],
        [1, 2, 257],
        [3, 2, 70_000],
        [300, 2, 16],
        [2, 1, 300_000],
        [5, 4, 1],
        [1, 300, 1],
        [1000, 3, 1],
        [1001, 7, 1],
        [5003, 1, 3],
        [33, 20, 3],
        [65, 16, 15],
        [4200, 16, 1],
        [9, 5000, 1],
        [3, 700, 9],
        [129, 3, 15],
        [8200, 20, 2],
        // Folded, with a shorter row that ends in a tile.
        [1027, 7, 1],
        [1100, 5, 3],
        [8203, 20, 2],
        // Folded, of whole tiles, with a shorter row.
        [1027, 48, 1],
    ];

    fn for_each_walk(mut check: impl FnMut(&Walk, [usize; 3], Group)) {
        for [outer, channels, inner] in SHAPES {
            let walk = Walk::new(Shape::new(outer, channels, inner).unwrap());
            for (values, tasks) in [(usize::MAX, 1), (0, 1), (20_000, 1), (usize::MAX, 4)] {
                let mut next = 0;
                for group in walk.groups(values, tasks) {
                    assert_eq!(group.first_channel, next, "groups follow each other");
                    assert!(group.channels > 0);
                    next += group.channels;
                    check(&walk, [outer, channels, inner], group);
                }
                assert_eq!(next, channels, "every channel is in a group");
            }
        }
    }

    /// Counts the elements of a tensor.
    struct Counts {
        counts: Vec<u8>,
        shape: [usize; 3],
    }

    impl Counts {
        fn new(shape: [usize; 3]) -> Self {
            Self { counts: vec![0; shape.iter().product()], shape }
        }

        fn add(&mut self, start: usize, len: usize) {
            self.counts[start..start + len].iter_mut().for_each(|count| *count += 1);
        }

        fn add_block(&mut self, block: RowBlock) {
            (0..block.rows).for_each(|row| self.add(block.elements(row).start, block.columns));
        }

        /// The elements of the group must have been counted once, and no others.
        fn check(&self, group: Group, what: &str) {
            let [_, channels, inner] = self.shape;
            let of_group = group.first_channel..group.first_channel + group.channels;
            for (element, &count) in self.counts.iter().enumerate() {
                let expected = u8::from(of_group.contains(&(element / inner % channels)));
                assert_eq!(count, expected, "{what}: element {element} of {:?}, {group:?}", self.shape);
            }
        }
    }

    /// Groups of units as a task may get them.
    fn cuts(units: usize) -> [core::ops::Range<usize>; 3] {
        [0..units / 3, units / 3..units / 3 + units / 2, units / 3 + units / 2..units]
    }

    #[test]
    fn numeric_contract_every_element_is_in_one_block() {
        for_each_walk(|walk, shape, group| {
            let mut counts = Counts::new(shape);
            let mut before = 0.0;
            for part in 0..walk.parts() {
                assert_eq!(walk.values_before(part), before, "parts follow each other");
                let mut in_part = 0;
                match walk {
                    Walk::Empty => {}
                    Walk::Planar(planar) => {
                        for stretch in planar.stretches_of::<LANES>(part) {
                            for channel in group.first_channel..group.first_channel + group.channels {
                                planar.in_channel(stretch, channel).blocks().for_each(|block| counts.add_block(block));
                            }
                            in_part += stretch.rows * stretch.columns;
                        }
                    }
                    Walk::Columns(columns) => {
                        let piece = Piece { part, first: 0, columns: group.columns };
                        for block in columns.blocks_of(group, piece) {
                            counts.add_block(block);
                            in_part += block.rows;
                        }
                        columns.shorter_row(group, piece).into_iter().for_each(|row| counts.add_block(row));
                    }
                }
                before += in_part as f64;
            }
            counts.check(group, "blocks");
        });
    }

    #[test]
    fn numeric_contract_blocks_of_a_stretch_are_the_blocks_of_its_part() {
        for_each_walk(|walk, _, _| {
            let Walk::Planar(planar) = walk else { return };
            for part in 0..walk.parts() {
                let places = |block: RowBlock| (block.first(), block.rows, block.columns);
                let stretched = planar.stretches_of::<LANES>(part).flat_map(RowBlock::blocks).map(places);
                assert!(stretched.eq(planar.blocks_of(part).map(places)));
            }
        });
    }

    #[test]
    fn numeric_contract_every_element_is_in_one_unit() {
        for_each_walk(|walk, shape, group| {
            let (mut counts, mut in_rows) = (Counts::new(shape), Counts::new(shape));
            let (mut in_fours, mut as_one, mut in_columns) =
                (Counts::new(shape), Counts::new(shape), Counts::new(shape));
            for units in cuts(walk.units(group)) {
                match walk {
                    Walk::Empty => {}
                    Walk::Planar(planar) => {
                        let mut runs = vec![units.clone()];
                        if let Some((rows, others)) = planar.rows_of(group, units.clone()) {
                            in_rows.add_block(rows);
                            runs = others.to_vec();
                        }
                        for (column, start, len) in runs.into_iter().flat_map(|units| planar.runs(group, units)) {
                            let [_, channels, inner] = shape;
                            assert_eq!(start / inner % channels, group.first_channel + column);
                            in_rows.add(start, len);
                        }
                        for (_, start, len) in planar.runs(group, units) {
                            Vectors::of_run(start, len)
                                .from(0, usize::MAX)
                                .for_each(|place| counts.add(place.start, place.len));
                        }
                    }
                    Walk::Columns(columns) => {
                        columns.rows_of(group, units.clone()).for_each(|(start, len)| in_rows.add(start, len));
                        let mut left = units.clone();
                        while let Some(four) = columns.next_four(group, &mut left) {
                            assert_eq!(four.rows, 4);
                            let columns = |first| four.columns_from(first, LANES.min(four.columns - first));
                            (0..four.columns).step_by(LANES).for_each(|first| in_fours.add_block(columns(first)));
                        }
                        assert!(left.len() <= 4, "at most three rows and a shorter one are left");
                        columns.rows_of(group, left).for_each(|(start, len)| in_fours.add(start, len));
                        if columns.width == group.columns {
                            let (start, len) = columns.neighbours(units.clone());
                            as_one.add(start, len);
                        }
                        for column in (0..group.columns).step_by(LANES) {
                            let vectors = columns.vectors_of(group, units.clone(), column);
                            let (first, second) = (vectors.from(0, 2), vectors.from(2, usize::MAX - 2));
                            first.chain(second).for_each(|place| counts.add(place.start, place.len));
                            assert_eq!(vectors.from(0, usize::MAX).count(), vectors.count());
                            assert!(vectors.from(0, usize::MAX).all(|place| (1..=LANES).contains(&place.len)));
                        }
                        for column in 0..group.columns {
                            let vectors = columns.vectors_of_column(group, units.clone(), column);
                            for place in vectors.from(0, usize::MAX) {
                                assert!((1..=LANES).contains(&place.len));
                                (0..place.len).for_each(|lane| in_columns.add(place.element(lane), 1));
                            }
                        }
                    }
                }
            }
            counts.check(group, "vectors");
            in_rows.check(group, "rows and runs");
            if let Walk::Columns(columns) = walk {
                in_fours.check(group, "fours of rows");
                in_columns.check(group, "columns one by one");
                if columns.width == group.columns {
                    as_one.check(group, "rows that are neighbours");
                }
            }
        });
    }

    #[test]
    fn numeric_contract_whole_tiles_are_the_columns_of_their_channels() {
        let mut folded = 0;
        for_each_walk(|walk, _, group| {
            if !group.has_whole_tiles() {
                return;
            }
            for channels in group.sixteens() {
                for lane in 0..channels.len {
                    let of_tiles: Vec<_> = group.whole_tiles_of(channels).map(|tile| tile * LANES + lane).collect();
                    assert!(of_tiles.iter().copied().eq(group.columns_of(channels.first + lane)), "{of_tiles:?}");
                    folded += usize::from(of_tiles.len() > 1);
                }
            }
            // All columns of a tile have as many values as its first column.
            if let (Walk::Columns(columns), false) = (walk, group.is_direct()) {
                for column in 0..group.columns {
                    let first = columns.column_count(group.first_column + column / LANES * LANES);
                    assert_eq!(columns.column_count(group.first_column + column), first);
                }
            }
        });
        assert_ne!(folded, 0, "some channels have a column in several tiles");
    }

    #[test]
    fn numeric_contract_a_tensor_may_be_cut_before_every_unit() {
        for_each_walk(|walk, [_, channels, inner], group| {
            let first_of = |unit: usize| match walk {
                Walk::Planar(planar) => {
                    planar.runs(group, unit..unit + 1).map(|(_, start, len)| start..start + len).next()
                }
                Walk::Columns(columns) => {
                    columns.rows_of(group, unit..unit + 1).map(|(start, len)| start..start + len).next()
                }
                Walk::Empty => None,
            };
            let mut end = 0;
            for unit in 0..walk.units(group) {
                let Some(elements) = first_of(unit) else { panic!("unit {unit} has elements") };
                let cut = walk.unit_start(group, unit);
                assert!(end <= cut && cut <= elements.start, "{cut} of {channels} x {inner}, {group:?}");
                end = elements.end;
            }
        });
    }

    #[test]
    fn numeric_contract_every_column_belongs_to_the_channel_of_its_values() {
        for_each_walk(|walk, [_, channels, inner], group| {
            let Walk::Columns(Columns { width, .. }) = *walk else { return };
            let mut of_channels = vec![0; group.columns];
            for column in 0..group.columns {
                let channel = (group.first_column + column) % width / inner % channels;
                assert_eq!(group.channel_of(column), channel);
            }
            for channel in group.first_channel..group.first_channel + group.channels {
                group.columns_of(channel).for_each(|column| of_channels[column] += 1);
                assert!(group.columns_of(channel).all(|column| group.channel_of(column) == channel));
            }
            assert!(of_channels.iter().all(|&count| count == 1), "every column has one channel");
        });
    }

    #[test]
    fn numeric_contract_an_empty_tensor_has_no_parts() {
        for shape in [[0, 3, 4], [3, 0, 4], [3, 4, 0]] {
            let [outer, channels, inner] = shape;
            let walk = Walk::new(Shape::new(outer, channels, inner).unwrap());
            assert_eq!((walk, walk.parts()), (Walk::Empty, 0));
            assert_eq!(walk.groups(usize::MAX, 1).count(), 0);
        }
        let planar = Planar::new(1, 1, 16);
        assert_eq!(planar.blocks_of(1).count(), 0);
    }
}
