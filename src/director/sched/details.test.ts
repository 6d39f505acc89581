/** What the recordings do not show: expiry of lblc and lblcr, weights and limits of mh, the hash against a plain one, the odds of twos, flags at work. */
import { describe, expect, it } from 'vitest';
import { ip4 } from '../../wire/addr.ts';
import { NO_DEST } from '../destinations.ts';
import { Bench, udpPacket, VIP } from '../test-rig.ts';
import { AddressCache, NO_ENTRY } from './address-cache.ts';
import { hash32, hsiphash } from './kernel-hash.ts';

const T = `-t ${VIP}:80`;
const CLIENTS = Array.from({ length: 500 }, (_, i) => ip4(`10.7.${i & 3}.${i >> 2}`));

function withServers(scheduler: string, ...weights: readonly number[]): Bench {
  const b = new Bench();
  b.run(`-A ${T} -s ${scheduler}`, ...weights.map((w, i) => `-a ${T} -r 10.0.2.1${i + 1}:80 -m -w ${w}`));
  return b;
}

/** Which server, 1 …, each of many clients gets; 0: none. The destination address is the client's, too. */
function choices(b: Bench): number[] {
  const { services, dests } = b.director;
  return CLIENTS.map((client) => {
    const d = services.schedulers[0]!.pick(client, client, (40000 << 16) | 80);
    return d === NO_DEST ? 0 : (dests.ip[d]! & 0xff) - 10;
  });
}

function moved(before: readonly number[], after: readonly number[]): number {
  return before.filter((server, i) => server !== after[i]).length;
}

function pickFor(b: Bench, address: string): number {
  return b.director.services.schedulers[0]!.pick(1, ip4(address), 80);
}

describe('the kernel’s hashes', () => {
  it('hash_32 is the top of the product with the golden ratio', () => {
    for (const v of [0, 1, 0x0a000102, -1, 0x7fffffff]) {
      expect(hash32(v, 8)).toBe(Number(((BigInt(v >>> 0) * 0x61c88647n) & 0xffffffffn) >> 24n));
    }
  });

  it('hsiphash is SipHash-1-3, written here with 64-bit integers', () => {
    const M = 0xffffffffffffffffn;
    const rotate = (x: bigint, n: bigint) => ((x << n) | (x >> (64n - n))) & M;
    const plain = (value: number, key: number): number => {
      const k = BigInt(key >>> 0);
      const word = (4n << 56n) | BigInt(value >>> 0);
      const v = [0x736f6d6570736575n, 0x646f72616e646f6dn, 0x6c7967656e657261n, 0x7465646279746573n].map((x) => x ^ k);
      const rounds = (n: number) => {
        for (let i = 0; i < n; i++) {
          v[0] = (v[0]! + v[1]!) & M;
          v[1] = rotate(v[1]!, 13n) ^ v[0]!;
          v[0] = rotate(v[0]!, 32n);
          v[2] = (v[2]! + v[3]!) & M;
          v[3] = rotate(v[3]!, 16n) ^ v[2]!;
          v[0] = (v[0]! + v[3]!) & M;
          v[3] = rotate(v[3]!, 21n) ^ v[0]!;
          v[2] = (v[2]! + v[1]!) & M;
          v[1] = rotate(v[1]!, 17n) ^ v[2]!;
          v[2] = rotate(v[2]!, 32n);
        }
      };
      v[3]! ^= word;
      rounds(1);
      v[0]! ^= word;
      v[2]! ^= 0xffn;
      rounds(3);
      return Number((v[0]! ^ v[1]! ^ v[2]! ^ v[3]!) & 0xffffffffn);
    };
    for (let i = 0; i < 2000; i++) {
      const value = Math.imul(i, 0x9e3779b1) | 0;
      for (const key of [2654435761 | 0, 2654446892 | 0]) expect(hsiphash(value, key, 2 ** 32)).toBe(plain(value, key));
    }
  });
});

describe('mh', () => {
  it('leaves the others’ clients where they are when a server is quiesced, and gives it back its own', () => {
    const b = withServers('mh', 3, 1, 2);
    const before = choices(b);
    b.run(`-e ${T} -r 10.0.2.13:80 -m -w 0`);
    expect(choices(b)).toEqual(before.map((server) => (server === 3 ? 0 : server)));
    b.run(`-e ${T} -r 10.0.2.13:80 -m -w 2`);
    expect(choices(b)).toEqual(before);
  });

  it('moves hardly anybody else when a server is removed', () => {
    const b = withServers('mh', 1, 1, 1, 1, 1);
    const before = choices(b);
    const own = before.filter((server) => server === 5).length;
    b.run(`-d ${T} -r 10.0.2.15:80`);
    const others = moved(before, choices(b)) - own;
    expect(own).toBeGreaterThan(50);
    expect(others).toBeLessThan(50);
  });

  it('knows no server that was added with weight 0', () => {
    const b = withServers('mh', 0, 0);
    expect(new Set(choices(b))).toEqual(new Set([0]));
    b.run(`-e ${T} -r 10.0.2.12:80 -m -w 9`);
    expect(new Set(choices(b))).toEqual(new Set([2]));
  });

  it('forgets the weight of a server that left and came back without one', () => {
    const b = withServers('mh', 1, 1);
    b.run(`-d ${T} -r 10.0.2.12:80`, `-a ${T} -r 10.0.2.12:80 -m -w 0`);
    expect(new Set(choices(b))).toEqual(new Set([1]));
  });

  it('shares by weight, also when weights are beyond its table', () => {
    const b = withServers('mh', 1, 1000000, 2000000);
    const got = choices(b);
    const share = [1, 2, 3].map((server) => got.filter((s) => s === server).length / got.length);
    expect(share[2]! / share[1]!).toBeGreaterThan(1.4);
    expect(share[2]! / share[1]!).toBeLessThan(2.8);
    expect(share[0]).toBeLessThan(0.1);
  });

  it('refuses to take over a service of more servers than its table has places; more than that can still be added', () => {
    const b = new Bench({ services: 500 });
    b.run(`-A ${T} -s rr`);
    for (let i = 0; i < 4094; i++) b.run(`-a ${T} -r 10.8.${i >> 8}.${i & 255}:80 -m`);
    expect(b.run(`-E ${T} -s mh`)).toEqual(['EINVAL']);
    expect(b.director.services.schedulerNames[0]).toBe('rr');
    b.run(`-d ${T} -r 10.8.0.0:80`);
    expect(b.run(`-E ${T} -s mh`)).toEqual([null]);
    const before = choices(b);
    expect(b.run(`-a ${T} -r 10.8.0.0:80 -m`, `-a ${T} -r 10.8.99.0:80 -m`)).toEqual([null, null]);
    expect(choices(b)).toEqual(before);
    b.run(`-d ${T} -r 10.8.1.1:80`);
    for (const client of CLIENTS) {
      const d = b.director.services.schedulers[0]!.pick(client, client, 0);
      if (d !== NO_DEST) expect(b.director.dests.isAvailable(d)).toBe(true);
    }
  });
});

describe('flags', () => {
  it.each(['sh', 'mh'])('of %s act at once when the service is edited', (name) => {
    const b = withServers(name, 1, 1, 1);
    const byAddress = choices(b);
    expect(b.run(`-E ${T} -s ${name} -b ${name}-port`)).toEqual([null]);
    expect(moved(byAddress, choices(b))).toBeGreaterThan(200);
    b.run(`-E ${T} -s ${name}`, `-e ${T} -r 10.0.2.11:80 -m -w 0`);
    expect(choices(b)).toContain(0);
    b.run(`-E ${T} -s ${name} -b ${name}-fallback`);
    expect(choices(b)).not.toContain(0);
  });

  it.each(['sh', 'mh'])('%s-fallback spreads the clients of one server over all the others', (name) => {
    const b = withServers(`${name} -b ${name}-fallback`, 1, 1, 1);
    const before = choices(b);
    b.run(`-e ${T} -r 10.0.2.11:80 -m -w 0`);
    const after = choices(b);
    if (name === 'mh') expect(after.filter((_, i) => before[i] !== 1)).toEqual(before.filter((server) => server !== 1));
    const refugees = after.filter((_, i) => before[i] === 1);
    expect(refugees.filter((s) => s === 2).length).toBeGreaterThan(20);
    expect(refugees.filter((s) => s === 3).length).toBeGreaterThan(20);
  });

  it('beyond the three there are none', () => {
    const key = { kind: 'address', protocol: 'tcp', address: VIP, port: 80 } as const;
    const add = (schedulerFlags: number) =>
      new Bench().director.execute([
        { op: 'add-service', service: { key, scheduler: 'sh', schedulerFlags, ops: false } },
      ]);
    expect([0, 7, 8, -1].map((flags) => add(flags)[0])).toEqual([null, null, 'EINVAL', 'EINVAL']);
  });
});

describe('lblc', () => {
  it('forgets an address that was not used for lblc_expiration, at the next full check', () => {
    const b = withServers('lblc', 1, 1, 1);
    expect(b.director.sysctls.set('net.ipv4.vs.lblc_expiration', '600')).toBe(null);
    const { dests } = b.director;
    const first = pickFor(b, '10.0.3.1');
    // Another server would be the better one now, but the address keeps its own.
    dests.inactive[first] = 5;
    b.wait(1200);
    expect(pickFor(b, '10.0.3.1')).toBe(first);
    b.wait(1900);
    expect(dests.held[first]).toBe(0);
    expect(pickFor(b, '10.0.3.1')).not.toBe(first);
  });

  it('gives a server that was removed and added again its addresses back; until then they are others’', () => {
    const b = withServers('lblc', 1, 1, 1);
    const { dests } = b.director;
    const d = pickFor(b, '10.0.3.1');
    expect(pickFor(b, '10.0.3.2')).toBe(d);
    expect(dests.ip[d]).toBe(ip4('10.0.2.13'));
    b.run(`-d ${T} -r 10.0.2.13:80`);
    expect(pickFor(b, '10.0.3.2')).not.toBe(d);
    // Remembered for 10.0.3.1, so the trash keeps it.
    b.wait(600);
    expect([dests.held[d], dests.trashed]).toEqual([1, 1]);
    b.run(`-a ${T} -r 10.0.2.13:80 -m`, `-a ${T} -r 10.0.2.14:80 -m`);
    expect(pickFor(b, '10.0.3.1')).toBe(d);
    b.run(`-d ${T} -r 10.0.2.13:80`, `-D ${T}`);
    b.wait(600);
    expect(dests.trashed).toBe(0);
  });
});

describe('lblcr', () => {
  it('takes the most loaded server out of a set that has not changed for lblcr_expiration', () => {
    const b = withServers('lblcr', 1, 1, 1);
    expect(b.director.sysctls.set('net.ipv4.vs.lblcr_expiration', '100')).toBe(null);
    const { dests } = b.director;
    const one = pickFor(b, '10.0.3.1');
    dests.active[one] = 2;
    const two = pickFor(b, '10.0.3.1');
    dests.active[two] = 1;
    expect(two).not.toBe(one);
    expect([dests.held[one], dests.held[two]]).toEqual([1, 1]);
    b.wait(90);
    expect(pickFor(b, '10.0.3.1')).toBe(two);
    b.wait(20);
    expect(pickFor(b, '10.0.3.1')).toBe(two);
    expect([dests.held[one], dests.held[two]]).toEqual([0, 1]);
    // The last one stays.
    b.wait(200);
    pickFor(b, '10.0.3.1');
    expect(dests.held[two]).toBe(1);
  });
});

describe('the memory of lblc and lblcr', () => {
  const address = (i: number) => Math.imul(i, 0x9e3779b1) | 0;

  it('is bounded, and says what went', () => {
    let released = 0;
    const cache = new AddressCache(0, () => released++);
    for (let i = 0; i < 65536; i++) expect(cache.add(address(i), i, 0)).not.toBe(NO_ENTRY);
    expect(cache.add(address(65536), 1, 0)).toBe(NO_ENTRY);
    for (let i = 0; i < 65536; i += 1000) expect(cache.value[cache.use(address(i), 0)]).toBe(i);
    cache.clear();
    expect([released, cache.count, cache.use(address(0), 0)]).toEqual([65536, 0, NO_ENTRY]);
    expect(cache.add(address(65536), 1, 0)).not.toBe(NO_ENTRY);
  });

  it('above 16,384 addresses loses some of those unused for 6 minutes, each minute', () => {
    const gone: number[] = [];
    const cache = new AddressCache(0, (value) => gone.push(value));
    const minute = 60 * 250;
    const forever = 2 ** 31 - 1;
    for (let i = 0; i < 20000; i++) cache.add(address(i), i, 0);
    cache.collect(minute, forever);
    expect(gone).toEqual([]);
    for (let i = 0; i < 1000; i++) cache.use(address(i), 6 * minute);
    cache.collect(7 * minute, forever);
    // A little more than a third over what is too much: 4/3 · 3,616.
    expect(gone.length).toBeGreaterThanOrEqual(4821);
    expect(gone.length).toBeLessThan(4821 + 100);
    expect(gone.every((i) => i >= 1000)).toBe(true);
    expect(cache.count).toBe(20000 - gone.length);
    for (let i = 0; i < 1000; i++) expect(cache.use(address(i), 7 * minute)).not.toBe(NO_ENTRY);
    for (const i of gone) expect(cache.use(address(i), 7 * minute)).toBe(NO_ENTRY);
  });
});

describe('twos', () => {
  it('picks by weight while nobody has connections, the newest a little more often', () => {
    const b = withServers('twos', 1, 2, 1);
    const picks = Array.from({ length: 40 }, () => choices(b)).flat();
    const share = [1, 2, 3].map((server) => picks.filter((s) => s === server).length / picks.length);
    // Shares 1 : 2 : (1 + 1), first choice stands.
    expect(share[0]).toBeCloseTo(0.2, 1);
    expect(share[1]).toBeCloseTo(0.4, 1);
    expect(share[2]).toBeCloseTo(0.4, 1);
  });

  it('prefers the one with fewer connections per weight', () => {
    const b = withServers('twos', 10, 10);
    const { dests, services } = b.director;
    const newest = services.first[0]!;
    dests.active[newest] = 100;
    const picks = Array.from({ length: 4 }, () => choices(b)).flat();
    // Only when both choices fall on it: (11/21)².
    expect(picks.filter((s) => s === 2).length / picks.length).toBeCloseTo(0.27, 1);
  });
});

it('sed and nq send all UDP to one server, as nothing of it counts as active', () => {
  for (const [scheduler, chosen] of [
    ['sed', '10.0.2.12'],
    ['nq', '10.0.2.13'],
    ['fo', '10.0.2.12'],
    ['ovf', '10.0.2.12'],
  ] as const) {
    const b = new Bench();
    const u = `-u ${VIP}:53`;
    b.run(`-A ${u} -s ${scheduler}`, ...[1, 5, 2].map((w, i) => `-a ${u} -r 10.0.2.1${i + 1}:53 -m -w ${w}`));
    for (let i = 0; i < 20; i++) expect(b.send(udpPacket(`10.0.1.9:${3000 + i}`, `${VIP}:53`)).verdict).toBe('reroute');
    const counts = b.servers().filter((line) => !line.endsWith(' 0 0'));
    expect(counts.map((line) => line.split(':')[0])).toEqual([chosen]);
  }
});
