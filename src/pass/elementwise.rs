//! The walk of the elementwise passes: which coefficients each vector of a tensor has.
//!
//! A pass makes every element of the output from the elements at the same place of its inputs and the
//! coefficients of the channel. It says what it makes of some neighbours in memory
//! ([`Elementwise::vectors`]); this file says which neighbours, in which order, with which
//! coefficients. They come from the table of a group ([`Column`]), one vector after the other
//! ([`Sources`]):
//!
//! ```text
//! planar    long runs: one channel for the whole run                [`Everywhere`]
//!           short runs: all runs of the group in one sample are     [`RowOfRuns`]
//!           neighbours; a vector has one channel or two
//! columns   short rows of whole vectors: the whole matrix is one    [`Around`]
//!           row, and the tiles begin again and again
//!           other rows: a band of tiles through all rows, then      [`Tiles`]
//!           the next band, so that their coefficients stay in the
//!           first cache; from memory whole rows, of f32 four in turn
//! ```
//!
//! Columns and runs that need f64 are left out, and computed apart ([`Elementwise::exact`]).

use core::marker::PhantomData;
use core::ops::Range;
use core::slice;

use super::keep::Keep;
use super::{STREAMED_VALUES, of_columns, pieces};
use crate::bits::{Buffer, FourBits};
use crate::simd::{LANES, Lanes, Simd, first_lanes};
use crate::storage::{Ahead, AlignedPiece, PIECE};
use crate::walk::{Columns, Group, Planar, RowBlock, Tile, Vectors, Walk};

/// The coefficients of one column of a table.
pub(crate) trait Column<S: Simd, const FIELDS: usize>: Copy {
    /// Those of sixteen columns, or of sixteen elements.
    type Vector: Copy;

    fn of_column(tile: &Tile<FIELDS>, column: usize) -> Self;
    fn of_tile(s: S, tile: &Tile<FIELDS>) -> Self::Vector;
    /// Those of sixteen elements of this column.
    fn everywhere(self, s: S) -> Self::Vector;
    /// `these` in some lanes and `others` in the other lanes.
    fn select(s: S, lanes: S::Mask, these: Self::Vector, others: Self::Vector) -> Self::Vector;
    fn needs_f64(self) -> bool;
}

/// The coefficients of one vector after the other. An iterator would do, but for the adapters between it and a loop, which are
/// functions of their own in kernels.
pub(crate) trait Sources<S: Simd>: Clone {
    type Vector: Copy;

    /// Those of the next vector, if there is one.
    fn take(&mut self, s: S) -> Option<Self::Vector>;
}

/// The same for every vector.
#[derive(Clone, Copy)]
pub(crate) struct Everywhere<V>(pub(crate) V);

impl<S: Simd, V: Copy> Sources<S> for Everywhere<V> {
    type Vector = V;

    #[inline(always)]
    fn take(&mut self, _: S) -> Option<V> {
        Some(self.0)
    }
}

/// Those of a row of columns.
pub(crate) struct Tiles<'a, C, const FIELDS: usize>(slice::Iter<'a, Tile<FIELDS>>, PhantomData<C>);

impl<C, const FIELDS: usize> Clone for Tiles<'_, C, FIELDS> {
    #[inline(always)]
    fn clone(&self) -> Self {
        Self(self.0.clone(), PhantomData)
    }
}

impl<'a, C, const FIELDS: usize> Tiles<'a, C, FIELDS> {
    #[inline(always)]
    pub(crate) fn new(tiles: &'a [Tile<FIELDS>]) -> Self {
        Self(tiles.iter(), PhantomData)
    }
}

impl<S: Simd, C: Column<S, FIELDS>, const FIELDS: usize> Sources<S> for Tiles<'_, C, FIELDS> {
    type Vector = C::Vector;

    #[inline(always)]
    fn take(&mut self, s: S) -> Option<C::Vector> {
        let tile = self.0.next()?;
        Some(C::of_tile(s, tile))
    }
}

/// Those of the rows of a matrix, which are whole tiles, one row after the other.
pub(crate) struct Around<'a, C, const FIELDS: usize> {
    table: &'a [Tile<FIELDS>],
    row: Tiles<'a, C, FIELDS>,
}

impl<C, const FIELDS: usize> Clone for Around<'_, C, FIELDS> {
    #[inline(always)]
    fn clone(&self) -> Self {
        Self { table: self.table, row: self.row.clone() }
    }
}

impl<S: Simd, C: Column<S, FIELDS>, const FIELDS: usize> Sources<S> for Around<'_, C, FIELDS> {
    type Vector = C::Vector;

    #[inline(always)]
    fn take(&mut self, s: S) -> Option<C::Vector> {
        if let Some(next) = self.row.take(s) {
            return Some(next);
        }
        self.row = Tiles::new(self.table);
        self.row.take(s)
    }
}

/// Those of a row of runs of sixteen values and more.
pub(crate) struct RowOfRuns<'a, S: Simd, C: Column<S, FIELDS>, const FIELDS: usize> {
    of_channels: &'a Lanes<C>,
    inner: usize,
    /// The channel of the next vector's first value, how many values of its run are left, and its coefficients.
    channel: usize,
    left: usize,
    this: C::Vector,
}

impl<S: Simd, C: Column<S, FIELDS>, const FIELDS: usize> Clone for RowOfRuns<'_, S, C, FIELDS> {
    #[inline(always)]
    fn clone(&self) -> Self {
        Self { ..*self }
    }
}

impl<'a, S: Simd, C: Column<S, FIELDS>, const FIELDS: usize> RowOfRuns<'a, S, C, FIELDS> {
    #[inline(always)]
    fn new(s: S, of_channels: &'a Lanes<C>, inner: usize) -> Self {
        Self { of_channels, inner, channel: 0, left: inner, this: of_channels[0].everywhere(s) }
    }
}

impl<S: Simd, C: Column<S, FIELDS>, const FIELDS: usize> Sources<S> for RowOfRuns<'_, S, C, FIELDS> {
    type Vector = C::Vector;

    #[inline(always)]
    fn take(&mut self, s: S) -> Option<C::Vector> {
        if self.left > LANES {
            self.left -= LANES;
            return Some(self.this);
        }
        // A vector has values of two channels at most.
        self.channel += 1;
        let next = self.of_channels[self.channel % LANES].everywhere(s);
        let both = C::select(s, s.mask(first_lanes(self.left)), self.this, next);
        self.this = next;
        self.left += self.inner - LANES;
        Some(both)
    }
}

/// Whose values the lanes of a vector are.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Owner {
    /// All are of one channel.
    Channel(usize),
    /// They are columns of a group's table, from a given one on.
    Column(Group, usize),
    /// They are positions in a row of a group's runs, from a given one on.
    Position { group: Group, inner: usize, position: usize },
}

impl Owner {
    /// The owner of the vector that is so many vectors further on.
    #[inline(always)]
    pub(crate) const fn further(self, vectors: usize) -> Self {
        match self {
            Self::Channel(channel) => Self::Channel(channel),
            Self::Column(group, column) => Self::Column(group, column + vectors * LANES),
            Self::Position { group, inner, position } => {
                Self::Position { group, inner, position: position + vectors * LANES }
            }
        }
    }

    /// The channel of a lane, if it has one.
    pub(super) fn channel_of(self, lane: usize) -> Option<usize> {
        match self {
            Self::Channel(channel) => Some(channel),
            Self::Column(group, column) => (column + lane < group.columns).then(|| group.channel_of(column + lane)),
            Self::Position { group, inner, position } => {
                let column = (position + lane).checked_div(inner)?;
                (column < group.columns).then(|| group.channel_of(column))
            }
        }
    }
}

/// The coefficients of vectors of which some lanes need f64.
#[derive(Clone, Copy)]
pub(super) enum ExactCoefficients<'a, C, W, const FIELDS: usize> {
    /// Those of a run, in f32 and in f64.
    Run(C, W),
    /// Those of a tile of columns.
    Tile(&'a Tile<FIELDS>, Owner),
}

/// A pass, and some units of a group that it is at.
pub(super) trait Elementwise<'a, S: Simd, const FIELDS: usize> {
    type Column: Column<S, FIELDS>;
    /// The coefficients of a column that needs f64, in f64.
    type Wide: Copy;
    type Rooms;
    /// The fields whose second vectors say which columns need f64.
    const FLAGS: [usize; 2];
    /// The tiles of a band: so many that the first cache holds their coefficients.
    const BAND: usize;
    /// Whether no vector asks whose values its lanes are.
    const PLAIN: bool;

    fn rooms() -> Self::Rooms;
    fn keep(&self) -> Keep<'a>;
    /// The length of the tensors.
    fn len(&self) -> usize;
    /// Whether pieces need room for their values before the output. To clear it takes longer than a small call.
    fn needs_copy(&self) -> bool;
    /// Whether anything may be written where it is written again.
    fn is_rewritable(&self) -> bool;
    /// Whether four rows of a matrix are best written in turn.
    fn in_turn(&self) -> bool;
    /// What the caches are asked for in rows of a given width.
    fn ahead(&self, width: usize) -> Ahead;
    fn wide(&self, tile: &Tile<FIELDS>, column: usize) -> Self::Wide;

    /// The output of some neighbours, whose first vector belongs to an owner.
    fn vectors(
        &mut self,
        s: S,
        sources: (&mut impl Sources<S, Vector = <Self::Column as Column<S, FIELDS>>::Vector>, Owner),
        keep: &Keep<'_>,
        piece: ((usize, usize), Ahead),
        room: (&mut [f32], &mut Self::Rooms),
    );
    /// The output of a piece of four rows, whole vectors, from a tile of the table on.
    fn four_rows(&mut self, s: S, rows: RowBlock, tile: usize, bits: (&mut FourBits, &mut Buffer));
    /// The output of vectors of which some lanes need f64.
    fn exact(
        &mut self,
        s: S,
        source: ExactCoefficients<'_, Self::Column, Self::Wide, FIELDS>,
        keep: Keep<'_>,
        vectors: Vectors,
        strips: &mut Strips,
    );
}

/// As many columns of a tile that need f64 are worked one by one, sixteen rows at a time; more of them all at once.
pub(super) const FEW_COLUMNS: u32 = 4;

/// Two strips for the vectors of which some lanes need f64. They are cleared once a walk: for each run it would take longer than
/// a short run.
pub(crate) type Strips = [[f32; PIECE]; 2];

/// A group, its table, and the units of it that a pass is at.
type Units<'a, const FIELDS: usize> = (Group, &'a [Tile<FIELDS>], Range<usize>);

/// A pass over some units of a group.
#[inline(always)]
pub(super) fn walk<'a, S: Simd, E: Elementwise<'a, S, FIELDS>, const FIELDS: usize>(
    s: S,
    walk: &Walk,
    units: Units<'_, FIELDS>,
    pass: E,
) {
    let mut room;
    let copy: &mut [f32] = if pass.needs_copy() {
        room = AlignedPiece::zeros();
        &mut room.0
    } else {
        &mut []
    };
    match walk {
        Walk::Empty => {}
        Walk::Planar(planar) => runs(s, planar, units, pass, copy),
        Walk::Columns(columns) => rows(s, columns, units, pass, copy),
    }
}

#[inline(always)]
fn runs<'a, S: Simd, E: Elementwise<'a, S, FIELDS>, const FIELDS: usize>(
    s: S,
    planar: &Planar,
    (group, table, units): Units<'_, FIELDS>,
    mut pass: E,
    copy: &mut [f32],
) {
    let Some(tile) = table.first() else { return };
    let (mut rooms, keep) = (E::rooms(), pass.keep());
    let columns = of_columns(group, |column| E::Column::of_column(tile, column));
    // Nothing to clear where no channel needs them.
    let wide = if columns.iter().any(|column| column.needs_f64()) {
        Some(of_columns(group, |column| match columns[column % LANES].needs_f64() {
            true => Some(pass.wide(tile, column)),
            false => None,
        }))
    } else {
        None
    };
    let mut strips = if wide.is_some() { Some([[0.0; PIECE]; 2]) } else { None };
    let mut runs = [units.clone(), 0..0];
    if let Some((rows, others)) = planar.rows_of(group, units)
        && keep.is_each()
        && wide.is_none()
    {
        let ahead = Ahead::next_row(rows.width, pass.len());
        for row in 0..rows.rows {
            let mut of_runs = RowOfRuns::new(s, &columns, planar.inner);
            let start = rows.first() + row * rows.width;
            for piece in pieces(start, rows.columns) {
                let owner = Owner::Position { group, inner: planar.inner, position: piece.0 - start };
                pass.vectors(s, (&mut of_runs, owner), &keep, (piece, ahead), (&mut *copy, &mut rooms));
            }
        }
        runs = others;
    }
    for units in runs {
        for (column, start, len) in planar.runs(group, units) {
            let (this, keep) = (columns[column % LANES], keep.within(start, len));
            if let (Some(wide), Some(strips)) = (&wide, &mut strips)
                && let Some(wide) = wide[column % LANES]
            {
                pass.exact(s, ExactCoefficients::Run(this, wide), keep, Vectors::of_run(start, len), strips);
                continue;
            }
            let (mut sources, owner) = (Everywhere(this.everywhere(s)), Owner::Channel(group.first_channel + column));
            for piece in pieces(start, len) {
                pass.vectors(s, (&mut sources, owner), &keep, (piece, Ahead::NOT), (&mut *copy, &mut rooms));
            }
        }
    }
}

/// First the output in f32, of whole rows or of the tiles of which no column needs f64. Then the columns that need f64: after whole
/// rows few of a tile one by one, otherwise the whole tile. So a column that needs f64 costs its own tile more, and hardly others.
#[inline(always)]
fn rows<'a, S: Simd, E: Elementwise<'a, S, FIELDS>, const FIELDS: usize>(
    s: S,
    columns: &Columns,
    (group, table, units): Units<'_, FIELDS>,
    mut pass: E,
    copy: &mut [f32],
) {
    let (mut rooms, keep, ahead) = (E::rooms(), pass.keep(), pass.ahead(columns.width));
    let has_exact = needs_f64::<S, FIELDS>(s, table, E::FLAGS);
    // Whole rows take less time than the tiles between those that need f64, which are written again. But with a residual, values
    // that leave the range of f32 are looked at one by one.
    let whole = !has_exact || (pass.is_rewritable() && (E::PLAIN || is_rare::<S, FIELDS>(s, table, E::FLAGS)));
    let is_usual = E::PLAIN && whole && table.len() * LANES == group.columns && ahead.is_not();
    if is_usual && columns.width == group.columns && group.columns < PIECE {
        let mut sources = Around { table, row: Tiles::<E::Column, FIELDS>::new(table) };
        let (start, len) = columns.neighbours(units.clone());
        for piece in pieces(start, len) {
            let sources = (&mut sources, Owner::Column(group, 0));
            pass.vectors(s, sources, &keep, (piece, ahead), (&mut *copy, &mut rooms));
        }
    } else {
        let (mut left, mut next) = (units.clone(), 0);
        if is_usual && pass.in_turn() {
            let (mut bits, mut buffer) = ([[0; _]; 4], [0; _]);
            while let Some(block) = columns.next_four(group, &mut left) {
                for (first, len) in pieces(0, block.columns) {
                    pass.four_rows(s, block.columns_from(first, len), first / LANES, (&mut bits, &mut buffer));
                }
            }
        }
        // Memory takes longer for a part of every row than for one row after the other.
        let band = if pass.len() < STREAMED_VALUES { E::BAND } else { table.len() };
        while let Some(segment) = next_segment(s, table, next, E::FLAGS, whole) {
            let segment = segment.start..segment.end.min(segment.start + band);
            next = segment.end;
            let (first, end) = (segment.start * LANES, segment.end * LANES);
            let Some(tiles) = table.get(segment) else { break };
            for (start, len) in columns.rows_of(group, left.clone()) {
                let mut sources = Tiles::<E::Column, FIELDS>::new(tiles);
                for piece in pieces(start + first, end.min(len).saturating_sub(first)) {
                    let sources = (&mut sources, Owner::Column(group, piece.0 - start));
                    pass.vectors(s, sources, &keep, (piece, ahead), (&mut *copy, &mut rooms));
                }
            }
        }
    }
    if !has_exact {
        return;
    }
    // Moved, because what a function is given the address of is not in registers.
    let (mut moved, mut strips) = (pass, [[0.0; PIECE]; 2]);
    for (number, tile) in table.iter().enumerate() {
        let (exact, first) = (exact_lanes(s, tile, E::FLAGS), number * LANES);
        if whole && exact.count_ones() <= FEW_COLUMNS {
            // The others are right as they are.
            for lane in (0..LANES).filter(|lane| exact >> lane & 1 == 1) {
                let column = first + lane;
                let source = ExactCoefficients::Run(E::Column::of_column(tile, column), moved.wide(tile, column));
                let vectors = columns.vectors_of_column(group, units.clone(), column);
                moved.exact(s, source, keep, vectors, &mut strips);
            }
        } else if exact != 0 {
            let source = ExactCoefficients::Tile(tile, Owner::Column(group, first));
            moved.exact(s, source, keep, columns.vectors_of(group, units.clone(), first), &mut strips);
        }
    }
}

/// Whether a column of some tiles needs f64, as the second vectors of two fields say.
#[inline(always)]
fn needs_f64<S: Simd, const FIELDS: usize>(s: S, table: &[Tile<FIELDS>], [field, other]: [usize; 2]) -> bool {
    let mut flags = s.splat_u32(0);
    for tile in table {
        flags =
            flags | s.to_bits(s.load_pair(&tile[field % FIELDS]).1) | s.to_bits(s.load_pair(&tile[other % FIELDS]).1);
    }
    !s.is_zero(flags)
}

/// Whether one tile of eight at most has a column that needs f64.
#[inline(always)]
fn is_rare<S: Simd, const FIELDS: usize>(s: S, table: &[Tile<FIELDS>], fields: [usize; 2]) -> bool {
    let mut exact = 0;
    for tile in table {
        exact += usize::from(is_exact(s, tile, fields));
    }
    8 * exact <= table.len()
}

/// The next segment of the tiles of a table, from tile `start` on: neighbours of which no column needs f64, as the second
/// vectors of two fields say; with `whole`, neighbours of any kind.
#[inline(always)]
fn next_segment<S: Simd, const FIELDS: usize>(
    s: S,
    table: &[Tile<FIELDS>],
    mut start: usize,
    [field, other]: [usize; 2],
    whole: bool,
) -> Option<Range<usize>> {
    while let Some(tile) = table.get(start)
        && !whole
        && is_exact(s, tile, [field, other])
    {
        start += 1;
    }
    let mut end = start;
    while let Some(tile) = table.get(end)
        && (whole || !is_exact(s, tile, [field, other]))
    {
        end += 1;
    }
    (start < end).then_some(start..end)
}

/// Whether a column of a tile needs f64, as the second vectors of two fields say.
#[inline(always)]
fn is_exact<S: Simd, const FIELDS: usize>(s: S, tile: &Tile<FIELDS>, fields: [usize; 2]) -> bool {
    exact_lanes(s, tile, fields) != 0
}

/// The columns of a tile that need f64.
#[inline(always)]
fn exact_lanes<S: Simd, const FIELDS: usize>(s: S, tile: &Tile<FIELDS>, [field, other]: [usize; 2]) -> u16 {
    let (flags, others) = (s.load_pair(&tile[field % FIELDS]).1, s.load_pair(&tile[other % FIELDS]).1);
    s.bits(s.le(s.splat(1.0), flags + others))
}
