// NAT end to end: real curl → veth → bridge → TAP → tapvsd → TAP → bridge → veth → real web servers, and back.
//
//   client 10.0.1.2 ── br-front ── [front] tapvsd [back] ── br-back ── rs1 … rs3 10.0.2.11 …
//                                  [host] TUN ── kernel of the director's namespace
//
// The same for packet devices (AF_PACKET on the veth ends, no bridge in front of tapvsd).
import { createHash } from 'node:crypto';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { type Lab, labUp } from '../src/lab/lab.ts';
import { LAB_ECHO_PORT, LAB_KERNEL_IP, type LabKind, labPlan } from '../src/lab/plan.ts';
import { runIn } from '../src/rtnl/netns.ts';
import { describeFrame } from '../src/wire/build.ts';
import { checksumErrors, faultsOf, watch } from './watch.ts';

describe.each<{ kind: LabKind; offload: boolean }>([
  { kind: 'tap', offload: true },
  { kind: 'tap', offload: false },
  { kind: 'packet', offload: true },
  { kind: 'packet', offload: false },
])('NAT on $kind devices, peers with offload: $offload', ({ kind, offload }) => {
  const plan = labPlan({
    prefix: `tn${process.pid}${kind[0]}${offload ? 1 : 0}-`,
    servers: 3,
    kind,
    checksumOffload: offload,
  });
  const url = `http://${plan.vip}`;
  let lab: Lab;

  beforeAll(async () => {
    lab = await labUp(plan);
    await lab.startServers();
    await lab.startDaemon();
  });
  afterAll(async () => {
    await lab?.down();
  });

  it('shares requests out evenly (rr) and counts each connection', async () => {
    const answers: string[] = [];
    for (let i = 0; i < 9; i++) answers.push((await lab.curl(`${url}/`)).trim());
    expect([...answers].sort().join(' ')).toBe('rs1 rs1 rs1 rs2 rs2 rs2 rs3 rs3 rs3');
    const { stdout } = await lab.tapvs('ipvsadm', '-Ln', '--stats');
    expect(stdout).toMatch(/^TCP {2}10\.0\.1\.100:80 +9 /m);
    for (const { address } of plan.servers) expect(stdout).toMatch(new RegExp(`-> ${address}:80 +3 `));
  });

  it('keeps the client address towards the server', async () => {
    expect(await lab.curl(`${url}/client`)).toMatch(/^10\.0\.1\.2:\d+\n$/);
  });

  it('carries 30 MB down and 10 MB up unharmed', async () => {
    const down = await lab.curl('-o', '/dev/null', '-w', '%{size_download}', `${url}/big?bytes=30000000`);
    expect(down).toBe('30000000');
    const body = Buffer.alloc(10_000_000, 'tapvs ');
    const up = await lab.run(plan.client, ['curl', '-sS', '--data-binary', '@-', `${url}/`], {
      input: body.toString(),
    });
    expect(up.stdout).toBe(`${body.length} ${createHash('sha256').update(body).digest('hex')}\n`);
  });

  it('balances UDP', async () => {
    const ask = `import socket
s=socket.socket(socket.AF_INET,socket.SOCK_DGRAM); s.settimeout(5)
s.sendto(b"hello",("${plan.vip}",${LAB_ECHO_PORT})); print(s.recvfrom(100))`;
    const answers = new Set<string>();
    for (let i = 0; i < 3; i++) {
      const { stdout } = await lab.run(plan.client, ['python3', '-c', ask]);
      expect(stdout).toContain(`('${plan.vip}', ${LAB_ECHO_PORT})`);
      answers.add(/rs\d hello/.exec(stdout)?.[0] ?? stdout);
    }
    expect([...answers].sort()).toEqual(['rs1 hello', 'rs2 hello', 'rs3 hello']);
  });

  it('answers ping, and owes a reset to who asks for a port without service', async () => {
    expect((await runIn(plan.client, ['ping', '-c', '1', '-W', '2', plan.vip])).status).toBe(0);
    const refused = await lab.run(plan.client, ['curl', '-sSv', '--max-time', '3', `${url}:81/`]);
    expect(refused.stderr).toContain('Connection refused');
  });

  it('serves the director itself through the host port', async () => {
    const own = await lab.run(plan.director, ['curl', '-sS', '--max-time', '5', `${url}/client`]);
    expect(own.stdout).toMatch(new RegExp(`^${LAB_KERNEL_IP.replaceAll('.', '\\.')}:\\d+\n$`));
    expect((await runIn(plan.director, ['ping', '-c', '1', '-W', '2', plan.vip])).status).toBe(0);
    expect((await runIn(plan.director, ['ping', '-c', '1', '-W', '2', plan.servers[0]!.address])).status).toBe(0);
  });

  it('makes a server of the director namespace reachable', async () => {
    await lab.startServer(plan.director, 'director', { http: 8080, echo: 8007 });
    expect(await lab.curl(`${url}:8080/`)).toBe('director\n');
    expect(await lab.curl(`${url}:8080/client`)).toMatch(/^10\.0\.1\.2:/);
    expect(await lab.curl('-o', '/dev/null', '-w', '%{size_download}', `${url}:8080/big?bytes=5000000`)).toBe(
      '5000000',
    );
  });

  it('owes port unreachable to the client of a service without usable server', async () => {
    await lab.tapvs('ipvsadm', '-A', '-t', `${plan.vip}:82`, '-s', 'wlc');
    await lab.tapvs('ipvsadm', '-a', '-t', `${plan.vip}:82`, '-r', `${plan.servers[0]!.address}:80`, '-m', '-w', '0');
    const w = await watch(plan.client, 'eth0', `${plan.runDir}/unreach.pcap`, 'icmp');
    const answer = await lab.run(plan.client, ['curl', '-sSv', '--max-time', '3', `${url}:82/`]);
    expect(answer.stderr).toContain('Connection refused');
    const frames = await w.frames();
    expect(frames.map(describeFrame).join('\n')).toMatch(/10\.0\.1\.100 > 10\.0\.1\.2: icmp.*(3\/3|port)/i);
  });

  it('emits only frames with right lengths and checksums', async () => {
    const places = [plan.client, ...plan.servers.map((s) => s.netns)];
    if (!offload) {
      const watches = await Promise.all(places.map((ns, i) => watch(ns, 'eth0', `${plan.runDir}/sums${i}.pcap`)));
      for (let i = 0; i < 3; i++) await lab.curl('-o', '/dev/null', `${url}/big?bytes=300000`);
      await lab.run(plan.client, ['ping', '-c', '2', '-i', '0.2', '-s', '3000', plan.vip]);
      await lab.run(plan.client, ['curl', '-sS', '--max-time', '3', `${url}:83/`]);
      const all = (await Promise.all(watches.map((w) => w.frames()))).flat();
      expect(all.length).toBeGreaterThan(500);
      expect(faultsOf(all)).toEqual([]);
    }
    for (const ns of [...places, plan.director]) expect(await checksumErrors(ns)).toBe('');
  });
});
