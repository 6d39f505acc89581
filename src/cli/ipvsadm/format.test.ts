/** Texts recorded from ipvsadm 1.31 on kernel 6.1, or printed by it from the same figures. */
import { describe, expect, it } from 'vitest';
import type { ConnectionRow, IpvsStats, ServerRow, ServiceKey, ServiceRow } from '../../model/ipvs.ts';
import {
  formatConnection,
  formatConnectionTitle,
  formatHeadline,
  formatService,
  formatTimeouts,
  formatTitle,
  type Naming,
  sortServices,
} from './format.ts';
import type { ListForm } from './parse.ts';
import { saveService } from './save.ts';

const PLAIN: ListForm = {
  numeric: true,
  stats: false,
  rate: false,
  thresholds: false,
  persistentConn: false,
  tunInfo: false,
  exact: false,
  sort: true,
  json: false,
};

const HOSTS: Record<string, string> = {
  '10.0.1.100': 'vip.test',
  '10.0.1.2': 'client.test',
  '10.0.2.11': 'rs1.test',
  '10.0.2.12': 'rs2.test',
  '10.0.2.13': 'rs3.test',
};
const SERVICES: Record<string, string> = {
  '80/tcp': 'http',
  '443/tcp': 'https',
  '8080/tcp': 'http-alt',
  '53/udp': 'domain',
};
const NAMES: Naming = {
  hostName: (address) => HOSTS[address],
  serviceName: (port, protocol) => SERVICES[`${port}/${protocol}`],
};

const web = service('tcp', '10.0.1.100', 80, 'wrr', {
  stats: stats(3, 15, 10, 822, 620),
  servers: [
    server('10.0.2.12', 80, { method: 'route', weight: 2, inactiveConns: 1, stats: stats(1, 5, 0, 274, 0) }),
    server('10.0.2.11', 8080, {
      weight: 3,
      upperThreshold: 10,
      lowerThreshold: 5,
      inactiveConns: 2,
      stats: stats(2, 10, 10, 548, 620),
    }),
  ],
});
const secure = service('tcp', '10.0.1.100', 443, 'rr', {
  persistenceTimeout: 60,
  stats: stats(1, 5, 5, 274, 309),
  servers: [server('10.0.2.13', 443, { inactiveConns: 1, persistentConns: 1, stats: stats(1, 5, 5, 274, 309) })],
});
const dns = service('udp', '10.0.1.100', 53, 'rr', {
  stats: stats(1, 1, 1, 31, 67),
  servers: [server('10.0.2.11', 53, { inactiveConns: 1, stats: stats(1, 1, 1, 31, 67) })],
});
const TABLE = [dns, secure, web];

describe('lists of services', () => {
  it('prints the plain form, sorted', () => {
    expect(list(PLAIN)).toBe(`IP Virtual Server version 1.2.1 (size=4096)
Prot LocalAddress:Port Scheduler Flags
  -> RemoteAddress:Port           Forward Weight ActiveConn InActConn
TCP  10.0.1.100:80 wrr
  -> 10.0.2.11:8080               Masq    3      0          2${pad(9)}
  -> 10.0.2.12:80                 Route   2      0          1${pad(9)}
TCP  10.0.1.100:443 rr persistent 60
  -> 10.0.2.13:443                Masq    1      0          1${pad(9)}
UDP  10.0.1.100:53 rr
  -> 10.0.2.11:53                 Masq    1      0          1${pad(9)}
`);
  });

  it('prints names', () => {
    expect(list(PLAIN, NAMES)).toContain(`TCP  vip.test:http wrr
  -> rs1.test:http-alt            Masq    3      0          2${pad(9)}
  -> rs2.test:http                Route   2      0          1${pad(9)}
TCP  vip.test:https rr persistent 60
  -> rs3.test:https               Masq    1      0          1${pad(9)}
UDP  vip.test:domain rr
`);
  });

  it('prints counters', () => {
    expect(list({ ...PLAIN, stats: true })).toContain(`
Prot LocalAddress:Port               Conns   InPkts  OutPkts  InBytes OutBytes
  -> RemoteAddress:Port
TCP  10.0.1.100:80                       3       15       10      822      620
  -> 10.0.2.11:8080                      2       10       10      548      620
  -> 10.0.2.12:80                        1        5        0      274        0
TCP  10.0.1.100:443                      1        5        5      274      309
`);
  });

  it('prints thresholds, persistent connections and tunnels', () => {
    expect(list({ ...PLAIN, thresholds: true })).toContain(`
Prot LocalAddress:Port            Uthreshold Lthreshold ActiveConn InActConn${pad(1)}
  -> RemoteAddress:Port
TCP  10.0.1.100:80 wrr
  -> 10.0.2.11:8080               10         5          0          2${pad(9)}
`);
    expect(list({ ...PLAIN, persistentConn: true })).toContain(`
Prot LocalAddress:Port            Weight    PersistConn ActiveConn InActConn${pad(1)}
  -> RemoteAddress:Port
TCP  10.0.1.100:80 wrr
  -> 10.0.2.11:8080               3         0           0          2${pad(9)}
`);
    const tunnels = service('tcp', '10.0.1.100', 80, 'rr', {
      servers: [
        server('10.0.2.14', 80, {}),
        server('10.0.2.13', 80, { method: 'tunnel' }),
        server('10.0.2.12', 80, { method: 'tunnel', tunnel: { type: 'gre', port: 0, checksum: 'none' } }),
        server('10.0.2.11', 80, { method: 'tunnel', tunnel: { type: 'gue', port: 6081, checksum: 'remcsum' } }),
      ],
    });
    const form = { ...PLAIN, tunInfo: true };
    expect(formatTitle(form) + formatService(tunnels, form, 'numeric')).toBe(`Prot LocalAddress:Port Scheduler Flags
  -> RemoteAddress:Port           Forward TunnelInfo    Weight ActiveConn InActConn
TCP  10.0.1.100:80 rr
  -> 10.0.2.11:80                 Tunnel  gue:6081:r+c  1      0          0${pad(9)}
  -> 10.0.2.12:80                 Tunnel  gre:-c        1      0          0${pad(9)}
  -> 10.0.2.13:80                 Tunnel  ipip          1      0          0${pad(9)}
  -> 10.0.2.14:80                 Masq    n/a           1      0          0${pad(9)}
`);
  });

  it('shortens large figures, unless they are to be exact', () => {
    const row = service('tcp', '10.0.0.100', 80, 'rr', {
      stats: stats(99_999_999, 100_000_000, 999_999_999, 123_456_789_012, 123_456_789_012_345),
      servers: [
        server('10.0.0.1', 80, {
          stats: { ...stats(0, 0, 0, 0, 0), cps: 4_294_967_295, inPps: 7, outPps: 8, inBps: 1_999_999_999, outBps: 9 },
        }),
      ],
    });
    expect(formatService(row, { ...PLAIN, stats: true }, 'numeric').split('\n')[0]).toBe(
      'TCP  10.0.0.100:80                99999999  100000K  999999K     123G     123T',
    );
    expect(formatService(row, { ...PLAIN, stats: true, exact: true }, 'numeric').split('\n')[0]).toBe(
      'TCP  10.0.0.100:80                99999999 100000000 999999999 123456789012 123456789012345',
    );
    expect(formatService(row, { ...PLAIN, rate: true }, 'numeric').split('\n')[1]).toBe(
      '  -> 10.0.0.1:80                  4294967295        7        8    1999M        9',
    );
  });

  it('prints flags, masks, engines, marks', () => {
    const first = (row: ServiceRow) => formatService(row, PLAIN, 'numeric').split('\n')[0];
    const sh = { schedulerFlags: 3 };
    expect(first(service('tcp', '10.0.1.101', 81, 'sh', sh))).toBe('TCP  10.0.1.101:81 sh (sh-fallback,sh-port)');
    expect(first(service('tcp', '10.0.1.100', 84, 'sh', { schedulerFlags: 4 }))).toBe('TCP  10.0.1.100:84 sh ()');
    expect(first(service('tcp', '10.0.1.100', 89, 'wrr', { schedulerFlags: 2 }))).toBe(
      'TCP  10.0.1.100:89 wrr (flag-2)',
    );
    const masked = { persistenceTimeout: 60, netmask: '255.0.255.0', pe: 'sip' };
    expect(first(service('udp', '10.0.1.101', 80, 'rr', masked))).toBe(
      'UDP  10.0.1.101:80 rr persistent 60 mask 255.0.255.0 pe sip',
    );
    const idle = { netmask: '255.0.0.0', pe: 'sip', ops: true };
    expect(first(service('udp', '10.0.1.100', 53, 'wlc', idle))).toBe('UDP  10.0.1.100:53 wlc ops');
    const mark = { kind: 'fwmark', fwmark: 1, family: 6 } as const;
    expect(first({ ...service('tcp', '', 0, 'rr', {}), key: mark })).toBe('FWM  1 IPv6 rr');
    const high = {
      ...service('tcp', '', 0, 'rr', {}),
      key: { kind: 'fwmark', fwmark: 4_294_967_295, family: 4 },
    } as const;
    expect(first(high)).toBe('FWM  -1 rr');
    expect(saveService(high, 'numeric')).toBe('-A -f 4294967295 -s rr\n');
  });
});

describe('order', () => {
  it('is that of the address, then the port', () => {
    const at = ['10.0.2.13:80', '10.0.2.11:8080', '10.0.2.12:80', '10.0.2.11:80', '9.9.9.9:80', '10.0.2.2:80'];
    const servers = at.map((text) => server(text.split(':')[0]!, Number(text.split(':')[1]), {}));
    expect(remotes(service('tcp', '10.0.1.100', 80, 'rr', { servers }), PLAIN)).toEqual([
      '9.9.9.9:80',
      '10.0.2.2:80',
      '10.0.2.11:80',
      '10.0.2.11:8080',
      '10.0.2.12:80',
      '10.0.2.13:80',
    ]);
    expect(remotes(service('tcp', '10.0.1.100', 80, 'rr', { servers }), { ...PLAIN, sort: false })).toEqual(at);
  });

  it('takes an address of the upper half for a negative one, as the difference of two ints does', () => {
    const servers = ['10.0.2.11', 'fd00:2::11', '200.0.0.1'].map((address) => server(address, 80, {}));
    expect(remotes(service('tcp', 'fd00:1::100', 80, 'rr', { servers }), PLAIN)).toEqual([
      '200.0.0.1:80',
      '[fd00:2::11]:80',
      '10.0.2.11:80',
    ]);
  });

  it('puts addresses before marks, TCP before UDP', () => {
    const keys: ServiceKey[] = [
      { kind: 'fwmark', fwmark: 9, family: 4 },
      { kind: 'fwmark', fwmark: 1, family: 6 },
      { kind: 'fwmark', fwmark: 1, family: 4 },
      { kind: 'address', protocol: 'udp', address: '10.0.1.1', port: 53 },
      { kind: 'address', protocol: 'tcp', address: 'fd00::1', port: 80 },
      { kind: 'address', protocol: 'tcp', address: '10.0.1.100', port: 80 },
    ];
    const rows = keys.map((key) => ({ ...service('tcp', '', 0, 'rr', {}), key }));
    const saved = sortServices(rows).map((row) => saveService(row, 'numeric').trimEnd());
    expect(saved).toEqual([
      '-A -t 10.0.1.100:80 -s rr',
      '-A -u 10.0.1.1:53 -s rr',
      '-A -t [fd00::1]:80 -s rr',
      '-A -f 1 -s rr',
      '-A -f 1 -6 -s rr',
      '-A -f 9 -s rr',
    ]);
  });
});

describe('save', () => {
  it('names the port of a marked service by number, and leaves thresholds out', () => {
    const mark = { kind: 'fwmark', fwmark: 5, family: 4 } as const;
    const row = { ...service('tcp', '', 0, 'sh', { schedulerFlags: 2 }), key: mark };
    const servers = [
      server('10.0.2.12', 80, { weight: 2, upperThreshold: 9 }),
      server('10.0.2.11', 0, { method: 'local' }),
    ];
    expect(saveService({ ...row, servers }, NAMES)).toBe(
      '-A -f 5 -s sh -b sh-port\n-a -f 5 -r rs1.test:0 -g -w 1\n-a -f 5 -r rs2.test:80 -m -w 2\n',
    );
  });
});

describe('connections and timeouts', () => {
  const template: ConnectionRow = {
    protocol: 'tcp',
    expiresSeconds: 55,
    state: 'ASSURED',
    client: { address: '10.0.1.2', port: 0 },
    virtual: { address: '10.0.1.100', port: 443 },
    destination: { address: '10.0.2.13', port: 443 },
  };

  it('prints them as recorded', () => {
    expect(formatConnectionTitle(PLAIN) + formatConnection(template, PLAIN, 'numeric')).toBe(`IPVS connection entries
pro expire state       source             virtual            destination
TCP 00:55  ASSURED     10.0.1.2:0         10.0.1.100:443     10.0.2.13:443
`);
    expect(formatConnection({ ...template, expiresSeconds: 115, state: 'TIME_WAIT' }, PLAIN, NAMES)).toBe(
      'TCP 01:55  TIME_WAIT   client.test:0      vip.test:https     rs3.test:https\n',
    );
    const marked: ConnectionRow = { ...template, protocol: 'ip', expiresSeconds: 6000 };
    expect(formatConnection(marked, PLAIN, NAMES)).toBe(
      'IP  100:00 ASSURED     client.test:0      vip.test:443       rs3.test:443\n',
    );
  });

  it('prints the data of a persistence engine when there is any', () => {
    const form = { ...PLAIN, persistentConn: true };
    expect(formatConnectionTitle(form)).toContain('destination        pe name          pe_data\n');
    expect(formatConnection(template, form, 'numeric')).toBe(formatConnection(template, PLAIN, 'numeric'));
    expect(formatConnection({ ...template, pe: { name: 'sip', data: 'a@b' } }, form, 'numeric')).toBe(
      'TCP 00:55  ASSURED     10.0.1.2:0         10.0.1.100:443     10.0.2.13:443    sip                a@b\n',
    );
  });

  it('prints timeouts', () => {
    const info = { version: '1.2.1', size: 4096, timeouts: { tcp: 900, tcpFin: 120, udp: 300 } };
    expect(formatTimeouts(info)).toBe('Timeout (tcp tcpfin udp): 900 120 300\n');
  });
});

function list(form: ListForm, naming: Naming = 'numeric'): string {
  const info = { version: '1.2.1', size: 4096, timeouts: { tcp: 900, tcpFin: 120, udp: 300 } };
  return (
    formatHeadline(info) +
    formatTitle(form) +
    sortServices(TABLE)
      .map((row) => formatService(row, form, naming))
      .join('')
  );
}

function remotes(row: ServiceRow, form: ListForm): string[] {
  return formatService(row, form, 'numeric')
    .split('\n')
    .slice(1, -1)
    .map((line) => line.trim().split(/\s+/)[1]!);
}

function pad(count: number): string {
  return ' '.repeat(count);
}

function stats(conns: number, inPkts: number, outPkts: number, inBytes: number, outBytes: number): IpvsStats {
  return { conns, inPkts, outPkts, inBytes, outBytes, cps: 0, inPps: 0, outPps: 0, inBps: 0, outBps: 0 };
}

function service(
  protocol: 'tcp' | 'udp',
  address: string,
  port: number,
  scheduler: string,
  more: Partial<ServiceRow>,
): ServiceRow {
  const key = { kind: 'address', protocol, address, port } as const;
  return { key, scheduler, schedulerFlags: 0, ops: false, stats: stats(0, 0, 0, 0, 0), servers: [], ...more };
}

function server(address: string, port: number, more: Partial<ServerRow>): ServerRow {
  return {
    key: { address, port },
    method: 'masq',
    weight: 1,
    upperThreshold: 0,
    lowerThreshold: 0,
    activeConns: 0,
    inactiveConns: 0,
    persistentConns: 0,
    stats: stats(0, 0, 0, 0, 0),
    ...more,
  };
}
