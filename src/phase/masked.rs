//! Calls over the valid positions of a padded batch, top to bottom. The valid positions are taken in
//! *chunks*, in the order of their samples: the values of some channels at some positions are copied
//! side by side, and the phases of a plain call work on the copy, as on a tensor of its own. The
//! padding is never read. The moments and the sums of the chunks are merged like those of the parts of
//! a batch.
//!
//! A chunk stays in the first or second cache, so that the copies cost little. The sizes of chunks
//! decide which values are added in which order, and so the bits of results. Elementwise work is cut
//! otherwise, into parts that are not copied where valid values are neighbours.

#[cfg(feature = "rayon")]
use core::num::NonZero;

use crate::activation::Formula;
use crate::args::{Dropout, Finish, ParameterGradients, Parameters, Running, Saved, SavedMut, Statistics, Train};
use crate::bits::copy_bits;
use crate::channel::Normalisation;
use crate::config::{Config, Granularity};
use crate::padding::{Positions, Run, clear_bits};
use crate::parts::{merge_channels, moments_len, sums_len};
use crate::pass::keep::Gates;
use crate::phase::{Phases, backward, train};
use crate::plan::{BackwardCall, ForwardCall, Gradients, MomentsCall, Phase, Plan, Target};
use crate::prepared::{Field, Prepared, PreparedMut, prepared_len};
use crate::shape::Shape;
use crate::slices::{range, range_mut, take_front};
use crate::storage::Singles;

/// The largest number of elements of a chunk.
const CHUNK: usize = 4096;
/// The fewest positions of a chunk, channels last: four blocks of each column.
const ROWS: usize = 64;
/// The fewest positions of a chunk, channels first: a block of each channel.
const RUN: usize = 256;
/// The fewest neighbours of one channel that are worth a call of their own.
const LONG: usize = 1024;
/// The tensors of a call that are copied at the same time: `x`, the residual, `dy` and the gradient
/// of the residual.
const TENSORS: usize = 4;

/// The most channels and the most positions of a chunk. Channels first, a chunk has about the
/// positions of one sample, so that its values are neighbours in memory.
const fn cut(shape: Shape) -> (usize, usize) {
    const fn least(a: usize, b: usize) -> usize {
        if a < b { a } else { b }
    }
    let positions = match shape.inner() {
        1 => ROWS,
        ..RUN => RUN,
        inner => least(inner, CHUNK),
    };
    let channels = least(shape.channels(), CHUNK / positions);
    match CHUNK.checked_div(channels) {
        Some(positions) => (channels, least(positions, shape.samples())),
        None => (0, 0),
    }
}

/// The number of f32 values of the workspace.
pub(crate) const fn workspace_len(shape: Shape) -> usize {
    let (channels, positions) = cut(shape);
    TENSORS * channels * positions
}

/// The number of f64 values of scratch: enough for a plain call, if all positions are valid, and for
/// the statistics of the batch and of a chunk together with the phases of a chunk.
pub(crate) const fn scratch_len(plan: &Plan) -> usize {
    const fn larger(a: usize, b: usize) -> usize {
        if a > b { a } else { b }
    }
    const fn of_call(plan: &Plan) -> usize {
        larger(larger(plan.eval_scratch_len(), plan.train_scratch_len()), plan.backward_scratch_len())
    }
    let (channels, positions) = cut(plan.shape);
    // More positions do not make the tables smaller, with one exception: tables for sixteen and more
    // neighbours have fewer columns than tables for fifteen.
    let few = if positions < 15 { positions } else { 15 };
    let mut tables = 0;
    if let Some(rest) = plan.shape.channels().checked_rem(channels) {
        let sizes = [(channels, positions), (channels, few), (rest, positions), (rest, few)];
        let mut at = 0;
        while at < sizes.len() {
            let (channels, positions) = sizes[at];
            tables = larger(tables, of_call(&of_shape(plan, chunk_shape(plan.shape, channels, positions))));
            at += 1;
        }
    }
    let of_batch = moments_len(plan.shape.channels());
    let of_chunk = moments_len(channels) + prepared_len(channels) + tables;
    // Elementwise work has parts of all channels, too.
    of_batch.saturating_add(larger(of_chunk, of_call(plan)))
}

/// The shape of a chunk in the layout of `shape`.
const fn chunk_shape(shape: Shape, channels: usize, positions: usize) -> Shape {
    let (outer, inner) = if shape.inner() == 1 { (positions, 1) } else { (1, positions) };
    match Shape::new(outer, channels, inner) {
        Ok(shape) => shape,
        // A part of a tensor is not larger than the tensor.
        Err(_) => shape,
    }
}

/// The plan for a chunk, whose mask has a bit for each element, on the calling thread.
const fn of_shape(plan: &Plan, shape: Shape) -> Plan {
    Plan {
        shape,
        config: Config { granularity: Granularity::Element, ..plan.config },
        keep: plan.keep,
        backend: plan.backend,
        #[cfg(feature = "rayon")]
        tasks: NonZero::<usize>::MIN,
    }
}

/// The values of some channels at the next positions.
struct Chunk<'a> {
    shape: Shape,
    from: Positions<'a>,
    /// The number of positions.
    positions: usize,
    /// The place behind the last position, among the positions of all samples.
    end: usize,
    first_channel: usize,
    channels: usize,
}

/// Neighbouring elements of a tensor, and their place in a chunk.
struct Segment {
    element: usize,
    place: usize,
    len: usize,
}

/// All chunks of some positions, in order.
fn each_chunk<'a>(shape: Shape, positions: Positions<'a>, mut work: impl FnMut(&Chunk<'a>)) {
    let (channels, most) = cut(shape);
    let mut rest = positions;
    loop {
        let from = rest;
        let positions = rest.skip(most);
        if positions == 0 {
            return;
        }
        for first_channel in (0..shape.channels()).step_by(channels.max(1)) {
            let channels = channels.min(shape.channels() - first_channel);
            work(&Chunk { shape, from, positions, end: rest.place(), first_channel, channels });
        }
    }
}

/// Calls `work` for the parts of elementwise work, whose results do not depend on how it is cut. Where
/// valid values are neighbours in the tensor, a part is such neighbours, and nothing is copied;
/// elsewhere the parts are chunks. `limited` says that a part has no more elements than a chunk,
/// because bits are copied.
fn each_part<'a>(shape: Shape, positions: Positions<'a>, limited: bool, mut work: impl FnMut(&Chunk<'a>)) {
    let (cut_channels, most) = cut(shape);
    let (channels, inner) = (shape.channels(), shape.inner());
    // The elements that all channels have at one position, channels last, or at all positions of a sample.
    let unit = channels * inner;
    let fits = !limited || unit <= CHUNK;
    // If a run is worth a part without a copy: the channels and the most positions of such a part.
    let alone = |run: Run| {
        if inner == 1 && fits {
            let longest = CHUNK.checked_div(channels).filter(|_| limited).unwrap_or(usize::MAX);
            Some((channels, longest))
        } else if inner != 1 && fits && run.len == inner && unit >= LONG {
            Some((channels, inner))
        } else if inner != 1 && run.len >= LONG {
            Some((1, CHUNK))
        } else {
            None
        }
    };
    let mut rest = positions;
    loop {
        let from = rest;
        let Some(run) = { rest }.take(usize::MAX) else { return };
        let (channels, positions) = match alone(run) {
            Some((channels, longest)) => {
                let mut taken = rest.take(longest).map_or(0, |run| run.len);
                // Channels last, the next sample may begin where this one ends.
                while inner == 1 && taken < longest {
                    let (mut ahead, end) = (rest, rest.place());
                    match ahead.take(longest - taken) {
                        Some(run) if run.sample * shape.positions() + run.first == end => {
                            (rest, taken) = (ahead, taken + run.len);
                        }
                        _ => break,
                    }
                }
                (channels, taken)
            }
            None => {
                let mut taken = 0;
                while taken < most && { rest }.take(usize::MAX).is_some_and(|run| alone(run).is_none()) {
                    taken += rest.take(most - taken).map_or(0, |run| run.len);
                }
                (cut_channels, taken)
            }
        };
        let end = rest.place();
        for first_channel in (0..shape.channels()).step_by(channels.max(1)) {
            let channels = channels.min(shape.channels() - first_channel);
            work(&Chunk { shape, from, positions, end, first_channel, channels });
        }
    }
}

/// Calls `work` for all elements at `positions`.
fn each_element(shape: Shape, positions: Positions<'_>, work: impl FnMut(Segment)) {
    let channels = shape.channels();
    Chunk { shape, from: positions, positions: usize::MAX, end: 0, first_channel: 0, channels }.each_segment(work);
}

impl Chunk<'_> {
    fn is_channels_last(&self) -> bool {
        self.shape.inner() == 1
    }

    /// The segments of the chunk, position after position.
    #[inline(always)]
    fn each_segment(&self, mut work: impl FnMut(Segment)) {
        let (width, inner) = (self.shape.channels(), self.shape.inner());
        let (mut from, mut done) = (self.from, 0);
        while let Some(Run { sample, first, len }) = from.take(self.positions - done) {
            if !self.is_channels_last() {
                for channel in 0..self.channels {
                    let element = (sample * width + self.first_channel + channel) * inner + first;
                    work(Segment { element, place: channel.wrapping_mul(self.positions).wrapping_add(done), len });
                }
            } else {
                let row = sample * self.shape.positions() + first;
                if self.channels == width {
                    work(Segment { element: row * width, place: done * width, len: len * width });
                } else {
                    for position in 0..len {
                        let element = (row + position) * width + self.first_channel;
                        work(Segment { element, place: (done + position) * self.channels, len: self.channels });
                    }
                }
            }
            done += len;
        }
    }

    /// The first element of the chunk, if its elements are neighbours in the tensor.
    fn neighbours(&self) -> Option<usize> {
        let (channels, inner) = (self.shape.channels(), self.shape.inner());
        let Run { sample, first, .. } = { self.from }.take(1)?;
        if self.is_channels_last() {
            let row = sample * self.shape.positions() + first;
            return (self.channels == channels && row + self.positions == self.end).then_some(row * channels);
        }
        let together = sample * inner + first + self.positions == self.end && self.end <= (sample + 1) * inner;
        let element = (sample * channels + self.first_channel) * inner + first;
        (together && (self.channels == 1 || self.positions == inner)).then_some(element)
    }

    const fn len(&self) -> usize {
        self.channels * self.positions
    }

    /// Whether the chunk has every channel.
    const fn is_wide(&self) -> bool {
        self.channels == self.shape.channels()
    }

    fn plan(&self, plan: &Plan) -> Plan {
        of_shape(plan, chunk_shape(self.shape, self.channels, self.positions))
    }

    /// The plan of a part of elementwise work: in tasks, if its elements are neighbours.
    fn elementwise_plan(&self, plan: &Plan) -> Plan {
        let of_part = self.plan(plan);
        match self.neighbours() {
            Some(_) => Plan { shape: of_part.shape, config: of_part.config, ..*plan },
            None => of_part,
        }
    }

    /// The values of the chunk: in `tensor` if they are neighbours, else copied to `copy`.
    fn read<'a>(&self, tensor: &'a [f32], copy: &'a mut [f32]) -> &'a [f32] {
        match self.neighbours() {
            Some(first) => range(tensor, first, self.len()),
            None => self.copy(tensor, copy),
        }
    }

    /// A copy of the values of the chunk.
    fn copy<'a>(&self, tensor: &[f32], copy: &'a mut [f32]) -> &'a mut [f32] {
        let copy = range_mut(copy, 0, self.len());
        self.each_segment(|Segment { element, place, len }| {
            copy_values(range(tensor, element, len), range_mut(copy, place, len));
        });
        copy
    }

    /// Puts the values of the chunk to their places in `tensor`.
    fn put(&self, values: &[f32], tensor: &mut [f32]) {
        self.each_segment(|Segment { element, place, len }| {
            copy_values(range(values, place, len), range_mut(tensor, element, len));
        });
    }

    /// The values of the chunk's channels, from a slice with a value for each channel.
    fn of<'a, T>(&self, values: &'a [T]) -> &'a [T] {
        range(values, self.first_channel, self.channels)
    }

    fn parameters<'a>(&self, Parameters { weight, bias }: Parameters<'a>) -> Parameters<'a> {
        Parameters { weight: weight.map(|weight| self.of(weight)), bias: bias.map(|bias| self.of(bias)) }
    }

    /// The normalisation of the channels of the chunk. Prepared statistics are written to `prepared`.
    fn normalisation<'a>(&self, normalisation: &Normalisation<'a>, prepared: &'a mut [f64]) -> Normalisation<'a> {
        let statistics = match normalisation.statistics {
            Statistics::Batch(Saved { mean, mean_tail, inv_std }) => {
                Statistics::Batch(Saved::new(self.of(mean), self.of(mean_tail), self.of(inv_std)))
            }
            Statistics::Fixed(Running { mean, mean_tail, var }) => Statistics::Fixed(Running {
                mean: self.of(mean),
                mean_tail: mean_tail.map(|tail| self.of(tail)),
                var: self.of(var),
            }),
            Statistics::Prepared(all) if self.is_wide() => Statistics::Prepared(all),
            Statistics::Prepared(all) => {
                let (all, prepared) = (Prepared::of(all), range_mut(prepared, 0, prepared_len(self.channels)));
                let mut of_chunk = PreparedMut::new(prepared, self.channels);
                let fields = [Field::Slope, Field::Shift, Field::InvStd, Field::TailXhat].map(|field| all.field(field));
                for to in 0..self.channels {
                    let from = self.first_channel + to;
                    let fields = fields.map(|field| field.get(from).copied().unwrap_or(0.0));
                    of_chunk.put(to, all.of_channel(from), fields);
                }
                of_chunk.finish();
                Statistics::Prepared(prepared)
            }
        };
        Normalisation { parameters: self.parameters(normalisation.parameters), statistics, ..*normalisation }
    }

    /// The bits of the elements of the chunk, of a mask or of gates; `None` if all elements are kept
    /// without bits. They are used in place if there is a bit for each element, if the elements are
    /// neighbours in the tensor, and if the bit of the first element is the first of a byte. Otherwise
    /// they are copied to `bits`.
    fn bits<'a>(&self, gates: &Gates<'a>, bits: &'a mut [u8; CHUNK / 8]) -> Option<&'a [u8]> {
        match (gates, self.neighbours()) {
            (Gates::Open, _) => None,
            (Gates::Each(mask), Some(first)) if first.is_multiple_of(8) => {
                Some(range(mask, first / 8, self.len().div_ceil(8)))
            }
            _ => Some(self.copy_bits(gates, bits)),
        }
    }

    /// A copy of the bits of the elements of the chunk, for which `bits` has room.
    fn copy_bits<'a>(&self, gates: &Gates<'_>, bits: &'a mut [u8; CHUNK / 8]) -> &'a [u8] {
        let keep = gates.keep(1.0);
        self.each_segment(|Segment { element, place, len }| match gates {
            Gates::Each(mask) => copy_bits(mask, element, bits, place, len),
            Gates::Open | Gates::Shared(_) => {
                for at in 0..len {
                    copy_bits(&[u8::from(keep.keeps(element + at))], 0, bits, place + at, 1);
                }
            }
        });
        range(bits, 0, self.len().div_ceil(8))
    }

    /// The dropout of the chunk.
    fn dropout<'a>(&self, plan: &Plan, dropout: Dropout<'a>, bits: &'a mut [u8; CHUNK / 8]) -> Dropout<'a> {
        // A call that drops everything reads no mask, but asks for one.
        let Some((gates, _)) = plan.gates_of(dropout) else { return Dropout::Mask(&[]) };
        let bits = self.bits(&gates, bits);
        match (dropout, bits) {
            (Dropout::Gates(_), Some(bits)) => Dropout::Gates(bits),
            (Dropout::UnscaledGates(_), Some(bits)) => Dropout::UnscaledGates(bits),
            (Dropout::Mask(_), Some(bits)) => Dropout::Mask(bits),
            _ => Dropout::Off,
        }
    }
}

/// Copies values between slices of the same length.
#[inline(always)]
fn copy_values(from: &[f32], to: &mut [f32]) {
    let len = from.len().min(to.len());
    if let (Some(from), Some(to)) = (from.get(..len), to.get_mut(..len)) {
        to.copy_from_slice(from);
    }
}

/// Whether the bits of a part of any size might have to be copied: if a mask has no bit for each
/// element, or if parts may begin inside a byte. Otherwise only the bits of parts of at most [`CHUNK`]
/// elements are copied.
fn copies_bits(plan: &Plan, dropout: Dropout<'_>) -> bool {
    let unit = plan.shape.channels() * plan.shape.inner();
    match plan.gates_of(dropout) {
        None | Some((Gates::Open, _)) => false,
        Some((Gates::Each(_), _)) => !unit.is_multiple_of(8),
        Some((Gates::Shared(_), _)) => true,
    }
}

/// Sets the padding of a tensor to +0.0.
pub(crate) fn clear(shape: Shape, valid: Positions<'_>, tensor: &mut [f32]) {
    each_element(shape, valid.padding(), |Segment { element, len, .. }| range_mut(tensor, element, len).fill(0.0));
}

/// The tensors of the workspace.
fn copies(shape: Shape, workspace: &mut [f32]) -> [&mut [f32]; TENSORS] {
    let (len, mut rest) = (workspace_len(shape) / TENSORS, workspace);
    core::array::from_fn(|_| take_front(&mut rest, len))
}

/// Runs a training call whose arguments have been checked and whose tensor is not empty.
pub(crate) fn train<const GATES: bool>(
    plan: &Plan,
    formula: &Formula,
    valid: Positions<'_>,
    call: Train<'_>,
    gates: Option<&mut [u8]>,
    workspace: &mut [f32],
) {
    let Train { parameters, running, dropout, input, residual, output, saved, scratch } = call;
    let (moments, of_chunks) = scratch.split_at_mut_checked(moments_len(plan.shape.channels())).unwrap_or_default();
    moments.fill(0.0);
    each_chunk(plan.shape, valid, |chunk| {
        let [copy, ..] = copies(plan.shape, workspace);
        let (part, scratch) = of_chunks.split_at_mut_checked(moments_len(chunk.channels)).unwrap_or_default();
        let input = chunk.read(input, copy);
        Singles::moments(&chunk.plan(plan), MomentsCall { input, moments: part, scratch });
        merge_channels(moments, chunk.first_channel, part);
    });
    train::finish(plan, Finish { moments, running, saved: SavedMut::new(saved.mean, saved.mean_tail, saved.inv_std) });
    let statistics = Statistics::Batch(saved.as_saved());
    let normalisation = plan.normalisation(parameters, statistics);
    let call = ForwardCall { normalisation, dropout, residual, input: Some(input), output, scratch };
    forward::<GATES>(plan, formula, valid, call, gates, workspace);
}

/// Runs a forward call with batch or fixed statistics, an input and an output, whose arguments have been
/// checked and whose tensor is not empty.
pub(crate) fn forward<const GATES: bool>(
    plan: &Plan,
    formula: &Formula,
    valid: Positions<'_>,
    call: ForwardCall<'_, Singles>,
    mut gates: Option<&mut [u8]>,
    workspace: &mut [f32],
) {
    let ForwardCall { normalisation, dropout, residual, input, output, scratch } = call;
    let input = input.unwrap_or_default();
    clear(plan.shape, valid, output);
    // Gates are written to a place of their own first.
    let limited = GATES && gates.is_some() || copies_bits(plan, dropout);
    each_part(plan.shape, valid, limited, |chunk| {
        let [values, of_residual, ..] = copies(plan.shape, workspace);
        let (mut bits, mut gate_bits) = ([0; CHUNK / 8], [0; CHUNK / 8]);
        let place = chunk.neighbours();
        let mut written = None;
        let dropout = match (dropout, &gates) {
            (Dropout::InGates, Some(mask)) => {
                chunk.copy_bits(&Gates::Each(mask), &mut gate_bits);
                Dropout::InGates
            }
            _ => chunk.dropout(plan, dropout, &mut bits),
        };
        if GATES && gates.is_some() {
            written = Some(range_mut(&mut gate_bits, 0, chunk.len().div_ceil(8)));
        }
        let mut call = ForwardCall {
            normalisation: chunk.normalisation(&normalisation, &mut []),
            dropout,
            residual: residual.map(|residual| chunk.read(residual, of_residual)),
            input: place.map(|first| range(input, first, chunk.len())),
            output: match place {
                Some(first) => range_mut(output, first, chunk.len()),
                None => chunk.copy(input, values),
            },
            scratch: &mut *scratch,
        };
        match written {
            Some(gates) if GATES => {
                Singles::forward_with_gates(&chunk.elementwise_plan(plan), formula, &mut call, gates);
            }
            _ => Singles::forward(&chunk.elementwise_plan(plan), formula, &mut call),
        }
        if place.is_none() {
            chunk.put(values, output);
        }
        if let (true, Some(gates)) = (GATES, &mut gates) {
            chunk.each_segment(|Segment { element, place, len }| copy_bits(&gate_bits, place, gates, element, len));
        }
    });
    if let (true, Some(gates)) = (GATES, gates) {
        each_element(plan.shape, valid.padding(), |Segment { element, len, .. }| {
            clear_bits(element..element + len, gates);
        });
        // The last byte may have bits that belong to no element.
        clear_bits(plan.shape.len()..8 * gates.len(), gates);
    }
}

/// Runs a backward call with a tensor for each gradient, whose arguments have been checked and whose
/// tensor is not empty.
pub(crate) fn backward(
    plan: &Plan,
    formula: &Formula,
    valid: Positions<'_>,
    call: BackwardCall<'_, Singles>,
    workspace: &mut [f32],
) {
    let BackwardCall { normalisation, dropout, input, residual, gradients, grad_parameters, mut scratch, .. } = call;
    let Gradients { target, grad_output, output, mut grad_residual } = gradients;
    let grad_output = grad_output.unwrap_or_default();
    let channels = plan.shape.channels();
    let sums = take_front(&mut scratch, sums_len(channels));
    sums.fill(0.0);
    let (g, g_xhat) = sums.split_at_mut_checked(channels).unwrap_or_default();
    let (most, _) = cut(plan.shape);
    let prepared = take_front(&mut scratch, prepared_len(most));
    let batch = matches!(normalisation.statistics, Statistics::Batch(_));
    let wanted = grad_parameters.weight.is_some() || grad_parameters.bias.is_some();
    if wanted || target == Target::Input && batch {
        each_chunk(plan.shape, valid, |chunk| {
            let [of_input, of_residual, of_grad, _] = copies(plan.shape, workspace);
            let mut bits = [0; CHUNK / 8];
            let (part, scratch) = scratch.split_at_mut_checked(sums_len(chunk.channels)).unwrap_or_default();
            let mut call = BackwardCall {
                normalisation: chunk.normalisation(&normalisation, prepared),
                dropout: chunk.dropout(plan, dropout, &mut bits),
                phase: Phase::Reduce(part),
                input: chunk.read(input, of_input),
                residual: residual.map(|residual| chunk.read(residual, of_residual)),
                gradients: Gradients {
                    target: Target::Nothing,
                    grad_output: Some(chunk.read(grad_output, of_grad)),
                    output: &mut [][..],
                    grad_residual: None,
                },
                grad_parameters: ParameterGradients::default(),
                scratch,
            };
            Singles::backward(&chunk.plan(plan), formula, &mut call);
            let (of_g, of_g_xhat) = range(part, 0, part.len()).split_at_checked(chunk.channels).unwrap_or_default();
            for (sums, part) in [(&mut *g, of_g), (&mut *g_xhat, of_g_xhat)] {
                for (sum, part) in range_mut(sums, chunk.first_channel, chunk.channels).iter_mut().zip(part) {
                    *sum += part;
                }
            }
        });
    }
    backward::parameter_gradients(sums, grad_parameters);
    if target == Target::Nothing {
        return;
    }
    let samples = valid.count() as f64;
    for gradient in [Some(&mut *output), grad_residual.as_deref_mut()].into_iter().flatten() {
        clear(plan.shape, valid, gradient);
    }
    let limited = copies_bits(plan, dropout);
    each_part(plan.shape, valid, limited, |chunk| {
        let [of_input, of_residual, values, of_grad_residual] = copies(plan.shape, workspace);
        let mut bits = [0; CHUNK / 8];
        let place = chunk.neighbours();
        let len = if chunk.is_wide() { 0 } else { sums_len(chunk.channels) };
        let (part, scratch) = scratch.split_at_mut_checked(len).unwrap_or_default();
        let (of_g, of_g_xhat) = sums.split_at_checked(channels).unwrap_or_default();
        let of_chunk = chunk.of(of_g).iter().chain(chunk.of(of_g_xhat));
        part.iter_mut().zip(of_chunk).for_each(|(part, &sum)| *part = sum);
        let part = if chunk.is_wide() { &*sums } else { part };
        let mut call = BackwardCall {
            normalisation: chunk.normalisation(&normalisation, prepared),
            dropout: chunk.dropout(plan, dropout, &mut bits),
            phase: Phase::Apply { sums: part, samples },
            input: chunk.read(input, of_input),
            residual: residual.map(|residual| chunk.read(residual, of_residual)),
            gradients: Gradients {
                target,
                grad_output: place.map(|first| range(grad_output, first, chunk.len())),
                output: match place {
                    Some(first) => range_mut(output, first, chunk.len()),
                    None => chunk.copy(grad_output, values),
                },
                grad_residual: grad_residual.as_deref_mut().map(|gradient| match place {
                    Some(first) => range_mut(gradient, first, chunk.len()),
                    None => range_mut(of_grad_residual, 0, chunk.len()),
                }),
            },
            grad_parameters: ParameterGradients::default(),
            scratch,
        };
        Singles::backward(&chunk.elementwise_plan(plan), formula, &mut call);
        if place.is_none() {
            chunk.put(values, output);
            if let Some(gradient) = grad_residual.as_deref_mut() {
                chunk.put(of_grad_residual, gradient);
            }
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Error;

    #[test]
    fn every_chunk_has_the_scratch_that_its_phases_need() -> Result<(), Error> {
        for channels in [1, 2, 3, 5, 15, 16, 17, 33, 63, 64, 65, 67, 100, 130] {
            for (samples, positions) in [(1, 3), (1, 40), (2, 300), (1, 4097), (9, 17), (700, 1)] {
                for shape in [Shape::nlc(samples, positions, channels)?, Shape::ncl(samples, channels, positions)?] {
                    let plan = Plan::new(shape, Config::DEFAULT)?;
                    let (most, longest) = cut(shape);
                    let statistics = moments_len(channels) + moments_len(most) + prepared_len(most);
                    assert!(scratch_len(&plan) >= statistics);
                    let room = scratch_len(&plan) - statistics;
                    // Parts of elementwise work: of all channels, and of one.
                    let all = shape.channels();
                    let (longest_part, least) =
                        if shape.inner() == 1 { (samples * positions, 1) } else { (positions, positions) };
                    for positions in least..=longest_part {
                        for channels in [all, 1] {
                            let plan = of_shape(&plan, chunk_shape(shape, channels, positions));
                            let needed = plan.eval_scratch_len().max(plan.backward_scratch_len());
                            let room = scratch_len(&Plan::new(shape, Config::DEFAULT)?) - moments_len(all);
                            assert!(needed <= room, "{positions} positions of {channels} channels, of {shape:?}");
                        }
                    }
                    for channels in [most, channels % most] {
                        for positions in 1..=longest {
                            let plan = of_shape(&plan, chunk_shape(shape, channels, positions));
                            let needed = plan.train_scratch_len().max(plan.backward_scratch_len());
                            assert!(needed <= room, "{positions} positions of {channels} channels, of {shape:?}");
                        }
                    }
                }
            }
        }
        Ok(())
    }
}
