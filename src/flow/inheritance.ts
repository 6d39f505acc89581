/**
 * What an earlier life of the daemon has left, on its way into the tables of this one. Of a row only the tuples are known by which it would be found: it is taken over when
 * somebody asks the flow table for one of them, all others little by little. So packets are forwarded at once, however many rows there are.
 *
 *   node = 4 ints:   hash of a tuple | next node of the bucket | row << 1 | its table | –
 *
 * A hash is enough: who is taken over for another one's sake would have been taken over a little later.
 */
import { hash4 } from '../base/hash.ts';
import type { Steps } from '../base/slices.ts';
import { type FlowColumn, type FlowSource, type FlowTable, NO_FLOW } from './flow-table.ts';

/** Where rows of one column's owner become rows of this life. */
export interface Heir {
  /** Take the row over, and with it what it needs. Its tuples go through the flow table, which asks for others that have them: these are there first. */
  inherit(old: number): void;
}

const NODE_SHIFT = 2;
const HASH = 0;
const NEXT = 1;
const ITEM = 2;
/** Beside the protocol, where only source and port are asked for. */
const BY_SOURCE = 1 << 15;
/** What a row is. */
const Is = { Nothing: 0, Left: 1, Taken: 2 } as const;
/** Rows that are looked at between two pauses. */
const LOOK_AT = 16;

export class Inheritance implements FlowSource {
  readonly #flows: FlowTable;
  readonly #heirs: [Heir | null, Heir | null] = [null, null];
  readonly #nodes: Int32Array;
  readonly #buckets: Int32Array;
  /** Of each row. */
  readonly #is: Uint8Array;
  /** The first node that is free; 0 is none. */
  #fresh = 1;

  /** @param rows of the longest table  @param tuples of all of them, at most */
  constructor(flows: FlowTable, rows: number, tuples: number) {
    this.#flows = flows;
    this.#nodes = new Int32Array((tuples + 1) << NODE_SHIFT);
    this.#buckets = new Int32Array(2 ** Math.ceil(Math.log2(tuples + 16)));
    this.#is = new Uint8Array(rows << 1);
  }

  /** From now on a tuple that is not found may be one of these. */
  begin(connections: Heir, entries: Heir): void {
    this.#heirs[0] = connections;
    this.#heirs[1] = entries;
    this.#flows.source = this;
  }

  /** A row, and a tuple by which it is found. */
  add(column: FlowColumn, old: number, src: number, dst: number, ports: number, kind: number): void {
    const node = this.#fresh++;
    const hash = hash4(0, src, dst, ports, kind);
    const bucket = hash & (this.#buckets.length - 1);
    const at = node << NODE_SHIFT;
    this.#nodes[at + HASH] = hash;
    this.#nodes[at + NEXT] = this.#buckets[bucket]!;
    const item = (old << 1) | column;
    this.#nodes[at + ITEM] = item;
    this.#is[item] = Is.Left;
    this.#buckets[bucket] = node;
  }

  /** And by its source alone, in whatever zone. */
  addBySource(column: FlowColumn, old: number, src: number, ports: number, proto: number): void {
    this.add(column, old, src, 0, ports >>> 16, proto | BY_SOURCE);
  }

  take(src: number, dst: number, ports: number, kind: number): number {
    if (!this.#takeAll(hash4(0, src, dst, ports, kind))) return NO_FLOW;
    return this.#flows.find(src, dst, ports, kind);
  }

  /** Whoever has this source, port and protocol. */
  takeBySource(src: number, ports: number, proto: number): void {
    this.#takeAll(hash4(0, src, 0, ports >>> 16, proto | BY_SOURCE));
  }

  chainLength(src: number, dst: number, ports: number, kind: number): number {
    return this.#flows.ownChainLength(src, dst, ports, kind);
  }

  /** One row, if it was left and is not here yet. */
  takeRow(column: FlowColumn, old: number): void {
    this.#takeItem((old << 1) | column);
  }

  #takeAll(hash: number): boolean {
    const nodes = this.#nodes;
    let hasTaken = false;
    let node = this.#buckets[hash & (this.#buckets.length - 1)]!;
    while (node !== 0) {
      const at = node << NODE_SHIFT;
      if (nodes[at + HASH] === hash && this.#takeItem(nodes[at + ITEM]!)) hasTaken = true;
      node = nodes[at + NEXT]!;
    }
    return hasTaken;
  }

  #takeItem(item: number): boolean {
    if (this.#is[item] !== Is.Left) return false;
    this.#is[item] = Is.Taken;
    this.#heirs[item & 1]!.inherit(item >> 1);
    return true;
  }

  /** The rest. Afterwards there is nothing left behind any more. */
  *steps(): Steps<void> {
    for (let node = 1; node < this.#fresh; node++) {
      this.#takeItem(this.#nodes[(node << NODE_SHIFT) + ITEM]!);
      if (node % LOOK_AT === 0) yield;
    }
    this.#flows.source = null;
  }
}
