// The daemon in few files, so that a restart is short: Node reads 230 small modules in 165 ms, one big one in 30. Reads dist/src (tsc), writes dist/bundle.
//
//   tapvsd.js      what runs first (cli/tapvsd.ts) and, in a part of its own that is loaded later, the rest of the main thread
//   worker.cjs     starts the data worker from …
//   engine.cjs     … all of it in one script, and
//   engine.cache   that script as V8 has compiled it once it has forwarded (engine/warm-up.ts): another version of Node does not take it, and compiles
import { execFileSync } from 'node:child_process';
import { readFileSync, rmSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { rolldown } from 'rolldown';

const dist = join(dirname(fileURLToPath(import.meta.url)), '..', 'dist');
const out = join(dist, 'bundle');
/** Compiled from C, or not always installed. */
const external = ['netlink', 'raw-socket', 'pino-pretty'];

const WORKER = `// Runs engine.cjs, without compiling it where engine.cache fits.
const { readFileSync } = require('node:fs');
const { join } = require('node:path');
const { Script } = require('node:vm');
const filename = join(__dirname, 'engine.cjs');
const read = (name) => {
  try {
    return readFileSync(join(__dirname, name));
  } catch {
    return undefined;
  }
};
const script = new Script(readFileSync(filename, 'latin1'), { filename, cachedData: read('engine.cache') });
const engine = {};
script.runInThisContext()(engine, require, { exports: engine }, filename, __dirname);
// No thread, but the build: what has been compiled by now is what a new process needs first.
if (require('node:worker_threads').parentPort === null) {
  engine.warmUp(100);
  require('node:fs').writeFileSync(join(__dirname, 'engine.cache'), script.createCachedData());
}
`;

async function bundle(input, format, options) {
  const build = await rolldown({ input: join(dist, input), platform: 'node', external });
  await build.write({ dir: out, format, minify: false, ...options });
  await build.close();
}

rmSync(out, { recursive: true, force: true });
await bundle('src/engine/worker.js', 'cjs', { entryFileNames: 'engine.cjs', codeSplitting: false });
const engine = join(out, 'engine.cjs');
// In ASCII, which is read without decoding.
const ascii = (text) => text.replace(/[^\0-\x7f]/g, (unit) => `\\u${unit.charCodeAt(0).toString(16).padStart(4, '0')}`);
const source = ascii(`(function (exports, require, module, __filename, __dirname) {${readFileSync(engine, 'utf8')}\n})`);
writeFileSync(engine, source);
writeFileSync(join(out, 'worker.cjs'), WORKER);
execFileSync(process.execPath, [join(out, 'worker.cjs')], { stdio: 'inherit' });
// The last one: bin/tapvsd takes the bundle when this is newer than what tsc has compiled.
await bundle('src/cli/tapvsd.js', 'esm', { entryFileNames: 'tapvsd.js', chunkFileNames: 'tapvsd-[name].js' });
