/** Parameters of the kernel's modules beside net.netfilter.*, and what settings do to others. */
import { expect, it } from 'vitest';
import { seconds } from '../base/clock.ts';
import { Drop } from '../packet/drop.ts';
import { frame } from '../wire/build.ts';
import { CLIENT, FilterRig, OURS, SERVER } from './filter-rig.ts';

const ip = () => frame().eth(OURS, CLIENT).ipv4('10.0.1.2', '10.0.2.2');

it.each([
  ['nf_conntrack.acct', 'N', 'Y', null, 'Y'],
  ['nf_conntrack.acct', 'N', 'maybe', 'EINVAL', 'N'],
  ['nf_conntrack.tstamp', 'N', '1', null, 'Y'],
  ['nf_conntrack.hashsize', '100', '7', 'EINVAL', '100'],
  ['nf_conntrack.hashsize', '100', '100', null, '100'],
  ['nf_conntrack.expect_hashsize', '1024', '1', 'EINVAL', '1024'],
  ['nf_conntrack_ftp.loose', 'N', 'on', null, 'Y'],
  ['nf_conntrack_ftp.ports', '21', '2121', 'EINVAL', '21'],
  ['nf_conntrack_tftp.ports', '69', '70', 'EINVAL', '69'],
  ['net.netfilter.nf_log.2', 'nf_log_ipv4', 'NONE', null, 'NONE'],
  ['net.netfilter.nf_log.2', 'nf_log_ipv4', 'nosuch', 'ENOENT', 'nf_log_ipv4'],
  ['net.netfilter.nf_conntrack_frag6_timeout', '60', '61', 'EINVAL', '60'],
] as const)('%s is %s; %s: %s', (key, before, value, errno, after) => {
  const { engine } = new FilterRig();
  expect(engine.getSysctl(key)).toBe(before);
  expect(engine.setSysctl(key, value)).toBe(errno);
  expect(engine.getSysctl(key)).toBe(after);
  expect(engine.listSysctls()).toContainEqual([key, after]);
});

it('a parameter and its sysctl are one', () => {
  const { engine } = new FilterRig();
  engine.setSysctl('nf_conntrack.acct', 'Y');
  expect(engine.getSysctl('net.netfilter.nf_conntrack_acct')).toBe('1');
});

it('an INVALID packet is told of with its devices and all its numbers, unless nobody logs', () => {
  const rig = new FilterRig();
  rig.rules('filter', '-A FORWARD -m conntrack --ctstate INVALID');
  rig.engine.setSysctl('net.netfilter.nf_conntrack_log_invalid', '6');
  const said: [number, string][] = [];
  rig.engine.logLines.sink = (level, text) => said.push([level, text]);
  const packet = ip().tcp({ srcPort: 40000, dstPort: 80, flags: 'SF', seq: 9, options: [2, 4, 5, 0xb4] });
  rig.send(packet);
  const mac = '02:00:00:00:01:01:02:00:00:00:01:02:08:00';
  expect(said).toEqual([
    [
      5,
      `nf_ct_proto_6: invalid tcp flag combination IN=front OUT= MAC=${mac} SRC=10.0.1.2 DST=10.0.2.2 LEN=44 TOS=0x00 PREC=0x00 TTL=64 ID=0 PROTO=TCP SPT=40000 DPT=80 SEQ=9 ACK=0 WINDOW=65535 RES=0x00 SYN FIN URGP=0 OPT (020405B4) `,
    ],
  ]);
  rig.engine.setSysctl('net.netfilter.nf_log.2', 'NONE');
  rig.send(packet);
  expect(said).toHaveLength(1);
});

it('a full table is told of, and a flood of refusals with few words', () => {
  const rig = new FilterRig();
  rig.rules('filter', '-A FORWARD -m conntrack --ctstate INVALID');
  rig.engine.setSysctl('net.netfilter.nf_conntrack_max', '1');
  const back = () => frame().eth('02:00:00:00:02:01', SERVER).ipv4('10.0.2.2', '10.0.1.2');
  const [there, here] = [
    { srcPort: 40000, dstPort: 80 },
    { srcPort: 80, dstPort: 40000 },
  ];
  rig.send(ip().tcp({ ...there, flags: 'S' }));
  rig.sendBack(back().tcp({ ...here, flags: 'S.', ack: 1 }));
  rig.send(ip().tcp({ ...there, flags: '.', seq: 1, ack: 1 }));
  const said: [number, string][] = [];
  rig.engine.logLines.sink = (level, text) => said.push([level, text]);
  const others = (n: number) => {
    for (let i = 0; i < n; i++) expect(rig.send(ip().udp({ srcPort: i + 1, dstPort: 2 }))).toEqual([]);
  };
  others(15);
  const line: [number, string] = [4, 'nf_conntrack: table full, dropping packet'];
  expect(said).toEqual(Array(10).fill(line));
  rig.clock.advance(seconds(5));
  others(1);
  expect(said.slice(10)).toEqual([[4, `${line[1]}: 5 more times`], line]);
  expect(rig.engine.drops[Drop.ConntrackFull]).toBe(16);
});

it('a timeout below 0 is over at once', () => {
  const rig = new FilterRig();
  rig.rules('filter', '-A FORWARD -m conntrack --ctstate NEW');
  rig.engine.setSysctl('net.netfilter.nf_conntrack_udp_timeout', '-1');
  for (let i = 0; i < 3; i++) rig.send(ip().udp({ srcPort: 1, dstPort: 2 }));
  expect(rig.counts('filter', 'FORWARD')[0]).toBe(3);
});

it('speaks of what the host has found wrong, too', () => {
  const rig = new FilterRig();
  rig.rules('filter', '-A FORWARD -m conntrack --ctstate INVALID');
  rig.engine.setSysctl('net.netfilter.nf_conntrack_log_invalid', '255');
  const said: string[] = [];
  rig.engine.logLines.sink = (_level, text) => said.push(text.replace(/ IN=.*/, ''));
  rig.send(ip().icmp({ type: 8, id: 7, checksum: 1 }));
  rig.send(ip().sctp({ srcPort: 1, dstPort: 2, checksum: 1, chunks: [] }));
  expect(said).toEqual(['nf_ct_proto_1: bad hw icmp checksum', 'nf_ct_proto_132: nf_ct_sctp: bad CRC ']);
});
