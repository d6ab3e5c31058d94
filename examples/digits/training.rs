//! One training run, and many of them side by side.

use std::sync::Mutex;
use std::thread;

use normdrop::Error;
use rand_xoshiro::Xoshiro128PlusPlus;
use rand_xoshiro::rand_core::SeedableRng;

use crate::data::{Samples, shuffled};
use crate::linear::Adam;
use crate::network::{Network, Variant};

/// The images of one step. A rest of an epoch that does not fill a batch is left out, so that every batch has the same
/// statistics behind it.
pub(crate) const BATCH: usize = 20;
/// The learning rate of every variant.
const RATE: f32 = 1e-3;

/// What a run depends on.
#[derive(Clone, Copy)]
pub(crate) struct Plan {
    pub(crate) variant: Variant,
    /// The widths of the hidden layers.
    pub(crate) hidden: &'static [usize],
    /// Chooses the images, the first weights, the order of the images and the masks; the same for all variants.
    pub(crate) seed: u32,
    pub(crate) epochs: u32,
    pub(crate) train_samples: usize,
}

/// What came of a run.
pub(crate) struct Run {
    /// The mean training loss of each epoch, as the optimiser saw it: with dropout.
    pub(crate) loss: Vec<f64>,
    /// The share of right answers on the test images after each epoch.
    pub(crate) accuracy: Vec<f64>,
    /// The final values of all that was learned.
    pub(crate) weights: Vec<f32>,
}

impl Plan {
    /// Trains, calling `after_epoch` each time.
    pub(crate) fn run(self, images: &Samples, after_epoch: impl Fn()) -> Result<Run, Error> {
        let (_, run, _) = self.train(images, after_epoch)?;
        Ok(run)
    }

    /// Trains, and gives back the network and the images that it has not seen as well.
    pub(crate) fn train(self, images: &Samples, after_epoch: impl Fn()) -> Result<(Network, Run, Samples), Error> {
        let mut rng = Xoshiro128PlusPlus::seed_from_u64(self.seed.into());
        let (train, test) = images.split(&mut rng, self.train_samples);
        let mut network = Network::new(self.variant, self.hidden, &mut rng)?;
        let mut adam = Adam::new(RATE);
        let (mut loss, mut accuracy) = (Vec::new(), Vec::new());
        let mut step = 0;
        for _ in 0..self.epochs {
            let order = shuffled(&mut rng, train.len());
            let batches = order.chunks_exact(BATCH);
            let count = batches.len();
            let mut sum = 0.0;
            for batch in batches {
                // Seeds that differ in any bit give unrelated masks, so run, step and block are simply packed.
                let mask_seed = u64::from(self.seed) << 40 | step << 8;
                sum += network.gradients(train.pick(batch), mask_seed)?;
                adam.advance();
                network.parameters().for_each(|parameter| adam.update(parameter));
                step += 1;
            }
            loss.push(sum / count as f64);
            accuracy.push(network.accuracy(&test)?);
            after_epoch();
        }
        let weights = network.parameters().flat_map(|parameter| &*parameter.value).copied().collect();
        Ok((network, Run { loss, accuracy, weights }, test))
    }
}

/// Runs the plans on some threads. A run happens on one thread and the results come in the order of the plans, so
/// that the number of threads changes nothing.
pub(crate) fn run_all(
    plans: &[Plan],
    threads: usize,
    images: &Samples,
    after_epoch: impl Fn() + Sync,
) -> Result<Vec<Run>, Error> {
    let waiting = Mutex::new(plans.iter().enumerate());
    let work = || {
        let mut done = Vec::new();
        loop {
            let next = waiting.lock().expect("no thread panics while it takes a plan").next();
            match next {
                Some((index, plan)) => done.push((index, plan.run(images, &after_epoch))),
                None => return done,
            }
        }
    };
    let mut runs: Vec<(usize, Result<Run, Error>)> = thread::scope(|scope| {
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        workers.into_iter().flat_map(|worker| worker.join().expect("a training run does not panic")).collect()
    });
    runs.sort_by_key(|&(index, _)| index);
    runs.into_iter().map(|(_, run)| run).collect()
}
