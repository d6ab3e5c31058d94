//! Normalise, activate and drop: the elementwise half of every forward call.
//!
//! `y = keep ? act((x - mean)*slope + shift + residual)*scale : +0.0`, with the dropout scale folded into slope and shift
//! where the activation allows it and there is no residual. One pass: 4 bytes read and 4 written per element, 4 more
//! read with a residual, and one mask bit.

use core::cell::Cell;
use core::ops::Range;
use core::slice;

use super::elementwise::{self, Column, Elementwise, Owner, Sources, Strips, Tiles};
use super::exact::ExactNormalise;
use super::keep::{Bits, Keep};
use super::{Elements, Rooms, first_bits, load_values, of_columns, pair_lane, put};
use crate::activation::{Formula, FormulaCurve};
use crate::args::Statistics;
use crate::bits::{BITS, Buffer, FourBits, WrittenGates};
use crate::channel::{Channels, Normalisation, Normalise, normalised};
use crate::prepared::Prepared;
use crate::shape::Shape;
use crate::simd::{Kernel, LANES, Lane, Lanes, Machine, Simd, Work, halves, one_at_a_time};
use crate::slices::range;
use crate::storage::{Ahead, By, EachFour, EachVector, PIECE, Storage};
use crate::tasks::{Tasks, Written};
use crate::walk::{Group, RowBlock, Tile, Values, Vectors, Walk};

/// The formula of the elementwise passes: normalisation, residual, activation and dropout.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Apply<'a, T: Storage> {
    /// The activation in a forward call, its derivative in a backward call.
    pub(crate) formula: &'a Formula,
    pub(crate) normalisation: &'a Normalisation<'a>,
    /// The tensor that is added to the normalised values, if there is one.
    pub(crate) residual: Option<T::Ref<'a>>,
    pub(crate) keep: Keep<'a>,
}

/// The part of the dropout scale that belongs into the normalisation: the whole scale, or 1.
pub(crate) const fn folded_scale(formula: &Formula, has_residual: bool, scale: f32) -> f32 {
    if formula.homogeneous && !has_residual { scale } else { 1.0 }
}

/// The part of the dropout scale that values are multiplied by after the activation.
const fn other_scale(formula: &Formula, has_residual: bool, scale: f32) -> f32 {
    if formula.homogeneous && !has_residual { 1.0 } else { scale }
}

/// `value` where `z` is not below `lower` and the element is kept, +0.0 elsewhere. `value` may be a
/// gradient.
#[inline(always)]
pub(super) fn bounded<S: Simd>(s: S, lower: S::F32, bits: u16, z: S::F32, value: S::F32) -> S::F32 {
    // One selection for both conditions: a comparison under a mask costs nothing more than a comparison.
    s.keep(s.unless_less(s.mask(bits), z, lower), value)
}

impl<T: Storage> Apply<'_, T> {
    /// Whether there is neither a residual nor a curve. Forward walks have loops of their own for this
    /// case, which call no function and so keep the coefficients in registers. The loops with `RESIDUAL`
    /// serve all other cases: a residual, a curve, or both.
    #[inline(always)]
    pub(crate) const fn is_plain(&self) -> bool {
        self.residual.is_none() && self.formula.curve.is_none()
    }

    /// Whether the gradient of every kept element passes, so that a backward call need not look at `z`,
    /// at least not after the curve. This is so without an activation, with gates, and with a curve.
    #[inline(always)]
    pub(crate) fn is_open(&self) -> bool {
        self.formula.lower < f32::MIN
    }

    /// The curve, in loops with `RESIDUAL`. The other loops serve no curves, and get `None`.
    #[inline(always)]
    pub(super) const fn curve_if<const RESIDUAL: bool>(&self) -> Option<&FormulaCurve> {
        if RESIDUAL { self.formula.curve.as_ref() } else { None }
    }

    /// The residuals of `len` neighbours from element `start` on; no values if there is no residual.
    #[inline(always)]
    pub(crate) fn residuals<'b, S: Simd, const RESIDUAL: bool>(
        &'b self,
        s: S,
        (start, len): (usize, usize),
        ahead: Ahead,
        room: &'b mut T::Room,
    ) -> Residuals<'b> {
        let residual = if RESIDUAL { self.residual } else { None };
        let (whole, rest) = match residual {
            Some(residual) => T::read(s, T::shorter(residual), (start, len), ahead, room).as_chunks(),
            None => (&[][..], &[][..]),
        };
        Residuals { whole, rest }
    }

    /// The residuals of one vector, if there is a residual.
    #[inline(always)]
    pub(super) fn residual_of<S: Simd>(&self, s: S, place: Values, room: &mut T::Room) -> Option<S::F32> {
        Some(load_values::<S, T>(s, T::shorter(self.residual?), place, room))
    }

    /// `z` of a vector. Without `RESIDUAL` there is no residual.
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
        let is_finite = s.bits(s.le(s.splat(f32::MIN), z) & s.le(z, s.splat(f32::MAX)));
        if is_finite == s.lanes() {
            return z + residual;
        }
        if self.residual.is_none() {
            return z;
        }
        // Moved, because values that the closure borrows would be in memory throughout every loop, and
        // not only where they are needed.
        s.change_lanes([x, residual, z + residual], move |lane, [x, residual, sum]| match owner.channel_of(lane) {
            _ if is_finite >> lane & 1 == 1 => sum,
            Some(channel) => self.normalisation.of_channel(channel).z(x, Some(residual)),
            None => 0.0,
        })
    }

    /// `y` from `z`, without a curve, and the gate. The dropout scale is in the normalisation unless
    /// there is a residual.
    #[inline(always)]
    fn finish<S: Simd>(&self, s: S, lower: S::F32, bits: u16, z: S::F32, residual: bool) -> (S::F32, S::Mask) {
        let gate = s.unless_less(s.mask(bits), z, lower);
        let y = s.keep(gate, z);
        (if residual { y * s.splat(self.keep.scale) } else { y }, gate)
    }

    /// The bound of the activation. It is taken before a loop: as far as the compiler knows, a store in
    /// the loop might change it.
    #[inline(always)]
    pub(super) fn lower<S: Simd>(&self, s: S) -> S::F32 {
        s.splat(self.formula.lower)
    }

    /// `y` of one element, from its `z`.
    #[inline(always)]
    pub(crate) fn y_of(&self, bits: u16, z: f32) -> f32 {
        let value = match &self.formula.curve {
            Some(curve) => curve.single(z, 0.0),
            None => z,
        };
        bounded(Lane::FIRST, self.formula.lower, bits, z, value)
            * other_scale(self.formula, self.residual.is_some(), self.keep.scale)
    }

    /// Whether the activation, one without a curve, has a gradient of 0 at `z`.
    #[inline(always)]
    pub(crate) fn is_closed(&self, z: f32) -> bool {
        z < self.formula.lower
    }

    /// Writes `z` of some neighbours to `strip`, and puts it through a curve. The first vector belongs
    /// to `owner`.
    #[inline(always)]
    pub(super) fn curve<S: Simd>(
        &self,
        s: S,
        curve: &FormulaCurve,
        (sources, owner): (&mut impl Sources<S, Vector: ForwardCoefficients<S>>, Owner),
        (residuals, x, factors): (&Residuals<'_>, &[f32], &[f32]),
        strip: &mut [f32],
    ) {
        s.apart(StripOfZ { apply: self, sources, owner, residuals, x, strip: &mut *strip });
        s.strip(curve.functions, curve.parameter, factors, strip);
    }
}

/// The residuals of some neighbours.
pub(crate) struct Residuals<'a> {
    pub(super) whole: &'a [Lanes<f32>],
    pub(super) rest: &'a [f32],
}

impl<'a> Residuals<'a> {
    #[inline(always)]
    pub(crate) fn of(residuals: &'a [f32]) -> Self {
        let (whole, rest) = residuals.as_chunks();
        Self { whole, rest }
    }

    /// The residuals of whole vector number `vector`.
    #[inline(always)]
    pub(crate) fn load<S: Simd>(&self, s: S, vector: usize) -> S::F32 {
        self.whole.get(vector).map_or(s.splat(0.0), |residual| s.load(residual))
    }

    /// The residuals of the last, partial vector.
    #[inline(always)]
    pub(crate) fn load_rest<S: Simd>(&self, s: S) -> S::F32 {
        s.load_partial(self.rest)
    }

    /// The residuals of vector number `vector`, a whole vector or the last, partial one.
    #[inline(always)]
    pub(crate) fn load_any<S: Simd>(&self, s: S, vector: usize) -> S::F32 {
        if vector < self.whole.len() { self.load(s, vector) } else { self.load_rest(s) }
    }
}

/// Writes `z` of some neighbours to a strip. Each kind of sources has one function for it: inlined,
/// there would be a copy of the code wherever a walk has an activation.
struct StripOfZ<'a, 'b, T: Storage, U> {
    apply: &'a Apply<'b, T>,
    sources: &'a mut U,
    owner: Owner,
    residuals: &'a Residuals<'a>,
    x: &'a [f32],
    strip: &'a mut [f32],
}

impl<S: Simd, T: Storage, U: Sources<S, Vector: ForwardCoefficients<S>>> Work<S> for StripOfZ<'_, '_, T, U> {
    #[inline(always)]
    fn run(self, s: S) {
        self.fill_strip(s);
    }
}

impl<T: Storage, U> StripOfZ<'_, '_, T, U> {
    #[inline(always)]
    fn fill_strip<S: Simd>(self, s: S)
    where
        U: Sources<S, Vector: ForwardCoefficients<S>>,
    {
        let Self { apply, sources, owner, residuals, x, strip } = self;
        let ((x, x_rest), (strip, strip_rest)) = (x.as_chunks(), strip.as_chunks_mut());
        let mut vector = 0;
        for (x, strip) in x.iter().zip(strip) {
            let Some(coefficients) = sources.take(s) else { break };
            let coefficients = coefficients.forward();
            let z = match apply.residual {
                None => coefficients.normalise(s.load(x)),
                Some(_) => {
                    let residual = residuals.load(s, vector);
                    apply.z::<S, true>(s, coefficients, s.load(x), residual, owner.further(vector))
                }
            };
            s.store(z, strip);
            vector += 1;
        }
        if !x_rest.is_empty()
            && let Some(coefficients) = sources.take(s)
        {
            let (coefficients, x) = (coefficients.forward(), s.load_partial(x_rest));
            let z = match apply.residual {
                None => coefficients.normalise(x),
                Some(_) => apply.z::<S, true>(s, coefficients, x, residuals.load_rest(s), owner.further(vector)),
            };
            s.store_partial(z, strip_rest);
        }
    }
}

/// Writes `y`, from a strip of `act(z)`.
struct FinishStrip<'a> {
    strip: &'a [f32],
    bits: Bits<'a>,
    scale: f32,
    stream: bool,
    y: &'a mut [f32],
}

impl<S: Simd> Work<S> for FinishStrip<'_> {
    #[inline(always)]
    fn run(self, s: S) {
        self.finish_strip(s);
    }
}

impl FinishStrip<'_> {
    #[inline(always)]
    fn finish_strip<S: Simd>(self, s: S) {
        let Self { strip, bits, scale, stream, y } = self;
        let mut bits = bits.vectors();
        let ((strip, strip_rest), (y, y_rest)) = (strip.as_chunks(), y.as_chunks_mut());
        for ((value, y), bits) in strip.iter().zip(y).zip(bits.by_ref()) {
            put(s, stream, s.keep(s.mask(bits), s.load(value)) * s.splat(scale), y);
        }
        if let (false, Some(bits)) = (strip_rest.is_empty(), bits.next()) {
            s.store_partial(s.keep(s.mask(bits), s.load_partial(strip_rest)) * s.splat(scale), y_rest);
        }
    }
}

/// The coefficients of one vector, among them the coefficients of the forward call.
pub(crate) trait ForwardCoefficients<S: Simd>: Copy {
    fn forward(&self) -> &Coefficients<S>;
}

/// The coefficients of one vector.
#[derive(Clone, Copy)]
pub(crate) struct Coefficients<S: Simd> {
    pub(crate) mean: S::F32,
    slope: S::F32,
    shift: S::F32,
}

impl<S: Simd> ForwardCoefficients<S> for Coefficients<S> {
    #[inline(always)]
    fn forward(&self) -> &Self {
        self
    }
}

impl<S: Simd> Coefficients<S> {
    /// `z`, in f32.
    #[inline(always)]
    pub(crate) fn normalise(&self, x: S::F32) -> S::F32 {
        normalised([self.mean, self.slope, self.shift], x)
    }
}

/// The coefficients of one column.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ColumnCoefficients {
    pub(crate) mean: f32,
    slope: f32,
    shift: f32,
    /// Whether the column needs f64.
    pub(crate) exact: bool,
}

impl ColumnCoefficients {
    /// The coefficients of each column of a group with sixteen columns at most. They are written to
    /// memory, so that one function serves all kernels.
    #[inline(never)]
    fn each(group: Group, tile: &Tile<FIELDS>) -> Lanes<Self> {
        of_columns(group, |column| Self::new(tile, column))
    }

    #[inline(always)]
    pub(crate) fn new([first, second]: &Tile<FIELDS>, column: usize) -> Self {
        let ([mean, slope], [shift, exact]) = (pair_lane(first, column), pair_lane(second, column));
        Self { mean, slope, shift, exact: exact != 0.0 }
    }
}

impl<S: Simd> Column<S, FIELDS> for ColumnCoefficients {
    type Vector = Coefficients<S>;

    #[inline(always)]
    fn of_column(tile: &Tile<FIELDS>, column: usize) -> Self {
        Self::new(tile, column)
    }

    #[inline(always)]
    fn of_columns(group: Group, tile: &Tile<FIELDS>) -> Lanes<Self> {
        Self::each(group, tile)
    }

    #[inline(always)]
    fn of_tile(s: S, [first, second]: &Tile<FIELDS>) -> Coefficients<S> {
        let ((mean, slope), (shift, _)) = (s.load_pair(first), s.load_pair(second));
        Coefficients { mean, slope, shift }
    }

    #[inline(always)]
    fn everywhere(self, s: S) -> Coefficients<S> {
        Coefficients { mean: s.splat(self.mean), slope: s.splat(self.slope), shift: s.splat(self.shift) }
    }

    #[inline(always)]
    fn select(s: S, lanes: S::Mask, these: Coefficients<S>, others: Coefficients<S>) -> Coefficients<S> {
        Coefficients {
            mean: s.select(lanes, these.mean, others.mean),
            slope: s.select(lanes, these.slope, others.slope),
            shift: s.select(lanes, these.shift, others.shift),
        }
    }

    #[inline(always)]
    fn needs_f64(self) -> bool {
        self.exact
    }
}

/// The number of fields of a table of coefficients. A field is a pair of f32 vectors: first mean and
/// slope, then shift and whether f64 is needed.
pub(crate) const FIELDS: usize = 2;
/// The number of the field whose second vector is 1 where f64 is needed.
pub(crate) const EXACT: usize = 1;

/// The kernel that writes the coefficients of a group into its table.
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
                put_coefficients(s, group, channels, table, &normalisation.of_channels(s, channels));
            }
        }
    }
}

/// The table of a group, if prepared statistics have it as it is: every channel has one column, the
/// group begins with a tile of the prepared table, and no dropout scale belongs into the coefficients.
#[inline(always)]
#[expect(clippy::float_cmp, reason = "a scale that changes nothing")]
pub(crate) fn prepared_table<'a>(normalisation: &Normalisation<'a>, group: Group) -> Option<&'a [Tile<FIELDS>]> {
    match normalisation.statistics {
        Statistics::Prepared(values)
            if normalisation.scale == 1.0 && group.is_direct() && group.first_channel.is_multiple_of(LANES) =>
        {
            let tiles = Prepared::of(values).tiles();
            // Groups of a forward call are whole tiles.
            Some(range(tiles, group.first_channel / LANES, group.tiles()))
        }
        _ => None,
    }
}

/// Writes the output of a whole tensor in place of the input, from prepared coefficients for which f32
/// is enough, without dropout, residual and curve. It is for targets without vector registers, where it
/// takes fewer instructions than a call of a function for each value.
#[inline(never)]
pub(crate) fn plain(prepared: Prepared<'_>, shape: Shape, lower: f32, values: &mut [f32]) {
    let (channels, inner) = (shape.channels().max(1), shape.inner().max(1));
    let y = |[mean, slope, shift]: [f32; 3], value: &mut f32| {
        one_at_a_time();
        let z = normalised([mean, slope, shift], *value);
        *value = bounded(Lane::FIRST, lower, 1, z, z);
    };
    // The product is at least 1 already, but the compiler does not see that.
    for row in values.chunks_exact_mut((channels * inner).max(1)) {
        if inner != 1 {
            for (channel, run) in row.chunks_exact_mut(inner).enumerate() {
                let [mean, slope, shift, _] = prepared.of_channel(channel);
                run.iter_mut().for_each(|value| y([mean, slope, shift], value));
            }
            continue;
        }
        // A word has the numbers of two channels.
        for ([first, second], row) in prepared.tiles().iter().zip(row.chunks_mut(LANES)) {
            let ([means, slopes], [shifts, _]) = (two_vectors(first), two_vectors(second));
            for ((mean, slope), (shift, pair)) in means.iter().zip(slopes).zip(shifts.iter().zip(row.chunks_mut(2))) {
                let (mean, slope, shift) = (halves(*mean), halves(*slope), halves(*shift));
                if let [value, rest @ ..] = pair {
                    y([mean[0], slope[0], shift[0]], value);
                    if let [value] = rest {
                        y([mean[1], slope[1], shift[1]], value);
                    }
                }
            }
        }
    }
}

/// The words of the two vectors of a pair.
#[inline(always)]
fn two_vectors(pair: &Lanes<f64>) -> [&[f64]; 2] {
    let (first, second) = pair.split_at_checked(LANES / 2).unwrap_or_default();
    [first, second]
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

/// Writes the output of a group, whose coefficients are in `table`.
#[inline(always)]
pub(crate) fn elements<'a, T: Storage>(
    tasks: Tasks,
    walk: &Walk,
    group: Group,
    apply: &Apply<'_, T>,
    table: &[Tile<FIELDS>],
    input: Option<T::Ref<'_>>,
    (output, gates): (T::Mut<'a>, Option<WrittenGates<'a>>),
) {
    let written = Written::<T> { output, grad_residual: None, gates, base: 0 };
    tasks.elements(walk, group, written, |units, Written { mut output, mut gates, base, .. }| {
        for tile in walk.tiles_of(group) {
            let (group, table, units) = (tile.group, tile.table(table), tile.units(units.clone()));
            let elements = Elements::new(input.map(|input| T::shorter(input)), T::reborrow(&mut output), base);
            let gates = gates.as_mut().map(WrittenGates::reborrow);
            let forward = Forward { walk, group, apply, table, units, elements, gates };
            match (apply.is_plain(), forward.gates.is_some()) {
                (true, false) => tasks.run(Variant::<T, false, false>(forward)),
                (true, true) => tasks.run(Variant::<T, false, true>(forward)),
                (false, _) => tasks.run(Variant::<T, true, true>(forward)),
            }
        }
    });
}

/// The coefficients that normalise vectors in which some lanes need f64: the coefficients of a run or of
/// one column in f32, with slope and shift in f64, or a tile of columns.
pub(super) type ExactSource<'a> = elementwise::ExactCoefficients<'a, ColumnCoefficients, [f64; 2], FIELDS>;

impl ExactSource<'_> {
    #[inline(always)]
    pub(super) fn normalise<S: Simd, T: Storage>(self, s: S, apply: &Apply<'_, T>) -> ExactNormalise<S> {
        match self {
            Self::Run(coefficients, [slope, shift]) => {
                let Coefficients { mean, slope: rounded, shift: rounded_shift } = coefficients.everywhere(s);
                let wide = [s.splat_f64(slope), s.splat_f64(shift)];
                let exact = s.mask(if coefficients.exact { s.lanes() } else { 0 });
                ExactNormalise { rounded: [mean, rounded, rounded_shift], wide, exact }
            }
            Self::Tile(tile, owner) => {
                let Coefficients { mean, slope, shift } = ColumnCoefficients::of_tile(s, tile);
                let (_, flags) = s.load_pair(&tile[EXACT]);
                let exact = s.le(s.splat(1.0), flags);
                // If there is a residual, every lane may need f64: it does if its `z` is not finite in
                // f32.
                let needed = if apply.residual.is_some() { s.lanes() } else { s.bits(exact) };
                let wide = s.lane_by_lane(LANES, |lane| match owner.channel_of(lane) {
                    Some(channel) if needed >> lane & 1 == 1 => apply.normalisation.of_channel(channel).wide(),
                    _ => [0.0; 2],
                });
                ExactNormalise { rounded: [mean, slope, shift], wide, exact }
            }
        }
    }
}

/// The output of some units of a group.
struct Forward<'a, 'b, T: Storage> {
    walk: &'a Walk,
    group: Group,
    apply: &'a Apply<'b, T>,
    table: &'a [Tile<FIELDS>],
    units: Range<usize>,
    elements: Elements<'a, T>,
    gates: Option<WrittenGates<'a>>,
}

/// [`Forward`] with or without a residual or a curve, and with or without gates. With `RESIDUAL`, the loop
/// asks whether gates are wanted. The others are kernels of their own: a kernel with the loops of all is
/// as large, and has too few registers for evaluation.
struct Variant<'a, 'b, T: Storage, const RESIDUAL: bool, const GATES: bool>(Forward<'a, 'b, T>);

impl<T: Storage, const RESIDUAL: bool, const GATES: bool> Kernel for Variant<'_, '_, T, RESIDUAL, GATES> {
    #[inline(always)]
    fn run<M: Machine>(self, m: M) {
        let (Self(forward), Some(s)) = (&self, m.all()) else { return };
        let (walk, stream) = (*forward.walk, forward.elements.stream);
        let place = (forward.group, forward.table, forward.units.clone());
        elementwise::walk(s, &walk, place, self);
        if stream {
            s.fence();
        }
    }
}

impl<'a, S: Simd, T: Storage, const RESIDUAL: bool, const GATES: bool> Elementwise<'a, S, FIELDS>
    for Variant<'a, '_, T, RESIDUAL, GATES>
{
    type Column = ColumnCoefficients;
    type Wide = [f64; 2];
    type Rooms = Rooms<T>;
    const FLAGS: [usize; 2] = [EXACT; 2];
    const BAND: usize = 2 * PIECE / LANES;

    #[inline(always)]
    fn rooms() -> Rooms<T> {
        Rooms::new()
    }

    #[inline(always)]
    fn keep(&self) -> Keep<'a> {
        self.0.apply.keep
    }

    #[inline(always)]
    fn len(&self) -> usize {
        self.0.elements.len()
    }

    #[inline(always)]
    fn needs_copy(&self) -> bool {
        self.0.elements.read.is_none() || self.0.apply.formula.curve.is_some()
    }

    /// Not if an input or a mask is overwritten.
    #[inline(always)]
    fn is_rewritable(&self) -> bool {
        let has_mask = self.0.gates.as_ref().is_some_and(|gates| gates.has_mask);
        self.0.elements.read.is_some() && !has_mask
    }

    #[inline(always)]
    fn in_turn(&self) -> bool {
        !RESIDUAL && self.0.elements.in_turn(None)
    }

    #[inline(always)]
    fn asks_owner(&self) -> bool {
        RESIDUAL && self.0.apply.residual.is_some()
    }

    #[inline(always)]
    fn ahead(&self, _: usize) -> Ahead {
        Ahead::NOT
    }

    #[inline(always)]
    fn wide(&self, _: &Tile<FIELDS>, column: usize) -> [f64; 2] {
        self.0.apply.normalisation.of_channel(self.0.group.channel_of(column)).wide()
    }

    #[inline(always)]
    fn vectors(
        &mut self,
        s: S,
        sources: (&mut impl Sources<S, Vector = Coefficients<S>>, Owner),
        keep: &Keep<'_>,
        piece: ((usize, usize), Ahead),
        room: (&mut [f32], &mut Rooms<T>),
    ) {
        self.0.vectors::<S, RESIDUAL, GATES>(s, sources, keep, piece, room);
    }

    #[inline(always)]
    fn four_rows(&mut self, s: S, rows: RowBlock, tile: usize, bits: (&mut FourBits, &mut Buffer)) {
        self.0.four_rows::<S, GATES>(s, rows, tile, bits);
    }

    #[inline(always)]
    fn exact(&mut self, s: S, source: ExactSource<'_>, keep: Keep<'_>, vectors: Vectors, strips: &mut Strips) {
        let [strip, _] = strips;
        s.apart(ExactForward { forward: &mut self.0, source, keep, vectors, strip });
    }
}

impl<T: Storage> Forward<'_, '_, T> {
    /// Writes the output of a piece of four rows of a matrix from memory, past the caches. The first
    /// tile of the piece is number `tile` of the table. Memory takes less time for four sequences in
    /// turn than for one sequence after the other.
    #[inline(always)]
    fn four_rows<S: Simd, const GATES: bool>(
        &mut self,
        s: S,
        rows: RowBlock,
        tile: usize,
        (bits, buffer): (&mut FourBits, &mut Buffer),
    ) {
        let (apply, start) = (self.apply, |row: usize| rows.first() + row * rows.width);
        for (row, bits) in bits.iter_mut().enumerate() {
            let bits = first_bits(bits, rows.columns);
            bits_of(self.gates.as_ref(), &apply.keep, start(row), bits.len(), buffer).put(bits);
        }
        let Some(x) = self.elements.read else { return };
        let inputs = [T::shorter(x); 2];
        let output = (&mut self.elements.write, self.elements.base);
        let (lower, tiles) = (apply.lower(s), Tiles::new(self.table.get(tile..).unwrap_or_default()));
        let gates = [const { [const { Cell::new(0) }; 4] }; BITS];
        let work = FourOutputs::<T, _, GATES> { apply, lower, tiles, gates: gates.iter() };
        T::four_rows(s, inputs, output, rows, (work, bits));
        if let Some(written) = &mut self.gates {
            for row in 0..4 {
                let mut words = [0; BITS];
                for (word, of_columns) in words.iter_mut().zip(&gates) {
                    *word = of_columns[row].get();
                }
                written.put(start(row), rows.columns, &words);
            }
        }
    }

    /// Writes the output of some neighbours, whose first vector belongs to `owner`.
    #[inline(always)]
    fn vectors<S: Simd, const RESIDUAL: bool, const GATES: bool>(
        &mut self,
        s: S,
        (sources, owner): (&mut impl Sources<S, Vector = Coefficients<S>>, Owner),
        keep: &Keep<'_>,
        ((start, len), ahead): ((usize, usize), Ahead),
        (copy, rooms): (&mut [f32], &mut Rooms<T>),
    ) {
        let (apply, vectors, mut buffer, mut pairs) = (self.apply, len.div_ceil(LANES), [0; _], [[0; 2]; _]);
        let bits = bits_of(if GATES { self.gates.as_ref() } else { None }, keep, start, vectors, &mut buffer);
        if let Some(curve) = apply.curve_if::<RESIDUAL>() {
            let residuals = apply.residuals::<S, RESIDUAL>(s, (start, len), ahead, &mut rooms.residual);
            let strip = copy.get_mut(..len).unwrap_or_default();
            // A copy, because a value whose address is given to a function is not in registers.
            let mut these = sources.clone();
            let x = self.elements.values_of(s, start, len, &mut rooms.read);
            apply.curve(s, curve, (&mut these, owner), (&residuals, x, &[]), strip);
            *sources = these;
            let (scale, stream) =
                (other_scale(apply.formula, apply.residual.is_some(), keep.scale), self.elements.streams());
            let y = self.elements.place(start, len, &mut rooms.write);
            s.apart(FinishStrip { strip, bits, scale, stream, y });
            self.elements.finish(s, start, len, &rooms.write);
            return;
        }
        let (lower, bits) = (apply.lower(s), bits.pairs(vectors, &mut pairs));
        let x = self.elements.read.map(|x| T::shorter(x));
        let inputs = (x, if RESIDUAL { apply.residual.map(|residual| T::shorter(residual)) } else { x });
        let output = (&mut self.elements.write, self.elements.base);
        let rooms = [&mut rooms.read, &mut rooms.residual, &mut rooms.write];
        let (place, by) = (((start, len), ahead), By { copy, stream: self.elements.stream, rooms });
        let (mut words, wanted) = ([0; BITS], if self.gates.is_some() { vectors } else { 0 });
        let mut each = Some(EachOutput::<T, _, _, RESIDUAL, GATES> {
            apply,
            lower,
            sources: sources.clone(),
            owner,
            vector: 0,
            gates: words.get_mut(..wanted).unwrap_or_default().iter_mut(),
        });
        T::each_vector(s, inputs, output, place, by, (&mut each, bits));
        if let Some(each) = each {
            *sources = each.sources;
        }
        if let Some(gates) = &mut self.gates {
            gates.put(start, len, &words);
        }
    }
}

/// The mask bits of `vectors` vectors, at most 32, from element `first` on. If gates take the place of a
/// mask, the bits are a copy of this mask.
#[inline(always)]
fn bits_of<'a>(
    gates: Option<&WrittenGates<'_>>,
    keep: &'a Keep<'_>,
    first: usize,
    vectors: usize,
    buffer: &'a mut Buffer,
) -> Bits<'a> {
    match gates {
        Some(gates) if gates.has_mask => gates.copy_bits(first, vectors, buffer),
        _ => keep.bits(first, vectors, buffer),
    }
}

/// The output of one vector after the other, without a curve.
struct EachOutput<'a, 'b, 'c, T: Storage, U, V, const RESIDUAL: bool, const GATES: bool> {
    apply: &'a Apply<'b, T>,
    lower: V,
    sources: U,
    /// The owner of the first vector, and the number of the next vector.
    owner: Owner,
    vector: usize,
    /// The places for the gates of the next vectors. There are none without `GATES`, and where no gates are
    /// wanted.
    gates: slice::IterMut<'c, u16>,
}

impl<S: Simd, T: Storage, U: Sources<S, Vector = Coefficients<S>>, const RESIDUAL: bool, const GATES: bool>
    EachVector<S> for EachOutput<'_, '_, '_, T, U, S::F32, RESIDUAL, GATES>
{
    const TWO: bool = RESIDUAL;

    #[inline(always)]
    fn next(&mut self, s: S, (x, residual): (S::F32, S::F32), bits: u16) -> Option<S::F32> {
        let (coefficients, owner) = (self.sources.take(s)?, self.owner.further(self.vector));
        let z = self.apply.z::<S, RESIDUAL>(s, &coefficients, x, residual, owner);
        let (y, gate) = self.apply.finish(s, self.lower, bits, z, RESIDUAL);
        if GATES && let Some(to) = self.gates.next() {
            *to = s.bits(gate);
        }
        self.vector += 1;
        Some(y)
    }
}

/// The output of four rows, without a residual or a curve.
struct FourOutputs<'a, 'b, T: Storage, V, const GATES: bool> {
    apply: &'a Apply<'b, T>,
    lower: V,
    tiles: Tiles<'a, ColumnCoefficients, FIELDS>,
    /// The places for the gates of the next columns of all rows, if `GATES`.
    gates: slice::Iter<'a, [Cell<u16>; 4]>,
}

impl<'a, S: Simd, T: Storage, const GATES: bool> EachFour<S> for FourOutputs<'a, '_, T, S::F32, GATES> {
    /// The coefficients, and the place for the gates of their columns.
    type Coefficients = (Coefficients<S>, Option<&'a [Cell<u16>; 4]>);
    const TWO: bool = false;

    #[inline(always)]
    fn next(&mut self, s: S) -> Option<Self::Coefficients> {
        Some((self.tiles.take(s)?, if GATES { self.gates.next() } else { None }))
    }

    #[inline(always)]
    fn of_row(
        &mut self,
        s: S,
        row: usize,
        (of, gates): &Self::Coefficients,
        (x, _): (S::F32, S::F32),
        bits: u16,
    ) -> S::F32 {
        let (y, gate) = self.apply.finish(s, self.lower, bits, of.normalise(x), false);
        if let Some(gates) = gates {
            gates[row % 4].set(s.bits(gate));
        }
        y
    }
}

/// Writes the output of vectors in which some lanes need f64. It is a function of its own, beside the
/// loops that most tensors need.
struct ExactForward<'a, 'b, 'c, T: Storage> {
    forward: &'c mut Forward<'a, 'b, T>,
    source: ExactSource<'c>,
    keep: Keep<'c>,
    vectors: Vectors,
    strip: &'c mut [f32; PIECE],
}

impl<S: Simd, T: Storage> Work<S> for ExactForward<'_, '_, '_, T> {
    #[inline(always)]
    fn run(self, s: S) {
        self.exact_output(s);
    }
}

impl<T: Storage> ExactForward<'_, '_, '_, T> {
    #[inline(always)]
    fn exact_output<S: Simd>(self, s: S) {
        let Self { forward, source, keep, vectors, strip } = self;
        let apply = forward.apply;
        let normalise = source.normalise(s, apply);
        let (lower, scale) = (apply.lower(s), other_scale(apply.formula, apply.residual.is_some(), keep.scale));
        let mut rooms = Rooms::<T>::new();
        for first in (0..vectors.count()).step_by(BITS) {
            let mut filled = 0;
            for (place, z) in vectors.from(first, BITS).zip(strip.as_chunks_mut().0) {
                let (tensor, base) = forward.elements.source();
                let x = load_values::<S, T>(s, tensor, place.after(base), &mut rooms.read);
                s.store(normalise.z(s, x, apply.residual_of(s, place, &mut rooms.residual)), z);
                filled += LANES;
            }
            if let Some(curve) = &apply.formula.curve {
                s.strip(curve.functions, curve.parameter, &[], strip.get_mut(..filled).unwrap_or_default());
            }
            for (place, value) in vectors.from(first, BITS).zip(strip.as_chunks().0) {
                let bits = match &forward.gates {
                    // `place` is never a column here. Columns are written twice, and nothing is written
                    // twice where gates take the place of a mask.
                    Some(gates) if gates.has_mask => gates.of_vector(place.start),
                    _ => keep.of_values(place),
                };
                let value = s.load(value);
                let gate = s.unless_less(s.mask(bits), value, lower);
                forward.elements.put_values(s, s.keep(gate, value) * s.splat(scale), place, &mut rooms.write);
                if let Some(gates) = &mut forward.gates {
                    gates.put_values(place, s.bits(gate));
                }
            }
        }
    }
}
