/** 50,000 held connections while servers and services come, change and go: the counters are a recount of the table, and nobody loses a living server. */
import { describe, expect, it } from 'vitest';
import { SeededRng } from '../base/rng.ts';
import { formatIp4 } from '../wire/addr.ts';
import { dst, src } from '../wire/ipv4.ts';
import { CONN_SHIFT, Conn, ConnFlag, NO_CONN } from './connection.ts';
import { SCHEDULERS } from './sched/index.ts';
import { Bench, tcpPacket } from './test-rig.ts';

const HELD = 50_000;
const STEPS = 100;
/** Held connections that say something after each step. */
const TALK = 100;

interface Held {
  readonly client: string;
  readonly vip: string;
  /** ADDRESS:PORT, as the request went out; of direct routing too. */
  readonly server: string;
  readonly isMasq: boolean;
}

/** expect() for what is asked millions of times. */
function same(what: () => string, have: readonly unknown[], want: readonly unknown[]): void {
  for (let i = 0; i < want.length; i++) if (have[i] !== want[i]) expect([what(), ...have]).toEqual([what(), ...want]);
}

/** A table of the servers as the commands left them, kept beside the director. */
type Listed = Map<string, Map<string, { isMasq: boolean }>>;

class Churn {
  readonly b = new Bench({ maxConnections: 3 * HELD, services: 64 });
  readonly held: Held[] = [];
  readonly listed: Listed = new Map();
  readonly vips = ['10.0.1.100:80', '10.0.1.101:80', '10.0.1.102:80', '10.0.1.100:443'];
  readonly #rng: SeededRng;
  #lastClient = 0;

  constructor(seed: number) {
    this.#rng = new SeededRng(seed);
    // A service that stays: without any, the director lets everything pass.
    this.run('-A -t 10.0.1.102:22 -s rr');
    for (const vip of this.vips) {
      this.#addService(vip);
      for (let i = 0; i < 4; i++) this.addServer(vip, i);
    }
  }

  random(n: number): number {
    return (this.#rng.next() >>> 3) % n;
  }

  run(line: string): void {
    expect([line, this.b.run(line)]).toEqual([line, [null]]);
  }

  #scheduler(): string {
    return `-s ${SCHEDULERS[this.random(SCHEDULERS.length)]!.name}${this.random(4) === 0 ? ' -p 300' : ''}`;
  }

  #addService(vip: string): void {
    this.run(`-A -t ${vip} ${this.#scheduler()}`);
    this.listed.set(vip, new Map());
  }

  addServer(vip: string, number: number): void {
    const servers = this.listed.get(vip)!;
    const key = `10.0.2.${11 + number}:${vip.split(':')[1]}`;
    if (servers.has(key)) return;
    const isMasq = this.random(3) !== 0;
    this.run(`-a -t ${vip} -r ${key} ${isMasq ? '-m' : '-g'} -w ${1 + this.random(4)}`);
    servers.set(key, { isMasq });
  }

  /** One command, or the handful that a reload gives. */
  step(): string {
    const vip = this.vips[this.random(this.vips.length)]!;
    const servers = this.listed.get(vip)!;
    const keys = [...servers.keys()];
    const key = keys[this.random(Math.max(keys.length, 1))];
    const dice = this.random(10);
    if (dice < 3 || key === undefined) {
      this.addServer(vip, this.random(8));
      return `add to ${vip}`;
    }
    if (dice < 6) {
      const isMasq = this.random(2) === 0;
      this.run(`-e -t ${vip} -r ${key} ${isMasq ? '-m' : '-g'} -w ${this.random(5)} -x ${this.random(2) * 20_000}`);
      servers.set(key, { isMasq });
      return `edit ${key} of ${vip}`;
    }
    if (dice < 7) {
      this.run(`-e -t ${vip} -r ${key} ${servers.get(key)!.isMasq ? '-m' : '-g'} -w 0`);
      return `quiesce ${key} of ${vip}`;
    }
    if (dice < 8) {
      this.run(`-d -t ${vip} -r ${key}`);
      servers.delete(key);
      return `remove ${key} of ${vip}`;
    }
    if (dice < 9) {
      this.run(`-E -t ${vip} ${this.#scheduler()}`);
      return `edit ${vip}`;
    }
    this.run(`-D -t ${vip}`);
    this.#addService(vip);
    for (const [again, { isMasq }] of [...servers].reverse()) {
      this.run(`-a -t ${vip} -r ${again} ${isMasq ? '-m' : '-g'} -w ${1 + this.random(3)}`);
      this.listed.get(vip)!.set(again, { isMasq });
    }
    return `reload ${vip}`;
  }

  /** Open connections until as many are held as there should be. */
  refill(): void {
    for (let tries = 0; this.held.length < HELD && tries < HELD * 2; tries++) {
      const n = this.#lastClient++;
      const client = `10.${1 + ((n >> 16) & 63)}.${(n >> 8) & 255}.${n & 255}:${1024 + (n % 60_000)}`;
      const vip = this.vips[n & 3]!;
      const out = this.b.send(tcpPacket(client, vip, 'S'));
      if (out.verdict !== 'reroute') continue;
      const conn = this.#find(client);
      const { rows } = this.b.director.conns;
      const at = conn << CONN_SHIFT;
      const server = `${formatIp4(rows[at + Conn.Rip]!)}:${rows[at + Conn.Meta]! >>> 16}`;
      const isMasq = (rows[at + Conn.Flags]! & ConnFlag.MethodMask) === 0;
      if (isMasq) this.b.send(tcpPacket(server, client, 'SA'));
      this.b.send(tcpPacket(client, vip, '.'));
      this.held.push({ client, vip, server, isMasq });
    }
    expect(this.held.length).toBe(HELD);
  }

  /** The newest connection of a client that has only one. */
  #find(client: string): number {
    const { conns } = this.b.director;
    for (let conn = conns.highWater - 1; conn >= 0; conn--) {
      const at = conn << CONN_SHIFT;
      if (!conns.isUsed(conn) || (conns.rows[at + Conn.Flags]! & ConnFlag.Template) !== 0) continue;
      if (`${formatIp4(conns.rows[at + Conn.Cip]!)}:${conns.rows[at + Conn.Ports]! >>> 16}` === client) return conn;
      if (conn < conns.highWater - 4) break;
    }
    return NO_CONN;
  }

  isLiving({ vip, server }: Held): boolean {
    return this.listed.get(vip)?.has(server) === true;
  }

  /** A request and, where it crosses us, its answer: they reach the server that the connection has, and the client. */
  talk(held: Held): void {
    const { client, vip, server, isMasq } = held;
    const request = this.b.send(tcpPacket(client, vip, 'PA', 'who'));
    if (!this.isLiving(held)) {
      same(() => client, [request.verdict, request.drop], ['drop', 'DirectorDestinationGone']);
      return;
    }
    const view = new DataView(request.bytes.buffer);
    const to = `${formatIp4(dst(view, 0))}:${view.getUint16(22)}`;
    const hop = formatIp4(request.packet.nexthop as never);
    same(() => client, [request.verdict, to, hop], ['reroute', isMasq ? server : vip, server.split(':')[0]]);
    if (!isMasq) return;
    const answer = this.b.send(tcpPacket(server, client, 'PA', 'rs'));
    const back = new DataView(answer.bytes.buffer);
    const from = `${formatIp4(src(back, 0))}:${back.getUint16(20)}`;
    same(() => client, [answer.verdict, from], ['accept', vip]);
  }

  /** What the table says, row by row, is what the servers' counters say. */
  recount(after: string): void {
    const { conns, dests } = this.b.director;
    const counts = new Int32Array(dests.highWater * 3);
    for (let conn = 0; conn < conns.highWater; conn++) {
      if (!conns.isUsed(conn)) continue;
      const flags = conns.rows[(conn << CONN_SHIFT) + Conn.Flags]!;
      const kind = (flags & ConnFlag.Template) !== 0 ? 2 : (flags & ConnFlag.Inactive) !== 0 ? 1 : 0;
      counts[conns.rows[(conn << CONN_SHIFT) + Conn.Dest]! * 3 + kind]!++;
    }
    for (let d = 0; d < dests.highWater; d++) {
      const books = [dests.active[d], dests.inactive[d], dests.persistent[d]];
      same(() => `${after}: server ${d}`, books, [counts[d * 3], counts[d * 3 + 1], counts[d * 3 + 2]]);
    }
  }
}

describe('50,000 held connections', () => {
  it('keep their living servers and right counters through changes in random order', () => {
    const churn = new Churn(1);
    churn.refill();
    churn.recount('the beginning');
    for (let step = 0; step < STEPS; step++) {
      const what = churn.step();
      churn.recount(`${step}: ${what}`);
      for (let i = 0; i < TALK; i++) churn.talk(churn.held[churn.random(HELD)]!);
      churn.recount(`${step}: talk after ${what}`);
      // Now and then time passes; nobody is silent for so long that it would expire.
      if (step % 25 === 24) {
        churn.b.wait(30);
        for (const held of churn.held) churn.talk(held);
      }
    }
    for (const held of churn.held) churn.talk(held);
    churn.recount('the end');
    const living = churn.held.filter((held) => churn.isLiving(held)).length;
    expect(living).toBeGreaterThan(HELD / 10);
    expect(living).toBeLessThan(HELD);
  }, 120_000);
});
