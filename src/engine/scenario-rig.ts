/**
 * Replays a recorded scenario of connection tracking on an engine in memory, in the clock's time: what each packet is to its connection, the events, and the list.
 *
 *   hosts 10.1.0.0/24 ── va 10.1.0.1 ─ engine ─ vb 10.2.0.1 ── hosts 10.2.0.0/24        every host answers ARP
 */
import { ManualClock, seconds, TICKS_PER_SECOND } from '../base/clock.ts';
import { Change } from '../conntrack/changes.ts';
import { Col, ENTRY_SHIFT } from '../conntrack/entries.ts';
import { CtDir, CtInfo } from '../conntrack/entry.ts';
import { Tuple } from '../conntrack/tuple.ts';
import { Medium } from '../device/device.ts';
import { Hook, Priority, Verdict } from '../hooks/hooks.ts';
import { SCTP_CT_NAMES, TCP_CT_NAMES } from '../model/entry-states.ts';
import { Status } from '../model/entry-status.ts';
import type { Packet } from '../packet/packet.ts';
import { formatIp4 } from '../wire/addr.ts';
import type { Engine } from './engine.ts';
import { Lives } from './lives-rig.ts';
import { ipPackets, type PacketSpec } from './scenario-packets.ts';

interface Sent extends PacketSpec {
  readonly side?: 'a' | 'b';
}

export interface Step {
  readonly tx?: Sent | readonly Sent[];
  readonly conntrack?: string;
  readonly sysctl?: string;
  readonly wait?: number;
}

const PREFIX = 'net.netfilter.nf_conntrack_';
const PROTO_NAMES: Readonly<Record<number, string>> = {
  1: 'icmp',
  6: 'tcp',
  17: 'udp',
  33: 'dccp',
  47: 'gre',
  132: 'sctp',
  136: 'udplite',
};
const STATES: Readonly<Record<number, string>> = {
  [CtInfo.Established]: 'ESTABLISHED',
  [CtInfo.Related]: 'RELATED',
  [CtInfo.New]: 'NEW',
  [CtInfo.EstablishedReply]: 'ESTABLISHED/reply',
  [CtInfo.RelatedReply]: 'RELATED/reply',
};

/** As the recordings have it: up to nine seconds of slack. */
function shownSeconds(n: number): number {
  if (n <= 3) return 3;
  return n <= 10 ? 10 : Math.ceil(n / 10) * 10;
}

export class ScenarioRig {
  readonly #clock = new ManualClock(1000);
  readonly #lives = new Lives({
    clock: this.#clock,
    maxConnections: 64,
    maxEntries: 256,
    maxServices: 16,
    maxDestinations: 64,
    maxPackets: 128,
  });
  #states: string[] = [];
  #events: string[] = [];

  constructor() {
    const { engine } = this;
    const link = { medium: Medium.Ip, macHi: 2, canOffload: false };
    this.#lives.addDevice({ ...link, name: 'va', macLo: 1 });
    this.#lives.addDevice({ ...link, name: 'vb', macLo: 2 });
    engine.executeIp([
      { op: 'addr-add', device: 'va', address: '10.1.0.1', prefixLength: 24 },
      { op: 'addr-add', device: 'vb', address: '10.2.0.1', prefixLength: 24 },
    ]);
    for (const setting of ['ip_forward=1', 'icmp_ratelimit=0', 'conf.all.send_redirects=0']) {
      const [key, value] = setting.split('=') as [string, string];
      engine.setSysctl(`net.ipv4.${key}`, value);
    }
    this.#watch();
  }

  get engine(): Engine {
    return this.#lives.engine;
  }

  /** The engine ends, and another one takes over what it has left. */
  restart(): void {
    this.#lives.restart('ends');
    this.#watch();
  }

  #watch(): void {
    const { engine } = this;
    engine.conntrack.sink = (entry, changes) => this.#events.push(this.#event(entry, changes));
    engine.conntrack.acquire();
    engine.hooks.register([
      {
        hook: Hook.PreRouting,
        priority: Priority.Mangle,
        name: 'test/state',
        why: 'what tracking says of the packet',
        run: (p) => {
          this.#states.push(this.#stateOf(p));
          return Verdict.Accept;
        },
      },
    ]);
  }

  #stateOf(p: Packet): string {
    if (p.entry !== 0) return STATES[p.ctInfo] ?? `? ${p.ctInfo}`;
    return p.ctInfo === CtInfo.Untracked ? 'UNTRACKED' : 'INVALID';
  }

  /** Lines of the step as they stand in a recording; null when this rig cannot do it. */
  run(step: Step): readonly string[] | null {
    this.#states = [];
    this.#events = [];
    if (step.tx !== undefined) {
      for (const spec of Array.isArray(step.tx) ? step.tx : [step.tx]) this.#send(spec);
      return [`state ${this.#states.join(' ') || 'none'}`, ...this.#events.map((line) => `ev ${line}`)];
    }
    if (step.wait !== undefined) {
      this.#pass(seconds(step.wait));
      return this.#events.map((line) => `ev ${line}`);
    }
    if (step.sysctl !== undefined) {
      const [key = '', value] = step.sysctl.split('=');
      if (value === undefined) return null;
      return this.engine.setSysctl(key.includes('.') ? key : PREFIX + key, value) === null ? ['rc 0'] : ['rc 255'];
    }
    return step.conntrack === '-L' ? this.#list() : null;
  }

  #send(spec: Sent): void {
    for (const bytes of ipPackets(spec)) {
      this.#lives.devices.get(spec.side === 'b' ? 'vb' : 'va')!.inject(bytes);
      this.engine.wake();
      this.engine.breathe();
    }
    this.#pass(5);
  }

  #pass(ticks: number): void {
    for (let left = ticks; left > 0; left -= TICKS_PER_SECOND) {
      this.#clock.advance(Math.min(left, TICKS_PER_SECOND));
      this.engine.breathe();
    }
  }

  #list(): string[] {
    const { entries } = this.engine.conntrack;
    const lines: string[] = [];
    for (let entry = 1; entry < entries.highWater; entry++) {
      if (entries.isAlive(entry)) lines.push(`| ${this.#line(entry, true)} mark=0`);
    }
    return ['rc 0', ...lines, `! conntrack v1.4.7 (conntrack-tools): ${lines.length} flow entries have been shown.`];
  }

  #event(entry: number, changes: number): string {
    const kind =
      (changes & (Change.New | Change.Related)) !== 0 ? 'NEW' : (changes & Change.Destroy) !== 0 ? 'DESTROY' : 'UPDATE';
    const showsState = kind !== 'UPDATE' || (changes & Change.Protoinfo) !== 0;
    return `[${kind}] ${this.#line(entry, showsState)}`;
  }

  #line(entry: number, showsState: boolean): string {
    const { entries, now } = this.engine.conntrack;
    const status = entries.status(entry);
    const proto = entries.proto(entry);
    const word = entries.rows[(entry << ENTRY_SHIFT) + Col.Word]! & 0xff;
    const state = proto === 6 ? TCP_CT_NAMES[word] : proto === 132 ? SCTP_CT_NAMES[word] : undefined;
    return [
      `${PROTO_NAMES[proto] ?? 'unknown'} ${proto}`,
      shownSeconds(entries.left(entry, now) / TICKS_PER_SECOND),
      ...(showsState && state !== undefined ? [state] : []),
      this.#tuple(entry, CtDir.Original),
      ...((status & Status.SeenReply) === 0 ? ['[UNREPLIED]'] : []),
      this.#tuple(entry, CtDir.Reply),
      ...((status & Status.Assured) === 0 ? [] : ['[ASSURED]']),
    ].join(' ');
  }

  #tuple(entry: number, dir: number): string {
    const t = new Tuple();
    this.engine.conntrack.entries.tuple(entry, dir, t);
    const addresses = `src=${formatIp4(t.src)} dst=${formatIp4(t.dst)}`;
    const high = t.ports >>> 16;
    const low = t.ports & 0xffff;
    switch (t.proto) {
      case 1:
        return `${addresses} type=${low >> 8} code=${low & 0xff} id=${high}`;
      case 6:
      case 17:
      case 33:
      case 132:
      case 136:
        return `${addresses} sport=${high} dport=${low}`;
      case 47:
        return `${addresses} srckey=0x${high.toString(16)} dstkey=0x${low.toString(16)}`;
      default:
        return addresses;
    }
  }
}
