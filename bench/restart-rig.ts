/**
 * A director under load that is restarted: who talks through it, and what they saw.
 *
 *   client: ping · hold · new · bulk · wrk ─ [front] tapvsd [back] ─ rs1 rs2 rs3          peers: restart-load.py
 *
 * Balanced flows are tracked (vs.conntrack), and rules drop what tracking does not know: so a connection lives on only if both tables do.
 */
import type { ChildProcess } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { createInterface, type Interface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { type Lab, labUp } from '../src/lab/lab.ts';
import { type LabPlan, labConfig, labPlan } from '../src/lab/plan.ts';
import { spawnIn, waitForLine } from '../src/rtnl/netns.ts';

const LOAD = fileURLToPath(
  new URL(import.meta.url.includes('/dist/') ? '../../bench/restart-load.py' : './restart-load.py', import.meta.url),
);
const PORT = 4000;
/** A firewall of a kind that many have. */
const RULES = `*filter
-A INPUT -m conntrack --ctstate INVALID -j DROP
-A INPUT -p tcp -m conntrack --ctstate NEW -m tcp ! --syn -j DROP
COMMIT
`;

export interface PingReport {
  readonly count: number;
  readonly longestMs: number;
  readonly error?: string;
}

export interface HoldReport {
  readonly answered: number;
  /** Were not answered for 20 s. */
  readonly silent: number;
  /** Were answered by another server than before. */
  readonly moved: number;
  readonly errors: Readonly<Record<string, number>>;
}

export interface NewReport {
  readonly done: number;
  readonly slowestMs: number;
  readonly errors: Readonly<Record<string, number>>;
}

export interface BulkReport {
  readonly bytes: number;
  readonly intact: boolean;
  readonly seconds: number;
  readonly error?: string;
}

/** One of restart-load.py's clients. */
export class Peer {
  readonly child: ChildProcess;
  readonly #lines: Interface;
  readonly #waiting: ((line: string) => void)[] = [];
  readonly #said: string[] = [];

  constructor(child: ChildProcess) {
    this.child = child;
    this.#lines = createInterface({ input: child.stdout! });
    this.#lines.on('line', (line) => {
      const next = this.#waiting.shift();
      if (next === undefined) this.#said.push(line);
      else next(line);
    });
    this.#lines.on('close', () => {
      for (const next of this.#waiting.splice(0)) next('{"error":"ended"}');
    });
  }

  /** The next thing it says. */
  async next<T>(): Promise<T> {
    const line = this.#said.shift() ?? (await new Promise<string>((resolve) => this.#waiting.push(resolve)));
    return JSON.parse(line) as T;
  }

  /** Asks for a report. */
  async ask<T>(): Promise<T> {
    this.child.stdin?.write('\n');
    return await this.next<T>();
  }

  end(): void {
    this.child.stdin?.end();
  }
}

export class RestartRig {
  readonly plan: LabPlan;
  readonly lab: Lab;
  /** `tapvs supervise`. */
  readonly supervisor: ChildProcess;

  private constructor(plan: LabPlan, lab: Lab, supervisor: ChildProcess) {
    this.plan = plan;
    this.lab = lab;
    this.supervisor = supervisor;
  }

  static async up(prefix: string, options: { connections?: number; hasSpare?: boolean } = {}): Promise<RestartRig> {
    const plan = labPlan({ prefix, servers: 3 });
    const lab = await labUp(plan);
    try {
      await lab.startServers();
      for (const { netns, name } of plan.servers) {
        const server = lab.spawn(netns, ['python3', LOAD, 'serve', name, String(PORT)]);
        await waitForLine(server, /^ready$/);
      }
      // Half a minute of new connections takes all ports: without this a client searches for one longer and longer, for its closed ones have theirs for a minute.
      await lab.run(plan.client, ['sysctl', '-qw', 'net.ipv4.tcp_tw_reuse=1']);
      const ports = [80, PORT, PORT + 1];
      const ipvsadm = ports.flatMap((port) => [
        `-A -t ${plan.vip}:${port} -s rr`,
        ...plan.servers.map(({ address }) => `-a -t ${plan.vip}:${port} -r ${address}:${port} -m`),
      ]);
      const config = labConfig(plan, { ipvsadm: `${ipvsadm.join('\n')}\n` });
      const limits = `limits: { connections: ${options.connections ?? 200_000} }\n`;
      const supervisor = await lab.startDaemon(config + limits, {
        isSupervised: true,
        hasSpare: options.hasSpare ?? false,
      });
      const rig = new RestartRig(plan, lab, supervisor);
      await rig.#tapvs(['sysctl', '-w', 'net.ipv4.vs.conntrack=1']);
      await rig.#restoreRules();
      return rig;
    } catch (error) {
      await lab.down();
      throw error;
    }
  }

  /** Starts one of the clients; resolves when it is under way. `hold` says its first report then. */
  async client(command: 'ping' | 'new' | 'bulk' | 'hold', ...numbers: readonly number[]): Promise<Peer> {
    const words = ['python3', LOAD, command, this.plan.vip, String(PORT), ...numbers.map(String)];
    const peer = new Peer(spawnIn(this.plan.client, words, { stdio: ['pipe', 'pipe', 'inherit'] }));
    if (command !== 'hold') await peer.next();
    return peer;
  }

  /** The daemon's process: of those below the supervisor the one that was ready last. */
  daemonPid(): number {
    const lines = readFileSync(this.plan.logFile, 'utf8').split('\n');
    const line = lines.findLast((text) => text.includes('"tapvsd is ready"')) ?? '{}';
    return (JSON.parse(line) as { pid: number }).pid;
  }

  async down(): Promise<void> {
    await this.lab.down();
  }

  async #tapvs(words: readonly string[]): Promise<void> {
    const { status, stderr } = await this.lab.tapvs(...words);
    if (status !== 0) throw new Error(`tapvs ${words.join(' ')}: ${stderr}`);
  }

  async #restoreRules(): Promise<void> {
    const { director, socket } = this.plan;
    const bin = fileURLToPath(
      new URL(import.meta.url.includes('/dist/') ? '../../bin/tapvs' : '../bin/tapvs', import.meta.url),
    );
    const env = { ...process.env, TAPVS_SOCKET: socket };
    const { status, stderr } = await this.lab.run(director, [bin, 'iptables-restore'], { input: RULES, env });
    if (status !== 0) throw new Error(`iptables-restore: ${stderr}`);
  }
}
