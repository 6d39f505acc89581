// 50,000 connections of real sockets, held open while servers are added, edited, quiesced and removed and the services' file is reloaded.
//
//   client 10.0.1.2, .20-.29 ─ [front] tapvsd [back] ─ rs1 … rs6
//
// At every step the counters of `ipvsadm -Ln` are a recount of `ipvsadm -Lnc`, and a sample of the connections talks; at the end all of them do:
// those to servers that are there answer, each from the server that it had.
import { writeFileSync } from 'node:fs';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { SeededRng } from '../src/base/rng.ts';
import { type Lab, labUp } from '../src/lab/lab.ts';
import { labConfig, labPlan } from '../src/lab/plan.ts';
import type { ConnectionRow, ServiceRow } from '../src/model/ipvs.ts';
import { ipBatch, runOkIn, setSysctls, spawnIn, waitForLine } from '../src/rtnl/netns.ts';

const plan = labPlan({ prefix: `tch${process.pid}-`, servers: 6 });
const { client, director, vip, socket, configFile } = plan;
const PORT = 4000;
const HELD = 50_000;
/** Processes that hold them: a process may have 20,000 descriptors, or fewer. */
const HOLDERS = 4;
const STEPS = 16;
const TALK = 500;
const PATIENCE_S = 130;
const SOURCES = Array.from({ length: 10 }, (_, i) => `10.0.1.${20 + i}`);

/** Answers each line with its name. */
const SERVER = `import socket,select,sys
name=sys.argv[1].encode()+b"\\n"
l=socket.socket(); l.setsockopt(socket.SOL_SOCKET,socket.SO_REUSEADDR,1); l.bind(("0.0.0.0",${PORT})); l.listen(4096); l.setblocking(False)
e=select.epoll(); e.register(l.fileno(),select.EPOLLIN); conns={}
print("ready",flush=True)
while True:
  for fd,_ in e.poll():
    if fd==l.fileno():
      try:
        while True:
          c,_=l.accept(); c.setblocking(False); conns[c.fileno()]=c; e.register(c.fileno(),select.EPOLLIN)
      except BlockingIOError: pass
    else:
      c=conns[fd]
      try: data=c.recv(64)
      except OSError: data=b""
      if data: c.send(name)
      else: e.unregister(fd); c.close(); del conns[fd]`;

/** Opens and holds; then, a command a line: `talk N SECONDS SERVER,…` asks the N next ones of a fixed shuffle, waits for those of these servers and says who answered. */
const CLIENT = `import collections,random,select,socket,sys,time
N=${HELD / HOLDERS}; sources=${JSON.stringify(SOURCES)}
held=[]; e=select.epoll(); by={}
def ask(some,wait,names=None):
  for i in some: held[i][0].send(b"who\\n")
  left={i for i in some if names is None or held[i][1] in names}; got={}; end=time.monotonic()+wait
  while left and time.monotonic()<end:
    for fd,_ in e.poll(0.1):
      i=by[fd]
      try: data=held[i][0].recv(64)
      except OSError as error: data=str(error).encode()
      got[i]="/".join(sorted(set(data.decode().split()))) or "closed"; left.discard(i)
      if not data: e.unregister(fd)
  return got,left
for at in range(0,N,500):
  new=[]
  for i in range(at,min(at+500,N)):
    s=socket.socket(); s.setsockopt(socket.IPPROTO_IP,24,1); s.bind((sources[i%len(sources)],0)); s.settimeout(10)
    s.connect(("${vip}",${PORT})); s.setblocking(False); held.append([s,None]); by[s.fileno()]=i; new.append(i)
    e.register(s.fileno(),select.EPOLLIN)
  got,left=ask(new,10)
  assert not left,len(left)
  for i,name in got.items():
    assert name.startswith("rs"),name
    held[i][1]=name
print("held",N,flush=True)
order=list(range(N)); random.Random(7).shuffle(order); place=0
for line in sys.stdin:
  _,n,wait,names=line.split(); n=int(n); names=set(names.split(",")); some=[order[(place+k)%N] for k in range(n)]; place+=n
  got,left=ask(some,float(wait),names)
  c=collections.Counter()
  for i in some:
    if held[i][1] not in names: continue
    name=got.get(i)
    c[(held[i][1],"silent" if name is None else "same" if name==held[i][1] else name)]+=1
  print("talked",*sorted("%s:%s:%d"%(a,b,k) for (a,b),k in c.items()),flush=True)`;

const rng = new SeededRng(Number(process.env.TAPVS_CHURN_SEED ?? 11));
const random = (n: number): number => (rng.next() >>> 3) % n;

/** Server names on the list, with their weights. */
const listed = new Map<string, number>();
/** Servers that were removed once. */
const left = new Set<string>();
const addressOf = (name: string): string => plan.servers.find((server) => server.name === name)?.address ?? '';
const nameOf = (address: string): string => plan.servers.find((server) => server.address === address)?.name ?? address;

function config(scheduler: string): string {
  const servers = [...listed].map(([name, weight]) => `-a -t ${vip}:${PORT} -r ${addressOf(name)} -m -w ${weight}\n`);
  return labConfig(plan, { ipvsadm: `-A -t ${vip}:${PORT} -s ${scheduler}\n${servers.join('')}` });
}

describe('50,000 held connections', () => {
  let lab: Lab;

  beforeAll(async () => {
    lab = await labUp(plan);
    await ipBatch(
      client,
      SOURCES.map((address) => `address add ${address}/24 dev eth0`),
    );
    await setSysctls(client, { 'net.ipv4.ip_local_port_range': '10000 60000' });
    for (const { name, netns } of plan.servers) {
      await waitForLine(lab.spawn(netns, ['python3', '-u', '-c', SERVER, name]), /^ready$/);
    }
    for (const { name } of plan.servers.slice(0, 4)) listed.set(name, 1);
    await lab.startDaemon(config('rr'));
  });
  afterAll(async () => {
    await lab?.down();
  });

  async function json<T>(...words: string[]): Promise<T> {
    return JSON.parse((await lab.tapvs('ipvsadm', ...words, '--json')).stdout) as T;
  }

  /** Counters of the listed servers, and the same counted in the table. Nothing moves meanwhile: nobody talks. */
  async function recount(after: string): Promise<void> {
    const { services } = await json<{ services: ServiceRow[] }>('-Ln');
    const rows = await json<ConnectionRow[]>('-Lnc');
    const counted = new Map<string, { active: number; inactive: number }>();
    for (const { destination, state } of rows) {
      const at = counted.get(destination.address) ?? { active: 0, inactive: 0 };
      if (state === 'ESTABLISHED' || state === 'SYN_RECV') at.active++;
      else at.inactive++;
      counted.set(destination.address, at);
    }
    const books = services.flatMap(({ servers }) =>
      servers.map(({ key, activeConns, inactiveConns }) => [nameOf(key.address), activeConns, inactiveConns]),
    );
    const table = books.map(([name]) => {
      const { active = 0, inactive = 0 } = counted.get(addressOf(String(name))) ?? {};
      return [name, active, inactive];
    });
    expect([after, ...books]).toEqual([after, ...table]);
    expect(rows.length).toBe(HELD);
  }

  it('keep their servers and right counters through changes in random order', async () => {
    const holders = Array.from({ length: HOLDERS }, () =>
      spawnIn(client, ['python3', '-u', '-c', CLIENT], { stdio: ['pipe', 'pipe', 'inherit'] }),
    );
    await Promise.all(holders.map((holder) => waitForLine(holder, /^held \d+$/, 120_000)));
    await recount('opened');

    /** Of whom an answer is expected. What was asked of a server while it was away is repeated by its client, at last two minutes apart. */
    async function talk(n: number, expected: readonly string[], after: string): Promise<void> {
      const lines = holders.map((holder) => waitForLine(holder, /^talked/, 200_000));
      for (const holder of holders)
        holder.stdin?.write(`talk ${n / HOLDERS} ${PATIENCE_S} ${expected.join(',') || '-'}\n`);
      for (const word of (await Promise.all(lines)).flatMap((line) => line.split(' ').slice(1))) {
        const [name = '', what, count] = word.split(':');
        expect([after, name, what, count]).toEqual([after, name, 'same', count]);
      }
    }

    for (let step = 0; step < STEPS; step++) {
      const names = [...listed.keys()];
      const name = names[random(names.length)] ?? '';
      const dice = random(10);
      let what: string;
      if (dice < 3) {
        const absent = plan.servers.map((server) => server.name).filter((other) => !listed.has(other));
        const added = absent[random(Math.max(absent.length, 1))];
        if (added === undefined) continue;
        what = `add ${added}`;
        expect((await lab.tapvs('ipvsadm', '-a', '-t', `${vip}:${PORT}`, '-r', addressOf(added), '-m')).stderr).toBe(
          '',
        );
        listed.set(added, 1);
      } else if (dice < 5 && names.length > 2) {
        what = `remove ${name}`;
        expect((await lab.tapvs('ipvsadm', '-d', '-t', `${vip}:${PORT}`, '-r', addressOf(name))).stderr).toBe('');
        listed.delete(name);
        left.add(name);
      } else if (dice < 8) {
        const weight = random(4);
        what = `edit ${name} to weight ${weight}`;
        const words = ['-e', '-t', `${vip}:${PORT}`, '-r', addressOf(name), '-m', '-w', String(weight)];
        expect((await lab.tapvs('ipvsadm', ...words)).stderr).toBe('');
        listed.set(name, weight);
      } else {
        const scheduler = ['rr', 'wrr', 'wlc', 'sh', 'mh', 'lblc'][random(6)]!;
        what = `reload with ${scheduler}`;
        for (const other of names) listed.set(other, random(3));
        writeFileSync(configFile, config(scheduler));
        await runOkIn(director, ['curl', '-sSf', '-X', 'POST', '--unix-socket', socket, 'http://tapvs/v1/reload']);
      }
      await recount(`${step}: ${what}`);
      const stayed = [...listed.keys()].filter((other) => !left.has(other));
      await talk(TALK, stayed, `${step}: ${what}`);
    }
    await talk(HELD, [...listed.keys()], 'the end');
    await recount('the end');
    for (const holder of holders) holder.stdin?.end();
  }, 400_000);
});
