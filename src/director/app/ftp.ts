/**
 * FTP through NAT (net/netfilter/ipvs/ip_vs_ftp.c; RFC 959, RFC 2428).
 *
 *   passive   the server's answer "227 … (10,0,2,11,195,80)" becomes "227 … (VIP,195,80)", and a connection from any port of the client to VIP:50000 is
 *             made ready: the client's data connection finds it and fills its port in
 *   active    the client's "PORT …" passes as it is, and a connection client → VIP:20 is made ready: the server's data connection from its port 20
 *             leaves through it as VIP:20
 *
 * Data connections are controlled by the control connection, which lives as long as they do. An answer that changes its length shifts the server's
 * sequence numbers from there on (flow/sequence.ts).
 */
import { NO_FLOW } from '../../flow/flow-table.ts';
import { adjustSequence, noShift, type Shift, shiftBehind, shifted } from '../../flow/sequence.ts';
import { payloadStart, replaceInPayload } from '../../flow/tcp-payload.ts';
import { Drop } from '../../packet/drop.ts';
import type { Packet } from '../../packet/packet.ts';
import { isTransportSumRight } from '../../packet/sum.ts';
import * as ftp from '../../wire/ftp.ts';
import { IpProto, isFragment } from '../../wire/ipv4.ts';
import { seq } from '../../wire/tcp.ts';
import { CONN_SHIFT, Conn, ConnFlag, Dir, Method, NO_CONN } from '../connection.ts';
import type { Director } from '../director.ts';
import { TcpState } from '../tcp-states.ts';
import { announceTracked } from '../tracked.ts';
import type { App } from './app.ts';

const { Tcp: TCP } = IpProto;
const { None: NONE } = ftp.FtpRequest;

/** What is known of a control connection on which the client has asked for something. */
export interface Control {
  /** FtpRequest whose answer is awaited. */
  awaited: number;
  /** The last answer that was rewritten, its sequence number as the server counts and what it answered: it may come again. */
  answer: { readonly seq: number; readonly request: number } | null;
  readonly ofServer: Shift;
}

/** Clients' payloads keep their lengths. */
const OF_CLIENT = noShift();

export class FtpApp implements App {
  readonly name = 'ftp';
  readonly port = 21;
  readonly #controls = new Map<number, Control>();
  /** Grows when something else is known of a control connection. */
  changes = 0;

  /** Become a copy. */
  copyFrom(live: FtpApp): void {
    this.changes = live.changes;
    for (const [conn, control] of live.#controls) {
      this.#controls.set(conn, { ...control, ofServer: { ...control.ofServer } });
    }
  }

  request(director: Director, p: Packet, conn: number): boolean {
    if (isFragment(p.view, p.l3)) return true;
    if (!isTransportSumRight(p)) return refuse(p, Drop.TcpBadChecksum);
    const start = payloadStart(p);
    if (start < p.end && isEstablished(director, conn) && !this.#read(director, p, conn, start)) {
      return refuse(p, Drop.DirectorConnTableFull);
    }
    const control = this.#controls.get(conn);
    if (control !== undefined) adjustSequence(p, OF_CLIENT, control.ofServer);
    return true;
  }

  /** What the client says. False: there is no room for its data connection. */
  #read(director: Director, p: Packet, conn: number, start: number): boolean {
    const { bytes, end } = p;
    const passive = ftp.passiveRequest(bytes, start, end);
    if (passive !== NONE) {
      this.#controlOf(conn).awaited = passive;
      this.changes++;
      return true;
    }
    const active = ftp.activeRequest(bytes, start, end);
    if (active?.address === undefined) return true;
    const control = this.#controls.get(conn);
    if (control !== undefined) control.awaited = NONE;
    return expectServer(director, conn, active.address, active.port);
  }

  reply(director: Director, p: Packet, conn: number): boolean {
    if (isFragment(p.view, p.l3)) return true;
    if (!isTransportSumRight(p)) return refuse(p, Drop.TcpBadChecksum);
    const control = this.#controls.get(conn);
    if (control === undefined) return true;
    const start = payloadStart(p);
    const number = seq(p.view, p.l4);
    const isAgain = control.answer !== null && control.answer.seq === number;
    if (start < p.end && (isAgain || isEstablished(director, conn))) {
      const request = isAgain ? control.answer!.request : control.awaited;
      const drop = request === NONE ? Drop.None : rewrite(director, p, conn, control, request, start, number);
      this.changes++;
      if (drop !== Drop.None) return refuse(p, drop);
    }
    adjustSequence(p, control.ofServer, OF_CLIENT);
    return true;
  }

  /** By how much the server's numbers are shifted; undefined while nothing was rewritten. */
  shiftOf(conn: number): Shift | undefined {
    return this.#controls.get(conn)?.ofServer;
  }

  /** Another director has rewritten answers of this connection. */
  takeShift(conn: number, correction: number, before: number, after: number): void {
    Object.assign(this.#controlOf(conn).ofServer, { correction, before, after });
    this.changes++;
  }

  forget(conn: number): void {
    if (this.#controls.delete(conn)) this.changes++;
  }

  /** All that is known, for another life of the daemon. */
  list(): readonly (readonly [conn: number, known: Control])[] {
    return [...this.#controls];
  }

  inherit(conn: number, known: Control): void {
    this.#controls.set(conn, known);
  }

  /** Control connections that something is known of. */
  get size(): number {
    return this.#controls.size;
  }

  #controlOf(conn: number): Control {
    let control = this.#controls.get(conn);
    if (control === undefined) {
      control = { awaited: NONE, answer: null, ofServer: noShift() };
      this.#controls.set(conn, control);
    }
    return control;
  }
}

/** What is added on the way to the number `seq` of the server's, on a client's connection to a service: whoever compares both directions must know. */
export function addedToReply(director: Director, client: number, vip: number, ports: number, seq: number): number {
  const { conns, flows, ftp: app } = director;
  // Others pay no second look into the flow table.
  if (app.size === 0 || (ports & 0xffff) !== app.port) return 0;
  const flow = flows.find(client, vip, ports, TCP);
  const conn = flow === NO_FLOW ? NO_CONN : conns.find(flow, Dir.In);
  const shift = conn === NO_CONN ? undefined : app.shiftOf(conn);
  return shift === undefined ? 0 : (shifted(shift, seq) - seq) | 0;
}

function refuse(p: Packet, reason: number): false {
  p.drop = reason;
  return false;
}

function isEstablished(director: Director, conn: number): boolean {
  return (director.conns.rows[(conn << CONN_SHIFT) + Conn.Meta]! & 0xff) === TcpState.Established;
}

/** Make the server's answer the director's. @returns why the packet must end, or Drop.None */
function rewrite(
  director: Director,
  p: Packet,
  conn: number,
  control: Control,
  request: number,
  start: number,
  number: number,
): number {
  const found = ftp.passiveAnswer(p.bytes, start, p.end, request);
  if (found === undefined) return Drop.None;
  const { rows } = director.conns;
  const server = found.address ?? rows[(conn << CONN_SHIFT) + Conn.Rip]!;
  const data = expectClient(director, conn, server, found.port);
  if (data === NO_CONN) return Drop.DirectorConnTableFull;
  const vip = rows[(data << CONN_SHIFT) + Conn.Vip]!;
  const vport = rows[(data << CONN_SHIFT) + Conn.Ports]! & 0xffff;
  const text = request === ftp.FtpRequest.Passive ? ftp.shortText(vip, vport) : ftp.extendedText(vport);
  const growth = text.length - (found.to - found.from);
  if (!replaceInPayload(p, found.from, found.to, text)) return Drop.DirectorPayloadTooLong;
  announceTracked(director, p, data);
  if (growth !== 0) shiftBehind(control.ofServer, number, growth);
  control.awaited = NONE;
  control.answer = { seq: number, request };
  return Drop.None;
}

/** A connection for the client's data connection, whose port nobody knows yet, to where the server listens. */
function expectClient(director: Director, conn: number, server: number, port: number): number {
  const { conns, flows } = director;
  const at = conn << CONN_SHIFT;
  const client = conns.rows[at + Conn.Cip]!;
  const flow = flows.find(server, client, port << 16, TCP);
  const there = flow === NO_FLOW ? NO_CONN : conns.find(flow, Dir.Out);
  if (there !== NO_CONN) return listen(director, there);
  return addData(director, conn, client, port, server, port, ConnFlag.NoCport);
}

/** A connection for the server's data connection, from the port below its own to where the client listens. False: no room. */
function expectServer(director: Director, conn: number, client: number, cport: number): boolean {
  const { conns, flows } = director;
  const at = conn << CONN_SHIFT;
  const { rows } = conns;
  const vport = ((rows[at + Conn.Ports]! & 0xffff) - 1) & 0xffff;
  const rport = ((rows[at + Conn.Meta]! >>> 16) - 1) & 0xffff;
  const ports = (cport << 16) | vport;
  const flow = flows.find(client, rows[at + Conn.Vip]!, ports, TCP);
  const there = flow === NO_FLOW ? NO_CONN : conns.find(flow, Dir.In);
  if (there !== NO_CONN) return listen(director, there) !== NO_CONN;
  return addData(director, conn, client, ports, rows[at + Conn.Rip]!, rport, 0) !== NO_CONN;
}

/** @param ports cport << 16 | vport */
function addData(
  director: Director,
  conn: number,
  client: number,
  ports: number,
  server: number,
  rport: number,
  flags: number,
): number {
  const { conns, dests } = director;
  const at = conn << CONN_SHIFT;
  const dest = conns.rows[at + Conn.Dest]!;
  const vip = conns.rows[at + Conn.Vip]!;
  const all = Method.Masq | ConnFlag.Inactive | flags;
  const timeout = director.tcpTimeouts[TcpState.Listen]!;
  const data = conns.add(director.now, TCP, client, vip, ports, server, rport, dest, all, timeout);
  if (data === NO_CONN) return NO_CONN;
  dests.bind(dest, false, true);
  conns.setControl(conn, data);
  return listen(director, data);
}

/** ip_vs_tcp_conn_listen. */
function listen(director: Director, data: number): number {
  const { conns } = director;
  const at = data << CONN_SHIFT;
  conns.rows[at + Conn.Meta] = (conns.rows[at + Conn.Meta]! & ~0xff) | TcpState.Listen;
  conns.rows[at + Conn.Timeout] = director.tcpTimeouts[TcpState.Listen]!;
  conns.restart(data, director.now);
  return data;
}
