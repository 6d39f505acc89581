/**
 * The worker's side of `tapvs capture`: copies of packets, each with a sentence about what became of it.
 *
 *   receive ─► copy, open ──────────── … ─────────────► transmit / drop: the sentence is known ─► batch ─► sink, once per breath
 *   transmit ─► copy, with where it came from ────────────────────────────────────────────────────► batch
 *   end of a hook ─► copy, with the verdict ──────────────────────────────────────────────────────► batch
 *
 * `Packet.capture` names the open record of a packet. While nobody captures, the stack has no tap and none of this costs anything.
 *
 * Memory is bounded: at most MAX_OPEN records wait for their packet (the oldest is then posted as it is), and what is posted is limited per tick,
 * for the main thread's queue has no end. What goes beyond is counted, and the next record says how many are missing.
 */
import { Medium } from '../device/device.ts';
import { HOOK_NAMES, Verdict } from '../hooks/hooks.ts';
import type { IpStack } from '../ip/stack.ts';
import { TapPoint } from '../link/link.ts';
import { Drop, dropName, dropText } from '../packet/drop.ts';
import { NONE, type Packet } from '../packet/packet.ts';
import { formatIp4 } from '../wire/addr.ts';
import * as ethernet from '../wire/ethernet.ts';
import { compileFilter, FilterError, type FramePredicate } from '../wire/filter.ts';
import type { CaptureRecord, CaptureSpec } from './messages.ts';

/** Records whose packet is still under way, at most. */
const MAX_OPEN = 4096;
/** Bytes in open and unposted records, at most. */
const MAX_BYTES = 32 << 20;
/** What may be posted: so much per tick (4 ms), saved up to the burst. 100,000 records or 64 MB a second. */
const RECORDS_PER_TICK = 400;
const RECORDS_BURST = 4096;
const BYTES_PER_TICK = 256 << 10;

/** Snap length when none is asked for: more than any packet. */
const WHOLE = 262144;

/** ipchains' names are known too. */
const HOOK_ALIASES: Readonly<Record<string, string>> = { INPUT: 'LOCAL_IN', OUTPUT: 'LOCAL_OUT' };
const VERDICT_NAMES: readonly string[] = Object.keys(Verdict).map((name) => name.toUpperCase());

/** What the capture needs of the engine. */
interface Captured {
  readonly stack: IpStack;
}

interface Running {
  readonly id: number;
  /** null: all. */
  readonly device: string | null;
  /** Index of the hook; NONE: at the devices. */
  readonly hook: number;
  readonly isSelected: FramePredicate;
  readonly snapLength: number;
}

/** A received packet's copy, for all captures that want it. */
interface Open {
  readonly takers: readonly Running[];
  readonly timeUs: number;
  readonly device: string;
  readonly medium: 'ethernet' | 'ip';
  readonly length: number;
  readonly bytes: Uint8Array;
}

export class Captures {
  readonly #stack: IpStack;
  readonly #sink: (records: readonly CaptureRecord[]) => void;
  readonly #nowUs: () => number;
  readonly #tap = (p: Packet, where: number, verdict: number): void => this.#see(p, where, verdict);
  readonly #running = new Map<number, Running>();
  /** By the number in Packet.capture, oldest first. */
  readonly #open = new Map<number, Open>();
  #nextOpen = 0;
  #batch: CaptureRecord[] = [];
  #bytes = 0;
  #recordBudget = RECORDS_BURST;
  #byteBudget = MAX_BYTES;
  #refilled: number;
  /** Missing since the last record that said so. */
  #missing = 0;
  /** Records that were left out since the start, because memory or the way to the main thread was full. */
  dropped = 0;

  /** @param nowUs microseconds since the epoch, for the records */
  constructor(
    engine: Captured,
    sink: (records: readonly CaptureRecord[]) => void,
    nowUs: () => number = () => (performance.timeOrigin + performance.now()) * 1000,
  ) {
    this.#stack = engine.stack;
    this.#sink = sink;
    this.#nowUs = nowUs;
    this.#refilled = engine.stack.now;
  }

  /** Begin a capture. Answers why not, in one line, or null. */
  start(id: number, spec: CaptureSpec): string | null {
    const { device, hook, filter, snapLength } = spec;
    if (device !== undefined && this.#stack.link.findInterface(device) === undefined) {
      const names = this.#stack.link.interfaces.flatMap((ifc) => (ifc?.device ? [ifc.name] : []));
      return `no device '${device}'; there are: ${names.join(', ') || 'none'}`;
    }
    const hookIndex = hook === undefined ? NONE : hookNamed(hook);
    if (hook !== undefined && hookIndex === NONE) return `no hook '${hook}'; there are: ${HOOK_NAMES.join(', ')}`;
    let isSelected: FramePredicate;
    try {
      isSelected = compileFilter(filter);
    } catch (error) {
      if (error instanceof FilterError) return error.message;
      throw error;
    }
    const snap = snapLength > 0 ? snapLength : WHOLE;
    this.#running.set(id, { id, device: device ?? null, hook: hookIndex, isSelected, snapLength: snap });
    if (this.#running.size === 1) this.#stack.link.addTap(this.#tap);
    return null;
  }

  /** End a capture; packets under way are not reported any more. */
  stop(id: number): void {
    if (!this.#running.delete(id) || this.#running.size > 0) return;
    this.#stack.link.removeTap(this.#tap);
    this.#open.clear();
    this.#batch = [];
    this.#bytes = 0;
  }

  /** Post what is ready; the worker calls it after each breath. */
  flush(): void {
    if (this.#batch.length === 0) return;
    const batch = this.#batch;
    this.#batch = [];
    for (const record of batch) this.#bytes -= record.bytes.length;
    this.#sink(batch);
  }

  #see(p: Packet, where: number, verdict: number): void {
    if (where === TapPoint.Receive) this.#received(p);
    else if (where === TapPoint.Transmit) this.#transmitted(p);
    else if (where === TapPoint.Drop) this.#settle(p, dropComment(verdict));
    else this.#atHook(p, where - TapPoint.Hook, verdict);
  }

  #received(p: Packet): void {
    const ifc = this.#stack.link.interfaces[p.inDevice];
    if (!ifc?.device) return;
    const isEthernet = ifc.device.medium === Medium.Ethernet;
    const start = isEthernet ? p.l2 : p.l3;
    const takers = this.#takers(p, start, isEthernet ? 0 : 1, NONE, ifc.name, ifc.name);
    if (takers === null) return;
    const bytes = this.#copy(p, start, takers);
    if (bytes === null) return;
    if (this.#open.size >= MAX_OPEN) this.#giveUpOldest();
    const number = this.#nextOpen;
    this.#nextOpen = (number + 1) & 0x3fffffff;
    p.capture = number;
    this.#open.set(number, {
      takers,
      timeUs: this.#nowUs(),
      device: ifc.name,
      medium: isEthernet ? 'ethernet' : 'ip',
      length: p.end - start,
      bytes,
    });
  }

  #transmitted(p: Packet): void {
    const ifc = this.#stack.link.interfaces[p.outDevice];
    if (!ifc?.device) return;
    const isEthernet = ifc.device.medium === Medium.Ethernet;
    const isBornHere = p.inDevice === NONE;
    if (p.capture !== NONE) {
      if (isBornHere)
        this.#settle(p, isEthernet && isArp(p) ? 'answered: ARP reply sent' : 'answered: echo reply sent');
      else if (ifc.isHost) this.#settle(p, 'delivered to the host port');
      else this.#settle(p, forwardComment(p, ifc.name));
    }
    const start = isEthernet ? p.l2 : p.l3;
    const takers = this.#takers(p, start, isEthernet ? 0 : 1, NONE, ifc.name, ifc.name);
    if (takers === null) return;
    const bytes = this.#copy(p, start, takers);
    if (bytes === null) return;
    const from = this.#stack.link.interfaces[p.inDevice];
    const comment = isBornHere
      ? 'sent by tapvs itself'
      : from?.isHost
        ? 'sent by a program of this machine'
        : `${ifc.isHost ? 'delivered to the host port, received on' : 'forwarded from'} ${from?.name ?? 'a device that is gone'}`;
    this.#post(takers, {
      timeUs: this.#nowUs(),
      device: ifc.name,
      direction: 'out',
      medium: isEthernet ? 'ethernet' : 'ip',
      length: p.end - start,
      bytes,
      comment,
    });
  }

  #atHook(p: Packet, hook: number, verdict: number): void {
    const { interfaces } = this.#stack.link;
    const input = interfaces[p.inDevice]?.name ?? '';
    const output = interfaces[p.outDevice]?.name ?? '';
    const takers = this.#takers(p, p.l3, 1, hook, input, output);
    if (takers === null) return;
    const bytes = this.#copy(p, p.l3, takers);
    if (bytes === null) return;
    // PREROUTING, LOCAL_IN and FORWARD look at what came in.
    const isIn = hook <= 2;
    this.#post(takers, {
      timeUs: this.#nowUs(),
      device: (isIn ? input : output) || 'lo',
      direction: isIn ? 'in' : 'out',
      medium: 'ip',
      length: p.end - p.l3,
      bytes,
      comment: hookComment(p, hook, verdict),
    });
  }

  /** The captures that want this packet, here; null for none. */
  #takers(
    p: Packet,
    start: number,
    medium: number,
    hook: number,
    input: string,
    output: string,
  ): readonly Running[] | null {
    let takers: Running[] | null = null;
    for (const capture of this.#running.values()) {
      if (capture.hook !== hook) continue;
      if (capture.device !== null && capture.device !== input && capture.device !== output) continue;
      if (!capture.isSelected(p.view, start, p.end, medium)) continue;
      if (takers === null) takers = [capture];
      else takers.push(capture);
    }
    return takers;
  }

  /** A copy up to the longest snap length of `takers`; null, and counted, when memory or the budget is used up. */
  #copy(p: Packet, start: number, takers: readonly Running[]): Uint8Array | null {
    this.#refill();
    let length = 0;
    for (const { snapLength } of takers) length = Math.max(length, Math.min(snapLength, p.end - start));
    const isOver = this.#recordBudget < takers.length || this.#byteBudget < length * takers.length;
    if (isOver || this.#bytes + length > MAX_BYTES) {
      this.#missing++;
      this.dropped++;
      return null;
    }
    this.#recordBudget -= takers.length;
    this.#byteBudget -= length * takers.length;
    this.#bytes += length;
    return p.bytes.slice(start, start + length);
  }

  #refill(): void {
    const ticks = (this.#stack.now - this.#refilled) | 0;
    if (ticks <= 0) return;
    this.#refilled = this.#stack.now;
    // More ticks than fill the budget make no difference, and must not overflow it.
    const n = Math.min(ticks, 1000);
    this.#recordBudget = Math.min(RECORDS_BURST, this.#recordBudget + n * RECORDS_PER_TICK);
    this.#byteBudget = Math.min(MAX_BYTES, this.#byteBudget + n * BYTES_PER_TICK);
  }

  /** The packet's end is known: its record is complete. */
  #settle(p: Packet, comment: string): void {
    if (p.capture === NONE) return;
    const open = this.#open.get(p.capture);
    this.#open.delete(p.capture);
    p.capture = NONE;
    if (open !== undefined) this.#finish(open, comment);
  }

  #giveUpOldest(): void {
    for (const [number, open] of this.#open) {
      this.#open.delete(number);
      this.#finish(open, 'still held: waiting for a neighbour, a queue handler or a hook function');
      return;
    }
  }

  #finish(open: Open, comment: string): void {
    const { takers, ...record } = open;
    this.#post(takers, { ...record, direction: 'in', comment });
  }

  #post(takers: readonly Running[], record: Omit<CaptureRecord, 'captureId'>): void {
    const { bytes } = record;
    this.#bytes -= bytes.length;
    let comment = record.comment;
    if (this.#missing > 0) comment += `; ${this.#missing} packets before this one could not be captured`;
    this.#missing = 0;
    for (const { id, snapLength } of takers) {
      if (!this.#running.has(id)) continue;
      const own = bytes.length > snapLength ? bytes.slice(0, snapLength) : bytes;
      this.#bytes += own.length;
      this.#batch.push({ captureId: id, ...record, bytes: own, comment });
    }
  }
}

function hookNamed(name: string): number {
  const upper = name.toUpperCase();
  return HOOK_NAMES.findIndex((known) => known === (HOOK_ALIASES[upper] ?? upper));
}

function isArp(p: Packet): boolean {
  return ethernet.etherType(p.view, p.l2) === ethernet.EtherType.Arp;
}

function forwardComment(p: Packet, device: string): string {
  // 0: a device without neighbours, the packet is for whoever reads it; -1: everybody.
  if (p.nexthop === 0) return `forwarded to ${device}`;
  return `forwarded to ${device} via ${p.nexthop === -1 ? 'broadcast' : formatIp4(p.nexthop)}`;
}

/** The drops that are no losses: the packet did its work here. */
function dropComment(reason: number): string {
  switch (reason) {
    case Drop.ResetSent:
      return 'answered: TCP reset sent';
    case Drop.UnreachableSent:
      return 'answered: ICMP unreachable sent';
    case Drop.ArpLearned:
      return 'taken in: ARP reply or announcement';
    default: {
      const name = dropName(reason);
      return `dropped: ${name}: ${dropText[name]}`;
    }
  }
}

function hookComment(p: Packet, hook: number, verdict: number): string {
  const what = `${HOOK_NAMES[hook]}: ${VERDICT_NAMES[verdict] ?? verdict}`;
  if (verdict !== Verdict.Drop || p.drop === Drop.None) return what;
  const name = dropName(p.drop);
  return `${what}: ${name}: ${dropText[name]}`;
}
