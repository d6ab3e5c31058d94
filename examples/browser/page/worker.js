// Trains a network beside the page, so that the page stays responsive, and reports every epoch.
import init, { DigitsTraining } from "../pkg/normdrop.js";

const TRAIN_SAMPLES = 200;

async function train({ variant, seed, epochs }) {
  await init();
  const training = new DigitsTraining(variant, seed, TRAIN_SAMPLES);
  for (let epoch = 1; epoch <= epochs; epoch++) {
    training.epoch();
    postMessage({ epoch, loss: training.loss, accuracy: training.accuracy });
  }
  postMessage({ digest: training.digest() });
}

// An error inside an async function is no event of the worker's, so it is told like everything else.
onmessage = ({ data }) => train(data).catch((error) => postMessage({ error: String(error) }));
