import { execFileSync, spawnSync } from 'node:child_process';
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { SeededRng } from '../base/rng.ts';
import { ip4 } from './addr.ts';
import * as arp from './arp.ts';
import { compileFilter, FilterError } from './filter.ts';
import * as icmpv4 from './icmpv4.ts';
import * as ipv4 from './ipv4.ts';
import { LinkType, type PcapFrame, pcapHeader, pcapRecord, readCapture } from './pcap.ts';
import * as tcp from './tcp.ts';
import * as udp from './udp.ts';

// The same frames and the same expression through tcpdump and through compileFilter must select the same frames.

const CORPUS = new URL('../../../shared/corpus/', import.meta.url);
const HOSTS = ['10.0.1.2', '10.0.1.100', '10.0.2.11', '192.168.7.1'].map(ip4);
const PORTS = [22, 53, 80, 443, 1023, 40000];

function frame(type: number, length: number, fill: (m: DataView, l3: number) => void): Uint8Array {
  const bytes = new Uint8Array(14 + length);
  bytes.set([2, 0, 0, 0, 1, 1, 2, 0, 0, 0, 1, 2]);
  const m = new DataView(bytes.buffer);
  m.setUint16(12, type);
  fill(m, 14);
  return bytes;
}

/** Some of everything, by a seed. */
function makeFrames(): Uint8Array[] {
  const rng = new SeededRng(11);
  const pick = <T>(from: readonly T[]): T => from[(rng.next() >>> 0) % from.length]!;
  const frames: Uint8Array[] = [];
  for (let i = 0; i < 400; i++) {
    const src = pick(HOSTS);
    const dst = pick(HOSTS);
    const proto = pick([6, 6, 17, 17, 1, 2, 50, 132]);
    const optionBytes = pick([0, 0, 0, 4, 20]);
    const fragment = pick([0, 0, 0, ipv4.DF, ipv4.MF, 185, ipv4.MF | 3]);
    const data = (rng.next() >>> 0) % 64;
    const f = frame(0x0800, 20 + optionBytes + 20 + data, (m, l3) => {
      const l4 = l3 + 20 + optionBytes;
      ipv4.emit(m, l3, 40 + optionBytes + data, proto, src, dst, pick([1, 64, 128]), pick([0, 0x10]), i, fragment);
      m.setUint8(l3, 0x45 + optionBytes / 4);
      if (proto === 6) tcp.emit(m, l4, pick(PORTS), pick(PORTS), i, i, pick([2, 18, 16, 17, 24, 4, 0xc2]), 512);
      else if (proto === 1) icmpv4.emit(m, l4, pick([0, 3, 8, 11]), pick([0, 1, 4]), i);
      else udp.emit(m, l4, pick(PORTS), pick(PORTS), 8 + data);
    });
    if (i % 37 === 0) f[pick([0, 5])] = 0xff;
    if (i % 41 === 0) f.fill(0xff, 0, 6);
    frames.push(i % 5 === 0 ? f.slice(0, (rng.next() >>> 0) % (f.length + 1)) : f);
  }
  for (let i = 0; i < 40; i++) {
    frames.push(
      frame(pick([0x0806, 0x8035]), 28, (m, l3) =>
        arp.emit(m, l3, 1 + (i & 1), 0x0200, 1, pick(HOSTS), 0, 0, pick(HOSTS)),
      ),
      frame(0x86dd, 80, (m, l3) => {
        m.setUint8(l3, 0x60);
        m.setUint8(l3 + 6, pick([6, 17, 44, 58]));
        m.setUint8(l3 + 40, 6);
        m.setUint16(l3 + (i & 1 ? 40 : 42), pick(PORTS));
      }),
      frame(pick([0x8100, 0x1234, 60]), 50, (m, l3) => m.setUint16(l3 + 2, 0x0800)),
    );
  }
  return frames;
}

const FILTERS = [
  ...[
    'ip',
    'arp',
    'rarp',
    'ip6',
    'tcp',
    'udp',
    'icmp',
    'igmp',
    'sctp',
    'esp',
    'ah',
    'icmp6',
    'not ip',
    '! tcp and ! udp',
  ],
  ...[
    'host 10.0.1.2',
    'src host 10.0.1.2',
    'dst host 10.0.1.2',
    'src or dst host 10.0.1.2',
    'src and dst host 10.0.1.2',
  ],
  ...[
    'ip host 10.0.1.2',
    'arp host 10.0.1.2',
    'arp src host 10.0.1.2',
    'rarp dst 10.0.2.11',
    'src 10.0.1.2',
    'dst 10.0.1.100',
  ],
  ...['ip src 10.0.1.2', 'not host 10.0.1.2', 'host 10.0.1.2 or 10.0.2.11', 'host 10.0.1.2 and 10.0.2.11'],
  ...['host (10.0.1.2 or 10.0.2.11)', 'host 10.0.1.2 and not 10.0.2.11', 'dst 10.0.1.2 or 10.0.1.100 and tcp'],
  ...[
    'net 10.0.1.0/24',
    'net 10',
    'net 10.0',
    'net 10.0.1',
    'src net 192.168.0.0 mask 255.255.0.0',
    'dst net 10.0.1.96/27',
  ],
  ...['ip net 10.0.2.0/24', 'not net 10.0.0.0/8', 'net 0.0.0.0/0'],
  ...[
    'port 80',
    'src port 80',
    'dst port 80',
    'src and dst port 80',
    'tcp port 80',
    'udp port 53',
    'sctp port 80',
    'port http',
  ],
  ...[
    'port 80 or 443',
    'tcp dst port 80 or 443',
    'port 80 or 443 and udp',
    'port (80 or 443)',
    'port 80 and not 443',
    'not port 80',
  ],
  ...[
    'tcp src port 22 or 80 or dst port 443',
    'udp dst portrange 50-100',
    'portrange 20-30',
    'portrange 443-80',
    'src portrange 22',
  ],
  ...['port domain', 'tcp port https or ssh', 'portrange ssh-http', 'not (port 80 or port 443)', 'port not 80'],
  ...[
    'ether host 02:00:00:00:01:01',
    'ether src 2:0:0:0:1:2',
    'ether dst 02:00:00:00:01:01',
    'ether proto 0x0806',
    'ether proto \\ip',
  ],
  ...[
    'ether broadcast',
    'broadcast',
    'multicast',
    'ether multicast',
    'ip multicast',
    'not ether src 02-00-00-00-01-02',
  ],
  ...[
    'ip proto 6',
    'ip proto \\udp',
    'proto 17',
    'ip6 proto 6',
    'proto \\tcp',
    'ip proto \\icmp or \\tcp',
    'ether proto 0x86dd',
  ],
  ...['tcp[tcpflags] & (tcp-syn|tcp-ack) != 0', 'tcp[tcpflags] & (tcp-syn|tcp-fin) != 0', 'tcp[tcpflags] == tcp-syn'],
  ...[
    'tcp[13] & 2 != 0',
    'tcp[13] = 18',
    'not tcp[13] = 18',
    'tcp[2:2] = 80',
    'tcp[0:2] > tcp[2:2]',
    'tcp[((tcp[12]&0xf0)>>2)] = 0',
  ],
  ...[
    'tcp[4:4] > 100',
    'udp[4:2] > 40',
    'udp[0:2] - udp[2:2] > 100',
    'icmp[icmptype] = icmp-echo',
    'icmp[0] == 8 or icmp[0] == 0',
  ],
  ...[
    'icmp[icmptype] != icmp-echo and icmp[icmpcode] = 1',
    'ip[8] < 64',
    'ip[0] & 0xf != 5',
    '(ip[0] & 0xf) << 2 > 20',
    'ip[6:2] & 0x1fff != 0',
  ],
  ...[
    'ip[2:2] - ((ip[0]&0xf)<<2) > 40',
    'ip[12:4] = 0x0a000102',
    'ip[16] >= 192',
    'ether[0] & 1 = 0',
    'ether[12:2] = 0x0800',
    'arp[6:2] = 2',
  ],
  ...[
    'ip[9] * 2 = 12',
    'ip[2:2] / 2 = 30',
    'ip[2:2] % 7 = 3',
    'ip[8] ^ 64 = 0',
    '7 % 4 * 2 = 7',
    '2 * 7 % 4 = 6',
    '7 ^ 2 | 4 = 1',
    '6 ^ 3 + 1 = 2',
    '1 | 6 << 1 = 13',
    '8 / 4 / 2 = 1',
    'ip[8] | 1 = 65',
    '1 + 2 * 3 = 7',
    '8 - 4 - 2 = 2',
    '7 & 3 + 1 = 4',
  ],
  ...[
    '2 | 4 & 1 = 2',
    '1 << 2 + 1 = 8',
    '-1 > 5',
    'ip[100] = 0',
    'not ip[100] = 0',
    'ip[100] = 0 or tcp',
    'len > 60',
    'len - 14 < 40',
    '60 < len',
  ],
  ...[
    'less 60',
    'greater 80',
    'len = 54 or less 40',
    'ip and (tcp or udp) and not port 22',
    'tcp or udp and host 10.0.1.2',
    '(tcp or udp) and (host 10.0.1.2)',
  ],
  ...[
    'tcp && dst port 80 || icmp',
    '!(tcp) && !(udp)',
    'not not tcp',
    'tcp and not (src port 80 or dst port 80)',
    'tcp port 80 and host 10.0.1.2 or arp',
  ],
  ...[
    'ip proto 132 and src port 80',
    'icmp or host 10.0.1.2 or 10.0.2.11',
    'ip[6] & 0x20 != 0 or ip[6:2] & 0x1fff > 0',
    'ip6 and tcp',
    'ip6 and port 80',
  ],
  ...[
    '0x0800 = ether[12:2]',
    'ip[0xa:2] != 0',
    'ip[010] = 64',
    'tcp[13] & 7 = 2',
    'ip[ip[0] & 0xf] > 0',
    'ether[ether[12]] >= 0',
    'ip[8] / (ip[8] - 64) = 0',
  ],
];

/** tcpdump and we both refuse these. */
const REFUSED = [
  ...[
    'tcp port',
    'host',
    'port 99999',
    'and tcp',
    'tcp and',
    '(tcp',
    'tcp)',
    'tcp udp',
    'host 300.1.2.3',
    'tcp host 10.0.1.2',
    'icmp port 80',
  ],
  ...[
    'ip[0:3] = 1',
    'ip[',
    'ip[0',
    'ip[0]',
    'ip[0] =',
    'net 10.0.1.1/24',
    'net 10.0.0.0/33',
    'ether host 10.0.1.2',
    'ether',
    'src',
    'tcp or 80',
    '10.0.1.2',
    '80',
    '(port 80) or 443',
    'udp port http',
    'src 10.0.0.0/8',
  ],
  ...[
    'port 80 or or 443',
    'less',
    'less tcp',
    'tcp[tcpflags',
    'port http or',
    'frobnicate',
    '@',
    'tcp & udp',
    'ip proto 6 src',
    '1 / 0 = 1',
  ],
];

let folder: string;
const sets: { name: string; file: string; medium: number; frames: readonly PcapFrame[] }[] = [];

function addSet(name: string, linkType: number, frames: readonly Uint8Array[]): void {
  const file = join(folder, `${name}.pcap`);
  // The number of the frame is its time stamp, so that it can be told which were selected.
  const bytes = Buffer.concat([pcapHeader(linkType), ...frames.map((f, i) => pcapRecord(i * 1e6, f, f.length))]);
  writeFileSync(file, bytes);
  sets.push({ name, file, medium: linkType === LinkType.Ethernet ? 0 : 1, frames: readCapture(bytes).frames });
}

beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), 'tapvs-filter-'));
  const made = makeFrames();
  addSet('made', LinkType.Ethernet, made);
  const ipOnly = made.filter((f) => f.length > 14 && (f[12] === 8 || f[12] === 0x86)).map((f) => f.slice(14));
  addSet('raw', LinkType.Raw, ipOnly);
  // The captures lie beside the checkout, not in it.
  const corpus = (existsSync(CORPUS) ? readdirSync(CORPUS) : [])
    .filter((name) => /\.pcap(ng)?$/.test(name))
    .flatMap((name) => readCapture(readFileSync(new URL(name, CORPUS))).frames);
  addSet(
    'corpus',
    LinkType.Ethernet,
    corpus.filter((f) => f.linkType === LinkType.Ethernet).map((f) => f.bytes),
  );
});
afterAll(() => rmSync(folder, { recursive: true }));

describe('a filter expression', () => {
  it.each(FILTERS)('%s selects what tcpdump selects', (text) => {
    const test = compileFilter(text);
    let asked = 0;
    for (const { name, file, medium, frames } of sets) {
      // On IP without a link header libpcap refuses what can only be in one; ours is then simply false.
      if (medium === 1 && /ether|arp|broadcast|^multicast/.test(text)) continue;
      // -O: the optimiser of libpcap 1.10.3 moves tests about, which shows in frames that end within a header.
      const out = execFileSync('tcpdump', ['-O', '-r', file, '-w', '-', '--', text], {
        stdio: ['ignore', 'pipe', 'pipe'],
      });
      const theirs = readCapture(out).frames.map((f) => f.seconds);
      const ours = frames.flatMap(({ bytes }, i) =>
        test(new DataView(bytes.buffer, bytes.byteOffset, bytes.length), 0, bytes.length, medium) ? [i] : [],
      );
      expect({ name, selected: ours }).toEqual({ name, selected: theirs });
      asked++;
    }
    expect(asked).toBeGreaterThan(1);
  });

  it.each(REFUSED)('%s is refused, by tcpdump too', (text) => {
    expect(() => compileFilter(text)).toThrow(FilterError);
    expect(() => compileFilter(text)).toThrow(/^syntax error in filter expression: /);
    expect(spawnSync('tcpdump', ['-r', sets[0]!.file, '-w', '/dev/null', '--', text]).status).toBe(1);
  });

  it.each([
    ['tcp port eighty', "at 'eighty': not a port"],
    ['host example.com', "at 'example.com': not an IPv4 address (names are not resolved here)"],
    ['tcp and vlan 5', "unexpected 'vlan'"],
    ['tcp port', 'something is missing at the end'],
    ['(tcp', "something is missing at the end: ')' is missing"],
    ['tcp udp', "unexpected 'udp'"],
    ['icmp orr', "unexpected 'orr'"],
    ['('.repeat(2000), "more than 1000 words, up to '('"],
    ['tcp or 80', "at '80': no qualifier goes with this value"],
    ['port 80 $', "'$' is not understood"],
    ['ip[0:3] = 1', "at '3': the size must be 1, 2 or 4"],
    ['net 10.0.1.1/24', 'bits beside the netmask are set in 10.0.1.1'],
  ])('%s names what is wrong', (text, message) => {
    expect(() => compileFilter(text)).toThrow(message);
  });

  it('that is empty selects everything', () => {
    expect(compileFilter('  ')(new DataView(new ArrayBuffer(0)), 0, 0, 0)).toBe(true);
  });

  it('looks at the length on the wire, not at what was kept', () => {
    const test = compileFilter('len > 1000');
    const bytes = new DataView(new ArrayBuffer(100));
    expect(test(bytes, 0, 100, 0)).toBe(false);
    expect(test(bytes, 0, 100, 0, 1500)).toBe(true);
  });

  it('selects nothing by link headers where there are none', () => {
    const bytes = new DataView(new ArrayBuffer(100));
    bytes.setUint8(0, 0x45);
    for (const text of ['ether host 02:00:00:00:01:01', 'arp', 'ether proto \\ip', 'broadcast', 'ether[0] = 0x45']) {
      expect(compileFilter(text)(bytes, 0, 100, 1)).toBe(false);
    }
    expect(compileFilter('ip')(bytes, 0, 100, 1)).toBe(true);
  });
});
