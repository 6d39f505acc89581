import { describe, expect, it } from 'vitest';
import type { IpvsCommand } from '../model/ipvs.ts';
import { Bench } from './test-rig.ts';

const SERVERS = 9;

/** `services` services with their servers: SERVERS + 1 commands each. */
function table(services: number): IpvsCommand[] {
  const commands: IpvsCommand[] = [];
  for (let i = 0; i < services; i++) {
    const key = { kind: 'address', protocol: 'tcp', address: `10.0.9.${1 + i}`, port: 80 } as const;
    commands.push({ op: 'add-service', service: { key, scheduler: 'rr', schedulerFlags: 0, ops: false } });
    for (let j = 0; j < SERVERS; j++) {
      const server = { key: { address: `10.0.2.${11 + j}`, port: 80 }, method: 'masq', weight: 1 } as const;
      commands.push({ op: 'add-server', service: key, server: { ...server, upperThreshold: 0, lowerThreshold: 0 } });
    }
  }
  return commands;
}

/** What packets could meet: services and servers at each pause, and at the end. */
function met(services: number): [services: number, servers: number][] {
  const { director } = new Bench();
  const steps = director.executeAll(table(services), director.generation);
  const seen: [number, number][] = [];
  const look = () => seen.push([director.services.count, director.dests.count]);
  for (let step = steps.next(); ; step = steps.next()) {
    look();
    if (step.done) {
      expect(step.value).toBeNull();
      return seen;
    }
  }
}

describe('commands all or none', () => {
  it('are met by packets all or not at all while they are few', () => {
    const seen = met(25);
    expect(seen.at(-1)).toEqual([25, 25 * SERVERS]);
    expect(new Set(seen.map(([services]) => services))).toEqual(new Set([0, 25]));
  });

  it('are met a service at a time when they are many', () => {
    const seen = met(60);
    expect(seen.at(-1)).toEqual([60, 60 * SERVERS]);
    expect([...new Set(seen.map(([services]) => services))]).toEqual([0, 25, 50, 60]);
    for (const [services, servers] of seen) expect(servers).toBe(services * SERVERS);
  });
});
