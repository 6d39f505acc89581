/**
 * The packet pool: memory is settled before the first packet.   @hot
 *
 * One arena, fixed slots, a free list through `Packet.next` (last freed first taken: its bytes are still in the cache). Slots are big
 * enough for a 64 KiB super-packet; pages nobody touched cost nothing.
 */
import { assert } from '../base/assert.ts';
import { type Allocate, plainMemory } from '../base/memory.ts';
import { NONE, Packet, resetPacket, SLOT_SIZE } from './packet.ts';

export class PacketPool {
  readonly view: DataView;
  readonly bytes: Uint8Array;
  readonly words: Uint16Array;
  readonly packets: readonly Packet[];
  /** Told of each packet with an entry that ends, sent or dropped: an entry that was never confirmed ends with it (nf_conntrack_put). */
  onEntryEnd: ((p: Packet) => void) | null = null;
  #free: number;
  #available: number;

  /** @param slots how many packets can be alive at once; 64.3 KiB of address space each */
  constructor(slots: number, allocate: Allocate = plainMemory) {
    const { buffer, at } = allocate(slots * SLOT_SIZE);
    this.view = new DataView(buffer, at, slots * SLOT_SIZE);
    this.bytes = new Uint8Array(buffer, at, slots * SLOT_SIZE);
    this.words = new Uint16Array(buffer, at, (slots * SLOT_SIZE) / 2);
    const packets: Packet[] = [];
    for (let i = 0; i < slots; i++) packets.push(new Packet(this.view, this.bytes, this.words, i));
    for (let i = 0; i < slots; i++) packets[i]!.next = i + 1 < slots ? i + 1 : NONE;
    this.packets = packets;
    this.#free = 0;
    this.#available = slots;
  }

  get available(): number {
    return this.#available;
  }

  /** A packet to write a frame of `length` bytes into, fields reset, bytes as the last user left them; null when all are out. */
  take(length: number): Packet | null {
    const index = this.#free;
    if (index === NONE) return null;
    const p = this.packets[index]!;
    this.#free = p.next;
    this.#available--;
    p.next = NONE;
    p.inUse = 1;
    resetPacket(p, length);
    return p;
  }

  /** The packet becomes another one: what it was to its connection is over (nf_reset_ct). */
  forgetEntry(p: Packet): void {
    if (p.entry !== 0 && this.onEntryEnd !== null) this.onEntryEnd(p);
    p.entry = 0;
    p.ctInfo = 0;
    p.ctTemplate = 0;
  }

  free(p: Packet): void {
    assert(p.inUse === 1, 'packet freed twice');
    if (p.entry !== 0 && this.onEntryEnd !== null) this.onEntryEnd(p);
    p.inUse = 0;
    p.next = this.#free;
    this.#free = p.index;
    this.#available++;
  }
}
