// --drain against real TCP: held connections through NAT and DR, idle and talking. At the deadline both ends of the drained server's see ECONNRESET,
// the others go on; the drain is over, and outlives the daemon.
import type { ChildProcess } from 'node:child_process';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { type Lab, labUp } from '../src/lab/lab.ts';
import { LAB_ECHO_PORT, type LabMethod, labPlan } from '../src/lab/plan.ts';
import { waitForLine } from '../src/rtnl/netns.ts';

const PORT = 7000;
/** For a machine that does a lot besides. */
const PATIENCE_MS = 40_000;

/** Says its name to whoever writes, and how each connection ended. */
const SERVER = `
import socket, sys, threading
name = sys.argv[1]
lock = threading.Lock()
def say(*words):
    with lock: print(*words, flush=True)
def serve(c, port):
    try:
        while c.recv(100): c.sendall(name.encode())
        say("eof", port)
    except ConnectionResetError: say("reset", port)
s = socket.socket(); s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1); s.bind(("0.0.0.0", ${PORT})); s.listen(64); print("ready", flush=True)
while True:
    c, peer = s.accept(); threading.Thread(target=serve, args=(c, peer[1]), daemon=True).start()
`;

/** Holds eight connections; every second one talks all the time. At SIGUSR1 it says which are still alive, and goes on. */
const CLIENT = `
import signal, socket, sys, threading, time
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1])
lock = threading.Lock(); alive = {}
def say(*words):
    with lock: print(*words, flush=True)
def hold(s, i, name, port):
    try:
        while True:
            if i % 2 == 0:
                s.sendall(b"x"); s.recv(10); time.sleep(0.02)
            elif not s.recv(10): say("eof", name, port); break
    except ConnectionResetError: say("reset", name, port)
    alive.pop(port)
for i in range(8):
    s = socket.socket(); s.settimeout(60); s.connect((sys.argv[1], ${PORT})); s.sendall(b"x"); name = s.recv(10).decode(); port = s.getsockname()[1]
    alive[port] = name; say("held", name, port)
    threading.Thread(target=hold, args=(s, i, name, port), daemon=True).start()
say("all held")
signal.sigwait([signal.SIGUSR1])
say("alive", *sorted(alive.values()))
say("over")
signal.pause()
`;

describe.each<{ method: LabMethod }>([{ method: 'nat' }, { method: 'dr' }])('--drain through $method', ({ method }) => {
  const plan = labPlan({ prefix: `td${process.pid}${method[0]}-`, servers: 2, method });
  const service = ['-t', `${plan.vip}:${PORT}`];
  const said = new Map<ChildProcess, string>();
  let lab: Lab;
  let daemon: ChildProcess;

  /** Starts a Python program; what it says is kept. */
  const start = async (netns: string, program: string, ready: RegExp, ...args: string[]): Promise<ChildProcess> => {
    const child = lab.spawn(netns, ['python3', '-c', program, ...args]);
    said.set(child, '');
    child.stdout!.on('data', (data: Buffer) => said.set(child, said.get(child)! + data.toString()));
    await waitForLine(child, ready, PATIENCE_MS);
    return child;
  };
  const linesOf = (child: ChildProcess) => said.get(child)!.split('\n').filter(Boolean);
  const ipvsadm = async (...args: string[]): Promise<string> => {
    const { status, stdout, stderr } = await lab.tapvs('ipvsadm', ...args);
    expect([status, stderr]).toEqual([0, '']);
    return stdout;
  };
  const rules = async (): Promise<void> => {
    await ipvsadm('-A', ...service, '-s', 'rr');
    for (const { address } of plan.servers)
      await ipvsadm('-a', ...service, '-r', address, method === 'nat' ? '-m' : '-g', '-w', '2');
  };

  beforeAll(async () => {
    lab = await labUp(plan);
    await lab.startServers();
    daemon = await lab.startDaemon();
    await rules();
  });
  afterAll(async () => {
    await lab?.down();
  });

  it('resets both ends at the deadline, and nobody else', async () => {
    const servers = await Promise.all(plan.servers.map(({ netns, name }) => start(netns, SERVER, /^ready$/, name)));
    const client = await start(plan.client, CLIENT, /^all held$/, plan.vip);
    const [drained, other] = plan.servers as [(typeof plan.servers)[0], (typeof plan.servers)[0]];
    const out = await ipvsadm('--drain', ...service, '-r', drained.address, '--deadline', '1', '--wait');
    expect(out).toMatch(/^drained after \d s: 0 idled, 4 reset, 0 unanswered, 0 removed\n$/);
    client.kill('SIGUSR1');
    await waitForLine(client, /^over$/, PATIENCE_MS);
    const ports = (lines: readonly string[], word: string, name: string) =>
      lines
        .filter((line) => line.startsWith(`${word} ${name}`))
        .map((line) => line.split(' ').at(-1))
        .sort();
    const heard = linesOf(client);
    const held = ports(heard, 'held', drained.name);
    expect(held).toHaveLength(4);
    expect(ports(heard, 'reset', drained.name)).toEqual(held);
    expect(heard.filter((line) => line.startsWith('alive'))).toEqual([
      `alive ${[...Array(4)].map(() => other.name).join(' ')}`,
    ]);
    expect(heard.filter((line) => line.includes('eof'))).toEqual([]);
    const [first, second] = servers;
    await expect.poll(() => ports(linesOf(first!), 'reset', ''), { timeout: PATIENCE_MS }).toEqual(held);
    expect(linesOf(second!)).toEqual(['ready']);
    expect(await ipvsadm('-Ln', ...service)).toMatch(new RegExp(`-> ${drained.address}:${PORT} .* 0 +0 +0 *$`, 'm'));
  });

  it('a UDP client that goes on gets another server', async () => {
    const udp = ['-u', `${plan.vip}:${LAB_ECHO_PORT}`];
    const ask = `import socket
s=socket.socket(socket.AF_INET,socket.SOCK_DGRAM); s.settimeout(5); s.bind(("",7777))
s.sendto(b"hello",("${plan.vip}",${LAB_ECHO_PORT})); print(s.recvfrom(100)[0].decode())`;
    const answer = async () => (await lab.run(plan.client, ['python3', '-c', ask])).stdout.trim().split(' ')[0];
    const before = await answer();
    expect(await answer()).toBe(before);
    const { address } = plan.servers.find(({ name }) => name === before)!;
    const out = await ipvsadm('--drain', ...udp, '-r', address, '--deadline', '0', '--wait');
    expect(out).toContain('0 reset, 0 unanswered, 1 removed');
    expect(await answer()).toBe(plan.servers.find(({ name }) => name !== before)!.name);
    await ipvsadm('--undrain', ...udp, '-r', address);
  });

  it('outlives the daemon', async () => {
    const { address } = plan.servers[0]!;
    await lab.stop(daemon);
    daemon = await lab.startDaemon();
    expect(await ipvsadm('-Ln', '--drain')).toMatch(/awaiting/);
    await rules();
    expect(await ipvsadm('-Sn')).toContain(`-r ${address}:${PORT} ${method === 'nat' ? '-m' : '-g'} -w 0\n`);
    expect(JSON.parse(await ipvsadm('-L', '--drain', '--json'))).toMatchObject([
      { state: 'done', weight: 2, server: { address } },
    ]);
    await ipvsadm('--undrain', ...service, '-r', address);
    expect(await ipvsadm('-Sn')).toContain(`-r ${address}:${PORT} ${method === 'nat' ? '-m' : '-g'} -w 2\n`);
    expect(await ipvsadm('-L', '--drain')).toBe('');
  });
});
