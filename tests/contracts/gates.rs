//! Gates: what a forward call writes, and that a backward call with them gives the bits that it gives with the mask.

use normdrop::{
    Apply, ApplyGradient, Backend, Backward, BackwardInPlace, Config, Dropout, Error, Eval, Granularity, HardSwish,
    Identity, Layer, ParameterGradients, Parameters, Reduce, Relu, Running, Saved, SavedMut, Shape, Statistics, Train,
    mask_len,
};
use normdrop_reference::random::SplitMix64;

/// Runs of whole vectors and others, joined and alone; one channel; columns, narrow and wide; two groups of channels.
const SHAPES: &[[usize; 3]] = &[
    [3, 5, 16],
    [5, 18, 49],
    [2, 3, 300],
    [3, 1, 1100],
    [9, 7, 5],
    [130, 3, 1],
    [40, 257, 1],
    [2, 20, 1031],
    [1, 1, 1],
];

/// A layer's tensors, and what its calls write.
struct Case<A> {
    layer: Layer<A>,
    x: Vec<f32>,
    dy: Vec<f32>,
    residual: Option<Vec<f32>>,
    weight: Vec<f32>,
    bias: Vec<f32>,
    mean: Vec<f32>,
    var: Vec<f32>,
    mask: Vec<u8>,
}

/// The results of a backward call, as bits.
type Gradients = [Vec<u32>; 4];

fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|value| if value.is_nan() { f32::NAN.to_bits() } else { value.to_bits() }).collect()
}

impl<A: normdrop::Activation> Case<A> {
    /// With `extreme` some channels need f64: large and small deviations, weights and statistics; others have NaN and
    /// infinities, which are dropped or not.
    fn new([outer, channels, inner]: [usize; 3], activation: A, config: Config, residual: bool, extreme: bool) -> Self {
        let shape = Shape::new(outer, channels, inner).unwrap();
        let layer = Layer::new(shape, activation, config).unwrap();
        let mut random = SplitMix64::new(7);
        #[expect(clippy::cast_possible_truncation, reason = "any number near it")]
        let mut normal = |len: usize| -> Vec<f32> { (0..len).map(|_| random.next_normal() as f32).collect() };
        let len = shape.len();
        let (mut x, dy) = (normal(len), normal(len));
        let mut weight: Vec<f32> = normal(channels);
        if extreme {
            for (index, x) in x.iter_mut().enumerate() {
                match index / inner % channels % 6 {
                    1 => *x *= 1e-40,
                    2 => *x *= 1e37,
                    3 if index % 11 == 0 => *x = [f32::NAN, f32::INFINITY][index / 11 % 2],
                    _ => {}
                }
            }
            for (channel, weight) in weight.iter_mut().enumerate() {
                *weight *= [1.0, 1.0, 1e30, 1.0, 1e-35, 0.0][channel % 6];
            }
        }
        let mut mask = vec![0; layer.mask_len()];
        layer.fill_mask(3, &mut mask).unwrap();
        let residual = residual.then(|| normal(len));
        let (bias, mean) = (normal(channels), normal(channels));
        let var = normal(channels).iter().map(|value| value * value + 0.1).collect();
        Self { layer, x, dy, residual, weight, bias, mean, var, mask }
    }

    fn parameters(&self) -> Parameters<'_> {
        Parameters { weight: Some(&self.weight), bias: Some(&self.bias) }
    }

    /// What a mask with a bit for each element would have.
    fn keeps(&self, element: usize) -> bool {
        let shape = self.layer.shape();
        let run = element / shape.inner();
        let bit = match self.layer.config().granularity {
            Granularity::Element => element,
            Granularity::Channel => run,
            Granularity::Sample => run / shape.channels(),
        };
        self.mask[bit / 8] >> (bit % 8) & 1 == 1
    }

    /// All mask bits, one for each element, in a buffer that gates take the place of.
    fn element_mask(&self) -> Vec<u8> {
        let mut bytes = vec![0; mask_len(self.x.len())];
        for element in (0..self.x.len()).filter(|&element| self.keeps(element)) {
            bytes[element / 8] |= 1 << (element % 8);
        }
        bytes
    }

    /// `y` and, if `gates` are given, what the call makes of them. With batch statistics also the saved ones.
    fn forward(
        &self,
        batch: bool,
        dropout: Dropout<'_>,
        gates: Option<&mut [u8]>,
    ) -> (Vec<f32>, [Vec<f32>; 2], Vec<f64>) {
        let channels = self.layer.shape().channels();
        let (mut y, mut scratch) = (vec![f32::NAN; self.x.len()], vec![f64::NAN; self.layer.scratch_len()]);
        let (mut mean, mut tail, mut inv_std) = (vec![0.0; channels], vec![0.0; channels], vec![0.0; channels]);
        let residual = self.residual.as_deref();
        if batch {
            let saved = SavedMut { mean: &mut mean, mean_tail: &mut tail, inv_std: &mut inv_std };
            let call = Train {
                parameters: self.parameters(),
                dropout,
                residual,
                ..Train::new(&self.x, &mut y, saved, &mut scratch)
            };
            match gates {
                Some(gates) => self.layer.train_with_gates(call, gates).unwrap(),
                None => self.layer.train(call).unwrap(),
            }
        } else {
            let running = Running::new(&self.mean, &self.var);
            let call = Eval {
                parameters: self.parameters(),
                dropout,
                residual,
                ..Eval::new(running, &self.x, &mut y, &mut scratch)
            };
            match gates {
                Some(gates) => self.layer.eval_with_gates(call, gates).unwrap(),
                None => self.layer.eval(call).unwrap(),
            }
        }
        (y, [mean, tail], inv_std)
    }

    /// `dx`, the gradient of the residual, and those of weight and bias.
    fn backward(
        &self,
        statistics: Statistics<'_>,
        dropout: Dropout<'_>,
        with_residual: bool,
        in_place: bool,
    ) -> Gradients {
        let channels = self.layer.shape().channels();
        let (mut dx, mut d_residual) = (self.dy.clone(), vec![f32::NAN; self.x.len()]);
        let (mut d_weight, mut d_bias) = (vec![f32::NAN; channels], vec![f32::NAN; channels]);
        let mut scratch = vec![f64::NAN; self.layer.scratch_len()];
        let grad_parameters = ParameterGradients::new(&mut d_weight, &mut d_bias);
        let (parameters, residual) = (self.parameters(), self.residual.as_deref().filter(|_| with_residual));
        let grad_residual = Some(&mut d_residual[..]);
        if in_place {
            let call = BackwardInPlace::new(statistics, &self.x, &mut dx, &mut scratch);
            let call = BackwardInPlace { parameters, dropout, residual, grad_residual, grad_parameters, ..call };
            self.layer.backward_in_place(call).unwrap();
        } else {
            let call = Backward::new(statistics, &self.x, &self.dy, &mut scratch);
            let grad_input = Some(&mut dx[..]);
            let call = Backward { parameters, dropout, residual, grad_input, grad_residual, grad_parameters, ..call };
            self.layer.backward(call).unwrap();
        }
        [bits(&dx), bits(&d_residual), bits(&d_weight), bits(&d_bias)]
    }

    /// The sums and then `dx` of the phases.
    fn phases(&self, saved: Saved<'_>, dropout: Dropout<'_>) -> (Vec<u64>, Vec<u32>) {
        let samples = (self.x.len() / self.layer.shape().channels()) as f64;
        let mut sums = vec![0.0; self.layer.sums_len()];
        let (mut dx, mut scratch) = (vec![f32::NAN; self.x.len()], vec![f64::NAN; self.layer.scratch_len()]);
        let (parameters, residual) = (self.parameters(), self.residual.as_deref());
        let call = Reduce::new(Statistics::Batch(saved), &self.x, &self.dy, &mut sums, &mut scratch);
        self.layer.reduce(Reduce { parameters, dropout, residual, ..call }).unwrap();
        let call = ApplyGradient::new(saved, samples, &sums, &self.x, &self.dy, &mut dx, &mut scratch);
        self.layer.apply_gradient(ApplyGradient { parameters, dropout, residual, ..call }).unwrap();
        let bits_of = |sum: &f64| if sum.is_nan() { f64::NAN.to_bits() } else { sum.to_bits() };
        (sums.iter().map(bits_of).collect(), bits(&dx))
    }

    /// Everything about the gates of one case.
    fn check(&self, name: &str, closes_at_zero: bool) {
        let Config { p, granularity, .. } = self.layer.config();
        for batch in [true, false] {
            for (dropout, scaled) in [(Dropout::Mask(&self.mask), true), (Dropout::Off, false)] {
                let name = format!("{name}, batch {batch}, dropout {scaled}");
                let (y, [mean, tail], inv_std) = self.forward(batch, dropout, None);
                let mut gates = vec![0xA5; mask_len(y.len())];
                let with_gates = self.forward(batch, dropout, Some(&mut gates));
                assert_eq!(bits(&with_gates.0), bits(&y), "{name}: y");
                assert_eq!(bits(&with_gates.1[0]), bits(&mean), "{name}: mean");
                for (element, &y) in y.iter().enumerate() {
                    let kept = !scaled || p < 1.0 && self.keeps(element);
                    let open = kept && (!closes_at_zero || y != 0.0);
                    assert_eq!(gates[element / 8] >> (element % 8) & 1 == 1, open, "{name}: gate {element}, y {y}");
                }
                assert!(y.len() % 8 == 0 || gates.last().unwrap() >> (y.len() % 8) == 0, "{name}: bits of no element");
                if scaled && granularity == Granularity::Element {
                    let mut over = self.element_mask();
                    let in_gates = self.forward(batch, Dropout::InGates, Some(&mut over));
                    assert_eq!((bits(&in_gates.0), over), (bits(&y), gates.clone()), "{name}: over the mask");
                }
                let given = if scaled { Dropout::Gates(&gates) } else { Dropout::UnscaledGates(&gates) };
                let saved = Saved { mean: &mean, mean_tail: &tail, inv_std: &inv_std };
                let statistics = if batch {
                    Statistics::Batch(saved)
                } else {
                    Statistics::Fixed(Running::new(&self.mean, &self.var))
                };
                let expected = self.backward(statistics, dropout, true, false);
                for (with_residual, in_place) in [(true, false), (false, false), (false, true)] {
                    let found = self.backward(statistics, given, with_residual, in_place);
                    assert_eq!(found, expected, "{name}: gradients, residual {with_residual}, in place {in_place}");
                }
                if batch {
                    assert_eq!(self.phases(saved, given), self.phases(saved, dropout), "{name}: phases");
                    let mut part = vec![0x5A; gates.len()];
                    let (mut y_of_part, mut scratch) = (vec![0.0; y.len()], vec![0.0; self.layer.scratch_len()]);
                    let call = Apply::new(saved, &self.x, &mut y_of_part, &mut scratch);
                    let (parameters, residual) = (self.parameters(), self.residual.as_deref());
                    self.layer.apply_with_gates(Apply { parameters, dropout, residual, ..call }, &mut part).unwrap();
                    assert_eq!((bits(&y_of_part), part), (bits(&y), gates), "{name}: apply");
                }
            }
        }
    }
}

/// Every case of an activation, which closes its gates below 0 or not at all.
fn every_case<A: normdrop::Activation>(activation: A, closes_at_zero: bool) {
    for &shape in SHAPES {
        for residual in [false, true] {
            for (p, granularity) in [
                (0.0, Granularity::Element),
                (0.3, Granularity::Element),
                (1.0, Granularity::Element),
                (0.5, Granularity::Channel),
                (0.5, Granularity::Sample),
            ] {
                for extreme in [false, true] {
                    // One value per channel has no gradient through its statistics, and all the same its gates.
                    let config = Config { p, granularity, ..Config::DEFAULT };
                    for backend in [Backend::Portable, Backend::Avx2, Backend::Avx512] {
                        let mut case = Case::new(shape, activation, config, residual, extreme);
                        let Ok(layer) = case.layer.with_backend(backend) else { continue };
                        case.layer = layer;
                        let name =
                            format!("{shape:?}, {config:?}, residual {residual}, extreme {extreme}, {backend:?}");
                        case.check(&name, closes_at_zero);
                    }
                }
            }
        }
    }
}

#[test]
fn gates_of_relu_are_what_backward_needs_and_give_the_same_bits() {
    every_case(Relu, true);
}

#[test]
fn gates_without_an_activation_are_the_kept_elements_and_give_the_same_bits() {
    every_case(Identity, false);
}

/// Four rows of a matrix that is written past the caches are written in turn, and so are their gates.
#[test]
fn gates_of_rows_in_turn_are_what_backward_needs_and_give_the_same_bits() {
    let config = Config { p: 0.3, ..Config::DEFAULT };
    for backend in [Backend::Portable, Backend::Avx2, Backend::Avx512] {
        let mut case = Case::new([3_025, 1040, 1], Relu, config, false, false);
        let Ok(layer) = case.layer.with_backend(backend) else { continue };
        case.layer = layer;
        case.check(&format!("rows in turn, {backend:?}"), true);
    }
}

#[cfg(feature = "rayon")]
#[test]
fn gates_are_the_same_for_every_number_of_tasks() {
    // Runs that begin anywhere in a byte; in one case no run but the first begins with one.
    for shape in [[16, 33, 1031], [2, 1, 300_000], [4100, 129, 1], [3, 2, 100_003], [9, 16, 4100]] {
        let config = Config { p: 0.3, ..Config::DEFAULT };
        let mut case = Case::new(shape, Relu, config, true, false);
        let one = case.layer;
        let mut expected = vec![0; mask_len(case.x.len())];
        case.forward(true, Dropout::Mask(&case.mask), Some(&mut expected));
        for tasks in [2, 3, 8] {
            case.layer = one.with_tasks(tasks);
            let (mut beside, mut over) = (vec![0xFF; expected.len()], case.mask.clone());
            case.forward(true, Dropout::Mask(&case.mask), Some(&mut beside));
            case.forward(true, Dropout::InGates, Some(&mut over));
            assert!(beside == expected && over == expected, "{shape:?}, {tasks} tasks");
        }
    }
}

#[test]
fn gates_that_a_call_cannot_take_are_an_error_and_nothing_is_written() {
    let config = Config { p: 0.5, ..Config::DEFAULT };
    let case = Case::new([3, 5, 20], Relu, config, false, false);
    let (channels, len) = (5, case.x.len());
    let (mut mean, mut tail, mut inv_std) = (vec![7.0; channels], vec![7.0; channels], vec![7.0; channels]);
    let (mut y, mut scratch) = (vec![7.0; len], vec![0.0; case.layer.scratch_len()]);
    let gates = vec![0xFF; mask_len(len)];
    let mut train = |layer: &Layer<Relu>, dropout, gates: Option<&mut [u8]>| {
        let saved = SavedMut { mean: &mut mean, mean_tail: &mut tail, inv_std: &mut inv_std };
        let call = Train { dropout, ..Train::new(&case.x, &mut y, saved, &mut scratch) };
        let result = match gates {
            Some(gates) => layer.train_with_gates(call, gates),
            None => layer.train(call),
        };
        assert!(y.iter().chain(&mean).all(|&value| value == 7.0), "something was written");
        result
    };
    let short = |actual| Err(Error::Length { buffer: normdrop::Buffer::Gates, expected: mask_len(len), actual });
    let mut written = gates.clone();
    assert_eq!(train(&case.layer, Dropout::Mask(&case.mask), Some(&mut written[1..])), short(gates.len() - 1));
    assert_eq!(train(&case.layer, Dropout::InGates, Some(&mut written[1..])), short(gates.len() - 1));
    assert_eq!(train(&case.layer, Dropout::Unset, Some(&mut written)), Err(Error::DropoutUnset { p: 0.5 }));
    for dropout in [Dropout::Gates(&gates), Dropout::UnscaledGates(&gates)] {
        assert_eq!(train(&case.layer, dropout, None), Err(Error::GatesDirection));
        assert_eq!(train(&case.layer, dropout, Some(&mut written)), Err(Error::GatesDirection));
    }
    assert_eq!(train(&case.layer, Dropout::InGates, None), Err(Error::GatesDirection));
    let shared = Layer::new(case.layer.shape(), Relu, Config { granularity: Granularity::Channel, ..config }).unwrap();
    assert_eq!(train(&shared, Dropout::InGates, Some(&mut written)), Err(Error::GatesDirection));
    assert_eq!(written, gates, "gates of refused calls");

    let statistics = Statistics::Fixed(Running::new(&case.mean, &case.var));
    let (mut dx, mut scratch) = (vec![7.0; len], vec![0.0; case.layer.scratch_len()]);
    let mut backward = |dropout| {
        let call = Backward::new(statistics, &case.x, &case.dy, &mut scratch);
        case.layer.backward(Backward { dropout, grad_input: Some(&mut dx), ..call })
    };
    assert_eq!(backward(Dropout::InGates), Err(Error::GatesDirection));
    assert_eq!(backward(Dropout::Gates(&gates[1..])), short(gates.len() - 1));
    assert!(dx.iter().all(|&value| value == 7.0));

    let curved = Case::new([3, 5, 20], HardSwish, config, false, false);
    let (mut y, mut scratch) = (vec![7.0; len], vec![0.0; curved.layer.scratch_len()]);
    let running = Running::new(&curved.mean, &curved.var);
    let call = Eval::new(running, &curved.x, &mut y, &mut scratch);
    assert_eq!(curved.layer.eval_with_gates(call, &mut written), Err(Error::GatesActivation));
    assert!(y.iter().all(|&value| value == 7.0) && written == gates);
    let call = Backward::new(statistics, &curved.x, &curved.dy, &mut scratch);
    let call = Backward { dropout: Dropout::Gates(&gates), grad_input: Some(&mut y), ..call };
    assert_eq!(curved.layer.backward(call), Err(Error::GatesActivation));
}
