import { mkdirSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import type { ExplainSpec, Explanation } from '../model/way.ts';
import { frame } from '../wire/build.ts';
import { ChunkType } from '../wire/sctp.ts';
import { explain } from './explain.ts';
import { ExplainRig, explainSpec, RIG_MAC } from './explain-rig.ts';

const GOLDEN = new URL('../../golden/explain/', import.meta.url).pathname;
const T = '-t 10.0.1.100:80';
const SCTP = [
  '-A --sctp-service 10.0.1.100:80 -s wrr',
  ...[11, 12].map((n) => `-a --sctp-service 10.0.1.100:80 -r 10.0.2.${n}:80 -m`),
];
const THREE = [11, 12, 13].map((n) => `-a ${T} -r 10.0.2.${n}:80 -m`);

function explained(rig: ExplainRig, text: string, more: Partial<ExplainSpec> = {}): Explanation {
  const answer = explain(rig.engine, explainSpec(text, more));
  if (typeof answer === 'string') throw new Error(answer);
  return answer;
}

const toVip = (flags: string, port = 1234) =>
  frame()
    .eth(RIG_MAC.front, RIG_MAC.client)
    .ipv4('10.0.1.2', '10.0.1.100')
    .tcp({ srcPort: port, dstPort: 80, flags })
    .build();
const fromServer = (server: string, flags: string, port = 1234) =>
  frame()
    .eth(RIG_MAC.back, `02:00:00:00:02:${server.split('.')[3]}`)
    .ipv4(server, '10.0.1.2')
    .tcp({ srcPort: 80, dstPort: port, flags })
    .build();

const tunnelled = (options: string) => [`-A ${T} -s rr`, `-a ${T} -r 10.0.2.11:80 -i${options}`];
/** The ICMP error of a router about a packet that we sent through a tunnel. */
const tooBig = (server: string, nextMtu: number) =>
  frame()
    .eth(RIG_MAC.back, `02:00:00:00:02:${server.split('.')[3]}`)
    .ipv4('10.0.2.16', '10.0.2.1')
    .icmp({ type: 3, code: 4, mtu: nextMtu })
    .ipv4('10.0.2.1', server, { proto: 4, df: true })
    .ipv4('10.0.1.2', '10.0.1.100', { df: true })
    .tcp({ srcPort: 999, dstPort: 80, flags: '.' })
    .build();

interface Scene {
  readonly commands: readonly string[];
  readonly host?: boolean;
  /** What happens before the question. */
  readonly before?: (rig: ExplainRig) => void;
  readonly ask: string;
  readonly with?: Partial<ExplainSpec>;
}

const open = (rig: ExplainRig, port = 1234) => {
  rig.send(rig.front, toVip('S', port));
  for (const server of ['10.0.2.11', '10.0.2.12', '10.0.2.13']) rig.send(rig.back, fromServer(server, 'S.', port));
  rig.send(rig.front, toVip('.', port));
};

const SCENES: Readonly<Record<string, Scene>> = {
  'nat-rr': { commands: [`-A ${T} -s rr`, ...THREE], ask: 'tcp 10.0.1.2:1234 10.0.1.100:80' },
  'nat-wlc': {
    commands: [`-A ${T} -s wlc`, ...THREE, `-e ${T} -r 10.0.2.11:80 -m -w 3`, `-e ${T} -r 10.0.2.12:80 -m -w 0`],
    before: (rig) => {
      for (const port of [5001, 5002, 5003]) open(rig, port);
    },
    ask: 'tcp 10.0.1.2:1234 10.0.1.100:80',
  },
  'dr-persistent': {
    commands: [`-A ${T} -s wrr -p 300`, ...THREE.map((line) => line.replace('-m', '-g'))],
    before: (rig) => rig.send(rig.front, toVip('S', 999)),
    ask: 'tcp 10.0.1.2:1234 10.0.1.100:80',
  },
  'persistent-new': {
    commands: [`-A ${T} -s rr -p 300 -M 255.255.255.0`, ...THREE],
    ask: 'tcp 10.0.1.2:1234 10.0.1.100:80',
  },
  mark: {
    commands: ['-A -f 7 -s sh', '-a -f 7 -r 10.0.2.11 -m', '-a -f 7 -r 10.0.2.12 -m'],
    ask: 'udp 10.0.1.2:1234 10.0.1.101:53',
    with: { mark: 7 },
  },
  'no-service': { commands: [`-A ${T} -s rr`, ...THREE], ask: 'tcp 10.0.1.2:1234 10.0.1.100:81' },
  'no-server': {
    commands: [
      `-A ${T} -s rr`,
      `-a ${T} -r 10.0.2.11:80 -m -w 0`,
      `-a ${T} -r 10.0.2.12:80 -m -x 1`,
      `-a ${T} -r 10.0.2.13:80 -m -w 0`,
    ],
    before: (rig) => rig.send(rig.front, toVip('S', 999)),
    ask: 'tcp 10.0.1.2:1234 10.0.1.100:80',
  },
  ttl: { commands: [`-A ${T} -s rr`, ...THREE], ask: 'tcp 10.0.1.2:1234 10.0.1.100:80', with: { ttl: 1 } },
  'too-big': {
    commands: [`-A ${T} -s rr`, ...THREE],
    before: (rig) => rig.engine.executeIp([{ op: 'link-set', device: 'back', mtu: 1400 }]),
    ask: 'tcp 10.0.1.2:1234 10.0.1.100:80',
    with: { length: 1500, df: true },
  },
  'cut-into-fragments': {
    commands: [`-A ${T} -s rr`, ...THREE],
    before: (rig) => rig.engine.executeIp([{ op: 'link-set', device: 'back', mtu: 600 }]),
    ask: 'tcp 10.0.1.2:1234 10.0.1.100:80',
    with: { length: 1500 },
  },
  'ack-reset': { commands: [`-A ${T} -s rr`, ...THREE], ask: 'tcp 10.0.1.2:1234 10.0.1.100:80', with: { flags: '.' } },
  'ack-host-port': {
    commands: [`-A ${T} -s rr`, ...THREE],
    host: true,
    ask: 'tcp 10.0.1.2:1234 10.0.1.100:80',
    with: { flags: '.' },
  },
  'known-request': {
    commands: [`-A ${T} -s rr`, ...THREE],
    before: open,
    ask: 'tcp 10.0.1.2:1234 10.0.1.100:80',
    with: { flags: 'F.' },
  },
  'known-reply': {
    commands: [`-A ${T} -s rr`, ...THREE],
    before: open,
    ask: 'tcp 10.0.2.13:80 10.0.1.2:1234',
    with: { flags: 'F.' },
  },
  fullnat: {
    commands: [`-A ${T} -s rr`, `-P ${T} -z 10.0.2.1:40000-49999`, ...THREE.map((line) => line.replace('-m', '-b'))],
    ask: 'tcp 10.0.1.2:1234 10.0.1.100:80',
  },
  'fullnat-reply': {
    commands: [`-A ${T} -s rr`, `-P ${T} -z 10.0.2.1:40000-49999`, ...THREE.map((line) => line.replace('-m', '-b'))],
    before: (rig) => rig.send(rig.front, toVip('S')),
    ask: 'tcp 10.0.2.13:80 10.0.2.1:40000',
    with: { flags: 'S.' },
  },
  'fullnat-no-address': {
    commands: [`-A ${T} -s rr`, ...THREE.map((line) => line.replace('-m', '-b'))],
    ask: 'tcp 10.0.1.2:1234 10.0.1.100:80',
  },
  'unknown-neighbour': {
    commands: [`-A ${T} -s rr`, `-a ${T} -r 10.0.2.99:80 -m`],
    ask: 'tcp 10.0.1.2:1234 10.0.1.100:80',
  },
  'sctp-init': {
    commands: SCTP,
    ask: 'sctp 10.0.1.2:1234 10.0.1.100:80',
    with: { length: 100 },
  },
  'sctp-no-init': { commands: SCTP, ask: 'sctp 10.0.1.2:1234 10.0.1.100:80', with: { chunk: ChunkType.Data } },
  ipip: { commands: tunnelled(''), ask: 'tcp 10.0.1.2:1234 10.0.1.100:80' },
  gre: {
    commands: tunnelled(' --tun-type gre --tun-csum'),
    ask: 'tcp 10.0.1.2:1234 10.0.1.100:80',
  },
  gue: {
    commands: tunnelled(' --tun-type gue --tun-port 6080'),
    ask: 'tcp 10.0.1.2:1234 10.0.1.100:80',
  },
  // A router behind us has said so.
  'ipip-path-mtu': {
    commands: tunnelled(''),
    before: (rig) => {
      rig.send(rig.front, toVip('S', 999));
      rig.send(rig.back, tooBig('10.0.2.11', 1300));
    },
    ask: 'tcp 10.0.1.2:1234 10.0.1.100:80',
    with: { length: 1400, df: true },
  },
  echo: { commands: [`-A ${T} -s rr`], ask: 'icmp 10.0.1.2 10.0.1.100' },
  'from-this-machine': { commands: [`-A ${T} -s rr`, ...THREE], host: true, ask: 'tcp 10.0.3.2:4000 10.0.1.100:80' },
  'reverse-path': {
    commands: [],
    before: (rig) => rig.engine.setSysctl('net.ipv4.conf.all.rp_filter', '1'),
    ask: 'udp 10.0.2.11:53 10.0.1.2:5000',
    with: { device: 'front' },
  },
};

describe('what explain says', () => {
  mkdirSync(GOLDEN, { recursive: true });
  it.each(Object.entries(SCENES))('%s', async (name, scene) => {
    const rig = new ExplainRig({ hostPort: scene.host === true });
    expect(rig.run(...scene.commands).filter((errno) => errno !== null)).toEqual([]);
    scene.before?.(rig);
    const { ways } = explained(rig, scene.ask, scene.with);
    // What the words of it are is src/cli/way-text.test.ts's.
    await expect(`${JSON.stringify(ways, null, 1)}\n`).toMatchFileSnapshot(`${GOLDEN}${name}.json`);
  });

  it('refuses a packet that cannot be, in one line', () => {
    const rig = new ExplainRig();
    const ask = (text: string, more = {}) => explain(rig.engine, explainSpec(text, more));
    expect(ask('tcp 10.9.9.9:1 10.0.1.100:80')).toBe(
      '10.9.9.9 has no route: name the device where the packet comes in with -i',
    );
    expect(ask('tcp 10.0.1.1:1 10.0.1.100:80')).toBe(
      '10.0.1.1 is not an address of another host: name the device where the packet comes in with -i',
    );
    expect(ask('tcp 10.0.1.2:1 10.0.1.100:80', { device: 'eth7' })).toBe(
      "there is no device 'eth7'; there are front, back",
    );
    expect(ask('udp 10.0.1.2:1 10.0.1.100:80', { length: 27 })).toBe('udp: a packet has 28 to 65535 bytes, not 27');
    const sctp = 'sctp 10.0.1.2:1 10.0.1.100:80';
    expect(ask(sctp, { length: 51 })).toBe('sctp: a packet has 52 to 65535 bytes, not 51');
    expect(ask(sctp, { length: 53 })).toBe('sctp: a packet has a multiple of 4 bytes, not 53');
  });
});
