//! Tasks: a call cut into pieces that are worked one after the other or, with the feature `rayon`, by several threads.
//!
//! How many tasks there are does not influence any result: statistics are made of parts that the shape fixes, merged in
//! the order of their numbers, and every element is worked alone.

use core::ops::Range;

use crate::backend::Backend;
use crate::pass::{Group, LEAST_SHARED, Piece, Tile, Walk, div_ceil};
use crate::simd::{Kernel, LANES, dispatch};
use crate::slices::take_front;

/// The least elements of a task: some microseconds of work.
const LEAST_ELEMENTS: usize = 1 << 14;

/// The values of a group that one core's share of the caches holds: 4 MiB. Groups of fewer channels would fit the second
/// cache, but take their runs from places further apart, which costs more than the third cache does.
const CACHED_VALUES: usize = 1 << 20;

/// How the work of a call is done.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Tasks {
    pub(crate) backend: Option<Backend>,
    /// The tasks at most, at least 1.
    pub(crate) count: usize,
}

impl Tasks {
    /// Runs a kernel.
    #[inline(always)]
    pub(crate) fn run(self, kernel: impl Kernel) {
        dispatch(self.backend, kernel);
    }

    /// The values of a group whose statistics are wanted before its elements: so many that they are still in the caches then.
    pub(crate) fn cached_values(self) -> usize {
        CACHED_VALUES.saturating_mul(self.count)
    }

    /// The tasks that are worth while for so many elements.
    pub(crate) fn for_elements(self, elements: usize) -> usize {
        if elements < LEAST_SHARED { 1 } else { self.count.min(elements / LEAST_ELEMENTS).max(1) }
    }

    /// Works pieces that have nothing to do with each other.
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
                scope.spawn(move |_| work(piece));
            }
            work(first);
        });
    }

    /// Works pieces that have nothing to do with each other.
    #[cfg(not(feature = "rayon"))]
    #[inline(always)]
    #[expect(clippy::unused_self, reason = "as with threads")]
    pub(crate) fn each<P>(self, pieces: impl Iterator<Item = P>, work: impl Fn(P)) {
        pieces.for_each(work);
    }

    /// The statistics of a group: each piece by `work`, tile by tile where the group is worked so, into one of several tables,
    /// by tasks that share the table of the group; then by `merge` into that table, in the order of the parts.
    #[inline(always)]
    pub(crate) fn statistics<const FIELDS: usize, const TASK_FIELDS: usize>(
        self,
        walk: &Walk,
        group: Group,
        table: &mut [Tile<FIELDS>],
        tables: &mut [Tile<TASK_FIELDS>],
        work: impl Fn((Group, Piece), &[Tile<FIELDS>], &mut [Tile<TASK_FIELDS>]) + Sync,
        merge: impl Fn(Piece, &mut [Tile<FIELDS>], &[Tile<TASK_FIELDS>]),
    ) {
        let cuts = Cuts::new(self, walk, group, tables.len());
        // The compiler sees here that neither is 0.
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
                        merge(piece, tile.table_mut(table), tile.table(own));
                    }
                }
            }
        }
    }

    /// The elements of a group: some units by each task, which writes a part of each of the tensors.
    #[inline(always)]
    pub(crate) fn elements<'a>(
        self,
        walk: &Walk,
        group: Group,
        written: Written<'a>,
        work: impl Fn(Range<usize>, Written<'a>) + Sync,
    ) {
        let units = walk.units(group);
        let tasks = self.for_elements(walk.values_in(group));
        // Where there are no threads, no code to cut pieces either.
        if tasks == 1 {
            return work(0..units, written);
        }
        let step = div_ceil(units, tasks).max(1);
        let mut rest = written;
        let pieces = (0..units).step_by(step).map(|first| {
            let end = units.min(first + step);
            let until = if end == units { usize::MAX } else { walk.unit_start(group, end) };
            (first..end, rest.split(until))
        });
        self.each(pieces, |(units, written)| work(units, written));
    }
}

/// A process that was made by `fork` has the memory of its parent but only one thread of it: the pool looks as if its
/// threads were there, and whoever waits for them waits for ever. There a call works all its tasks by itself.
#[cfg(all(feature = "rayon", unix))]
mod forked {
    extern crate std;

    use core::cell::Cell;
    use core::sync::atomic::{AtomicU32, Ordering};

    /// The process in which a call first shared its work with the global pool, which that starts; 0 before. The number of
    /// no process is 0.
    static GLOBAL: AtomicU32 = AtomicU32::new(0);

    std::thread_local! {
        /// The same of the pool that this thread is one of.
        static OWN: Cell<u32> = const { Cell::new(0) };
    }

    /// Whether this process has the threads of the pool that this thread would share its work with.
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

/// The pieces of which the statistics of a group are made, one table each.
struct Cuts {
    /// The pieces that are worked at once.
    tasks: usize,
    /// The tiles of a table.
    tiles: usize,
    /// The columns of a piece.
    columns: usize,
    /// The pieces of a part.
    splits: usize,
    pieces: usize,
    all_columns: usize,
}

impl Cuts {
    fn new(tasks: Tasks, walk: &Walk, group: Group, tables: usize) -> Self {
        let (parts, tiles) = (walk.parts(), group.tiles().max(1));
        let tasks = tasks.for_elements(walk.values_in(group)).min(tables / tiles).max(1);
        // Whole tiles where lanes are columns, whose rows are best read whole: tasks take parts before they share one. Channels
        // otherwise, which share a tile, and of which tasks have as many as each other.
        let (unit, splits) = if walk.has_columns() { (LANES, div_ceil(tasks, parts)) } else { (1, tasks) };
        let units = div_ceil(div_ceil(group.columns, unit), splits);
        let columns = units * unit;
        let splits = div_ceil(group.columns, columns);
        Self { tasks, tiles, columns, splits, pieces: parts * splits, all_columns: group.columns }
    }

    /// All columns of the first part, then of the next.
    fn piece(&self, number: usize) -> Piece {
        let part = number.checked_div(self.splits).unwrap_or(0);
        let first = (number - part * self.splits) * self.columns;
        Piece { part, first, columns: self.columns.min(self.all_columns - first) }
    }
}

/// The tensors that a pass over elements writes, from element `base` on.
#[derive(Debug)]
pub(crate) struct Written<'a> {
    pub(crate) output: &'a mut [f32],
    /// The gradient of a residual.
    pub(crate) grad_residual: Option<&'a mut [f32]>,
    pub(crate) base: usize,
}

impl Written<'_> {
    /// Takes the elements before `end`.
    #[inline(always)]
    fn split(&mut self, end: usize) -> Self {
        let len = self.output.len().min(end - self.base);
        let output = take_front(&mut self.output, len);
        let grad_residual = self.grad_residual.as_mut().map(|tensor| take_front(tensor, len));
        let part = Self { output, grad_residual, base: self.base };
        self.base += len;
        part
    }
}
