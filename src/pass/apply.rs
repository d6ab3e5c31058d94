//! Normalise, activate and drop: the elementwise half of every forward call.
//!
//! `y = keep ? act((x - mean)*slope + shift + residual)*scale : +0.0`, with the dropout scale folded into slope and shift
//! where the activation allows it and there is no residual. One pass: 4 bytes read and 4 written per element, 4 more
//! read with a residual, and one mask bit.

use core::iter::{Repeat, repeat};
use core::ops::Range;
use core::slice;

use super::keep::{BITS, Buffer, Keep};
use super::{
    Ahead, Columns, Elements, FourBits, Group, OfRuns, PIECE, Place, Planar, RowBlock, RowOfRuns, Tile, Unit, Walk,
    first_bits, four_bits, four_rows, four_rows_mut, in_sequence, load_four, of_columns, pair_lane, pieces,
    whole_vectors, whole_vectors_mut,
};
use crate::activation::Activation;
use crate::channel::{ChannelNormalise, Channels, Normalisation, Normalise, any, normalised};
use crate::simd::{Kernel, LANES, Lane, Lanes, Machine, Simd};
use crate::slices::range;
use crate::tasks::{Tasks, Written};

/// What the elementwise passes do.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Apply<'a, A> {
    pub(crate) activation: A,
    pub(crate) normalisation: &'a Normalisation<'a>,
    /// What is added to the normalised values, if anything is.
    pub(crate) residual: Option<&'a [f32]>,
    pub(crate) keep: Keep<'a>,
}

/// Whether the dropout scale is part of the normalisation.
const fn folds_scale<A: Activation>(residual: bool) -> bool {
    A::HOMOGENEOUS && !residual
}

/// The part of the dropout scale that belongs into the normalisation.
pub(crate) fn folded_scale<A: Activation>(residual: Option<&[f32]>, scale: f32) -> f32 {
    if folds_scale::<A>(residual.is_some()) { scale } else { 1.0 }
}

impl<A: Activation> Apply<'_, A> {
    /// The residuals of a run, or nothing.
    #[inline(always)]
    pub(crate) fn residuals<const RESIDUAL: bool>(&self, start: usize, len: usize) -> Residuals<'_> {
        let residual = if RESIDUAL { self.residual } else { None };
        let (whole, rest) = residual.map(|residual| range(residual, start, len)).unwrap_or_default().as_chunks();
        Residuals { whole, rest }
    }

    /// `z` of a vector, which has a residual if `RESIDUAL`.
    #[inline(always)]
    pub(crate) fn z<S: Simd, const RESIDUAL: bool>(
        &self,
        s: S,
        coefficients: &Coefficients<S>,
        x: S::F32,
        residual: S::F32,
        owner: Owner,
    ) -> S::F32 {
        let z = coefficients.normalise(x);
        if !RESIDUAL {
            return z;
        }
        if s.bits(s.le(s.splat(f32::MIN), z) & s.le(z, s.splat(f32::MAX))) == s.lanes() {
            return z + residual;
        }
        s.change_lanes([x, residual], |lane, [x, residual]| match owner.channel_of(lane) {
            Some(channel) => self.normalisation.of_channel(channel).z(x, Some(residual)),
            None => 0.0,
        })
    }

    /// From `z` to `y`.
    #[inline(always)]
    pub(crate) fn finish<S: Simd>(&self, s: S, bits: u16, z: S::F32, residual: bool) -> S::F32 {
        let y = self.activation.forward_kept(s, s.mask(bits), z);
        if folds_scale::<A>(residual) { y } else { y * s.splat(self.keep.scale) }
    }

    /// `z` of one element in one column.
    #[inline(always)]
    pub(crate) fn z_of(&self, column: &OneColumn, x: f32, element: usize) -> f32 {
        let residual = self.residual.and_then(|residual| residual.get(element)).copied();
        if let Some(channel) = &column.exactly {
            return channel.z(x, residual);
        }
        let z = column.coefficients.coefficients(Lane::FIRST).normalise(x);
        match residual {
            None => z,
            Some(residual) if z.is_finite() => z + residual,
            Some(_) => self.normalisation.of_channel(column.channel).z(x, residual),
        }
    }
}

/// The residuals of some neighbours.
pub(crate) struct Residuals<'a> {
    whole: &'a [Lanes<f32>],
    rest: &'a [f32],
}

impl Residuals<'_> {
    /// Those of a whole vector.
    #[inline(always)]
    pub(crate) fn load<S: Simd>(&self, s: S, vector: usize) -> S::F32 {
        self.whole.get(vector).map_or(s.splat(0.0), |residual| s.load(residual))
    }

    /// Asks the caches for those that are further on than a vector's.
    #[inline(always)]
    pub(crate) fn prefetch<S: Simd>(&self, s: S, ahead: Ahead, vector: usize) {
        if let Some(residual) = self.whole.get(vector) {
            ahead.prefetch(s, residual);
        }
    }

    /// Those of the last, partial vector.
    #[inline(always)]
    pub(crate) fn load_rest<S: Simd>(&self, s: S) -> S::F32 {
        s.load_partial(self.rest)
    }

    /// Those of a whole vector or the last, partial one.
    #[inline(always)]
    pub(crate) fn load_any<S: Simd>(&self, s: S, vector: usize) -> S::F32 {
        if vector < self.whole.len() { self.load(s, vector) } else { self.load_rest(s) }
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
    fn channel_of(self, lane: usize) -> Option<usize> {
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

/// The coefficients of one vector.
#[derive(Clone, Copy)]
pub(crate) struct Coefficients<S: Simd> {
    pub(crate) mean: S::F32,
    slope: S::F32,
    shift: S::F32,
}

impl<S: Simd> Coefficients<S> {
    #[inline(always)]
    pub(crate) const fn new([mean, slope, shift]: [S::F32; 3]) -> Self {
        Self { mean, slope, shift }
    }

    /// `z`, in f32.
    #[inline(always)]
    pub(crate) fn normalise(&self, x: S::F32) -> S::F32 {
        normalised([self.mean, self.slope, self.shift], x)
    }
}

/// Where the coefficients of a vector come from: the same for every lane, or one column each.
pub(crate) trait Source<S: Simd> {
    fn coefficients(&self, s: S) -> Coefficients<S>;
}

/// The sources of one vector after the other. An iterator would do, but for the adapters between it and a loop, which are functions
/// of their own in kernels.
pub(crate) trait Sources<S: Simd> {
    type Source: Source<S>;

    /// That of the next vector, if there is one.
    fn take(&mut self) -> Option<Self::Source>;
}

/// One for all.
impl<S: Simd, T: Source<S> + Copy> Sources<S> for Repeat<T> {
    type Source = T;

    #[inline(always)]
    fn take(&mut self) -> Option<T> {
        self.next()
    }
}

impl<'a, S: Simd, const FIELDS: usize> Sources<S> for slice::Iter<'a, Tile<FIELDS>>
where
    &'a Tile<FIELDS>: Source<S>,
{
    type Source = &'a Tile<FIELDS>;

    #[inline(always)]
    fn take(&mut self) -> Option<Self::Source> {
        self.next()
    }
}

impl<S: Simd, const FIELDS: usize> Sources<S> for RowOfRuns<'_, S, FIELDS>
where
    OfRuns<S, FIELDS>: Source<S>,
{
    type Source = OfRuns<S, FIELDS>;

    #[inline(always)]
    fn take(&mut self) -> Option<Self::Source> {
        Some(self.next())
    }
}

/// The coefficients of one column.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ColumnCoefficients {
    pub(crate) mean: f32,
    slope: f32,
    shift: f32,
    /// Whether it needs f64.
    pub(crate) exact: bool,
}

impl ColumnCoefficients {
    #[inline(always)]
    pub(crate) fn new([first, second]: &Tile<FIELDS>, column: usize) -> Self {
        let ([mean, slope], [shift, exact]) = (pair_lane(first, column), pair_lane(second, column));
        Self { mean, slope, shift, exact: exact != 0.0 }
    }

    /// Mean, slope and shift.
    #[inline(always)]
    pub(crate) const fn fields(self) -> [f32; 3] {
        [self.mean, self.slope, self.shift]
    }
}

impl<S: Simd> Source<S> for ColumnCoefficients {
    #[inline(always)]
    fn coefficients(&self, s: S) -> Coefficients<S> {
        Coefficients { mean: s.splat(self.mean), slope: s.splat(self.slope), shift: s.splat(self.shift) }
    }
}

impl<S: Simd> Source<S> for &Tile<FIELDS> {
    #[inline(always)]
    fn coefficients(&self, s: S) -> Coefficients<S> {
        let [first, second] = self;
        let ((mean, slope), (shift, _)) = (s.load_pair(first), s.load_pair(second));
        Coefficients { mean, slope, shift }
    }
}

/// What single elements of a column are normalised with.
pub(crate) struct OneColumn {
    channel: usize,
    coefficients: ColumnCoefficients,
    /// If it needs f64.
    exactly: Option<ChannelNormalise>,
}

impl OneColumn {
    pub(crate) fn new(normalisation: &Normalisation<'_>, group: Group, tile: &Tile<FIELDS>, column: usize) -> Self {
        let (channel, coefficients) = (group.channel_of(column), ColumnCoefficients::new(tile, column));
        let exactly = coefficients.exact.then(|| normalisation.of_channel(channel));
        Self { channel, coefficients, exactly }
    }
}

impl<S: Simd> Source<S> for OfRuns<S, 3> {
    #[inline(always)]
    fn coefficients(&self, _: S) -> Coefficients<S> {
        Coefficients::new(self.0)
    }
}

/// The fields of a table of coefficients: pairs of f32 vectors, mean and slope, shift and whether f64 is needed.
pub(crate) const FIELDS: usize = 2;
/// The second vector of this field: 1 where f64 is needed.
pub(crate) const EXACT: usize = 1;

/// Whether a column of some tiles needs f64, as the second vector of a field of each says.
#[inline(always)]
pub(crate) fn needs_f64<'a, S: Simd>(s: S, fields: impl Iterator<Item = &'a Lanes<f64>>) -> bool {
    for field in fields {
        if any(s, s.load_pair(field).1) {
            return true;
        }
    }
    false
}

/// The coefficients of a group, into its table.
#[derive(Debug)]
pub(crate) struct GroupCoefficients<'a> {
    pub(crate) normalisation: &'a Normalisation<'a>,
    pub(crate) group: Group,
    pub(crate) table: &'a mut [Tile<FIELDS>],
}

impl Kernel for GroupCoefficients<'_> {
    #[inline(always)]
    fn run<M: Machine>(self, m: M) {
        let Self { normalisation, group, table } = self;
        for channels in group.sixteens() {
            for s in m.each(channels.len) {
                put_coefficients(s, group, channels, table, &normalisation.of_channels::<M>(s, channels));
            }
        }
    }
}

/// Writes the coefficients of some channels into the first fields of all their columns.
#[inline(always)]
pub(crate) fn put_coefficients<S: Simd, const FIELDS: usize>(
    s: S,
    group: Group,
    channels: Channels,
    table: &mut [Tile<FIELDS>],
    normalise: &Normalise<S>,
) {
    for (field, pair) in normalise.pairs(s).into_iter().enumerate() {
        group.put_pair(s, channels, table, field, pair);
    }
}

/// The output of a group, whose coefficients are in its table.
#[inline(always)]
pub(crate) fn elements<A: Activation>(
    tasks: Tasks,
    walk: &Walk,
    group: Group,
    apply: &Apply<'_, A>,
    table: &[Tile<FIELDS>],
    input: Option<&[f32]>,
    output: &mut [f32],
) {
    let written = Written { output, grad_residual: None, base: 0 };
    tasks.elements(walk, group, written, |units, Written { output, base, .. }| {
        for tile in walk.tiles_of(group) {
            let (group, table, units) = (tile.group, tile.table(table), tile.units(units.clone()));
            let elements = Elements::new(input, &mut *output, base);
            tasks.run(Forward { walk, group, apply, table, units, elements });
        }
    });
}

/// The output of some units of a group.
struct Forward<'a, A> {
    walk: &'a Walk,
    group: Group,
    apply: &'a Apply<'a, A>,
    table: &'a [Tile<FIELDS>],
    units: Range<usize>,
    elements: Elements<'a>,
}

impl<A: Activation> Kernel for Forward<'_, A> {
    #[inline(always)]
    fn run<M: Machine>(mut self, m: M) {
        let Some(s) = m.all() else {
            return self.units.clone().for_each(|unit| self.one_by_one(unit));
        };
        let stream = self.elements.stream;
        match (*self.walk, self.apply.residual) {
            (Walk::Empty, _) => {}
            (Walk::Planar(planar), None) => self.planar::<_, false>(s, &planar),
            (Walk::Planar(planar), Some(_)) => self.planar::<_, true>(s, &planar),
            (Walk::Columns(columns), None) => self.columns::<_, false>(s, &columns),
            (Walk::Columns(columns), Some(_)) => self.columns::<_, true>(s, &columns),
        }
        if stream {
            s.fence();
        }
    }
}

impl<A: Activation> Forward<'_, A> {
    #[inline(always)]
    fn planar<S: Simd, const RESIDUAL: bool>(mut self, s: S, planar: &Planar) {
        let Some(tile) = self.table.first() else { return };
        let mut copy = [0.0; PIECE];
        let columns = of_columns(self.group, |column| ColumnCoefficients::new(tile, column));
        let mut runs = [self.units.clone(), 0..0];
        if let Some((rows, others)) = planar.rows_of(self.group, self.units.clone())
            && self.apply.keep.is_each()
            && !columns.iter().any(|column| column.exact)
        {
            let of_channels = columns.map(ColumnCoefficients::fields);
            let ahead = Ahead::next_row(rows.width, self.elements.read.unwrap_or(self.elements.write));
            for row in 0..rows.rows {
                let mut of_runs = planar.of_runs(s, &of_channels);
                let start = rows.first() + row * rows.width;
                for piece in pieces(start, rows.columns) {
                    let owner = Owner::Position { group: self.group, inner: planar.inner, position: piece.0 - start };
                    self.vectors::<S, RESIDUAL>(s, &mut of_runs, owner, &self.apply.keep, (piece, ahead), &mut copy);
                }
            }
            runs = others;
        }
        for units in runs {
            for (unit, (column, start, len)) in units.clone().zip(planar.runs(self.group, units)) {
                let coefficients = columns[column % LANES];
                if coefficients.exact {
                    self.one_by_one(unit);
                    continue;
                }
                let owner = Owner::Channel(self.group.first_channel + column);
                let keep = self.apply.keep.within(start, len);
                for piece in pieces(start, len) {
                    self.vectors::<S, RESIDUAL>(
                        s,
                        &mut repeat(coefficients),
                        owner,
                        &keep,
                        (piece, Ahead::NOT),
                        &mut copy,
                    );
                }
            }
        }
    }

    #[inline(always)]
    fn columns<S: Simd, const RESIDUAL: bool>(mut self, s: S, columns: &Columns) {
        let (group, table, apply) = (self.group, self.table, self.apply);
        if needs_f64(s, table.iter().map(|tile| &tile[EXACT])) {
            return self.units.clone().for_each(|unit| self.one_by_one(unit));
        }
        let mut units = self.units.clone();
        // The code of four rows is long, and a residual costs more than the coefficients that it would save.
        if let (Some(input), false) = (self.elements.read, RESIDUAL)
            && !in_sequence(columns.width, input)
        {
            let (mut bits, mut buffer) = ([[0; _]; 4], [0; _]);
            while let Some(block) = columns.next_four(group, &mut units) {
                for (first, len) in pieces(0, block.columns) {
                    let rows = block.columns_from(first, len);
                    self.four_rows(s, input, rows, first, (&mut bits, &mut buffer));
                }
            }
        }
        let mut copy = [0.0; PIECE];
        for (start, len) in columns.rows_of(group, units) {
            let mut tiles = table.iter();
            for piece in pieces(start, len) {
                let owner = Owner::Column(group, piece.0 - start);
                self.vectors::<S, RESIDUAL>(s, &mut tiles, owner, &apply.keep, (piece, Ahead::NOT), &mut copy);
            }
        }
    }

    /// The output of a piece of four rows, from a column of the table on: their coefficients are loaded once.
    #[inline(always)]
    fn four_rows<S: Simd>(
        &mut self,
        s: S,
        input: &[f32],
        rows: RowBlock,
        column: usize,
        (bits, buffer): (&mut FourBits, &mut Buffer),
    ) {
        let apply = self.apply;
        let bits = four_bits(&apply.keep, rows, bits, buffer);
        let (x, x_rest) = whole_vectors::<4>(rows.array_of(input));
        let stream = self.elements.stream;
        let (y, y_rest) = whole_vectors_mut(self.elements.four_rows(rows.first(), rows.width, rows.columns));
        let mut tiles = self.table.get(column / LANES..).unwrap_or_default().iter().zip(bits);
        // Rows first: when they are through, no tile must have been taken.
        for ((x, y), (tile, bits)) in four_rows(x).zip(four_rows_mut(y)).zip(tiles.by_ref()) {
            let (c, x) = (tile.coefficients(s), load_four(s, x));
            let [y_a, y_b, y_c, y_d] = y;
            // Not in a loop: the vectors would be in memory.
            Elements::put(s, stream, apply.finish(s, bits[0], c.normalise(x[0]), false), y_a);
            Elements::put(s, stream, apply.finish(s, bits[1], c.normalise(x[1]), false), y_b);
            Elements::put(s, stream, apply.finish(s, bits[2], c.normalise(x[2]), false), y_c);
            Elements::put(s, stream, apply.finish(s, bits[3], c.normalise(x[3]), false), y_d);
        }
        if let (false, Some((tile, bits))) = (x_rest[0].is_empty(), tiles.next()) {
            let coefficients = tile.coefficients(s);
            for ((x, y), bits) in x_rest.into_iter().zip(y_rest).zip(bits) {
                s.store_partial(apply.finish(s, bits, coefficients.normalise(s.load_partial(x)), false), y);
            }
        }
    }

    /// The output of some neighbours, whose first vector belongs to `owner`.
    #[inline(always)]
    fn vectors<S: Simd, const RESIDUAL: bool>(
        &mut self,
        s: S,
        sources: &mut impl Sources<S>,
        owner: Owner,
        keep: &Keep<'_>,
        ((start, len), ahead): ((usize, usize), Ahead),
        copy: &mut [f32; PIECE],
    ) {
        let (apply, mut buffer) = (self.apply, [0; _]);
        let mut bits = keep.bits(start, len.div_ceil(LANES), &mut buffer).vectors();
        let residuals = apply.residuals::<RESIDUAL>(start, len);
        let (stream, in_place) = (self.elements.stream, self.elements.read.is_none());
        let Place { read, write } = self.elements.piece(start, len, copy);
        let ((x, x_rest), (y, y_rest)) = (read.as_chunks(), write.as_chunks_mut());
        let mut vector = 0;
        for ((x, y), bits) in x.iter().zip(y).zip(bits.by_ref()) {
            let Some(source) = sources.take() else { break };
            ahead.prefetch(s, if in_place { y } else { x });
            if RESIDUAL {
                residuals.prefetch(s, ahead, vector);
            }
            let (residual, owner) = (residuals.load(s, vector), owner.further(vector));
            let z = apply.z::<S, RESIDUAL>(s, &source.coefficients(s), s.load(x), residual, owner);
            Elements::put(s, stream, apply.finish(s, bits, z, RESIDUAL), y);
            vector += 1;
        }
        // No source is taken if there is no rest: the next piece begins with it.
        if !len.is_multiple_of(LANES)
            && let (Some(source), Some(bits)) = (sources.take(), bits.next())
        {
            let (residual, owner) = (residuals.load_rest(s), owner.further(vector));
            let z = apply.z::<S, RESIDUAL>(s, &source.coefficients(s), s.load_partial(x_rest), residual, owner);
            s.store_partial(apply.finish(s, bits, z, RESIDUAL), y_rest);
        }
    }

    /// The output of a unit, element by element: where lanes are worked one after the other, and for columns that need f64.
    #[inline(never)]
    fn one_by_one(&mut self, unit: usize) {
        let (s, apply, group) = (Lane::FIRST, self.apply, self.group);
        let Unit { start, len, mut column, step } = self.walk.unit(group, unit);
        let keep = apply.keep.within(start, len);
        let source = |column: usize| {
            let tile = self.table.get(column / LANES).unwrap_or(&[[0.0; LANES]; FIELDS]);
            OneColumn::new(apply.normalisation, group, tile, column)
        };
        let mut one = source(column);
        for (start, len) in pieces(start, len) {
            let mut bits = [0; BITS];
            keep.fill(start, first_bits(&mut bits, len));
            for (offset, (x, y)) in self.elements.values(start, len).enumerate() {
                let z = apply.z_of(&one, x, start + offset);
                *y = apply.finish(s, bits[offset / LANES % BITS] >> (offset % LANES), z, apply.residual.is_some());
                if step != 0 {
                    column += step;
                    one = source(column);
                }
            }
        }
    }
}
