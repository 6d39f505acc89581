// Rules as an operator writes them, on real packets: services by mark, refusals, the log, and a table saved and restored.
//
//   client 10.0.1.2 ── br-front ── [front] tapvsd [back] ── br-back ── rs1, rs2 10.0.2.11 …
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import { type Lab, labUp } from '../src/lab/lab.ts';
import { LAB_ECHO_PORT, labPlan } from '../src/lab/plan.ts';
import { run } from '../src/rtnl/netns.ts';
import { endOf, logged } from './daemon-log.ts';

const plan = labPlan({ prefix: `tipt${process.pid}-`, servers: 2 });
let lab: Lab;

beforeAll(async () => {
  lab = await labUp(plan);
  await lab.startServers();
  await lab.startDaemon();
});
afterAll(async () => {
  await lab?.down();
});

const iptables = async (line: string): Promise<string> => (await lab.tapvs('iptables', ...line.split(' '))).stdout;
const curl = (url: string) => lab.run(plan.client, ['curl', '-sS', '--max-time', '5', url]);

describe('iptables', () => {
  afterEach(async () => {
    for (const table of ['raw', 'mangle', 'filter', 'security']) await iptables(`-t ${table} -F`);
    await iptables('-X');
  });

  it('marks what a service by mark then balances, two protocols as one service', async () => {
    await lab.tapvs('ipvsadm', '-C');
    await iptables(`-t mangle -A PREROUTING -d ${plan.vip} -p tcp --dport 80 -j MARK --set-mark 1`);
    await iptables(`-t mangle -A PREROUTING -d ${plan.vip} -p udp --dport ${LAB_ECHO_PORT} -j MARK --set-mark 1`);
    await lab.tapvs('ipvsadm', '-A', '-f', '1', '-s', 'rr');
    for (const { address } of plan.servers) await lab.tapvs('ipvsadm', '-a', '-f', '1', '-r', address, '-m');
    const answers = [await curl(`http://${plan.vip}/`), await curl(`http://${plan.vip}/`)];
    expect(answers.map(({ stdout }) => stdout).sort()).toEqual(['rs1\n', 'rs2\n']);
    const ask = `import socket
s=socket.socket(socket.AF_INET,socket.SOCK_DGRAM); s.settimeout(5)
s.sendto(b"hello",("${plan.vip}",${LAB_ECHO_PORT})); print(s.recvfrom(100))`;
    expect((await lab.run(plan.client, ['python3', '-c', ask])).stdout).toMatch(/rs\d hello/);
    expect((await lab.tapvs('ipvsadm', '-Ln', '--stats')).stdout).toMatch(/^FWM {2}1 +3 /m);
    const [, , tcp, udp] = (await iptables('-t mangle -nvxL PREROUTING')).split('\n');
    expect(Number(tcp!.trim().split(/\s+/)[0])).toBeGreaterThan(8);
    expect(Number(udp!.trim().split(/\s+/)[0])).toBe(1);
    expect(tcp).toMatch(/ MARK {7}6 {4}-- {2}\* {6}\* .* tcp dpt:80 MARK set 0x1$/);
  });

  it('refuses at once what REJECT names, and says it in the log where LOG stands before', async () => {
    await iptables(`-A INPUT -p tcp --dport 8080 -j LOG --log-prefix refused:`);
    await iptables('-A INPUT -p tcp --dport 8080 -j REJECT --reject-with tcp-reset');
    await iptables('-A INPUT -p icmp --icmp-type echo-request -j REJECT --reject-with icmp-host-prohibited');
    const from = endOf(plan.logFile);
    const refused = await curl(`http://${plan.vip}:8080/`);
    expect(refused.status).toBe(7);
    const ping = await lab.run(plan.client, ['ping', '-n', '-c', '1', '-W', '2', plan.vip]);
    expect(ping.stdout).toContain('Host Prohibited');
    await logged(
      plan.logFile,
      /refused:IN=front OUT= MAC=[0-9a-f:]+ SRC=10\.0\.1\.2 DST=10\.0\.1\.100 LEN=60 .*PROTO=TCP SPT=\d+ DPT=8080/,
      from,
    );
    expect((await lab.tapvs('drops')).stdout).toMatch(/FilterRejected/);
    const why = await lab.tapvs('explain', 'tcp', '10.0.1.2:40000', `${plan.vip}:8080`);
    expect(why.stdout).toContain('--reject-with tcp-reset, rule 2 of table filter');
  });

  it('saves and restores tables by the classic names', async () => {
    const links = await mkdtemp(join(tmpdir(), 'tapvs-iptables-'));
    try {
      await run([fileURLToPath(new URL('../bin/tapvs', import.meta.url)), 'install-links', links]);
      const tool = (name: string, words: string[] = [], input = '') =>
        run(['env', `TAPVS_SOCKET=${plan.socket}`, join(links, name), ...words], { input });
      const rules = [
        '*filter',
        ':INPUT ACCEPT [0:0]',
        ':FORWARD DROP [0:0]',
        ':OUTPUT ACCEPT [0:0]',
        ':web - [0:0]',
        '-A INPUT -p tcp -m tcp --dport 80 -m comment --comment "to the servers" -j web',
        '-A web -s 10.0.1.2/32 -j ACCEPT',
        '-A web -j DROP',
        'COMMIT',
        '',
      ].join('\n');
      expect(await tool('iptables-restore', [], rules)).toMatchObject({ status: 0, stderr: '' });
      const saved = (await tool('iptables-save', ['-t', 'filter'])).stdout;
      expect(saved.replace(/^#.*\n/gm, '')).toBe(rules);
      const broken = await tool('iptables-restore', ['-n'], '*filter\n-F web\n-A nowhere -j DROP\nCOMMIT\n');
      expect(broken).toMatchObject({ status: 1, stderr: 'iptables-restore: line 3 failed\n' });
      expect((await tool('iptables', ['-S', 'web'])).stdout).toBe(
        '-N web\n-A web -s 10.0.1.2/32 -j ACCEPT\n-A web -j DROP\n',
      );
      expect(await tool('iptables', ['-P', 'FORWARD', 'ACCEPT'])).toMatchObject({ status: 0 });
    } finally {
      await rm(links, { recursive: true });
    }
  });
});
