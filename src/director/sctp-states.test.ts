/** Every cell of the SCTP table is walked; what packets make of it was compared with the kernel (recordings sctp_*). */
import { describe, expect, it } from 'vitest';
import { frame } from '../wire/build.ts';
import { ChunkType } from '../wire/sctp.ts';
import { CONN_SHIFT, Conn, ConnFlag } from './connection.ts';
import {
  beginsAssociation,
  isSctpInit,
  NO_STEP,
  nextSctpState,
  SCTP_STATE_NAMES,
  SctpState,
  sctpStep,
  sctpTimeouts,
} from './sctp-states.ts';
import { moveState } from './state.ts';
import { Direction } from './tcp-states.ts';
import { Bench, CLIENT, sctpPacket, VIP } from './test-rig.ts';

const { Init, InitAck, Abort, Data, CookieEcho, CookieAck, Shutdown, ShutdownAck, ShutdownComplete, Sack } = ChunkType;
const CODES = 'NO I1 IN CS CR CW CO CE ES SS SR SA RJ CL'.split(' ');
const EVENTS = 'data init init-ack cookie-echo cookie-ack shutdown shutdown-ack shutdown-complete error abort'.split(
  ' ',
);

/** Linux 6.1, ip_vs_proto_sctp.c, said once more and differently: only what moves, `from,from→to`. */
const MOVES: readonly Readonly<Record<string, string>>[] = [
  {
    data: 'NO→ES',
    init: 'NO→I1 I1,RJ,CL→IN',
    'init-ack': 'NO,I1,IN→CW CW→CO',
    'cookie-echo': 'NO,CS→CR I1→IN',
    'cookie-ack': 'NO,CE→ES',
    shutdown: 'NO,ES→SR',
    'shutdown-ack': 'NO,SS,SA→CL I1→IN',
    'shutdown-complete': 'NO,I1,IN,SA→CL',
    error: 'NO,CE→CL',
    abort: 'NO,I1,IN,CS,CR,CO,CE,ES,SS,SR,SA,RJ→CL CW→RJ',
  },
  {
    data: 'NO→ES',
    init: 'NO,I1,IN,CS,CR,CO,CE,SS,SR,SA,RJ,CL→CW',
    'init-ack': 'NO,I1,IN→CS',
    'cookie-echo': 'NO,I1,IN,CS,CR,CW,CO→CE',
    'cookie-ack': 'NO,I1,IN,CS,CR,CW,CO,CE→ES',
    shutdown: 'NO,I1,IN,CS,CR,CW,CO,CE,ES→SS',
    'shutdown-ack': 'NO,I1,IN,CS,CR,SS,SR→SA',
    'shutdown-complete': 'NO→CL',
    error: 'NO,I1,IN,CS,CR→CL',
    abort: 'NO,IN,CS,CR,CW,CO,CE,ES,SS,SR,SA,RJ→CL I1→RJ',
  },
  {
    data: 'NO,CW→ES',
    init: 'NO→I1 I1,CS,CR,CW,RJ,CL→IN',
    'init-ack': 'NO,I1,IN,CS,CR,CW→CE',
    'cookie-echo': 'NO,I1,IN,CS,CR,CW→ES',
    'cookie-ack': 'NO,CS,CR,CO,CE→ES',
    shutdown: 'NO,ES→SR',
    'shutdown-ack': 'NO,ES,SS,SA→CL I1→IN',
    'shutdown-complete': 'NO,I1,IN,CS,CR,SR,SA→CL',
    error: 'NO→CL',
    abort: 'NO,I1,IN,CS,CR,CO,CE,ES,SS,SR,SA,RJ→CL CW→RJ',
  },
];

/** The step of a packet with these chunks. */
function step(...chunks: readonly (number | readonly [type: number, length: number])[]): number {
  const list = chunks.map((c) => (typeof c === 'number' ? { type: c, value: 5 } : { type: c[0], length: c[1] }));
  const bytes = frame().sctp({ srcPort: 1, dstPort: 2, chunks: list }).build();
  return sctpStep(new DataView(bytes.buffer), 0, bytes.length);
}

describe('the table', () => {
  it('is the kernel’s in every cell', () => {
    MOVES.forEach((moves, direction) => {
      EVENTS.forEach((event, number) => {
        const expected = new Map(CODES.map((code) => [code, code]));
        for (const move of moves[event]!.split(' ')) {
          const [from, to] = move.split('→');
          for (const code of from!.split(',')) expected.set(code, to!);
        }
        const row = CODES.map((_, state) => CODES[nextSctpState(direction, state, number)]);
        expect(`${direction} ${event} ${row.join(' ')}`).toBe(
          `${direction} ${event} ${[...expected.values()].join(' ')}`,
        );
      });
    });
  });

  it('has the kernel’s names and times', () => {
    const seconds = [...sctpTimeouts()].map((ticks) => ticks / 250);
    expect(SCTP_STATE_NAMES.map((name, i) => `${name} ${seconds[i]}`)).toEqual([
      'NONE 2',
      'INIT1 4',
      'INIT 61',
      'C-SENT 61',
      'C-REPLIED 61',
      'C-WAIT 61',
      'COOKIE 61',
      'C-ECHOED 61',
      'ESTABLISHED 900',
      'S-SENT 61',
      'S-RECEIVED 61',
      'S-ACK-SENT 61',
      'REJECTED 4',
      'CLOSED 61',
    ]);
  });
});

describe('a packet', () => {
  const event = (s: number) => EVENTS[s & 0xff];

  it('stands for the event of its first chunk, any that is no step of a handshake for data', () => {
    const types = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 64, 255];
    expect(types.map((type) => event(step(type)))).toEqual([
      ...['data', 'init', 'init-ack', 'data', 'data', 'data', 'abort', 'shutdown', 'shutdown-ack', 'error'],
      ...['cookie-echo', 'cookie-ack', 'data', 'data', 'shutdown-complete', 'data', 'data', 'data'],
    ]);
  });

  it('aborts when ABORT follows COOKIE ECHO or COOKIE ACK, and nothing else', () => {
    expect(event(step(CookieEcho, Abort))).toBe('abort');
    expect(event(step(CookieAck, Abort))).toBe('abort');
    expect(event(step(Data, Abort))).toBe('data');
    expect(event(step(CookieEcho, Data, Abort))).toBe('cookie-echo');
  });

  it('whose first chunk lies about its length is judged by that chunk alone', () => {
    for (const length of [0, 3, 5000, 65535]) {
      expect(event(step([CookieEcho, length], Abort))).toBe('cookie-echo');
    }
    // Where the length says the next chunk begins, there it begins: behind the ABORT.
    expect(event(step([CookieEcho, 8], Abort))).toBe('cookie-echo');
  });

  it('without a whole chunk means nothing', () => {
    const bytes = frame().sctp({ srcPort: 1, dstPort: 2, chunks: [] }).payload(3).build();
    expect(sctpStep(new DataView(bytes.buffer), 0, bytes.length)).toBe(NO_STEP);
    expect(beginsAssociation(NO_STEP, 1)).toBe(false);
  });

  it('begins an association with INIT; when sloppy with whatever is no ABORT', () => {
    const begin = (s: number) => [beginsAssociation(s, 0), beginsAssociation(s, 1)];
    expect(begin(step(Init))).toEqual([true, true]);
    expect(begin(step(Abort))).toEqual([false, false]);
    for (const type of [Data, CookieEcho, Shutdown, 255]) expect(begin(step(type))).toEqual([false, true]);
    expect(isSctpInit(step(InitAck))).toBe(false);
    expect(isSctpInit(step(CookieEcho, Init))).toBe(false);
  });
});

describe('an association', () => {
  const FROM = `${CLIENT}:5000`;
  const TO = `${VIP}:80`;
  const SERVER = '10.0.2.11:8080';

  function bench(...lines: readonly string[]): Bench {
    const b = new Bench();
    expect(b.run(`-A --sctp-service ${TO} -s rr`, ...lines)).toEqual(lines.map(() => null).concat(null));
    return b;
  }
  const masq = () => bench(`-a --sctp-service ${TO} -r ${SERVER} -m`);

  it('through NAT: each chunk moves it, ESTABLISHED alone counts as active', () => {
    const b = masq();
    const seen: string[] = [];
    const send = (from: string, to: string, ...types: readonly number[]) => {
      b.send(sctpPacket(from, to, ...types));
      seen.push(
        `${b.connections()[0]!.split(' ').slice(1, 3).join(' ')} ${b.servers()[0]!.split(' ').slice(2).join('/')}`,
      );
    };
    send(FROM, TO, Init);
    send(SERVER, FROM, InitAck);
    send(FROM, TO, CookieEcho, Data);
    send(SERVER, FROM, CookieAck, Sack);
    send(FROM, TO, Shutdown);
    send(SERVER, FROM, ShutdownAck);
    send(FROM, TO, ShutdownComplete);
    expect(seen).toEqual([
      '4 INIT1 0/1',
      '61 C-SENT 0/1',
      '61 C-REPLIED 0/1',
      '900 ESTABLISHED 1/0',
      '61 S-RECEIVED 0/1',
      '61 S-ACK-SENT 0/1',
      '61 CLOSED 0/1',
    ]);
  });

  it('gets the server’s port and address and a right CRC, and the service’s back', () => {
    const b = masq();
    const there = b.send(sctpPacket(FROM, TO, Init)).bytes;
    const back = b.send(sctpPacket(SERVER, FROM, InitAck)).bytes;
    const wanted = [
      frame()
        .ipv4(CLIENT, '10.0.2.11', { df: true, ttl: 63 })
        .sctp({ srcPort: 5000, dstPort: 8080, chunks: [{ type: Init }] }),
      frame()
        .ipv4(VIP, CLIENT, { df: true })
        .sctp({ srcPort: 80, dstPort: 5000, chunks: [{ type: InitAck }] }),
    ];
    expect([there, back]).toEqual(wanted.map((f) => f.build()));
  });

  it('keeps a wrong CRC where no port changes, so that the receiver sees it', () => {
    const b = bench(`-a --sctp-service ${TO} -r 10.0.2.11:80 -m`);
    const sent = frame()
      .ipv4(CLIENT, VIP, { df: true })
      .sctp({ srcPort: 5000, dstPort: 80, chunks: [{ type: Init }], checksum: 0x1234 });
    const { bytes } = b.send(sent);
    expect(new DataView(bytes.buffer).getInt32(28, true)).toBe(0x1234);
  });

  it('goes to a direct server as it is, by the client’s half of the table', () => {
    const b = bench(`-a --sctp-service ${TO} -r 10.0.2.11 -g`);
    const { bytes, verdict } = b.send(sctpPacket(FROM, TO, Init));
    expect(verdict).toBe('reroute');
    expect(bytes.slice(12)).toEqual(sctpPacket(FROM, TO, Init).build().slice(12));
    b.send(sctpPacket(FROM, TO, CookieEcho));
    expect(b.connections()).toEqual([`sctp 900 ESTABLISHED ${FROM} ${TO} 10.0.2.11:80`]);
  });

  it('begins anew with an INIT on a closed one, not on an open one', () => {
    const b = masq();
    b.run(`-a --sctp-service ${TO} -r 10.0.2.12:8080 -m`);
    const server = () => b.connections()[0]!.split(' ').at(-1);
    b.send(sctpPacket(FROM, TO, Init));
    const first = server();
    b.send(sctpPacket(FROM, TO, Init));
    expect(server()).toBe(first);
    b.send(sctpPacket(FROM, TO, Abort));
    b.send(sctpPacket(FROM, TO, Init));
    expect(server()).not.toBe(first);
    expect(b.connections()).toHaveLength(1);
  });

  it('a packet without chunk restarts its timer but moves nothing', () => {
    const b = masq();
    b.send(sctpPacket(FROM, TO, Init));
    b.wait(3);
    b.send(sctpPacket(FROM, TO));
    expect(b.connections()).toEqual([`sctp 4 INIT1 ${FROM} ${TO} ${SERVER}`]);
  });

  it('a packet without chunk makes no connection and gets no answer', () => {
    const b = masq();
    b.director.sysctls.set('sloppy_sctp', '1');
    expect(b.send(sctpPacket(FROM, TO))).toMatchObject({ verdict: 'drop', drop: 'SctpTooShort', reject: '' });
  });

  it('a header cut short is dropped under its name when it is for a service', () => {
    const b = masq();
    const cut = sctpPacket(FROM, TO).build().slice(0, 28);
    new DataView(cut.buffer).setUint16(2, 28);
    expect(b.send(cut)).toMatchObject({ verdict: 'drop', drop: 'SctpTooShort' });
    const stats = () => b.director.listServices(0, 9).rows[0]!.stats;
    expect(stats()).toMatchObject({ conns: 0, inPkts: 0 });
    // Of a connection that is there it counts, and restarts the timer.
    b.send(sctpPacket(FROM, TO, Init));
    const { inPkts, inBytes } = stats();
    b.wait(3);
    const again = sctpPacket(FROM, TO).build().slice(0, 28);
    new DataView(again.buffer).setUint16(2, 28);
    expect(b.send(again)).toMatchObject({ verdict: 'drop', drop: 'SctpTooShort' });
    expect(stats()).toMatchObject({ inPkts: inPkts + 1, inBytes: inBytes + 28 });
    expect(b.connections()).toEqual([`sctp 4 INIT1 ${FROM} ${TO} ${SERVER}`]);
  });

  it('without a server is refused with port unreachable', () => {
    expect(bench().send(sctpPacket(FROM, TO, Init))).toMatchObject({ verdict: 'drop', reject: '3/3' });
  });

  it('an ICMP error of the server about it gets the service’s address and port', () => {
    const b = masq();
    b.send(sctpPacket(FROM, TO, Init));
    const quoted = frame().ipv4('10.0.2.11', CLIENT).icmp({ type: 3, code: 2 }).ipv4(CLIENT, '10.0.2.11');
    const { bytes } = b.send(quoted.sctp({ srcPort: 5000, dstPort: 8080, chunks: [{ type: Init }] }));
    const view = new DataView(bytes.buffer);
    expect([view.getInt32(12), view.getInt32(28 + 16)].map((a) => a >>> 0)).toEqual([0x0a000164, 0x0a000164]);
    expect(view.getUint16(48 + 2)).toBe(80);
  });

  it('moves from every state as the table says, also when only the client is seen', () => {
    const b = bench(`-a --sctp-service ${TO} -r 10.0.2.11 -g`);
    b.send(sctpPacket(FROM, TO, Init));
    const { rows } = b.director.conns;
    const at = 0 << CONN_SHIFT;
    for (let state = 0; state < SCTP_STATE_NAMES.length; state++) {
      for (const type of [Data, Init, InitAck, CookieEcho, CookieAck, Shutdown, ShutdownAck, ShutdownComplete, Abort]) {
        rows[at + Conn.Meta] = (rows[at + Conn.Meta]! & ~0xff) | state;
        moveState(b.director, 0, Direction.Input, step(type));
        expect(rows[at + Conn.Meta]! & 0xff).toBe(nextSctpState(Direction.InputOnly, state, step(type)));
      }
    }
    expect(rows[at + Conn.Flags]! & ConnFlag.NoOutput).not.toBe(0);
    moveState(b.director, 0, Direction.Output, step(Abort));
    expect(rows[at + Conn.Flags]! & ConnFlag.NoOutput).toBe(0);
    expect(SctpState.Closed).toBe(rows[at + Conn.Meta]! & 0xff);
  });
});
