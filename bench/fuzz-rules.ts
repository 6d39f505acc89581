/**
 * The fuzz run's set-up with everything on: fragments put together, connections tracked (the director's too), translated, helped, marked and judged by rules.
 * And the other side of the conversation: answers to what was sent, so that connections get beyond their first packet.
 */
import type { Engine } from '../src/engine/engine.ts';
import type { TableName } from '../src/model/iptables.ts';
import { frame } from '../src/wire/build.ts';
import { fold, pseudoSum, sumBytes } from '../src/wire/checksum.ts';

/** Fewer entries than the traffic wants: a full table is part of it. */
const MAX_ENTRIES = 600;

const RULES: readonly (readonly [TableName, string])[] = [
  ['raw', '-A PREROUTING -p tcp --dport 21 -j CT --helper ftp'],
  ['raw', '-A PREROUTING -p udp --dport 69 -j CT --helper tftp'],
  ['raw', '-A PREROUTING -p tcp --dport 8021 -j CT --helper ftp --ctevents new,destroy'],
  ['raw', '-A PREROUTING -p udp --dport 8000 -j CT --zone 7'],
  ['raw', '-A PREROUTING -p udp --dport 8001 -j CT --zone-orig 8'],
  ['raw', '-A PREROUTING -p udp --dport 8002 -j CT --notrack'],
  ['raw', '-A OUTPUT -p tcp --dport 21 -j CT --helper ftp'],
  ['mangle', '-A PREROUTING -j CONNMARK --restore-mark'],
  ['mangle', '-A PREROUTING -p tcp -m multiport --dports 80,443,8080 -j MARK --set-mark 1'],
  ['mangle', '-A PREROUTING -m ttl --ttl-lt 3 -j MARK --set-xmark 0x20/0x30'],
  ['mangle', '-A FORWARD -p tcp -m tcp --tcp-flags SYN,RST SYN -j TCPMSS --clamp-mss-to-pmtu'],
  ['mangle', '-A POSTROUTING -o back -p tcp -m tcp --tcp-flags SYN,RST SYN -j TCPMSS --set-mss 1200'],
  ['mangle', '-A POSTROUTING -m mark ! --mark 0 -j CONNMARK --save-mark'],
  ['nat', '-A PREROUTING -d 10.0.1.101 -p tcp -m tcp --dport 21 -j DNAT --to-destination 10.0.2.11'],
  ['nat', '-A PREROUTING -d 10.0.1.101 -p tcp -m tcp --dport 8021 -j DNAT --to-destination 10.0.2.11:21'],
  ['nat', '-A PREROUTING -d 10.0.1.101 -p udp -j DNAT --to-destination 10.0.2.11-10.0.2.13:5000-5002 --persistent'],
  ['nat', '-A PREROUTING -d 10.0.1.101 -j DNAT --to-destination 10.0.2.11-10.0.2.12 --random'],
  ['nat', '-A PREROUTING -d 10.0.1.102 -p tcp -j REDIRECT --to-ports 8080'],
  ['nat', '-A PREROUTING -d 10.0.1.102 -j REDIRECT'],
  ['nat', '-A PREROUTING -d 10.7.0.0/24 -j NETMAP --to 10.0.2.0/24'],
  ['nat', '-A OUTPUT -d 10.0.1.101 -j DNAT --to-destination 10.0.2.12'],
  ['nat', '-A POSTROUTING -o back -p udp -m udp --sport 2000:2100 -j SNAT --to-source 10.0.2.1:4000-4003'],
  ['nat', '-A POSTROUTING -o back -p icmp -j SNAT --to-source 10.0.2.1:1-3'],
  ['nat', '-A POSTROUTING -o back -m mark --mark 1 -j MASQUERADE --random-fully'],
  ['nat', '-A POSTROUTING -o back -m conntrack --ctstate DNAT -j MASQUERADE'],
  ['nat', '-A INPUT -p tcp -m tcp --dport 8080 -j SNAT --to-source 10.0.1.77'],
  [
    'filter',
    '-A FORWARD -m conntrack --ctstate INVALID -j LOG --log-prefix "lost " --log-tcp-options --log-ip-options',
  ],
  ['filter', '-A FORWARD -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT'],
  ['filter', '-A FORWARD -p tcp -m tcp --dport 9 -j REJECT --reject-with tcp-reset'],
  [
    'filter',
    '-A FORWARD -p udp -m udp --dport 9 -m addrtype ! --dst-type LOCAL -j REJECT --reject-with icmp-host-prohibited',
  ],
  ['filter', '-A INPUT -p sctp -m sctp --chunk-types any ABORT -j LOG'],
  ['filter', '-A INPUT -p icmp -m icmp --icmp-type 13 -j DROP'],
  ['filter', '-A INPUT -p udp -m udp --dport 999 -j REJECT'],
  ['filter', '-A INPUT -m conntrack --ctstate INVALID -m comment --comment "of no connection" -j DROP'],
  ['security', '-A FORWARD -m helper --helper ftp -j MARK --or-mark 0x100'],
];

export function setUpRules(engine: Engine): void {
  for (const [table, line] of RULES) {
    const words = [...line.matchAll(/"([^"]*)"|(\S+)/g)].map((match) => match[1] ?? match[2]!);
    const [, chain, ...rest] = words;
    const commands = [{ op: 'append', chain: chain!, rule: { words: rest } } as const];
    const failed = engine.filter.change({ table, commands });
    if (failed !== null) throw new Error(`set-up: ${line}: ${JSON.stringify(failed)}`);
  }
  for (const ip of ['10.0.1.101', '10.0.1.102', '10.0.1.77'])
    engine.executeIp([{ op: 'addr-add', device: 'lo', address: ip, prefixLength: 32 }]);
  for (const [key, value] of [
    ['ipv4.vs.conntrack', '1'],
    ['netfilter.nf_conntrack_max', String(MAX_ENTRIES)],
    ['netfilter.nf_conntrack_acct', '1'],
    ['netfilter.nf_conntrack_timestamp', '1'],
    ['netfilter.nf_conntrack_log_invalid', '255'],
  ] as const) {
    const failed = engine.setSysctl(`net.${key}`, value);
    if (failed !== null) throw new Error(`set-up: net.${key}: ${failed}`);
  }
  // Somebody reads the log, and follows the events.
  engine.logLines.sink = () => {};
  engine.tracking.watch({ entries: true, expectations: true });
}

/** What an operator changes while packets come; `n` counts. */
export function changeSettings(engine: Engine, n: number): void {
  engine.tracking.takeEvents();
  engine.setSysctl('net.ipv4.vs.conntrack', String((n >> 1) & 1));
  engine.setSysctl('net.netfilter.nf_conntrack_tcp_be_liberal', String((n >> 2) & 1));
  engine.setSysctl('net.netfilter.nf_conntrack_tcp_loose', String((n >> 3) & 1));
  engine.setSysctl('net.netfilter.nf_conntrack_checksum', String((n >> 4) & 1));
  if ((n & 31) === 31) engine.executeIp([{ op: 'addr-del', device: 'back', address: '10.0.2.1', prefixLength: 24 }]);
  if ((n & 31) === 0) engine.executeIp([{ op: 'addr-add', device: 'back', address: '10.0.2.1', prefixLength: 24 }]);
  if ((n & 63) === 40)
    engine.tracking.list({ table: 'conntrack', zero: (n & 64) !== 0, cursor: 0, limit: MAX_ENTRIES, filter: {} });
}

interface Seed {
  readonly device: 'front' | 'back' | 'host';
  readonly bytes: Uint8Array;
}

/** To the addresses that rules translate. */
export function* translatedFrames(frontMac: string, clientMac: string): Generator<Seed> {
  yield* announcedFrames(frontMac, clientMac);
  const front = (): ReturnType<typeof frame> => frame().eth(frontMac, clientMac);
  const lines = ['', 'PORT 10,0,1,2,24,1\r\n', 'EPRT |1|10.0.1.2|6145|\r\n', 'PASV\r\n', 'EPSV\r\n'];
  for (const to of ['10.0.1.101', '10.0.1.102', '10.7.0.11', '10.0.2.11']) {
    for (const srcPort of [2000, 2001, 41_000]) {
      for (const dstPort of [9, 21, 80, 8021]) {
        for (const flags of ['S', '.', 'F.', 'R']) {
          const ports = { srcPort, dstPort, flags, seq: flags === 'S' ? 99 : 100, ack: 1 };
          yield { device: 'front', bytes: front().ipv4('10.0.1.2', to).tcp(ports).build() };
        }
        for (const line of dstPort === 21 || dstPort === 8021 ? lines : [])
          yield {
            device: 'front',
            bytes: front()
              .ipv4('10.0.1.2', to)
              .tcp({ srcPort, dstPort, flags: 'P.', seq: 100, ack: 1 })
              .payload(line)
              .build(),
          };
      }
      for (const dstPort of [69, 5000, 8000, 8001, 8002]) {
        const datagram = front().ipv4('10.0.1.2', to).udp({ srcPort, dstPort });
        yield { device: 'front', bytes: datagram.payload(dstPort === 69 ? '\0\x01a\0octet\0' : 40).build() };
      }
    }
    for (const type of [8, 13])
      yield { device: 'front', bytes: front().ipv4('10.0.1.2', to).icmp({ type, id: 1, seq: 1 }).build() };
    yield {
      device: 'front',
      bytes: front()
        .ipv4('10.0.1.2', to)
        .sctp({ srcPort: 2000, dstPort: 80, chunks: [{ type: 1, value: 16 }] })
        .build(),
    };
    yield {
      device: 'front',
      bytes: front()
        .ipv4('10.0.1.2', to, { proto: 47 })
        .payload(new Uint8Array([0x20, 0, 8, 0, 0, 0, 0, 1]))
        .build(),
    };
    // One datagram in three pieces, a duplicate, and one that overlaps.
    const whole = front().ipv4('10.0.1.2', to, { id: 77 }).udp({ srcPort: 2000, dstPort: 5000 }).payload(2000).build();
    for (const [offset, end] of [
      [0, 800],
      [800, 1600],
      [1600, 2008],
      [800, 1600],
      [792, 1600],
    ] as const) {
      const fields = { id: 77, offset, mf: end < 2008, proto: 17 };
      yield {
        device: 'front',
        bytes: front()
          .ipv4('10.0.1.2', to, fields)
          .payload(whole.slice(34 + offset, 34 + end))
          .build(),
      };
    }
  }
  for (const to of ['10.0.1.101', '10.0.2.11', '10.0.1.2'])
    yield {
      device: 'host',
      bytes: frame().ipv4('10.0.3.2', to).tcp({ srcPort: 3001, dstPort: 21, flags: 'S' }).build(),
    };
}

/** Connections that FTP and TFTP of the seeds announce. */
function* announcedFrames(frontMac: string, clientMac: string): Generator<Seed> {
  const front = (): ReturnType<typeof frame> => frame().eth(frontMac, clientMac);
  const back = (): ReturnType<typeof frame> => frame().eth('02:00:00:00:02:01', '02:00:00:00:02:0b');
  for (const flags of ['S', 'P.']) {
    for (const dstPort of [6145, 6146])
      for (const to of ['10.0.1.2', '10.0.2.1']) {
        const ports = { srcPort: 20, dstPort, flags };
        yield {
          device: 'back',
          bytes: back()
            .ipv4('10.0.2.11', to)
            .tcp(ports)
            .payload(flags === 'S' ? 0 : 90)
            .build(),
        };
      }
    for (const dstPort of [50_000, 50_001])
      for (const to of ['10.0.1.100', '10.0.1.101', '10.0.2.11', '10.7.0.11']) {
        const ports = { srcPort: 41_001, dstPort, flags };
        yield {
          device: 'front',
          bytes: front()
            .ipv4('10.0.1.2', to)
            .tcp(ports)
            .payload(flags === 'S' ? 0 : 90)
            .build(),
        };
      }
  }
  for (const dstPort of [2000, 2001, 4000, 41_000])
    for (const to of ['10.0.1.2', '10.0.2.1'])
      yield {
        device: 'back',
        bytes: back().ipv4('10.0.2.11', to).udp({ srcPort: 3333, dstPort }).payload('\0\x03\0\x01data').build(),
      };
}

const Flag = { Fin: 1, Syn: 2, Reset: 4, Push: 8, Ack: 16 } as const;

/** What the receiver of a sent frame may answer, or null when there is nothing to answer. `refuses`: an ICMP error about it. */
export function answerTo(bytes: Uint8Array, isEthernet: boolean, refuses: boolean): Uint8Array | null {
  const l3 = isEthernet ? 14 : 0;
  if (bytes.length < l3 + 28 || bytes[l3]! >> 4 !== 4 || (isEthernet && (bytes[12] !== 8 || bytes[13] !== 0)))
    return null;
  const l4 = l3 + ((bytes[l3]! & 15) << 2);
  const end = l3 + ((bytes[l3 + 2]! << 8) | bytes[l3 + 3]!);
  if (end > bytes.length || l4 + 8 > end) return null;
  return refuses ? refusal(bytes, l3, end) : reversed(bytes, l3, l4, end);
}

function refusal(bytes: Uint8Array, l3: number, end: number): Uint8Array {
  const quoted = bytes.subarray(l3, Math.min(end, l3 + 200));
  const answer = new Uint8Array(l3 + 28 + quoted.length);
  answer.set(bytes.subarray(6, 12), 0);
  answer.set(bytes.subarray(0, 6), l3 > 0 ? 6 : 0);
  const m = new DataView(answer.buffer);
  if (l3 > 0) m.setUint16(12, 0x0800);
  answer.set([0x45, 0, 0, 0, 0, 0, 0, 0, 64, 1, 0, 0], l3);
  m.setUint16(l3 + 2, 28 + quoted.length);
  answer.set(quoted.subarray(16, 20), l3 + 12);
  answer.set(quoted.subarray(12, 16), l3 + 16);
  answer.set([3, quoted[9] === 17 ? 3 : 4, 0, 0, 0, 0, 4, 0], l3 + 20);
  answer.set(quoted, l3 + 28);
  m.setUint16(l3 + 10, ~sumBytes(m, l3, 20) & 0xffff);
  m.setUint16(l3 + 22, ~sumBytes(m, l3 + 20, 8 + quoted.length) & 0xffff);
  return answer;
}

function reversed(bytes: Uint8Array, l3: number, l4: number, end: number): Uint8Array | null {
  const answer = bytes.slice(0, end);
  const m = new DataView(answer.buffer);
  const swap = (at: number, to: number, length: number): void => {
    answer.set(bytes.subarray(at, at + length), to);
    answer.set(bytes.subarray(to, to + length), at);
  };
  if (l3 > 0) swap(0, 6, 6);
  swap(l3 + 12, l3 + 16, 4);
  m.setUint8(l3 + 8, 64);
  m.setUint16(l3 + 10, 0);
  m.setUint16(l3 + 10, ~sumBytes(m, l3, l4 - l3) & 0xffff);
  if ((m.getUint16(l3 + 6) & 0x1fff) !== 0) return answer;
  switch (bytes[l3 + 9]) {
    case 1:
      if (bytes[l4] !== 8) return null;
      m.setUint8(l4, 0);
      m.setUint16(l4 + 2, 0);
      m.setUint16(l4 + 2, ~sumBytes(m, l4, end - l4) & 0xffff);
      return answer;
    case 6: {
      const data = l4 + ((bytes[l4 + 12]! >> 4) << 2);
      if (l4 + 20 > end || data < l4 + 20 || data > end) return null;
      const flags = bytes[l4 + 13]!;
      if (flags & Flag.Reset) return null;
      swap(l4, l4 + 2, 2);
      const [seq, ack] = [m.getUint32(l4 + 4), m.getUint32(l4 + 8)];
      m.setUint32(l4 + 4, ack);
      m.setUint32(l4 + 8, seq + (end - data) + (flags & (Flag.Syn | Flag.Fin) ? 1 : 0));
      const isOpening = (flags & (Flag.Syn | Flag.Ack)) === Flag.Syn;
      m.setUint8(l4 + 13, Flag.Ack | (isOpening ? Flag.Syn : 0) | (flags & (Flag.Fin | Flag.Push)));
      m.setUint16(l4 + 16, 0);
      const sum = fold(pseudoSum(m.getInt32(l3 + 12), m.getInt32(l3 + 16), 6, end - l4));
      m.setUint16(l4 + 16, ~fold(sum + sumBytes(m, l4, end - l4)) & 0xffff);
      return answer;
    }
    default: // ports swapped leave the sum as it is
      swap(l4, l4 + 2, 2);
      return answer;
  }
}
