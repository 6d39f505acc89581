/**
 * The connections of a copied director: taken over from the live one when their tuple is asked for, so that a copy costs nothing for the million that a question
 * is not about. Places are the same in both, so rows are copied as they are, with all that they refer to.
 */
import { FlowColumn, type FlowSource, NO_FLOW } from '../flow/flow-table.ts';
import { CONN_SHIFT, Conn } from './connection.ts';
import type { Director } from './director.ts';

export class Takeover implements FlowSource {
  readonly #copy: Director;
  readonly #live: Director;
  readonly #flows = new Set<number>();
  readonly #conns = new Set<number>();
  /** Told of each flow row that was taken over: it may be somebody else's, too. */
  onFlow: (row: number) => void = () => {};

  constructor(copy: Director, live: Director) {
    this.#copy = copy;
    this.#live = live;
  }

  take(src: number, dst: number, ports: number, kind: number): number {
    const row = this.#live.flows.find(src, dst, ports, kind);
    // What was taken over before and is not found any more has gone in the copy.
    if (row === NO_FLOW || this.#flows.has(row)) return NO_FLOW;
    this.takeFlow(row);
    return row;
  }

  chainLength(src: number, dst: number, ports: number, kind: number): number {
    return this.#live.flows.chainLength(src, dst, ports, kind);
  }

  takeFlow(row: number): void {
    if (row === NO_FLOW || this.#flows.has(row)) return;
    this.#flows.add(row);
    const { flows, conns } = this.#live;
    this.#copy.flows.adopt(flows, row);
    let value = flows.attached(row, FlowColumn.Connection);
    while (value !== 0) {
      const conn = (value - 1) >> 1;
      this.takeConnection(conn);
      value = conns.rows[(conn << CONN_SHIFT) + Conn.NextIn + ((value - 1) & 1)]!;
    }
    this.onFlow(row);
  }

  /** A connection that was found without its tuple. */
  takeConnection(conn: number): void {
    if (conn < 0 || this.#conns.has(conn)) return;
    this.#conns.add(conn);
    const { conns } = this.#live;
    this.#copy.conns.adopt(conns, conn);
    const at = conn << CONN_SHIFT;
    const { dests } = this.#copy;
    if (conns.rows[at + Conn.Dest] === this.#live.dests.unbound) this.#copy.conns.rows[at + Conn.Dest] = dests.unbound;
    this.takeFlow(conns.rows[at + Conn.FlowIn]!);
    this.takeFlow(conns.rows[at + Conn.FlowOut]!);
    this.takeConnection(conns.control[conn]! - 1);
  }
}
