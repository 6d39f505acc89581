/** A packet with another end must be the packet that would have been built with that end, checksums and all. */
import { describe, expect, it } from 'vitest';
import { PacketPool } from '../packet/pool.ts';
import { ip4 } from '../wire/addr.ts';
import { type FrameBuilder, frame, verifyFrame } from '../wire/build.ts';
import { headerLength, proto } from '../wire/ipv4.ts';
import { drawHeaders, errorFault, rewriteError } from './icmp-error.ts';
import { rewrite } from './rewrite.ts';

const [A, B, C] = ['10.1.0.2', '10.2.0.2', '192.0.2.77'] as const;
const pool = new PacketPool(1);

function load(bytes: Uint8Array, csumPartial = 0) {
  const p = pool.take(bytes.length + 14)!;
  p.bytes.set(bytes, p.l3);
  p.l4 = p.l3 + headerLength(p.view, p.l3);
  p.end = p.l3 + bytes.length;
  p.proto = proto(p.view, p.l3);
  p.csumPartial = csumPartial;
  return p;
}

/** The bytes afterwards, null when it was refused. */
function rewritten(bytes: Uint8Array, isSource: boolean, ip: string, port: number, csumPartial = 0): Uint8Array | null {
  const p = load(bytes, csumPartial);
  const isDone = rewrite(p, p.l3, isSource, ip4(ip), port);
  const after = p.bytes.slice(p.l3, p.end);
  pool.free(p);
  return isDone ? after : null;
}

type Make = (src: string, dst: string, srcPort: number, dstPort: number) => FrameBuilder;
const head = (src: string, dst: string, more = {}) =>
  frame().ipv4(src, dst, { id: 7, options: [148, 4, 0, 0], ...more });

/** UDP-Lite and GRE by hand: their builders do not exist. */
function udpLite(src: string, dst: string, srcPort: number, dstPort: number): FrameBuilder {
  const bytes = frame().ipv4(src, dst, { proto: 17 }).udp({ srcPort, dstPort }).payload('abc').build().slice(20);
  bytes[4] = 0;
  bytes[5] = 0;
  bytes[6] = 0;
  bytes[7] = 0;
  const word = (at: number) => (bytes[at]! << 8) | (bytes[at + 1] ?? 0);
  let sum = 136 + bytes.length;
  for (let i = 0; i < bytes.length; i += 2) sum += word(i);
  for (const address of [ip4(src), ip4(dst)]) sum += (address >>> 16) + (address & 0xffff);
  while (sum > 0xffff) sum = (sum & 0xffff) + (sum >>> 16);
  bytes[6] = (~sum >> 8) & 0xff;
  bytes[7] = ~sum & 0xff;
  return frame().ipv4(src, dst, { proto: 136 }).payload(bytes);
}

const PROTOCOLS: Record<string, Make> = {
  tcp: (s, d, srcPort, dstPort) =>
    head(s, d)
      .tcp({ srcPort, dstPort, flags: 'S', options: [2, 4, 5, 180] })
      .payload('x'),
  'tcp, partial': (s, d, srcPort, dstPort) => head(s, d).tcp({ srcPort, dstPort, partialChecksum: true }).payload(99),
  udp: (s, d, srcPort, dstPort) => head(s, d).udp({ srcPort, dstPort }).payload('hello'),
  'udp, partial': (s, d, srcPort, dstPort) => head(s, d).udp({ srcPort, dstPort, partialChecksum: true }).payload(99),
  'udp without checksum': (s, d, srcPort, dstPort) =>
    head(s, d).udp({ srcPort, dstPort, checksum: 0 }).payload('hello'),
  sctp: (s, d, srcPort, dstPort) => head(s, d).sctp({ srcPort, dstPort, chunks: [{ type: 1, value: 16 }] }),
  'udp-lite': udpLite,
  'protocol 99': (s, d) => head(s, d, { proto: 99 }).payload('anything'),
};

describe('rewrite', () => {
  it.each(Object.entries(PROTOCOLS))('%s', (name, make) => {
    const partial = name.includes('partial') ? 1 : 0;
    for (let port = 1; port < 65536; port += 1777) {
      const before = make(A, B, port, 80).build();
      expect(rewritten(before, true, C, 40000, partial)).toEqual(make(C, B, 40000, 80).build());
      expect(rewritten(before, false, C, 8080, partial)).toEqual(make(A, C, port, 8080).build());
      expect(rewritten(before, true, A, port, partial)).toEqual(before);
    }
  });

  it('leaves a wrong checksum wrong, and a right one of UDP never 0', () => {
    const bad = head(A, B).udp({ srcPort: 1, dstPort: 2, checksum: 0x1234 }).payload('x').build();
    expect(verifyFrame(rewritten(bad, true, C, 3)!, { isIp: true })).toEqual(['UDP checksum wrong']);
    for (let port = 0; port < 65536; port++) {
      const after = rewritten(PROTOCOLS.udp!(A, B, 1, 2).build(), true, C, port)!;
      if (after[30] === 0 && after[31] === 0) expect.fail(`port ${port}`);
    }
  });

  it('of ICMP the id, of requests and replies alone', () => {
    const echo = (src: string, id: number, type = 8) => head(src, B).icmp({ type, id, seq: 1 }).payload('ping').build();
    expect(rewritten(echo(A, 77), true, C, 78)).toEqual(echo(C, 78));
    expect(rewritten(echo(A, 77, 0), true, C, 78)).toEqual(echo(C, 78, 0));
    const error = (src: string) => head(src, B).icmp({ type: 3, code: 3 }).payload(28).build();
    expect(rewritten(error(A), true, C, 78)).toEqual(error(C));
  });

  it('of GRE the call id that its receiver knows, in version 1', () => {
    const gre = (dst: string, version: number, key: number) =>
      head(A, dst, { proto: 47 })
        .payload(Uint8Array.of(0x20, version, 0x88, 0x0b, 0, 0, key >> 8, key & 255, 1, 2))
        .build();
    expect(rewritten(gre(B, 1, 7), false, C, 0x1234)).toEqual(gre(C, 1, 0x1234));
    expect(rewritten(gre(B, 0, 7), false, C, 0x1234)).toEqual(gre(C, 0, 7));
    expect(rewritten(gre(B, 2, 7), false, C, 0x1234)).toBeNull();
  });

  it.each([
    ['tcp', 6, 7],
    ['udp', 17, 7],
    ['sctp', 132, 7],
    ['icmp', 1, 7],
    ['gre', 47, 7],
  ])('refuses %s that is cut before its ports and checksum are over', (_name, protocol, length) => {
    expect(rewritten(head(A, B, { proto: protocol }).payload(length).build(), true, C, 1)).toBeNull();
  });
});

describe('an ICMP error', () => {
  const quoted = (src: string, srcPort: number) =>
    frame().ipv4(src, B, { id: 3, ttl: 9 }).udp({ srcPort, dstPort: 53 }).payload(40).build();
  const error = (dst: string, inner: Uint8Array, type = 3) =>
    head(B, dst).icmp({ type, code: 3 }).payload(inner).build();

  it.each([8, 20, 48])('tells with %i bytes of the transport what its reader knows', (length) => {
    const before = error(C, quoted(C, 40000).slice(0, 20 + length));
    const p = load(before);
    expect(errorFault(p, true)).toBe(0);
    expect(rewriteError(p, false, ip4(A), 1234)).toBe(true);
    const after = p.bytes.slice(p.l3, p.end);
    pool.free(p);
    expect(after).toEqual(error(A, quoted(A, 1234).slice(0, 20 + length)));
  });

  /** Of a datagram in pieces the first one holds what was looked at: ICMP header 8, quoted IPv4 header 20, and what is touched behind it. */
  it.each([
    ['tcp', frame().ipv4(C, B).tcp({ srcPort: 1, dstPort: 2 }).payload(40), 60, 48],
    ['tcp, cut before its checksum', frame().ipv4(C, B).tcp({ srcPort: 1, dstPort: 2 }), 28, 36],
    ['udp', frame().ipv4(C, B).udp({ srcPort: 1, dstPort: 2 }).payload(40), 60, 36],
    [
      'udp behind options',
      frame()
        .ipv4(C, B, { options: [148, 4, 0, 0] })
        .udp({ srcPort: 1, dstPort: 2 }),
      32,
      40,
    ],
    ['icmp', frame().ipv4(C, B).icmp({ type: 8, id: 1, seq: 1 }).payload(40), 60, 36],
    ['another protocol', frame().ipv4(C, B, { proto: 50 }).payload(40), 60, 28],
  ])('about %s draws no more together than it has looked at', (_, inner, length, drawn) => {
    for (const fragMax of [1480, 0]) {
      const p = load(error(C, inner.build().slice(0, length)));
      p.fragMax = fragMax;
      drawHeaders(p);
      expect(p.drawn).toBe(fragMax === 0 ? 0 : 28);
      expect(rewriteError(p, false, ip4(A), 1234)).toBe(true);
      expect(p.drawn).toBe(fragMax === 0 ? 0 : drawn);
      pool.free(p);
    }
  });

  it('is refused when it is short, wrong, or a redirect of what is translated', () => {
    const fault = (bytes: Uint8Array, isTranslated: boolean) => {
      const p = load(bytes);
      const reason = errorFault(p, isTranslated);
      pool.free(p);
      return reason !== 0;
    };
    expect(fault(error(C, quoted(C, 1), 5), true)).toBe(true);
    expect(fault(error(C, quoted(C, 1), 5), false)).toBe(false);
    expect(fault(error(C, quoted(C, 1).slice(0, 19)), false)).toBe(true);
    const broken = error(C, quoted(C, 1));
    broken[40]! ^= 1;
    expect(fault(broken, false)).toBe(true);
  });
});
