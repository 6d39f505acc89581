/** For tests: a router with rules, in memory. */
import { expect } from 'vitest';
import { ManualClock } from '../base/clock.ts';
import { SeededRng } from '../base/rng.ts';
import { MemoryDevice } from '../device/memory.ts';
import type { TableCommand, TableName } from '../model/iptables.ts';
import { mac } from '../wire/addr.ts';
import { describeFrame, type FrameBuilder } from '../wire/build.ts';
import { Engine } from './engine.ts';

export const CLIENT = '02:00:00:00:01:02';
export const OURS = '02:00:00:00:01:01';
export const SERVER = '02:00:00:00:02:02';

/** A router between 10.0.1.0/24 on front and 10.0.2.0/24 on back, whose neighbours are known. */
export class FilterRig {
  readonly clock = new ManualClock(0);
  readonly engine = new Engine({
    clock: this.clock,
    rng: new SeededRng(1),
    maxConnections: 100,
    maxPackets: 256,
  });
  readonly front = this.#device('front', OURS);
  readonly back = this.#device('back', '02:00:00:00:02:01');

  constructor() {
    this.engine.executeIp([
      { op: 'addr-add', device: 'front', address: '10.0.1.1', prefixLength: 24 },
      { op: 'addr-add', device: 'back', address: '10.0.2.1', prefixLength: 24 },
      { op: 'neigh-add', device: 'front', address: '10.0.1.2', mac: CLIENT },
      { op: 'neigh-add', device: 'back', address: '10.0.2.2', mac: SERVER },
    ]);
    this.engine.setSysctl('net.ipv4.ip_forward', '1');
    this.engine.breathe();
    this.front.takeSent();
    this.back.takeSent();
  }

  #device(name: string, address: string): MemoryDevice {
    const { hi, lo } = mac(address);
    const device = new MemoryDevice(this.engine.pool, { name, macHi: hi, macLo: lo, drops: this.engine.drops });
    this.engine.addDevice(device);
    return device;
  }

  /** `-A FORWARD -p tcp -j DROP`, `-N chain`, `-P INPUT DROP`, in their order, all or none. */
  rules(table: TableName, ...lines: string[]): void {
    const commands = lines.map((line): TableCommand => {
      const [op, chain = '', ...words] = line.split(' ');
      if (op === '-N') return { op: 'new-chain', chain };
      if (op === '-F') return { op: 'flush' };
      return op === '-P' ? { op: 'policy', chain, policy: words[0]! } : { op: 'append', chain, rule: { words } };
    });
    expect(this.engine.filter.change({ table, commands })).toBeNull();
  }

  /** Packets that each rule, and then the policy, of a chain has counted. */
  counts(table: TableName, chain: string): number[] {
    const row = this.engine.filter.list(table).chains.find(({ name }) => name === chain)!;
    return [...row.rules.map(({ packets }) => packets), ...(row.policy === null ? [] : [row.packets])];
  }

  /** What leaves by either device when it came in from the client's side. */
  send(packet: FrameBuilder): string[] {
    return this.#through(this.front, packet);
  }

  /** The same from the server's side. */
  sendBack(packet: FrameBuilder): string[] {
    return this.#through(this.back, packet);
  }

  #through(device: MemoryDevice, packet: FrameBuilder): string[] {
    device.inject(packet.build());
    this.engine.breathe();
    return [...this.front.takeSent(), ...this.back.takeSent()].map(({ bytes }) => describeFrame(bytes));
  }
}

/** A router with these rules. */
export function withRules(table: TableName, ...lines: string[]): FilterRig {
  const rig = new FilterRig();
  rig.rules(table, ...lines);
  return rig;
}
