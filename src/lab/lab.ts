// Builds a lab (plan.ts), runs its servers and its daemon, and takes all of it away again.
//
// What a lab owns can be found by its prefix alone: the namespaces, the processes in them and /run/tapvs-lab-<prefix>.
// So labDown works after a crash as well, and labUp begins with it.
import { type ChildProcess, spawn } from 'node:child_process';
import { closeSync, existsSync, mkdirSync, openSync, readFileSync, rmSync, watch, writeFileSync } from 'node:fs';
import { request } from 'node:http';
import { fileURLToPath } from 'node:url';
import { close, openNetns, withNetns } from '../device/native.ts';
import {
  delNetns,
  inNetns,
  listNetns,
  type RunOptions,
  type RunResult,
  runIn,
  runOk,
  runOkIn,
  setSysctls,
  spawnIn,
  stop,
  waitForLine,
} from '../rtnl/netns.ts';
import { openRtnl, type Rtnl } from '../rtnl/rtnl.ts';
import {
  checkPrefix,
  isLabNetns,
  LAB_ECHO_PORT,
  LAB_HTTP_PORT,
  type LabPlan,
  type LabStep,
  labConfig,
  labRunDir,
} from './plan.ts';

const READY_TIMEOUT_MS = 15_000;

/** Root of the checkout: from src/lab/ as from dist/src/lab/. */
const ROOT = fileURLToPath(new URL(import.meta.url.includes('/dist/') ? '../../../' : '../../', import.meta.url));

/** Labs that this process has up, to take them down when it is interrupted. */
const active = new Set<string>();
/** Those of them that are being built: an interruption lets the step under way end first. */
const building = new Set<Promise<void>>();
let isInterrupted = false;

export interface DaemonOptions {
  /** Further words for tapvsd. */
  readonly args?: readonly string[];
  readonly env?: NodeJS.ProcessEnv;
  /** Under `tapvs supervise`, which is then the child: it starts the daemon again when it ends, and keeps its descriptors. */
  readonly isSupervised?: boolean;
  /** And starts the next one before it is needed. */
  readonly hasSpare?: boolean;
}

export interface LabUpOptions {
  /** Its programs get a session of their own, so that they go on when the terminal of this process is closed; default false. */
  readonly outlives?: boolean;
}

/** What a doctor (scripts/director check, scripts/realserver check) found. */
export interface Finding {
  readonly netns: string;
  /** 0: all is well. */
  readonly status: number;
  readonly text: string;
}

/** A lab that is up. */
export class Lab {
  readonly plan: LabPlan;
  readonly #children = new Set<ChildProcess>();
  readonly #outlives: boolean;

  constructor(plan: LabPlan, options: LabUpOptions = {}) {
    this.plan = plan;
    this.#outlives = options.outlives ?? false;
  }

  /** Runs a program in one of the lab's namespaces; any exit status is a result. */
  run(netns: string, argv: readonly string[], options: RunOptions = {}): Promise<RunResult> {
    return runIn(netns, argv, options);
  }

  /** `curl -sS` in the client's namespace: its stdout. @throws Error with curl's words when it fails. */
  curl(...args: string[]): Promise<string> {
    return runOkIn(this.plan.client, ['curl', '-sS', '--max-time', '10', ...args]);
  }

  /** Starts a program and remembers it, so that it ends with the lab. */
  spawn(netns: string, argv: readonly string[], env: NodeJS.ProcessEnv = process.env): ChildProcess {
    return this.#remember(spawnIn(netns, argv, { env, detached: this.#outlives }));
  }

  /** The doctor of the director or of a server. */
  async doctor(netns: string): Promise<Finding> {
    const { director, runDir, socket } = this.plan;
    const script = `${ROOT}scripts/${netns === director ? 'director' : 'realserver'}`;
    const env = { ...process.env, TAPVS_SOCKET: socket };
    const { status, stdout, stderr } = await runIn(netns, [script, 'check', '--state-dir', runDir], { env });
    return { netns, status, text: stdout + stderr };
  }

  /** The web server of each real server; resolves when all listen. */
  async startServers(): Promise<void> {
    const { method, vip, servers } = this.plan;
    // A UDP socket on 0.0.0.0 would answer from the server's own address, and nobody rewrites that to the VIP but nat.
    const echoAddress = method === 'nat' ? '0.0.0.0' : vip;
    await Promise.all(servers.map(({ netns, name }) => this.startServer(netns, name, { echoAddress })));
  }

  /** One web server (web-server.ts) in a namespace, the director's too. */
  async startServer(
    netns: string,
    name: string,
    options: { http?: number; echo?: number; echoAddress?: string } = {},
  ): Promise<ChildProcess> {
    const { http = LAB_HTTP_PORT, echo = LAB_ECHO_PORT, echoAddress = '0.0.0.0' } = options;
    const words = ['--name', name, '--http', String(http), '--echo', String(echo), '--echo-address', echoAddress];
    const child = this.spawn(netns, [process.execPath, builtFile('lab/web-server.js'), ...words]);
    await waitForLine(child, /^ready$/);
    return child;
  }

  /**
   * Starts bin/tapvsd in the director's namespace with `config` and waits until it answers on its control socket.
   * Its output goes to the plan's logFile; its state lives in the run directory, too.
   * @throws Error with the end of that log when it ends before or does not answer within 15 s.
   */
  async startDaemon(config = labConfig(this.plan), options: DaemonOptions = {}): Promise<ChildProcess> {
    const { director, configFile, socket, runDir, logFile } = this.plan;
    const { args: extra = [], env = {}, isSupervised = false, hasSpare = false } = options;
    writeFileSync(configFile, config);
    const output = openSync(logFile, 'a');
    const supervisor = isSupervised ? [`${ROOT}bin/tapvs`, 'supervise', ...(hasSpare ? [] : ['--no-spare']), '--'] : [];
    const words = [...supervisor, `${ROOT}bin/tapvsd`, '--config', configFile, '--socket', socket, ...extra];
    const [file = '', ...args] = inNetns(director, words);
    const child = spawn(file, args, {
      stdio: ['ignore', output, output],
      detached: this.#outlives,
      env: { ...process.env, TAPVS_SOCKET: socket, STATE_DIRECTORY: `${runDir}/state`, ...env },
    });
    closeSync(output);
    this.#remember(child);
    try {
      await waitForSocket(child, socket, runDir);
    } catch (error) {
      await stop(child);
      const tail = readFileSync(logFile, 'utf8').trim().split('\n').slice(-12).join('\n');
      const why = error instanceof Error ? error.message : String(error);
      throw new Error(`tapvsd ${why}; ${logFile} ends with:\n${tail}`);
    }
    return child;
  }

  /** bin/tapvsd in the director's namespace until it ends: for `check`, `--dry-run`, and starts that are refused. */
  tapvsd(...args: string[]): Promise<RunResult> {
    const env = { ...process.env, TAPVS_SOCKET: this.plan.socket };
    return runIn(this.plan.director, [`${ROOT}bin/tapvsd`, ...args], { env });
  }

  /** bin/tapvs in the director's namespace, talking to this lab's daemon: `lab.tapvs('ipvsadm', '-Ln')`. */
  tapvs(...args: string[]): Promise<RunResult> {
    const env = { ...process.env, TAPVS_SOCKET: this.plan.socket };
    return runIn(this.plan.director, [`${ROOT}bin/tapvs`, ...args], { env });
  }

  /** Ends one program that the lab started. */
  async stop(child: ChildProcess): Promise<void> {
    await stop(child);
    this.#children.delete(child);
  }

  /** Ends all programs, then removes everything (labDown). */
  async down(): Promise<void> {
    await Promise.all([...this.#children].map((child) => this.stop(child)));
    await labDown(this.plan.prefix);
  }

  #remember(child: ChildProcess): ChildProcess {
    this.#children.add(child);
    child.once('exit', () => this.#children.delete(child));
    return child;
  }
}

/** Builds the lab, after removing what an earlier one of the same prefix left. On failure nothing is left. */
export async function labUp(plan: LabPlan, options: LabUpOptions = {}): Promise<Lab> {
  await labDown(plan.prefix);
  if (active.size === 0) for (const signal of ['SIGINT', 'SIGTERM'] as const) process.once(signal, takeDownAll);
  active.add(plan.prefix);
  mkdirSync(`${plan.runDir}/state`, { recursive: true, mode: 0o755 });
  const built = build(plan.steps);
  building.add(built);
  try {
    await built;
  } catch (error) {
    await labDown(plan.prefix);
    throw error;
  } finally {
    building.delete(built);
  }
  return new Lab(plan, options);
}

async function build(steps: readonly LabStep[]): Promise<void> {
  const sockets = new Map<string, Rtnl>();
  try {
    for (let at = 0; at < steps.length; ) {
      if (isInterrupted) throw new Error('interrupted while the lab was built');
      // Programs in a row wait for nothing of each other.
      let end = at;
      while (end < steps.length && isProgram(steps[end]!)) end++;
      if (end === at) await perform(steps[at]!, sockets);
      else await Promise.all(steps.slice(at, end).map((step) => perform(step, sockets)));
      at = Math.max(end, at + 1);
    }
  } finally {
    for (const rtnl of sockets.values()) rtnl.close();
  }
}

function isProgram(step: LabStep): boolean {
  return step.do === 'run' || step.do === 'script';
}

/** Kills every process in the lab's namespaces and removes these and the run directory. No error when there is no lab. */
export async function labDown(prefix: string): Promise<void> {
  checkPrefix(prefix);
  const names = listNetns().filter((name) => isLabNetns(prefix, name));
  await Promise.all(names.map(delNetns));
  rmSync(labRunDir(prefix), { recursive: true, force: true });
  active.delete(prefix);
  if (active.size === 0) for (const signal of ['SIGINT', 'SIGTERM'] as const) process.off(signal, takeDownAll);
}

/** True once SIGINT or SIGTERM came: the labs are being taken down, and the signal will end this process; what fails meanwhile fails because of it. */
export function isEnding(): boolean {
  return isInterrupted;
}

function takeDownAll(signal: NodeJS.Signals): void {
  isInterrupted = true;
  void Promise.allSettled(building)
    .then(() => Promise.allSettled([...active].map(labDown)))
    .then(() => process.kill(process.pid, signal)); // our handlers are off by now: it ends us
}

/** @param sockets one rtnetlink socket for each namespace so far; the caller closes them */
async function perform(step: LabStep, sockets: Map<string, Rtnl>): Promise<void> {
  const { netns } = step;
  switch (step.do) {
    case 'netns': // a mount, not a netlink message
      await runOk(['ip', 'netns', 'add', netns]);
      return;
    case 'sysctl':
      return setSysctls(netns, step.values);
    case 'run':
      await runOkIn(netns, step.argv);
      return;
    case 'script': {
      const [name = '', ...words] = step.argv;
      await runOkIn(netns, [`${ROOT}scripts/${name}`, ...words]);
      return;
    }
  }
  const rtnl = sockets.get(netns) ?? rtnlIn(netns);
  sockets.set(netns, rtnl);
  try {
    await configure(rtnl, step);
  } catch (error) {
    throw new Error(`in namespace ${netns}: ${error instanceof Error ? error.message : String(error)}`, {
      cause: error,
    });
  }
}

function rtnlIn(netns: string): Rtnl {
  const fd = openNetns(netns);
  try {
    return openRtnl({ enter: (fn) => withNetns(fd, fn) });
  } finally {
    close(fd);
  }
}

async function configure(
  rtnl: Rtnl,
  step: Exclude<LabStep, { do: 'netns' | 'sysctl' | 'run' | 'script' }>,
): Promise<void> {
  switch (step.do) {
    case 'veth': {
      const { dev, mac, mtu, peer } = step;
      return rtnl.createVeth(dev, peer.dev, { mac, mtu, peerMac: peer.mac, peerNetns: peer.netns });
    }
    case 'bridge':
      await rtnl.createBridge(step.dev, { mac: step.mac, mtu: step.mtu });
      return rtnl.setLink(step.dev, { up: true });
    case 'link':
      return rtnl.setLink(step.dev, { up: true, ...(step.master !== undefined && { master: step.master }) });
    case 'address':
      return rtnl.addAddress(step.dev, step.cidr);
    case 'route':
      return rtnl.addRoute({ to: step.to, via: step.via });
  }
}

/** A program of ours as the build left it. @throws Error that says how to build. */
function builtFile(path: string): string {
  const file = `${ROOT}dist/src/${path}`;
  if (!existsSync(file)) throw new Error(`${file} is not built: run ./scripts/build`);
  return file;
}

/** Resolves when an HTTP request on the socket is answered; rejects when the child ends or after READY_TIMEOUT_MS. */
function waitForSocket(child: ChildProcess, socket: string, directory: string): Promise<void> {
  return new Promise((resolve, reject) => {
    let asking = false;
    const finish = (error?: Error): void => {
      clearTimeout(timer);
      clearInterval(again);
      watcher.close();
      child.off('exit', onExit);
      if (error === undefined) resolve();
      else reject(error);
    };
    const onExit = (code: number | null, signal: string | null): void =>
      finish(new Error(`ended (${signal ?? `status ${code}`}) before it was ready`));
    const ask = (): void => {
      if (asking || !existsSync(socket)) return;
      asking = true;
      const asked = request({ socketPath: socket, path: '/v1/status' }, (response) => {
        response.resume();
        asking = false;
        if ((response.statusCode ?? 500) < 500) finish();
      });
      asked.on('error', () => {
        asking = false;
      });
      asked.end();
    };
    // The socket's appearance wakes us; the interval is for a daemon that binds first and answers later.
    const watcher = watch(directory, ask);
    const again = setInterval(ask, 50);
    const timer = setTimeout(() => finish(new Error('did not answer on its control socket')), READY_TIMEOUT_MS);
    child.once('exit', onExit);
    child.once('error', finish);
    ask();
  });
}
