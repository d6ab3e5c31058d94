// A program that uses the package by its types: checked by tsc in strict mode, then run by Node.js.
import { readFileSync } from "node:fs";
import { BatchNormDropout, DigitsTraining, initSync } from "normdrop-browser";

const close = (a: number, b: number): boolean => Math.abs(a - b) < 1e-6;
const check = (condition: boolean, what: string): void => {
  if (!condition) throw new Error(what);
};
const refused = (call: () => unknown, message: string): void => {
  try {
    call();
  } catch (error) {
    check(String(error).includes(message), `${error} does not say: ${message}`);
    return;
  }
  throw new Error(`not refused: ${message}`);
};

const file = new URL(import.meta.resolve("normdrop-browser/normdrop_bg.wasm"));
initSync({ module: readFileSync(file) });

const layer = new BatchNormDropout(3, 0.5);
const x = Float32Array.from({ length: 12 }, (_, index) => index);
const y: Float32Array = layer.train(1, 42n, x);
const dx: Float32Array = layer.backward(y);
check(y.length === 12 && dx.length === 12, "lengths");
check(y.some((value) => value > 0) && y.some((value) => value === 0), "some elements are dropped, some are not");
// A tenth of the means 4.5, 5.5 and 6.5.
check([0.45, 0.55, 0.65].every((mean, channel) => close(layer.runningMean[channel] ?? NaN, mean)), "running mean");
layer.setBias(new Float32Array([1, 2, 3]));
check(layer.bias[2] === 3 && layer.weight[0] === 1, "parameters");
const again = new BatchNormDropout(3, 0.5);
check(again.train(1, 42n, x).every((value, index) => value === y[index]), "the same seed, the same mask");
check(layer.evaluate(1, x).length === 12, "evaluation");

refused(() => new BatchNormDropout(3, 1.5), "p");
refused(() => layer.train(1, 1n, new Float32Array(13)), "no multiple of 3 channels");
refused(() => layer.setWeight(new Float32Array(2)), "weight has 2 elements, expected 3");
refused(() => layer.backward(new Float32Array(11)), "11");
refused(() => new DigitsTraining("none", 0, 200), "variant is 'none'");
refused(() => new DigitsTraining("plain", 0, 798), "trainSamples is 798");
console.log("browser: the package by its types, and 6 refusals");
