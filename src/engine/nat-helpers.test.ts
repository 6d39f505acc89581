/** FTP and TFTP through a whole host with translation: payloads, sequence numbers, and the connections that they announce. */
import { beforeEach, describe, expect, it } from 'vitest';
import { createEntry } from '../conntrack/commands.ts';
import type { Expectations } from '../conntrack/expectations.ts';
import { Helper } from '../conntrack/helper-names.ts';
import { Hook, Priority, Verdict } from '../hooks/hooks.ts';
import { MAC } from '../ip/rig.ts';
import type { EntrySpec } from '../model/conntrack.ts';
import { Status } from '../model/entry-status.ts';
import { Manip, RangeFlag } from '../nat/range.ts';
import type { Packet } from '../packet/packet.ts';
import { formatIp4, ip4 } from '../wire/addr.ts';
import { frame } from '../wire/build.ts';
import { dst, headerLength, src } from '../wire/ipv4.ts';
import * as tcp from '../wire/tcp.ts';
import { TrackedRig } from './tracked-rig.ts';

let rig: TrackedRig;
let expectations: Expectations;

function start(rule: 'snat' | 'dnat' | 'none', helper: number = Helper.Ftp): void {
  rig = new TrackedRig();
  const { nat } = rig.translation;
  expectations = rig.translation.expectations;
  const { conntrack } = rig;
  // As a rule of the raw table assigns it.
  const id = conntrack.templates.push({ zone: 0, zoneDirs: 3, helper, hasEvents: false, muted: 0 }) - 1;
  const run = (p: Packet) => {
    const port = p.view.getUint16(p.l4 + 2);
    if (p.entry === 0 && (port === 21 || port === 69)) p.ctTemplate = id;
    return Verdict.Accept;
  };
  rig.hooks.register([{ hook: Hook.PreRouting, priority: Priority.Raw, name: 'raw', why: 'test', run }]);
  const at = (ip: string) => ({
    flags: RangeFlag.MapIps,
    minIp: ip4(ip),
    maxIp: ip4(ip),
    minPort: 0,
    maxPort: 0,
    basePort: 0,
  });
  if (rule === 'snat') rig.rules.set(Hook.PostRouting, (p) => nat.setup(p.entry, at('10.0.2.100'), Manip.Src));
  if (rule === 'dnat') rig.rules.set(Hook.PreRouting, (p) => nat.setup(p.entry, at('10.0.2.2'), Manip.Dst));
}

interface Segment {
  readonly seq: number;
  readonly ack: number;
  readonly flags?: string;
  readonly ports?: readonly [number, number];
}

const CONTROL = [40000, 21] as const;
/** The address that the client speaks to, and the one that the server does. */
let target = '10.0.2.2';
let origin = '10.0.1.2';

/** `10.0.2.100:40000 > 10.0.2.2:21 seq 9 ack 9 "…"` of what leaves at the other side; the rig verifies every checksum. */
function show(bytes: Uint8Array | undefined): string {
  if (bytes === undefined) return 'nothing';
  const view = new DataView(bytes.buffer, bytes.byteOffset);
  const l4 = 14 + headerLength(view, 14);
  const text = String.fromCharCode(...bytes.slice(l4 + tcp.headerLength(view, l4)));
  const ends = `${formatIp4(src(view, 14))}:${view.getUint16(l4)} > ${formatIp4(dst(view, 14))}:${view.getUint16(l4 + 2)}`;
  return `${ends} seq ${tcp.seq(view, l4)} ack ${tcp.ack(view, l4)}${text === '' ? '' : ` ${JSON.stringify(text)}`}`;
}

function client(text: string, s: Segment): string {
  const [srcPort, dstPort] = s.ports ?? CONTROL;
  const packet = frame().eth(MAC.front, MAC.client).ipv4('10.0.1.2', target);
  rig.send(
    rig.front,
    packet
      .tcp({ srcPort, dstPort, flags: 'P.', ...s })
      .payload(text)
      .build(),
  );
  return show(rig.outBytes(rig.back)[0]);
}

function server(text: string, s: Segment): string {
  const [dstPort, srcPort] = s.ports ?? CONTROL;
  const packet = frame().eth(MAC.back, MAC.server).ipv4('10.0.2.2', origin);
  rig.send(
    rig.back,
    packet
      .tcp({ srcPort, dstPort, flags: 'P.', ...s })
      .payload(text)
      .build(),
  );
  return show(rig.outBytes(rig.front)[0]);
}

/** Both have spoken: the client is at 9, the server at 9. */
function logIn(): void {
  client('', { seq: 0, ack: 0, flags: 'S' });
  server('', { seq: 0, ack: 1, flags: 'S.' });
  server('220 hi\r\n', { seq: 1, ack: 1 });
  client('USER a\r\n', { seq: 1, ack: 9 });
}

const expected = () => expectations.list().map((e) => `${formatIp4(e.src)} > ${formatIp4(e.dst)}:${e.dstPort}`);

beforeEach(() => {
  target = '10.0.2.2';
  origin = '10.0.1.2';
});

describe('FTP through SNAT', () => {
  beforeEach(() => {
    start('snat');
    origin = '10.0.2.100';
    logIn();
  });

  it('PORT gets the address that the server sees, numbers are shifted from there on, and the server finds the client', () => {
    expect(client('PORT 10,0,1,2,195,80\r\n', { seq: 9, ack: 9 })).toBe(
      '10.0.2.100:40000 > 10.0.2.2:21 seq 9 ack 9 "PORT 10,0,2,100,195,80\\r\\n"',
    );
    expect(expected()).toEqual(['10.0.2.2 > 10.0.2.100:50000']);
    expect(server('200 ok\r\n', { seq: 9, ack: 33 })).toContain('seq 9 ack 31');
    expect(client('NOOP\r\n', { seq: 31, ack: 17 })).toContain('seq 33 ack 17 "NOOP');
    expect(server('', { seq: 0, ack: 0, flags: 'S', ports: [50000, 20] })).toContain('10.0.2.2:20 > 10.0.1.2:50000');
    expect(client('', { seq: 0, ack: 1, flags: 'S.', ports: [50000, 20] })).toContain('10.0.2.100:50000 > 10.0.2.2:20');
    expect(expected()).toEqual([]);
    // Sent again after other lines it is no new line any more, and passes as it is.
    expect(client('PORT 10,0,1,2,195,80\r\n', { seq: 9, ack: 9 })).toContain('seq 9 ack 9 "PORT 10,0,1,2,195,80');
  });

  it('EPRT too, and EPSV keeps its length', () => {
    expect(client('EPRT |1|10.0.1.2|50000|\r\n', { seq: 9, ack: 9 })).toContain('"EPRT |1|10.0.2.100|50000|');
    expect(server('229 Extended (|||50001|)\r\n', { seq: 9, ack: 36 })).toContain('"229 Extended (|||50001|)');
    expect(expected()).toEqual(['10.0.1.2 > 10.0.2.2:50001']);
  });

  it('a port above the announced one is announced when somebody else expects the same; above the last there is none', () => {
    client('PORT 10,0,1,2,195,80\r\n', { seq: 9, ack: 9 });
    const other = { ...expectations.list()[0]!, master: 99 };
    let seq = 31;
    for (let n = 0; n < 20; n++) {
      expectations.clear();
      expectations.add(0, other, { maxExpected: 0, timeoutSeconds: 300 });
      const [, high, low] = /PORT 10,0,2,100,(\d+),(\d+)/.exec(client('PORT 10,0,1,2,195,80\r\n', { seq, ack: 9 }))!;
      expect(Number(high) * 256 + Number(low)).toBeGreaterThan(50000);
      expect(expectations.count).toBe(2);
      seq += 22;
    }
    expectations.clear();
    expectations.add(0, { ...other, dstPort: 65535 }, { maxExpected: 0, timeoutSeconds: 300 });
    expect(client('PORT 10,0,1,2,255,255\r\n', { seq, ack: 9 })).toBe('nothing');
    expect(rig.drops()).toEqual({ HelperNoExpectation: 1 });
  });

  it('nobody is expected for a line that does not fit with the other address in it', () => {
    const line = 'PORT 10,0,1,2,195,80\r\n';
    // 65,535 bytes with its headers; it would be two longer.
    expect(client(line.padEnd(65495, 'x'), { seq: 9, ack: 9 })).toBe('nothing');
    expect(rig.drops()).toEqual({ HelperPayloadTooLong: 1 });
    expect(expectations.count).toBe(0);
  });

  it('what is announced for others is left alone, half a line is dropped, and a line in the middle of one is none', () => {
    expect(client('PORT 10,0,1,9,195,80\r\n', { seq: 9, ack: 9 })).toContain('PORT 10,0,1,9,195,80');
    expect(client('PORT 10,0,1', { seq: 31, ack: 9 })).toBe('nothing');
    expect(client('PORT 10,0,1,2,195,80\r\n', { seq: 100, ack: 9 })).toContain('PORT 10,0,1,2,195,80');
    expect(expectations.count).toBe(0);
    expect(rig.drops()).toEqual({ HelperPartial: 1 });
  });

  it('forgets with the connection', () => {
    client('PORT 10,0,1,2,195,80\r\n', { seq: 9, ack: 9 });
    rig.conntrack.kill(1);
    expect(expectations.count).toBe(0);
    expect(rig.translation.helpers.sequences.offset(1, 0, 100)).toBe(0);
  });
});

it('FTP through DNAT: 227 gets the address that the client knows, and the client finds the server', () => {
  start('dnat');
  target = '10.0.1.1';
  logIn();
  expect(server('227 Passive (10,0,2,2,195,80)\r\n', { seq: 9, ack: 9 })).toContain(
    '10.0.1.1:21 > 10.0.1.2:40000 seq 9 ack 9 "227 Passive (10,0,1,1,195,80)',
  );
  expect(client('', { seq: 0, ack: 0, flags: 'S', ports: [50123, 50000] })).toContain(
    '10.0.1.2:50123 > 10.0.2.2:50000',
  );
  expect(server('', { seq: 0, ack: 1, flags: 'S.', ports: [50123, 50000] })).toContain(
    '10.0.1.1:50000 > 10.0.1.2:50123',
  );
});

it('FTP without translation announces as it is written', () => {
  start('none');
  logIn();
  expect(client('PORT 10,0,1,2,195,80\r\n', { seq: 9, ack: 9 })).toContain('PORT 10,0,1,2,195,80');
  expect(expected()).toEqual(['10.0.2.2 > 10.0.1.2:50000']);
});

it('FTP of a connection that a command has made, whose helper no rule assigns', () => {
  start('none', Helper.None);
  const [src, dst] = ['10.0.1.2', '10.0.2.2'];
  const entry: EntrySpec = {
    original: { src, dst, proto: 6, ports: { src: 40000, dst: 21 } },
    reply: { src: dst, dst: src, proto: 6, ports: { src: 21, dst: 40000 } },
    timeoutSeconds: 100,
    state: 'ESTABLISHED',
    liberal: true,
    status: Status.SeenReply | Status.Assured,
    helper: 'ftp',
  };
  expect(createEntry(rig.conntrack, entry, () => {})).toBeNull();
  client('USER a\r\n', { seq: 1, ack: 9 });
  client('PORT 10,0,1,2,195,80\r\n', { seq: 9, ack: 9 });
  expect(expected()).toEqual(['10.0.2.2 > 10.0.1.2:50000']);
});

it.each(['none', 'snat'] as const)('TFTP (%s): the answer from another port is the client’s', (rule) => {
  start(rule, Helper.Tftp);
  const own = rule === 'snat' ? '10.0.2.100' : '10.0.1.2';
  const request = frame().eth(MAC.front, MAC.client).ipv4('10.0.1.2', '10.0.2.2').udp({ srcPort: 2000, dstPort: 69 });
  rig.send(rig.front, request.payload('\0\x01file\0octet\0').build());
  expect(expected()).toEqual([`10.0.2.2 > ${own}:2000`]);
  rig.out(rig.back);
  const answer = frame().eth(MAC.back, MAC.server).ipv4('10.0.2.2', own).udp({ srcPort: 3333, dstPort: 2000 });
  rig.send(rig.back, answer.payload('\0\x03').build());
  expect(rig.out(rig.front)).toEqual([expect.stringContaining('10.0.2.2.3333 > 10.0.1.2.2000')]);
  expect(expectations.count).toBe(0);
});
