//! The targets of the dropout masks.

use std::convert::Infallible;

use normdrop::{Backend, Bernoulli, Buffer as Name, Config, Error, Layer, Noise, Shape, mask_len, seed_from};
use normdrop_reference::mask;
use normdrop_reference::noise::{self, Law};
use normdrop_reference::random::SplitMix64;
use rand_core::TryRng;

use crate::buffer::{Buffer, Place};
use crate::constants::check_keep;
use crate::input::{MaskInput, MaskWithInput};

/// The most elements of a mask.
const MOST: usize = 16384;
/// The elements that share one seeding of the generators.
const BLOCK: u64 = 4096;

/// A distribution, unless the probability is refused.
fn bernoulli(p: u64) -> Option<Bernoulli> {
    let p = f64::from_bits(p);
    match Bernoulli::new(p) {
        Ok(keep) => {
            check_keep(keep, p);
            Some(keep)
        }
        Err(error) => {
            let refused = matches!(error, Error::Probability { p: refused } if refused.to_bits() == p.to_bits());
            assert!(refused && !(0.0..=1.0).contains(&p), "{error:?} of {p:e}");
            None
        }
    }
}

/// A mask with garbage in it, whose length may be wrong.
fn mask_memory(elements: usize, wrong: i8, place: Place) -> Buffer<u8> {
    let len = mask_len(elements).saturating_add_signed(isize::from(wrong));
    Buffer::new(&[], len, 0xA5, place)
}

/// Panics unless a call did what the length of its mask asks for; says whether it filled the mask.
fn filled(result: Result<(), Error>, elements: usize, mask: &[u8]) -> bool {
    let (expected, actual) = (mask_len(elements), mask.len());
    if expected == actual {
        assert_eq!(result, Ok(()));
        return true;
    }
    assert_eq!(result, Err(Error::Length { buffer: Name::Mask, expected, actual }));
    assert!(mask.iter().all(|&byte| byte == 0xA5), "a refused call wrote");
    false
}

/// `Bernoulli::fill`, `Layer::fill_mask`, `drop_padding`, `clear_padding`, `Noise::apply`, `Layer::apply_noise`,
/// `alpha_dropout` and `alpha_dropout_backward`.
pub(crate) fn mask(input: &MaskInput) {
    let Some(keep) = bernoulli(input.p) else { return };
    let elements = usize::from(input.elements) % (MOST + 1);
    let memory = || mask_memory(elements, input.wrong, Place::new(input.guard, input.misalign, 65));

    let config = Config { p: f64::from_bits(input.p), ..Config::DEFAULT };
    let mut drawn = memory();
    let result = keep.fill(input.seed, input.first, elements, &mut drawn);
    if filled(result, elements, &drawn) {
        check_range(keep, input, elements, &drawn);
    }

    check_padding(config, input, elements);
    check_noise(config, input, elements);

    // The layer draws the same from element 0 on, on every backend.
    let shape = Shape::nc(1, elements).expect("the dimensions are small");
    let layer = Layer::new(shape, normdrop::Identity, config).expect("the constants are valid");
    let expected = mask::bytes(input.seed, keep.threshold(), elements);
    for backend in Backend::ALL.into_iter().filter(|backend| backend.is_available()) {
        let mut drawn = memory();
        let layer = layer.with_backend(backend).expect("the backend is available");
        let result = layer.fill_mask(input.seed, &mut drawn).map(drop);
        if filled(result, elements, &drawn) {
            assert_eq!(*drawn, expected, "{}", backend.name());
        }
    }
}

/// Any f32, many of them of ordinary size.
#[expect(clippy::cast_possible_truncation, reason = "rounded to nearest, or the lower half of a word")]
fn value(random: &mut SplitMix64) -> f32 {
    match random.next_below(4) {
        0 => f32::from_bits(random.next_u64() as u32),
        _ => random.next_normal() as f32,
    }
}

/// Whether two values are the same, any two NaN included.
fn same(found: f32, expected: f32) -> bool {
    found.to_bits() == expected.to_bits() || found.is_nan() && expected.is_nan()
}

/// Multiplies values by noise whose width comes from the seed, and drops them by alpha dropout, on every backend, and
/// compares with the reference.
#[expect(clippy::cast_possible_truncation, reason = "the lower half of a word")]
fn check_noise(config: Config, input: &MaskInput, elements: usize) {
    let mut random = SplitMix64::new(input.seed ^ input.first.rotate_left(32));
    let bits = random.next_u64();
    let width = if bits >> 63 == 1 { f32::from_bits(bits as u32) } else { random.next_unit() as f32 };
    let law = if bits >> 62 & 1 == 1 { Law::Gaussian { sigma: width } } else { Law::Uniform { half_width: width } };
    let made = match law {
        Law::Gaussian { sigma } => Noise::gaussian(sigma),
        Law::Uniform { half_width } => Noise::uniform(half_width),
    };
    let valid = (0.0..=18_446_744_073_709_551_616.0).contains(&width);
    let refused =
        |error: &Error| matches!(error, Error::NoiseWidth { width: found } if found.to_bits() == width.to_bits());
    assert!(if valid { made.is_ok() } else { made.as_ref().is_err_and(refused) }, "{made:?} of {width:e}");

    let values: Vec<f32> = (0..elements).map(|_| value(&mut random)).collect();
    let len = elements.saturating_add_signed(isize::from(input.wrong));
    let memory = |len| Buffer::new(&values, len, 1.0_f32, Place::new(input.guard, input.misalign, 16));
    let factors =
        |first: u64| noise::words(input.seed, first.into(), elements).into_iter().map(|word| noise::factor(law, word));
    let products =
        |first| values.iter().zip(factors(first)).map(|(x, factor)| if width == 0.0 { *x } else { x * factor });
    if let Ok(made) = made {
        let mut found = memory(elements);
        made.apply(input.seed, input.first, &mut found);
        let equal = found.iter().zip(products(input.first)).all(|(found, expected)| same(*found, expected));
        assert!(equal, "{law:?} from {} on", input.first);
    }

    let shape = Shape::nc(1, elements).expect("the dimensions are small");
    let layer = Layer::new(shape, normdrop::Identity, config).expect("the constants are valid");
    let mut kept = vec![0; layer.mask_len()];
    layer.fill_mask(input.seed, &mut kept).expect("the mask has its length");
    let p = 1.0 - Bernoulli::new(config.p).map_or(1.0, Bernoulli::keep_probability);
    let refused = Err(Error::Length { buffer: Name::Values, expected: elements, actual: len });
    for backend in Backend::ALL.into_iter().filter(|backend| backend.is_available()) {
        let layer = layer.with_backend(backend).expect("the backend is available");
        let [mut multiplied, mut forward, mut backward] = [memory(len), memory(len), memory(len)];
        let results = [
            made.map_or(Ok(()), |made| layer.apply_noise(made, input.seed, &mut multiplied)),
            layer.alpha_dropout(&kept, &mut forward),
            layer.alpha_dropout_backward(&kept, &mut backward),
        ];
        if len != elements {
            assert_eq!((results[1], results[2]), (refused, refused));
            assert!(made.is_err() || results[0] == refused);
            let before = memory(len);
            let untouched = |buffer: &[f32]| buffer.iter().zip(&*before).all(|(found, before)| same(*found, *before));
            assert!(untouched(&multiplied) && untouched(&forward) && untouched(&backward), "a refused call wrote");
            continue;
        }
        assert_eq!(results, [Ok(()); 3]);
        if made.is_ok() {
            let equal = multiplied.iter().zip(products(0)).all(|(found, expected)| same(*found, expected));
            assert!(equal, "{law:?} on {}", backend.name());
        }
        for (element, &x) in values.iter().enumerate() {
            let is_kept = mask::keeps(&kept, element);
            let (y, scale) = noise::alpha_dropout(x.into(), is_kept, p);
            let dx = noise::alpha_dropout_gradient(x.into(), is_kept, p);
            near(forward[element], y, scale, backend);
            near(backward[element], dx, dx.abs(), backend);
        }
    }
}

/// Panics unless a value is within 3 units of its scale of the exact one, NaN and infinities included.
fn near(found: f32, exact: f64, scale: f64, backend: Backend) {
    let off = (f64::from(found) - exact).abs();
    // Beyond the largest f32 by a rounding, or below the smallest normal one.
    let (largest, smallest) = (f64::from(f32::MAX) * (1.0 - 4e-7), f64::from(f32::from_bits(2)));
    let right = if exact.is_nan() {
        found.is_nan()
    } else if scale >= largest {
        found.is_infinite() || off <= 2e-7 * scale
    } else {
        off <= 3.0 * scale / f64::from(1 << 24) + smallest
    };
    assert!(right, "{found:e} is not {exact:e} on {}", backend.name());
}

/// Drops and clears the padding of sequences whose lengths come from the seed, one of them too large now and then, and
/// compares every bit and every value with the definition.
fn check_padding(config: Config, input: &MaskInput, elements: usize) {
    let mut random = SplitMix64::new(input.seed ^ input.first);
    let (channels, positions) = (1 + random.next_below(20), 1 + random.next_below(40));
    let samples = elements / (channels * positions);
    let lengths: Vec<usize> =
        (0..samples).map(|_| random.next_below(positions + 1) + usize::from(random.next_below(256) == 0)).collect();
    let too_long = lengths.iter().position(|&length| length > positions);
    let error = too_long.map(|sample| Error::SequenceLength { sample, positions, length: lengths[sample] });
    let last = Shape::nlc(samples, positions, channels).expect("the dimensions are small");
    let first = Shape::ncl(samples, channels, positions).expect("the dimensions are small");
    for shape in [last, first] {
        let layer = Layer::new(shape, normdrop::Identity, config).expect("the constants are valid");
        let mut mask = mask_memory(shape.len(), 0, Place::new(input.guard, input.misalign, 65));
        layer.fill_mask(input.seed, &mut mask).expect("the mask has its length");
        let drawn = mask.to_vec();
        let mut values = vec![f32::NAN; shape.len()];
        let results = [layer.drop_padding(&lengths, &mut mask), layer.clear_padding(&lengths, &mut values)];
        assert_eq!(results, [error.map_or(Ok(()), Err); 2]);
        for (element, value) in values.iter().enumerate() {
            let sample = element / (channels * positions);
            let position = if shape == last { element / channels } else { element } % positions;
            let padding = error.is_none() && position >= lengths[sample];
            assert_eq!(mask::keeps(&mask, element), mask::keeps(&drawn, element) && !padding, "{lengths:?}, {shape:?}");
            assert_eq!(value.to_bits(), if padding { 0 } else { f32::NAN.to_bits() }, "{lengths:?}, {shape:?}");
        }
    }
}

/// Compares a range of a mask with the reference's, or, where that would have to begin too far away, with a range of
/// the crate's own that begins where a seeding begins.
fn check_range(keep: Bernoulli, input: &MaskInput, elements: usize, drawn: &[u8]) {
    let first = input.first;
    let (skipped, longer) = if first <= MOST as u64 {
        let skipped = usize::try_from(first).expect("the first element is near");
        (skipped, mask::bytes(input.seed, keep.threshold(), skipped + elements))
    } else {
        let skipped = usize::try_from(first % BLOCK).expect("a remainder is small");
        let mut longer = vec![0; mask_len(skipped + elements)];
        keep.fill(input.seed, first - first % BLOCK, skipped + elements, &mut longer).expect("the mask has its length");
        (skipped, longer)
    };
    let expected: Vec<bool> = (skipped..skipped + elements).map(|element| mask::keeps(&longer, element)).collect();
    assert_eq!(drawn, mask::packed(&expected), "elements {first} to {first} + {elements}");
}

/// A generator that gives the fuzzer's words first.
#[derive(Debug, Clone)]
struct Words<'a> {
    words: std::slice::Iter<'a, u32>,
    then: SplitMix64,
}

impl TryRng for Words<'_> {
    type Error = Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Infallible> {
        let word = self.words.next().copied();
        Ok(word.unwrap_or_else(|| u32::try_from(self.then.next_u64() >> 32).expect("32 bits are left")))
    }

    fn try_next_u64(&mut self) -> Result<u64, Infallible> {
        let (low, high) = (self.try_next_u32()?, self.try_next_u32()?);
        Ok(u64::from(low) | u64::from(high) << 32)
    }

    fn try_fill_bytes(&mut self, bytes: &mut [u8]) -> Result<(), Infallible> {
        for byte in bytes {
            *byte = self.try_next_u32()?.to_le_bytes()[0];
        }
        Ok(())
    }
}

/// `Bernoulli::fill_with`, `Layer::fill_mask_with` and `seed_from`.
pub(crate) fn mask_with(input: &MaskWithInput) {
    let Some(keep) = bernoulli(input.p) else { return };
    let elements = usize::from(input.elements) % (MOST + 1);
    let rng = Words { words: input.words.iter(), then: SplitMix64::new(input.seed) };
    let memory = || mask_memory(elements, input.wrong, Place::new(input.guard, input.misalign, 65));

    let shape = Shape::nc(1, elements).expect("the dimensions are small");
    let config = Config { p: f64::from_bits(input.p), ..Config::DEFAULT };
    let layer = Layer::new(shape, normdrop::Identity, config).expect("the constants are valid");
    let (mut drawn, mut drawn_by_layer) = (memory(), memory());
    let mut used = rng.clone();
    let result = keep.fill_with(&mut used, elements, &mut drawn);
    let result_of_layer = layer.fill_mask_with(&mut rng.clone(), &mut drawn_by_layer).map(drop);
    assert_eq!((result, &*drawn), (result_of_layer, &*drawn_by_layer), "the layer draws something else");
    let mut expected_use = rng.clone();
    if filled(result, elements, &drawn) {
        let kept = expected_bits(keep.threshold(), elements, &mut expected_use);
        assert_eq!(*drawn, mask::packed(&kept));
    }
    // Neither more nor fewer words were taken than the contract says.
    assert_eq!(seed_from(&mut used), expected_use.try_next_u64().unwrap_or_default());
}

/// The binary expansion, one element at a time, with the words of a caller's generator.
fn expected_bits(threshold: u64, elements: usize, rng: &mut Words<'_>) -> Vec<bool> {
    if threshold == 0 || threshold == 1 << 32 {
        return vec![threshold != 0; elements];
    }
    let mut kept = Vec::new();
    while kept.len() < elements {
        let mut decisions = [None; 512];
        for place in (0..32).rev() {
            if threshold.is_multiple_of(1 << (place + 1)) || decisions.iter().all(Option::is_some) {
                break;
            }
            let threshold_bit = threshold >> place & 1;
            let words: [u32; 16] = std::array::from_fn(|_| rng.try_next_u32().unwrap_or_default());
            for (element, decision) in decisions.iter_mut().enumerate() {
                let random_bit = u64::from(words[element / 32] >> (element % 32) & 1);
                if decision.is_none() && random_bit != threshold_bit {
                    *decision = Some(random_bit < threshold_bit);
                }
            }
        }
        kept.extend(decisions.map(|decision| decision.unwrap_or(false)));
    }
    kept.truncate(elements);
    kept
}
