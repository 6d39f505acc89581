/**
 * `scripts/bench restart`: restarts under the load of the promise (docs/restart.md): 500 new connections a second, 2,000 held ones, wrk and a 1 GB transfer, while the
 * daemon is told to restart, and is killed. Says how long nothing was forwarded, and whether anybody lost a connection. Needs root.
 */
import { readFileSync } from 'node:fs';
import { parseArgs } from 'node:util';
import { spawnIn } from '../src/rtnl/netns.ts';
import { type BulkReport, type HoldReport, type NewReport, type PingReport, RestartRig } from './restart-rig.ts';

const USAGE = `Usage: scripts/bench restart [--held N] [--rate N] [--bytes N] [--rounds N] [--no-spare]
  --held N     connections that are there before and talk afterwards (2000)
  --rate N     new connections a second (500)
  --bytes N    size of the transfer that is under way (1000000000)
  --rounds N   of each kind of restart (3)
  --no-spare   without a process that waits for its turn
`;

interface Sizes {
  readonly held: number;
  readonly rate: number;
  readonly bytes: number;
  readonly rounds: number;
}

const second = (): Promise<void> => new Promise((resolve) => setTimeout(resolve, 1000));

/** The daemon's own line about what it has taken over, behind `from` bytes of its log. */
async function wentOn(file: string, from: number): Promise<Record<string, number>> {
  for (let tries = 0; tries < 200; tries++) {
    const lines = readFileSync(file).subarray(from).toString().split('\n');
    const line = lines.find((text) => text.includes('went on from the life before'));
    if (line !== undefined && lines.some((text) => text.includes('tapvsd is ready'))) return JSON.parse(line);
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
  throw new Error(`the daemon did not go on: ${readFileSync(file).subarray(from).toString()}`);
}

async function round(
  rig: RestartRig,
  how: string,
  restart: () => void,
  { held, rate, bytes }: Sizes,
): Promise<boolean> {
  const { client, vip, logFile } = rig.plan;
  const hold = await rig.client('hold', held);
  await hold.next<HoldReport>();
  const ping = await rig.client('ping');
  const fresh = await rig.client('new', rate);
  const wrk = spawnIn(client, ['wrk', '-t1', '-c16', '-d8s', `http://${vip}/`]);
  let said = '';
  wrk.stdout?.on('data', (chunk: Buffer) => {
    said += chunk.toString();
  });
  const bulk = await rig.client('bulk', bytes);
  await second();
  const quiet = await ping.ask<PingReport>();
  const from = readFileSync(logFile).length;
  restart();
  const line = await wentOn(logFile, from);
  const pinged = await ping.ask<PingReport>();
  const opened = await fresh.ask<NewReport>();
  const talked = await hold.ask<HoldReport>();
  const got = await bulk.next<BulkReport>();
  if (wrk.exitCode === null) await new Promise((resolve) => wrk.once('exit', resolve));
  for (const peer of [hold, ping, fresh]) peer.end();
  const left = await fresh.next<NewReport>();
  const sockets = /Socket errors: (.*)/.exec(said)?.[1] ?? 'none';
  const errors = { ...talked.errors, ...opened.errors, ...left.errors };
  const isWell =
    talked.answered === held &&
    talked.moved === 0 &&
    Object.keys(errors).length === 0 &&
    got.intact &&
    sockets === 'none';
  console.log(
    [
      how.padEnd(8),
      `pause ${line.pauseMs} ms`,
      `ping-pong ${pinged.longestMs ?? pinged.error} ms (before: ${quiet.longestMs})`,
      `taken over ${line.connections} connections, ${line.entries} entries, ${line.dropped} dropped`,
      `held ${talked.answered}/${held}`,
      `new: slowest ${opened.slowestMs} ms, errors ${JSON.stringify(errors)}`,
      `${(got.bytes / 1e6).toFixed(0)} MB ${got.intact ? 'intact' : 'NOT INTACT'} in ${got.seconds} s`,
      `wrk ${/Requests\/sec: +(\S+)/.exec(said)?.[1]} requests/s, socket errors: ${sockets}`,
    ].join(' · '),
  );
  return isWell;
}

export async function main(words: readonly string[]): Promise<number> {
  const { values } = parseArgs({
    args: [...words],
    options: {
      held: { type: 'string', default: '2000' },
      rate: { type: 'string', default: '500' },
      bytes: { type: 'string', default: '1000000000' },
      rounds: { type: 'string', default: '3' },
      'no-spare': { type: 'boolean', default: false },
      help: { type: 'boolean', short: 'h' },
    },
  });
  if (values.help) {
    process.stdout.write(USAGE);
    return 0;
  }
  const sizes: Sizes = {
    held: Number(values.held),
    rate: Number(values.rate),
    bytes: Number(values.bytes),
    rounds: Number(values.rounds),
  };
  const rig = await RestartRig.up(`brs${process.pid}-`, {
    connections: 1_000_000,
    hasSpare: !values['no-spare'],
  });
  let isWell = true;
  try {
    for (let i = 0; i < sizes.rounds; i++) {
      isWell = (await round(rig, 'SIGUSR2', () => rig.supervisor.kill('SIGUSR2'), sizes)) && isWell;
      isWell = (await round(rig, 'kill -9', () => process.kill(rig.daemonPid(), 'SIGKILL'), sizes)) && isWell;
    }
  } finally {
    await rig.down();
  }
  return isWell ? 0 : 1;
}

process.exitCode = await main(process.argv.slice(2));
