/**
 * scripts/bench's small sister: what one packet costs inside tapvs, without any kernel.
 *
 *   node dist/bench/micro.js [--json] [--packets N] [--rounds N] [--only SUBJECT,...]
 *
 * Each subject runs in a process of its own, bundled as the daemon is, so that what one teaches the optimiser does not help or hurt the next. A round sends N packets of established flows
 * through a whole engine: half from clients and half from servers with NAT, all from clients where answers do not cross the balancer. The figure is the best of many
 * rounds that are shorter than a time slice (what else the machine does only ever adds), less what making and freeing the frames costs (subject `harness`).
 */
import { execFileSync } from 'node:child_process';
import { PerformanceObserver } from 'node:perf_hooks';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { Burst } from '../src/packet/burst.ts';
import { PacketPool } from '../src/packet/pool.ts';
import { ip4, mac } from '../src/wire/addr.ts';
import { BACK_MAC, CLIENT_MAC, FEW, FRONT_MAC, octets, PORT, Rig, SERVER_MAC, type Subject, VIP } from './rig.ts';
import { deviceRules, manyRules, RULES, TRACKING_RULES } from './rules.ts';
import { ClientDevice, ServerDevice } from './traffic.ts';

/** A super-packet of 44 segments of 1,440 bytes is what a TAP hands over in bulk. */
const SUPER = { segments: 44 } as const;

const SUBJECTS: Readonly<Record<string, Subject>> = {
  harness: { ...FEW, what: 'frames made and freed, no engine', services: 0 },
  base: { ...FEW, what: '1 service, 1,000 flows' },
  services: { ...FEW, what: '20,000 services, 1,000 flows', services: 20_000 },
  flows: { ...FEW, what: '1,000,000 flows, packets of 1,000', flows: 1_000_000 },
  'flows-active': {
    ...FEW,
    what: '1,000,000 flows, packets of all at random',
    flows: 1_000_000,
    active: 1_000_000,
  },
  tracking: { ...FEW, what: 'as base, all tracked', rules: TRACKING_RULES, isTracked: true },
  untracked: { ...FEW, what: 'as base, others are tracked', rules: TRACKING_RULES },
  rules: { ...FEW, what: `as base, ${RULES} rules before it`, rules: manyRules(RULES) },
  'rules-device': { ...FEW, what: `as base, ${RULES} rules that differ by device`, rules: deviceRules(RULES) },
  fullnat: { ...FEW, what: 'as base, full NAT', method: 'fullnat' },
  dr: { ...FEW, what: 'as base, direct routing, requests only', method: 'route' },
  ipip: { ...FEW, what: 'as base, IPIP, requests only', method: 'tunnel' },
  'bulk-dr': { ...FEW, ...SUPER, what: 'super-packets, direct routing, per super-packet', method: 'route' },
  'bulk-ipip': { ...FEW, ...SUPER, what: 'super-packets cut into IPIP, per segment', method: 'tunnel' },
};

/** Ratios that issue 2 bounds: subject to `base`, at most. */
const BOUNDS: Readonly<Record<string, number>> = { services: 1.1, flows: 1.1, 'flows-active': 1.1 };

/** Among so many packets of established flows the garbage collector has nothing to do. */
const GC_PACKETS = 2_000_000;

interface Outcome {
  readonly nsPerPacket: number;
  readonly medianNsPerPacket: number;
  /** Garbage collections during one round of GC_PACKETS, after all others. */
  readonly gcEvents: number;
  /** Resident bytes that services and flows took. */
  readonly stateBytes: number;
  readonly loadMs: number;
  readonly addMs: number;
}

/** The harness alone: frames are made, put on a burst, and freed. */
class Harness {
  readonly #pool = new PacketPool(1024);
  readonly #client = new ClientDevice(this.#pool, mac(FRONT_MAC), octets(CLIENT_MAC), ip4(VIP), PORT);
  readonly #server = new ServerDevice(this.#pool, mac(BACK_MAC), octets(SERVER_MAC), PORT, 1000);
  readonly #burst = new Burst();

  round(packets: number): number {
    const half = packets >> 1;
    this.#server.isOpening = false;
    this.#client.phase = 'data';
    this.#client.play(half, 1000, 'random');
    this.#server.play(half, 1000, 'random');
    const before = process.hrtime.bigint();
    while (this.#client.toPlay > 0 || this.#server.toPlay > 0) {
      this.#client.receive(this.#burst);
      this.#server.transmit(this.#burst);
      this.#server.receive(this.#burst);
      this.#client.transmit(this.#burst);
    }
    return Number(process.hrtime.bigint() - before) / (half * 2);
  }
}

/** Garbage collections while `work` runs. */
async function collectionsDuring(work: () => void): Promise<number> {
  const turn = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));
  let events = 0;
  const observer = new PerformanceObserver((list) => {
    events += list.getEntries().length;
  });
  globalThis.gc?.();
  await turn();
  observer.observe({ entryTypes: ['gc'] });
  work();
  await turn();
  events += observer.takeRecords().length;
  observer.disconnect();
  return events;
}

async function measure(name: string, packets: number, rounds: number): Promise<Outcome> {
  const subject = SUBJECTS[name]!;
  let runner: { round(packets: number): number };
  let stateBytes = 0;
  let loadMs = 0;
  let addMs = 0;
  if (name === 'harness') {
    runner = new Harness();
  } else {
    const rig = new Rig(subject);
    globalThis.gc?.();
    const before = process.memoryUsage().rss;
    rig.prepare();
    globalThis.gc?.();
    stateBytes = process.memoryUsage().rss - before;
    ({ loadMs, addMs } = rig);
    runner = rig;
  }
  for (let done = 0; done < 2_000_000; done += packets) runner.round(packets);
  const times: number[] = [];
  for (let i = 0; i < rounds; i++) times.push(runner.round(packets));
  const gcEvents = await collectionsDuring(() => runner.round(GC_PACKETS));
  times.sort((a, b) => a - b);
  return {
    nsPerPacket: times[0]!,
    medianNsPerPacket: times[times.length >> 1]!,
    gcEvents,
    stateBytes,
    loadMs,
    addMs,
  };
}

/** All of it in one file, as the daemon runs (scripts/bundle.mjs): V8 makes other code of two hundred modules. */
async function bundle(): Promise<string> {
  const { rolldown } = await import('rolldown');
  const file = fileURLToPath(new URL('micro-bundle.mjs', import.meta.url));
  const build = await rolldown({
    input: fileURLToPath(import.meta.url),
    platform: 'node',
    external: ['rolldown', 'netlink', 'raw-socket', 'pino-pretty'],
  });
  await build.write({ file, format: 'esm', codeSplitting: false });
  await build.close();
  return file;
}

async function main(): Promise<number> {
  const { values } = parseArgs({
    options: {
      json: { type: 'boolean', default: false },
      packets: { type: 'string', default: '5000' },
      rounds: { type: 'string', default: '1000' },
      only: { type: 'string' },
    },
  });
  const wanted = values.only?.split(',') ?? Object.keys(SUBJECTS);
  const unknown = wanted.find((name) => SUBJECTS[name] === undefined);
  if (unknown !== undefined) throw new Error(`--only ${unknown}: one of ${Object.keys(SUBJECTS).join(', ')}`);
  const script = await bundle();
  const outcomes: Record<string, Outcome> = {};
  for (const name of wanted) {
    // The memory reducer collects by the clock, whether anything was allocated or not.
    const args = ['--expose-gc', '--no-memory-reducer', script, values.packets, values.rounds];
    const out = execFileSync(process.execPath, args, {
      stdio: ['ignore', 'pipe', 'inherit'],
      env: { ...process.env, BENCH_SUBJECT: name },
      encoding: 'utf8',
    });
    outcomes[name] = JSON.parse(out) as Outcome;
  }
  const harness = outcomes.harness?.nsPerPacket ?? 0;
  const base = outcomes.base === undefined ? null : outcomes.base.nsPerPacket - harness;
  const rows = wanted.map((name) => {
    const { nsPerPacket, medianNsPerPacket, gcEvents, stateBytes, loadMs, addMs } = outcomes[name]!;
    const net = name === 'harness' ? nsPerPacket : nsPerPacket - harness;
    const ratio = base === null || name === 'harness' ? null : net / base;
    return { name, net, nsPerPacket, medianNsPerPacket, ratio, gcEvents, stateBytes, loadMs, addMs };
  });
  if (values.json) {
    process.stdout.write(`${JSON.stringify(rows, null, 2)}\n`);
    return 0;
  }
  for (const row of rows) {
    const bound = BOUNDS[row.name];
    const ratio =
      row.ratio === null ? '' : `  ${row.ratio.toFixed(2)} of base${bound === undefined ? '' : ` (at most ${bound})`}`;
    const state = row.stateBytes > 0 ? `  state ${(row.stateBytes / 2 ** 20).toFixed(0)} MB` : '';
    const load =
      row.name === 'services' ? `  load ${row.loadMs.toFixed(0)} ms, one more ${row.addMs.toFixed(2)} ms` : '';
    process.stdout.write(
      `${row.name.padEnd(13)} ${row.net.toFixed(0).padStart(5)} ns/packet  gc ${row.gcEvents} in ${GC_PACKETS}${ratio}${state}${load}  ${SUBJECTS[row.name]!.what}\n`,
    );
  }
  return 0;
}

const name = process.env.BENCH_SUBJECT;
if (name === undefined) {
  try {
    process.exitCode = await main();
  } catch (error) {
    process.stderr.write(`micro: ${error instanceof Error ? error.message.split('\n')[0] : String(error)}\n`);
    process.exitCode = 1;
  }
} else {
  const outcome = await measure(name, Number(process.argv[2]), Number(process.argv[3]));
  process.stdout.write(JSON.stringify(outcome));
}
