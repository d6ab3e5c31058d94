//! Calls over the valid positions of a padded batch: results are those of the valid values alone, and nothing of the
//! padding reaches them.

use normdrop::{
    Apply, ApplyGradient, Average, Backward, Buffer, Dropout, Error, Eval, Finish, Granularity, Identity, Layer,
    Masked, Moments, ParameterGradients, Prepare, Reduce, Relu, RunningMut, RunningVariance, SavedMut, Shape,
    Statistics, Train, Validity, mask_len, merge_moments, merge_sums,
};
use normdrop_reference::classes::{CLASSES, class};
use normdrop_reference::errors::PROMISE;
use normdrop_reference::mask;
use normdrop_reference::padding::Padded;
use normdrop_reference::random::SplitMix64;
use proptest::prelude::*;
use proptest::sample::select;

use crate::accuracy::{Errors, Exact, bounds_for};
use crate::digest::backends;
use crate::digest::corpus::environment::{enter, leave, raised};
use crate::support::{ACTIVATIONS, Differentiated, Oracle, Problem, Trained, Visitor, bits, with_activation};

/// A padded batch, and everything that its calls are given.
#[derive(Debug, Clone)]
struct Batch {
    problem: Problem,
    padded: Padded,
}

/// Which form says what is valid.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    Lengths,
    Bitmap,
}

/// The contents of scratch and workspace before a call.
const CONTENTS: [(f64, f32); 2] = [(f64::NAN, f32::NAN), (0.0, 0.0)];

impl Batch {
    /// A batch of `[samples, positions, channels]` whose samples have these valid positions.
    fn new(
        [samples, positions, channels]: [usize; 3],
        channels_last: bool,
        valid: Vec<bool>,
        class_of: impl Fn(usize) -> normdrop_reference::classes::Class,
        seed: u64,
    ) -> Self {
        // Channels first with one position would be a matrix, which is channels last.
        let shape = if channels_last || positions == 1 {
            [samples * positions, channels, 1]
        } else {
            [samples, channels, positions]
        };
        let mut problem = Problem::random(shape, class_of, seed);
        problem.positions = if shape[2] == 1 { positions } else { 1 };
        let padded = Padded { shape: problem.reference_shape(), positions, valid };
        // The running statistics of valid values and padding together are any statistics.
        Self { problem, padded }
    }

    /// Lengths that are drawn, some of them 0 and some of them all positions.
    fn lengths(samples: usize, positions: usize, random: &mut SplitMix64) -> Vec<bool> {
        let length = |random: &mut SplitMix64| match random.next_below(6) {
            0 => 0,
            1 => positions,
            _ => random.next_below(positions + 1),
        };
        let lengths: Vec<usize> = (0..samples).map(|_| length(random)).collect();
        lengths.into_iter().flat_map(|length| (0..positions).map(move |position| position < length)).collect()
    }

    /// Positions that are drawn, in stretches of about `stretch`.
    fn positions(count: usize, stretch: usize, random: &mut SplitMix64) -> Vec<bool> {
        let mut valid = random.next_below(2) == 0;
        let mut next = || {
            valid ^= random.next_below(stretch) == 0;
            valid
        };
        (0..count).map(|_| next()).collect()
    }

    fn form(&self) -> Form {
        if self.padded.lengths().is_some() { Form::Lengths } else { Form::Bitmap }
    }

    fn validity<R>(&self, form: Form, work: impl FnOnce(Validity<'_>) -> R) -> R {
        match form {
            Form::Lengths => work(Validity::Lengths(&self.padded.lengths().expect("prefixes"))),
            Form::Bitmap => work(Validity::Bitmap(&self.padded.bitmap())),
        }
    }

    /// The same batch with other values in the padding of every tensor.
    fn with_padding(&self, values: &[f32]) -> Self {
        let mut values = values.iter().cycle().copied();
        let mut other = self.clone();
        let mut put =
            |tensor: &mut Vec<f32>| *tensor = self.padded.with_padding(tensor, || values.next().expect("any"));
        put(&mut other.problem.x);
        put(&mut other.problem.dy);
        if let Some(residual) = &mut other.problem.residual {
            put(residual);
        }
        other
    }

    /// The problem of the valid values alone, channels last, with their bits of the mask.
    fn dense(&self) -> Problem {
        let (padded, problem) = (&self.padded, &self.problem);
        let kept = |mask: Vec<u8>| {
            let all: Vec<bool> = (0..problem.x.len()).map(|element| mask::keeps(&mask, element)).collect();
            mask::packed(&padded.take(&all))
        };
        let mut dense = Problem {
            outer: padded.dense().outer,
            inner: 1,
            positions: 1,
            x: padded.take(&problem.x),
            dy: padded.take(&problem.dy),
            residual: problem.residual.as_ref().map(|residual| padded.take(residual)),
            mask: problem.mask_of_elements().map(kept),
            ..problem.clone()
        };
        dense.config.granularity = Granularity::Element;
        dense
    }

    fn try_train_on<A: Oracle>(
        &self,
        layer: &Layer<A>,
        form: Form,
        gates: Option<&mut Vec<u8>>,
    ) -> Result<Trained, Error> {
        let mut results = Vec::new();
        let mut written = Vec::new();
        for (scratch, workspace) in CONTENTS {
            let (result, bits) = self.train_once(layer, form, gates.as_deref().cloned(), (scratch, workspace))?;
            results.push(result);
            written.push(bits);
        }
        assert_eq!(results[0].bits(), results[1].bits(), "the contents of scratch or workspace influence training");
        assert_eq!(written[0], written[1], "the contents of scratch or workspace influence the gates");
        if let (Some(gates), Some(bits)) = (gates, written.swap_remove(0)) {
            *gates = bits;
        }
        Ok(results.swap_remove(0))
    }

    fn train_once<A: Oracle>(
        &self,
        layer: &Layer<A>,
        form: Form,
        mut gates: Option<Vec<u8>>,
        (scratch, workspace): (f64, f32),
    ) -> Result<(Trained, Option<Vec<u8>>), Error> {
        let problem = &self.problem;
        let channels = problem.channels;
        let mut trained = Trained {
            y: vec![f32::NAN; problem.x.len()],
            running_mean: problem.running_mean.clone(),
            running_mean_tail: problem.running_mean_tail.clone(),
            running_var: problem.running_var.clone(),
            batches: problem.batches,
            mean: vec![f32::NAN; channels],
            mean_tail: vec![f32::NAN; channels],
            inv_std: vec![f64::NAN; channels],
        };
        let Trained { y, running_mean, running_mean_tail, running_var, batches, mean, mean_tail, inv_std } =
            &mut trained;
        let average = batches.as_mut().map_or(Average::Exponential, |batches| Average::Cumulative { batches });
        let mut scratch = vec![scratch; layer.masked_scratch_len()];
        let mut workspace = vec![workspace; layer.masked_workspace_len()];
        let in_gates = gates.is_some() && layer.config().granularity == Granularity::Element && problem.mask.is_some();
        let call = Train {
            parameters: problem.parameters(),
            running: Some(RunningMut {
                mean_tail: running_mean_tail.as_deref_mut(),
                average,
                ..RunningMut::new(running_mean, running_var)
            }),
            dropout: if in_gates { Dropout::InGates } else { problem.dropout() },
            residual: problem.residual.as_deref(),
            ..Train::new(&problem.x, y, SavedMut::new(mean, mean_tail, inv_std), &mut scratch)
        };
        self.validity(form, |validity| {
            let masked = Masked::new(validity, &mut workspace);
            match &mut gates {
                Some(gates) => layer.train_masked_with_gates(call, masked, gates),
                None => layer.train_masked(call, masked),
            }
        })?;
        Ok((trained, gates))
    }

    fn train<A: Oracle>(&self) -> Trained {
        self.try_train_on(&self.problem.layer::<A>(), self.form(), None).expect("a training call without faults")
    }

    fn eval<A: Oracle>(&self, form: Form) -> Vec<f32> {
        let (problem, layer) = (&self.problem, self.problem.layer::<A>());
        let results = CONTENTS.map(|(scratch, workspace)| {
            let mut y = vec![f32::NAN; problem.x.len()];
            let (mut scratch, mut workspace) =
                (vec![scratch; layer.masked_scratch_len()], vec![workspace; layer.masked_workspace_len()]);
            let call = Eval {
                parameters: problem.parameters(),
                dropout: problem.dropout(),
                residual: problem.residual.as_deref(),
                ..Eval::new(problem.running(), &problem.x, &mut y, &mut scratch)
            };
            self.validity(form, |validity| layer.eval_masked(call, Masked::new(validity, &mut workspace)))
                .expect("an evaluation without faults");
            y
        });
        assert_eq!(bits(&results[0]), bits(&results[1]), "the contents of scratch or workspace influence evaluation");
        results.into_iter().next().expect("two results")
    }

    /// The backward call, with every gradient and with some of them.
    fn backward_on<A: Oracle>(
        &self,
        layer: &Layer<A>,
        form: Form,
        statistics: Statistics<'_>,
        dropout: Dropout<'_>,
    ) -> Result<Differentiated, Error> {
        let (problem, has_residual) = (&self.problem, self.problem.residual.is_some());
        let call = |wants: [bool; 4], (scratch, workspace): (f64, f32)| {
            let mut result = Differentiated {
                dx: vec![f32::NAN; problem.x.len()],
                d_residual: vec![f32::NAN; if has_residual { problem.x.len() } else { 0 }],
                d_weight: vec![f32::NAN; problem.channels],
                d_bias: vec![f32::NAN; problem.channels],
            };
            let (mut scratch, mut workspace) =
                (vec![scratch; layer.masked_scratch_len()], vec![workspace; layer.masked_workspace_len()]);
            let grad_parameters = ParameterGradients {
                weight: wants[2].then_some(&mut result.d_weight),
                bias: wants[3].then_some(&mut result.d_bias),
            };
            let call = Backward {
                parameters: problem.parameters(),
                dropout,
                residual: problem.residual.as_deref(),
                grad_input: wants[0].then_some(&mut result.dx),
                grad_residual: (wants[1] && has_residual).then_some(&mut result.d_residual),
                grad_parameters,
                ..Backward::new(statistics, &problem.x, &problem.dy, &mut scratch)
            };
            self.validity(form, |validity| layer.backward_masked(call, Masked::new(validity, &mut workspace)))?;
            Ok(result)
        };
        let all = call([true; 4], CONTENTS[0])?;
        for wants in 0..16 {
            let wants = [0, 1, 2, 3].map(|bit| wants >> bit & 1 == 1);
            let some = call(wants, CONTENTS[1])?;
            let pairs = [
                (&some.dx, &all.dx),
                (&some.d_residual, &all.d_residual),
                (&some.d_weight, &all.d_weight),
                (&some.d_bias, &all.d_bias),
            ];
            for (want, (some, all)) in wants.into_iter().zip(pairs) {
                let nan = vec![f32::NAN; some.len()];
                assert_eq!(
                    bits(some),
                    bits(if want { all } else { &nan }),
                    "a gradient depends on which others are wanted"
                );
            }
        }
        Ok(all)
    }

    fn backward<A: Oracle>(&self, statistics: Statistics<'_>) -> Differentiated {
        let layer = self.problem.layer::<A>();
        self.backward_on(&layer, self.form(), statistics, self.problem.dropout())
            .expect("a backward call without faults")
    }

    /// Whether a tensor is +0.0 in the padding.
    fn assert_cleared(&self, tensor: &[f32]) {
        let cleared = self.padded.with_padding(tensor, || 0.0);
        assert_eq!(bits(tensor), bits(&cleared), "the padding is not +0.0");
    }

    /// The errors of a training call and the backward call after it.
    fn errors<A: Oracle>(&self, bounds: normdrop_reference::errors::Bounds) -> Errors {
        let (dense, mut errors) = (self.dense(), Errors::none(bounds));
        let trained = self.train::<A>();
        let gradients = self.backward::<A>(Statistics::Batch(trained.saved()));
        for tensor in [&trained.y, &gradients.dx] {
            self.assert_cleared(tensor);
        }
        if self.problem.residual.is_some() {
            self.assert_cleared(&gradients.d_residual);
        }
        let exact = Exact::new::<A>(&dense);
        let z = exact.has_kinks().then(|| {
            let sides = Self { problem: self.problem.sides::<A>(), padded: self.padded.clone() };
            self.padded.take(&sides.train::<Identity>().y)
        });
        let trained = Trained { y: self.padded.take(&trained.y), ..trained };
        let gradients = Differentiated {
            dx: self.padded.take(&gradients.dx),
            d_residual: if dense.residual.is_some() { self.padded.take(&gradients.d_residual) } else { Vec::new() },
            ..gradients
        };
        exact.compare_trained(&trained, z.as_deref(), &gradients, &mut errors);
        errors
    }
}

#[derive(Clone, Copy)]
struct ErrorsOf<'a>(&'a Batch);

impl Visitor for ErrorsOf<'_> {
    type Result = Errors;

    fn visit<A: Oracle>(self) -> Errors {
        self.0.errors::<A>(PROMISE)
    }
}

/// Samples, positions and channels on either side of every boundary between chunks, walks and tails.
const SHAPES: &[[usize; 3]] = &[
    [7, 3, 3],
    [40, 9, 1],
    [200, 5, 3],
    [300, 4, 17],
    [90, 20, 5],
    [64, 31, 16],
    [12, 300, 3],
    [3, 1500, 2],
    [30, 17, 65],
    [9, 70, 130],
    [500, 1, 6],
    [40, 129, 33],
];

#[test]
fn padded_batches_of_every_class_of_data_are_within_the_bounds_of_every_result() {
    let (mut faults, mut number) = (Vec::new(), 0);
    println!("| class | mean | var | inv_std | y | dx | d_residual | d_weight | d_bias |");
    for class in CLASSES {
        let mut worst = Errors::none(bounds_for(class));
        for (seed, &shape) in (0..).zip(SHAPES) {
            for channels_last in [true, false] {
                let mut random = SplitMix64::new(seed);
                let [samples, positions, _] = shape;
                let mut valid = if number % 3 == 0 {
                    Batch::positions(samples * positions, 1 + number % 7, &mut random)
                } else {
                    Batch::lengths(samples, positions, &mut random)
                };
                // Two valid positions at least: one sample is valid whole, or two are.
                valid[..2 * positions].fill(true);
                let batch = Batch::new(shape, channels_last, valid, |_| *class, seed);
                let plain = batch.with_padding(&[f32::NAN, f32::INFINITY, -3e38]);
                let mut dropping = plain.clone();
                dropping.problem = dropping.problem.with_mask(0.1, seed);
                worst.merge(&plain.errors::<Identity>(PROMISE));
                worst.merge(&dropping.errors::<Relu>(PROMISE));
                for (batch, turn) in [(&plain, 2 * number), (&dropping, 2 * number + 1)] {
                    worst.merge(&with_activation(turn % ACTIVATIONS, ErrorsOf(batch)));
                }
                number += 1;
            }
        }
        println!("| {} | {} |", class.name, worst.units());
        faults.extend(worst.check().err().map(|fault| format!("{}: {fault}", class.name)));
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

/// A random batch, in a form that a failure can be reported in.
#[derive(Debug, Clone)]
struct Draw {
    shape: [usize; 3],
    channels_last: bool,
    /// 0: lengths, otherwise the length of stretches.
    stretch: usize,
    class: usize,
    seed: u64,
    p: Option<f64>,
    residual: bool,
    tail: bool,
    granularity: Granularity,
    activation: usize,
}

fn draws() -> impl Strategy<Value = Draw> {
    // Chunks of several samples, and several chunks of one sample: one channel has 4096 positions in a chunk.
    let shapes = prop_oneof![
        4 => (1usize..=40, 1usize..=60, 1usize..=80),
        1 => (1usize..=3, 1usize..=5000, 1usize..=3),
    ];
    let shapes = shapes.prop_map(|(samples, positions, channels)| {
        let samples = samples.min((12_000 / (positions * channels)).max(1));
        // Two values at least, of which there is a variance.
        [if positions == 1 { samples.max(2) } else { samples }, positions, channels]
    });
    let p = prop_oneof![3 => Just(None), 4 => select(vec![0.0, 1.0, 0.5, 0.1]).prop_map(Some)];
    let granularities = select(vec![Granularity::Element, Granularity::Channel, Granularity::Sample]);
    (
        shapes,
        any::<(bool, bool, bool)>(),
        select(vec![0usize, 0, 1, 2, 9, 50]),
        0..CLASSES.len(),
        any::<u64>(),
        p,
        granularities,
        0..ACTIVATIONS,
    )
        .prop_map(|(shape, (channels_last, residual, tail), stretch, class, seed, p, granularity, activation)| {
            Draw { shape, channels_last, stretch, class, seed, p, residual, tail, granularity, activation }
        })
}

impl Draw {
    fn batch(&self) -> Batch {
        let (mut random, [samples, positions, _]) = (SplitMix64::new(self.seed), self.shape);
        let valid = match self.stretch {
            0 => Batch::lengths(samples, positions, &mut random),
            stretch => Batch::positions(samples * positions, stretch, &mut random),
        };
        let mut batch =
            Batch::new(self.shape, self.channels_last, valid, |c| CLASSES[(self.class + c) % CLASSES.len()], self.seed);
        if self.residual {
            batch.problem = batch.problem.with_residual(class("normal"), self.seed ^ 1);
        }
        batch.problem.config.granularity = self.granularity;
        batch.problem.config.running_var = RunningVariance::Biased;
        if self.tail {
            batch.problem.running_mean_tail = Some(vec![0.0; batch.problem.channels]);
        }
        if let Some(p) = self.p {
            batch.problem = batch.problem.with_mask(p, self.seed);
        }
        batch
    }

    /// Does something with the batch and an activation.
    fn with(&self, check: fn(&dyn Checks, &Batch)) {
        with_activation(self.activation, With(&self.batch(), check));
    }
}

/// What is checked for a batch, of any activation.
trait Checks {
    fn of_public_phases(&self, batch: &Batch);
    fn of_padding(&self, batch: &Batch);
    fn of_backends(&self, batch: &Batch);
    fn of_evaluation(&self, batch: &Batch);
    fn of_all_valid(&self, batch: &Batch);
}

struct With<'a>(&'a Batch, fn(&dyn Checks, &Batch));

impl Visitor for With<'_> {
    type Result = ();

    fn visit<A: Oracle>(self) {
        (self.1)(&Of::<A>(core::marker::PhantomData), self.0);
    }
}

struct Of<A>(core::marker::PhantomData<A>);

/// The channels and the positions of a chunk, as `src/phase/masked.rs` states them.
fn cut(batch: &Batch) -> (usize, usize) {
    let positions = if batch.problem.inner == 1 { 64 } else { batch.problem.inner.clamp(256, 4096) };
    let channels = batch.problem.channels.min(4096 / positions);
    (channels, 4096 / channels)
}

impl<A: Oracle> Of<A> {
    /// The gates of an evaluation: those of the plain one, shut in the padding, beside the mask and over it.
    fn of_frozen_gates(&self, batch: &Batch, y: &[f32]) {
        let (problem, layer) = (&batch.problem, batch.problem.layer::<A>());
        let batch = batch.with_padding(&[f32::NAN]);
        let call = |masked: Option<Validity<'_>>, dropout, gates: &mut [u8]| {
            let (mut y, mut scratch) = (vec![f32::NAN; y.len()], vec![f64::NAN; layer.masked_scratch_len()]);
            let mut workspace = vec![f32::NAN; layer.masked_workspace_len()];
            let x = if masked.is_some() { &batch.problem.x } else { &problem.x };
            let residual = if masked.is_some() { &batch.problem.residual } else { &problem.residual };
            let call = Eval {
                parameters: problem.parameters(),
                dropout,
                residual: residual.as_deref(),
                ..Eval::new(problem.running(), x, &mut y, &mut scratch)
            };
            let result = match masked {
                Some(validity) => layer.eval_masked_with_gates(call, Masked::new(validity, &mut workspace), gates),
                None => layer.eval_with_gates(call, gates),
            };
            result.map(|()| y)
        };
        let len = mask_len(y.len());
        if !layer.has_gates() {
            let refused = batch.validity(batch.form(), |valid| call(Some(valid), Dropout::Off, &mut vec![0; len]));
            return assert_eq!(refused.map(|y| y.len()), Err(Error::GatesActivation));
        }
        let mut plain = vec![0xFF; len];
        call(None, problem.dropout(), &mut plain).expect("gates");
        let kept: Vec<bool> = (0..y.len()).map(|element| mask::keeps(&plain, element)).collect();
        let expected = mask::packed(&batch.padded.with_padding(&kept, || false));
        let over = layer.config().granularity == Granularity::Element && problem.mask.is_some();
        for in_gates in [false, true].into_iter().take(1 + usize::from(over)) {
            let mut gates = vec![0xFF; len];
            if let (true, Some(mask)) = (in_gates, &problem.mask) {
                gates.copy_from_slice(mask);
            }
            let dropout = if in_gates { Dropout::InGates } else { problem.dropout() };
            let again = batch.validity(batch.form(), |validity| call(Some(validity), dropout, &mut gates));
            assert_eq!(bits(&again.expect("gates")), bits(y), "gates change an evaluation");
            assert_eq!(gates, expected, "the gates of an evaluation, over the mask: {in_gates}");
        }
    }
}

impl<A: Oracle> Checks for Of<A> {
    /// The public phases of dense parts, merged, and applied to the whole tensor.
    fn of_public_phases(&self, batch: &Batch) {
        let (problem, elements) = (&batch.problem, batch.padded.elements());
        if elements.is_empty() || batch.padded.valid.iter().all(|&valid| valid) {
            return;
        }
        let batch = batch.with_padding(&[0.5]);
        let (c, (channels, positions)) = (problem.channels, cut(&batch));
        let (dense, valid) = (batch.dense(), elements.len() / c);
        let mut moments = vec![0.0; 3 * c];
        let trained = batch.train::<A>();
        let gradients = batch.backward::<A>(Statistics::Batch(trained.saved()));
        let (mut sums, has_residual) = (vec![0.0; 2 * c], problem.residual.is_some());
        for first in (0..valid).step_by(positions) {
            for first_channel in (0..c).step_by(channels) {
                let (len, channels) = (positions.min(valid - first), channels.min(c - first_channel));
                let place = |position: usize, channel: usize| (first + position) * c + first_channel + channel;
                // In the layout of the tensor.
                let order: Vec<usize> = if problem.inner == 1 {
                    (0..len).flat_map(|l| (0..channels).map(move |c| place(l, c))).collect()
                } else {
                    (0..channels).flat_map(|c| (0..len).map(move |l| place(l, c))).collect()
                };
                let of = |tensor: &[f32]| order.iter().map(|&i| tensor[i]).collect::<Vec<f32>>();
                let of_channels = |values: &[f32]| values[first_channel..][..channels].to_vec();
                let (outer, inner) = if problem.inner == 1 { (len, 1) } else { (1, len) };
                let part = Problem {
                    outer,
                    channels,
                    inner,
                    positions: 1,
                    x: of(&dense.x),
                    dy: of(&dense.dy),
                    residual: dense.residual.as_deref().map(of),
                    weight: problem.weight.as_deref().map(of_channels),
                    bias: problem.bias.as_deref().map(of_channels),
                    mask: dense
                        .mask
                        .as_ref()
                        .map(|mask| mask::packed(&order.iter().map(|&i| mask::keeps(mask, i)).collect::<Vec<bool>>())),
                    ..dense.clone()
                };
                // A part of one channel and one position is [1, 1, 1] in either layout.
                let layer = part.layer::<A>();
                let mut scratch = vec![f64::NAN; layer.scratch_len()];
                let mut of_part = vec![f64::NAN; 3 * channels];
                layer.moments(Moments::new(&part.x, &mut of_part, &mut scratch)).expect("the buffers of a part");
                let mut all = vec![0.0; 3 * c];
                let mut all_sums = vec![0.0; 2 * c];
                for (field, values) in of_part.chunks(channels).enumerate() {
                    all[field * c + first_channel..][..channels].copy_from_slice(values);
                }
                merge_moments(&mut moments, &all).expect("as many channels");
                let (mean, tail) = (of_channels(&trained.mean), of_channels(&trained.mean_tail));
                let inv_std = &trained.inv_std[first_channel..][..channels];
                let statistics = Statistics::Batch(normdrop::Saved::new(&mean, &tail, inv_std));
                let mut of_part = vec![f64::NAN; 2 * channels];
                let call = Reduce::new(statistics, &part.x, &part.dy, &mut of_part, &mut scratch);
                let (parameters, dropout) = (part.parameters(), part.dropout());
                let call = Reduce { parameters, dropout, residual: part.residual.as_deref(), ..call };
                layer.reduce(call).expect("the buffers of a part");
                for (field, values) in of_part.chunks(channels).enumerate() {
                    all_sums[field * c + first_channel..][..channels].copy_from_slice(values);
                }
                merge_sums(&mut sums, &all_sums).expect("as many channels");
            }
        }
        let layer = problem.layer::<A>();
        let (mut mean, mut mean_tail, mut inv_std) = (vec![0.0; c], vec![0.0; c], vec![0.0; c]);
        let saved = SavedMut::new(&mut mean, &mut mean_tail, &mut inv_std);
        let mut running =
            (problem.running_mean.clone(), problem.running_mean_tail.clone(), problem.running_var.clone());
        let to = RunningMut { mean_tail: running.1.as_deref_mut(), ..RunningMut::new(&mut running.0, &mut running.2) };
        layer.finish(Finish { running: Some(to), ..Finish::new(&moments, saved) }).expect("moments of the batch");
        let mut y = vec![f32::NAN; problem.x.len()];
        let mut scratch = vec![f64::NAN; layer.scratch_len()];
        let saved = normdrop::Saved::new(&mean, &mean_tail, &inv_std);
        let (parameters, dropout, residual) =
            (problem.parameters(), problem.dropout(), batch.problem.residual.as_deref());
        let call = Apply::new(saved, &batch.problem.x, &mut y, &mut scratch);
        layer.apply(Apply { parameters, dropout, residual, ..call }).expect("buffers of the right lengths");
        let by_phases = Trained {
            y: batch.padded.with_padding(&y, || 0.0),
            running_mean: running.0,
            running_mean_tail: running.1,
            running_var: running.2,
            batches: None,
            mean: mean.clone(),
            mean_tail: mean_tail.clone(),
            inv_std: inv_std.clone(),
        };
        assert_eq!(trained.bits(), by_phases.bits(), "training is not the phases");

        let mut d_residual = vec![f32::NAN; if has_residual { y.len() } else { 0 }];
        let (mut dx, mut d_weight, mut d_bias) = (vec![f32::NAN; y.len()], vec![0.0; c], vec![0.0; c]);
        let grad_parameters = ParameterGradients::new(&mut d_weight, &mut d_bias);
        layer.finish_gradients(&sums, grad_parameters).expect("sums of the batch");
        let (x, dy) = (&batch.problem.x, &batch.problem.dy);
        let call = ApplyGradient::new(saved, valid as f64, &sums, x, dy, &mut dx, &mut scratch);
        let grad_residual = has_residual.then_some(&mut d_residual[..]);
        layer
            .apply_gradient(ApplyGradient { parameters, dropout, residual, grad_residual, ..call })
            .expect("buffers of the right lengths");
        let d_residual = if has_residual { batch.padded.with_padding(&d_residual, || 0.0) } else { d_residual };
        let by_phases = Differentiated { dx: batch.padded.with_padding(&dx, || 0.0), d_residual, d_weight, d_bias };
        assert_eq!(gradients.bits(), by_phases.bits(), "the gradients are not the phases");
    }

    /// Neither what is in the padding nor the form of the validity matters.
    fn of_padding(&self, batch: &Batch) {
        let layer = batch.problem.layer::<A>();
        let paddings: [&[f32]; 3] =
            [&[0.0], &[f32::NAN, f32::INFINITY, f32::NEG_INFINITY], &[f32::from_bits(0x7FA0_0000), 3e38, 1e-45, -7.0]];
        let results = paddings.map(|padding| {
            let batch = batch.with_padding(padding);
            let forms = [Form::Bitmap, batch.form()].map(|form| {
                let trained = batch.try_train_on(&layer, form, None).expect("a call without faults");
                let statistics = Statistics::Batch(trained.saved());
                let dropout = batch.problem.dropout();
                let gradients = batch.backward_on(&layer, form, statistics, dropout).expect("a call without faults");
                let fixed = Statistics::Fixed(batch.problem.running());
                let fixed = batch.backward_on(&layer, form, fixed, dropout).expect("a call without faults");
                (trained.bits(), gradients.bits(), fixed.bits(), bits(&batch.eval::<A>(form)))
            });
            assert_eq!(forms[0], forms[1], "the form of the validity matters");
            forms[0].clone()
        });
        assert_eq!(results[0], results[1], "NaN and infinity in the padding matter");
        assert_eq!(results[0], results[2], "numbers in the padding matter");
    }

    fn of_backends(&self, batch: &Batch) {
        let batch = batch.with_padding(&[f32::NAN]);
        let results: Vec<_> = backends()
            .map(|backend| {
                let layer = batch.problem.layer::<A>().with_backend(backend).expect("an available backend");
                #[cfg(feature = "rayon")]
                let layer = layer.with_tasks(3);
                let trained = batch.try_train_on(&layer, batch.form(), None).expect("a call without faults");
                let (statistics, dropout) = (Statistics::Batch(trained.saved()), batch.problem.dropout());
                let gradients =
                    batch.backward_on(&layer, batch.form(), statistics, dropout).expect("a call without faults");
                let gates = layer.has_gates().then(|| {
                    let mut gates = vec![0xFF; mask_len(batch.problem.x.len())];
                    if let (Some(mask), Granularity::Element) = (&batch.problem.mask, layer.config().granularity) {
                        gates.copy_from_slice(mask);
                    }
                    let again =
                        batch.try_train_on(&layer, batch.form(), Some(&mut gates)).expect("activations with gates");
                    assert_eq!(again.bits(), trained.bits(), "gates change training");
                    let dropout = if batch.problem.mask.is_some() {
                        Dropout::Gates(&gates)
                    } else {
                        Dropout::UnscaledGates(&gates)
                    };
                    let again = batch.backward_on(&layer, batch.form(), statistics, dropout).expect("gates");
                    assert_eq!(again.bits(), gradients.bits(), "gates change gradients");
                    let open = (0..8 * gates.len()).filter(|&element| mask::keeps(&gates, element));
                    let valid = batch.padded.elements();
                    assert!(open.into_iter().all(|element| valid.contains(&element)), "gates of the padding are open");
                    gates
                });
                (trained.bits(), gradients.bits(), gates)
            })
            .collect();
        assert!(results.iter().all(|result| *result == results[0]), "backends differ");
    }

    fn of_evaluation(&self, batch: &Batch) {
        let (problem, layer) = (&batch.problem, batch.problem.layer::<A>());
        let y = batch.with_padding(&[f32::NAN]).eval::<A>(batch.form());
        assert_eq!(bits(&y), bits(&batch.padded.with_padding(&problem.eval::<A>(), || 0.0)), "evaluation");
        self.of_frozen_gates(batch, &y);
        let fixed = batch.backward::<A>(Statistics::Fixed(problem.running()));
        let mut prepared = vec![f64::NAN; layer.prepared_len()];
        let call = Prepare { parameters: problem.parameters(), ..Prepare::new(problem.running(), &mut prepared) };
        layer.prepare(call).expect("statistics with a deviation");
        let again = batch.backward::<A>(Statistics::Prepared(&prepared));
        assert_eq!(again.bits(), fixed.bits(), "prepared is not the same as unprepared");
        let plain = problem.backward::<A>(Statistics::Fixed(problem.running()));
        assert_eq!(
            bits(&fixed.dx),
            bits(&batch.padded.with_padding(&plain.dx, || 0.0)),
            "the gradient of an evaluation"
        );
    }

    fn of_all_valid(&self, batch: &Batch) {
        let mut batch = batch.clone();
        batch.padded.valid.fill(true);
        let plain = batch.problem.train::<A>();
        for form in [Form::Lengths, Form::Bitmap] {
            let layer = batch.problem.layer::<A>();
            let trained = batch.try_train_on(&layer, form, None).expect("a call without faults");
            assert_eq!(trained.bits(), plain.bits(), "training, {form:?}");
            for statistics in [Statistics::Batch(plain.saved()), Statistics::Fixed(batch.problem.running())] {
                let gradients = batch
                    .backward_on(&layer, form, statistics, batch.problem.dropout())
                    .expect("a call without faults");
                assert_eq!(gradients.bits(), batch.problem.backward::<A>(statistics).bits(), "gradients, {form:?}");
            }
            assert_eq!(bits(&batch.eval::<A>(form)), bits(&batch.problem.eval::<A>()), "evaluation, {form:?}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, cases: 128, ..ProptestConfig::default() })]

    #[test]
    fn masked_contract_calls_are_the_public_phases_over_chunks_of_valid_positions(draw in draws()) {
        draw.with(|checks, batch| checks.of_public_phases(batch));
    }

    #[test]
    fn masked_contract_what_is_in_the_padding_never_matters(draw in draws()) {
        draw.with(|checks, batch| checks.of_padding(batch));
    }

    #[test]
    fn masked_contract_backends_and_gates_give_the_same_bits(draw in draws()) {
        draw.with(|checks, batch| checks.of_backends(batch));
    }

    #[test]
    fn masked_contract_fixed_statistics_give_the_bits_of_plain_calls(draw in draws()) {
        draw.with(|checks, batch| checks.of_evaluation(batch));
    }

    #[test]
    fn masked_contract_a_batch_without_padding_gives_the_bits_of_plain_calls(draw in draws()) {
        draw.with(|checks, batch| checks.of_all_valid(batch));
    }
}

/// What `F.batch_norm(x[valid], running_mean, running_var, weight, bias, training=True)` and its gradients are in float64.
#[test]
fn masked_results_are_those_of_batch_norm_of_the_valid_positions_in_float64() {
    let near = |found: f32, expected: f64, scale: f64| {
        assert!((f64::from(found) - expected).abs() <= 2e-6 * scale, "{found} is not {expected}");
    };
    let mut random = SplitMix64::new(5);
    for (number, shape) in [[5, 33, 3], [2, 4200, 1], [30, 40, 70]].into_iter().enumerate() {
        for (channels_last, stretch) in [(true, 0), (true, 7), (false, 0), (false, 30)] {
            let [samples, positions, channels] = shape;
            let valid = match stretch {
                0 => Batch::lengths(samples, positions, &mut random),
                stretch => Batch::positions(samples * positions, stretch, &mut random),
            };
            let batch = Batch::new(shape, channels_last, valid, |_| class("normal"), number as u64);
            let batch = batch.with_padding(&[f32::NAN, 1e30]);
            let problem = &batch.problem;
            let trained = batch.train::<Identity>();
            let gradients = batch.backward::<Identity>(Statistics::Batch(trained.saved()));
            let elements = batch.padded.elements();
            let n = (elements.len() / channels) as f64;
            assert!(n > 1.0, "of one value there is no variance");
            let of = |values: &Option<Vec<f32>>, channel: usize, default: f64| {
                values.as_ref().map_or(default, |values| f64::from(values[channel]))
            };
            for channel in 0..channels {
                let (weight, bias) = (of(&problem.weight, channel, 1.0), of(&problem.bias, channel, 0.0));
                let of_channel: Vec<usize> = elements.iter().copied().skip(channel).step_by(channels).collect();
                let sum = |value: &dyn Fn(usize) -> f64| of_channel.iter().map(|&element| value(element)).sum::<f64>();
                let (x, dy) = (|at: usize| f64::from(problem.x[at]), |at: usize| f64::from(problem.dy[at]));
                let mean = sum(&x) / n;
                let var = sum(&|at| (x(at) - mean).powi(2)) / n;
                let inv_std = 1.0 / (var + f64::from(problem.config.eps)).sqrt();
                let xhat = |at: usize| (x(at) - mean) * inv_std;
                let (d_bias, d_weight) = (sum(&dy), sum(&|at| dy(at) * xhat(at)));
                let size = sum(&|at| dy(at).abs() * xhat(at).abs().max(1.0));
                near(gradients.d_bias[channel], d_bias, size);
                near(gradients.d_weight[channel], d_weight, size);
                let momentum = problem.config.momentum;
                let old = [problem.running_mean[channel], problem.running_var[channel]].map(f64::from);
                let running = [mean, var * n / (n - 1.0)].map(|new| momentum * new);
                let expected = [old[0] * (1.0 - momentum) + running[0], old[1] * (1.0 - momentum) + running[1]];
                near(trained.running_mean[channel], expected[0], old[0].abs() + mean.abs() + var.sqrt());
                near(trained.running_var[channel], expected[1], old[1].abs() + var);
                for &at in &of_channel {
                    near(trained.y[at], xhat(at) * weight + bias, weight.abs() * xhat(at).abs().max(1.0) + bias.abs());
                    let dx = weight * inv_std * (dy(at) - d_bias / n - xhat(at) * d_weight / n);
                    near(
                        gradients.dx[at],
                        dx,
                        weight.abs() * inv_std * (dy(at).abs() + size / n * (1.0 + xhat(at).abs())),
                    );
                }
            }
        }
    }
}

/// Signalling NaN in the padding: whatever computes with one raises the flag of an invalid operation.
#[test]
fn environment_contract_masked_calls_of_ordinary_numbers_raise_no_flag_but_inexact_and_underflow() {
    struct Calls<'a>(&'a Batch, normdrop::Backend);
    impl Visitor for Calls<'_> {
        type Result = ();

        fn visit<A: Oracle>(self) {
            let Self(batch, backend) = self;
            let layer = batch.problem.layer::<A>().with_backend(backend).expect("an available backend");
            let quiet = |call: &str| assert!(!raised(), "{call}, {:?}, {backend:?}", A::ACTIVATION);
            let default = leave(enter(0));
            assert!(default);
            // Not twice, because the comparison of two results may raise flags of its own.
            let (trained, _) = batch.train_once(&layer, batch.form(), None, CONTENTS[1]).expect("no faults");
            quiet("training");
            let gates = layer.has_gates().then(|| match (&batch.problem.mask, layer.config().granularity) {
                (Some(mask), Granularity::Element) => mask.clone(),
                _ => vec![0; mask_len(batch.problem.x.len())],
            });
            batch.train_once(&layer, batch.form(), gates, CONTENTS[1]).expect("no faults");
            quiet("training with gates");
            for statistics in [Statistics::Batch(trained.saved()), Statistics::Fixed(batch.problem.running())] {
                let (mut dx, mut scratch) = (vec![0.0; batch.problem.x.len()], vec![0.0; layer.masked_scratch_len()]);
                let (mut d_weight, mut d_bias) = (trained.mean.clone(), trained.mean.clone());
                let mut workspace = vec![0.0; layer.masked_workspace_len()];
                let call = Backward {
                    parameters: batch.problem.parameters(),
                    dropout: batch.problem.dropout(),
                    residual: batch.problem.residual.as_deref(),
                    grad_input: Some(&mut dx),
                    grad_parameters: ParameterGradients::new(&mut d_weight, &mut d_bias),
                    ..Backward::new(statistics, &batch.problem.x, &batch.problem.dy, &mut scratch)
                };
                batch
                    .validity(batch.form(), |valid| layer.backward_masked(call, Masked::new(valid, &mut workspace)))
                    .expect("no faults");
                quiet("backward");
            }
            let (mut y, mut scratch) = (vec![0.0; batch.problem.x.len()], vec![0.0; layer.masked_scratch_len()]);
            let mut workspace = vec![0.0; layer.masked_workspace_len()];
            let call = Eval {
                parameters: batch.problem.parameters(),
                residual: batch.problem.residual.as_deref(),
                ..Eval::new(batch.problem.running(), &batch.problem.x, &mut y, &mut scratch)
            };
            batch
                .validity(batch.form(), |valid| layer.eval_masked(call, Masked::new(valid, &mut workspace)))
                .expect("no faults");
            quiet("evaluation");
        }
    }
    let mut turn = 0;
    for (seed, &shape) in (0..).zip(SHAPES) {
        for channels_last in [true, false] {
            let (mut random, [samples, positions, _]) = (SplitMix64::new(seed), shape);
            let mut valid = Batch::lengths(samples, positions, &mut random);
            valid[..2 * positions].fill(true);
            let mut batch = Batch::new(shape, channels_last, valid, |_| class("normal"), seed);
            if seed % 2 == 0 {
                batch.problem = batch.problem.with_residual(class("normal"), seed).with_mask(0.3, seed);
            }
            let batch = batch.with_padding(&[f32::from_bits(0x7FA0_0000), f32::INFINITY, f32::from_bits(0xFF80_0001)]);
            for backend in backends() {
                with_activation(turn % ACTIVATIONS, Calls(&batch, backend));
                turn += 1;
            }
        }
    }
}

/// Both layouts of three samples, five positions and two channels, with these lengths.
fn small(lengths: [usize; 3]) -> [Batch; 2] {
    let valid: Vec<bool> = lengths.into_iter().flat_map(|length| (0..5).map(move |l| l < length)).collect();
    [true, false].map(|channels_last| Batch::new([3, 5, 2], channels_last, valid.clone(), |_| class("normal"), 1))
}

#[test]
fn without_a_valid_position_a_call_is_that_of_an_empty_tensor() {
    for mut batch in small([0; 3]) {
        batch.problem = batch.problem.with_mask(0.5, 1).with_residual(class("normal"), 2);
        batch.problem.batches = Some(7);
        // What would be refused for values is not looked at.
        batch.problem.config.eps = 0.0;
        batch = batch.with_padding(&[f32::NAN]);
        let trained = batch.train::<Relu>();
        let problem = &batch.problem;
        assert_eq!(bits(&trained.y), [0; 30]);
        assert_eq!((bits(&trained.mean), bits(&trained.mean_tail)), (vec![0; 2], vec![0; 2]));
        assert_eq!(trained.inv_std, [0.0; 2]);
        assert_eq!((&trained.running_mean, &trained.running_var), (&problem.running_mean, &problem.running_var));
        assert_eq!(trained.batches, Some(7), "a batch without values counts");
        for statistics in [Statistics::Batch(trained.saved()), Statistics::Fixed(problem.running())] {
            let gradients = batch.backward::<Relu>(statistics);
            assert!(gradients.bits().iter().all(|&bits| bits == 0));
        }
        batch.problem.running_var = vec![-1.0; 2];
        assert_eq!(bits(&batch.eval::<Relu>(Form::Lengths)), [0; 30]);
    }
}

#[test]
fn one_valid_position_has_no_unbiased_variance() {
    for mut batch in small([0, 1, 0]) {
        let layer = batch.problem.layer::<Identity>();
        let refused = batch.try_train_on(&layer, Form::Lengths, None);
        assert_eq!(refused.expect_err("an unbiased variance").to_string(), Error::SingleSample.to_string());
        batch.problem.config.running_var = RunningVariance::Biased;
        batch.problem.bias = Some(vec![0.25, -0.5]);
        let trained = batch.train::<Identity>();
        assert_eq!(batch.padded.take(&trained.y), [0.25, -0.5]);
        assert_eq!(trained.running_mean, batch.padded.take(&batch.problem.x));
        assert_eq!(trained.running_var, [0.0; 2]);
        let gradients = batch.backward::<Identity>(Statistics::Batch(trained.saved()));
        assert_eq!((bits(&gradients.dx), &gradients.d_weight), (vec![0; 30], &vec![0.0; 2]));
        assert_eq!(gradients.d_bias, batch.padded.take(&batch.problem.dy));
    }
}

#[test]
fn the_running_variance_is_unbiased_by_the_number_of_valid_positions() {
    for mut batch in small([2, 0, 1]) {
        batch.problem.x = batch.padded.with_padding(&[1.0; 30], || f32::NAN);
        let elements = batch.padded.elements();
        for (value, &element) in [1.0, 2.0, 3.0, 4.0, 8.0, 0.0].into_iter().zip(&elements) {
            batch.problem.x[element] = value;
        }
        let trained = batch.train::<Identity>();
        assert_eq!((trained.running_mean, trained.running_var), (vec![4.0, 2.0], vec![13.0, 4.0]));
    }
}

#[test]
fn what_does_not_fit_is_refused_and_nothing_is_written() {
    for batch in small([5, 1, 0]) {
        let layer = batch.problem.layer::<Relu>();
        let (lengths, bitmap) = ([5, 1, 0], batch.padded.bitmap());
        let (scratch, workspace) = (layer.masked_scratch_len(), layer.masked_workspace_len());
        let of = |buffer, expected, actual| Error::Length { buffer, expected, actual };
        let good = || (Validity::Lengths(&lengths), scratch, workspace);
        let mut cases = vec![
            ((Validity::Lengths(&lengths[..2]), scratch, workspace), of(Buffer::Lengths, 3, 2)),
            (
                (Validity::Lengths(&[1, 2, 6]), scratch, workspace),
                Error::SequenceLength { sample: 2, positions: 5, length: 6 },
            ),
            ((Validity::Bitmap(&bitmap[..1]), scratch, workspace), of(Buffer::Validity, 2, 1)),
            ((Validity::Bitmap(&[0; 3]), scratch, workspace), of(Buffer::Validity, 2, 3)),
            ((good().0, scratch, workspace - 1), of(Buffer::Workspace, workspace, workspace - 1)),
        ];
        if scratch > 0 {
            cases.push(((good().0, scratch - 1, workspace), of(Buffer::Scratch, scratch, scratch - 1)));
        }
        let x = &batch.problem.x;
        let saved = normdrop::Saved::new(&[0.0; 2], &[0.0; 2], &[1.0; 2]);
        for ((validity, scratch, workspace), error) in cases {
            let (mut y, mut scratch, mut workspace) = (vec![7.0; 30], vec![7.0; scratch], vec![7.0; workspace]);
            let (mut mean, mut tail, mut inv_std) = ([7.0; 2], [7.0; 2], [7.0; 2]);
            let call = Train::new(x, &mut y, SavedMut::new(&mut mean, &mut tail, &mut inv_std), &mut scratch);
            assert_eq!(layer.train_masked(call, Masked::new(validity, &mut workspace)), Err(error));
            let call = Eval::new(batch.problem.running(), x, &mut y, &mut scratch);
            assert_eq!(layer.eval_masked(call, Masked::new(validity, &mut workspace)), Err(error));
            let call = Backward::new(Statistics::Batch(saved), x, x, &mut scratch);
            let call = Backward { grad_input: Some(&mut y), ..call };
            assert_eq!(layer.backward_masked(call, Masked::new(validity, &mut workspace)), Err(error));
            assert!(y.iter().chain(&workspace).chain(&mean).chain(&tail).all(|&value| value == 7.0), "{error}");
            assert!(scratch.iter().chain(&inv_std).all(|&value| value == 7.0), "{error}");
        }
        let text = of(Buffer::Workspace, workspace, 0).to_string();
        assert!(text.contains("at least") && text.contains("masked_workspace_len"), "{text}");
        // More is not wrong.
        let (mut y, mut scratch, mut workspace) = (vec![7.0; 30], vec![7.0; scratch + 1], vec![7.0; workspace + 1]);
        let (mut mean, mut tail, mut inv_std) = ([7.0; 2], [7.0; 2], [7.0; 2]);
        let call = Train::new(x, &mut y, SavedMut::new(&mut mean, &mut tail, &mut inv_std), &mut scratch);
        assert_eq!(layer.train_masked(call, Masked::new(Validity::Lengths(&lengths), &mut workspace)), Ok(()));
    }
}

#[test]
fn bits_of_the_bitmap_after_the_last_position_are_not_read() {
    for batch in small([5, 1, 2]) {
        let layer = batch.problem.layer::<Relu>();
        let mut results = [0, 0b1000_0000].map(|spare| {
            let mut bitmap = batch.padded.bitmap();
            bitmap[1] |= spare;
            let (mut y, mut saved) = (vec![f32::NAN; 30], normdrop::SavedArrays::<2>::new());
            let (mut scratch, mut workspace) =
                (vec![0.0; layer.masked_scratch_len()], vec![0.0; layer.masked_workspace_len()]);
            let call = Train::new(&batch.problem.x, &mut y, saved.as_mut(), &mut scratch);
            layer
                .train_masked(call, Masked::new(Validity::Bitmap(&bitmap), &mut workspace))
                .expect("a call without faults");
            (bits(&y), saved.as_saved().inv_std.to_vec())
        });
        let last = results[1].clone();
        results[0].1.truncate(2);
        assert_eq!(results[0], last);
    }
}

#[test]
fn empty_tensors_need_no_validity() {
    for shape in [Shape::nlc(3, 0, 2), Shape::nlc(0, 3, 2), Shape::ncl(3, 2, 0), Shape::ncl(3, 0, 2)] {
        let layer = Layer::new(shape.expect("an empty shape"), Relu, normdrop::Config::DEFAULT).expect("constants");
        let channels = layer.shape().channels();
        for validity in [Validity::Lengths(&[9; 4]), Validity::Bitmap(&[])] {
            let (mut mean, mut tail, mut inv_std) = (vec![7.0; channels], vec![7.0; channels], vec![7.0; channels]);
            let saved = SavedMut::new(&mut mean, &mut tail, &mut inv_std);
            let mut scratch = vec![0.0; layer.masked_scratch_len()];
            let mut workspace = vec![0.0; layer.masked_workspace_len()];
            let call = Train::new(&[], &mut [], saved, &mut scratch);
            assert_eq!(layer.train_masked(call, Masked::new(validity, &mut workspace)), Ok(()));
            assert_eq!(inv_std, vec![0.0; channels]);
        }
    }
}
