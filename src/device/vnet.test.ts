import { describe, expect, it } from 'vitest';
import { FRAME_ROOM, type Packet } from '../packet/packet.ts';
import { PacketPool } from '../packet/pool.ts';
import * as checksum from '../wire/checksum.ts';
import { crc32c } from '../wire/crc32c.ts';
import * as ipv4 from '../wire/ipv4.ts';
import * as tcp from '../wire/tcp.ts';
import * as udp from '../wire/udp.ts';
import * as vnet from '../wire/virtio-net.ts';
import { completeChecksum, readVnet, writeVnet } from './vnet.ts';

const { NeedsCsum, DataValid } = vnet.VnetFlag;
const { TcpV4, TcpV6, UdpFragment, UdpL4, Ecn } = vnet.GsoType;
const SRC = 0x0a000102;
const DST = 0x0a000164;
const pool = new PacketPool(4);

interface Shape {
  readonly proto: number;
  /** Bytes of data behind the transport header. */
  readonly data: number;
  readonly ipOptions?: number;
  readonly tcpOptions?: number;
  readonly fragment?: number;
  readonly etherType?: number;
}

/** A frame as the kernel hands it over: the checksum field holds the pseudo-header's sum. */
function packet(shape: Shape): Packet {
  const { proto, data, ipOptions = 0, tcpOptions = 0, fragment = 0, etherType = 0x0800 } = shape;
  const p = pool.take(0)!;
  p.bytes.fill(0, p.slotStart, p.slotStart + 4096);
  const m = p.view;
  const l4 = p.l3 + 20 + ipOptions;
  const header = proto === ipv4.IpProto.Tcp ? 20 + tcpOptions : proto === ipv4.IpProto.Sctp ? 12 : 8;
  const length = header + data;
  m.setUint16(p.l2 + 12, etherType);
  ipv4.emit(m, p.l3, 20 + ipOptions + length, proto, SRC, DST, 64, 0, 1, fragment);
  m.setUint8(p.l3, 0x45 + ipOptions / 4);
  for (let i = 0; i < data; i++) m.setUint8(l4 + header + i, i * 5);
  const sum = checksum.fold(checksum.pseudoSum(SRC, DST, proto, length));
  if (proto === ipv4.IpProto.Tcp) {
    tcp.emit(m, l4, 40000, 80, 1, 1, tcp.TcpFlag.Ack, 512);
    m.setUint8(l4 + 12, ((20 + tcpOptions) / 4) << 4);
    tcp.setChecksum(m, l4, sum);
  } else if (proto === ipv4.IpProto.Udp) {
    udp.emit(m, l4, 40000, 53, length);
    udp.setChecksum(m, l4, sum);
  }
  p.end = l4 + length;
  return p;
}

interface Header {
  readonly flags?: number;
  readonly type?: number;
  readonly size?: number;
  readonly start?: number;
  readonly offset?: number;
}

/** Puts the header before the frame, reads it, frees the packet; answers what came of it. */
function read(shape: Shape, header: Header, isIp = false) {
  const p = packet(shape);
  const start = isIp ? p.l3 : p.l2;
  const l4 = p.l3 + 20 + (shape.ipOptions ?? 0);
  const { flags = 0, type = 0, size = 0, start: csumStart = l4 - start, offset = 16 } = header;
  vnet.emit(p.view, start - 10, flags, type, 0, size, csumStart, offset);
  const isGood = readVnet(p, start - 10, start);
  const { csumPartial, csumValid, gsoType, gsoSize } = p;
  const field = l4 + (shape.proto === ipv4.IpProto.Tcp ? 16 : 6);
  const proto = shape.proto;
  const sum = checksum.pseudoSum(SRC, DST, proto, p.end - l4) + checksum.sumBytes(p.view, l4, p.end - l4);
  const stored = p.view.getUint16(field);
  pool.free(p);
  return {
    isGood,
    csumPartial,
    csumValid,
    gsoType,
    gsoSize,
    l4: p.l4 - l4,
    isSumRight: checksum.fold(sum) === 0xffff,
    stored,
  };
}

const TCP = { proto: ipv4.IpProto.Tcp, data: 5000 };
const UDP = { proto: ipv4.IpProto.Udp, data: 5000 };

describe('a received vnet header', () => {
  it('without flags leaves an ordinary packet', () => {
    expect(read(TCP, {})).toMatchObject({ isGood: true, csumPartial: 0, csumValid: 0, gsoType: 0, gsoSize: 0 });
  });

  it('vouches for the checksum with DATA_VALID', () => {
    expect(read(TCP, { flags: DataValid })).toMatchObject({ isGood: true, csumPartial: 0, csumValid: 1 });
  });

  it.each([
    ['TCP', TCP, 16],
    ['UDP', UDP, 6],
    ['TCP with IP options', { ...TCP, ipOptions: 8 }, 16],
    ['TCP with its own options', { ...TCP, tcpOptions: 12 }, 16],
  ])('marks %s as partial when it points at its checksum', (_, shape, offset) => {
    for (const isIp of [false, true]) {
      expect(read(shape, { flags: NeedsCsum, offset }, isIp)).toMatchObject({ isGood: true, csumPartial: 1, l4: 0 });
    }
  });

  it('completes the checksum when it points elsewhere: at a packet inside a tunnel', () => {
    // IPIP: the inner packet begins where this one's transport header would.
    const p = packet({ proto: ipv4.IpProto.IpIp, data: 2000 });
    const inner = p.l3 + 20;
    ipv4.emit(p.view, inner, p.end - inner, ipv4.IpProto.Udp, SRC, DST, 64, 0, 1, 0);
    udp.emit(p.view, inner + 20, 1, 2, p.end - inner - 20);
    const pseudo = checksum.fold(checksum.pseudoSum(SRC, DST, 17, p.end - inner - 20));
    udp.setChecksum(p.view, inner + 20, pseudo);
    vnet.emit(p.view, p.l2 - 10, NeedsCsum, 0, 0, 0, 14 + 40, 6);
    expect(readVnet(p, p.l2 - 10, p.l2)).toBe(true);
    expect(p).toMatchObject({ csumPartial: 0, csumValid: 1 });
    const sum = checksum.pseudoSum(SRC, DST, 17, p.end - inner - 20);
    expect(checksum.fold(sum + checksum.sumBytes(p.view, inner + 20, p.end - inner - 20))).toBe(0xffff);
    pool.free(p);
  });

  it('is refused when the checksum would lie outside the frame', () => {
    expect(read(TCP, { flags: NeedsCsum, start: 6000 }).isGood).toBe(false);
    expect(read(TCP, { flags: NeedsCsum, start: 34, offset: 5019 }).isGood).toBe(false);
    expect(read(TCP, { flags: NeedsCsum, start: 34, offset: 5018 }).isGood).toBe(true);
    expect(read(TCP, { flags: NeedsCsum, start: 0 }).isGood).toBe(false);
    expect(read(TCP, { flags: NeedsCsum, start: 0xffff, offset: 0xffff }).isGood).toBe(false);
  });

  it('computes the CRC that SCTP is owed', () => {
    const p = packet({ proto: ipv4.IpProto.Sctp, data: 33 });
    const l4 = p.l3 + 20;
    vnet.emit(p.view, p.l2 - 10, NeedsCsum, 0, 0, 0, 34, 8);
    expect(readVnet(p, p.l2 - 10, p.l2)).toBe(true);
    expect(p).toMatchObject({ csumPartial: 0, csumValid: 1 });
    expect(p.view.getInt32(l4 + 8, true)).toBe(crc32c(p.bytes, l4, p.end, l4 + 8));
    pool.free(p);
  });

  it.each([
    ['TCPV4', TCP, TcpV4, 16],
    ['TCPV4 with ECN', TCP, TcpV4 | Ecn, 16],
    ['UDP_L4', UDP, UdpL4, 6],
  ])('makes a super-packet of %s', (_, shape, type, offset) => {
    expect(read(shape, { flags: NeedsCsum, type, size: 1448, offset })).toMatchObject({
      isGood: true,
      csumPartial: 1,
      gsoType: type,
      gsoSize: 1448,
    });
  });

  it('makes an ordinary packet of a super-packet with one segment', () => {
    const one = { ...TCP, data: 1448 };
    expect(read(one, { flags: NeedsCsum, type: TcpV4, size: 1448 })).toMatchObject({
      csumPartial: 1,
      gsoType: 0,
      gsoSize: 0,
    });
    expect(read({ ...one, data: 1449 }, { flags: NeedsCsum, type: TcpV4, size: 1448 })).toMatchObject({
      gsoType: TcpV4,
    });
  });

  it('starts the checksum of a super-packet anew when the kernel did not leave it partial', () => {
    const { stored, ...rest } = read(TCP, { type: TcpV4, size: 1448 });
    expect(rest).toMatchObject({ isGood: true, csumPartial: 1, gsoType: TcpV4 });
    expect(stored).toBe(checksum.fold(checksum.pseudoSum(SRC, DST, 6, 5020)));
  });

  it.each([
    ['of another protocol', TCP, UdpL4, 1448],
    ['of a type that is not ours', TCP, TcpV6, 1448],
    ['of UDP fragmentation', UDP, UdpFragment, 1448],
    ['UDP with ECN', UDP, UdpL4 | Ecn, 1448],
    ['without a segment size', TCP, TcpV4, 0],
    ['with a later fragment', { ...TCP, fragment: 5 }, TcpV4, 1448],
    ['with a first fragment', { ...TCP, fragment: ipv4.MF }, TcpV4, 1448],
    ['with an ICMP packet', { proto: 1, data: 3000 }, TcpV4, 1448],
  ])('is refused when it says super-packet %s', (_, shape, type, size) => {
    const offset = shape.proto === 17 ? 6 : 16;
    expect(read(shape, { flags: NeedsCsum, type, size, offset }).isGood).toBe(false);
  });

  it('is refused when a super-packet has its checksum elsewhere', () => {
    expect(read(TCP, { flags: NeedsCsum, type: TcpV4, size: 1448, start: 38 }).isGood).toBe(false);
  });

  it('is left to the gates of link and IP when the frame is no sound IPv4', () => {
    const wild = { flags: NeedsCsum, type: TcpV4, size: 0, start: 60000 };
    expect(read({ ...TCP, etherType: 0x86dd }, wild)).toMatchObject({ isGood: true, csumPartial: 0, gsoType: 0 });
    const p = packet(TCP);
    for (const length of [0, 13, 14, 33]) {
      p.end = p.l2 + length;
      vnet.emit(p.view, p.l2 - 10, NeedsCsum, TcpV4, 0, 1448, 34, 16);
      expect(readVnet(p, p.l2 - 10, p.l2)).toBe(true);
      expect(p).toMatchObject({ csumPartial: 0, gsoType: 0 });
    }
    pool.free(p);
  });

  it('never reads or writes outside its slot, whatever it says', () => {
    const p = packet({ ...TCP, data: 1000 });
    const words = [0, 1, 6, 14, 34, 50, 1033, 1034, 1053, 1054, 0x7fff, 0xfffe, 0xffff];
    const before = p.bytes.slice(p.end, p.end + FRAME_ROOM / 2);
    for (const start of words) {
      for (const offset of words) {
        for (const type of [0, TcpV4, UdpL4, 77]) {
          vnet.emit(p.view, p.l2 - 10, NeedsCsum, type, 0, 100, start, offset);
          readVnet(p, p.l2 - 10, p.l2);
        }
      }
    }
    expect(p.bytes.slice(p.end, p.end + FRAME_ROOM / 2)).toEqual(before);
    pool.free(p);
  });
});

describe('a transmitted vnet header', () => {
  it('says what a received one said', () => {
    for (const [shape, type, offset, header] of [
      [TCP, TcpV4, 16, 54],
      [{ ...TCP, tcpOptions: 12 }, TcpV4 | Ecn, 16, 66],
      [UDP, UdpL4, 6, 42],
      [TCP, 0, 16, 54],
    ] as const) {
      const p = packet(shape);
      vnet.emit(p.view, p.l2 - 10, NeedsCsum, type, 0, type === 0 ? 0 : 1400, 34, offset);
      expect(readVnet(p, p.l2 - 10, p.l2)).toBe(true);
      p.bytes.fill(0xaa, p.l2 - 10, p.l2);
      expect(writeVnet(p, p.l2 - 10, p.l2)).toBe(true);
      const m = p.view;
      expect([vnet.flags(m, p.l2 - 10), vnet.gsoType(m, p.l2 - 10), vnet.gsoSize(m, p.l2 - 10)]).toEqual([
        NeedsCsum,
        type,
        type === 0 ? 0 : 1400,
      ]);
      expect([vnet.csumStart(m, p.l2 - 10), vnet.csumOffset(m, p.l2 - 10), m.getUint16(p.l2 - 8, true)]).toEqual([
        34,
        offset,
        header,
      ]);
      pool.free(p);
    }
  });

  it('is all zero for an ordinary packet', () => {
    const p = packet(TCP);
    p.csumValid = 1;
    p.bytes.fill(0xaa, p.l2 - 10, p.l2);
    expect(writeVnet(p, p.l2 - 10, p.l2)).toBe(true);
    expect([...p.bytes.slice(p.l2 - 10, p.l2)]).toEqual(new Array(10).fill(0));
    pool.free(p);
  });

  it('points into the tunnel when an encapsulated packet is partial, and is refused for a super-packet there', () => {
    const p = packet({ ...UDP, data: 1000 });
    p.l4 = p.l3 + 20;
    p.proto = 17;
    p.csumPartial = 1;
    // As the director does: an outer header to the left, l4 at the inner IP header.
    p.l4 = p.l3;
    p.l3 -= 20;
    p.l2 = p.l3 - 14;
    p.proto = ipv4.IpProto.IpIp;
    expect(writeVnet(p, p.l2 - 10, p.l2)).toBe(true);
    expect(vnet.csumStart(p.view, p.l2 - 10)).toBe(14 + 20 + 20);
    expect(vnet.csumOffset(p.view, p.l2 - 10)).toBe(6);
    p.gsoType = UdpL4;
    p.gsoSize = 100;
    expect(writeVnet(p, p.l2 - 10, p.l2)).toBe(false);
    pool.free(p);
  });

  it('is refused for a partial checksum of a protocol without one', () => {
    const p = packet({ proto: 1, data: 100 });
    p.l4 = p.l3 + 20;
    p.proto = 1;
    p.csumPartial = 1;
    expect(writeVnet(p, p.l2 - 10, p.l2)).toBe(false);
    pool.free(p);
  });
});

describe('completing a checksum in software', () => {
  it.each([
    ['TCP', TCP],
    ['UDP', UDP],
    ['UDP of an odd length', { ...UDP, data: 77 }],
  ])('is right for %s', (_, shape) => {
    const p = packet(shape);
    p.l4 = p.l3 + 20;
    p.proto = shape.proto;
    p.csumPartial = 1;
    expect(completeChecksum(p)).toBe(true);
    expect(p.csumPartial).toBe(0);
    const sum = checksum.pseudoSum(SRC, DST, shape.proto, p.end - p.l4);
    expect(checksum.fold(sum + checksum.sumBytes(p.view, p.l4, p.end - p.l4))).toBe(0xffff);
    pool.free(p);
  });

  it('never writes zero into UDP, where it means that there is none', () => {
    const p = packet({ ...UDP, data: 2 });
    p.l4 = p.l3 + 20;
    p.proto = 17;
    p.csumPartial = 1;
    // Choose the data so that the sum is all ones.
    const l4 = p.l4;
    p.view.setUint16(l4 + 8, 0);
    const rest = checksum.sumBytes(p.view, l4, 10);
    p.view.setUint16(l4 + 8, 0xffff - rest);
    expect(completeChecksum(p)).toBe(true);
    expect(udp.checksum(p.view, l4)).toBe(0xffff);
    pool.free(p);
  });

  it('refuses a super-packet', () => {
    const p = packet(TCP);
    p.csumPartial = 1;
    p.gsoType = TcpV4;
    p.gsoSize = 1000;
    expect(completeChecksum(p)).toBe(false);
    pool.free(p);
  });
});

describe('CRC-32C', () => {
  it('gives the check value of the RFC 3720 test vectors', () => {
    const bytes = new Uint8Array(36);
    expect(crc32c(bytes, 0, 32, -1)).toBe(0x8a9136aa | 0);
    bytes.fill(0xff);
    expect(crc32c(bytes, 0, 32, -1)).toBe(0x62a8ab43 | 0);
    const nine = new TextEncoder().encode('123456789');
    expect(crc32c(nine, 0, 9, -1)).toBe(0xe3069283 | 0);
    bytes.fill(0);
    bytes.fill(0x77, 8, 12);
    expect(crc32c(bytes, 0, 32, 8)).toBe(0x8a9136aa | 0);
  });
});
