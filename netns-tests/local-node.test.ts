// Real servers that are the director itself: what reaches them goes up the host port, and their answers come down it and get the service's address back.
//
//   client 10.0.1.2 ── [front 10.0.1.1, VIP 10.0.1.100] tapvsd [back 10.0.2.1] ── rs1 10.0.2.11
//                                                    [host] TUN ── 10.0.3.2, a web server on port 8080 of the director's namespace
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { type Lab, labUp } from '../src/lab/lab.ts';
import { LAB_KERNEL_IP, labPlan } from '../src/lab/plan.ts';

const plan = labPlan({ prefix: `tln${process.pid}-`, servers: 1 });
const { vip } = plan;
let lab: Lab;

async function ipvsadm(...lines: readonly string[]): Promise<void> {
  for (const line of lines) await lab.tapvs('ipvsadm', ...line.split(' '));
}

/** The connections of a service, without their seconds and client ports. */
async function connections(port: number): Promise<string[]> {
  const { stdout } = await lab.tapvs('ipvsadm', '-Lnc');
  return stdout
    .split('\n')
    .filter((line) => line.includes(` ${vip}:${port} `))
    .map((line) => line.trim().split(/\s+/))
    .map(([protocol, , state, , virtual, server]) => [protocol, state, virtual, server].join(' '));
}

beforeAll(async () => {
  lab = await labUp(plan);
  await lab.startServers();
  await lab.startServer(plan.director, 'director', { http: 8080, echo: 8007 });
  await lab.startDaemon();
});
afterAll(async () => {
  await lab?.down();
});

describe('a server on the director', () => {
  it.each([
    ['one of the director’s addresses', 90, '10.0.1.1'],
    ['the address of another network', 91, '10.0.2.1'],
    ['the VIP itself', 92, vip],
    ['the kernel’s end of the host port', 93, LAB_KERNEL_IP],
  ])('by NAT with another port: %s', async (_, port, address) => {
    await ipvsadm(`-A -t ${vip}:${port} -s rr`, `-a -t ${vip}:${port} -r ${address}:8080 -m`);
    expect(await lab.curl(`http://${vip}:${port}/`)).toBe('director\n');
    expect(await lab.curl(`http://${vip}:${port}/client`)).toMatch(/^10\.0\.1\.2:\d+\n$/);
    const size = ['-o', '/dev/null', '-w', '%{size_download}'];
    expect(await lab.curl(...size, `http://${vip}:${port}/big?bytes=3000000`)).toBe('3000000');
    expect(await connections(port)).toEqual(Array(3).fill(`TCP TIME_WAIT ${vip}:${port} ${address}:8080`));
    const { stdout } = await lab.tapvs('ipvsadm', '-Ln', '--stats', '-t', `${vip}:${port}`);
    // Answers are seen and counted, bytes too.
    expect(
      Number(/-> \S+ +3 +\d+ +\d+ +\d+ +(\w+)/.exec(stdout)?.[1]?.replace('K', '000').replace('M', '000000')),
    ).toBeGreaterThan(2_000_000);
  });

  it('by direct routing, for the VIP is ours', async () => {
    await ipvsadm(`-A -t ${vip}:8080 -s rr`, `-a -t ${vip}:8080 -r 10.0.1.1 -g`);
    expect(await lab.curl(`http://${vip}:8080/`)).toBe('director\n');
    expect((await connections(8080))[0]).toMatch(/^TCP \w+ 10\.0\.1\.100:8080 10\.0\.1\.1:8080$/);
  });

  it('takes its turn among others, over UDP as well', async () => {
    await ipvsadm(`-A -t ${vip}:94 -s rr`, `-a -t ${vip}:94 -r 10.0.1.1:8080 -m`, `-a -t ${vip}:94 -r 10.0.2.11:80 -m`);
    const answers = [];
    for (let i = 0; i < 4; i++) answers.push((await lab.curl(`http://${vip}:94/`)).trim());
    expect(answers.sort().join(' ')).toBe('director director rs1 rs1');
    await ipvsadm(`-A -u ${vip}:95 -s rr`, `-a -u ${vip}:95 -r ${LAB_KERNEL_IP}:8007 -m`);
    const script = `const s = require('dgram').createSocket('udp4');
      s.on('message', (m, f) => { console.log(f.address + ':' + f.port + ' ' + m); s.close(); }).send('hello', 95, '${vip}');
      setTimeout(() => process.exit(1), 3000).unref();`;
    const answer = await lab.run(plan.client, [process.execPath, '-e', script]);
    expect(answer.stdout).toBe(`${vip}:95 director hello\n`);
  });

  it('refused: the client hears a reset from the service', async () => {
    await ipvsadm(`-A -t ${vip}:96 -s rr`, `-a -t ${vip}:96 -r 10.0.1.1:8099 -m`);
    const refused = await lab.run(plan.client, ['curl', '-sSv', '--max-time', '3', `http://${vip}:96/`]);
    expect(refused.stderr).toContain('Connection refused');
    expect(await connections(96)).toEqual([`TCP CLOSE ${vip}:96 10.0.1.1:8099`]);
  });

  it('on a loopback address: not for others’ clients', async () => {
    await ipvsadm(`-A -t ${vip}:97 -s rr`, `-a -t ${vip}:97 -r 127.0.0.1:8080 -m`);
    const silent = await lab.run(plan.client, ['curl', '-sS', '--max-time', '1', `http://${vip}:97/`]);
    expect(silent.stderr).toContain('timed out');
  });
});

describe('a client on the director', () => {
  it('reaches servers elsewhere, and is seen with its own address', async () => {
    await ipvsadm(`-A -t ${vip}:98 -s rr`, `-a -t ${vip}:98 -r 10.0.2.11:80 -m`);
    const own = await lab.run(plan.director, ['curl', '-sS', '--max-time', '5', `http://${vip}:98/client`]);
    expect(own.stdout).toMatch(new RegExp(`^${LAB_KERNEL_IP.replaceAll('.', '\\.')}:\\d+\n$`));
    expect(await connections(98)).toEqual([`TCP TIME_WAIT ${vip}:98 10.0.2.11:80`]);
  });
});
