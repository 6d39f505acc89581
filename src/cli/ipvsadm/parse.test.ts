import { readFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import type { IpvsCommand, IpvsStats, ServiceKey, ServiceRow } from '../../model/ipvs.ts';
import { LookupNeeded, Names } from './names.ts';
import { type Parsed, parse } from './parse.ts';
import { Refused } from './refused.ts';
import { saveService } from './save.ts';

const names = new Names();
const table = readFileSync(new URL('../../../golden/cli/ipvsadm.t', import.meta.url), 'utf8');
const lines = table.split('\n').filter((line) => line !== '' && !line.startsWith('#'));

describe('golden/cli/ipvsadm.t', () => {
  it.each(lines)('%s', (line) => {
    const [input, expected, verdict] = line.split(' ; ') as [string, string, string];
    const words = input.split(' ').map((word) => (word === "''" ? '' : word));
    if (verdict === 'OK') {
      expect(canonical(parse(words, 'ipvsadm', names))).toBe(expected === '=' ? input : expected);
      return;
    }
    const refusal = refusalOf(words);
    expect(refusal.message.replaceAll('\n', '\\n')).toBe(expected);
    expect(`FAIL ${refusal.exit}`).toBe(verdict);
  });
});

describe('what only some options decide', () => {
  it('stops a restore at a refusal of ipvsadm, and only the line at one of its option reader', () => {
    expect(refusalOf(['-A', '-t', ':80']).isFatal).toBe(true);
    expect(refusalOf(['foo']).isFatal).toBe(true);
    expect(refusalOf(['-A', '-t']).isFatal).toBe(false);
  });

  it('asks for the address of a host that it does not know', () => {
    expect(() => parse(['-A', '-t', 'vip.test:80'], 'ipvsadm', names)).toThrow(LookupNeeded);
  });

  it.each([
    ['--start-daemon master --mcast-interface br0', 'br0'],
    ['--start-daemon master', 'eth0'],
    ['--start-daemon backup --mcast-interface=', 'eth0'],
  ])('%s speaks on %s', (line, device) => {
    expect(parse(line.split(' '), 'ipvsadm', names)).toMatchObject({ command: { daemon: { device } } });
  });

  it('reads the forms of lists', () => {
    expect(parse(['-Lnc', '--persistent-conn'], 'ipvsadm', names)).toMatchObject({
      kind: 'list-connections',
      form: { numeric: true, persistentConn: true, sort: true, json: false },
    });
    expect(parse(['-l', '--stats', '-X', '--nosort', '-f', '7', '-6'], 'ipvsadm', names)).toMatchObject({
      kind: 'list-services',
      service: { kind: 'fwmark', fwmark: 7, family: 6 },
      form: { numeric: false, stats: true, exact: true, sort: false },
    });
    expect(parse(['-L', '--timeout'], 'ipvsadm', names).kind).toBe('list-timeouts');
    expect(parse(['-L', '--daemon'], 'ipvsadm', names).kind).toBe('list-daemons');
    expect(parse(['-L', '--drain'], 'ipvsadm', names).kind).toBe('list-drains');
  });
});

function refusalOf(words: readonly string[]): Refused {
  try {
    parse(words, 'ipvsadm', names);
  } catch (error) {
    if (error instanceof Refused) return error;
    throw error;
  }
  throw new Error(`${words.join(' ')} was accepted`);
}

/** A change as the words that -S would write, thresholds added. */
function canonical(parsed: Parsed): string {
  if (parsed.kind === 'drain') {
    const { command, wait } = parsed;
    const [deadline, idle] = command.op === 'drain' ? [command.deadline, command.udpIdle] : [];
    return [
      `--${command.op} ${serviceWords(command.service)} -r ${command.server.address}:${command.server.port}`,
      ...(deadline === undefined ? [] : [`--deadline ${deadline}`]),
      ...(idle === undefined ? [] : [`--udp-idle ${idle}`]),
      ...(wait ? ['--wait'] : []),
    ].join(' ');
  }
  if (parsed.kind !== 'change') return parsed.kind;
  const { command } = parsed;
  switch (command.op) {
    case 'add-service':
    case 'edit-service':
      return saved({ ...command.service, stats: NO_STATS, servers: [] })[0]!;
    case 'add-server':
    case 'edit-server': {
      const { server } = command;
      const row = { ...server, activeConns: 0, inactiveConns: 0, persistentConns: 0, stats: NO_STATS };
      const thresholds = server.upperThreshold === 0 ? '' : ` -x ${server.upperThreshold} -y ${server.lowerThreshold}`;
      return `${saved({ ...bare(command.service), servers: [row] })[1]}${thresholds}`;
    }
    default:
      return plain(command);
  }
}

function plain(command: IpvsCommand): string {
  switch (command.op) {
    case 'delete-service':
      return `-D ${serviceWords(command.service)}`;
    case 'delete-server':
      return `-d ${serviceWords(command.service)} -r ${command.server.address}:${command.server.port}`;
    case 'add-local-address':
      return saved({ ...bare(command.service), localAddresses: [{ ...command.local, conns: 0, conflicts: 0 }] })[1]!;
    case 'delete-local-address': {
      const { address, device } = command.local;
      return `-Q ${serviceWords(command.service)} -z ${address}${device === undefined ? '' : ` -F ${device}`}`;
    }
    case 'zero':
      return command.service === undefined ? '-Z' : `-Z ${serviceWords(command.service)}`;
    case 'set-timeouts':
      return `--set ${command.tcp} ${command.tcpFin} ${command.udp}`;
    default:
      return '-C';
  }
}

function serviceWords(key: ServiceKey): string {
  return saved(bare(key))[0]!.replace(/^-A (.*) -s rr$/, '$1');
}

function bare(key: ServiceKey): ServiceRow {
  return { key, scheduler: 'rr', schedulerFlags: 0, ops: false, stats: NO_STATS, servers: [] };
}

function saved(row: ServiceRow): string[] {
  return saveService(row, 'numeric').trimEnd().split('\n');
}

const NO_STATS: IpvsStats = {
  conns: 0,
  inPkts: 0,
  outPkts: 0,
  inBytes: 0,
  outBytes: 0,
  cps: 0,
  inPps: 0,
  outPps: 0,
  inBps: 0,
  outBps: 0,
};
