// Opens the page in a headless Chromium and trains every variant there. Fails if a digest is not the desktop's, if the
// curves do not have a point for each epoch, or if the page reports an error.
//
// Usage: node test/page.mjs DESKTOP SCREENSHOT    DESKTOP has the lines that the program `desktop` printed just now
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { createServer } from "node:http";
import { chromium } from "playwright-core";
import sirv from "sirv";

const [desktop, screenshot] = process.argv.slice(2);
const digests = readFileSync(desktop, "utf8").trim().split("\n").map((line) => {
  const [seed, digest, accuracy, ...variant] = line.split(" ");
  return { seed, digest, accuracy, variant: variant.join(" ") };
});

// The pixels on the plot in the colour of the loss and in that of the accuracy.
const drawn = (page) => page.evaluate(() => {
  const canvas = document.querySelector("canvas");
  const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
  const count = (red, green, blue) => {
    let pixels = 0;
    for (let at = 0; at < data.length; at += 4) pixels += data[at] === red && data[at + 1] === green && data[at + 2] === blue;
    return pixels;
  };
  return [count(0xb3, 0x47, 0), count(0, 0x57, 0xb3)];
});

const server = createServer(sirv(".", { dev: true }));
await new Promise((ready) => server.listen(0, "127.0.0.1", ready));
// Root, as CI's user may be, has no sandbox. The page is ours.
const browser = await chromium.launch({ executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium", args: ["--no-sandbox"] });
try {
  const page = await browser.newPage({ viewport: { width: 800, height: 900 } });
  const errors = [];
  page.on("pageerror", (error) => errors.push(error));
  await page.goto(`http://127.0.0.1:${server.address().port}/`);
  // The first seed of each variant, and every seed of the usual one.
  const runs = digests.filter(({ seed, variant }) => seed === "0" || variant === "batch norm + dropout");
  assert.equal(runs.length, 7);
  await page.waitForSelector("canvas");
  const axes = await drawn(page);
  for (const { seed, digest, accuracy, variant } of runs) {
    await page.selectOption("[name=variant]", variant);
    await page.selectOption("[name=seed]", seed);
    await page.click("button");
    await page.waitForFunction(() => document.querySelector("#verdict").textContent !== "", undefined, { timeout: 120_000 });
    const shown = await page.evaluate(() => Object.fromEntries(
      ["epoch", "accuracy", "here", "desktop", "verdict"].map((id) => [id, document.getElementById(id).textContent])));
    assert.deepEqual(shown, { epoch: "60", accuracy: `${accuracy} %`, here: digest, desktop: digest,
      verdict: "The same bits as on the desktop." });
    const curves = await drawn(page);
    assert.ok(curves.every((pixels, index) => pixels > axes[index] + 300), `pixels of the curves: ${curves}, of axes: ${axes}`);
    console.log(`browser: ${variant}, seed ${seed}: ${shown.here}, ${shown.accuracy}, as on the desktop`);
    if (variant === "batch norm + dropout" && seed === "0") await page.screenshot({ path: screenshot });
  }
  assert.deepEqual(errors, []);
  console.log(`browser: ${runs.length} networks trained in Chromium ${browser.version()}`);
} finally {
  await browser.close();
  server.close();
}
