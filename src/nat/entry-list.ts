/** For tests of translation alone: entries as a plain list, looked through one by one. */
import { CtDir, CtInfo, Status } from '../conntrack/entry.ts';
import { Tuple } from '../conntrack/tuple.ts';
import { Hook, type HookOp, Priority, Verdict } from '../hooks/hooks.ts';
import type { Packet } from '../packet/packet.ts';
import { ip4 } from '../wire/addr.ts';
import { dst, headerLength, IpProto, proto, src } from '../wire/ipv4.ts';
import type { Entries } from './entries.ts';

interface Row {
  readonly original: Tuple;
  readonly reply: Tuple;
  status: number;
  readonly zone: number;
}

/** `10.1.0.2:40000 > 10.2.0.2:53`, of UDP unless said otherwise. */
export function tupleOf(text: string, proto = 17): Tuple {
  const [src, srcPort, dst, dstPort] = text.split(/[:> ]+/) as [string, string, string, string];
  const t = new Tuple();
  t.src = ip4(src);
  t.dst = ip4(dst);
  t.ports = (Number(srcPort) << 16) | Number(dstPort);
  t.proto = proto;
  return t;
}

export class EntryList implements Entries {
  readonly capacity = 70_000;
  readonly rows: (Row | null)[] = [null];
  evictable = 0;
  /** Told of each entry that ends, while it is still there. */
  onEnd: (entry: number) => void = () => {};
  /** Asked of each new entry: was it expected? */
  isExpected: (entry: number, t: Tuple) => boolean = () => false;

  get highWater(): number {
    return this.rows.length;
  }

  /** A connection's first packet; it is confirmed later. */
  open(original: Tuple, zone = 0): number {
    const reply = new Tuple();
    reply.copyFrom(original);
    reply.invert();
    this.rows.push({ original, reply, status: 0, zone });
    return this.rows.length - 1;
  }

  confirm(entry: number): void {
    this.rows[entry]!.status |= Status.Confirmed;
  }

  status(entry: number): number {
    return this.rows[entry]!.status;
  }

  addStatus(entry: number, bits: number): void {
    this.rows[entry]!.status |= bits;
  }

  tuple(entry: number, dir: number, t: Tuple): void {
    const row = this.rows[entry]!;
    t.copyFrom(dir === CtDir.Original ? row.original : row.reply);
  }

  zone(entry: number): number {
    return this.rows[entry]!.zone;
  }

  /** Number of the helper of every entry but expected ones. */
  assigned = 0;

  helper(entry: number): number {
    return (this.rows[entry]!.status & Status.Expected) === 0 ? this.assigned : 0;
  }

  master(): number {
    return 0;
  }

  isTaken(t: Tuple, except: number): boolean {
    const { original } = this.rows[except]!;
    return this.rows.some(
      (row, i) =>
        row !== null &&
        i !== except &&
        (row.status & Status.Confirmed) !== 0 &&
        row.zone === this.zone(except) &&
        (row.original.equals(t) || row.reply.equals(t)) &&
        !row.original.equals(original),
    );
  }

  evictClosing(): boolean {
    if (this.evictable === 0) return false;
    this.evictable--;
    return true;
  }

  alterReply(entry: number, t: Tuple): void {
    this.rows[entry]!.reply.copyFrom(t);
  }

  kill(entry: number): void {
    this.onEnd(entry);
    this.rows[entry] = null;
  }

  acquire(): void {}
  release(): void {}
}

const { Icmp: ICMP } = IpProto;

/** The tuple of the IPv4 packet at `l3`, with as much of its ports as there is. */
function tupleAt(p: Packet, l3: number): Tuple {
  const { view } = p;
  const t = new Tuple();
  const l4 = l3 + headerLength(view, l3);
  t.src = src(view, l3);
  t.dst = dst(view, l3);
  t.proto = proto(view, l3);
  if (t.proto === ICMP) t.ports = (view.getUint16(l4 + 4) << 16) | view.getUint16(l4);
  else if (t.proto !== 99) t.ports = view.getInt32(l4);
  return t;
}

/** As much of connection tracking as translation needs: a packet's entry and what it is to it, and the confirmation of the first. */
export function trackerHooks(entries: EntryList): HookOp[] {
  const find = (t: Tuple): [number, boolean] => {
    const entry = entries.rows.findIndex(
      (row) => row !== null && (row.status & Status.Confirmed) !== 0 && (row.original.equals(t) || row.reply.equals(t)),
    );
    return [entry, entry > 0 && entries.rows[entry]!.reply.equals(t)];
  };
  const track = (p: Packet): Verdict => {
    if (p.entry !== 0) return Verdict.Accept;
    const isError = p.proto === ICMP && ![0, 8].includes(p.view.getUint8(p.l4));
    const t = tupleAt(p, isError ? p.l4 + 8 : p.l3);
    if (isError) t.invert();
    const [entry, isReply] = find(t);
    if (isError) {
      if (entry < 0) return Verdict.Accept;
      p.entry = entry;
      p.ctInfo = isReply ? CtInfo.RelatedReply : CtInfo.Related;
    } else if (entry < 0) {
      p.entry = entries.open(t);
      p.ctInfo = CtInfo.New;
      if (entries.isExpected(p.entry, t)) {
        p.ctInfo = CtInfo.Related;
        entries.addStatus(p.entry, Status.Expected);
      }
    } else {
      const row = entries.rows[entry]!;
      if (isReply) row.status |= Status.SeenReply;
      p.entry = entry;
      const isAnswered = (row.status & Status.SeenReply) !== 0;
      p.ctInfo = isReply ? CtInfo.EstablishedReply : isAnswered ? CtInfo.Established : CtInfo.New;
    }
    return Verdict.Accept;
  };
  const confirm = (p: Packet): Verdict => {
    const row = entries.rows[p.entry] ?? null;
    if (row === null || (row.status & Status.Confirmed) !== 0) return Verdict.Accept;
    if (entries.isTaken(row.reply, p.entry)) {
      entries.kill(p.entry);
      return Verdict.Drop;
    }
    row.status |= Status.Confirmed;
    return Verdict.Accept;
  };
  const at = (hook: Hook, priority: number, name: string, run: HookOp['run']) => ({
    hook,
    priority,
    name,
    why: 'test',
    run,
  });
  return [
    at(Hook.PreRouting, Priority.Conntrack, 'track', track),
    at(Hook.LocalOut, Priority.Conntrack, 'track', track),
    at(Hook.LocalIn, Priority.ConntrackConfirm, 'confirm', confirm),
    at(Hook.PostRouting, Priority.ConntrackConfirm, 'confirm', confirm),
  ];
}
