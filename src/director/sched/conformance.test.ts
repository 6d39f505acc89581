/**
 * One contract, applied to every scheduler of the registry, with and without its flags. Where the kernel's own algorithm leaves the contract, it is said
 * here which do: those that hash have no second choice without their fallback flag, and lblc does not look at thresholds once an address has its server.
 */
import { describe, expect, it } from 'vitest';
import { SeededRng } from '../../base/rng.ts';
import { ip4 } from '../../wire/addr.ts';
import { NO_DEST } from '../destinations.ts';
import { Bench, VIP } from '../test-rig.ts';
import { serverName } from './explain.ts';
import { SCHEDULERS } from './index.ts';

const T = `-t ${VIP}:80`;

function pick(b: Bench, client = 1): number {
  const { services, dests } = b.director;
  const d = services.schedulers[0]!.pick(client, client + 1, client << 16);
  if (d !== NO_DEST) expect(dests.isAvailable(d)).toBe(true);
  return d;
}

const VARIANTS = [
  ...SCHEDULERS.map((s) => s.name),
  'sh -b sh-port',
  'mh -b mh-port',
  'sh -b sh-fallback',
  'mh -b mh-fallback',
];
const FAILS_CLOSED = new Set(['dh', 'sh', 'mh', 'sh -b sh-port', 'mh -b mh-port']);
const IGNORES_OVERLOAD = new Set(['lblc']);

describe.each(VARIANTS)('%s keeps the contract', (name) => {
  const bench = () => {
    const b = new Bench();
    b.run(`-A ${T} -s ${name}`, ...[1, 2, 3].map((i) => `-a ${T} -r 10.0.2.1${i}:80 -m -w ${i}`));
    return b;
  };

  it('takes over a service with servers, and gives it back', () => {
    const b = bench();
    for (const other of ['wlc', name, 'lblc', name]) {
      b.run(`-E ${T} -s ${other}`, `-d ${T} -r 10.0.2.11:80`, `-a ${T} -r 10.0.2.11:80 -m -w 2`);
      const picks = Array.from({ length: 40 }, (_, client) => pick(b, client));
      expect(picks.some((d) => d !== NO_DEST)).toBe(true);
    }
    b.run(`-D ${T}`);
    expect(b.director.collectors.size).toBe(0);
    expect(b.director.dests.held.some((n) => n !== 0)).toBe(false);
  });

  it('answers NO_DEST for a service without servers, and when the last one has gone', () => {
    const b = new Bench();
    b.run(`-A ${T} -s ${name}`);
    expect(pick(b)).toBe(NO_DEST);
    b.run(`-a ${T} -r 10.0.2.11:80 -m`);
    expect(pick(b)).not.toBe(NO_DEST);
    b.run(`-d ${T} -r 10.0.2.11:80`);
    expect(pick(b)).toBe(NO_DEST);
  });

  it('never picks a destination of weight 0, and picks it again when it has one', () => {
    const b = bench();
    b.run(...[1, 2, 3].map((i) => `-e ${T} -r 10.0.2.1${i}:80 -m -w 0`));
    expect(pick(b)).toBe(NO_DEST);
    b.run(`-e ${T} -r 10.0.2.12:80 -m -w 5`);
    // As many clients as it takes for a hash to hit each server.
    const picks = Array.from({ length: 40 }, (_, client) => pick(b, client)).filter((d) => d !== NO_DEST);
    expect(picks.map((d) => b.director.dests.weight[d])).toEqual(picks.map(() => 5));
    if (FAILS_CLOSED.has(name)) expect(picks.length).toBeGreaterThan(0);
    else expect(picks).toHaveLength(40);
  });

  it('never picks an overloaded destination', () => {
    const b = new Bench();
    b.run(`-A ${T} -s ${name}`, `-a ${T} -r 10.0.2.11:80 -m -w 65535 -x 1`, `-a ${T} -r 10.0.2.12:80 -m -w 1 -x 2`);
    const got = Array.from({ length: 40 }, (_, i) => b.probe(`10.0.1.${10 + i}:${20001 + i}`, `${VIP}:80`, true));
    const one = got.filter((s) => s === '10.0.2.11:80').length;
    const two = got.filter((s) => s === '10.0.2.12:80').length;
    if (IGNORES_OVERLOAD.has(name)) {
      expect([one, two]).toEqual([38, 2]);
    } else if (FAILS_CLOSED.has(name)) {
      expect(one).toBeLessThanOrEqual(1);
      expect(two).toBeLessThanOrEqual(2);
      expect(one + two).toBeGreaterThan(0);
    } else {
      expect([one, two]).toEqual([1, 2]);
      expect(got.indexOf('refused')).toBe(3);
    }
  });

  it('survives any change between two picks, and never picks what may not be picked', () => {
    const b = bench();
    const rng = new SeededRng(11);
    const { dests, services } = b.director;
    for (let i = 0; i < 3000; i++) {
      const server = `10.0.2.${11 + ((rng.next() >>> 4) % 6)}:80`;
      const weight = (rng.next() >>> 4) % 4;
      b.run(
        [`-a ${T} -r ${server} -m -w ${weight}`, `-e ${T} -r ${server} -m -w ${weight}`, `-d ${T} -r ${server}`][
          (rng.next() >>> 4) % 3
        ]!,
      );
      const d = pick(b, i);
      let candidates = 0;
      for (let x = services.first[0]!; x !== NO_DEST; x = dests.next[x]!) candidates += dests.isCandidate(x) ? 1 : 0;
      if (candidates === 0) expect(d).toBe(NO_DEST);
      else if (!FAILS_CLOSED.has(name)) expect(d).not.toBe(NO_DEST);
      if (d !== NO_DEST) expect(dests.isCandidate(d)).toBe(true);
    }
  });

  it('explains what it is about to pick, with a reason for every server, and is not changed by that', () => {
    const explained = bench();
    const plain = bench();
    const rng = new SeededRng(12);
    const { dests, services } = explained.director;
    for (let i = 0; i < 300; i++) {
      const server = `10.0.2.${11 + ((rng.next() >>> 4) % 6)}:80`;
      const weight = (rng.next() >>> 4) % 4;
      const line = [
        `-a ${T} -r ${server} -m -w ${weight}`,
        `-e ${T} -r ${server} -m -w ${weight} -x ${(rng.next() >>> 4) % 5}`,
        `-d ${T} -r ${server}`,
        '--set 900 120 300',
      ][(rng.next() >>> 4) % 4]!;
      const isHeld = (rng.next() & 0x10) !== 0;
      const [client, port] = [`10.0.1.${2 + (i % 200)}`, 1024 + i];
      const source = ip4(client);
      const choice = () => services.schedulers[0]!.explain(source, ip4(VIP), (port << 16) | 80);
      for (const b of [explained, plain]) b.run(line);
      const [first, second] = [choice(), choice()];
      expect(second).toEqual(first);
      const listed: number[] = [];
      for (let d = services.first[0]!; d !== NO_DEST; d = dests.next[d]!) listed.push(d);
      expect(first.candidates.map((c) => c.dest)).toEqual(listed);
      expect(first.how).not.toBe('');
      for (const c of first.candidates) {
        expect(c.verdict === 'chosen').toBe(c.dest === first.dest);
        if (first.dest !== NO_DEST) expect(c.why).not.toBe('');
      }
      const got = explained.probe(`${client}:${port}`, `${VIP}:80`, isHeld);
      expect(plain.probe(`${client}:${port}`, `${VIP}:80`, isHeld)).toBe(got);
      expect(got).toBe(first.dest === NO_DEST ? 'refused' : serverName(dests, first.dest));
    }
  });
});
