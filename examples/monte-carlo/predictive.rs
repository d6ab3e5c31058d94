//! The mean and the spread of many answers to one question.

use crate::data::CLASSES;

/// The distribution of the probabilities that a network gives each digit, over many masks.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Predictive {
    /// The predictive mean of each digit's probability.
    pub(crate) mean: [f32; CLASSES],
    /// Its standard deviation over the masks.
    pub(crate) deviation: [f32; CLASSES],
}

impl Predictive {
    /// Of probabilities `[masks, CLASSES]`.
    pub(crate) fn of(probabilities: &[f32]) -> Self {
        let (rows, _) = probabilities.as_chunks::<CLASSES>();
        let (mut mean, mut deviation) = ([0.0; CLASSES], [0.0; CLASSES]);
        for digit in 0..CLASSES {
            let values = rows.iter().map(|row| row[digit]);
            mean[digit] = values.clone().sum::<f32>() / rows.len() as f32;
            let squares: f32 = values.map(|value| (value - mean[digit]) * (value - mean[digit])).sum();
            deviation[digit] = (squares / (rows.len() as f32 - 1.0).max(1.0)).sqrt();
        }
        Self { mean, deviation }
    }

    /// The digit with the largest mean.
    pub(crate) fn digit(&self) -> usize {
        (0..CLASSES).max_by(|&a, &b| self.mean[a].total_cmp(&self.mean[b])).unwrap_or_default()
    }

    /// One number for all digits: the root of the sum of their variances.
    pub(crate) fn spread(&self) -> f32 {
        self.deviation.iter().map(|deviation| deviation * deviation).sum::<f32>().sqrt()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(probabilities: [(usize, f32); 2]) -> [f32; CLASSES] {
        let mut row = [0.0; CLASSES];
        for (digit, probability) in probabilities {
            row[digit] = probability;
        }
        row
    }

    #[test]
    fn mean_and_spread_of_masks_that_disagree() {
        let rows = [row([(3, 1.0), (8, 0.0)]), row([(3, 0.5), (8, 0.5)]), row([(3, 0.75), (8, 0.25)])].concat();
        let predictive = Predictive::of(&rows);
        assert_eq!(predictive.mean, row([(3, 0.75), (8, 0.25)]));
        assert_eq!(predictive.deviation, row([(3, 0.25), (8, 0.25)]));
        assert_eq!(predictive.digit(), 3);
        assert_eq!(predictive.spread(), (2.0f32 * 0.0625).sqrt());
    }

    #[test]
    fn masks_that_agree_and_a_single_mask_have_no_spread() {
        let agreed = row([(1, 0.25), (7, 0.75)]);
        for masks in [1, 4] {
            let predictive = Predictive::of(&agreed.repeat(masks));
            assert_eq!((predictive.mean, predictive.spread(), predictive.digit()), (agreed, 0.0, 7));
        }
    }
}
