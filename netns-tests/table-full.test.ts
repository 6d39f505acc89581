// The table of tracked connections, full: what nobody vouches for gives way, what is assured goes on, and when all is assured, new ones are refused.
//
//   client 10.0.1.2 (also plays the router behind which 198.51.100.x pretends to be) ─ [front] tapvsd [back] ─ rs1 10.0.2.11
//
// Answers to the flood go to the client's MAC and end there, as its kernel does not forward. Nothing is balanced: the director is a router with rules.
import type { ChildProcess } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { type Lab, labUp } from '../src/lab/lab.ts';
import { LAB_CLIENT_IP, LAB_CLIENT_MAC, LAB_FRONT_MAC, labConfig, labPlan } from '../src/lab/plan.ts';
import { runOkIn, setSysctls, spawnIn, waitForLine } from '../src/rtnl/netns.ts';
import { frame } from '../src/wire/build.ts';

const plan = labPlan({ prefix: `tfull${process.pid}-`, servers: 1 });
const { client } = plan;
const server = plan.servers[0]!;
const MAX_ENTRIES = 600;
const FLOOD = 15_000;
/** What else of a process comes and goes; a table of FLOOD entries of plain objects would need several times that. */
const RSS_SLACK_KB = 40_000;

const attack = () => frame().eth(LAB_FRONT_MAC, LAB_CLIENT_MAC).ipv4('198.51.100.66', server.address, { ttl: 60 });
const FLOODS = [
  {
    name: 'SYNs',
    bytes: attack()
      .tcp({ srcPort: 0, dstPort: 80, flags: 'S', options: [2, 4, 5, 0xb4] })
      .build(),
    sumAt: 50,
  },
  { name: 'datagrams', bytes: attack().udp({ srcPort: 0, dstPort: 7, checksum: 0 }).payload('x').build(), sumAt: 0 },
];

/** Sends the frame from FLOOD ports of several hosts (the last byte of the address, 29, moves, too), 100 frames each 5 ms. */
const flood = ({ bytes, sumAt }: (typeof FLOODS)[number]) => `import socket,time
s=socket.socket(socket.AF_PACKET,socket.SOCK_RAW); s.bind(("eth0",0))
f=bytearray.fromhex("${Buffer.from(bytes).toString('hex')}")
base=~int.from_bytes(f[${sumAt}:${sumAt + 2}],"big")&0xffff
for i in range(${FLOOD}):
  port=1024+i
  f[34:36]=port.to_bytes(2,"big")
  if ${sumAt}:
    c=base+port; c=~((c&0xffff)+(c>>16))&0xffff
    f[${sumAt}:${sumAt + 2}]=c.to_bytes(2,"big")
  s.send(f)
  if i%100==99: time.sleep(0.005)`;

/** One connection; for each line of standard input a request, whose answer is said. */
const TALK = `import http.client,sys
c=http.client.HTTPConnection("${server.address}",80,timeout=5); c.connect(); c.auto_open=0
print("ready",flush=True)
for line in sys.stdin:
  c.request("GET","/client"); r=c.getresponse(); print(r.status,r.read().decode().strip(),flush=True)`;

/** As many connections as asked for; each line of standard input closes so many of them. */
const HOLD = (count: number) => `import socket,sys
held=[socket.create_connection(("${server.address}",80),5) for _ in range(${count})]
print("ready",flush=True)
for line in sys.stdin:
  for s in held[:int(line)]: s.close()
  del held[:int(line)]
  print("closed",flush=True)`;

let lab: Lab;
let daemon: ChildProcess;
const started: ChildProcess[] = [];

async function start(program: string): Promise<ChildProcess> {
  const child = spawnIn(client, ['python3', '-c', program], { stdio: ['pipe', 'pipe', 'inherit'] });
  started.push(child);
  await waitForLine(child, /^ready$/);
  return child;
}

async function say(child: ChildProcess, line: string, answer: RegExp): Promise<string> {
  const heard = waitForLine(child, answer);
  child.stdin!.write(`${line}\n`);
  return heard;
}

const conntrack = async (...words: string[]) => (await lab.tapvs('conntrack', ...words)).stdout;
/** `found=0 invalid=3 …` of conntrack -S. */
async function counters(): Promise<Record<string, number>> {
  const pairs = [...(await conntrack('-S')).matchAll(/(\w+)=(\d+)/g)];
  return Object.fromEntries(pairs.map(([, name, value]) => [name!, Number(value)]));
}
async function refusals(): Promise<number> {
  const { stdout } = await lab.tapvs('drops', '-a');
  const [, count] = /^ *(\d+) +ConntrackFull /m.exec(stdout) ?? [];
  if (count === undefined) throw new Error(`no ConntrackFull among\n${stdout}`);
  return Number(count);
}
const residentKb = () => Number(/^VmRSS:\s+(\d+)/m.exec(readFileSync(`/proc/${daemon.pid}/status`, 'utf8'))![1]);

beforeAll(async () => {
  lab = await labUp(plan);
  await setSysctls(server.netns, { 'net.ipv4.tcp_synack_retries': 0 });
  const extra = `routes:\n  - { to: default, via: ${LAB_CLIENT_IP} }\n`;
  const sysctl = { 'net.netfilter.nf_conntrack_max': MAX_ENTRIES };
  [daemon] = await Promise.all([lab.startDaemon(labConfig(plan, { ipvsadm: '', extra, sysctl })), lab.startServers()]);
  // Whoever asks for the state of connections starts tracking.
  await lab.tapvs('iptables', '-A', 'FORWARD', '-m', 'conntrack', '--ctstate', 'INVALID', '-j', 'DROP');
});
afterAll(async () => {
  for (const child of started) child.kill('SIGKILL');
  await lab?.down();
});

describe('a full table of connections', () => {
  it.each(FLOODS)(
    'a flood of $name: an assured connection goes on, the others give way to each other',
    async (kind) => {
      await conntrack('-F');
      const kept = await start(TALK);
      const mine = await say(kept, '', /^200 /);
      const before = await counters();
      await runOkIn(client, ['python3', '-c', flood(kind)]);
      const once = residentKb();
      await runOkIn(client, ['python3', '-c', flood(kind)]);
      const after = await counters();
      // What the kernel's queue of the TAP could not hold, tapvs never saw.
      expect(after.early_drop! - before.early_drop!).toBeGreaterThan(FLOOD);
      expect(after.drop! - before.drop!).toBe(0);
      expect(Number((await lab.tapvs('sysctl', '-n', 'net.netfilter.nf_conntrack_count')).stdout)).toBeGreaterThan(
        MAX_ENTRIES * 0.9,
      );
      const entries = (await conntrack('-L')).trim().split('\n');
      expect(entries.length).toBeLessThanOrEqual(MAX_ENTRIES);
      expect(
        entries.filter((line) => line.includes('[ASSURED]') && line.includes(`src=${LAB_CLIENT_IP}`)),
      ).toHaveLength(1);
      expect(residentKb() - once).toBeLessThan(RSS_SLACK_KB);
      expect(await say(kept, '', /^200 /)).toBe(mine);
      expect(await lab.curl(`http://${server.address}/`)).toBe('rs1\n');
      kept.stdin!.end();
    },
  );

  it('all assured: new ones are refused and counted, until some have said goodbye', async () => {
    await conntrack('-F');
    const holder = await start(HOLD(MAX_ENTRIES));
    const [before, refused] = [await counters(), await refusals()];
    const tries = 3;
    for (let i = 0; i < tries; i++) {
      const curl = await lab.run(client, ['curl', '-sS', '--max-time', '0.3', `http://${server.address}/`]);
      expect(curl).toMatchObject({ status: 28, stdout: '' });
    }
    const after = await counters();
    expect(after.drop! - before.drop!).toBeGreaterThanOrEqual(tries);
    expect(after.early_drop! - before.early_drop!).toBe(0);
    // The two are read one after the other, and another may be refused between them.
    const apart = async () => (await refusals()) - refused - ((await counters()).drop! - before.drop!);
    await expect.poll(apart, { timeout: 5000 }).toBe(0);
    const assured = (await conntrack('-L')).split('\n').filter((line) => line.includes('[ASSURED]'));
    expect(assured).toHaveLength(MAX_ENTRIES);
    // Connections that have ended wait for late segments; in a table this full they are collected before their time.
    await say(holder, String(MAX_ENTRIES / 2), /^closed$/);
    expect(await lab.curl('--retry', '5', '--retry-all-errors', `http://${server.address}/`)).toBe('rs1\n');
    const left = (await conntrack('-L')).trim().split('\n');
    expect(left.length).toBeLessThan(MAX_ENTRIES);
    expect(left.filter((line) => line.includes(' ESTABLISHED ')).length).toBe(MAX_ENTRIES / 2);
    holder.stdin!.end();
  });
});
