/**
 * Connections on their flow rows.   @hot
 *
 * The row of the request tuple (CIP:cport → VIP:vport) carries a connection with direction `in`, the row of the reply tuple (RIP:rport → CIP:cport when
 * translated, RIP:rport → LIP:lport with full NAT, else VIP:vport → CIP:cport) with direction `out`. Several connections can share a reply tuple (one server behind
 * two services, one client port): the newest wins, the others wait behind it and come back when it goes.
 *
 *   flow row ─ (id << 1 | dir) + 1 ─► connection ─ next in, next out ─► connection ─► … 0
 *
 * Who looks for one is `ConnTable.find`.
 */
import { FlowColumn, type FlowTable, NO_FLOW } from '../flow/flow-table.ts';
import { CONN_SHIFT, Conn, ConnFlag, LOCAL_SHIFT, Method } from './connection.ts';

const { Cip, Vip, Rip, Ports, Meta, Flags, FlowIn, NextIn } = Conn;
const { MethodMask: METHOD_MASK } = ConnFlag;
const { Masq: MASQ, FullNat: FULL_NAT } = Method;
const CONNECTION = FlowColumn.Connection;

/** Filled in by `replyOf`. */
export const reply = { src: 0, dst: 0, ports: 0, proto: 0 };

/** The tuple of answers into `reply`; it depends on the forwarding method. The columns may be those of another table. */
export function replyOf(rows: Int32Array, local: Int32Array, id: number): void {
  const at = id << CONN_SHIFT;
  const ports = rows[at + Ports]!;
  const meta = rows[at + Meta]!;
  const cport = ports >>> 16;
  const method = rows[at + Flags]! & METHOD_MASK;
  const rport = meta & 0xffff0000;
  reply.proto = (meta >> 8) & 0xff;
  reply.src = rows[at + Rip]!;
  reply.dst = rows[at + Cip]!;
  if (method === MASQ) {
    reply.ports = rport | cport;
  } else if (method === FULL_NAT) {
    const own = id << LOCAL_SHIFT;
    reply.dst = local[own]!;
    reply.ports = rport | (local[own + 1]! & 0xffff);
  } else {
    reply.src = rows[at + Vip]!;
    reply.ports = (ports << 16) | cport;
  }
}

/** NO_FLOW when the flow table is full. */
export function obtainReply(flows: FlowTable, rows: Int32Array, local: Int32Array, id: number): number {
  replyOf(rows, local, id);
  return flows.obtain(reply.src, reply.dst, reply.ports, reply.proto);
}

export function link(flows: FlowTable, rows: Int32Array, flow: number, id: number, dir: number): void {
  const at = id << CONN_SHIFT;
  rows[at + FlowIn + dir] = flow;
  rows[at + NextIn + dir] = flows.attached(flow, CONNECTION);
  flows.attach(flow, CONNECTION, ((id << 1) | dir) + 1);
}

/** Out of the list of its flow row, which goes with its last connection. `rows` still says which row it was. */
export function unlink(flows: FlowTable, rows: Int32Array, id: number, dir: number): void {
  const at = id << CONN_SHIFT;
  const flow = rows[at + FlowIn + dir]!;
  if (flow === NO_FLOW) return;
  const own = ((id << 1) | dir) + 1;
  const next = rows[at + NextIn + dir]!;
  let value = flows.attached(flow, CONNECTION);
  if (value === own) {
    if (next === 0) flows.detach(flow, CONNECTION);
    else flows.attach(flow, CONNECTION, next);
    return;
  }
  for (;;) {
    const before = (((value - 1) >> 1) << CONN_SHIFT) + NextIn + ((value - 1) & 1);
    value = rows[before]!;
    if (value === own) {
      rows[before] = next;
      return;
    }
  }
}
