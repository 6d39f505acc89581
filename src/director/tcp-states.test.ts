/** Every cell of the TCP tables is walked by packets; the life of connections is that of the recordings tcp_states_*. */
import { describe, expect, it } from 'vitest';
import { TcpFlag } from '../wire/tcp.ts';
import { CONN_SHIFT, Conn, ConnFlag } from './connection.ts';
import { moveState } from './state.ts';
import { defensiveTable, nextTcpState, normalTable, TCP_STATE_NAMES, tcpActive, tcpTimeouts } from './tcp-states.ts';
import { Bench, CLIENT, tcpPacket, VIP } from './test-rig.ts';

const CODES = 'NO ES SS SR FW TW CL CW LA LI SA'.split(' ');
const EVENTS = { syn: TcpFlag.Syn, fin: TcpFlag.Fin, ack: TcpFlag.Ack, rst: TcpFlag.Rst } as const;

/** Linux 6.1, ip_vs_proto_tcp.c: what differs between the directions and between the two tables, said once more and differently. */
const EXPECTED = {
  normal: [
    [
      'syn SR ES ES SR SR SR SR SR SR SR SR',
      'fin CL CW SS TW TW TW CL CW LA LI TW',
      'ack ES ES SS ES FW TW CL CW CL LI ES',
      'rst CL CL CL SR CL CL CL CL LA LI SR',
    ],
    [
      'syn SS ES SS SR SS SS SS SS SS LI SR',
      'fin TW FW SS TW FW TW CL TW LA LI TW',
      'ack ES ES SS ES FW TW CL CW LA ES ES',
      'rst CL CL SS CL CL TW CL CL CL CL CL',
    ],
    [
      'syn SR ES ES SR SR SR SR SR SR SR SR',
      'fin CL FW SS TW FW TW CL CW LA LI TW',
      'ack ES ES SS ES FW TW CL CW CL LI ES',
      'rst CL CL CL SR CL CL CL CL LA LI CL',
    ],
  ],
  defensive: [
    [
      'syn SR ES ES SR SR SR SR SR SR SR SA',
      'fin CL CW SS TW TW TW CL CW LA LI SA',
      'ack ES ES SS SR FW TW CL CW CL LI SA',
      'rst CL CL CL SR CL CL CL CL LA LI CL',
    ],
    [
      'syn SS ES SS SA SS SS SS SS SS LI SA',
      'fin TW FW SS TW FW TW CL TW LA LI TW',
      'ack ES ES SS ES FW TW CL CW LA ES ES',
      'rst CL CL SS CL CL TW CL CL CL CL CL',
    ],
    [
      'syn SA ES ES SR SA SA SA SA SA SA SA',
      'fin CL FW SS TW FW TW CL CW LA LI TW',
      'ack ES ES SS ES FW TW CL CW CL LI ES',
      'rst CL CL CL SR CL CL CL CL LA LI CL',
    ],
  ],
} as const;

describe.each([
  ['normal', normalTable],
  ['defensive', defensiveTable],
] as const)('%s table', (name, table) => {
  it('is the kernel’s in every cell, and higher flags win', () => {
    EXPECTED[name].forEach((rows, direction) => {
      for (const row of rows) {
        const [event, ...next] = row.split(' ');
        const flag = EVENTS[event as keyof typeof EVENTS];
        // RST > SYN > FIN > ACK: everything below may be set too.
        const below = { rst: 0x13, syn: 0x11, fin: 0x10, ack: 0 }[event as keyof typeof EVENTS];
        next.forEach((code, state) => {
          expect([row, state, CODES[nextTcpState(table, direction, state, flag)]]).toEqual([row, state, code]);
          expect(CODES[nextTcpState(table, direction, state, flag | below | TcpFlag.Psh)]).toBe(code);
        });
      }
      for (let state = 0; state < CODES.length; state++)
        expect(CODES[nextTcpState(table, direction, state, 0)]).toBe('CL');
    });
  });
});

describe('a connection', () => {
  it('has in each cell the timeout of its state and stands in the right count of its server', () => {
    const b = new Bench();
    b.run(`-A -t ${VIP}:80 -s rr`, `-a -t ${VIP}:80 -r 10.0.2.11:80 -m`);
    b.send(tcpPacket(`${CLIENT}:7000`, `${VIP}:80`, 'S'));
    const { conns, dests } = b.director;
    const timeouts = tcpTimeouts();
    for (const noOutput of [false, true]) {
      for (const direction of [0, 1]) {
        for (const flag of [...Object.values(EVENTS), 0]) {
          for (let state = 0; state < CODES.length; state++) {
            conns.rows[Conn.Meta] = (conns.rows[Conn.Meta]! & ~0xff) | state;
            const isActive = tcpActive[state] === 1;
            dests.active[0] = isActive ? 1 : 0;
            dests.inactive[0] = isActive ? 0 : 1;
            conns.rows[Conn.Flags] =
              ConnFlag.Used | (isActive ? 0 : ConnFlag.Inactive) | (noOutput ? ConnFlag.NoOutput : 0);
            moveState(b.director, 0, direction, flag);
            const way = direction === 0 && noOutput ? 2 : direction;
            const next = nextTcpState(normalTable, way, state, flag);
            expect(conns.rows[Conn.Meta]! & 0xff).toBe(next);
            expect(conns.rows[Conn.Timeout]).toBe(timeouts[next]);
            expect([dests.active[0], dests.inactive[0]]).toEqual(tcpActive[next] === 1 ? [1, 0] : [0, 1]);
            expect((conns.rows[Conn.Flags]! & ConnFlag.NoOutput) !== 0).toBe(noOutput && direction === 0);
          }
        }
      }
    }
    expect(CONN_SHIFT).toBe(4);
  });

  it.each([
    [
      'client closes',
      ['> S', '< SA', '> .', '> FA', '< FA', '> .'],
      ['SYN_RECV', 'SYN_RECV', 'ESTABLISHED', 'CLOSE_WAIT', 'TIME_WAIT', 'TIME_WAIT'],
      120,
      '0 1',
    ],
    [
      'server closes',
      ['> S', '< SA', '> .', '< FA', '> .', '> FA', '< .'],
      ['SYN_RECV', 'SYN_RECV', 'ESTABLISHED', 'FIN_WAIT', 'FIN_WAIT', 'TIME_WAIT', 'TIME_WAIT'],
      120,
      '0 1',
    ],
    ['client resets', ['> S', '< SA', '> .', '> R'], ['SYN_RECV', 'SYN_RECV', 'ESTABLISHED', 'CLOSE'], 10, '0 1'],
    ['server refuses', ['> S', '< RA'], ['SYN_RECV', 'CLOSE'], 10, '0 1'],
    ['client resets in SYN_RECV', ['> S', '< SA', '> R'], ['SYN_RECV', 'SYN_RECV', 'SYN_RECV'], 60, '1 0'],
    ['SYN then FIN', ['> S', '> FA'], ['SYN_RECV', 'TIME_WAIT'], 120, '0 1'],
    ['SYN twice', ['> S', '> S'], ['SYN_RECV', 'SYN_RECV'], 60, '1 0'],
    ['no flags', ['> S', '< SA', '> '], ['SYN_RECV', 'SYN_RECV', 'CLOSE'], 10, '0 1'],
    ['SYN/ACK again after no flags', ['> S', '> ', '< SA'], ['SYN_RECV', 'CLOSE', 'SYN_SENT'], 120, '1 0'],
  ])('%s', (_name, packets, states, seconds, counts) => {
    const b = new Bench();
    b.run(`-A -t ${VIP}:80 -s rr`, `-a -t ${VIP}:80 -r 10.0.2.11:80 -m`);
    packets.forEach((packet, i) => {
      const flags = packet.slice(2);
      if (packet.startsWith('>')) b.send(tcpPacket(`${CLIENT}:7000`, `${VIP}:80`, flags));
      else b.send(tcpPacket('10.0.2.11:80', `${CLIENT}:7000`, flags));
      expect(b.connections()[0]!.split(' ')[2]).toBe(states[i]);
      expect(TCP_STATE_NAMES as readonly string[]).toContain(states[i]);
    });
    expect(b.connections()[0]!.split(' ')[1]).toBe(String(seconds));
    expect(b.servers()).toEqual([`10.0.2.11:80 1 ${counts}`]);
    b.wait(seconds + seconds / 8 + 2);
    expect(b.servers()).toEqual(['10.0.2.11:80 1 0 0']);
    expect(b.flows.size).toBe(0);
  });
});
