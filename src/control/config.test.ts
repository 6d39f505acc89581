import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, it } from 'vitest';
import type { IpvsCommand } from '../model/ipvs.ts';
import { type Config, ConfigError, type Grammars, loadConfig, type ParseIpvsadm, parseConfig } from './config.ts';

/** Two words are enough of a grammar here: `service IP` and `server IP IP`; the real one has its own tests. */
const parseLines: ParseIpvsadm = (lines, _file, firstLine) => {
  const commands: { line: number; command: IpvsCommand }[] = [];
  const errors: { line: number; message: string }[] = [];
  for (const [i, text] of lines.entries()) {
    const line = firstLine + i;
    const [word, vip = '', rip = ''] = text.trim().split(' ');
    const key = { kind: 'address', protocol: 'tcp', address: vip, port: 80 } as const;
    const service = { key, scheduler: 'rr', schedulerFlags: 0, ops: false };
    const server = {
      key: { address: rip, port: 80 },
      method: 'masq',
      weight: 1,
      upperThreshold: 0,
      lowerThreshold: 0,
    } as const;
    if (word === 'service') commands.push({ line, command: { op: 'add-service', service } });
    else if (word === 'server') commands.push({ line, command: { op: 'add-server', service: key, server } });
    else errors.push({ line, message: `no such word: ${word}` });
  }
  return { commands, errors };
};

const GRAMMARS: Grammars = {
  ipvsadm: parseLines,
  rules: (lines, firstLine) => ({ tables: [], errors: [{ line: firstLine, message: lines[0]! }] }),
  rulesFault: ({ fault }) => fault,
};
const read = (text: string, file = '/etc/tapvs/tapvs.yaml'): Config => parseConfig(text, file, GRAMMARS);

/** First lines of all faults, without the file's name. */
function faults(text: string): string[] {
  try {
    read(text, 'f');
  } catch (error) {
    if (error instanceof ConfigError)
      return error.diagnostics.map((d) => `${d.line}:${d.column}: ${d.path}: ${d.message}`);
    throw error;
  }
  return [];
}

const GOOD = `devices:
  - name: front
    kind: tap
    mac: 02:00:00:00:01:01
    bridge: br-front
    addresses: [10.0.1.1/24]
  - { name: back, kind: packet, interface: eth1, mtu: 9000, addresses: [10.0.2.1/24], offload: false }
  - { name: host, kind: tun, host: true, addresses: [10.0.3.1/30], peer: 10.0.3.2/30 }
addresses: [10.0.1.100/32]
routes:
  - { to: default, via: 10.0.1.254 }
sysctl:
  net.ipv4.ip_forward: 1
  net/ipv4/conf/eth0.5/rp_filter: 2
ipvsadm: |
  service 10.0.1.100
  server 10.0.1.100 10.0.2.11
log: { level: debug }
limits: { connections: 5000 }
`;

describe('a good file', () => {
  const config = read(GOOD);

  it('is a value with all defaults filled in', () => {
    expect(config.devices[0]).toEqual({
      name: 'front',
      kind: 'tap',
      netns: null,
      mac: '02:00:00:00:01:01',
      bridge: 'br-front',
      mtu: 1500,
      addresses: ['10.0.1.1/24'],
      host: false,
      offload: true,
      persist: false,
    });
    expect(config.routes).toEqual([{ to: 'default', via: '10.0.1.254', metric: 0, type: 'unicast' }]);
    expect([...config.sysctl]).toEqual([
      ['net.ipv4.ip_forward', '1'],
      ['net.ipv4.conf.eth0/5.rp_filter', '2'],
    ]);
    expect([...config.ipvs.services.keys()]).toEqual(['tcp 10.0.1.100:80']);
    expect([...config.ipvs.services.values()].map((service) => [...service.servers.keys()])).toEqual([
      ['10.0.2.11:80'],
    ]);
    expect(config.limits).toEqual({ connections: 5000, entries: 5000, packets: 2048 });
  });

  it('cannot be changed', () => {
    expect(() => {
      (config.devices[0] as { mtu: number }).mtu = 1;
    }).toThrow(TypeError);
  });

  it('may be empty', () => {
    expect(read('').devices).toEqual([]);
    expect(read('devices:\n').devices).toEqual([]);
  });
});

describe('each fault has its place and its remedy', () => {
  it.each([
    ['an unknown key', 'devcies: []', ["1:1: devcies: unknown key (did you mean 'devices'?)"]],
    [
      'an unknown key of a device',
      'devices:\n  - { name: a, kind: tap, adresses: [] }',
      ["2:27: devices.0.adresses: unknown key (did you mean 'addresses'?)"],
    ],
    ['a key like no other', 'zebra: 1', ['1:1: zebra: unknown key']],
    [
      'a wrong word',
      'devices: [{ name: a, kind: tpa }]',
      ["1:28: devices.0.kind: 'tpa' is not one of tap, tun, packet (did you mean 'tap'?)"],
    ],
    ['a missing key', 'devices: [{ name: a }]', ['1:11: devices.0.kind: is missing: one of tap, tun, packet']],
    [
      'a wrong kind of value',
      'devices: [{ name: a, kind: tap, mtu: big }]',
      ["1:38: devices.0.mtu: must be a number, not 'big'"],
    ],
    [
      'a number out of range',
      'devices: [{ name: a, kind: tap, mtu: 20 }]',
      ['1:38: devices.0.mtu: 20 is too small: at least 68'],
    ],
    ['a list that is none', 'devices: 5', ['1:10: devices: must be a list, not 5']],
    ['a file that is a list', '- a\n- b', ["1:1: : must be a map of keys such as 'devices:', not a list"]],
    [
      'broken YAML',
      'devices: [',
      ['1:11: : Flow sequence in block collection must be sufficiently indented and end with a ]'],
    ],
    ['two documents', '---\nspin: 1\n---\nspin: 2', ["3:1: : a second document begins: '---' may stand once"]],
    ['an alias of nothing', 'spin: 1\ndevices: *nope', ["2:10: : no anchor '&nope' stands above"]],
    [
      'aliases of aliases',
      `${'abcd'.replace(/./g, (name) => `${name}: &${name} [${`*${name === 'a' ? 'x' : String.fromCharCode(name.charCodeAt(0) - 1)}, `.repeat(9)}]\n`).replaceAll('*x', '1')}devices: [*d, *d, *d]`,
      ['1:1: : aliases stand for too much'],
    ],
    ['a key twice', 'addresses: []\naddresses: []', ['2:1: : Map keys must be unique']],
    [
      'a multicast MAC',
      'devices: [{ name: a, kind: tap, mac: 01:00:5e:00:00:01 }]',
      ["1:38: devices.0.mac: '01:00:5e:00:00:01' is a multicast address: the first octet of a device's MAC is even"],
    ],
    [
      'a prefix length forgotten',
      'devices: [{ name: a, kind: tap, addresses: [10.0.0.1] }]',
      ["1:45: devices.0.addresses.0: '10.0.0.1' lacks its prefix length: write 10.0.0.1/24, or 10.0.0.1/32"],
    ],
    [
      'an octet too big',
      'addresses: [10.0.0.256/32]',
      ["1:13: addresses.0: '10.0.0.256/32' is not an address with a prefix length such as 10.0.1.1/24"],
    ],
    [
      'a name too long',
      'devices: [{ name: abcdefghijklmnop, kind: tap }]',
      ["1:19: devices.0.name: 'abcdefghijklmnop' is too long: a device name has at most 15 bytes"],
    ],
    [
      'a name too long in bytes',
      'devices: [{ name: äöüäöüäö, kind: tap }]',
      ["1:19: devices.0.name: 'äöüäöüäö' is too long: a device name has at most 15 bytes"],
    ],
    [
      'host bits in a route',
      'routes: [{ to: 10.0.0.1/24, dev: a }]',
      ["1:16: routes.0.to: '10.0.0.1/24' has bits set behind its prefix length"],
    ],
    [
      'the log level',
      'log: { level: inf }',
      ["1:15: log.level: 'inf' is not one of debug, info, warn, error, silent (did you mean 'info'?)"],
    ],
    [
      'a sysctl without a dot',
      'sysctl: { forward: 1 }',
      ["1:11: sysctl.forward: 'forward' is no sysctl's name, such as net.ipv4.ip_forward"],
    ],
    ['a line of ipvsadm', 'ipvsadm: |\n  service 10.0.0.1\n    sevrer x', ['3:5: ipvsadm: no such word: sevrer']],
  ])('%s', (_what, text, expected) => {
    expect(faults(text)).toEqual(expected);
  });
});

describe('what must hold between several keys', () => {
  const device = (words: string): string => `devices:\n  - { ${words} }\n`;
  it.each([
    [
      'a packet device has an interface',
      device('name: a, kind: packet'),
      "devices.0: a packet device needs 'interface': the name of the network interface to bind to",
    ],
    [
      'no other has one',
      device('name: a, kind: tap, interface: eth0'),
      'devices.0.interface: only a packet device is bound to an interface; a tap is made by its name',
    ],
    [
      'only a tap joins a bridge',
      device('name: a, kind: tun, bridge: br0'),
      'devices.0.bridge: only a tap can be a port of a bridge, not a tun',
    ],
    [
      'the host port is a tun',
      device('name: a, kind: tap, host: true, addresses: [10.0.0.1/30], peer: 10.0.0.2/30'),
      'devices.0.host: the host port must be of kind tun, not tap',
    ],
    [
      'and has a peer',
      device('name: a, kind: tun, host: true, addresses: [10.0.0.1/30]'),
      "devices.0: the host port needs 'peer': the address of the kernel's side",
    ],
    [
      'in its network',
      device('name: a, kind: tun, host: true, addresses: [10.0.0.1/30], peer: 10.0.1.2/30'),
      "devices.0.peer: 10.0.1.2/30 is in none of the device's networks (10.0.0.1/30)",
    ],
    [
      'nobody else has one',
      device('name: a, kind: tap, peer: 10.0.0.2/30'),
      "devices.0.peer: only the host port (host: true) has a kernel's side",
    ],
    [
      'a tun has no MAC',
      device('name: a, kind: tun, mac: 02:00:00:00:00:01'),
      'devices.0.mac: a tun carries no Ethernet frames and has no MAC',
    ],
    [
      'names are unique',
      `${device('name: a, kind: tap')}  - { name: a, kind: tun }`,
      "devices.1.name: 'a' is already the name of devices.0",
    ],
    [
      'addresses are unique',
      `${device('name: a, kind: tap, addresses: [10.0.0.1/24]')}addresses: [10.0.0.1/32]`,
      "addresses.0: 10.0.0.1 is already an address of device 'a'",
    ],
    [
      'networks do not overlap',
      `${device('name: a, kind: tap, addresses: [10.0.0.1/16]')}  - { name: b, kind: tap, addresses: [10.0.5.1/24] }`,
      "devices.1.addresses.0: the network of 10.0.5.1/24 overlaps 10.0.0.1/16 of device 'a'",
    ],
    [
      'a gateway is on a network',
      `${device('name: a, kind: tap, addresses: [10.0.0.1/24]')}routes: [{ to: default, via: 10.0.1.254 }]`,
      'routes.0.via: 10.0.1.254 is in no network of any device',
    ],
    [
      'a route has a way',
      `${device('name: a, kind: tap')}routes: [{ to: default }]`,
      "routes.0: needs 'via' (a gateway) or 'dev' (a device)",
    ],
    ['over a device that is there', 'routes: [{ to: default, dev: a }]', "routes.0.dev: there is no device 'a'"],
    [
      'a service is added once',
      'ipvsadm: |\n  service 10.0.0.1\n  service 10.0.0.1',
      'ipvsadm: is there already: the same service or server stands further above',
    ],
    [
      'a server has a service',
      'ipvsadm: |\n  server 10.0.0.1 10.0.0.2',
      'ipvsadm: there is no such service: it must be added (-A) further above',
    ],
    [
      'the services stand in one place',
      'ipvsadm: ""\nipvsadm_file: x',
      "ipvsadm_file: stands beside 'ipvsadm': the services are either in this file or in another",
    ],
    [
      'lines need a literal block',
      'ipvsadm: >\n  service 10.0.0.1\n  service 10.0.0.2',
      "ipvsadm: must be a literal block: write 'ipvsadm: |' and each command on a line below",
    ],
  ])('%s', (_what, text, expected) => {
    expect(faults(text).map((line) => line.replace(/^\d+:\d+: /, ''))).toEqual([expected]);
  });

  it('the VIP may lie in the network of a device', () => {
    expect(faults(`${device('name: a, kind: tap, addresses: [10.0.0.1/24]')}addresses: [10.0.0.100/32]`)).toEqual([]);
  });
});

describe('all faults at once', () => {
  it('in the order of the lines, each with its line and a caret', () => {
    const text = 'devices:\n\n  - { name: a, kind: tunn }\nrotues: []\nsysctl: { a.b: [1] }\n';
    let said = '';
    try {
      read(text, '/etc/t.yaml');
    } catch (error) {
      said = String(error instanceof ConfigError && error.message);
    }
    expect(said).toBe(
      [
        "/etc/t.yaml:3:22: devices.0.kind: 'tunn' is not one of tap, tun, packet (did you mean 'tun'?)",
        '    - { name: a, kind: tunn }',
        '                       ^',
        "/etc/t.yaml:4:1: rotues: unknown key (did you mean 'routes'?)",
        '  rotues: []',
        '  ^',
        '/etc/t.yaml:5:16: sysctl.a.b: must be a number or a text',
        '  sysctl: { a.b: [1] }',
        '                 ^',
      ].join('\n'),
    );
  });
});

describe('files', () => {
  const dir = mkdtempSync(join(tmpdir(), 'tapvs-config-'));
  afterAll(() => rmSync(dir, { recursive: true }));

  it('a relative ipvsadm_file is relative to the file, and its faults name it', () => {
    const file = join(dir, 'tapvs.yaml');
    writeFileSync(file, 'ipvsadm_file: rules\n');
    writeFileSync(join(dir, 'rules'), 'service 10.0.0.1\n');
    expect([...loadConfig(file, GRAMMARS).ipvs.services.keys()]).toEqual(['tcp 10.0.0.1:80']);
    writeFileSync(join(dir, 'rules'), 'service 10.0.0.1\n  nonsense\n');
    expect(() => loadConfig(file, GRAMMARS)).toThrow(`${dir}/rules:2:3: no such word: nonsense\n    nonsense\n    ^`);
    rmSync(join(dir, 'rules'));
    expect(() => loadConfig(file, GRAMMARS)).toThrow(`${file}:1:15: ipvsadm_file: ${dir}/rules: there is no such file`);
  });

  it('a file that is not there is one line', () => {
    expect(() => loadConfig(join(dir, 'none.yaml'), GRAMMARS)).toThrow(`${dir}/none.yaml: there is no such file`);
  });
});
