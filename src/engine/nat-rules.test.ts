/** Rules of the nat table on a whole engine: what explain says of them is what happens, and balanced connections can be masqueraded (full NAT). */
import { describe, expect, it } from 'vitest';
import { CtDir } from '../conntrack/entry.ts';
import { Tuple } from '../conntrack/tuple.ts';
import { formatIp4 } from '../wire/addr.ts';
import { describeFrame, frame, verifyFrame } from '../wire/build.ts';
import { explain } from './explain.ts';
import { ExplainRig, explainSpec, RIG_MAC } from './explain-rig.ts';
import { differences, inspectState } from './inspect-state.ts';

function rules(rig: ExplainRig, table: 'nat' | 'raw', ...lines: string[]): void {
  const commands = lines.map((line) => {
    const [, chain, ...words] = line.split(' ');
    return { op: 'append' as const, chain: chain!, rule: { words } };
  });
  expect(rig.engine.filter.change({ table, commands })).toBeNull();
}

/** Without frame header, TTL and identification; every checksum is verified. */
function left(sent: ReturnType<ExplainRig['send']>): string[] {
  return sent.map(({ frame: { bytes } }) => {
    expect(verifyFrame(bytes)).toEqual([]);
    return describeFrame(bytes)
      .replace(/^\S+ > \S+ IP /, '')
      .replace(/ \(ttl .*$/, '');
  });
}

function replies(rig: ExplainRig): string[] {
  const { conntrack } = rig.engine;
  const t = new Tuple();
  const lines: string[] = [];
  for (let entry = 1; entry < conntrack.highWater; entry++) {
    if (!conntrack.isAlive(entry)) continue;
    conntrack.tuple(entry, CtDir.Reply, t);
    lines.push(`${formatIp4(t.src)}:${t.ports >>> 16} > ${formatIp4(t.dst)}:${t.ports & 0xffff}`);
  }
  return lines;
}

const udp = (srcPort: number, dst = '10.0.2.11', dstPort = 53) =>
  frame().eth(RIG_MAC.front, RIG_MAC.client).ipv4('10.0.1.2', dst).udp({ srcPort, dstPort }).build();

describe('explain', () => {
  it('says what the nat table will do, and does none of it', () => {
    const rig = new ExplainRig();
    rules(
      rig,
      'nat',
      '-A PREROUTING -d 10.0.1.100 -p udp -j DNAT --to-destination 10.0.2.12:5353',
      '-A POSTROUTING -o back -j MASQUERADE',
    );
    rig.send(rig.front, udp(1000));
    rig.send(rig.front, udp(1000, '10.0.1.100'));
    expect(replies(rig)).toHaveLength(2);
    for (const [port, dst] of [
      [1000, '10.0.1.100'],
      [1001, '10.0.1.100'],
      [1001, '10.0.2.11'],
      [1000, '10.0.2.11'],
    ] as const) {
      const before = inspectState(rig.engine, /routes\.#cache|neighbours\.#cache|pool\.packets/);
      const told = explain(rig.engine, explainSpec(`udp 10.0.1.2:${port} ${dst}:53`));
      expect(differences(before, inspectState(rig.engine, /routes\.#cache|neighbours\.#cache|pool\.packets/))).toEqual(
        [],
      );
      const [line] = left(rig.send(rig.front, udp(port, dst)));
      if (typeof told === 'string') expect.fail(told);
      const to = dst === '10.0.2.11' ? '10.0.2.11.53' : '10.0.2.12.5353';
      expect(line).toContain(`10.0.2.1.${port} > ${to}`);
      expect(told.ways[0]!.sent).toContain(`10.0.2.1:${port} > ${to.replace(/\.(\d+)$/, ':$1')}`);
    }
  });
});

describe('rules that go', () => {
  it('leave what they translated to go on while there is tracking, and explain says so', () => {
    const rig = new ExplainRig();
    rules(rig, 'raw', '-A PREROUTING -p tcp -j CT --zone 1');
    rules(rig, 'nat', '-A POSTROUTING -o back -p udp -j SNAT --to-source 10.0.2.9');
    rig.send(rig.front, udp(1000));
    expect(rig.engine.filter.change({ table: 'nat', commands: [{ op: 'flush' }] })).toBeNull();
    const told = explain(rig.engine, explainSpec('udp 10.0.1.2:1000 10.0.2.11:53'));
    expect(left(rig.send(rig.front, udp(1000)))[0]).toContain('10.0.2.9.1000 > 10.0.2.11.53');
    if (typeof told === 'string') expect.fail(told);
    expect(told.ways[0]!.sent).toContain('10.0.2.9:1000 > 10.0.2.11:53');
    expect(left(rig.send(rig.front, udp(1001)))[0]).toContain('10.0.1.2.1001 > 10.0.2.11.53');
  });
});

describe('full NAT', () => {
  it('a balanced connection leaves with our address, and its answers find the way back through both', () => {
    const rig = new ExplainRig();
    rig.engine.setSysctl('net.ipv4.vs.conntrack', '1');
    rig.run('-A -t 10.0.1.100:80 -s rr', '-a -t 10.0.1.100:80 -r 10.0.2.11:8080 -m');
    rules(rig, 'nat', '-A POSTROUTING -o back -j MASQUERADE');
    const client = (flags: string, seq: number) =>
      frame()
        .eth(RIG_MAC.front, RIG_MAC.client)
        .ipv4('10.0.1.2', '10.0.1.100')
        .tcp({ srcPort: 4000, dstPort: 80, flags, seq, ack: 1 })
        .build();
    const server = (flags: string) =>
      frame()
        .eth(RIG_MAC.back, '02:00:00:00:02:11')
        .ipv4('10.0.2.11', '10.0.2.1')
        .tcp({ srcPort: 8080, dstPort: 4000, flags, seq: 0, ack: 1 })
        .build();
    expect(left(rig.send(rig.front, client('S', 0)))).toEqual([
      expect.stringContaining('10.0.2.1.4000 > 10.0.2.11.8080: tcp [S]'),
    ]);
    expect(left(rig.send(rig.back, server('S.')))).toEqual([
      expect.stringContaining('10.0.1.100.80 > 10.0.1.2.4000: tcp [S.]'),
    ]);
    expect(left(rig.send(rig.front, client('.', 1)))).toEqual([
      expect.stringContaining('10.0.2.1.4000 > 10.0.2.11.8080: tcp [.]'),
    ]);
    expect(replies(rig)).toEqual(['10.0.2.11:8080 > 10.0.2.1:4000']);
  });
});
