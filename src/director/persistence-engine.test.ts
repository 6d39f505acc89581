/** Persistence by Call-ID (recordings sip_*). */
import { describe, expect, it } from 'vitest';
import { formatIp4 } from '../wire/addr.ts';
import { frame } from '../wire/build.ts';
import { dst, src } from '../wire/ipv4.ts';
import { Bench, CLIENT, tcpPacket, udpPacket, VIP } from './test-rig.ts';

const SERVICE = `${VIP}:5060`;
const message = (id: string, first = 'INVITE sip:x@y SIP/2.0') => `${first}\r\nCall-ID: ${id}\r\nCSeq: 1\r\n\r\n`;

function bench(options: string, method = '-m'): Bench {
  const b = new Bench();
  const servers = ['10.0.2.11', '10.0.2.12'].map((ip) => `-a -u ${SERVICE} -r ${ip} ${method}`);
  expect(b.run(`-A -u ${SERVICE} -s rr ${options}`, ...servers)).toEqual([null, null, null]);
  return b;
}

/** The server that a message from `port` goes to, or why it goes nowhere. */
function ask(b: Bench, port: number, payload: string, client = CLIENT): string {
  const { verdict, bytes, drop, reject } = b.send(udpPacket(`${client}:${port}`, SERVICE, payload));
  if (verdict === 'drop') return `${drop}${reject}`;
  return formatIp4(dst(new DataView(bytes.buffer), 0));
}

function templates(b: Bench): string[] {
  return b.director
    .listConnections(0, 1000)
    .rows.filter((r) => r.pe !== undefined)
    .map(
      (r) =>
        `${r.client.address}:${r.client.port} ${r.virtual.port} ${r.destination.address}:${r.destination.port} ${r.pe!.name} ${r.pe!.data}`,
    )
    .sort();
}

describe('a service with the engine sip', () => {
  it('keeps a Call-ID at its server, whatever port its client uses; another Call-ID goes elsewhere', () => {
    const b = bench('-p 60 --pe sip');
    const first = ask(b, 7000, message('a@h'));
    const other = ask(b, 7001, message('b@h'));
    expect(other).not.toBe(first);
    expect([7002, 7003, 7004].map((port) => ask(b, port, message('a@h')))).toEqual([first, first, first]);
    expect(templates(b)).toEqual(
      [`10.0.1.2:0 5060 ${first}:5060 sip a@h`, `10.0.1.2:0 5060 ${other}:5060 sip b@h`].sort(),
    );
  });

  it('tells clients apart unless its mask does not', () => {
    for (const [mask, count] of [
      ['255.255.255.255', 2],
      ['255.255.255.0', 1],
    ] as const) {
      const b = bench(`-p 60 -M ${mask} --pe sip`);
      ask(b, 7000, message('a@h'));
      ask(b, 7000, message('a@h'), '10.0.1.3');
      expect(templates(b)).toHaveLength(count);
    }
  });

  it('drops what has no Call-ID, and TCP, without a word', () => {
    const b = bench('-p 60 --pe sip');
    expect(ask(b, 7000, 'hello')).toBe('DirectorNoCallId');
    expect(ask(b, 7000, '')).toBe('DirectorNoCallId');
    b.run('-A -t 10.0.1.101:80 -s rr -p 60 --pe sip', '-a -t 10.0.1.101:80 -r 10.0.2.11 -m');
    expect(b.send(tcpPacket(`${CLIENT}:7000`, '10.0.1.101:80', 'S'))).toMatchObject({
      verdict: 'drop',
      drop: 'DirectorNoCallId',
      reject: '',
    });
    expect(b.connections()).toEqual([]);
  });

  it('a connection that exists carries whatever comes', () => {
    const b = bench('-p 60 --pe sip');
    const first = ask(b, 7000, message('a@h'));
    expect(ask(b, 7000, 'hello')).toBe(first);
  });

  it('does not find templates without engine, nor the other way round', () => {
    const b = bench('-p 60 --pe sip');
    const first = ask(b, 7000, message('a@h'));
    b.run(`-E -u ${SERVICE} -s rr -p 60`);
    const second = ask(b, 7001, message('a@h'));
    expect(second).not.toBe(first);
    b.run(`-E -u ${SERVICE} -s rr -p 60 --pe sip`);
    expect(ask(b, 7002, message('a@h'))).toBe(first);
    expect(templates(b)).toHaveLength(1);
  });

  it('forgets: templates go with their time, and a removed server’s are replaced', () => {
    const b = bench('-p 60 --pe sip');
    const first = ask(b, 7000, message('a@h'));
    b.run(`-d -u ${SERVICE} -r ${first}`);
    const second = ask(b, 7001, message('a@h'));
    expect(second).not.toBe(first);
    expect(templates(b)).toEqual(
      [`10.0.1.2:0 5060 ${second}:5060 sip a@h`, `10.0.1.2:0 65535 ${first}:65535 sip a@h`].sort(),
    );
    b.run('--set 0 0 10');
    b.wait(1000);
    expect(b.connections()).toEqual([]);
    expect(b.director.engines.size).toBe(0);
    expect(b.flows.size).toBe(0);
  });

  it('is refused by another name, before anything else changes', () => {
    const b = bench('-p 60 --pe sip');
    expect(b.run(`-A -u ${VIP}:1 -s rr -p 60 --pe other`, `-E -u ${SERVICE} -s wrr -p 60 --pe other`)).toEqual([
      'ENOENT',
      'ENOENT',
    ]);
    expect(b.director.listServices(0, 9).rows).toMatchObject([{ scheduler: 'rr', pe: 'sip' }]);
  });
});

describe('packets that a server sends first', () => {
  const answer = (b: Bench, server: string, to: string, payload: string) => {
    const { bytes, packet } = b.send(udpPacket(server, to, payload));
    const view = new DataView(bytes.buffer);
    return `${formatIp4(src(view, 0))}:${view.getUint16(20)}${packet.ipvsProperty === 1 ? '' : ' as it was'}`;
  };

  it('leave with the service’s address, and what comes back finds that server', () => {
    const b = bench('-p 60 --pe sip');
    expect(answer(b, '10.0.2.12:5060', `${CLIENT}:7000`, message('new@h', 'OPTIONS x'))).toBe(SERVICE);
    expect(templates(b)).toEqual(['10.0.1.2:0 5060 10.0.2.12:5060 sip new@h']);
    expect(ask(b, 7000, 'hello')).toBe('10.0.2.12');
    for (const port of [7001, 7002, 7003]) expect(ask(b, port, message('new@h'))).toBe('10.0.2.12');
  });

  it('of one-packet services: answers are translated, and leave no connection', () => {
    const b = bench('-o --pe sip');
    const server = ask(b, 7000, message('a@h'));
    expect(b.connections()).toEqual([]);
    expect(answer(b, `${server}:5060`, `${CLIENT}:7000`, 'whatever')).toBe(SERVICE);
    expect(b.connections()).toEqual([]);
    expect(b.flows.size).toBe(0);
    expect(b.servers().map((s) => s.split(' ').slice(2).join(' '))).toEqual(['0 0', '0 0']);
  });

  it('pass as they are without Call-ID, from another port or server, without engine', () => {
    const b = bench('-p 60 --pe sip');
    const to = `${CLIENT}:7000`;
    expect(answer(b, '10.0.2.11:5060', to, 'hello')).toBe('10.0.2.11:5060 as it was');
    expect(answer(b, '10.0.2.11:5061', to, message('a@h'))).toBe('10.0.2.11:5061 as it was');
    expect(answer(b, '10.0.2.13:5060', to, message('a@h'))).toBe('10.0.2.13:5060 as it was');
    b.run(`-E -u ${SERVICE} -s rr -p 60`);
    expect(answer(b, '10.0.2.11:5060', to, message('a@h'))).toBe('10.0.2.11:5060 as it was');
    expect(b.connections()).toEqual([]);
  });

  it('take a Call-ID over from another server', () => {
    const b = bench('-p 60 --pe sip');
    const first = ask(b, 7000, message('a@h'));
    const other = first === '10.0.2.11' ? '10.0.2.12' : '10.0.2.11';
    expect(answer(b, `${other}:5060`, `${CLIENT}:7005`, message('a@h'))).toBe(SERVICE);
    expect(ask(b, 7006, message('a@h'))).toBe(other);
  });

  it('of directly routed servers are not looked at', () => {
    const b = bench('-p 60 --pe sip', '-g');
    const sent = frame().ipv4('10.0.2.11', CLIENT).udp({ srcPort: 5060, dstPort: 7000 }).payload(message('a@h'));
    expect(b.send(sent).packet.ipvsProperty).toBe(0);
  });
});
