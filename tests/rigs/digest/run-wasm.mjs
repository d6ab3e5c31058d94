// Runs the program, a WebAssembly module, with the one function that it asks of its host.
import { readFile } from 'node:fs/promises';

const { instance } = await WebAssembly.instantiate(await readFile(process.argv[2]), {
  host: {
    print(text, len) {
      process.stdout.write(new Uint8Array(instance.exports.memory.buffer.slice(text, text + len)));
    },
  },
});
process.exitCode = instance.exports.digest();
