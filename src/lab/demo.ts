/**
 * The demo: for each forwarding method brings a lab up, sends real requests through tapvsd, shows by tcpdump's lines who rewrote what and who
 * answered whom, checks it, and takes the lab down.
 *
 *   node dist/src/lab/demo.js [--method nat|dr|tun] [--keep | --down]
 *
 * Exit status 0 only when every step did what it says.
 */
import type { ChildProcess } from 'node:child_process';
import { parseArgs } from 'node:util';
import { runOk, spawnIn, stop } from '../rtnl/netns.ts';
import { isEnding, type Lab, labDown, labUp } from './lab.ts';
import { LAB_BACK_MAC, LAB_CLIENT_MAC, LAB_FRONT_MAC, LAB_KERNEL_IP, type LabMethod, labPlan } from './plan.ts';

/** A kept lab has one name, so that `--down` finds it; a passing one has its own, so that demos can run side by side. */
const KEPT_PREFIX = 'tapvs-demo-';
const METHODS: readonly LabMethod[] = ['nat', 'dr', 'tun'];
const SERVERS = 3;
const REQUESTS = 6;
const BIG_BYTES = 20_000_000;

const TITLE: Readonly<Record<LabMethod, string>> = {
  nat: 'NAT (ipvsadm -m): tapvs rewrites addresses, both ways',
  dr: 'Direct routing (ipvsadm -g): tapvs changes the MAC only, servers answer the client themselves',
  tun: 'IPIP tunnel (ipvsadm -i): tapvs wraps the packet, servers on another network answer the client themselves',
};

const bold = (text: string): string => (process.stdout.isTTY ? `\u001b[1m${text}\u001b[0m` : text);
const title = (text: string): void => console.log(`\n${bold(`══ ${text}`)}`);
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

async function watch(lab: Lab, netns: string, device: string, label: string): Promise<Watch> {
  const file = `${lab.plan.runDir}/${label}.pcap`;
  const filter = ['tcp', 'port', '80', 'or', 'proto', '4'];
  const process = spawnIn(netns, ['tcpdump', '-i', device, '--immediate-mode', '-n', '-U', '-w', file, ...filter]);
  await new Promise<void>((resolve, reject) => {
    process.stderr?.on('data', (chunk: Buffer) => {
      if (chunk.toString().includes('listening on')) resolve();
    });
    process.once('exit', (code) => reject(new Error(`tcpdump ended with status ${code}`)));
  });
  return { process, file };
}

/** What was seen, in tcpdump's own lines, link layer included. */
async function lines(w: Watch): Promise<string[]> {
  await stop(w.process);
  return (await runOk(['tcpdump', '-e', '-n', '-q', '-t', '-r', w.file])).trim().split('\n');
}

/** The first line that has all of this. */
function firstWith(all: readonly string[], ...parts: readonly string[]): string {
  const found = all.find((line) => parts.every((part) => line.includes(part)));
  require(found !== undefined, `tcpdump saw a packet with ${parts.join(' and ')}`);
  return found!;
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

/** Requests, seen at the client and at rs1: the same connection's first packet and first answer at both places. */
async function proof(lab: Lab): Promise<void> {
  const { plan } = lab;
  const { method, vip, client, addresses } = plan;
  const rs1 = plan.servers[0]!;
  step(`${REQUESTS} requests from the client to http://${vip}/`);
  const atClient = await watch(lab, client, 'eth0', 'client');
  const atServer = await watch(lab, rs1.netns, 'eth0', 'rs1');
  // With a tunnel the answers leave by the server's other leg.
  const atFront = method === 'tun' ? await watch(lab, rs1.netns, 'eth1', 'rs1-front') : null;
  const answers = await requests(lab, REQUESTS);
  console.log(indent(answers.join(' ')));
  const count = tally(answers);
  require(count.size === plan.servers.length, `all ${plan.servers.length} servers answer`);
  require([...count.values()].every((n) => n === REQUESTS / plan.servers.length), 'round robin is even');

  const [seen, served] = [await lines(atClient), await lines(atServer)];
  const answered = atFront === null ? served : await lines(atFront);
  const target = method === 'nat' ? rs1.address : vip;
  const request = firstWith(served, `> ${target}.80:`);
  const port = /(\d+) > [0-9.]+\.80:/.exec(request)?.[1] ?? '';
  const cip = `${addresses.client}.${port}`;
  const reply = firstWith(answered, `${target}.80 > ${cip}:`);
  const atStart = firstWith(seen, `${cip} > ${vip}.80:`);
  const atEnd = firstWith(seen, `${vip}.80 > ${cip}:`);
  const leg = rs1.front?.mac ?? rs1.mac;

  step('one of them, as tcpdump -e sees it');
  const macs = [`${LAB_CLIENT_MAC} client`, `${LAB_FRONT_MAC} tapvs (front)`];
  if (addresses.back !== null) macs.push(`${LAB_BACK_MAC} tapvs (back)`);
  macs.push(`${rs1.mac} rs1${rs1.front === null ? '' : ' (back)'}`);
  if (rs1.front !== null) macs.push(`${rs1.front.mac} rs1 (front)`);
  console.log(indent(`${macs.join('\n')}\n`));
  console.log(indent(`the client asks the virtual address:\n  ${atStart}`));
  require(atStart.startsWith(`${LAB_CLIENT_MAC} > ${LAB_FRONT_MAC}`), 'the client talks to tapvs');
  switch (method) {
    case 'nat':
      console.log(
        indent(
          `rs1 gets it with its own address as destination, which tapvs wrote; the client's is unchanged:\n  ${request}`,
        ),
      );
      console.log(indent(`rs1 answers by way of tapvs:\n  ${reply}`));
      console.log(indent(`the client gets that from the virtual address, which tapvs wrote back:\n  ${atEnd}`));
      require(request.startsWith(`${LAB_BACK_MAC} > ${rs1.mac}`) &&
        reply.startsWith(`${rs1.mac} > ${LAB_BACK_MAC}`), 'rs1 talks to tapvs');
      require(atEnd.startsWith(`${LAB_FRONT_MAC} > `), 'the answer comes from tapvs');
      require(!seen.some((line) => line.includes(rs1.address)), 'the client never sees a server');
      require(!served.some((line) => line.includes(vip)), 'the server never sees the virtual address');
      break;
    case 'dr':
      console.log(indent(`rs1 gets the same packet, from tapvs's MAC to its own:\n  ${request}`));
      console.log(indent(`rs1 answers the client directly, from the virtual address:\n  ${reply}`));
      console.log(indent(`the client sees rs1's MAC, not tapvs's:\n  ${atEnd}`));
      require(request.startsWith(`${LAB_FRONT_MAC} > ${rs1.mac}`), 'tapvs changed the destination MAC');
      require(request.includes(`${cip} > ${vip}.80`), 'addresses and ports are untouched');
      require(reply.startsWith(`${rs1.mac} > ${LAB_CLIENT_MAC}`) && atEnd === reply, 'the answer passes tapvs by');
      break;
    case 'tun':
      console.log(indent(`rs1 gets it inside a packet from tapvs to rs1:\n  ${request}`));
      console.log(indent(`rs1 unwraps it and answers the client directly, from the virtual address:\n  ${reply}`));
      console.log(indent(`the client sees rs1's MAC, not tapvs's:\n  ${atEnd}`));
      require(request.startsWith(`${LAB_BACK_MAC} > ${rs1.mac}`), 'tapvs sent it to rs1');
      require(request.includes(`${addresses.back} > ${rs1.address}: `) &&
        request.includes(`${cip} > ${vip}.80`), 'the packet is inside, untouched');
      require(atEnd.startsWith(`${leg} > ${LAB_CLIENT_MAC}`) && atEnd === reply, 'the answer passes tapvs by');
      break;
  }
}

async function big(lab: Lab): Promise<void> {
  step('a big answer arrives whole');
  const url = `http://${lab.plan.vip}/big?bytes=${BIG_BYTES}`;
  const size = await lab.curl('-o', '/dev/null', '-w', '%{size_download} bytes in %{time_total} s', url);
  console.log(indent(size));
  require(size.startsWith(`${BIG_BYTES} `), `${BIG_BYTES} bytes arrive`);
}

/** The counters of the HTTP service: connections, packets in and out, bytes in and out. */
function serviceCounters(table: string, vip: string): string[] {
  return new RegExp(`^TCP {2}${vip}:80 +(.*)$`, 'm').exec(table)?.[1]?.trim().split(/ +/) ?? [];
}

async function onlyNat(lab: Lab): Promise<void> {
  const { plan } = lab;
  step('from the director itself (through the host port and LOCAL_OUT)');
  const own = await lab.run(plan.director, ['curl', '-sS', '--max-time', '5', `http://${plan.vip}/client`]);
  console.log(indent(`curl http://${plan.vip}/client → the server saw ${own.stdout.trim()}`));
  require(own.stdout.startsWith(`${LAB_KERNEL_IP}:`), 'the director reaches its own service');

  step('rs1 is quiesced (weight 0): new connections go elsewhere');
  const server = ['-t', `${plan.vip}:80`, '-r', `${plan.servers[0]!.address}:80`, '-m', '-w'];
  await show(lab, 'ipvsadm', '-e', ...server, '0');
  const without = tally(await requests(lab, SERVERS));
  console.log(indent([...without].map(([name, n]) => `${name}: ${n}`).join(', ')));
  require(!without.has('rs1'), 'rs1 gets nothing new');
  await show(lab, 'ipvsadm', '-e', ...server, '1');
}

async function demo(lab: Lab): Promise<void> {
  const { method, vip } = lab.plan;
  await proof(lab);
  step('what the director counted');
  const table = await show(lab, 'ipvsadm', '-Ln', '--stats');
  const [conns, , outPkts, inBytes, outBytes] = serviceCounters(table, vip);
  require(conns === String(REQUESTS) && inBytes !== '0', `${REQUESTS} connections are counted`);
  if (method === 'nat') require(outBytes !== '0', 'answers are counted');
  else {
    require(outPkts === '0' && outBytes === '0', 'no answer passed the director');
    console.log(indent('OutPkts and OutBytes are 0: no answer passed here.'));
  }
  await big(lab);
  if (method === 'nat') await onlyNat(lab);
  step('nothing is dropped silently; the doctors of director and servers');
  await show(lab, 'drops');
  for (const netns of [lab.plan.director, lab.plan.servers[0]!.netns]) {
    const { status, text } = await lab.doctor(netns);
    console.log(indent(`${netns}: ${status === 0 ? 'all is well' : text}`));
    require(status === 0, `the doctor of ${netns} is content`);
  }
}

function whatNext(lab: Lab): string {
  const { plan } = lab;
  const rs1 = plan.servers[0]!.netns;
  return `
The lab (${plan.method}) is up. Try:

  ip netns exec ${plan.client} curl http://${plan.vip}/
  ip netns exec ${plan.client} curl -o /dev/null 'http://${plan.vip}/big?bytes=1000000000'
  export TAPVS_SOCKET=${plan.socket}
  bin/tapvs ipvsadm -Ln --stats
  bin/tapvs ipvsadm -Lnc
  bin/tapvs hooks
  bin/tapvs ip route
  bin/tapvs capture -i front -w - 'tcp port 80' | tcpdump -n -r -
  ip netns exec ${plan.client} tcpdump -n -e -i eth0
  ip netns exec ${rs1} tcpdump -n -e -i eth0
  ip netns exec ${rs1} scripts/realserver check --state-dir ${plan.runDir}
  ip netns exec ${plan.director} scripts/director check --state-dir ${plan.runDir}

Without the export: TAPVS_SOCKET=${plan.socket} bin/tapvs status
Take it down with: ./scripts/demo --down
`;
}

async function main(): Promise<void> {
  const { values } = parseArgs({
    options: { keep: { type: 'boolean' }, down: { type: 'boolean' }, method: { type: 'string' } },
  });
  if (values.down) {
    await labDown(KEPT_PREFIX);
    console.log('the lab is down');
    return;
  }
  const methods = values.method === undefined ? METHODS : METHODS.filter((one) => one === values.method);
  if (methods.length === 0) throw new Error(`--method is one of ${METHODS.join(', ')}`);
  let kept: Lab | null = null;
  for (const [i, method] of methods.entries()) {
    const isLast = i === methods.length - 1;
    const prefix = values.keep && isLast ? KEPT_PREFIX : `tvd${process.pid}-`;
    title(TITLE[method]);
    const lab = await labUp(labPlan({ prefix, servers: SERVERS, method }), {
      outlives: values.keep === true && isLast,
    });
    let done = false;
    try {
      await lab.startServers();
      await lab.startDaemon();
      await demo(lab);
      done = true;
    } finally {
      if (!(done && values.keep && isLast)) await lab.down();
    }
    if (values.keep && isLast) kept = lab;
  }
  console.log(
    kept === null ? '\nEverything worked; the labs are down again. (--keep leaves the last one up.)' : whatNext(kept),
  );
  // Kept programs hold pipes of ours: end without waiting for them.
  process.exit(0);
}

main().catch((error: unknown) => {
  process.exitCode = 1;
  if (isEnding()) return; // the signal also reached the lab's programs: their ends are no news
  console.error(`\ndemo: ${error instanceof Error ? error.message : String(error)}`);
  process.exit(1);
});
