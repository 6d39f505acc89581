/** For tests: an engine in this thread, behind the real API on a socket of its own. */
import { mkdtempSync, rmSync } from 'node:fs';
import { request, type Server } from 'node:http';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { ManualClock, seconds } from '../base/clock.ts';
import { SeededRng } from '../base/rng.ts';
import { Slices } from '../base/slices.ts';
import { MemoryDevice } from '../device/memory.ts';
import type { Arena } from '../device/native.ts';
import { Captures as EngineCaptures } from '../engine/capture.ts';
import { CopyMemory } from '../engine/copy-memory.ts';
import { Engine } from '../engine/engine.ts';
import type { EngineRequestName, EngineRequests } from '../engine/messages.ts';
import { answer } from '../engine/requests.ts';
import { Traces as EngineTraces } from '../engine/trace.ts';
import type { IpCommand } from '../model/ip.ts';
import type { TableCommand } from '../model/iptables.ts';
import type { IpvsCommand } from '../model/ipvs.ts';
import { Captures } from './capture.ts';
import { ConntrackEvents } from './conntrack-events.ts';
import type { Engine as EngineCaller } from './engine-client.ts';
import { RuleChanges } from './rule-changes.ts';
import { createApi } from './server.ts';
import { Traces } from './trace.ts';

export class ControlRig implements EngineCaller {
  readonly clock = new ManualClock(0);
  readonly engine: Engine;
  readonly front: MemoryDevice;
  readonly back: MemoryDevice;
  /** What the daemon would have heard of. */
  readonly changed: IpvsCommand['op'][] = [];
  readonly ipChanged: IpCommand[] = [];
  /** The worker's side; `flush` is what it does after a breath. */
  readonly workerTraces: EngineTraces;
  readonly #staged: TableCommand[] = [];
  readonly #stagedIpvs: IpvsCommand[] = [];
  readonly #copies = new CopyMemory();
  readonly #directory = mkdtempSync(join(tmpdir(), 'tapvs-rig-'));
  readonly #server: Server;

  constructor(maxConnections = 4096) {
    const limits = { maxServices: 4096, maxDestinations: 32768 };
    this.engine = new Engine({ clock: this.clock, rng: new SeededRng(1), maxConnections, maxPackets: 512, ...limits });
    this.front = new MemoryDevice(this.engine.pool, { name: 'front', macLo: 0x101, drops: this.engine.drops });
    this.back = new MemoryDevice(this.engine.pool, { name: 'back', macLo: 0x201, drops: this.engine.drops });
    for (const device of [this.front, this.back]) this.engine.addDevice(device);
    this.engine.executeIp([
      { op: 'addr-add', device: 'front', address: '10.0.1.1', prefixLength: 24 },
      { op: 'addr-add', device: 'front', address: '10.0.1.100', prefixLength: 32 },
      { op: 'addr-add', device: 'back', address: '10.0.2.1', prefixLength: 24 },
    ]);
    this.engine.setSysctl('net.ipv4.ip_forward', '1');
    const traces = new Traces(this);
    this.workerTraces = new EngineTraces(this.engine, (records) => traces.take(structuredClone(records)));
    this.#server = createApi({
      engine: this,
      rules: new RuleChanges(this),
      captures: new Captures(this, 'test', () => {}),
      traces,
      ctEvents: new ConntrackEvents(this),
      testClock: false,
      status: () => Promise.reject(new Error('no daemon')),
      reload: () => Promise.reject(new Error('no daemon')),
      ipChanged: async (commands) => void this.ipChanged.push(...commands),
      ipvsChanged: async (commands) => void this.changed.push(...commands.map(({ op }) => op)),
      logError: (message, error) => {
        throw new Error(`${message}: ${error.message}`);
      },
    });
  }

  get socketPath(): string {
    return join(this.#directory, 'api.sock');
  }

  listen(): Promise<void> {
    return new Promise((resolve) => this.#server.listen(this.socketPath, resolve));
  }

  /** Status and JSON of an answer. */
  ask(method: string, path: string, body: unknown): Promise<[status: number | undefined, answer: unknown]> {
    return new Promise((resolve, reject) => {
      const sent = request({ socketPath: this.socketPath, method, path, agent: false }, (response) => {
        let text = '';
        response.setEncoding('utf8');
        response.on('data', (chunk: string) => {
          text += chunk;
        });
        response.on('end', () => resolve([response.statusCode, JSON.parse(text)]));
      });
      sent.on('error', reject);
      sent.end(JSON.stringify(body));
    });
  }

  close(): void {
    this.#server.close();
    this.#server.closeAllConnections();
    rmSync(this.#directory, { recursive: true, force: true });
  }

  /** As the worker answers, copies and all. */
  async call<N extends EngineRequestName>(
    name: N,
    args: EngineRequests[N]['args'],
  ): Promise<EngineRequests[N]['result']> {
    const context = {
      engine: this.engine,
      captures: new EngineCaptures(this.engine, () => {}),
      traces: this.workerTraces,
      testClock: null,
      keeper: null,
      arena: {} as Arena,
      post: () => {},
      copies: this.#copies,
      staged: this.#staged,
      stagedIpvs: this.#stagedIpvs,
      isStopping: false,
    };
    let result = answer(context, { id: 1, name, args: structuredClone(args) });
    if (result instanceof Slices) result = done(result);
    return structuredClone(result) as EngineRequests[N]['result'];
  }

  pass(secondsToPass: number): void {
    for (let left = seconds(secondsToPass); left > 0; left -= 25) {
      this.clock.advance(25);
      this.engine.breathe();
    }
  }
}

/** All of it now. */
function done(slices: Slices<unknown>): unknown {
  const rows: unknown[] = [];
  for (;;) {
    const end = slices.next();
    if (end !== undefined) return rows.length === 0 ? end.value : rows.concat(end.value);
    rows.push(...(slices.part ?? []));
  }
}
