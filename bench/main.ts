/**
 * scripts/bench: measures tapvs and its peers side by side. See bench/README.md.
 */
import { accessSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { cpus, release, tmpdir, totalmem } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { damagedPackets } from './counters.ts';
import { FIGURES, type Figure, LOAD_ARGUMENTS, LOADS, type Load } from './figures.ts';
import { PEERS, type Peer, type PeerName } from './peers.ts';
import { formatFloors, formatTable, type Samples, summarise } from './report.ts';
import { CommandError, cpuSeconds, type Daemon, killRunning, run, startDaemon } from './run.ts';
import { buildTopology, type Lane, planTopology, removeStaleTopologies, removeTopology } from './topology.ts';

const USAGE = `Usage: scripts/bench [--json] [--rounds N] [--quick] [--only PEER,...] [--figures NAME,...]

Measures L4 load balancers on one topology of network namespaces, in interleaved rounds, as root.

  --json           one JSON document on standard output: figures, ratios, samples, machine
  --rounds N       rounds (default 5; the figures are medians over them)
  --quick          one round of half-second measurements
  --only PEERS     of: ${PEERS.map((peer) => peer.name).join(', ')}
  --figures NAMES  of: ${FIGURES.map((figure) => figure.name).join(', ')}
`;

interface Options {
  readonly json: boolean;
  readonly rounds: number;
  readonly seconds: number;
  readonly warmSeconds: number;
  readonly peers: readonly Peer[];
  readonly figures: readonly Figure[];
}

/** A wrong command line or machine: one line, exit 2. */
class UsageError extends Error {}

function parseOptions(argv: readonly string[]): Options {
  const { values } = parseArgs({
    args: [...argv],
    options: {
      json: { type: 'boolean', default: false },
      quick: { type: 'boolean', default: false },
      rounds: { type: 'string' },
      only: { type: 'string' },
      figures: { type: 'string' },
      help: { type: 'boolean', short: 'h', default: false },
    },
  });
  if (values.help) {
    process.stdout.write(USAGE);
    process.exit(0);
  }
  const rounds = Number(values.rounds ?? (values.quick ? 1 : 5));
  if (!Number.isInteger(rounds) || rounds < 1 || rounds > 1000) {
    throw new UsageError(`--rounds ${values.rounds}: a number from 1 to 1000`);
  }
  return {
    json: values.json,
    rounds,
    seconds: values.quick ? 0.5 : 1.2,
    warmSeconds: values.quick ? 0.1 : 0.2,
    peers: chosen('--only', values.only, PEERS),
    figures: chosen('--figures', values.figures, FIGURES),
  };
}

function chosen<T extends { readonly name: string }>(flag: string, list: string | undefined, all: readonly T[]): T[] {
  if (list === undefined) return [...all];
  const names = list.split(',');
  for (const name of names) {
    if (!all.some((one) => one.name === name)) {
      throw new UsageError(`${flag} ${name}: no such name; one of ${all.map((one) => one.name).join(', ')}`);
    }
  }
  return all.filter((one) => names.includes(one.name));
}

function isPresent(file: string): boolean {
  try {
    accessSync(file);
    return true;
  } catch {
    return false;
  }
}

/** A peer that is up: its lane, and the process whose CPU time counts (null: the kernel). */
interface Runner {
  readonly peer: Peer;
  readonly lane: Lane;
  readonly daemon: Daemon | null;
  cpuWhileMeasured: number;
}

/** What a load returned, turned into figures; CPU figures come from the balancer's time during the load. */
function toFigures(load: Load, result: Record<string, number>, cpu: number | null): Record<string, number | null> {
  switch (load) {
    case 'bulk1':
      return {
        bulk1_gbps: result.gbps!,
        cpu_s_per_gb: cpu === null ? null : cpu / (result.bytes! / 1e9),
      };
    case 'bulk4':
      return { bulk4_gbps: result.gbps! };
    case 'conn':
      return {
        conn_per_s: result.conn_per_s!,
        cpu_s_per_100k_conn: cpu === null ? null : cpu / (result.connections! / 1e5),
      };
    case 'req':
      return { req_per_s: result.req_per_s! };
    case 'lat':
      return { p50_us: result.p50_us!, p99_us: result.p99_us! };
    case 'udp':
      return { udp_pps: result.lost! > 0 ? null : result.udp_pps! };
  }
}

class Bench {
  readonly options: Options;
  readonly say: (line: string) => void;
  readonly samples: Samples = new Map();
  readonly problems: string[] = [];
  readonly directory = mkdtempSync(join(tmpdir(), 'tapvs-bench-'));
  readonly daemons: Daemon[] = [];
  readonly servers: Daemon[] = [];
  prefix = '';

  constructor(options: Options, say: (line: string) => void) {
    this.options = options;
    this.say = say;
  }

  /** Removes everything that this run created. Safe to call twice and at any moment. */
  async cleanUp(): Promise<void> {
    killRunning();
    await Promise.all(this.daemons.splice(0).map((daemon) => daemon.stop()));
    if (this.prefix !== '') await removeTopology(this.prefix);
    rmSync(this.directory, { recursive: true, force: true });
  }

  async run(): Promise<object> {
    const peers = this.options.peers.filter((peer) => this.isRunnable(peer));
    const topology = planTopology(peers);
    this.prefix = topology.prefix;
    this.say(`namespaces ${topology.prefix}*, ${peers.length} peers, ${this.options.rounds} rounds`);
    await removeStaleTopologies();
    await buildTopology(topology);
    const direct = topology.lanes.filter((lane) => lane.forwarding !== 'nat');
    const tunnels = topology.lanes.filter((lane) => lane.forwarding === 'ipip');
    for (const namespace of topology.servers) {
      if (tunnels.length > 0) await this.startTool(namespace, 'ipipdecap', ...tunnels.map((lane) => lane.serverDevice));
      this.servers.push(await this.startTool(namespace, 'benchd', ...direct.map((lane) => lane.vip)));
    }
    const runners: Runner[] = [];
    for (const [i, peer] of peers.entries()) {
      const lane = topology.lanes[i]!;
      try {
        const daemon = await peer.start(lane, this.directory);
        if (daemon !== null) this.keep(daemon);
        runners.push({ peer, lane, daemon, cpuWhileMeasured: 0 });
      } catch (error) {
        this.problem(`${peer.name}: does not start: ${messageOf(error)}`);
      }
    }
    const cpuAtStart = new Map(runners.map(({ daemon }) => [daemon, daemon === null ? 0 : cpuSeconds(daemon.pid)]));
    const began = Date.now();
    let measuredMs = 0;
    for (let round = 0; round < this.options.rounds; round++)
      measuredMs += await this.round(round, topology.client, runners);
    const elapsed = (Date.now() - began) / 1000;

    const idle: Record<string, number> = {};
    for (const { peer, daemon, cpuWhileMeasured } of runners) {
      if (daemon === null) continue;
      const others = elapsed - measuredMs / 1000 / runners.length;
      const spent = cpuSeconds(daemon.pid) - cpuAtStart.get(daemon)! - cpuWhileMeasured;
      idle[peer.name] = Number(((100 * spent) / others).toFixed(2));
    }
    const damaged = await damagedPackets([topology.client, ...topology.servers]);
    for (const [counter, count] of Object.entries(damaged)) this.problem(`damaged packets: ${counter} = ${count}`);

    const names = this.options.peers.map((peer) => peer.name);
    const report = summarise(this.samples, names);
    return {
      ...report,
      samples: Object.fromEntries([...this.samples].map(([name, byPeer]) => [name, Object.fromEntries(byPeer)])),
      machine: await describeMachine(),
      rounds: this.options.rounds,
      seconds_per_measurement: this.options.seconds,
      idle_cpu_percent: idle,
      damaged_packets: damaged,
      problems: this.problems,
    };
  }

  private isRunnable(peer: Peer): boolean {
    for (const { file, hint } of peer.needs) {
      if (!isPresent(file)) {
        this.problem(`${peer.name}: left out: ${file} is missing: ${hint}`);
        return false;
      }
    }
    return true;
  }

  /** One of bench/tools that stays up and says `ready`. */
  private async startTool(namespace: string, tool: string, ...args: string[]): Promise<Daemon> {
    const daemon = this.keep(
      startDaemon(tool, ['ip', 'netns', 'exec', namespace, join('dist', 'bench', 'tools', tool), ...args]),
    );
    await daemon.ready((output) => output.includes('ready'));
    return daemon;
  }

  private keep(daemon: Daemon): Daemon {
    this.daemons.push(daemon);
    return daemon;
  }

  private problem(line: string): void {
    this.problems.push(line);
    this.say(line);
  }

  /** One round: for each load all peers one after the other, beginning with another one each time. Milliseconds measured. */
  private async round(round: number, client: string, runners: Runner[]): Promise<number> {
    let measuredMs = 0;
    for (const load of LOADS) {
      const wanted = this.options.figures.filter((figure) => figure.load === load);
      if (wanted.length === 0) continue;
      await this.placeServers(load);
      const line: string[] = [];
      for (let i = 0; i < runners.length; i++) {
        const runner = runners[(i + round) % runners.length]!;
        const before = Date.now();
        const values = await this.measure(load, client, runner);
        measuredMs += Date.now() - before;
        for (const figure of wanted) this.record(figure.name, runner.peer.name, round, values[figure.name] ?? null);
        const value = values[wanted[0]!.name];
        line.push(`${runner.peer.name} ${value?.toFixed(wanted[0]!.digits) ?? 'n/a'}`);
      }
      this.say(`round ${round + 1}/${this.options.rounds}  ${wanted[0]!.name}: ${line.join('  ')}`);
    }
    return measuredMs;
  }

  /**
   * Latency with client and server on CPUs of their own (where there are two), as they would be on machines of their own.
   * Left to the scheduler, a ping-pong flips between one CPU and two from run to run, and on a virtual machine the wake-up
   * of a halted CPU is ten times the path: direct routing alone then reads 7 or 78 µs. The balancer is never pinned.
   */
  private async placeServers(load: Load): Promise<void> {
    const last = cpus().length - 1;
    const list = load === 'lat' ? `${last}` : `0-${last}`;
    await Promise.all(this.servers.map((server) => run(['taskset', '-acp', list, String(server.pid)])));
  }

  private record(figure: string, peer: PeerName, round: number, value: number | null): void {
    let byPeer = this.samples.get(figure);
    if (byPeer === undefined) {
      byPeer = new Map();
      this.samples.set(figure, byPeer);
    }
    const values = byPeer.get(peer) ?? [];
    values[round] = value;
    byPeer.set(peer, values);
  }

  private async measure(load: Load, client: string, runner: Runner): Promise<Record<string, number | null>> {
    const { peer, lane, daemon } = runner;
    if (load === 'udp' && !peer.udp) return {};
    const { seconds, warmSeconds } = this.options;
    const before = daemon === null ? 0 : cpuSeconds(daemon.pid);
    try {
      const out = await run(
        [
          ...[
            'ip',
            'netns',
            'exec',
            client,
            ...(load === 'lat' ? ['taskset', '-c', '0'] : []),
            join('dist', 'bench', 'tools', 'benchload'),
            ...LOAD_ARGUMENTS[load],
          ],
          ...['--to', peer.hasVip ? lane.vip : lane.servers.join(','), '--from', lane.clients.join(',')],
          ...['--seconds', String(seconds), '--warm', String(warmSeconds)],
        ],
        { timeoutMs: (seconds + warmSeconds) * 8000 + 10_000 },
      );
      const result = JSON.parse(out) as Record<string, number>;
      const spent = daemon === null ? null : cpuSeconds(daemon.pid) - before;
      runner.cpuWhileMeasured += spent ?? 0;
      if (result.errors! > 0) this.problem(`${peer.name} ${load}: ${result.errors} errors: ${out.trim()}`);
      // The balancer's time includes the warm-up, the counted work does not: scale to the counted part.
      const counted = spent === null ? null : (spent * seconds) / (seconds + warmSeconds);
      return toFigures(load, result, counted);
    } catch (error) {
      if (daemon !== null) runner.cpuWhileMeasured += cpuSeconds(daemon.pid) - before;
      this.problem(`${peer.name} ${load}: ${messageOf(error)}`);
      return {};
    }
  }
}

function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}

async function describeMachine(): Promise<object> {
  const version = async (...command: string[]): Promise<string | null> =>
    (await run(command).catch(() => '')).trim().split('\n')[0] || null;
  const model = /^model name\s*:\s*(.*)$/m.exec(readFileSync('/proc/cpuinfo', 'utf8'))?.[1] ?? null;
  return {
    kernel: release(),
    cpu: model,
    cpus: cpus().length,
    memory_gb: Math.round(totalmem() / 2 ** 30),
    node: process.version,
    nft: await version('nft', '--version'),
    haproxy: await version('haproxy', '-v'),
    nginx: await run(['sh', '-c', 'nginx -v 2>&1']).then(
      (text) => text.trim(),
      () => null,
    ),
    commit: await version('git', 'rev-parse', '--short', 'HEAD'),
    date: new Date().toISOString(),
  };
}

async function main(): Promise<number> {
  const options = parseOptions(process.argv.slice(2));
  if (process.getuid?.() !== 0) throw new UsageError('network namespaces need root: sudo scripts/bench');
  const bench = new Bench(options, (line) => process.stderr.write(`${line}\n`));
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) {
    process.once(signal, () => {
      void bench.cleanUp().finally(() => process.exit(130));
    });
  }
  try {
    const report = (await bench.run()) as ReturnType<typeof summarise>;
    if (options.json) {
      process.stdout.write(`${JSON.stringify(report, null, 2)}\n`);
    } else {
      const names = options.peers.map((peer) => peer.name);
      process.stdout.write(`\nMedians of ${options.rounds} rounds, and the median of the rounds' ratios:\n\n`);
      process.stdout.write(`${formatTable(report, names)}\n\n`);
      for (const line of formatFloors(report)) process.stdout.write(`${line}\n`);
    }
    return bench.problems.length === 0 ? 0 : 1;
  } finally {
    await bench.cleanUp();
  }
}

try {
  process.exitCode = await main();
} catch (error) {
  const isExpected = error instanceof UsageError || error instanceof CommandError || isParseArgsError(error);
  process.stderr.write(
    isExpected ? `bench: ${messageOf(error)}\n` : `${error instanceof Error ? error.stack : error}\n`,
  );
  process.exitCode = isExpected ? 2 : 1;
}

function isParseArgsError(error: unknown): boolean {
  return error instanceof TypeError && String((error as NodeJS.ErrnoException).code).startsWith('ERR_PARSE_ARGS');
}
