// The form, the plot, and the digest beside that of the desktop.
import uPlot from "../node_modules/uplot/dist/uPlot.esm.js";

const EPOCHS = 60;
const find = (selector) => document.querySelector(selector);
const form = find("form");
const { variant, seed } = form.elements;
const button = find("button");
const verdict = find("#verdict");

// Lines of `seed digest accuracy variant`, printed by the program `desktop`.
const desktop = new Map();
for (const line of (await (await fetch("desktop.txt")).text()).trim().split("\n")) {
  const [seed, digest, , ...variant] = line.split(" ");
  desktop.set(`${seed} ${variant.join(" ")}`, digest);
}
const keys = [...desktop.keys()].map((key) => [key.slice(0, key.indexOf(" ")), key.slice(key.indexOf(" ") + 1)]);
for (const name of new Set(keys.map(([, variant]) => variant))) variant.add(new Option(name, name));
for (const number of new Set(keys.map(([seed]) => seed))) seed.add(new Option(number, number));
variant.value = "batch norm + dropout";

const plot = new uPlot({
  width: Math.min(700, document.body.clientWidth),
  height: 320,
  scales: { x: { time: false, range: [1, EPOCHS] }, loss: { range: [0, 3] }, accuracy: { range: [0, 100] } },
  axes: [
    { label: "epoch" },
    { scale: "loss", label: "training loss", stroke: "#b34700" },
    { scale: "accuracy", label: "test accuracy, %", stroke: "#0057b3", side: 1, grid: { show: false } },
  ],
  series: [
    { label: "epoch" },
    { scale: "loss", label: "training loss", stroke: "#b34700", width: 2, value: (_, value) => value?.toFixed(4) ?? "-" },
    { scale: "accuracy", label: "test accuracy", stroke: "#0057b3", width: 2,
      value: (_, value) => (value == null ? "-" : `${value.toFixed(1)} %`) },
  ],
}, [[], [], []], find("#plot"));

function fail(message) {
  verdict.className = "other";
  verdict.textContent = `error: ${message}`;
  button.disabled = false;
}

function train() {
  const expected = desktop.get(`${seed.value} ${variant.value}`);
  const curves = [[], [], []];
  button.disabled = true;
  verdict.className = verdict.textContent = "";
  find("#here").textContent = "-";
  find("#desktop").textContent = expected;
  const worker = new Worker(new URL("worker.js", import.meta.url), { type: "module" });
  worker.onerror = (event) => fail(event.message || "the worker did not start: is there a folder pkg?");
  worker.onmessage = ({ data }) => {
    if (data.error !== undefined) {
      fail(data.error);
      return;
    }
    if (data.digest === undefined) {
      curves[0].push(data.epoch);
      curves[1].push(data.loss);
      curves[2].push(100 * data.accuracy);
      plot.setData(curves);
      find("#epoch").textContent = data.epoch;
      find("#loss").textContent = data.loss.toFixed(4);
      find("#accuracy").textContent = `${(100 * data.accuracy).toFixed(1)} %`;
      return;
    }
    const same = data.digest === expected;
    find("#here").textContent = data.digest;
    verdict.className = same ? "same" : "other";
    verdict.textContent = same ? "The same bits as on the desktop." : "These are not the bits of the desktop.";
    button.disabled = false;
    worker.terminate();
  };
  worker.postMessage({ variant: variant.value, seed: Number(seed.value), epochs: EPOCHS });
}

form.addEventListener("submit", (event) => {
  event.preventDefault();
  train();
});
