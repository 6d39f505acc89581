import { expect, it } from 'vitest';
import type { IpvsCommand } from '../model/ipvs.ts';
import { ConfigError, type Grammars, type ParseIpvsadm, parseConfig } from './config.ts';
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

const grammars: Grammars = {
  ipvsadm: parseLines,
  rules: () => ({ tables: [], errors: [] }),
  rulesFault: ({ fault }) => fault,
};

function faults(text: string): string[] {
  try {
    parseConfig(text, 'f', grammars, new EngineRehearsal());
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

it('a local address must be an address of the file', () => {
  const parsePools: ParseIpvsadm = (lines, _file, firstLine) => ({
    commands: lines.flatMap((text, i) => {
      const [, address = '', local = ''] = text.trim().split(' ');
      const key = { kind: 'address', protocol: 'tcp', address, port: 80 } as const;
      const service = { key, scheduler: 'rr', schedulerFlags: 0, ops: false };
      const [host = '', device] = local.split('%');
      const line = firstLine + i;
      return [
        { line, command: { op: 'add-service', service } },
        { line, command: { op: 'add-local-address', service: key, local: { address: host, device } } },
      ];
    }),
    errors: [],
  });
  const text = `devices:
  - { name: front, kind: tap, addresses: [10.0.1.1/24] }
  - { name: back, kind: tap, addresses: [10.0.2.1/24] }
addresses: [10.0.9.1/32]
ipvsadm: |
  pool 10.0.1.100 10.0.2.1
  pool 10.0.1.101 10.0.2.1%back
  pool 10.0.1.102 10.0.9.1
  pool 10.0.1.103 10.0.2.2
  pool 10.0.1.104 10.0.2.1%front
  pool 10.0.1.105 10.0.2.1%nowhere
`;
  expect(() => parseConfig(text, 'f', { ...grammars, ipvsadm: parsePools }, new EngineRehearsal())).toThrow(
    expect.objectContaining({
      diagnostics: [
        [9, "10.0.2.2 is no address of tapvs: give it to a device, or to 'addresses'"],
        [10, "10.0.2.1 is no address of device 'front': give it to a device, or to 'addresses'"],
        [11, "there is no device 'nowhere'"],
      ].map(([line, message]) => expect.objectContaining({ line, message })),
    }),
  );
});

it('a good file passes', () => {
  expect(faults('sysctl:\n  net.ipv4.ip_forward: 1\nipvsadm: |\n  service 10.0.0.1 wlc\n')).toEqual([]);
});
