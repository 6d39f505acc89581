/** FTP through NAT, segment by segment (recordings ftp_*); with real servers and clients in netns-tests/ftp.test.ts. */
import { describe, expect, it } from 'vitest';
import { formatIp4 } from '../../wire/addr.ts';
import { frame, verifyFrame } from '../../wire/build.ts';
import { dst, src } from '../../wire/ipv4.ts';
import * as tcp from '../../wire/tcp.ts';
import { Bench, CLIENT, type Outcome, type SendOptions, tcpPacket, VIP } from '../test-rig.ts';

const SERVICE = `${VIP}:21`;
const SERVER = '10.0.2.11';
const PASV_ANSWER = '227 Entering Passive Mode (10,0,2,11,195,80).\r\n';

/** One control connection whose two ends count their own bytes. */
class Session {
  readonly b = new Bench();
  readonly client: string;
  readonly server: string;
  /** Next sequence numbers: what each end has sent, and has been sent. */
  readonly sent = { client: 1001, server: 5001 };
  readonly got = { client: 5001, server: 1001 };

  constructor(options = '', port = 21, method = '-m') {
    this.client = `${CLIENT}:6000`;
    this.server = `${SERVER}:${port}`;
    expect(
      this.b.run(`-A -t ${SERVICE} -s rr ${options}`.trim(), `-a -t ${SERVICE} -r ${this.server} ${method}`),
    ).toEqual([null, null]);
    this.b.send(tcpPacket(this.client, SERVICE, 'S'));
    if (method === '-m') this.b.send(tcpPacket(this.server, this.client, 'SA'));
    this.b.send(tcpPacket(this.client, SERVICE, 'A'));
  }

  fromClient(
    payload: string,
    more: { seq?: number; options?: readonly number[] } = {},
    send: SendOptions = {},
  ): Outcome {
    const out = this.b.send(
      segment(this.client, SERVICE, more.seq ?? this.sent.client, this.got.client, payload, more.options, send.partial),
      send,
    );
    if (more.seq === undefined) this.sent.client += payload.length;
    return checked(out, send.partial);
  }

  fromServer(payload: string, more: { seq?: number; checksum?: number } = {}, send: SendOptions = {}): Outcome {
    const out = this.b.send(
      segment(
        this.server,
        this.client,
        more.seq ?? this.sent.server,
        this.got.server,
        payload,
        [],
        send.partial,
        more.checksum,
      ),
      send,
    );
    if (out.verdict === 'drop') return out;
    const view = new DataView(out.bytes.buffer);
    if (more.seq === undefined) this.sent.server += payload.length;
    this.got.client = tcp.seq(view, 20) + text(out).length;
    return checked(out, send.partial);
  }
}

function segment(
  from: string,
  to: string,
  seq: number,
  ack: number,
  payload: string,
  options: readonly number[] = [],
  partialChecksum = false,
  checksum?: number,
) {
  const [[a, ap], [z, zp]] = [from.split(':'), to.split(':')] as [[string, string], [string, string]];
  const header = { srcPort: Number(ap), dstPort: Number(zp), flags: 'PA', seq, ack, options, partialChecksum };
  return frame()
    .ipv4(a, z, { df: true })
    .tcp(checksum === undefined ? header : { ...header, checksum })
    .payload(payload);
}

/** Nothing that leaves has a wrong length or checksum. */
function checked(out: Outcome, partialChecksum = false): Outcome {
  expect(verifyFrame(out.bytes, { isIp: true, partialChecksum })).toEqual([]);
  return out;
}
function text({ bytes }: Outcome): string {
  return Buffer.from(bytes.slice(20 + ((bytes[32]! >> 4) << 2))).toString('latin1');
}
const seqOf = ({ bytes }: Outcome) => tcp.seq(new DataView(bytes.buffer), 20);
const ackOf = ({ bytes }: Outcome) => tcp.ack(new DataView(bytes.buffer), 20);
function ends({ bytes }: Outcome): string {
  const view = new DataView(bytes.buffer);
  return `${formatIp4(src(view, 0))}:${view.getUint16(20)} ${formatIp4(dst(view, 0))}:${view.getUint16(22)}`;
}

describe('passive mode', () => {
  it('keeps the control connection a minute more when it and its last data connection would end together', () => {
    const s = new Session();
    s.fromClient('PASV\r\n');
    s.fromServer(PASV_ANSWER);
    const [from, to, server] = [`${CLIENT}:7777`, `${VIP}:50000`, `${SERVER}:50000`];
    s.b.send(tcpPacket(from, to, 'S'));
    for (const flags of ['SA', 'FA']) s.b.send(tcpPacket(server, from, flags));
    for (const flags of ['A', 'FA']) s.b.send(tcpPacket(from, to, flags));
    s.b.send(tcpPacket(s.client, SERVICE, 'FA'));
    s.b.send(tcpPacket(s.server, s.client, 'FA'));
    expect(s.b.connections().map((row) => row.slice(0, 17))).toEqual(['tcp 120 TIME_WAIT', 'tcp 120 TIME_WAIT']);
    s.b.wait(125);
    const rows = s.b.connections();
    expect(rows).toHaveLength(1);
    expect(rows[0]).toContain(` TIME_WAIT ${CLIENT}:6000 ${SERVICE} `);
    s.b.wait(65);
    expect(s.b.connections()).toEqual([]);
  });

  it('tells the client the service’s address, and leads its data connection to the server that listens', () => {
    const s = new Session();
    s.fromClient('PASV\r\n');
    expect(text(s.fromServer(PASV_ANSWER))).toBe('227 Entering Passive Mode (10,0,1,100,195,80).\r\n');
    expect(s.b.connections()).toContain(`tcp 120 LISTEN ${CLIENT}:0 ${VIP}:50000 ${SERVER}:50000`);
    const syn = s.b.send(tcpPacket(`${CLIENT}:7777`, `${VIP}:50000`, 'S'));
    expect(ends(syn)).toBe(`${CLIENT}:7777 ${SERVER}:50000`);
    expect(s.b.connections()).toContain(`tcp 60 SYN_RECV ${CLIENT}:7777 ${VIP}:50000 ${SERVER}:50000`);
    expect(ends(s.b.send(tcpPacket(`${SERVER}:50000`, `${CLIENT}:7777`, 'SA')))).toBe(`${VIP}:50000 ${CLIENT}:7777`);
    s.b.send(tcpPacket(`${CLIENT}:7777`, `${VIP}:50000`, 'A'));
    expect(s.b.servers()).toEqual([`${SERVER}:21 1 2 0`]);
    // A second client's port is no longer led anywhere.
    expect(s.b.send(tcpPacket(`${CLIENT}:7778`, `${VIP}:50000`, 'S')).verdict).toBe('accept');
  });

  it('shifts the numbers of all that follows, both ways, and back again', () => {
    const s = new Session();
    s.fromClient('PASV\r\n');
    const answer = s.fromServer(PASV_ANSWER);
    expect(seqOf(answer)).toBe(5001);
    const growth = text(answer).length - PASV_ANSWER.length;
    expect(growth).toBe(1);
    const list = s.fromClient('LIST\r\n');
    expect([seqOf(list), ackOf(list)]).toEqual([1007, s.sent.server]);
    const next = s.fromServer('150 here\r\n');
    expect(seqOf(next)).toBe(5001 + PASV_ANSWER.length + growth);
    expect(ackOf(s.fromClient('PASV\r\n'))).toBe(s.sent.server);
    const second = s.fromServer('227 ok (10,0,2,11,4,1).\r\n');
    expect(text(second)).toBe('227 ok (10,0,1,100,4,1).\r\n');
    expect(ackOf(s.fromClient('NOOP\r\n'))).toBe(s.sent.server);
    expect(seqOf(s.fromServer('200 ok\r\n'))).toBe(s.sent.server - 8 + 2 * growth);
  });

  it('shifts SACK blocks of the client', () => {
    const s = new Session();
    s.fromClient('PASV\r\n');
    s.fromServer(PASV_ANSWER);
    const edge = 5001 + PASV_ANSWER.length + 1 + 100;
    const options = [1, 1, 5, 10, 0, 0, edge >> 8, edge & 255, 0, 0, (edge + 9) >> 8, (edge + 9) & 255];
    const { bytes } = s.fromClient('', { options });
    const view = new DataView(bytes.buffer);
    expect([view.getInt32(44), view.getInt32(48)]).toEqual([edge - 1, edge + 8]);
  });

  it('rewrites an answer that comes again the same way', () => {
    const s = new Session();
    s.fromClient('PASV\r\n');
    const first = s.fromServer(PASV_ANSWER);
    const again = s.fromServer(PASV_ANSWER, { seq: 5001 });
    expect([text(again), seqOf(again)]).toEqual([text(first), seqOf(first)]);
    expect(s.b.connections()).toHaveLength(2);
    expect(seqOf(s.fromServer('150 x\r\n'))).toBe(5001 + PASV_ANSWER.length + 1);
  });

  it.each([{ partial: true }, { partial: true, gsoSize: 20 }])(
    'keeps partial checksums right, in super-packets too: %j',
    (options) => {
      const s = new Session();
      s.fromClient('PASV\r\n', {}, options);
      const tail = 'x'.repeat(200);
      expect(text(s.fromServer(PASV_ANSWER + tail, {}, options))).toBe(
        `227 Entering Passive Mode (10,0,1,100,195,80).\r\n${tail}`,
      );
      expect(seqOf(s.fromServer('150 x\r\n', {}, { partial: true }))).toBe(s.sent.server - 7 + 1);
    },
  );

  it('EPSV: the port alone, and the address that the server names is used', () => {
    const s = new Session();
    s.fromClient('EPSV\r\n');
    expect(text(s.fromServer('229 ok (|1|10.0.2.99|50001|)\r\n'))).toBe('229 ok (|||50001|)\r\n');
    expect(s.b.connections()).toContain(`tcp 120 LISTEN ${CLIENT}:0 ${VIP}:50001 10.0.2.99:50001`);
    expect(ends(s.b.send(tcpPacket(`${CLIENT}:7777`, `${VIP}:50001`, 'S')))).toBe(`${CLIENT}:7777 10.0.2.99:50001`);
  });

  it('an answer that nobody asked for, or of another kind, passes as it is', () => {
    const s = new Session();
    expect(text(s.fromServer(PASV_ANSWER))).toBe(PASV_ANSWER);
    s.fromClient('EPSV\r\n');
    expect(text(s.fromServer(PASV_ANSWER))).toBe(PASV_ANSWER);
    s.fromClient('PORT 10,0,1,2,24,1\r\n');
    expect(text(s.fromServer('229 ok (|||50001|)\r\n'))).toBe('229 ok (|||50001|)\r\n');
    expect(s.b.connections().filter((c) => c.includes(':50001'))).toEqual([]);
  });
});

describe('active mode', () => {
  it.each(['PORT 10,0,1,2,24,1\r\n', 'EPRT |1|10.0.1.2|6145|\r\n'])('%j: the server comes from port 20', (line) => {
    const s = new Session();
    expect(text(s.fromClient(line))).toBe(line);
    expect(s.b.connections()).toContain(`tcp 120 LISTEN ${CLIENT}:6145 ${VIP}:20 ${SERVER}:20`);
    expect(ends(s.b.send(tcpPacket(`${SERVER}:20`, `${CLIENT}:6145`, 'S')))).toBe(`${VIP}:20 ${CLIENT}:6145`);
    expect(ends(s.b.send(tcpPacket(`${CLIENT}:6145`, `${VIP}:20`, 'SA')))).toBe(`${CLIENT}:6145 ${SERVER}:20`);
    s.b.send(tcpPacket(`${SERVER}:20`, `${CLIENT}:6145`, 'A'));
    expect(s.b.connections()).toContain(`tcp 900 ESTABLISHED ${CLIENT}:6145 ${VIP}:20 ${SERVER}:20`);
  });

  it('a server on port 2121 comes from 2120', () => {
    const s = new Session('', 2121);
    s.fromClient('PORT 10,0,1,2,24,1\r\n');
    expect(s.b.connections()).toContain(`tcp 120 LISTEN ${CLIENT}:6145 ${VIP}:20 ${SERVER}:2120`);
  });
});

describe('a control connection', () => {
  it('lives as long as its data connections', () => {
    const s = new Session();
    s.fromClient('PASV\r\n');
    s.fromServer(PASV_ANSWER);
    s.b.close(s.client, SERVICE, s.server);
    s.b.wait(110);
    s.b.send(tcpPacket(`${CLIENT}:7777`, `${VIP}:50000`, 'S'));
    s.b.wait(45);
    expect(s.b.connections().map((c) => c.split(' ')[2])).toEqual(['SYN_RECV', 'TIME_WAIT']);
    s.b.wait(200);
    expect(s.b.connections()).toEqual([]);
    expect(s.b.director.ftp.size).toBe(0);
    expect(s.b.director.conns.withoutPort).toBe(0);
    expect(s.b.flows.size).toBe(0);
    expect(s.b.servers()).toEqual([`${SERVER}:21 1 0 0`]);
  });

  it('whose port is used again while data connections last gets a successor, and both end in time', () => {
    const s = new Session();
    s.fromClient('PASV\r\n');
    s.fromServer(PASV_ANSWER);
    s.b.close(s.client, SERVICE, s.server);
    expect(s.b.send(tcpPacket(s.client, SERVICE, 'S')).verdict).toBe('reroute');
    expect(s.b.connections()).toHaveLength(3);
    s.b.wait(400);
    expect(s.b.connections()).toEqual([]);
    expect(s.b.flows.size).toBe(0);
  });

  it('carries a wrong checksum no further', () => {
    const s = new Session();
    expect(s.fromServer('200 ok\r\n', { checksum: 1 })).toMatchObject({ verdict: 'drop', drop: 'TcpBadChecksum' });
  });

  it('does not answer what there is no room for', () => {
    const s = new Session();
    s.fromClient('PASV\r\n');
    const long = PASV_ANSWER.padEnd(65535 - 40, 'x');
    expect(s.fromServer(long, {}, { partial: true, gsoSize: 1000 })).toMatchObject({
      verdict: 'drop',
      drop: 'DirectorPayloadTooLong',
    });
  });

  it('of a direct server is not read, nor one to another port', () => {
    const s = new Session('', 21, '-g');
    s.fromClient('PORT 10,0,1,2,24,1\r\n');
    expect(s.b.connections()).toHaveLength(1);
    const other = new Bench();
    other.run(`-A -t ${VIP}:2100 -s rr`, `-a -t ${VIP}:2100 -r ${SERVER} -m`);
    other.probe(`${CLIENT}:1`, `${VIP}:2100`, true);
    other.send(segment(`${CLIENT}:1`, `${VIP}:2100`, 1, 1, 'PORT 10,0,1,2,24,1\r\n'));
    expect(other.connections()).toHaveLength(1);
  });

  it('of a persistent service has a helper, too', () => {
    const s = new Session('-p 100');
    s.fromClient('PASV\r\n');
    expect(text(s.fromServer(PASV_ANSWER))).toContain('(10,0,1,100,195,80)');
  });
});
