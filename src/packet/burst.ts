/** A burst: up to 64 packets that move together; order kept, allocated once.   @hot */
import type { Packet } from './packet.ts';

export const BURST = 64;

export class Burst {
  readonly packets: (Packet | null)[];
  count = 0;

  constructor(size: number = BURST) {
    this.packets = new Array<Packet | null>(size).fill(null);
  }

  get isFull(): boolean {
    return this.count === this.packets.length;
  }

  push(p: Packet): void {
    this.packets[this.count++] = p;
  }

  clear(): void {
    this.count = 0;
  }
}
