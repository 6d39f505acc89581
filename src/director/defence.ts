/**
 * What the director does when its memory gets short, and what an operator may switch on for good (net/netfilter/ipvs/ip_vs_ctl.c, update_defense_level;
 * ip_vs_conn.c, ip_vs_random_dropentry; include/net/ip_vs.h, ip_vs_todrop).
 *
 *   mode of each     0 off    1 automatic, at rest    2 automatic, at work    3 always; once a second 1 and 2 change places by themselves
 *
 *   drop_entry       each second 1/32 of the table is looked at: half-open connections go, and idle ones that had few packets
 *   drop_packet      every n-th packet that would begin a connection is dropped; n is am_droprate, or amemthresh/(amemthresh - available)
 *   secure_tcp       the other table of TCP states (tcp-states.ts)
 *
 * Memory is short when less than `amemthresh` pages of 4 KiB are available. The kernel asks how much of the machine's is free. Our tables are reserved at the
 * start, so here it is what is left in them:
 *
 *   available = (free connections · 74 bytes + free flow rows · 32 bytes) / 4096       a million connections: 33,691 pages
 */
import { seconds } from '../base/clock.ts';
import { IpProto } from '../wire/ipv4.ts';
import { CONN_SHIFT, Conn, ConnFlag } from './connection.ts';
import type { Director } from './director.ts';
import { SctpState } from './sctp-states.ts';
import { ServiceFlag } from './services.ts';
import { defensiveTable, normalTable, TcpState } from './tcp-states.ts';

const EVERY = seconds(1);
const PAGE = 4096;
/** A row of the connection table with its timer and its two columns; a row of the flow table. */
const CONNECTION_BYTES = 74;
const FLOW_BYTES = 32;
/** Rows that the scan thinks of at least, as the kernel's table has at least so many buckets. */
const LEAST_ROWS = 4096;
/** Rows that one breath looks at. */
const SCAN_STEP = 2048;
/** An idle connection is spared this long. */
const SPARED = seconds(60);
/** Of connections with so many packets of the client (1 to 8), every so-many-th goes (todrop_rate). */
const MOST_PACKETS = 8;
/** From this mode on a defence is at work. */
const AT_WORK = 2;

export const Mode = { Off: 0, Rest: 1, Work: 2, Always: 3 } as const;

export class Defence {
  readonly #director: Director;
  /** Every so-many-th packet that would begin a connection is dropped; 0: none. */
  #dropRate = 0;
  #dropCounter = 0;
  #nextAt: number;
  /** Rows that this second's scan has still to look at. */
  #toScan = 0;
  readonly #spared = new Int32Array(MOST_PACKETS + 1);

  constructor(director: Director, now: number) {
    this.#director = director;
    this.#nextAt = (now + EVERY) | 0;
  }

  copyFrom(live: Defence): void {
    this.#dropRate = live.#dropRate;
    this.#dropCounter = live.#dropCounter;
    this.#nextAt = live.#nextAt;
    this.#toScan = live.#toScan;
    this.#spared.set(live.#spared);
  }

  /** Pages of 4 KiB that are left in our tables. */
  get available(): number {
    const { conns, flows } = this.#director;
    const bytes = (conns.capacity - conns.count) * CONNECTION_BYTES + (flows.capacity - flows.size) * FLOW_BYTES;
    return Math.floor(bytes / PAGE);
  }

  /** Is this packet, which would begin a connection, to be dropped? */
  refuses(): boolean {
    if (this.#dropRate === 0) return false;
    if (--this.#dropCounter > 0) return false;
    this.#dropCounter = this.#dropRate;
    return true;
  }

  /** Look at the memory: modes 1 and 2 change places, and what is at work is set up. */
  update(): void {
    const { sysctls } = this.#director;
    const { amemthresh } = sysctls;
    const { available } = this;
    const isShort = available < amemthresh;
    sysctls.dropEntry = modeAfter(sysctls.dropEntry, isShort);
    sysctls.dropPacket = modeAfter(sysctls.dropPacket, isShort);
    sysctls.secureTcp = modeAfter(sysctls.secureTcp, isShort);
    if (sysctls.dropPacket === Mode.Always) {
      this.#dropRate = sysctls.amDroprate;
    } else if (sysctls.dropPacket === Mode.Work) {
      this.#dropRate = Math.trunc(amemthresh / (amemthresh - available));
      this.#dropCounter = this.#dropRate;
    } else {
      this.#dropRate = 0;
    }
    this.#director.tcpTable = sysctls.secureTcp >= AT_WORK ? defensiveTable : normalTable;
  }

  /** Once per breath. */
  advance(now: number): void {
    if (((now - this.#nextAt) | 0) >= 0) {
      this.#nextAt = (now + EVERY) | 0;
      this.update();
      if (this.#director.sysctls.dropEntry >= AT_WORK) this.#toScan = this.#tableSize() >>> 5;
    }
    if (this.#toScan > 0) this.#scan();
  }

  #tableSize(): number {
    return Math.max(LEAST_ROWS, this.#director.conns.highWater);
  }

  /** Some rows at random; a row may be met twice or never. */
  #scan(): void {
    const { conns, rng } = this.#director;
    const size = this.#tableSize();
    const steps = Math.min(this.#toScan, SCAN_STEP);
    this.#toScan -= steps;
    for (let i = 0; i < steps; i++) {
      const conn = (rng.next() >>> 0) % size;
      if (conn < conns.highWater && conns.isUsed(conn) && this.#isExpendable(conn)) this.#director.abandon(conn);
    }
  }

  #isExpendable(conn: number): boolean {
    const { conns, dests, services } = this.#director;
    // What others need stays.
    if (conns.controlled[conn] !== 0) return false;
    const at = conn << CONN_SHIFT;
    const flags = conns.rows[at + Conn.Flags]!;
    if ((flags & ConnFlag.Template) !== 0) {
      const dest = conns.rows[at + Conn.Dest]!;
      const isOnePacket =
        dests.isAvailable(dest) && (services.flags[dests.service[dest]!]! & ServiceFlag.OnePacket) !== 0;
      return isOnePacket ? this.#isIdle(conn) : (flags & ConnFlag.Assured) === 0;
    }
    const meta = conns.rows[at + Conn.Meta]!;
    const state = meta & 0xff;
    const protocol = (meta >> 8) & 0xff;
    if (protocol === IpProto.Sctp) {
      if (state === SctpState.Init1 || state === SctpState.Init) return true;
      return state === SctpState.Established && this.#isIdle(conn);
    }
    if (protocol !== IpProto.Tcp) return this.#isIdle(conn);
    if (state === TcpState.SynRecv || state === TcpState.SynAck) return true;
    return state === TcpState.Established && this.#isIdle(conn);
  }

  /** Idle for a minute, after a few packets only (todrop_entry). */
  #isIdle(conn: number): boolean {
    const { conns, now } = this.#director;
    const at = conn << CONN_SHIFT;
    const last = conns.rows[at + Conn.Expires]! - conns.rows[at + Conn.Timeout]!;
    if (((now - last - SPARED) | 0) < 0) return false;
    const packets = conns.rows[at + Conn.Packets]!;
    if (packets < 1 || packets > MOST_PACKETS) return false;
    if (--this.#spared[packets]! > 0) return false;
    this.#spared[packets] = packets;
    return true;
  }
}

function modeAfter(mode: number, isShort: boolean): number {
  if (mode !== Mode.Rest && mode !== Mode.Work) return mode;
  return isShort ? Mode.Work : Mode.Rest;
}
