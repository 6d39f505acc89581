/** Fragmented datagrams through the director: NAT both ways, direct routing, IPIP. What leaves is put together again and compared with what was sent. */
import { beforeEach, describe, expect, it } from 'vitest';
import type { SentFrame } from '../device/memory.ts';
import { describePacket, frame, verifyFrame } from '../wire/build.ts';
import { ExplainRig, RIG_MAC } from './explain-rig.ts';
import { CLIENT, FilterRig, OURS } from './filter-rig.ts';

let rig: ExplainRig;

/** A datagram of 3,000 bytes in frames of its fragments. */
function datagram(from: string, to: string, lladdr: readonly [string, string], cuts = [0, 1480, 2960]): Uint8Array[] {
  const [src, srcPort] = from.split(':') as [string, string];
  const [dst, dstPort] = to.split(':') as [string, string];
  const ports = { srcPort: Number(srcPort), dstPort: Number(dstPort) };
  const body = frame().ipv4(src, dst).udp(ports).payload(3000).build().slice(20);
  return cuts.map((at, i) => {
    const end = cuts[i + 1] ?? body.length;
    return frame()
      .eth(...lladdr)
      .ipv4(src, dst, { id: 9, proto: 17, offset: at, mf: end < body.length })
      .payload(body.slice(at, end))
      .build();
  });
}

const toVip = () => datagram('10.0.1.2:4000', '10.0.1.100:53', [RIG_MAC.front, RIG_MAC.client]);
const toClient = () => datagram('10.0.2.11:53', '10.0.1.2:4000', [RIG_MAC.back, '02:00:00:00:02:11']);

/** The IPv4 packets of frames, put together again: one line, checksums verified. */
function whole(sent: readonly { readonly frame: SentFrame }[], skip = 0): { line: string; pieces: number } {
  const packets = sent.map(({ frame: f }) => f.bytes.slice(14));
  const body: number[] = [];
  for (const packet of packets) {
    const view = new DataView(packet.buffer);
    expect((view.getUint16(6) & 0x1fff) * 8).toBe(body.length);
    body.push(...packet.slice(20));
  }
  const bytes = Uint8Array.from([...packets[0]!.slice(0, 20), ...body]);
  const view = new DataView(bytes.buffer);
  view.setUint16(2, bytes.length);
  view.setUint16(6, 0);
  view.setUint16(10, 0);
  let sum = 0;
  for (let i = 0; i < 20; i += 2) sum += view.getUint16(i);
  view.setUint16(10, ~((sum & 0xffff) + (sum >>> 16)));
  expect(verifyFrame(bytes.slice(skip), { isIp: true })).toEqual([]);
  return { line: describePacket(bytes.slice(skip)), pieces: packets.length };
}

function sendAll(device: 'front' | 'back', pieces: Uint8Array[]) {
  return pieces.flatMap((bytes) => rig.send(rig[device], bytes));
}

beforeEach(() => {
  rig = new ExplainRig();
  expect(rig.run('-A -u 10.0.1.100:53 -s rr')).toEqual([null]);
});

describe('a fragmented datagram', () => {
  it.each([
    ['in order', [0, 1, 2]],
    ['backwards', [2, 1, 0]],
  ])('is balanced by NAT, and so is its fragmented answer (%s)', (_name, order) => {
    rig.run('-a -u 10.0.1.100:53 -r 10.0.2.11:53 -m');
    const request = sendAll(
      'front',
      order.map((i) => toVip()[i]!),
    );
    expect(whole(request)).toEqual({
      line: expect.stringContaining('10.0.1.2.4000 > 10.0.2.11.53: udp len 3000'),
      pieces: 3,
    });
    const answer = sendAll(
      'back',
      order.map((i) => toClient()[i]!),
    );
    expect(whole(answer)).toEqual({
      line: expect.stringContaining('10.0.1.100.53 > 10.0.1.2.4000: udp len 3000'),
      pieces: 3,
    });
    expect(rig.engine.stack.fragments.held).toBe(0);
  });

  it('is balanced by direct routing', () => {
    rig.run('-a -u 10.0.1.100:53 -r 10.0.2.11:53 -g');
    expect(whole(sendAll('front', toVip()))).toEqual({
      line: expect.stringContaining('10.0.1.2.4000 > 10.0.1.100.53: udp len 3000'),
      pieces: 3,
    });
  });

  it('is balanced by IPIP', () => {
    rig.run('-a -u 10.0.1.100:53 -r 10.0.2.11:53 -i');
    const { line } = whole(sendAll('front', toVip()), 20);
    expect(line).toContain('10.0.1.2.4000 > 10.0.1.100.53: udp len 3000');
  });

  it('passes through as it came while there is no service', () => {
    rig.run('-a -u 10.0.1.100:53 -r 10.0.2.11:53 -m', '-D -u 10.0.1.100:53');
    const [, middle] = toClient();
    const sent = rig.send(rig.back, middle!);
    expect(sent.map((one) => one.device)).toEqual(['front']);
    expect(rig.engine.stack.fragments.held).toBe(0);
  });
});

describe('a datagram that tracking has put together', () => {
  /** A SYN with data in pieces that may not be cut. */
  function pieces(cuts: readonly number[]): Uint8Array[] {
    const head = () => frame().eth(OURS, CLIENT);
    const syn = { srcPort: 40000, dstPort: 80, flags: 'S' };
    const body = frame().ipv4('10.0.1.2', '10.0.2.2').tcp(syn).payload(24).build().slice(20);
    return cuts.map((at, i) => {
      const end = cuts[i + 1] ?? body.length;
      const fields = { id: 9, proto: 6, offset: at, mf: end < body.length, df: true };
      return head().ipv4('10.0.1.2', '10.0.2.2', fields).payload(body.slice(at, end)).build();
    });
  }

  // As Linux 6.18 does: the sender's own pieces have no DF; what was written into as a whole is cut anew, and has it.
  it.each([
    ['leaves in the pieces that it came in', '-p tcp', [false, false, false], [24, 8, 12]],
    [
      'is cut anew when a rule may lower its MSS',
      '-p tcp -m tcp --syn -j TCPMSS --set-mss 1000',
      [true, true],
      [24, 20],
    ],
  ])('%s', (_, rule, df, lengths) => {
    const router = new FilterRig();
    router.rules('mangle', '-A PREROUTING -m conntrack --ctstate NEW', `-A FORWARD ${rule}`);
    for (const piece of pieces([0, 24, 32])) router.front.inject(piece);
    router.engine.breathe();
    const sent = router.back.takeSent().map(({ bytes }) => new DataView(bytes.buffer, bytes.byteOffset));
    expect(sent.map((m) => m.getUint16(16) - 20)).toEqual(lengths);
    expect(sent.map((m) => (m.getUint16(20) & 0x4000) !== 0)).toEqual(df);
  });
});
