/**
 * The demo: brings the lab up, sends real requests through tapvsd, shows what happened, checks it, and takes the lab down.
 *
 *   node dist/src/lab/demo.js [--keep | --down]
 *
 * Exit status 0 only when every step did what it says.
 */
import type { ChildProcess } from 'node:child_process';
import { parseArgs } from 'node:util';
import { runOk, spawnIn, stop } from '../rtnl/netns.ts';
import { isEnding, type Lab, labDown, labUp } from './lab.ts';
import { LAB_KERNEL_IP, labPlan } from './plan.ts';

/** A kept lab has one name, so that `--down` finds it; a passing one has its own, so that demos can run side by side. */
const KEPT_PREFIX = 'tapvs-demo-';
const REQUESTS = 9;

const bold = (text: string): string => (process.stdout.isTTY ? `\u001b[1m${text}\u001b[0m` : text);
const step = (text: string): void => console.log(`\n${bold(`── ${text}`)}`);
const indent = (text: string): string => text.replace(/^(?=.)/gm, '   ');

function require(condition: boolean, what: string): void {
  if (!condition) throw new Error(`not as promised: ${what}`);
}

/** A running tcpdump that writes to a file. */
interface Watch {
  readonly process: ChildProcess;
  readonly file: string;
}

async function watch(lab: Lab, netns: string, label: string): Promise<Watch> {
  const file = `${lab.plan.runDir}/${label}.pcap`;
  const process = spawnIn(netns, [
    'tcpdump',
    '-i',
    'eth0',
    '--immediate-mode',
    '-n',
    '-U',
    '-w',
    file,
    'tcp',
    'port',
    '80',
  ]);
  await new Promise<void>((resolve, reject) => {
    process.stderr?.on('data', (chunk: Buffer) => {
      if (chunk.toString().includes('listening on')) resolve();
    });
    process.once('exit', (code) => reject(new Error(`tcpdump ended with status ${code}`)));
  });
  return { process, file };
}

/** The first lines of what was seen, as tcpdump prints them. */
async function seen(w: Watch, lines: number): Promise<string> {
  await stop(w.process);
  const text = await runOk(['tcpdump', '-n', '-q', '-t', '-r', w.file]);
  return text.trim().split('\n').slice(0, lines).join('\n');
}

/** How many of the answers each server gave. */
function tally(answers: readonly string[]): Map<string, number> {
  const count = new Map<string, number>();
  for (const a of answers) count.set(a, (count.get(a) ?? 0) + 1);
  return count;
}

async function requests(lab: Lab, count: number): Promise<string[]> {
  const answers: string[] = [];
  for (let i = 0; i < count; i++) answers.push((await lab.curl(`http://${lab.plan.vip}/`)).trim());
  return answers;
}

async function show(lab: Lab, ...args: string[]): Promise<string> {
  const { status, stdout, stderr } = await lab.tapvs(...args);
  require(status === 0, `tapvs ${args.join(' ')} works (exit ${status}: ${stderr.trim()})`);
  console.log(`   $ tapvs ${args.join(' ')}`);
  console.log(indent(stdout));
  return stdout;
}

async function demo(lab: Lab): Promise<void> {
  const { plan } = lab;
  step(`${REQUESTS} requests from the client to http://${plan.vip}/, watched on both sides`);
  const front = await watch(lab, plan.client, 'client');
  const back = await watch(lab, plan.servers[0]!.netns, 'rs1');
  const answers = await requests(lab, REQUESTS);
  const count = tally(answers);
  console.log(indent(answers.join(' ')));
  require(count.size === plan.servers.length, `all ${plan.servers.length} servers answer`);
  require([...count.values()].every((n) => n === REQUESTS / plan.servers.length), 'round robin is even');

  step('what the client saw (it talks to the virtual address only)');
  const clientSaw = await seen(front, 4);
  console.log(indent(clientSaw));
  require(clientSaw.includes(plan.vip) &&
    !clientSaw.includes(plan.servers[0]!.address), 'the client never sees a server');
  step('what rs1 saw (the destination rewritten to it, the client unchanged)');
  const serverSaw = await seen(back, 4);
  console.log(indent(serverSaw));
  require(serverSaw.includes(plan.servers[0]!.address) &&
    !serverSaw.includes(plan.vip), 'the server never sees the virtual address');

  step('the director');
  const table = await show(lab, 'ipvsadm', '-Ln', '--stats');
  require(new RegExp(`^TCP {2}${plan.vip}:80 +${REQUESTS} `, 'm').test(table), `${REQUESTS} connections are counted`);
  await show(lab, 'ipvsadm', '-Ln');
  await show(lab, 'ipvsadm', '-Lnc');
  await show(lab, 'hooks');

  step('a big answer arrives whole');
  const bytes = 20_000_000;
  const size = await lab.curl(
    '-o',
    '/dev/null',
    '-w',
    '%{size_download} bytes in %{time_total} s',
    `http://${plan.vip}/big?bytes=${bytes}`,
  );
  console.log(indent(size));
  require(size.startsWith(`${bytes} `), `${bytes} bytes arrive`);

  step('from the director itself (through the host port and LOCAL_OUT)');
  const own = await lab.run(plan.director, ['curl', '-sS', '--max-time', '5', `http://${plan.vip}/client`]);
  console.log(indent(`curl http://${plan.vip}/client → the server saw ${own.stdout.trim()}`));
  require(own.stdout.startsWith(`${LAB_KERNEL_IP}:`), 'the director reaches its own service');
  const ping = await lab.run(plan.director, ['ping', '-c', '2', '-i', '0.2', '-W', '2', plan.vip]);
  console.log(indent(ping.stdout.trim().split('\n').at(-2) ?? ''));
  require(ping.status === 0, 'the director can ping the virtual address');

  step('rs1 is quiesced (weight 0): new connections go elsewhere');
  await show(lab, 'ipvsadm', '-e', '-t', `${plan.vip}:80`, '-r', `${plan.servers[0]!.address}:80`, '-m', '-w', '0');
  const without = tally(await requests(lab, 6));
  console.log(indent([...without].map(([name, n]) => `${name}: ${n}`).join(', ')));
  require(!without.has('rs1'), 'rs1 gets nothing new');
  await show(lab, 'ipvsadm', '-e', '-t', `${plan.vip}:80`, '-r', `${plan.servers[0]!.address}:80`, '-m', '-w', '1');

  step('nothing is dropped silently');
  await show(lab, 'drops');
}

function whatNext(lab: Lab): string {
  const { plan } = lab;
  const tapvs = `TAPVS_SOCKET=${plan.socket} bin/tapvs`;
  return `
The lab is up. Try:

  ip netns exec ${plan.client} curl http://${plan.vip}/
  ip netns exec ${plan.client} curl -o /dev/null 'http://${plan.vip}/big?bytes=1000000000'
  export TAPVS_SOCKET=${plan.socket}
  bin/tapvs ipvsadm -Ln --stats
  bin/tapvs ipvsadm -Lnc
  bin/tapvs ip route
  bin/tapvs capture -i front -w - 'tcp port 80' | tcpdump -n -r -
  ip netns exec ${plan.client} tcpdump -n -i eth0
  ip netns exec ${plan.servers[0]!.netns} tcpdump -n -i eth0
  ip netns exec ${plan.director} tcpdump -n -i front

Without the export: ${tapvs} status
Take it down with: ./scripts/demo --down
`;
}

async function main(): Promise<void> {
  const { values } = parseArgs({ options: { keep: { type: 'boolean' }, down: { type: 'boolean' } } });
  if (values.down) {
    await labDown(KEPT_PREFIX);
    console.log('the lab is down');
    return;
  }
  const plan = labPlan({ prefix: values.keep ? KEPT_PREFIX : `tvd${process.pid}-`, servers: 3, kind: 'tap' });
  step('the lab: client ─ br-front ─ TAP ─ tapvsd ─ TAP ─ br-back ─ rs1, rs2, rs3, each in its own namespace');
  const lab = await labUp(plan);
  let done = false;
  try {
    await lab.startServers();
    await lab.startDaemon();
    console.log(indent(`up: ${[plan.client, plan.director, ...plan.servers.map((s) => s.netns)].join(' ')}`));
    await demo(lab);
    done = true;
  } finally {
    if (!(done && values.keep)) await lab.down();
  }
  console.log(values.keep ? whatNext(lab) : '\nEverything worked; the lab is down again. (--keep leaves it up.)');
  // Kept programs hold pipes of ours: end without waiting for them.
  process.exit(0);
}

main().catch((error: unknown) => {
  process.exitCode = 1;
  if (isEnding()) return; // Ctrl-C also reached the lab's programs: their ends are no news
  console.error(`\ndemo: ${error instanceof Error ? error.message : String(error)}`);
  process.exit(1);
});
