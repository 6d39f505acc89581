import { expect, it } from 'vitest';
import type { IpvsCommand } from '../model/ipvs.ts';
import { ConfigError, type ParseIpvsadm, parseConfig } from './config.ts';
import { EngineRehearsal } from './rehearsal.ts';

/** `service IP SCHEDULER` is enough of a grammar here. */
const parseLines: ParseIpvsadm = (lines, _file, firstLine) => ({
  commands: lines.map((text, i) => {
    const [, address = '', scheduler = ''] = text.trim().split(' ');
    const key = { kind: 'address', protocol: 'tcp', address, port: 80 } as const;
    const command: IpvsCommand = { op: 'add-service', service: { key, scheduler, schedulerFlags: 0, ops: false } };
    return { line: firstLine + i, command };
  }),
  errors: [],
});

function faults(text: string): string[] {
  try {
    parseConfig(text, 'f', parseLines, new EngineRehearsal());
    return [];
  } catch (error) {
    if (!(error instanceof ConfigError)) throw error;
    return error.diagnostics.map((d) => `${d.line}:${d.column}: ${d.message}`);
  }
}

it('what only the engine knows to be wrong has a line and a column', () => {
  expect(
    faults(`devices:
  - { name: front, kind: tap, addresses: [10.0.1.1/24] }
sysctl:
  net.ipv4.ip_forwrd: 1
  net.ipv4.conf.front.rp_filter: 1
  net.ipv4.conf.back.rp_filter: 1
  net.ipv4.vs.conn_reuse_mode: many
ipvsadm: |
  service 10.0.0.1 rr
  service 10.0.0.2 rx
`),
  ).toEqual([
    '4:3: tapvs has no such key (tapvs sysctl -a lists them)',
    '6:3: tapvs has no such key (tapvs sysctl -a lists them)',
    "7:32: cannot be 'many'",
    "10:3: there is no scheduler 'rx', or no such persistence engine",
  ]);
});

it('a good file passes', () => {
  expect(faults('sysctl:\n  net.ipv4.ip_forward: 1\nipvsadm: |\n  service 10.0.0.1 wlc\n')).toEqual([]);
});
