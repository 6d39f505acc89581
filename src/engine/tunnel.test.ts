/**
 * Tunnelled packets through the whole pipeline: what leaves is unwrapped again, and must be what came in but for its TTL.
 *
 *   client 10.0.1.2 ── front ── engine ── back ── servers 10.0.2.11 (IPIP) .12 (GUE) .13 (GUE, checksum) .14 (GUE, remcsum) .15 (GRE) .16 (GRE, checksum)
 */
import { beforeEach, describe, expect, it } from 'vitest';
import { ManualClock, seconds } from '../base/clock.ts';
import { SeededRng } from '../base/rng.ts';
import { MemoryDevice, type Offload } from '../device/memory.ts';
import type { IpvsCommand, TunnelType } from '../model/ipvs.ts';
import { Drop } from '../packet/drop.ts';
import { mac } from '../wire/addr.ts';
import { describeFrame, describePacket, type FrameBuilder, frame, verifyFrame } from '../wire/build.ts';
import { sumBytes } from '../wire/checksum.ts';
import * as gre from '../wire/gre.ts';
import * as gue from '../wire/gue.ts';
import * as ipv4 from '../wire/ipv4.ts';
import { GsoType } from '../wire/virtio-net.ts';
import { Engine } from './engine.ts';

const [CLIENT, FRONT, BACK, SERVER] = [
  '02:00:00:00:01:02',
  '02:00:00:00:01:01',
  '02:00:00:00:02:01',
  '02:00:00:00:02:0b',
];
const VIP = '10.0.1.100';

/** Port of the service, its server, how it is tunnelled, and the bytes before the inner packet (for an open checksum). */
const KINDS = [
  { port: 1, rip: '10.0.2.11', type: 'ipip', checksum: 'none', overhead: 20, open: 20 },
  { port: 2, rip: '10.0.2.12', type: 'gue', checksum: 'none', overhead: 32, open: 32 },
  { port: 3, rip: '10.0.2.13', type: 'gue', checksum: 'csum', overhead: 32, open: 32 },
  { port: 4, rip: '10.0.2.14', type: 'gue', checksum: 'remcsum', overhead: 32, open: 40 },
  { port: 5, rip: '10.0.2.15', type: 'gre', checksum: 'none', overhead: 24, open: 24 },
  { port: 6, rip: '10.0.2.16', type: 'gre', checksum: 'csum', overhead: 28, open: 28 },
] as const;

class Bench {
  readonly clock = new ManualClock(0);
  readonly engine = new Engine({ clock: this.clock, rng: new SeededRng(1), maxConnections: 100, maxPackets: 512 });
  readonly front = this.#device('front', FRONT);
  readonly back = this.#device('back', BACK);

  constructor() {
    this.engine.executeIp([
      { op: 'addr-add', device: 'front', address: '10.0.1.1', prefixLength: 24 },
      { op: 'addr-add', device: 'front', address: VIP, prefixLength: 32 },
      { op: 'addr-add', device: 'back', address: '10.0.2.1', prefixLength: 24 },
      { op: 'neigh-replace', device: 'front', address: '10.0.1.2', mac: CLIENT! },
      ...KINDS.map(({ rip }) => ({ op: 'neigh-replace', device: 'back', address: rip, mac: SERVER! }) as const),
    ]);
    const commands = KINDS.flatMap(({ port, rip, type, checksum }): IpvsCommand[] =>
      (['tcp', 'udp'] as const).flatMap((protocol): IpvsCommand[] => {
        const key = { kind: 'address', protocol, address: VIP, port } as const;
        const tunnel = { type: type as TunnelType, port: type === 'gue' ? 6080 : 0, checksum };
        const thresholds = { upperThreshold: 0, lowerThreshold: 0 };
        return [
          { op: 'add-service', service: { key, scheduler: 'rr', schedulerFlags: 0, ops: false } },
          {
            op: 'add-server',
            service: key,
            server: { key: { address: rip, port }, method: 'tunnel', weight: 1, ...thresholds, tunnel },
          },
        ];
      }),
    );
    expect(this.engine.director.execute(commands)).toEqual(commands.map(() => null));
    this.engine.breathe();
    this.front.takeSent();
    this.back.takeSent();
  }

  #device(name: string, address: string): MemoryDevice {
    const { hi, lo } = mac(address);
    const d = new MemoryDevice(this.engine.pool, { name, macHi: hi, macLo: lo, drops: this.engine.drops });
    this.engine.addDevice(d);
    return d;
  }

  /** Packets (from the IPv4 header on) that left at the back for one that came in at the front. */
  send(packet: FrameBuilder | Uint8Array, offload: Offload = {}, device = this.front): Uint8Array[] {
    device.inject(packet instanceof Uint8Array ? packet : packet.build(), offload);
    this.engine.breathe();
    return this.back.takeSent().map((sent) => {
      expect([sent.csumPartial, sent.gsoType]).toEqual([0, 0]);
      return sent.bytes.slice(14);
    });
  }

  toClient(): string[] {
    return this.front.takeSent().map(({ bytes }) => {
      expect(verifyFrame(bytes)).toEqual([]);
      return describeFrame(bytes).replace(/^\S+ > \S+ /, '');
    });
  }

  dropped(reason: number): number {
    return this.engine.drops[reason]!;
  }

  wait(time: number): void {
    this.clock.advance(seconds(time));
    this.engine.breathe();
  }
}

const syn = (port: number) => client().tcp({ srcPort: 7000, dstPort: port, flags: 'S' });
const client = (fields: Parameters<FrameBuilder['ipv4']>[2] = { df: true }) =>
  frame().eth(FRONT!, CLIENT!).ipv4('10.0.1.2', VIP, fields);
const view = (bytes: Uint8Array) => new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);

/** The inner packet, after all of the outer one was checked; a checksum that was left to the server is completed as it would. */
function open(outer: Uint8Array, type: TunnelType, checksum: string): { inner: Uint8Array; overhead: number } {
  expect(verifyFrame(outer, { isIp: true }).filter((fault) => !fault.startsWith('inner'))).toEqual([]);
  const m = view(outer);
  let at = 20;
  if (type === 'gue') {
    expect(ipv4.proto(m, 0)).toBe(17);
    expect([m.getUint16(22), m.getUint16(26) === 0]).toEqual([6080, checksum === 'none']);
    expect(gue.check(m, 28, outer.length)).toBe(0);
    at = 28 + gue.headerLength(m, 28);
    if (gue.hasRemcsum(m, 28)) {
      const from = at + gue.remcsumStart(m, 28);
      const sum = ~sumBytes(m, from, outer.length - from) & 0xffff;
      m.setUint16(at + gue.remcsumPlace(m, 28), sum === 0 ? 0xffff : sum);
    }
  } else if (type === 'gre') {
    expect([ipv4.proto(m, 0), gre.check(m, 20, outer.length), gre.hasChecksum(m, 20)]).toEqual([
      47,
      0,
      checksum === 'csum',
    ]);
    if (checksum === 'csum') expect(gre.isChecksumRight(m, 20, outer.length)).toBe(true);
    at = 20 + gre.headerLength(m, 20);
  } else {
    expect(ipv4.proto(m, 0)).toBe(4);
  }
  const inner = outer.slice(at);
  expect(verifyFrame(inner, { isIp: true })).toEqual([]);
  expect(view(inner).getUint16(2)).toBe(inner.length);
  return { inner, overhead: at };
}

describe.each(KINDS)(
  'a tunnel of $type, checksum $checksum',
  ({ port, rip, type, checksum, overhead, open: openOverhead }) => {
    let b: Bench;
    beforeEach(() => {
      b = new Bench();
    });

    it('carries a packet as it came, one hop less', () => {
      const out = b.send(
        client({ df: true, tos: 0x10 }).tcp({ srcPort: 7000, dstPort: port, flags: 'S' }).payload('odd'),
      );
      expect(out).toHaveLength(1);
      const m = view(out[0]!);
      expect([ipv4.ttl(m, 0), ipv4.tos(m, 0), ipv4.id(m, 0), ipv4.hasDf(m, 0)]).toEqual([63, 0x10, 0, true]);
      expect(describePacket(out[0]!)).toContain(`10.0.2.1`);
      expect(describePacket(out[0]!)).toContain(rip);
      const opened = open(out[0]!, type, checksum);
      expect(opened.overhead).toBe(overhead);
      expect(describePacket(opened.inner)).toBe(
        `IP 10.0.1.2.7000 > ${VIP}.${port}: tcp [S] seq 0 ack 0 win 65535 len 3 (ttl 63 id 0 tos 0x10 DF)`,
      );
    });

    it('carries one whose checksum is still open', () => {
      const udp = client().udp({ srcPort: 7000, dstPort: port, partialChecksum: true }).payload('some data');
      const opened = open(b.send(udp, { csumPartial: 1 })[0]!, type, checksum);
      expect(opened.overhead).toBe(openOverhead);
      expect(describePacket(opened.inner)).toContain(`7000 > ${VIP}.${port}: udp len 9`);
    });

    it.each([
      ['TCP', GsoType.TcpV4],
      ['UDP', GsoType.UdpL4],
    ] as const)('cuts a super-packet of %s into segments, each whole in its own outer packet', (name, gsoType) => {
      const head = client({ df: true, id: 9 });
      const payload = Uint8Array.from({ length: 4001 }, (_, i) => (i * 7) & 255);
      const transport =
        name === 'TCP'
          ? head.tcp({ srcPort: 7000, dstPort: port, flags: 'SP', seq: 100, partialChecksum: true })
          : head.udp({ srcPort: 7000, dstPort: port, partialChecksum: true });
      const out = b.send(transport.payload(payload), { csumPartial: 1, gsoType, gsoSize: 1200 });
      const pieces = out.map((outer) => open(outer, type, checksum));
      expect(out.map((outer) => ipv4.id(view(outer), 0))).toEqual([0, 1, 2, 3]);
      expect(pieces.map(({ inner }) => ipv4.id(view(inner), 0))).toEqual([9, 10, 11, 12]);
      expect(pieces.map((piece) => piece.overhead)).toEqual([openOverhead, openOverhead, openOverhead, openOverhead]);
      const header = name === 'TCP' ? 40 : 28;
      expect(pieces.map(({ inner }) => inner.length - header)).toEqual([1200, 1200, 1200, 401]);
      expect(Uint8Array.from(pieces.flatMap(({ inner }) => [...inner.slice(header)]))).toEqual(payload);
      if (name === 'TCP') {
        expect(pieces.map(({ inner }) => view(inner).getInt32(24))).toEqual([100, 1300, 2500, 3700]);
        expect(pieces.map(({ inner }) => inner[33]! & 8)).toEqual([0, 0, 0, 8]);
      }
      expect(b.engine.stack.stats.held).toBe(0);
    });

    it('tells a client with DF the MTU that is left, to the byte', () => {
      const fits = 1500 - overhead;
      const datagram = (length: number) =>
        client()
          .udp({ srcPort: 7000, dstPort: port })
          .payload(length - 28);
      expect(b.send(datagram(fits))[0]).toHaveLength(1500);
      expect(b.send(datagram(fits + 1))).toEqual([]);
      expect(b.toClient()[0]).toContain(`icmp error 3/4 mtu ${fits}`);
    });

    it('is cut into fragments for a client without DF, or when pmtu_disc is 0', () => {
      const long = (df: boolean) => client({ df, id: 7 }).udp({ srcPort: 7000, dstPort: port }).payload(1472);
      const check = (out: Uint8Array[]) => {
        expect(out.map((f) => ipv4.fragmentWord(view(f), 0))).toEqual([0x2000, 185]);
        const joined = Uint8Array.from([...out[0]!, ...out[1]!.slice(20)]);
        ipv4.setTotalLength(view(joined), 0, joined.length);
        ipv4.setFragmentWord(view(joined), 0, 0);
        ipv4.fillChecksum(view(joined), 0);
        expect(open(joined, type, checksum).inner).toHaveLength(1500);
        expect(ipv4.id(view(out[0]!), 0)).toBe(ipv4.id(view(out[1]!), 0));
      };
      check(b.send(long(false)));
      b.engine.director.sysctls.set('pmtu_disc', '0');
      check(b.send(long(true)));
      expect(ipv4.hasDf(view(b.send(syn(port))[0]!), 0)).toBe(false);
      expect(b.toClient()).toEqual([]);
    });

    it('gives what it learns of the path to the client, and forgets it after ten minutes', () => {
      const outer = b.send(client().udp({ srcPort: 7000, dstPort: port }).payload(1000))[0]!;
      const tooBig = (mtu: number) =>
        frame()
          .eth(BACK!, SERVER!)
          .ipv4('10.0.2.77', '10.0.2.1')
          .icmp({ type: 3, code: 4, mtu })
          .payload(outer.slice(0, 128))
          .build();
      expect(b.send(tooBig(1200), {}, b.back)).toEqual([]);
      expect(b.toClient()).toEqual([
        expect.stringMatching(
          new RegExp(`^IP ${VIP} > 10.0.1.2: icmp error 3/4 mtu \\d+ { IP 10.0.1.2.7000 > ${VIP}.${port}: udp`),
        ),
      ]);
      expect([b.dropped(Drop.TunnelErrorRelayed), b.dropped(Drop.TunnelErrorTaken)]).toEqual([1, 0]);
      // Once as the tunnel's error, and once as our own ICMP error to the client, 28 bytes longer.
      expect(b.engine.director.totals()).toMatchObject({ outPkts: 2, outBytes: 2 * (128 - overhead) + 28 });
      const datagram = (length: number) =>
        client()
          .udp({ srcPort: 7000, dstPort: port })
          .payload(length - 28);
      expect(b.send(datagram(1200 - overhead))).toHaveLength(1);
      expect(b.send(datagram(1201 - overhead))).toHaveLength(0);
      expect(b.toClient()[0]).toContain(`icmp error 3/4 mtu ${1200 - overhead} `);
      // Without DF the outer packet is cut at the path's MTU.
      expect(
        b.send(client({}).udp({ srcPort: 7000, dstPort: port }).payload(1300)).map((f) => f.length <= 1200),
      ).toEqual([true, true]);
      b.wait(601);
      expect(b.send(datagram(1201 - overhead))).toHaveLength(1);
    });

    it('takes the path MTU silently when the client’s packet had no DF', () => {
      const outer = b.send(client({}).udp({ srcPort: 7000, dstPort: port }).payload(1000))[0]!;
      const tooBig = frame().eth(BACK!, SERVER!).ipv4('10.0.2.77', '10.0.2.1').icmp({ type: 3, code: 4, mtu: 900 });
      b.send(tooBig.payload(outer.slice(0, 128)), {}, b.back);
      expect([b.toClient(), b.dropped(Drop.TunnelErrorTaken)]).toEqual([[], 1]);
      expect(b.send(client({}).udp({ srcPort: 7000, dstPort: port }).payload(1000))).toHaveLength(2);
    });

    it('relays other errors with type and code, quoting the client’s packet', () => {
      const outer = b.send(syn(port))[0]!;
      for (const [t, code] of [
        [3, 1],
        [3, 3],
        [11, 0],
      ] as const) {
        b.wait(2);
        b.send(frame().eth(BACK!, SERVER!).ipv4(rip, '10.0.2.1').icmp({ type: t, code }).payload(outer), {}, b.back);
        expect(b.toClient()).toEqual([expect.stringContaining(`IP ${VIP} > 10.0.1.2: icmp error ${t}/${code}`)]);
      }
      // What is no error about this very tunnel is for whoever else it may concern.
      const other = outer.slice();
      ipv4.setDst(view(other), 0, view(new Uint8Array([10, 0, 2, 99])).getInt32(0));
      ipv4.fillChecksum(view(other), 0);
      b.wait(2);
      b.send(frame().eth(BACK!, SERVER!).ipv4(rip, '10.0.2.1').icmp({ type: 3, code: 1 }).payload(other), {}, b.back);
      expect([b.toClient(), b.dropped(Drop.TunnelErrorRelayed), b.dropped(Drop.IcmpUnhandled)]).toEqual([[], 3, 1]);
      // A bad checksum ends it.
      const bad = frame()
        .eth(BACK!, SERVER!)
        .ipv4(rip, '10.0.2.1')
        .icmp({ type: 3, code: 1, checksum: 1 })
        .payload(outer);
      b.send(bad, {}, b.back);
      expect([b.toClient(), b.dropped(Drop.DirectorIcmpBad)]).toEqual([[], 1]);
    });
  },
);

describe('tunnels', () => {
  it('copy the TOS; a congestion mark becomes ECT(0) (RFC 3168 §9.1.1)', () => {
    const b = new Bench();
    const tos = [0, 1, 2, 3, 0xb8, 0xbb].map((value) => {
      const out = b.send(client({ tos: value }).udp({ srcPort: 7000, dstPort: 1 }).payload('x'))[0]!;
      expect(ipv4.tos(view(open(out, 'ipip', 'none').inner), 0)).toBe(value);
      return ipv4.tos(view(out), 0);
    });
    expect(tos).toEqual([0, 1, 2, 2, 0xb8, 0xba]);
  });

  it('count TTL before they wrap', () => {
    const b = new Bench();
    expect(b.send(client({ ttl: 1 }).udp({ srcPort: 7000, dstPort: 1 }).payload('x'))).toEqual([]);
    expect(b.toClient()[0]).toContain('icmp error 11/0');
    expect(ipv4.ttl(view(b.send(client({ ttl: 2 }).udp({ srcPort: 7000, dstPort: 1 }).payload('x'))[0]!), 0)).toBe(1);
  });

  it('do not judge an ICMP error of the client by its length, nor a super-packet by more than its segments', () => {
    const b = new Bench();
    b.send(client().udp({ srcPort: 7000, dstPort: 1 }).payload('x'));
    const answer = frame().ipv4(VIP, '10.0.1.2').udp({ srcPort: 1, dstPort: 7000 }).payload(1440).build();
    const out = b.send(client().icmp({ type: 3, code: 3 }).payload(answer));
    expect(out.map((f) => f.length)).toEqual([1500, 36]);
    const gso = { csumPartial: 1, gsoType: GsoType.TcpV4 };
    const stream = () => client().tcp({ srcPort: 7000, dstPort: 1, flags: 'S', partialChecksum: true }).payload(2881);
    expect(b.send(stream(), { ...gso, gsoSize: 1440 }).map((f) => f.length)).toEqual([1500, 1500, 61]);
    expect(b.send(stream(), { ...gso, gsoSize: 1441 })).toEqual([]);
    expect(b.toClient()[0]).toContain('mtu 1480');
  });

  it('keep a flow on one source port, and flows apart', () => {
    const b = new Bench();
    const port = (srcPort: number) =>
      view(b.send(client().udp({ srcPort, dstPort: 2 }).payload('x'))[0]!).getUint16(20);
    const ports = [1, 2, 3, 4, 5, 6].map(port);
    expect(new Set(ports).size).toBe(6);
    expect([1, 2, 3, 4, 5, 6].map(port)).toEqual(ports);
    expect(ports.every((p) => p >= 32768 && p < 60999)).toBe(true);
  });

  it('need 68 bytes for the client', () => {
    const b = new Bench();
    const datagram = () => b.send(client({}).udp({ srcPort: 7000, dstPort: 1 }).payload('x'));
    b.engine.executeIp([{ op: 'link-set', device: 'back', mtu: 88 }]);
    expect(datagram()).toHaveLength(1);
    b.engine.executeIp([{ op: 'link-set', device: 'back', mtu: 87 }]);
    expect([datagram(), b.dropped(Drop.DirectorTunnelMtu), b.toClient()]).toEqual([[], 1, []]);
  });
});
