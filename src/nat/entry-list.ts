/** For tests of translation alone: entries as a plain list, looked through one by one. */
import { CtDir } from '../conntrack/entry.ts';
import { Tuple } from '../conntrack/tuple.ts';
import { Status } from '../model/entry-status.ts';
import { ip4 } from '../wire/addr.ts';
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

  helper(): number {
    return 0;
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
