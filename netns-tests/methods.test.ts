// The tools that people try a balancer with, through every forwarding method, with super-packets and without:
// curl, wrk, openssl, dig (UDP, and TCP after a truncated answer), nmap, traceroute, nc; 100 MB each way by checksum.
//
//   nat   client 10.0.1.2 ── br-front ── tapvsd ── br-back ── rs1 10.0.2.11, rs2        answers go back through tapvsd
//   dr    client 10.0.1.2 ── br-front ── tapvsd
//                               └── rs1 10.0.1.11, rs2                                  answers go straight to the client
//   tun   client 10.0.1.2 ── br-front ── tapvsd ── br-back ══ rs1 10.0.2.11, rs2        tunnel there, straight back
//                               └──────────────────────────── rs1 10.0.1.11 …           (second leg)
//
// Each server: web and echo (lab), dnsmasq on 53, openssl s_server on 443, nc on 9001 and a half-open server on 9000 (rs1).
import { createHash, randomBytes } from 'node:crypto';
import { readFileSync, writeFileSync } from 'node:fs';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { type Lab, labUp } from '../src/lab/lab.ts';
import {
  LAB_BACK_IP,
  LAB_BACK_MAC,
  LAB_CLIENT_IP,
  LAB_CLIENT_MAC,
  LAB_FRONT_IP,
  LAB_FRONT_MAC,
  type LabMethod,
  labConfig,
  labPlan,
} from '../src/lab/plan.ts';
import { waitForLine } from '../src/rtnl/netns.ts';
import { describeFrame } from '../src/wire/build.ts';
import { checksumErrors, faultsOf, faultsWithOffload, type Watch, watch } from './watch.ts';

const HUGE = 100_000_000;
const FLAG = { nat: '-m', dr: '-g', tun: '-i' } as const;
const WAYS: { method: LabMethod; offload: boolean }[] = [
  { method: 'nat', offload: true },
  { method: 'nat', offload: false },
  { method: 'dr', offload: true },
  { method: 'dr', offload: false },
  { method: 'tun', offload: true },
  { method: 'tun', offload: false },
];

/** Answers with the checksum of all that came, once the other side has shut down its half. */
const HALF_OPEN = `require('net').createServer({ allowHalfOpen: true }, (socket) => {
  const hash = require('crypto').createHash('sha256');
  socket.on('data', (bytes) => hash.update(bytes)).on('end', () => socket.end(hash.digest('hex') + '\\n'));
}).listen(9000, () => console.log('listening'))`;

describe.each(WAYS)('$method, peers with offload: $offload', ({ method, offload }) => {
  const plan = labPlan({
    prefix: `tme${process.pid}${method}${offload ? 1 : 0}-`,
    servers: 2,
    method,
    checksumOffload: offload,
  });
  const { vip, client, director, servers, runDir } = plan;
  const [rs1, rs2] = [servers[0]!, servers[1]!];
  const url = `http://${vip}`;
  let lab: Lab;
  const at = (netns: string, line: string, timeoutMs = 30_000) => lab.run(netns, ['bash', '-c', line], { timeoutMs });
  /** A shell line of the client's, which must succeed. */
  async function ask(line: string): Promise<string> {
    const { status, stdout, stderr } = await at(client, line);
    expect({ line, status, stderr: status === 0 ? '' : stderr + stdout }).toEqual({ line, status: 0, stderr: '' });
    return stdout;
  }

  beforeAll(async () => {
    lab = await labUp(plan);
    // A certificate of some kilobytes, so that the handshake takes several segments.
    const names = Array.from({ length: 150 }, (_, i) => `DNS:name-${i}.of-the-service.lab.example`).join(',');
    await at(
      client,
      `cd ${runDir} && openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -keyout key.pem -out cert.pem -subj /CN=lab -addext subjectAltName=${names}`,
    );
    await Promise.all([
      lab.startServers(),
      ...servers.map(async ({ netns, name, address }) => {
        const long = Array.from({ length: 8 }, (_, i) => `--txt-record=long.lab,${i}${'x'.repeat(200)}`).join(' ');
        // By address: on its own dnsmasq takes no TCP from a device without addresses, as a tunnel's is.
        const dns = `exec dnsmasq --no-daemon --conf-file=/dev/null --no-resolv --no-hosts --user=root --pid-file= --bind-interfaces --listen-address=${method === 'nat' ? address : vip} --txt-record=who.lab,${name} ${long} 2>&1`;
        await waitForLine(lab.spawn(netns, ['sh', '-c', dns]), /started/);
        const tls = [
          'openssl',
          's_server',
          '-accept',
          '443',
          '-cert',
          `${runDir}/cert.pem`,
          '-key',
          `${runDir}/key.pem`,
          '-www',
        ];
        await waitForLine(lab.spawn(netns, tls), /ACCEPT/);
      }),
    ]);
    const services = ['-t 80', '-t 443', '-t 53', '-u 53', '-u 7'].flatMap((service) => {
      const [flag, port] = service.split(' ');
      const there = `${flag} ${vip}:${port}`;
      return [
        `-A ${there} -s rr`,
        ...servers.map(({ address }) => `-a ${there} -r ${address}:${port} ${FLAG[method]}`),
      ];
    });
    for (const port of [9000, 9001]) {
      services.push(`-A -t ${vip}:${port} -s rr`, `-a -t ${vip}:${port} -r ${rs1.address}:${port} ${FLAG[method]}`);
    }
    await lab.startDaemon(labConfig(plan, { ipvsadm: services.join('\n') }));
  });
  afterAll(async () => {
    await lab?.down();
  });

  it('curl: even shares, the client address kept, and the packets that the method promises', async () => {
    const cip = LAB_CLIENT_IP.replaceAll('.', '\\.');
    const [atClient, atServer] = [
      await watch(client, 'eth0', `${runDir}/c.pcap`, 'tcp port 80'),
      await watch(rs1.netns, 'eth0', `${runDir}/s.pcap`, 'tcp port 80 or proto 4'),
    ];
    const answers = (await ask(`for i in 1 2 3 4; do curl -sS -m 5 ${url}/; done`)).trim().split('\n');
    expect(answers.sort()).toEqual(['rs1', 'rs1', 'rs2', 'rs2']);
    expect(await ask(`curl -sS -m 5 ${url}/client`)).toMatch(new RegExp(`^${cip}:\\d+$`, 'm'));
    const [seen, served] = [(await atClient.frames()).map(describeFrame), (await atServer.frames()).map(describeFrame)];
    const request = served.find((line) => line.includes('[S]')) ?? '';
    const answer = seen.find((line) => line.includes('[S.]') && line.includes(rs1.front?.mac ?? rs1.mac)) ?? '';
    expect(seen.find((line) => line.includes('[S]'))).toMatch(
      new RegExp(`^${LAB_CLIENT_MAC} > ${LAB_FRONT_MAC} IP ${cip}\\.\\d+ > ${vip}\\.80: .*ttl 64`),
    );
    switch (method) {
      case 'nat':
        expect(request).toMatch(
          new RegExp(`^${LAB_BACK_MAC} > ${rs1.mac} IP ${cip}\\.\\d+ > ${rs1.address}\\.80: .*ttl 63`),
        );
        expect(seen.filter((line) => line.includes('[S.]') && !line.startsWith(`${LAB_FRONT_MAC} > `))).toEqual([]);
        break;
      case 'dr':
        expect(request).toMatch(new RegExp(`^${LAB_FRONT_MAC} > ${rs1.mac} IP ${cip}\\.\\d+ > ${vip}\\.80: .*ttl 63`));
        expect(answer).toMatch(new RegExp(`^${rs1.mac} > ${LAB_CLIENT_MAC} IP ${vip}\\.80 > ${cip}`));
        break;
      case 'tun':
        expect(request).toMatch(
          new RegExp(
            `^${LAB_BACK_MAC} > ${rs1.mac} IP ${LAB_BACK_IP} > ${rs1.address}: ipip \\{ IP ${cip}\\.\\d+ > ${vip}\\.80: .*ttl 63`,
          ),
        );
        expect(answer).toMatch(new RegExp(`^${rs1.front!.mac} > ${LAB_CLIENT_MAC} IP ${vip}\\.80 > ${cip}`));
        break;
    }
  });

  it('wrk: no error on 32 connections', async () => {
    const said = await ask(`wrk -t 1 -c 32 -d 1s ${url}/`);
    expect(said).not.toMatch(/Socket errors|Non-2xx/);
    expect(Number(/(\d+) requests in/.exec(said)?.[1])).toBeGreaterThan(100);
  });

  it('openssl s_client: a handshake of several segments, verified', async () => {
    const said = await ask(
      `openssl s_client -connect ${vip}:443 -CAfile ${runDir}/cert.pem -verify_return_error -ign_eof <<<$'GET / HTTP/1.0\\r\\n\\r' 2>&1`,
    );
    expect(said).toContain('Verify return code: 0 (ok)');
    expect(said).toMatch(/HTTP\/1\.0 200 ok/i);
    expect(Number(/SSL handshake has read (\d+) bytes/.exec(said)?.[1])).toBeGreaterThan(4000);
  });

  it('dig: over UDP and TCP, and TCP after a truncated answer', async () => {
    const who = `dig @${vip} who.lab TXT +short +tries=1 +time=5`;
    const answers = [await ask(who), await ask(who), await ask(`${who} +tcp`), await ask(`${who} +tcp`)];
    expect(answers.map((text) => text.trim())).toEqual(expect.arrayContaining(['"rs1"', '"rs2"']));
    const long = await ask(`dig @${vip} long.lab TXT +noedns +tries=1 +time=5`);
    expect(long).toContain('Truncated, retrying in TCP mode');
    expect(long).toMatch(/ANSWER: 8,/);
  });

  it('nmap: open, closed, and by UDP', async () => {
    const scan = 'nmap -n -Pn --disable-arp-ping -T5 --max-retries 2';
    for (const how of ['-sS', '-sT']) {
      const said = await ask(`${scan} ${how} -p 80,81,443 ${vip}`);
      expect(said).toMatch(/80\/tcp +open +http\n81\/tcp +closed +\S+\n443\/tcp +open +https\n/);
    }
    expect(await ask(`${scan} -sU -p 53,69 ${vip}`)).toMatch(/53\/udp +open +domain\n69\/udp +closed +tftp\n/);
  });

  it('traceroute: one hop to the director, one to the server; both speak with the virtual address', async () => {
    const hops = async (words: string): Promise<string[]> => {
      const said = await ask(`traceroute -n -q 1 -w 2 -m 4 ${words}`);
      return [...said.matchAll(/^ *\d+ +(\S+)/gm)].map((match) => match[1]!);
    };
    // Time exceeded comes from the address that was asked, as the kernel's director has it: the packet was for this host.
    expect(await hops(`-T -p 80 ${vip}`)).toEqual([vip, vip]);
    expect(await hops(`-U -p 7 ${vip}`)).toEqual([vip, vip]);
    expect(await hops(`-I ${vip}`)).toEqual([vip]); // echo is no service: the director itself answers
    expect(await hops(vip)).toEqual([vip]);
    if (method !== 'dr') expect(await hops(rs1.address)).toEqual([LAB_FRONT_IP, rs1.address]);
  });

  it('nc: both ways at once, an answer after a half-close, datagrams', async () => {
    const [data, other] = [randomBytes(300_000), randomBytes(200_000)];
    writeFileSync(`${runDir}/data`, data);
    writeFileSync(`${runDir}/other`, other);
    const server = lab.spawn(rs1.netns, [
      'bash',
      '-c',
      `exec nc -n -v -N -l 9001 2>&1 <${runDir}/other >${runDir}/got`,
    ]);
    const ended = new Promise((resolve) => server.once('exit', resolve));
    await waitForLine(server, /Listening/);
    await ask(`timeout 10 nc -N ${vip} 9001 <${runDir}/data >${runDir}/back`);
    expect(await ended).toBe(0);
    expect(readFileSync(`${runDir}/got`).equals(data)).toBe(true);
    expect(readFileSync(`${runDir}/back`).equals(other)).toBe(true);
    // HALF_OPEN knows what to answer only when the client has said that it is done.
    await waitForLine(lab.spawn(rs1.netns, [process.execPath, '-e', HALF_OPEN]), /listening/);
    const sum = createHash('sha256').update(data).digest('hex');
    expect(await ask(`timeout 10 nc -N ${vip} 9000 <${runDir}/data`)).toBe(`${sum}\n`);
    expect(await ask(`printf hello | timeout 10 nc -u -W 1 ${vip} 7`)).toMatch(/^rs[12] hello$/);
  });

  it('100 MB each way arrive unharmed', async () => {
    const file = `${runDir}/huge`;
    await ask(`head -c ${HUGE} /dev/urandom >${file}`);
    const [sum] = (await ask(`sha256sum ${file}`)).split(' ');
    expect(await ask(`curl -sS -m 30 -H Expect: -T ${file} ${url}/`)).toBe(`${HUGE} ${sum}\n`);
    const there = await at(rs2.netns, `curl -sS 'http://127.0.0.1/big?bytes=${HUGE}' | sha256sum`);
    expect(await ask(`curl -sS -m 30 '${url}/big?bytes=${HUGE}' | sha256sum`)).toBe(there.stdout);
  });

  it('every length and checksum is right, at client, director and servers', async () => {
    const places: [string, string][] = [
      [client, 'eth0'],
      [director, 'br-front'],
      ...(plan.addresses.back === null ? [] : [[director, 'br-back'] as [string, string]]),
      ...servers.map(({ netns }): [string, string] => [netns, 'eth0']),
      ...servers.filter(({ front }) => front !== null).map(({ netns }): [string, string] => [netns, 'eth1']),
      ...(method === 'tun' ? servers.map(({ netns }): [string, string] => [netns, 'tapvs-decap']) : []),
    ];
    const isTun = (device: string): boolean => device === 'tapvs-decap';
    const watches: Watch[] = [];
    for (const [i, [netns, device]] of places.entries())
      watches.push(await watch(netns, device, `${runDir}/sums${i}.pcap`, 'ip'));
    await ask(
      `for i in 1 2; do curl -sS -o /dev/null '${url}/big?bytes=400000'; curl -sS -m 5 -o /dev/null -H Expect: -T ${runDir}/data ${url}/; done`,
    );
    await ask(`dig @${vip} who.lab TXT +short; ping -c 1 -s 3000 ${vip}; nc -z ${vip} 81 || true`);
    for (const [i, w] of watches.entries()) {
      const frames = await w.frames();
      expect(frames.length).toBeGreaterThan(8);
      const [, device] = places[i]!;
      const faults = isTun(device) ? [] : offload ? faultsWithOffload(frames) : faultsOf(frames);
      expect({ place: places[i], faults: faults.slice(0, 5) }).toEqual({ place: places[i], faults: [] });
    }
    for (const netns of [client, director, rs1.netns, rs2.netns])
      expect({ netns, errors: await checksumErrors(netns) }).toEqual({ netns, errors: '' });
  });
});
