/** The command against a real API and engine: --plan and --apply, and what -S and -R make of each other. */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Readable } from 'node:stream';
import fc from 'fast-check';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { finish } from '../../base/slices.ts';
import { ControlRig } from '../../control/test-rig.ts';
import { mac } from '../../wire/addr.ts';
import { frame } from '../../wire/build.ts';
import { ApiClient } from '../client.ts';
import { ipvsadm } from './run.ts';

const FRONT = '02:00:00:00:01:01';
const CLIENT = '02:00:00:00:01:02';

let rig: ControlRig;
let directory = '';
beforeEach(async () => {
  rig = new ControlRig();
  await rig.listen();
  directory = mkdtempSync(join(tmpdir(), 'tapvs-table-'));
});
afterEach(() => {
  rig.close();
  rmSync(directory, { recursive: true });
});

/** Runs `ipvsadm ARGS`; answers its status and what it wrote. */
async function run(args: string, stdin = ''): Promise<{ status: number; out: string; err: string }> {
  const client = new ApiClient(rig.socketPath);
  const written = { out: '', err: '' };
  try {
    const status = await ipvsadm.run(args.split(' '), {
      program: 'ipvsadm',
      client,
      stdin: Readable.from([stdin]),
      out: (text) => {
        written.out += text;
      },
      err: (text) => {
        written.err += text;
      },
    });
    return { status, ...written };
  } finally {
    client.close();
  }
}

/** The whole state as the lists show it. */
async function state(): Promise<string[]> {
  const lists = ['-Sn', '-Lnc', '-Ln --stats -X', '-Ln --thresholds', '-L --timeout', '-L --drain'];
  const texts: string[] = [];
  for (const list of lists) texts.push((await run(list)).out);
  return texts;
}

function file(text: string): string {
  const path = join(directory, 'rules');
  writeFileSync(path, text);
  return path;
}

/** SYN and ACK of a client. */
function connect(from: string, port: number, to = '10.0.1.100', toPort = 80): void {
  rig.front.macHi = mac(FRONT).hi;
  rig.front.macLo = mac(FRONT).lo;
  for (const flags of ['S', 'A']) {
    const tcp = { srcPort: port, dstPort: toPort, flags };
    rig.front.inject(frame().eth(FRONT, CLIENT).ipv4(from, to).tcp(tcp).build());
    rig.engine.wake();
    rig.engine.breathe();
  }
}

const TABLE = `-A -t 10.0.1.100:80 -s mh
-a -t 10.0.1.100:80 -r 10.0.2.11:80 -m -w 1
-a -t 10.0.1.100:80 -r 10.0.2.12:80 -m -w 1
-a -t 10.0.1.100:80 -r 10.0.2.13:80 -m -w 1
-A -u 10.0.1.100:53 -s rr -p 60
-a -u 10.0.1.100:53 -r 10.0.2.11:53 -m -w 1
--set 800 100 200
`;

describe('--plan and --apply', () => {
  it('print the difference, and what becomes of connections; statuses 0, 1 and 2', async () => {
    expect(await run('-R', TABLE)).toEqual({ status: 0, out: '', err: '' });
    const clients = Array.from({ length: 40 }, (_, i) => `10.0.1.${2 + i}`);
    for (const client of clients) connect(client, 7000);
    const where = () =>
      new Map(
        rig.engine.director.listConnections(0, 100).rows.map((row) => [row.client.address, row.destination.address]),
      );
    const before = where();
    expect(before.size).toBe(40);
    expect(await run(`--plan ${file(TABLE)}`)).toEqual({ status: 0, out: '', err: '' });

    const next = TABLE.replace('-a -t 10.0.1.100:80 -r 10.0.2.12:80 -m -w 1\n', '')
      .replace('10.0.2.13:80 -m -w 1', '10.0.2.13:80 -m -w 2 -x 50')
      .replace('-s rr -p 60', '-s wrr -p 60')
      .replace('--set 800 100', '--set 0 90')
      .concat('-A -t 10.0.1.100:443\n-a -t 10.0.1.100:443 -r 10.0.2.14 -g\n');
    const path = file(`# as of today\n\n${next}`);
    const plan = await run(`--plan ${path}`);
    expect(plan.status).toBe(2);
    const orphans = [...before.values()].filter((server) => server === '10.0.2.12').length;
    const lines = plan.out.trimEnd().split('\n');
    expect(lines.slice(0, -2)).toEqual([
      '~ server 10.0.1.100:80 → 10.0.2.13:80 weight 1 → 2, u-threshold none → 50',
      `- server 10.0.1.100:80 → 10.0.2.12:80 (${orphans} connections lose their server)`,
      '~ service udp 10.0.1.100:53 scheduler rr → wrr',
      '+ service tcp 10.0.1.100:443 scheduler wlc',
      '+ server 10.0.1.100:443 → 10.0.2.14:443 method route weight 1',
      '~ timeouts tcp 0 tcpfin 90 udp 200 (0 = unchanged)',
    ]);
    const elsewhere = Number(
      /^tcp 10\.0\.1\.100:80: (\d+) of 40 connections' clients would be scheduled elsewhere$/.exec(lines.at(-2)!)?.[1],
    );
    expect(lines.at(-1)).toBe(`6 changes, ${orphans} connections lose their server`);

    const json = JSON.parse((await run(`--plan ${path} --json`)).out) as {
      orphans: number;
      moves: unknown;
      changes: unknown[];
    };
    expect(json).toMatchObject({ faults: [], orphans, moves: [{ of: 40, elsewhere, service: { port: 80 } }] });
    expect(json.changes).toHaveLength(6);

    expect((await run(`--apply ${path}`)).status).toBe(0);
    expect(await run(`--apply -`, next)).toEqual({ status: 0, out: '', err: '' });
    expect((await run('-L --timeout')).out).toBe('Timeout (tcp tcpfin udp): 800 90 200\n');
    // The prediction comes true: the same clients from other ports.
    for (const client of clients) connect(client, 7001);
    const now = rig.engine.director.listConnections(0, 200).rows.filter((row) => row.client.port === 7001);
    expect(now.filter((row) => before.get(row.client.address) !== row.destination.address)).toHaveLength(elsewhere);
    expect(elsewhere).toBeGreaterThanOrEqual(orphans);
  });

  it('lets synchronisation daemons be: they are no part of the table', async () => {
    expect(await run('--start-daemon backup --mcast-interface front --syncid 5')).toMatchObject({ status: 0, err: '' });
    const { out: daemons } = await run('-L --daemon');
    expect(daemons).toMatch(/^backup sync daemon \(mcast=front, syncid=5, /);
    expect((await run(`--apply ${file(TABLE)}`)).status).toBe(0);
    expect((await run('-Sn')).out).not.toContain('daemon');
    expect(await run(`--plan ${file(TABLE)}`)).toEqual({ status: 0, out: '', err: '' });
    expect((await run('-L --daemon')).out).toBe(daemons);
  });

  it('goes from full NAT to one-packet scheduling and back, which do not go together', async () => {
    const fullNat =
      '-A -u 10.0.1.100:53 -s rr\n-P -u 10.0.1.100:53 -z 10.0.2.1\n-a -u 10.0.1.100:53 -r 10.0.2.11:53 -b\n';
    const onePacket = '-A -u 10.0.1.100:53 -s rr -o\n-a -u 10.0.1.100:53 -r 10.0.2.11:53 -m\n';
    for (const table of [fullNat, onePacket, fullNat]) {
      expect(await run(`--apply ${file(table)}`)).toMatchObject({ status: 0, err: '' });
      expect(await run(`--plan ${file(table)}`)).toEqual({ status: 0, out: '', err: '' });
    }
  });

  it('an apply that fails changes nothing, and says where', async () => {
    await run('-R', TABLE);
    for (let i = 0; i < 9; i++) connect(`10.0.1.${2 + i}`, 7000);
    await run('--drain -t 10.0.1.100:80 -r 10.0.2.11');
    rig.pass(3);
    const before = await state();
    const generation = rig.engine.director.generation;
    const bad = [
      ['-A -t 10.0.1.100:80 -s nosuch', '2: Scheduler or persistence engine not found'],
      ['-A -u 10.0.1.100:53\n-A -u 10.0.1.100:53', '3: Service already exists'],
      ['-a -t 10.0.1.100:99 -r 10.0.2.11 -m', '2: Service not defined'],
      ['-A -t 10.0.1.100:80\n-a -t 10.0.1.100:80 -r 10.0.2.11 -y 5 -m', '3: Numerical result out of range'],
      [
        '-A -t 10.0.1.100:80\n-a -t 10.0.1.100:80 -r 10.0.2.255 -m',
        '3: Invalid operation.  Possibly wrong module version, address not unicast, ...',
      ],
      ['-A -t foo', '2: illegal virtual server address[:port] specified'],
      ['-A -t [fd00::1]:80', '2: Operation not supported with specified address family'],
      ['-Z', "2: '-Z' is no part of a table: -A, -a and --set are"],
      ['-Ln', "2: '-Ln' is no part of a table: -A, -a and --set are"],
      ['--drain -t 10.0.1.100:80 -r 10.0.2.11', "2: '--drain' is no part of a table: -A, -a and --set are"],
      ['--start-daemon master', "2: '--start-daemon' is no part of a table: -A, -a and --set are"],
      ['--stop-daemon master', "2: '--stop-daemon' is no part of a table: -A, -a and --set are"],
      ['add me', "2: 'add me' is no command of ipvsadm"],
      ['-A -t', '2: -t: missing argument'],
    ] as const;
    for (const [lines, message] of bad) {
      const path = file(`-A -t 10.0.1.100:8080 -s rr\n${lines}\n`);
      expect(await run(`--apply ${path}`)).toEqual({ status: 1, out: '', err: `${path}:${message}\n` });
      expect((await run(`--plan ${path}`)).status).toBe(1);
    }
    expect(await run('--apply /nonexistent/rules')).toMatchObject({ status: 1, out: '' });
    expect(await state()).toEqual(before);
    expect([rig.engine.director.generation - generation, rig.changed.includes('clear')]).toEqual([0, false]);
    expect(new Set(rig.changed.slice(9))).toEqual(new Set());
  });

  it('what does not fit is refused as a whole, whatever came before it', async () => {
    await run('-R', TABLE);
    const { director } = rig.engine;
    const before = await state();
    const add = (port: number) => ({
      op: 'add-service' as const,
      service: {
        key: { kind: 'address', protocol: 'tcp', address: '10.0.1.100', port } as const,
        scheduler: 'rr',
        schedulerFlags: 0,
        ops: false,
      },
    });
    const many = Array.from({ length: director.services.capacity }, (_, i) => add(1000 + (i % 60000)));
    expect(finish(director.executeAll(many, director.generation))).toEqual({
      index: director.services.capacity - 2,
      errno: 'ENOSPC',
    });
    expect(finish(director.executeAll([add(81)], director.generation - 1))).toBe('changed');
    expect(await state()).toEqual(before);
  });

  it('has local addresses, too: -P -Q -G, all or nothing, and saved', async () => {
    const [web, dns] = ['-t 10.0.1.100:80', '-u 10.0.1.100:53'];
    const table = `-A ${web} -s rr\n-P ${web} -z 10.0.1.1\n-P ${web} -z 10.0.1.100:5000-5999\n-a ${web} -r 10.0.2.11:80 -b -w 1\n`;
    expect(await run(`--apply ${file(table)}`)).toMatchObject({ status: 0, err: '' });
    expect((await run('-Sn')).out).toBe(table);
    expect(await run(`--plan ${file(table)}`)).toEqual({ status: 0, out: '', err: '' });
    expect((await run('-Ln')).out).toContain(
      '  -> 10.0.2.11:80                 FullNat 1      0          0         \n',
    );
    connect('10.0.1.2', 7000);
    expect((await run('-Lnc')).out.split('\n')[2]).toMatch(
      /^TCP \d\d:\d\d {2}ESTABLISHED 10\.0\.1\.2:7000 +10\.0\.1\.100:80 +10\.0\.2\.11:80 {7}10\.0\.1\.100:5000$/,
    );
    await run('-R', `-A ${dns} -s rr\n`);
    expect((await run('-G')).out.split('\n')).toEqual([
      'VIP:VPORT            TOTAL    SNAT_IP              CONFLICTS  CONNS     ',
      '10.0.1.100:80        2        ',
      '                              10.0.1.1             0          0         ',
      '                              10.0.1.100:5000-5999 0          1         ',
      '10.0.1.100:53        0        ',
      '',
    ]);
    expect(JSON.parse((await run(`-G ${web} --json`)).out)).toEqual([
      {
        service: { kind: 'address', protocol: 'tcp', address: '10.0.1.100', port: 80 },
        localAddresses: [
          { address: '10.0.1.1', conns: 0, conflicts: 0 },
          { address: '10.0.1.100', ports: { from: 5000, to: 5999 }, conns: 1, conflicts: 0 },
        ],
      },
    ]);
    expect(JSON.parse((await run('-Lnc --json')).out)).toMatchObject([
      { local: { address: '10.0.1.100', port: 5000 } },
    ]);
    const before = await state();
    for (const [bad, message] of [
      [
        `-P ${web} -z 10.0.1.77`,
        'The local address is not ours, or not on that device: add it first (tapvs ip addr add)',
      ],
      [`-P ${web} -z 10.0.1.1 -F nowhere`, 'No such device'],
      [`-P -t 10.0.1.100:81 -z 10.0.1.1`, 'No such service'],
      [
        `-A ${dns} -s rr -o\n-a ${dns} -r 10.0.2.11 -b`,
        'Full NAT does not go together with one-packet scheduling, nor with FTP (port 21)',
      ],
    ]) {
      const lines = `-A ${web} -s rr\n${bad}\n`;
      const answer = await run(`--apply ${file(lines)}`);
      expect([answer.status, answer.err]).toEqual([1, expect.stringContaining(`: ${message}\n`)]);
      expect(await state()).toEqual(before);
    }
    const next = table.replace('-P -t 10.0.1.100:80 -z 10.0.1.1\n', '').replace('5000-5999', '6000-6999');
    expect((await run(`--apply ${file(next)}`)).out).toBe(
      '- service udp 10.0.1.100:53\n- local address 10.0.1.100:80 ← 10.0.1.1\n' +
        '~ local address 10.0.1.100:80 ← 10.0.1.100 ports 5000-5999 → 6000-6999\n3 changes, 0 connections lose their server\n',
    );
    expect((await run('-Sn')).out).toBe(next);
    expect((await run(`-P ${web} -z 10.0.1.100`)).err).toBe('Local address already exists\n');
    expect((await run(`-Q ${web} -z 10.0.1.1`)).err).toBe('No such local address\n');
    expect(await run(`-Q ${web} -z 10.0.1.100`)).toMatchObject({ status: 0 });
    expect((await run('-Sn')).out).not.toContain('-P');
  });

  it('an edit that gives a drained server a weight says that it ends the drain', async () => {
    await run('-R', TABLE);
    await run('--drain -t 10.0.1.100:80 -r 10.0.2.11');
    const path = file(TABLE);
    expect((await run(`--plan ${path}`)).out.split('\n')[0]).toBe(
      '~ server 10.0.1.100:80 → 10.0.2.11:80 weight 0 → 1 (ends its drain)',
    );
    await run(`--apply ${path}`);
    expect((await run('-L --drain')).out).toBe('');
    expect(rig.changed.at(-1)).toBe('edit-server');
  });

  it('2,000 services of 10 servers come and go between two breaths; what stays keeps connections and counters', async () => {
    await run('-R', TABLE);
    connect('10.0.1.2', 7000);
    const big = Array.from({ length: 2000 }, (_, i) => {
      const service = `-t 10.9.${i >> 8}.${i & 255}:80`;
      const servers = Array.from(
        { length: 10 },
        (_unused, n) => `-a ${service} -r 10.0.2.${20 + n}:80 -m -w ${n + 1}\n`,
      );
      return `-A ${service} -s wrr\n${servers.join('')}`;
    });
    const path = file(TABLE + big.join(''));
    const seen = new Set<string>();
    let isOver = false;
    const watching = (async () => {
      while (!isOver) {
        rig.engine.breathe();
        seen.add(`${rig.engine.director.services.count} ${rig.engine.director.dests.count}`);
        await new Promise((resolve) => setImmediate(resolve));
      }
    })();
    const applied = await run(`--apply ${path}`);
    isOver = true;
    await watching;
    expect([applied.status, applied.err]).toEqual([0, '']);
    expect(applied.out.trimEnd().split('\n').at(-1)).toBe('22000 changes, 0 connections lose their server');
    expect([...seen].sort()).toEqual(['2 4', '2002 20004'].filter((one) => seen.has(one)));
    expect(seen.has('2 4')).toBe(true);
    const { stats } = rig.engine.director.listServices(0, 1).rows[0]!;
    expect([stats.conns, stats.inPkts]).toEqual([1, 2]);
    expect((await run('-Lnc')).out).toContain('10.0.1.2:7000');
    const back = await run(`--apply ${file(TABLE)}`);
    expect(back.out.trimEnd().split('\n').at(-1)).toBe('2000 changes, 0 connections lose their server');
    expect([rig.engine.director.services.count, rig.engine.director.dests.count]).toEqual([2, 4]);
  }, 60_000);
});

describe('--json', () => {
  const json = async (args: string): Promise<unknown> => JSON.parse((await run(`${args} --json`)).out);

  it('has a shape for every list, with numbers as numbers', async () => {
    await run('-R', TABLE);
    connect('10.0.1.2', 7000);
    const server = {
      key: { address: '10.0.2.13', port: 80 },
      method: 'masq',
      weight: 1,
      upperThreshold: 0,
      lowerThreshold: 0,
      persistentConns: 0,
    };
    const stats = {
      conns: 1,
      inPkts: 2,
      outPkts: 0,
      inBytes: 80,
      outBytes: 0,
      cps: 0,
      inPps: 0,
      outPps: 0,
      inBps: 0,
      outBps: 0,
    };
    const web = {
      key: { kind: 'address', protocol: 'tcp', address: '10.0.1.100', port: 80 },
      scheduler: 'mh',
      schedulerFlags: 0,
      ops: false,
    };
    const dns = {
      key: { kind: 'address', protocol: 'udp', address: '10.0.1.100', port: 53 },
      scheduler: 'rr',
      persistenceTimeout: 60,
    };
    const timeouts = { tcp: 800, tcpFin: 100, udp: 200 };
    expect(await json('-Ln')).toMatchObject({
      version: '1.2.1',
      size: 4096,
      timeouts,
      services: [{ ...web, stats }, dns],
    });
    for (const form of ['--stats', '--rate', '--thresholds', '--persistent-conn', '--tun-info', '-X']) {
      const [row] = (await json(`-Ln -t 10.0.1.100:80 ${form}`)) as [{ servers: { key: { address: string } }[] }];
      expect(row).toMatchObject({ ...web, stats });
      expect(row.servers.find(({ key }) => key.address === '10.0.2.13')).toMatchObject(server);
    }
    expect(await json('-L --timeout')).toEqual(timeouts);
    expect(await json('-L --daemon')).toEqual([]);
    expect(await json('-L --drain')).toEqual([]);
    expect(await json('-Lnc')).toMatchObject([
      {
        protocol: 'tcp',
        state: 'ESTABLISHED',
        expiresSeconds: 800,
        client: { address: '10.0.1.2', port: 7000 },
        virtual: { address: '10.0.1.100', port: 80 },
        destination: { port: 80 },
      },
    ]);
    await run('--drain -u 10.0.1.100:53 -r 10.0.2.11 --deadline 9');
    expect(await json('-L --drain')).toEqual([
      {
        service: dns.key,
        server: { address: '10.0.2.11', port: 53 },
        state: 'done',
        elapsedSeconds: 0,
        leftSeconds: 9,
        udpIdleSeconds: null,
        weight: 1,
        activeConns: 0,
        inactiveConns: 0,
        persistentConns: 0,
        idled: 0,
        reset: 0,
        unanswered: 0,
        removed: 0,
      },
    ]);
    expect((await run('-Ln --drain')).out).toBe(
      'Prot  Service        Server        State  Elapsed  Left  ActiveConn  InActConn  PersistConn  Idled  Reset  Unanswered  Removed\n' +
        'UDP   10.0.1.100:53  10.0.2.11:53  done         0     9           0          0            0      0      0           0        0\n',
    );
    const wait = await run('--drain -u 10.0.1.100:53 -r 10.0.2.11 --wait');
    expect(wait.out).toBe('drained after 0 s: 0 idled, 0 reset, 0 unanswered, 0 removed\n');
  });
});

describe('-S and -R', () => {
  const port = fc.integer({ min: 1, max: 65535 });
  const server = fc.record({
    host: fc.integer({ min: 11, max: 250 }),
    port,
    weight: fc.oneof(fc.integer({ min: 0, max: 9 }), fc.constant(2147483647)),
    method: fc.oneof(
      fc.constantFrom('-m', '-g', '-i', '-i --tun-type ipip', '-i --tun-type gre', '-i --tun-type gre --tun-csum'),
      fc
        .tuple(port, fc.constantFrom('', ' --tun-nocsum', ' --tun-csum', ' --tun-remcsum'))
        .map(([p, sums]) => `-i --tun-type gue --tun-port ${p}${sums}`),
    ),
  });
  const service = fc.record({
    key: fc.oneof(
      fc
        .tuple(fc.constantFrom('-t', '-u', '--sctp-service'), fc.integer({ min: 1, max: 9 }), port)
        .map(([kind, n, p]) => `${kind} 10.0.7.${n}:${p}`),
      fc.integer({ min: 1, max: 2_147_483_647 }).map((mark) => `-f ${mark}`),
    ),
    scheduler: fc.constantFrom(
      'rr',
      'wrr',
      'lc',
      'wlc',
      'lblc',
      'lblcr',
      'dh',
      'sh',
      'sed',
      'nq',
      'fo',
      'ovf',
      'mh',
      'twos',
    ),
    persistence: fc.option(fc.integer({ min: 1, max: 2_678_400 })),
    mask: fc.constantFrom('', ' -M 255.255.255.0', ' -M 255.0.0.0', ' -M 255.255.255.255', ' -M 0.0.0.0'),
    flags: fc.constantFrom('', ' -b flag-1', ' -b flag-2', ' -b flag-1,flag-2'),
    ops: fc.boolean(),
    engine: fc.constantFrom('', ' --pe sip'),
    servers: fc.array(server, { maxLength: 6 }),
  });

  // Marks of 2³¹ and more are no order to the classic sort, so they stand anywhere.
  it('any table that can be is saved and read back the same, and is what --plan finds no difference to', async () => {
    let all = '';
    await fc.assert(
      fc.asyncProperty(fc.array(service, { maxLength: 8 }), async (services) => {
        await run('-C');
        const lines: string[] = [];
        for (const { key, scheduler, persistence, mask, flags, ops, engine, servers } of services) {
          const sticky = persistence === null ? '' : ` -p ${persistence}${mask}`;
          const once = ops && /^-[uf]/.test(key) ? ' -o' : '';
          lines.push(`-A ${key} -s ${scheduler}${sticky}${engine}${once}${flags}`);
          for (const { host, port: p, weight, method } of servers) {
            lines.push(`-a ${key} -r 10.0.8.${host}:${p} ${method} -w ${weight}`);
          }
        }
        await run('-R', lines.join('\n'));
        const saved = (await run('-Sn')).out;
        all += saved;
        const path = file(saved);
        expect(await run(`--plan ${path}`)).toEqual({ status: 0, out: '', err: '' });
        await run('-C');
        expect(await run('-R', saved)).toEqual({ status: 0, out: '', err: '' });
        expect((await run('-Sn')).out).toBe(saved);
        await run('-C');
        expect((await run(`--apply ${path}`)).err).toBe('');
        expect((await run('-Sn')).out).toBe(saved);
      }),
      { numRuns: 12, seed: 5 },
    );
    for (const words of [
      '--sctp-service 10',
      '--pe sip',
      'type gre --tun-csum',
      'type gue --tun-port',
      '--tun-remcsum',
    ]) {
      expect(all).toContain(words);
    }
  }, 60_000);
});
