// A flood of SYNs from one spoofed host and 60,000 ports, while others work.
//
//   client 10.0.1.2 (keeps a connection, opens new ones, and plays the router behind which 198.51.100.66 pretends to be)
//     ─ [front] tapvsd [back] ─ rs1 rs2
//
// The answers to the flood go to the client's MAC and end there, as its kernel does not forward. The test turns the
// daemon's clock forward, so that the timeouts of the flood's connections need no waiting. The servers send each SYN+ACK
// once: one that they send again begins a half-open connection's minute anew (as in the kernel).
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { type Lab, labUp } from '../src/lab/lab.ts';
import { LAB_CLIENT_IP, LAB_CLIENT_MAC, LAB_FRONT_MAC, labConfig, labPlan } from '../src/lab/plan.ts';
import { runOkIn, setSysctls, spawnIn, waitForLine } from '../src/rtnl/netns.ts';
import { frame } from '../src/wire/build.ts';

const plan = labPlan({ prefix: `tsf${process.pid}-`, servers: 2 });
const { client, director, socket, vip } = plan;
const ATTACKER = '198.51.100.66';
const SYNS = 60_000;
const FIRST_PORT = 1024;
/** 100 frames each 5 ms: 20,000 a second at most, for at least 3 s. */
const BURST = 100;
const PAUSE_S = 0.005;
/** ip_vs_proto_tcp.c: a connection in SYN_RECV lives a minute. */
const SYN_RECV_SECONDS = 60;

/** Port 0 stands for the port that the flood puts in (bytes 34 and 35; the checksum is at 50). */
const template = frame()
  .eth(LAB_FRONT_MAC, LAB_CLIENT_MAC)
  .ipv4(ATTACKER, vip, { ttl: 60 })
  .tcp({ srcPort: 0, dstPort: 80, flags: 'S', options: [2, 4, 5, 0xb4] })
  .build();
const FLOOD = `import socket,time
s=socket.socket(socket.AF_PACKET,socket.SOCK_RAW); s.bind(("eth0",0))
f=bytearray.fromhex("${Buffer.from(template).toString('hex')}")
base=~int.from_bytes(f[50:52],"big")&0xffff
sent=0
for port in range(${FIRST_PORT},${FIRST_PORT + SYNS}):
  c=base+port; c=~((c&0xffff)+(c>>16))&0xffff
  f[34:36]=port.to_bytes(2,"big"); f[50:52]=c.to_bytes(2,"big")
  s.send(f); sent+=1
  if sent%${BURST}==0: time.sleep(${PAUSE_S})
print(sent)`;

/** One connection, a request each 20 ms until standard input ends; says `ready`, and at last how many were answered. */
const KEEP_ALIVE = `import http.client,select,sys
c=http.client.HTTPConnection("${vip}",80,timeout=5)
c.connect(); c.auto_open=0
answered=0
while True:
  c.request("GET","/"); r=c.getresponse(); assert r.status==200 and r.read().startswith(b"rs")
  answered+=1
  if answered==1: print("ready",flush=True)
  if select.select([sys.stdin],[],[],0.02)[0]: break
print("answered",answered)`;

async function api<T>(...words: string[]): Promise<T> {
  const path = words.pop();
  return JSON.parse(
    await runOkIn(director, ['curl', '-sS', '--unix-socket', socket, ...words, `http://tapvs/v1/${path}`]),
  );
}

async function connections(): Promise<number> {
  return (await api<{ connections: number }>('status')).connections;
}

describe('a flood of SYNs', () => {
  let lab: Lab;

  beforeAll(async () => {
    lab = await labUp(plan);
    for (const { netns } of plan.servers) await setSysctls(netns, { 'net.ipv4.tcp_synack_retries': 0 });
    await lab.startServers();
    const routes = `routes:\n  - { to: default, via: ${LAB_CLIENT_IP} }\n`;
    await lab.startDaemon(labConfig(plan, { extra: routes }), { args: ['--test-clock'] });
  });
  afterAll(async () => {
    await lab?.down();
  });

  it('stops neither an established connection nor new ones, is counted, and times out', async () => {
    const kept = spawnIn(client, ['python3', '-c', KEEP_ALIVE], { stdio: ['pipe', 'pipe', 'inherit'] });
    await waitForLine(kept, /^ready$/);

    const began = performance.now();
    const flood = runOkIn(client, ['python3', '-c', FLOOD], { timeoutMs: 30_000 });
    let isFlooding = true;
    const sent = flood.finally(() => {
      isFlooding = false;
    });
    // New connections, one after the other, as long as the flood lasts; each has two seconds.
    let opened = 0;
    while (isFlooding) {
      expect(await lab.curl('--max-time', '2', `http://${vip}/`)).toMatch(/^rs[12]\n$/);
      opened++;
    }
    expect((await sent).trim()).toBe(String(SYNS));
    expect(opened).toBeGreaterThan(20);

    // Each SYN has a connection of its own, which waits for the client's third segment. (The kernel's queue of the TAP may
    // have overflowed: what tapvs never saw, it cannot have counted.)
    const { stdout } = await lab.tapvs('ipvsadm', '-Lnc');
    const waiting = stdout.split('\n').filter((line) => line.includes('SYN_RECV') && line.includes(`${ATTACKER}:`));
    expect(waiting.length).toBeGreaterThan(SYNS * 0.9);
    expect(waiting.length).toBeLessThanOrEqual(SYNS);
    const table = (await lab.tapvs('ipvsadm', '-Ln')).stdout;
    // SYN_RECV is an active state (tcp_state_active_table): schedulers that count connections see the flood.
    const active = [...table.matchAll(/:80 +Masq +1 +(\d+) /g)].map((match) => Number(match[1]));
    expect(active).toHaveLength(plan.servers.length);
    expect(active.reduce((sum, n) => sum + n, 0)).toBeGreaterThanOrEqual(waiting.length);

    // Two seconds before its time nothing of the flood is gone; then all of it. What is established stays.
    const age = (performance.now() - began) / 1000;
    await api('-d', JSON.stringify({ seconds: Math.max(0, SYN_RECV_SECONDS - 2 - age) }), 'clock');
    expect(await connections()).toBeGreaterThanOrEqual(waiting.length);
    await api('-d', JSON.stringify({ seconds: 4 + age }), 'clock');
    let left = (await lab.tapvs('ipvsadm', '-Lnc')).stdout;
    for (let asked = 0; asked < 50 && left.includes(ATTACKER); asked++)
      left = (await lab.tapvs('ipvsadm', '-Lnc')).stdout;
    expect(left).not.toContain(ATTACKER);

    const end = waitForLine(kept, /^answered \d+$/);
    kept.stdin?.end();
    expect(Number((await end).split(' ')[1])).toBeGreaterThan(50);
    expect(await lab.curl(`http://${vip}/`)).toMatch(/^rs[12]\n$/);
  });
});
