// FTP through NAT with a real server and curl: passive and active, short and extended commands, megabytes both ways; what the client's side saw is checked
// frame by frame.
import { createHash, randomBytes } from 'node:crypto';
import { chmodSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { type Lab, labUp } from '../src/lab/lab.ts';
import { LAB_CLIENT_IP, labPlan } from '../src/lab/plan.ts';
import { waitForLine } from '../src/rtnl/netns.ts';
import { describeFrame } from '../src/wire/build.ts';
import { faultsOf, watch } from './watch.ts';

const BYTES = 4_000_000;
/** curl's words for each way to a data connection; the last is what must be seen of it. */
const MODES = [
  { name: 'EPSV', words: [], seen: /^229 .*\(\|\|\|50\d\d\d\|\)/m },
  { name: 'PASV', words: ['--disable-epsv', '--no-ftp-skip-pasv-ip'], seen: /^227 .*\(10,0,1,100,195,\d+\)/m },
  { name: 'EPRT', words: ['--ftp-port', '-'], seen: /^EPRT \|1\|10\.0\.1\.2\|/m },
  { name: 'PORT', words: ['--ftp-port', '-', '--disable-eprt'], seen: /^PORT 10,0,1,2,/m },
] as const;

describe.each([
  { offload: false, tracked: 0 },
  { offload: true, tracked: 0 },
  { offload: false, tracked: 1 },
])('FTP, peers with offload: $offload, tracked: $tracked', ({ offload, tracked }) => {
  const plan = labPlan({
    prefix: `tf${process.pid}${offload ? 1 : 0}${tracked}-`,
    servers: 1,
    checksumOffload: offload,
  });
  const server = plan.servers[0]!;
  const url = `ftp://${plan.vip}`;
  const folder = `${plan.runDir}/ftp`;
  const down = randomBytes(BYTES);
  const up = randomBytes(BYTES);
  let lab: Lab;

  beforeAll(async () => {
    lab = await labUp(plan);
    mkdirSync(folder);
    chmodSync(folder, 0o777);
    writeFileSync(`${folder}/down.bin`, down);
    writeFileSync(`${plan.runDir}/up.bin`, up);
    const program = new URL('ftp-server.py', import.meta.url).pathname;
    await waitForLine(lab.spawn(server.netns, ['/usr/bin/python3', program, server.address, folder]), /^ready$/);
    await lab.startDaemon();
    // What connection tracking thinks of segments whose numbers the director shifts behind its back: nothing may be INVALID.
    if (tracked) {
      await lab.tapvs('sysctl', '-w', 'net.ipv4.vs.conntrack=1');
      for (const chain of ['INPUT', 'FORWARD'])
        await lab.tapvs('iptables', '-A', chain, '-m', 'conntrack', '--ctstate', 'INVALID', '-j', 'DROP');
    }
    for (const words of [
      ['-A', '-t', `${plan.vip}:21`, '-s', 'rr'],
      ['-a', '-t', `${plan.vip}:21`, '-r', server.address, '-m'],
    ]) {
      expect(await lab.tapvs('ipvsadm', ...words)).toMatchObject({ status: 0, stderr: '' });
    }
  });
  afterAll(async () => {
    await lab?.down();
  });

  it.each(MODES)('$name: a listing, a file down, a file up', async ({ name, words, seen }) => {
    const seenByClient = await watch(plan.client, 'eth0', `${plan.runDir}/${name}.pcap`, 'tcp');
    expect(await lab.curl(...words, `${url}/`)).toContain('down.bin');
    await lab.curl(...words, '-o', `${plan.runDir}/down-${name}.bin`, `${url}/down.bin`);
    await lab.curl(...words, '-T', `${plan.runDir}/up.bin`, `${url}/up-${name}.bin`);
    const frames = await seenByClient.frames();
    const sha = (bytes: Uint8Array) => createHash('sha256').update(bytes).digest('hex');
    expect(sha(readFileSync(`${plan.runDir}/down-${name}.bin`))).toBe(sha(down));
    expect(sha(readFileSync(`${folder}/up-${name}.bin`))).toBe(sha(up));
    // Every frame is the client's or the director's, in its header and in what it says.
    const text = frames.map((bytes) => Buffer.from(bytes).toString('latin1')).join('');
    const lines = frames.map((bytes) => describeFrame(bytes)).filter((line) => line.includes(' IP '));
    expect(lines.length).toBeGreaterThan(100);
    expect(lines.filter((line) => !line.includes(`${LAB_CLIENT_IP}.`) || !line.includes(`${plan.vip}.`))).toEqual([]);
    expect(text).not.toMatch(/10[.,]0[.,]2[.,]11/);
    expect(text.replaceAll('\r\n', '\n')).toMatch(new RegExp(seen.source.replace('^', ''), 'm'));
    if (words.includes('--ftp-port' as never)) {
      expect(lines.some((line) => line.includes(`${plan.vip}.20 > ${LAB_CLIENT_IP}`))).toBe(true);
    }
    if (!offload) expect(faultsOf(frames)).toEqual([]);
    if (tracked) {
      expect((await lab.tapvs('conntrack', '-S')).stdout).toMatch(/\binvalid=0 .*\binsert_failed=0 drop=0 /);
      expect((await lab.tapvs('drops')).stdout).not.toMatch(/Filter|Conntrack/);
    }
  });

  it('counts its connections, and lists their ends', async () => {
    const { stdout } = await lab.tapvs('ipvsadm', '-Lnc');
    const rows = stdout.split('\n').filter((line) => line.startsWith('TCP'));
    expect(rows.length).toBeGreaterThanOrEqual(MODES.length * 6);
    expect(rows.filter((line) => line.includes(`${plan.vip}:21`)).length).toBe(MODES.length * 3);
    expect(rows.filter((line) => line.includes('ESTABLISHED'))).toEqual([]);
  });
});
