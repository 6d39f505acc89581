/** nf_conntrack_log_invalid: the words of Linux 6.18, as it wrote them about such packets. */
import { expect, it } from 'vitest';
import { type FrameBuilder, frame } from '../wire/build.ts';
import { CLIENT, CtRig, SERVER, tcpFrame as tcp } from './test-rig.ts';

const ip = () => frame().ipv4(CLIENT, SERVER);
const echo = (type: number) => ip().icmp({ type, id: 77 });
const udp = (more: object) =>
  ip()
    .udp({ srcPort: 40000, dstPort: 53, ...more })
    .payload('q');
const opened = [tcp('c', 'S', 0), tcp('s', 'S.', 0, 1), tcp('c', '.', 1, 1)];

function told(packets: readonly FrameBuilder[], setting = 255): string[] {
  const rig = new CtRig();
  rig.ct.sysctls.logInvalid = setting;
  const lines: string[] = [];
  rig.ct.onInvalid = (_p, hook, text) => lines.push(`${hook} ${text}`);
  for (const packet of packets) rig.send(packet);
  return lines;
}

it.each<[string, readonly FrameBuilder[], string]>([
  ['an ICMP type that is none', [echo(30)], 'nf_ct_proto_1: invalid icmp type '],
  ['a UDP length beyond the packet', [udp({ length: 100 })], 'nf_ct_proto_17: truncated/malformed packet '],
  ['a wrong UDP checksum', [udp({ checksum: 1 })], 'nf_ct_proto_17: bad checksum '],
  ['no flags', [tcp('c', '', 10)], 'nf_ct_proto_6: invalid tcp flag combination '],
  ['a stray FIN', [tcp('c', 'F.', 10, 10)], 'nf_ct_proto_6: invalid new '],
  [
    'SYN in the middle',
    [...opened, tcp('c', 'S', 9)],
    'nf_ct_proto_6: packet (index 0) in dir 0 ignored, state ESTABLISHED ',
  ],
  [
    'SYN from the server',
    [...opened, tcp('s', 'S', 9)],
    'nf_ct_proto_6: packet (index 0) in dir 1 invalid, state ESTABLISHED ',
  ],
  [
    'an early ACK',
    [opened[0]!, tcp('c', '.', 1, 1)],
    'nf_ct_proto_6: packet (index 3) in dir 0 invalid, state SYN_SENT ',
  ],
  [
    'data far ahead',
    [...opened, tcp('c', '.', 9000000, 1, { length: 9 })],
    'nf_ct_proto_6: SEQ is over upper bound 65242 (over the window of the receiver) ',
  ],
  [
    'an ACK of what nobody sent',
    [...opened, tcp('s', '.', 1, 90000)],
    'nf_ct_proto_6: ACK is over upper bound 1002 (ACKed data not seen yet) ',
  ],
  [
    'old data',
    [...opened, tcp('s', '.', -900000, 1, { length: 9 })],
    'nf_ct_proto_6: SEQ is under lower bound 4294908056 (already ACKed data retransmitted) ',
  ],
  [
    'an old ACK',
    [...opened, tcp('s', '.', 1, -900000)],
    'nf_ct_proto_6: ignored ACK under lower bound 4294902296 (possible overly delayed) ',
  ],
  ['a reset below', [...opened, tcp('s', 'R', -5)], 'nf_ct_proto_6: invalid rst '],
])('%s', (_what, packets, line) => {
  expect(told(packets)).toEqual([`0 ${line}`]);
});

it('speaks of the protocol that is asked for', () => {
  const packets = [tcp('c', '', 10), udp({ checksum: 1 })];
  expect(told(packets, 6)).toEqual(['0 nf_ct_proto_6: invalid tcp flag combination ']);
  expect(told(packets, 17)).toEqual(['0 nf_ct_proto_17: bad checksum ']);
  expect(told(packets, 0)).toEqual([]);
});
