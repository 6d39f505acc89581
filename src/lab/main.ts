/**
 * `tapvs lab`: a lab that stays up after the command that made it.
 *
 *   node dist/src/lab/main.js up|down|status [options]
 *
 * What a lab is, is its prefix (lab.ts); how it was made stands in `lab.json` of its run directory.
 */
import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { CliError, Exit } from '../cli/command.ts';
import { readOptions } from '../cli/options.ts';
import { listNetns } from '../rtnl/netns.ts';
import { isEnding, Lab, labDown, labUp } from './lab.ts';
import {
  checkPrefix,
  formatPlan,
  isLabNetns,
  type LabMethod,
  type LabOptions,
  type LabPlan,
  labPlan,
  labRunDir,
} from './plan.ts';

const DEFAULT_PREFIX = 'tapvs-lab-';
const NOT_UP = 3;

const HELP = `Usage: tapvs lab up [--method nat|dr|tun] [--servers N] [--topology lab|classic] [--kind tap|packet] [--mtu N] [--prefix P] [--dry-run]
       tapvs lab status [--prefix P]
       tapvs lab down [--prefix P]
A client, a director with tapvsd and N web servers (3 unless said), each in a network namespace of its own, joined by veth pairs.

  --method nat|dr|tun      how tapvsd forwards: nat unless said (dr in the classic topology)
  --topology classic       the textbook's: client 192.168.2.254 and .1.254, VIP 192.168.2.110, DIP 192.168.1.9, servers 192.168.1.2…
  --kind tap|packet        tapvsd's devices: TAPs in bridges, or sockets on veth ends
  --prefix P               begins the names of the namespaces (${DEFAULT_PREFIX}); labs with different prefixes stand side by side
  --dry-run                print the commands that make it

up: nothing happens when the same lab is up; another one of the same prefix is replaced. Exit status 0.
status: the doctors' findings (scripts/director check, scripts/realserver check on each server). Exit status 0: all is well; 1: not; 3: no such lab.
down: removes everything, also after an up that was killed. Exit status 0.
`;

const OPTIONS = ['--method', '--servers', '--topology', '--kind', '--mtu', '--prefix'].map((long) => ({
  long,
  takesValue: true,
}));

type Values = ReadonlyMap<string, string>;

function oneOf<T extends string>(values: Values, key: string, allowed: readonly T[]): T | undefined {
  const value = values.get(key);
  if (value === undefined) return undefined;
  const found = allowed.find((one) => one === value);
  if (found === undefined) throw usage(`--${key} is one of ${allowed.join(', ')}, not '${value}'`);
  return found;
}

function wholeNumber(values: Values, key: string): number | undefined {
  const value = values.get(key);
  if (value === undefined) return undefined;
  if (!/^[0-9]{1,5}$/.test(value)) throw usage(`--${key} is a number, not '${value}'`);
  return Number(value);
}

function usage(message: string): CliError {
  return new CliError(`tapvs lab: ${message}, see tapvs lab --help`, Exit.Usage);
}

function labOptions(values: Values): LabOptions {
  const method = oneOf<LabMethod>(values, 'method', ['nat', 'dr', 'tun']);
  const topology = oneOf(values, 'topology', ['lab', 'classic']) ?? 'lab';
  const kind = oneOf(values, 'kind', ['tap', 'packet']);
  const servers = wholeNumber(values, 'servers');
  const mtu = wholeNumber(values, 'mtu');
  if (mtu !== undefined && (mtu < 576 || mtu > 9000)) throw usage('--mtu is 576 to 9000');
  return {
    prefix: values.get('prefix') ?? DEFAULT_PREFIX,
    ...(method !== undefined && { method }),
    ...(topology === 'classic' && { layout: 'classic' as const }),
    ...(kind !== undefined && { kind }),
    ...(servers !== undefined && { servers }),
    ...(mtu !== undefined && { mtu }),
  };
}

/** What makes two labs the same; all defaults are filled in. */
function identity({ prefix, method, layout, kind, servers, mtu }: LabPlan): string {
  return JSON.stringify({ prefix, method, layout, kind, servers: servers.length, mtu });
}

function recordFile(prefix: string): string {
  return `${labRunDir(prefix)}/lab.json`;
}

/** The lab that is up under this prefix, by its record; null when there is none. */
function standing(prefix: string): LabPlan | null {
  checkPrefix(prefix);
  if (!existsSync(recordFile(prefix))) return null;
  return labPlan(JSON.parse(readFileSync(recordFile(prefix), 'utf8')) as LabOptions);
}

async function isAlive(plan: LabPlan): Promise<boolean> {
  const present = listNetns();
  const namespaces = [plan.client, plan.director, ...plan.servers.map((server) => server.netns)];
  if (!namespaces.every((name) => present.includes(name))) return false;
  const lab = new Lab(plan);
  if ((await lab.tapvs('status')).status !== 0) return false;
  const [answer] = await Promise.allSettled([lab.curl('--max-time', '2', `http://${plan.vip}/`)]);
  return answer?.status === 'fulfilled';
}

async function up(values: Values, isDryRun: boolean): Promise<number> {
  const plan = labPlan(labOptions(values));
  if (isDryRun) {
    process.stdout.write(formatPlan(plan));
    return 0;
  }
  needRoot();
  const before = standing(plan.prefix);
  if (before !== null && identity(before) === identity(plan) && (await isAlive(before))) {
    process.stdout.write(`the lab is up already\n${describe(plan)}`);
    return 0;
  }
  const lab = await labUp(plan, { outlives: true });
  try {
    await lab.startServers();
    await lab.startDaemon();
  } catch (error) {
    await lab.down();
    throw error;
  }
  mkdirSync(plan.runDir, { recursive: true });
  writeFileSync(recordFile(plan.prefix), identity(plan));
  process.stdout.write(describe(plan));
  return 0;
}

/** Names, addresses, and the first things to try. */
function describe(plan: LabPlan): string {
  const { addresses, servers } = plan;
  const rows = [
    [plan.client, addresses.client, ''],
    [plan.director, [addresses.front, addresses.back].filter(Boolean).join(' '), `VIP ${plan.vip}, ${plan.method}`],
    ...servers.map(({ netns, address, front }) => [netns, [address, front?.address].filter(Boolean).join(' '), '']),
  ];
  const widths = [0, 1].map((column) => Math.max(...rows.map((row) => row[column]!.length)));
  const table = rows.map((row) =>
    `  ${row[0]!.padEnd(widths[0]!)}  ${row[1]!.padEnd(widths[1]!)}  ${row[2]}`.trimEnd(),
  );
  const flag = plan.prefix === DEFAULT_PREFIX ? '' : ` --prefix ${plan.prefix}`;
  return `${table.join('\n')}

  ip netns exec ${plan.client} curl http://${plan.vip}/
  export TAPVS_SOCKET=${plan.socket}
  tapvs ipvsadm -Ln --stats
  ip netns exec ${plan.client} tcpdump -n -e -i eth0 tcp port 80
  tapvs lab status${flag}; tapvs lab down${flag}
`;
}

async function status(values: Values): Promise<number> {
  const plan = standing(values.get('prefix') ?? DEFAULT_PREFIX);
  if (plan === null) {
    process.stdout.write('no lab is up\n');
    return NOT_UP;
  }
  needRoot();
  process.stdout.write(describe(plan));
  const lab = new Lab(plan);
  const doctors = [lab.doctor(plan.director), ...plan.servers.map((server) => lab.doctor(server.netns))];
  let isWell = true;
  for (const { netns, status: found, text } of await Promise.all(doctors)) {
    isWell &&= found === 0;
    // Of a healthy host one line, of the others every line.
    process.stdout.write(found === 0 ? `${netns}: all is well\n` : `${netns}:\n${text.replace(/^(?=.)/gm, '  ')}`);
  }
  const [answer] = await Promise.allSettled([lab.curl('--max-time', '3', `http://${plan.vip}/`)]);
  const served = answer?.status === 'fulfilled';
  process.stdout.write(
    `http://${plan.vip}/ from the client: ${served ? `${answer.value.trim()} answers` : 'no answer'}\n`,
  );
  return isWell && served ? 0 : 1;
}

async function down(values: Values): Promise<number> {
  needRoot();
  const prefix = values.get('prefix') ?? DEFAULT_PREFIX;
  const hadOne = existsSync(labRunDir(prefix)) || listNetns().some((name) => isLabNetns(prefix, name));
  await labDown(prefix);
  process.stdout.write(hadOne ? 'the lab is down\n' : 'no lab was up\n');
  return 0;
}

function needRoot(): void {
  if (process.getuid?.() !== 0) throw new CliError('tapvs lab: this needs root: it makes network namespaces', 77);
}

async function main(args: readonly string[]): Promise<number> {
  const { flags, values, words } = readOptions('lab', args, [...OPTIONS, { long: '--dry-run' }]);
  if (flags.has('help')) {
    process.stdout.write(HELP);
    return 0;
  }
  const [action, ...rest] = words;
  if (rest.length > 0) throw usage(`unexpected "${rest[0]}"`);
  try {
    switch (action) {
      case 'up':
        return await up(values, flags.has('dry-run'));
      case 'status':
        return await status(values);
      case 'down':
        return await down(values);
      default:
        throw usage(action === undefined ? 'one of up, status, down' : `no such action: ${action}`);
    }
  } catch (error) {
    if (error instanceof RangeError) throw usage(error.message);
    throw error;
  }
}

main(process.argv.slice(2)).then(
  // The lab's programs hold pipes of ours: end without waiting for them.
  (code) => process.exit(code),
  (error: unknown) => {
    if (isEnding()) return; // the signal that took the lab down ends this process
    process.stderr.write(`${error instanceof CliError ? error.message : `tapvs lab: ${(error as Error).message}`}\n`);
    process.exit(error instanceof CliError ? error.exit : Exit.Software);
  },
);
