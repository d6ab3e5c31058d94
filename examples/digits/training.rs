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
    /// [`Network::variance_shift`] on the training images, at the end.
    pub(crate) variance_shift: f64,
}

impl Plan {
    /// Trains, calling `after_epoch` each time.
    pub(crate) fn run(self, images: &Samples, after_epoch: impl Fn()) -> Result<Run, Error> {
        let (_, run, _) = self.train(images, after_epoch)?;
        Ok(run)
    }

    /// Trains, and gives back the network and the images that it has not seen as well.
    pub(crate) fn train(self, images: &Samples, after_epoch: impl Fn()) -> Result<(Network, Run, Samples), Error> {
        let mut training = Training::new(self, images)?;
        let (mut loss, mut accuracy) = (Vec::new(), Vec::new());
        for _ in 0..self.epochs {
            let epoch = training.epoch()?;
            loss.push(epoch.loss);
            accuracy.push(epoch.accuracy);
            after_epoch();
        }
        let weights = training.weights();
        let variance_shift = training.network.variance_shift(&training.train.pixels)?;
        Ok((training.network, Run { loss, accuracy, weights, variance_shift }, training.test))
    }
}

/// What came of one epoch: see [`Run`].
pub(crate) struct Epoch {
    pub(crate) loss: f64,
    pub(crate) accuracy: f64,
}

/// A run between two epochs.
pub(crate) struct Training {
    seed: u32,
    rng: Xoshiro128PlusPlus,
    network: Network,
    adam: Adam,
    train: Samples,
    test: Samples,
    /// The steps so far.
    step: u64,
}

impl Training {
    /// A run before its first epoch. How many epochs the plan has is of no importance here.
    pub(crate) fn new(plan: Plan, images: &Samples) -> Result<Self, Error> {
        let mut rng = Xoshiro128PlusPlus::seed_from_u64(plan.seed.into());
        let (train, test) = images.split(&mut rng, plan.train_samples);
        let network = Network::new(plan.variant, plan.hidden, &mut rng)?;
        Ok(Self { seed: plan.seed, rng, network, adam: Adam::new(RATE), train, test, step: 0 })
    }

    /// One pass over the training images.
    pub(crate) fn epoch(&mut self) -> Result<Epoch, Error> {
        let order = shuffled(&mut self.rng, self.train.len());
        let batches = order.chunks_exact(BATCH);
        let count = batches.len();
        let mut sum = 0.0;
        for batch in batches {
            // Seeds that differ in any bit give unrelated masks, so run, step and block are simply packed.
            let mask_seed = u64::from(self.seed) << 40 | self.step << 8;
            sum += self.network.gradients(self.train.pick(batch), mask_seed)?;
            self.adam.advance();
            self.network.parameters().for_each(|parameter| self.adam.update(parameter));
            self.step += 1;
        }
        Ok(Epoch { loss: sum / count as f64, accuracy: self.network.accuracy(&self.test)? })
    }

    /// All that is learned, in a fixed order.
    pub(crate) fn weights(&mut self) -> Vec<f32> {
        self.network.parameters().flat_map(|parameter| &*parameter.value).copied().collect()
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
