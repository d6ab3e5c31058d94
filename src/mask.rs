//! Dropout masks. Each bit is a pure function of `(seed, p, index)`.
//!
//! Bit `i % 8` of byte `i / 8` decides about element `i` in memory order, and 1 means kept: the
//! layout of `numpy.packbits(bitorder="little")` and of Arrow's bitmaps. Unused bits of the last
//! byte are written as 0 and never read.
//!
//! # How a bit is drawn
//! The keep probability is `T / 2^32` with `T = round((1 - p) * 2^32)`. An element compares a
//! uniform 32-bit number with `T`, one bit at a time from the most significant one, and stops at
//! the first bit that differs (Bernoulli by binary expansion; Knuth and Yao, *The complexity of
//! nonuniform random number generation*, 1976). A group of 512 elements does so at once, with one
//! random bit per element and step. It stops when all of its elements are decided or the rest of
//! `T` is zero: after one step for `p = 0.5`, after about ten for any other `p`.
//!
//! The random words come from sixteen xoshiro128++ generators side by side (Blackman and Vigna,
//! *Scrambled linear pseudorandom number generators*, 2021). A block of eight groups, 4096
//! elements, shares one seeding: the generator of lane `l` of block `b` is
//! `Xoshiro128PlusPlus::seed_from_u64(key + (16*b + l) * 2 * 0x9E3779B97F4A7C15)` where `key` is
//! the first output of `SplitMix64(seed)`, all modulo 2^64. So any block can be made alone, in any
//! order, by any thread, on any target.

use rand_core::Rng;

use crate::error::{Buffer, Error, check_len};
use crate::simd::{GOLDEN_GAMMA, Kernel, LANES, Lanes, Machine, Simd, splitmix64};
use crate::tasks::Tasks;

/// The number of elements of a group: one random word per lane has a bit for each of them.
const GROUP: usize = 32 * LANES;
/// The number of bytes of a group.
const GROUP_BYTES: usize = GROUP / 8;
/// The number of elements of a block, which shares one seeding.
pub(crate) const BLOCK: usize = 8 * GROUP;
/// The number of groups of a block.
const GROUPS_PER_BLOCK: u64 = (BLOCK / GROUP) as u64;
/// The weight of the keep probability 1: `2^32`.
const ONE: u64 = 1 << 32;

/// The number of bytes of a mask for `elements` elements.
#[must_use]
pub const fn mask_len(elements: usize) -> usize {
    elements.div_ceil(8)
}

/// The distribution of one mask bit, for a probability `p` to drop.
///
/// ```
/// use normdrop::{Bernoulli, mask_len};
/// const KEEP: Bernoulli = match Bernoulli::new(0.1) {
///     Ok(keep) => keep,
///     Err(_) => panic!("p is a probability"),
/// };
/// let mut whole = [0; mask_len(10_000)];
/// KEEP.fill(42, 0, 10_000, &mut whole)?;
///
/// // Any range can be made alone.
/// let mut part = [0; mask_len(1_000)];
/// KEEP.fill(42, 4_000, 1_000, &mut part)?;
/// assert_eq!(part, whole[500..625]);
/// # Ok::<(), normdrop::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Bernoulli {
    /// `T`: the keep probability times 2^32.
    threshold: u64,
}

impl Bernoulli {
    /// The distribution that drops with probability `p`, rounded to a multiple of `2^-32`.
    ///
    /// # Errors
    /// [`Error::Probability`] if `p` is not in `[0, 1]`.
    pub const fn new(p: f64) -> Result<Self, Error> {
        // Integers alone, because a constant function cannot set the floating-point environment.
        // The bits of positive numbers are in the order of the numbers.
        const CERTAIN: u64 = 1.0_f64.to_bits();
        const NEGATIVE_ZERO: u64 = (-0.0_f64).to_bits();
        match p.to_bits() {
            0..CERTAIN | NEGATIVE_ZERO => {}
            CERTAIN => return Ok(Self { threshold: 0 }),
            _ => return Err(Error::Probability { p }),
        }
        // `1 - p`, rounded to nearest even, in units of 2^-53, the last place of an f64 above 0.5. A
        // `1 - p` that is not above 0.5 is exact.
        let left = (1 << f64::MANTISSA_DIGITS) - multiple_of_last_place(p);
        // `left` is rounded to a multiple of 2^-32, halves up.
        const DROPPED: u32 = f64::MANTISSA_DIGITS - 32;
        Ok(Self { threshold: (left + (1 << (DROPPED - 1))) >> DROPPED })
    }

    /// `T`, the keep probability times 2^32, between 0 and 2^32.
    #[must_use]
    pub const fn threshold(self) -> u64 {
        self.threshold
    }

    /// The keep probability, exactly.
    #[must_use]
    pub const fn keep_probability(self) -> f64 {
        self.threshold as f64 / ONE as f64
    }

    /// The factor of kept elements: the f32 nearest to `2^32 / T`, or 0 if everything is dropped.
    #[must_use]
    pub const fn scale(self) -> f32 {
        if self.threshold == 0 {
            return 0.0;
        }
        // The quotient with at least 26 bits and a sticky last bit: rounding it to f32 rounds only
        // once. It is rounded here, because the conversion would round as the caller's
        // floating-point environment says.
        let quotient = (ONE << 27) / self.threshold;
        let quotient = quotient | (!(ONE << 27).is_multiple_of(self.threshold)) as u64;
        let dropped = u64::BITS - quotient.leading_zeros() - f32::MANTISSA_DIGITS;
        let mantissa = shifted_to_nearest_even(quotient, dropped);
        // The quotient is in units of 2^-27. The first bit of the mantissa adds 1 to the exponent.
        const EXPONENT: u32 = 127 - 27 + (f32::MANTISSA_DIGITS - 1) - 1;
        #[expect(clippy::cast_possible_truncation, reason = "at most 2^24")]
        let mantissa = mantissa as u32;
        f32::from_bits(((EXPONENT + dropped) << (f32::MANTISSA_DIGITS - 1)) + mantissa)
    }

    /// Writes the bits of `elements` elements from element `first` on. The first bit of `mask`
    /// decides about element `first`.
    ///
    /// # Errors
    /// [`Error::Length`] if `mask` does not have [`mask_len`]`(elements)` bytes.
    pub fn fill(self, seed: u64, first: u64, elements: usize, mask: &mut [u8]) -> Result<(), Error> {
        self.fill_on(Tasks { backend: None, count: 1 }, seed, first, elements, mask)
    }

    pub(crate) fn fill_on(
        self,
        tasks: Tasks,
        seed: u64,
        first: u64,
        elements: usize,
        mask: &mut [u8],
    ) -> Result<(), Error> {
        check_len(Buffer::Mask, mask_len(elements), mask.len())?;
        if !self.fill_certain(elements, mask) {
            let (threshold, key) = (self.rest(), splitmix64(seed, 1));
            // Each task takes whole blocks, so that no task repeats the draws of another one. The
            // division by 2: a bit of a mask takes less than half the time of an element of a call.
            let step = match tasks.for_elements(elements / 2) {
                1 => elements,
                tasks => elements.div_ceil(tasks).next_multiple_of(BLOCK),
            };
            let pieces = mask.chunks_mut(mask_len(step).max(1)).enumerate();
            tasks.each(pieces, |(number, mask)| {
                let (skipped, elements) = (number * step, step.min(elements - number * step));
                let first = first.wrapping_add(skipped as u64);
                tasks.run(Fill { threshold, key, first, elements, mask });
            });
        }
        Ok(())
    }

    /// Writes the bits of `elements` elements with words of the caller's own generator, for example
    /// one in hardware.
    ///
    /// The binary expansion is the same as in [`Bernoulli::fill`]. Each step takes sixteen words of
    /// 32 bits, and bit `k` of word `l` decides about element `32*l + k` of the group of 512
    /// elements.
    ///
    /// # Errors
    /// [`Error::Length`] if `mask` does not have [`mask_len`]`(elements)` bytes.
    pub fn fill_with(self, rng: &mut impl Rng, elements: usize, mask: &mut [u8]) -> Result<(), Error> {
        check_len(Buffer::Mask, mask_len(elements), mask.len())?;
        if !self.fill_certain(elements, mask) {
            for bytes in mask.chunks_mut(GROUP_BYTES) {
                let mut keep = [0; LANES];
                let mut undecided = [u32::MAX; LANES];
                let mut rest = self.rest();
                while rest != 0 && undecided != [0; LANES] {
                    let kept_below = rest >> 31 == 1;
                    for (keep, undecided) in keep.iter_mut().zip(&mut undecided) {
                        let random = rng.next_u32();
                        if kept_below {
                            *keep |= *undecided & !random;
                            *undecided &= random;
                        } else {
                            *undecided &= !random;
                        }
                    }
                    rest <<= 1;
                }
                for (byte, drawn) in bytes.iter_mut().zip(keep.into_iter().flat_map(u32::to_le_bytes)) {
                    *byte = drawn;
                }
            }
            clear_unused(elements, mask);
        }
        Ok(())
    }

    /// Fills the mask if `T` is 0 or 2^32, which needs no randomness, and says whether it did.
    fn fill_certain(self, elements: usize, mask: &mut [u8]) -> bool {
        match self.threshold {
            0 => mask.fill(0),
            ONE => {
                mask.fill(0xFF);
                clear_unused(elements, mask);
            }
            _ => return false,
        }
        true
    }

    /// The bits of `T`, most significant first, when `T` is below 2^32.
    #[expect(clippy::cast_possible_truncation, reason = "T = 2^32 was handled before")]
    const fn rest(self) -> u32 {
        self.threshold as u32
    }
}

/// `value * 2^53`, rounded to nearest even, for a `value` from 0 to 1 without 1 itself.
const fn multiple_of_last_place(value: f64) -> u64 {
    const FRACTION: u32 = f64::MANTISSA_DIGITS - 1;
    let bits = value.to_bits() & !(1 << 63);
    let exponent = (bits >> FRACTION) as u32;
    // The number is `mantissa * 2^(exponent - 1022 - 53)`. A subnormal number is not, but it is far
    // below half a unit, as is the number that is made of its bits here.
    let mantissa = bits & ((1 << FRACTION) - 1) | 1 << FRACTION;
    shifted_to_nearest_even(mantissa, 1022_u32.saturating_sub(exponent))
}

/// `value / 2^places`, rounded to nearest even.
const fn shifted_to_nearest_even(value: u64, places: u32) -> u64 {
    if places == 0 {
        return value;
    }
    if places > u64::BITS - 2 {
        return 0;
    }
    let (whole, rest, half) = (value >> places, value & ((1 << places) - 1), 1 << (places - 1));
    whole + (rest > half || rest == half && whole % 2 == 1) as u64
}

/// Draws a seed from the caller's generator.
#[must_use]
pub fn seed_from(rng: &mut impl Rng) -> u64 {
    rng.next_u64()
}

/// The seed of one mask of a training run, from the run's one seed: a pure function of `root`, the
/// number of the layer, the step and the rank.
///
/// A layer needs another mask at every step, and two layers need different masks at the same step.
/// A sum of the numbers does not give different masks: with `root + layer + step`, layer 1 has at
/// step 0 the mask that layer 0 has at step 1. The seeds here come from `SplitMix64` (Steele, Lea
/// and Flood, *Fast splittable pseudorandom number generators*, 2014), applied three times, modulo
/// 2^64:
/// ```text
/// seed_for(root, layer, step, rank) = next(next(next(root, layer), step), rank)
/// next(seed, n) = mix(seed + (n + 1)*0x9E3779B97F4A7C15)          output n + 1 of SplitMix64(seed)
/// mix(z): z = (z ^ z >> 30)*0xBF58476D1CE4E5B9; z = (z ^ z >> 27)*0x94D049BB133111EB; z ^ z >> 31
/// ```
/// `next` is a bijection in each of its arguments, so that calls which differ in one number alone
/// never give the same seed. Two calls that differ in several numbers give the same seed with a
/// probability of about `2^-64`, as any two random numbers of 64 bits do.
///
/// `rank` is the number of the machine, thread or replica that draws a mask of its own. Ranks that
/// must drop the same elements (tensor-parallel replicas of one activation) pass the same number.
/// Pass 0 for a number that the program does not have. The forward and the backward call of a step
/// need the same seed: pass the same numbers again.
///
/// ```
/// use normdrop::seed_for;
///
/// let (root, rank) = (42, 0);
/// for step in 0..100 {
///     let (first, second) = (seed_for(root, 0, step, rank), seed_for(root, 1, step, rank));
///     assert_ne!(first, second);
/// }
///
/// // The values are frozen, as the masks are: a run can be repeated with any later version.
/// assert_eq!(seed_for(42, 3, 1000, 7), 0xA1F2_A979_A516_9AD1);
/// ```
#[must_use]
pub const fn seed_for(root: u64, layer: u64, step: u64, rank: u64) -> u64 {
    splitmix64(splitmix64(splitmix64(root, layer.wrapping_add(1)), step.wrapping_add(1)), rank.wrapping_add(1))
}

/// Clears the bits of the last byte that belong to no element.
fn clear_unused(elements: usize, mask: &mut [u8]) {
    if let (used @ 1.., Some(last)) = (elements % 8, mask.last_mut()) {
        *last &= (1 << used) - 1;
    }
}

/// Sixteen xoshiro128++ generators side by side.
pub(crate) struct Generators {
    state: [Lanes<u32>; 4],
}

impl Generators {
    /// The generators of block number `block`, of 4096 elements.
    #[inline(always)]
    pub(crate) fn seeded<M: Machine>(m: M, key: u64, block: u64) -> Self {
        // The SplitMix64 sequence of lane `l` is the sequence of `key`, `2*l` outputs further on.
        // SplitMix64 never repeats an output, so the two outputs of a state are not both zero and
        // the state is valid.
        let outputs_before = block.wrapping_mul(2 * LANES as u64);
        let mut state = [[0; LANES]; 4];
        m.states(key.wrapping_add(outputs_before.wrapping_mul(GOLDEN_GAMMA)), &mut state);
        Self { state }
    }

    /// The state, word by word.
    #[inline(always)]
    pub(crate) fn words<S: Simd>(&self, s: S) -> [S::U32; 4] {
        let [w0, w1, w2, w3] = &self.state;
        [s.load_u32(w0), s.load_u32(w1), s.load_u32(w2), s.load_u32(w3)]
    }

    /// The keep bits of the next group.
    #[inline(always)]
    fn group<M: Machine>(&mut self, m: M, threshold: u32) -> Lanes<u32> {
        let (mut keep, mut undecided) = ([0; LANES], [u32::MAX; LANES]);
        if let Some(s) = m.all() {
            let mut state = self.words(s);
            s.store_u32(draw_group(s, threshold, &mut state), &mut keep);
            for (words, state) in self.state.iter_mut().zip(state) {
                s.store_u32(state, words);
            }
            return keep;
        }
        let mut rest = threshold;
        while rest != 0 {
            let mut decided = true;
            for s in m.each(LANES) {
                let mut state = self.words(s);
                let (kept, open) = draw(s, rest, &mut state, s.load_u32(&keep), s.load_u32(&undecided));
                for (words, state) in self.state.iter_mut().zip(state) {
                    s.store_u32(state, words);
                }
                s.store_u32(kept, &mut keep);
                s.store_u32(open, &mut undecided);
                decided &= s.is_zero(open);
            }
            rest <<= 1;
            if decided {
                break;
            }
        }
        keep
    }
}

/// The keep bits of a group, with the state in registers.
#[inline(always)]
fn draw_group<S: Simd>(s: S, threshold: u32, state: &mut [S::U32; 4]) -> S::U32 {
    let (mut rest, mut kept, mut open) = (threshold, s.splat_u32(0), s.splat_u32(u32::MAX));
    while rest != 0 {
        (kept, open) = draw(s, rest, state, kept, open);
        rest <<= 1;
        if s.is_zero(open) {
            break;
        }
    }
    kept
}

/// Writes the bytes of all groups of a block.
#[inline(always)]
fn draw_block<M: Machine>(m: M, s: M::Simd, threshold: u32, (key, block): (u64, u64), mask: &mut [u8; BLOCK / 8]) {
    let mut state = Generators::seeded(m, key, block).words(s);
    for bytes in mask.as_chunks_mut::<GROUP_BYTES>().0 {
        let mut keep = [0; LANES];
        s.store_u32(draw_group(s, threshold, &mut state), &mut keep);
        *bytes = little_endian(keep);
    }
}

/// The bytes of words in the order of a mask: little-endian on every target.
#[inline(always)]
fn little_endian(words: Lanes<u32>) -> [u8; GROUP_BYTES] {
    let mut bytes = [0; GROUP_BYTES];
    for (bytes, word) in bytes.as_chunks_mut::<4>().0.iter_mut().zip(words) {
        *bytes = word.to_le_bytes();
    }
    bytes
}

/// The next word of every generator.
#[inline(always)]
pub(crate) fn next_word<S: Simd>(s: S, state: &mut [S::U32; 4]) -> S::U32 {
    let [s0, s1, s2, s3] = *state;
    let word = s.rotate_left::<7>(s0 + s3) + s0;
    let (s2, s3) = (s2 ^ s0, s3 ^ s1);
    *state = [s0 ^ s3, s1 ^ s2, s2 ^ s.shift_left::<9>(s1), s.rotate_left::<11>(s3)];
    word
}

/// One step, for the most significant bit of `rest`, the bits of `T` that are left. It returns the
/// elements that are kept and the elements that are undecided after the next random word.
#[inline(always)]
fn draw<S: Simd>(s: S, rest: u32, state: &mut [S::U32; 4], kept: S::U32, open: S::U32) -> (S::U32, S::U32) {
    let word = next_word(s, state);
    if rest >> 31 == 1 { (kept | s.without(open, word), open & word) } else { (kept, s.without(open, word)) }
}

/// The groups of a mask in order, from any group on.
struct Groups<M: Machine> {
    m: M,
    threshold: u32,
    key: u64,
    /// The number of the next group.
    next: u64,
    generators: Generators,
}

impl<M: Machine> Groups<M> {
    #[inline(always)]
    fn starting_at(m: M, threshold: u32, key: u64, group: u64) -> Self {
        let mut generators = Generators::seeded(m, key, group / GROUPS_PER_BLOCK);
        for _ in 0..group % GROUPS_PER_BLOCK {
            let _ = generators.group(m, threshold);
        }
        Self { m, threshold, key, next: group, generators }
    }

    /// The bytes of the next group.
    #[inline(always)]
    fn bytes(&mut self) -> [u8; GROUP_BYTES] {
        let words = self.generators.group(self.m, self.threshold);
        self.next = self.next.wrapping_add(1);
        if self.next.is_multiple_of(GROUPS_PER_BLOCK) {
            self.generators = Generators::seeded(self.m, self.key, self.next / GROUPS_PER_BLOCK);
        }
        little_endian(words)
    }
}

struct Fill<'a> {
    threshold: u32,
    key: u64,
    first: u64,
    elements: usize,
    mask: &'a mut [u8],
}

impl Kernel for Fill<'_> {
    #[inline(always)]
    fn run<M: Machine>(self, m: M) {
        // Groups are counted, not elements, because `first + elements` may be larger than a u64.
        let (mut group, mut mask) = (self.first / GROUP as u64, &mut *self.mask);
        if let Some(s) = m.all()
            && self.first.is_multiple_of(BLOCK as u64)
        {
            let (blocks, rest) = mask.as_chunks_mut();
            for bytes in blocks {
                draw_block(m, s, self.threshold, (self.key, group / GROUPS_PER_BLOCK), bytes);
                group += GROUPS_PER_BLOCK;
            }
            mask = rest;
        }
        if !mask.is_empty() {
            draw_groups(Groups::starting_at(m, self.threshold, self.key, group), self.first, mask);
        }
        clear_unused(self.elements, self.mask);
    }
}

/// Fills `mask`, whose first bit belongs to element `first` of the group at which `groups` stands.
/// `first` counts modulo 512.
#[inline(always)]
#[expect(clippy::cast_possible_truncation, reason = "positions inside a group")]
fn draw_groups<M: Machine>(mut groups: Groups<M>, first: u64, mask: &mut [u8]) {
    let skip = (first % GROUP as u64) as usize / 8;
    let shift = (first % 8) as usize;
    if shift == 0 {
        let (head, tail) = if skip == 0 {
            (&mut [][..], mask)
        } else {
            let head = mask.len().min(GROUP_BYTES - skip);
            mask.split_at_mut_checked(head).unwrap_or_default()
        };
        if !head.is_empty() {
            copy(&groups.bytes(), skip, head);
        }
        for bytes in tail.chunks_mut(GROUP_BYTES) {
            let drawn = groups.bytes();
            match <&mut [u8; GROUP_BYTES]>::try_from(&mut *bytes) {
                Ok(bytes) => *bytes = drawn,
                Err(_) => copy(&drawn, 0, bytes),
            }
        }
    } else {
        // Every byte of the mask takes the upper bits of one drawn byte and the lower bits of the
        // next.
        let mut drawn = groups.bytes();
        let mut position = skip;
        let mut low = 0;
        for byte in [&mut 0].into_iter().chain(mask.iter_mut()) {
            if position == GROUP_BYTES {
                position = 0;
                drawn = groups.bytes();
            }
            let high = drawn.get(position).copied().unwrap_or(0);
            position += 1;
            *byte = low >> shift | high << (8 - shift);
            low = high;
        }
    }
}

/// Copies `bytes` from position `from` on into `to`, as far as both reach.
#[inline(always)]
fn copy(bytes: &[u8; GROUP_BYTES], from: usize, to: &mut [u8]) {
    for (to, &byte) in to.iter_mut().zip(bytes.iter().skip(from)) {
        *to = byte;
    }
}

#[cfg(test)]
mod tests {
    use super::{Bernoulli, ONE};

    /// The formulas of the threshold and of the scale in floats, in the default environment.
    #[test]
    fn mask_contract_threshold_and_scale_by_integers_are_those_of_floats() {
        let mut state = 1_u64;
        let mut random = || {
            state = crate::simd::splitmix64(state, 1);
            state
        };
        for round in 0..2_000_000 {
            let random = random();
            let p = match round % 4 {
                0 => (random >> 11) as f64 * 0.5_f64.powi(53),
                1 => f64::from_bits(random % (1.0_f64.to_bits() + 1)),
                // Halves of a unit and their neighbours.
                2 => f64::from_bits(((2 * (random >> 32) + 1) as f64 * 0.5_f64.powi(33)).to_bits() + random % 3 - 1),
                _ => (random % 4097) as f64 / 4096.0,
            };
            let exact = (1.0 - p) * ONE as f64;
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "between 0 and 2^32")]
            let threshold = exact as u64 + u64::from(exact.fract() >= 0.5);
            let keep = Bernoulli::new(p).unwrap();
            assert_eq!(keep.threshold(), threshold, "p = {p:e}");
            // The quotient with a sticky last bit, rounded once.
            let scale = (ONE << 27).checked_div(threshold).map_or(0.0, |quotient| {
                let sticky = u64::from(!(ONE << 27).is_multiple_of(threshold));
                (quotient | sticky) as f32 / (1_u32 << 27) as f32
            });
            assert_eq!(keep.scale(), scale, "p = {p:e}");
        }
    }
}
