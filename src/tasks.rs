//! Tasks: the pieces into which a call is cut. They run one at a time or, with the feature `rayon`,
//! on several threads.
//!
//! The number of tasks does not influence any result. Statistics are made from parts that the shape
//! fixes, merged in the order of their numbers, and the result of an element depends on no other
//! task.

use core::ops::Range;

use crate::backend::Backend;
use crate::bits::WrittenGates;
#[cfg(feature = "rayon")]
use crate::simd::in_default;
use crate::simd::{Kernel, LANES, dispatch};
use crate::storage::Storage;
use crate::walk::{Group, LEAST_SHARED, Piece, Tile, Walk, div_ceil};

/// The smallest number of elements of a task: some microseconds of work.
const LEAST_ELEMENTS: usize = 1 << 14;

/// The number of values of a group that fit one core's share of the caches: 4 MiB. Smaller groups
/// would fit the second-level cache, but read shorter stretches of memory, which costs more than
/// the third-level cache does.
const CACHED_VALUES: usize = 1 << 20;

/// The backend and the number of tasks of a call.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Tasks {
    pub(crate) backend: Option<Backend>,
    /// The largest number of tasks, at least 1.
    pub(crate) count: usize,
}

impl Tasks {
    /// Runs a kernel.
    #[inline(always)]
    pub(crate) fn run(self, kernel: impl Kernel) {
        dispatch(self.backend, kernel);
    }

    /// The largest number of values of a group that is read twice, for its statistics and for its
    /// elements, and should still be in the caches the second time.
    pub(crate) fn cached_values(self) -> usize {
        CACHED_VALUES.saturating_mul(self.count)
    }

    /// The number of tasks that pays for `elements` elements.
    pub(crate) fn for_elements(self, elements: usize) -> usize {
        if elements < LEAST_SHARED { 1 } else { self.count.min(elements / LEAST_ELEMENTS).max(1) }
    }

    /// Runs `work` on independent pieces, in the default floating-point environment on every thread.
    #[cfg(feature = "rayon")]
    pub(crate) fn each<P: Send>(self, mut pieces: impl Iterator<Item = P>, work: impl Fn(P) + Sync) {
        let Some(first) = pieces.next() else { return };
        let Some(second) = pieces.next() else { return work(first) };
        if !forked::has_threads() {
            work(first);
            work(second);
            return pieces.for_each(work);
        }
        let work = &work;
        rayon::in_place_scope(|scope| {
            for piece in core::iter::once(second).chain(pieces) {
                scope.spawn(move |_| in_default(|| work(piece)));
            }
            work(first);
        });
    }

    /// Runs `work` on independent pieces.
    #[cfg(not(feature = "rayon"))]
    #[inline(always)]
    #[expect(clippy::unused_self, reason = "as with threads")]
    pub(crate) fn each<P>(self, pieces: impl Iterator<Item = P>, work: impl Fn(P)) {
        pieces.for_each(work);
    }

    /// The statistics of a group. Tasks run `work` on each piece, which reads the table of the
    /// group and writes one of `tables`. Then `merge` takes these tables into the table of the
    /// group, in the order of the parts.
    #[inline(always)]
    pub(crate) fn statistics<const FIELDS: usize, const TASK_FIELDS: usize>(
        self,
        walk: &Walk,
        group: Group,
        table: &mut [Tile<FIELDS>],
        tables: &mut [Tile<TASK_FIELDS>],
        work: impl Fn((Group, Piece), &[Tile<FIELDS>], &mut [Tile<TASK_FIELDS>]) + Sync,
        merge: impl Fn((Group, Piece), &mut [Tile<FIELDS>], &[Tile<TASK_FIELDS>]),
    ) {
        let cuts = Cuts::new(self, walk, group, tables.len());
        // With `max` the compiler knows that neither number is 0.
        let (tasks, tiles) = (cuts.tasks.max(1), cuts.tiles.max(1));
        for first in (0..cuts.pieces).step_by(tasks) {
            let wave = (first..cuts.pieces.min(first + tasks)).map(|number| cuts.piece(number));
            let (shared, own) = (&*table, tables.chunks_exact_mut(tiles));
            self.each(wave.clone().zip(own), |(piece, own)| {
                for tile in walk.tiles_of(group) {
                    if let Some(piece) = tile.piece(piece) {
                        work((tile.group, piece), tile.table(shared), tile.table_mut(own));
                    }
                }
            });
            for (piece, own) in wave.zip(tables.chunks_exact(tiles)) {
                for tile in walk.tiles_of(group) {
                    if let Some(piece) = tile.piece(piece) {
                        merge((tile.group, piece), tile.table_mut(table), tile.table(own));
                    }
                }
            }
        }
    }

    /// The elements of a group. Each task takes some units and writes its part of each tensor.
    #[inline(always)]
    pub(crate) fn elements<'a, T: Storage>(
        self,
        walk: &Walk,
        group: Group,
        written: Written<'a, T>,
        work: impl Fn(Range<usize>, Written<'a, T>) + Sync,
    ) {
        let units = walk.units(group);
        let tasks = self.for_elements(walk.values_in(group));
        // Without this return, a build without threads would have the code that cuts pieces.
        if tasks == 1 {
            return work(0..units, written);
        }
        let step = div_ceil(units, tasks).max(1);
        // Two tasks cannot write bits of one byte.
        let anywhere = written.gates.is_none();
        let is_cut = |unit| anywhere || walk.unit_start(group, unit).is_multiple_of(8);
        let next_cut = |first: usize| (units.min(first + step)..units).find(|&unit| is_cut(unit)).unwrap_or(units);
        let cuts =
            core::iter::successors(Some((0, next_cut(0))), |&(_, end)| (end < units).then(|| (end, next_cut(end))));
        let mut rest = written;
        let pieces = cuts.map(|(first, end)| {
            let until = if end == units { usize::MAX } else { walk.unit_start(group, end) };
            (first..end, rest.split(until))
        });
        self.each(pieces, |(units, written)| work(units, written));
    }
}

/// A process made by `fork` has the memory of its parent but only one of its threads. The pool
/// looks as if its threads were running, and a call that waits for them waits for ever. In such a
/// process a call runs all its tasks itself.
#[cfg(all(feature = "rayon", unix))]
mod forked {
    extern crate std;

    use core::cell::Cell;
    use core::sync::atomic::{AtomicU32, Ordering};

    /// The process in which a call first shared its work with the global pool and so started it; 0
    /// before. No process has the number 0.
    static GLOBAL: AtomicU32 = AtomicU32::new(0);

    std::thread_local! {
        /// The process that started the pool of this thread.
        static OWN: Cell<u32> = const { Cell::new(0) };
    }

    /// Whether this process has the threads of the pool with which this thread would share its
    /// work.
    pub(super) fn has_threads() -> bool {
        let process = std::process::id();
        let first = if rayon::current_thread_index().is_some() {
            OWN.with(|own| match own.get() {
                0 => own.replace(process),
                first => first,
            })
        } else {
            GLOBAL.compare_exchange(0, process, Ordering::Relaxed, Ordering::Relaxed).unwrap_or_else(|first| first)
        };
        first == 0 || first == process
    }
}

/// No other system has `fork`.
#[cfg(all(feature = "rayon", not(unix)))]
mod forked {
    #[inline(always)]
    pub(super) const fn has_threads() -> bool {
        true
    }
}

/// The pieces from which the statistics of a group are made, one table each.
struct Cuts {
    /// The number of pieces that are processed at the same time.
    tasks: usize,
    /// The number of tiles of a table.
    tiles: usize,
    /// The number of columns of a piece.
    columns: usize,
    /// The number of pieces of a part.
    splits: usize,
    pieces: usize,
    all_columns: usize,
}

impl Cuts {
    fn new(tasks: Tasks, walk: &Walk, group: Group, tables: usize) -> Self {
        let (parts, tiles) = (walk.parts(), group.tiles().max(1));
        let tasks = tasks.for_elements(walk.values_in(group)).min(tables / tiles).max(1);
        // If lanes are columns: split by part first, then by whole tiles, so that rows are read
        // whole. Otherwise: split the channels, which share a tile, evenly.
        let (unit, splits) = if walk.has_columns() { (LANES, div_ceil(tasks, parts)) } else { (1, tasks) };
        let units = div_ceil(div_ceil(group.columns, unit), splits);
        let columns = units * unit;
        let splits = div_ceil(group.columns, columns);
        Self { tasks, tiles, columns, splits, pieces: parts * splits, all_columns: group.columns }
    }

    /// Piece number `number`: the pieces of the first part come first, then those of the next part.
    fn piece(&self, number: usize) -> Piece {
        let part = number.checked_div(self.splits).unwrap_or(0);
        let first = (number - part * self.splits) * self.columns;
        Piece { part, first, columns: self.columns.min(self.all_columns - first) }
    }
}

/// The tensors that a pass over elements writes, from element `base` on.
#[derive(Debug)]
pub(crate) struct Written<'a, T: Storage> {
    pub(crate) output: T::Mut<'a>,
    /// The gradient of the residual, if the pass writes it.
    pub(crate) grad_residual: Option<T::Mut<'a>>,
    /// The gates, if the call is a forward call that writes them.
    pub(crate) gates: Option<WrittenGates<'a>>,
    pub(crate) base: usize,
}

impl<T: Storage> Written<'_, T> {
    /// Takes the elements before `end`, and leaves the elements from `end` on.
    #[inline(always)]
    fn split(&mut self, end: usize) -> Self {
        let len = T::len_mut(&self.output).min(end - self.base);
        let output = T::take_front(&mut self.output, len);
        let grad_residual = self.grad_residual.as_mut().map(|tensor| T::take_front(tensor, len));
        let gates = self.gates.as_mut().map(|gates| gates.take(len));
        let part = Self { output, grad_residual, gates, base: self.base };
        self.base += len;
        part
    }
}
