//! The walk of the elementwise passes: which coefficients each vector of a tensor has.
//!
//! A pass makes every element of the output from the elements at the same place of its inputs and the
//! coefficients of the channel. The pass has the formula for some neighbours in memory
//! ([`Elementwise::vectors`]). This file chooses the neighbours, their order and their coefficients. The
//! coefficients come from the table of a group ([`Column`]), one vector after the other ([`Sources`]):
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

use core::hint::black_box;
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
    /// The coefficients of sixteen columns, or of sixteen elements.
    type Vector: Copy;

    fn of_column(tile: &Tile<FIELDS>, column: usize) -> Self;
    /// [`Self::of_column`] for each column of a group with sixteen columns at most.
    fn of_columns(group: Group, tile: &Tile<FIELDS>) -> Lanes<Self>;
    fn of_tile(s: S, tile: &Tile<FIELDS>) -> Self::Vector;
    /// The coefficients of sixteen elements that are all of this column.
    fn everywhere(self, s: S) -> Self::Vector;
    /// `these` in some lanes and `others` in the other lanes.
    fn select(s: S, lanes: S::Mask, these: Self::Vector, others: Self::Vector) -> Self::Vector;
    fn needs_f64(self) -> bool;
}

/// A source of coefficients, for one vector after the other. It is no `Iterator`, because the adapters
/// between an iterator and a loop are functions of their own in kernels.
pub(crate) trait Sources<S: Simd>: Clone {
    type Vector: Copy;

    /// The coefficients of the next vector, or `None` after the last.
    fn take(&mut self, s: S) -> Option<Self::Vector>;
}

/// The same coefficients for every vector.
#[derive(Clone, Copy)]
pub(crate) struct Everywhere<V>(pub(crate) V);

impl<S: Simd, V: Copy> Sources<S> for Everywhere<V> {
    type Vector = V;

    #[inline(always)]
    fn take(&mut self, _: S) -> Option<V> {
        Some(self.0)
    }
}

/// The coefficients of a row of columns, tile by tile.
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

/// The coefficients of a matrix whose rows are whole tiles, for one row after the other.
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
        // A branch, and no selection, with which each vector would wait for the position of the one before.
        black_box(());
        self.row = Tiles::new(self.table);
        self.row.take(s)
    }
}

/// The coefficients of a row of runs, each of sixteen values or more.
pub(crate) struct RowOfRuns<'a, S: Simd, C: Column<S, FIELDS>, const FIELDS: usize> {
    of_channels: &'a Lanes<C>,
    inner: usize,
    /// The channel of the next vector's first value, the number of values that are left in its run, and
    /// the coefficients of the channel.
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
        // A vector has values of two channels at most, because a run has sixteen values or more.
        self.channel += 1;
        let next = self.of_channels[self.channel % LANES].everywhere(s);
        let both = C::select(s, s.mask(first_lanes(self.left)), self.this, next);
        self.this = next;
        self.left += self.inner - LANES;
        Some(both)
    }
}

/// The channels that the lanes of a vector belong to.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Owner {
    /// All lanes belong to one channel.
    Channel(usize),
    /// The lanes are columns of a group's table, from the given column on.
    Column(Group, usize),
    /// The lanes are positions in a row of a group's runs, from `position` on.
    Position { group: Group, inner: usize, position: usize },
}

impl Owner {
    /// The owner of the vector that comes `vectors` vectors later.
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

    /// The channel of a lane, or `None` if the lane is past the columns of the group.
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

/// The coefficients of vectors in which some lanes need f64.
#[derive(Clone, Copy)]
pub(super) enum ExactCoefficients<'a, C, W, const FIELDS: usize> {
    /// The coefficients of a run or of one column, in f32 and in f64.
    Run(C, W),
    /// The coefficients of a tile of columns, and the owner of its lanes.
    Tile(&'a Tile<FIELDS>, Owner),
}

/// A pass over some units of a group.
pub(super) trait Elementwise<'a, S: Simd, const FIELDS: usize> {
    type Column: Column<S, FIELDS>;
    /// The coefficients of a column that needs f64, in f64.
    type Wide: Copy;
    type Rooms;
    /// The fields whose second vectors say which columns need f64.
    const FLAGS: [usize; 2];
    /// The number of tiles of a band. The first cache holds their coefficients.
    const BAND: usize;

    fn rooms() -> Self::Rooms;
    fn keep(&self) -> Keep<'a>;
    /// The length of the tensors.
    fn len(&self) -> usize;
    /// Whether a piece needs room, for values that are overwritten or for a strip. Only then is it made,
    /// because to clear it takes longer than a small call.
    fn needs_copy(&self) -> bool;
    /// Whether elements may be written twice, because no input is overwritten.
    fn is_rewritable(&self) -> bool;
    /// Whether four rows of a matrix are best written in turn.
    fn in_turn(&self) -> bool;
    /// Whether [`Self::vectors`] may ask for the owner of a vector.
    fn asks_owner(&self) -> bool;
    /// How far ahead the caches are asked for values, in rows of `width` values.
    fn ahead(&self, width: usize) -> Ahead;
    fn wide(&self, tile: &Tile<FIELDS>, column: usize) -> Self::Wide;

    /// Writes the output of some neighbours. The owner beside the sources is the owner of their first
    /// vector.
    fn vectors(
        &mut self,
        s: S,
        sources: (&mut impl Sources<S, Vector = <Self::Column as Column<S, FIELDS>>::Vector>, Owner),
        keep: &Keep<'_>,
        piece: ((usize, usize), Ahead),
        room: (&mut [f32], &mut Self::Rooms),
    );
    /// Writes the output of a piece of four rows, which is whole vectors. Its first tile is number
    /// `tile` of the table.
    fn four_rows(&mut self, s: S, rows: RowBlock, tile: usize, bits: (&mut FourBits, &mut Buffer));
    /// Writes the output of `vectors`, in which some lanes need f64.
    fn exact(
        &mut self,
        s: S,
        source: ExactCoefficients<'_, Self::Column, Self::Wide, FIELDS>,
        keep: Keep<'_>,
        vectors: Vectors,
        strips: &mut Strips,
    );
}

/// The largest number of columns of a tile that are computed in f64 one by one, sixteen rows at a time.
/// If more columns of a tile need f64, the whole tile is computed again.
pub(super) const FEW_COLUMNS: u32 = 4;

/// Two strips for the vectors in which some lanes need f64. They are cleared once a walk: to clear them
/// for each run would take longer than a short run itself.
pub(crate) type Strips = [[f32; PIECE]; 2];

/// A group, its table, and the units of the group that a pass goes through.
type Units<'a, const FIELDS: usize> = (Group, &'a [Tile<FIELDS>], Range<usize>);

/// Runs a pass over some units of a group.
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
    let columns = E::Column::of_columns(group, tile);
    // Made only if a channel needs f64: otherwise nothing has to be cleared.
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

/// Writes first the output in f32: of whole rows, or of the tiles without a column that needs f64. Then
/// it writes the columns that need f64. If whole rows have been written and a tile has few such columns,
/// they are written one by one; otherwise the whole tile is. So a column that needs f64 costs its own
/// tile more time, and other tiles hardly any.
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
    // A walk over whole rows takes less time than a walk over only the tiles that do not need f64,
    // although the other tiles are written again. But with a residual, values that leave the range of
    // f32 are looked at one by one, and whole rows are walked only if tiles that need f64 are rare.
    let whole =
        !has_exact || (pass.is_rewritable() && (!pass.asks_owner() || is_rare::<S, FIELDS>(s, table, E::FLAGS)));
    let is_usual = !pass.asks_owner() && whole && table.len() * LANES == group.columns && ahead.is_not();
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
        // A tensor from memory has one band: a part of every row takes longer to read and write than
        // whole rows.
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
    // Moved, because a value whose address is given to a function is not in registers.
    let (mut moved, mut strips) = (pass, [[0.0; PIECE]; 2]);
    for (number, tile) in table.iter().enumerate() {
        let (exact, first) = (exact_lanes(s, tile, E::FLAGS), number * LANES);
        if whole && exact.count_ones() <= FEW_COLUMNS {
            // The output of the other columns is right as it is.
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

/// Whether any column of a table needs f64. The second vectors of two fields say which columns do.
#[inline(always)]
fn needs_f64<S: Simd, const FIELDS: usize>(s: S, table: &[Tile<FIELDS>], [field, other]: [usize; 2]) -> bool {
    let mut flags = s.splat_u32(0);
    for tile in table {
        flags =
            flags | s.to_bits(s.load_pair(&tile[field % FIELDS]).1) | s.to_bits(s.load_pair(&tile[other % FIELDS]).1);
    }
    !s.is_zero(flags)
}

/// Whether at most one tile in eight has a column that needs f64.
#[inline(always)]
fn is_rare<S: Simd, const FIELDS: usize>(s: S, table: &[Tile<FIELDS>], fields: [usize; 2]) -> bool {
    let mut exact = 0;
    for tile in table {
        exact += usize::from(is_exact(s, tile, fields));
    }
    8 * exact <= table.len()
}

/// The next segment of the tiles of a table, from tile `start` on: neighbours without a column that
/// needs f64, or all tiles that are left if `whole`. The second vectors of two fields say which columns
/// need f64.
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

/// Whether a column of a tile needs f64. The second vectors of two fields say which columns do.
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
