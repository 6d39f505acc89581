// Two directors on the same segments: one fails, the other goes on with its connections; it comes back and learns the whole table; they change places.
//
//   client ─ br-front ─┬─ [front] tapvsd A [back] ─┬─ br-back ─ rs1 rs2
//                      └─ [peer-f] tapvsd B [peer-b] ─┘
//
// Who is active has the VIP and the servers' gateway.
import type { ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { statSync } from 'node:fs';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { Lab, labUp } from '../src/lab/lab.ts';
import { LAB_BACK_IP, LAB_CLIENT_IP, labPlan } from '../src/lab/plan.ts';
import { runOkIn, waitForLine } from '../src/rtnl/netns.ts';
import { faultsOf, type Watch, watch } from './watch.ts';

const HELD = 12;
const ECHO_PORT = 7000;
const BYTES = 60_000_000;
/** More than both ends' buffers hold: so much is to come yet when the master is killed. */
const TO_COME = 12_000_000;
/** For a machine that does a lot besides. */
const PATIENCE = { timeout: 40_000, interval: 250 };

const ECHO = `
import selectors, socket
sel = selectors.DefaultSelector()
def serve(c):
    d = c.recv(4096)
    if d: c.sendall(d)
    else: sel.unregister(c); c.close()
def accept(s):
    c, _ = s.accept(); sel.register(c, 1, serve)
s = socket.socket(); s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1); s.bind(("", ${ECHO_PORT})); s.listen(64)
sel.register(s, 1, accept)
print("ready", flush=True)
while True:
    for k, _ in sel.select(): (accept if k.fileobj is s else serve)(k.fileobj)
`;

/** Holds connections; at SIGUSR1 it writes to all, at SIGUSR2 to every second one, and waits for the echoes. */
const HOLDER = `
import signal, socket, sys
signals = [signal.SIGUSR1, signal.SIGUSR2]
signal.pthread_sigmask(signal.SIG_BLOCK, signals)
held = []
for i in range(${HELD}):
    s = socket.socket(); s.settimeout(40); s.connect((sys.argv[1], ${ECHO_PORT})); held.append(s)
print("held", flush=True)
n = 0
while True:
    step = 1 if signal.sigwait(signals) == signal.SIGUSR1 else 2
    good, bad = 0, []
    for i, s in enumerate(held):
        if i % step: continue
        n += 1
        text = b"word %d of %d" % (n, i)
        try:
            s.sendall(text); got = s.recv(4096)
            if got == text: good += 1
            else: bad.append((i, got))
        except OSError as e: bad.append((i, e))
    print("echoed", good, *bad, "end", flush=True)
`;

const plan = labPlan({ prefix: `tsy${process.pid}-`, servers: 2, checksumOffload: false });
const { vip } = plan;
const services = [80, ECHO_PORT].flatMap((port) => [
  `-A -t ${vip}:${port} -s rr`,
  ...plan.servers.map(({ address }) => `-a -t ${vip}:${port} -r ${address}:${port} -m`),
]);

interface Director {
  readonly lab: Lab;
  readonly front: string;
  readonly back: string;
  readonly id: number;
}
let [a, b] = [] as unknown as [Director, Director];
let daemonA: ChildProcess;
let holder: ChildProcess;
let syncMessages: Watch;

/** Without the VIP: who gets it is told later. */
function config({ front, back, id }: Director, daemon: 'master' | 'backup'): string {
  const device = (name: string, bridge: string, net: number) => ({
    name,
    kind: 'tap',
    bridge,
    mac: `02:00:00:00:0${net}:0${id}`,
    addresses: [`10.0.${net}.${id}/24`],
    offload: false,
  });
  const rules = [...services, `--start-daemon ${daemon} --mcast-interface ${front} --syncid 5`];
  return [
    `devices: ${JSON.stringify([device(front, 'br-front', 1), device(back, 'br-back', 2)])}`,
    'sysctl: { net.ipv4.ip_forward: 1 }',
    'ipvsadm: |',
    ...rules.map((rule) => `  ${rule}\n`),
  ].join('\n');
}

async function tapvs({ lab }: Director, words: string): Promise<string> {
  const { status, stdout, stderr } = await lab.tapvs(...words.split(' '));
  expect({ words, status, stderr }).toEqual({ words, status: 0, stderr: '' });
  return stdout;
}

/** Connections without the time that is left. */
async function rows(of: Director): Promise<string[]> {
  const list = (await tapvs(of, 'ipvsadm -Lnc')).split('\n').filter((line) => line.startsWith('TCP'));
  return list.map((line) => line.replace(/ \d\d:\d\d /, ' ')).sort();
}

/** Both know the same; resolves with it. */
async function same(one: Director, other: Director): Promise<string[]> {
  await expect
    .poll(async () => [(await rows(one)).length > 0, await rows(other)], PATIENCE)
    .toEqual([true, await rows(one)]);
  return rows(one);
}

async function takeAddresses({ front, back, ...rest }: Director): Promise<void> {
  await tapvs({ front, back, ...rest }, `ip addr add ${vip}/32 dev ${front}`);
  await tapvs({ front, back, ...rest }, `ip addr add ${LAB_BACK_IP}/24 dev ${back}`);
}

async function leaveAddresses(of: Director): Promise<void> {
  await tapvs(of, `ip addr del ${vip}/32 dev ${of.front}`);
  await tapvs(of, `ip addr del ${LAB_BACK_IP}/24 dev ${of.back}`);
}

async function role(of: Director, before: 'master' | 'backup', now: 'master' | 'backup'): Promise<void> {
  await tapvs(of, `ipvsadm --stop-daemon ${before}`);
  await tapvs(of, `ipvsadm --start-daemon ${now} --mcast-interface ${of.front} --syncid 5`);
}

async function talk(which: 'all' | 'some' = 'all'): Promise<string> {
  const answer = waitForLine(holder, /^echoed .*end$/, 45_000);
  holder.kill(which === 'all' ? 'SIGUSR1' : 'SIGUSR2');
  return answer;
}

describe('two directors', { timeout: 120_000 }, () => {
  beforeAll(async () => {
    const lab = await labUp(plan);
    const { runDir } = plan;
    const peer = {
      ...plan,
      configFile: `${runDir}/peer.yaml`,
      socket: `${runDir}/peer.sock`,
      logFile: `${runDir}/peer.log`,
    };
    a = { lab, front: 'front', back: 'back', id: 3 };
    b = { lab: new Lab(peer), front: 'peer-f', back: 'peer-b', id: 4 };
    await lab.startServers();
    for (const { netns } of plan.servers) {
      await waitForLine(lab.spawn(netns, ['/usr/bin/python3', '-c', ECHO]), /^ready$/);
    }
    syncMessages = await watch(plan.client, 'eth0', `${runDir}/sync.pcap`, 'udp port 8848');
    daemonA = await lab.startDaemon(config(a, 'master'));
    await b.lab.startDaemon(config(b, 'backup'), { env: { STATE_DIRECTORY: `${runDir}/state-peer` } });
    await takeAddresses(a);
    holder = lab.spawn(plan.client, ['/usr/bin/python3', '-c', HOLDER, vip]);
    await waitForLine(holder, /^held$/, 40_000);
  }, 90_000);

  afterAll(async () => {
    await b?.lab.down();
    await a?.lab.down();
  });

  it('the backup knows the connections of the master, with their servers and states', async () => {
    for (let i = 0; i < 3; i++) expect(await talk()).toBe(`echoed ${HELD} end`);
    const known = await same(a, b);
    expect(known.length).toBe(HELD);
    expect(known.filter((line) => line.includes('ESTABLISHED')).length).toBe(HELD);
    expect(await tapvs(b, 'ipvsadm -L --daemon')).toMatch(/^backup sync daemon \(mcast=peer-f, syncid=5,/);
    const counts = (text: string) => text.split('\n').filter((line) => line.includes('->'));
    expect(counts(await tapvs(b, 'ipvsadm -Ln'))).toEqual(counts(await tapvs(a, 'ipvsadm -Ln')));
  });

  it('the master is killed: held connections and a download go on through the backup', async () => {
    const file = `${plan.runDir}/big`;
    const words = ['-sS', '--max-time', '60', '--limit-rate', '4M', '-o', file, '-w', '%{http_code}\\n'];
    const curl = a.lab.spawn(plan.client, ['curl', ...words, `http://${vip}/big?bytes=${BYTES}`]);
    const done = waitForLine(curl, /^\d{3}$/, 70_000);
    await expect.poll(() => rows(b), PATIENCE).toHaveLength(HELD + 1);
    daemonA.kill('SIGKILL');
    await once(daemonA, 'exit');
    const before = statSync(file).size;
    expect(before).toBeGreaterThan(0);
    expect(before).toBeLessThan(BYTES - TO_COME);
    await takeAddresses(b);
    expect(await talk('some')).toBe(`echoed ${HELD / 2} end`);
    expect(await done).toBe('200');
    const sum = async (netns: string, words: string) => (await runOkIn(netns, ['sh', '-c', words])).split(' ')[0];
    const whole = await sum(plan.servers[0]!.netns, `curl -sS 'http://127.0.0.1/big?bytes=${BYTES}' | sha256sum`);
    expect(await sum(plan.client, `sha256sum ${file}`)).toBe(whole);
    expect(await talk()).toBe(`echoed ${HELD} end`);
  });

  it('the other comes back as a backup and asks for the whole table, idle connections and all', async () => {
    await role(b, 'backup', 'master');
    daemonA = await a.lab.startDaemon(config(a, 'backup'));
    const daemon = async () => JSON.parse(await tapvs(a, 'ipvsadm -L --daemon --json'))[0];
    await expect.poll(async () => (await daemon()).transfer, PATIENCE).toBe('complete');
    expect((await daemon()).counters.bulkRecords).toBeGreaterThanOrEqual(HELD);
    const known = await same(b, a);
    expect(known.filter((line) => line.includes(`${vip}:${ECHO_PORT}`)).length).toBe(HELD);
  });

  it('they change places, and no connection notices', async () => {
    await leaveAddresses(b);
    await takeAddresses(a);
    await role(a, 'backup', 'master');
    await role(b, 'master', 'backup');
    for (let i = 0; i < 2; i++) expect(await talk()).toBe(`echoed ${HELD} end`);
    await same(a, b);
  });

  it("every message's lengths and checksums are right, for tcpdump too", async () => {
    const frames = await syncMessages.frames();
    expect(faultsOf(frames)).toEqual([]);
    const text = await runOkIn(null, ['tcpdump', '-nvvr', `${plan.runDir}/sync.pcap`]);
    const count = (pattern: RegExp) => text.match(pattern)?.length ?? 0;
    expect(count(/udp sum ok/g)).toBe(frames.length);
    for (const { id } of [a, b])
      expect(text).toMatch(new RegExp(`10\\.0\\.1\\.${id}\\.\\d+ > 224\\.0\\.0\\.81\\.8848: `));
    expect(count(/bad udp cksum|bad cksum/g)).toBe(0);
    expect(text).not.toContain(`${LAB_CLIENT_IP}.`);
  });
});
