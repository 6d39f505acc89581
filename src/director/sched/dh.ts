/**
 * dh: by the address that the client asked for (net/netfilter/ipvs/ip_vs_dh.c), for caches behind a firewall mark. 256 buckets are dealt out to the
 * servers in the order of the list, one each in turn, whatever their weight. A bucket whose server may not be picked answers NO_DEST.
 */
import { NO_DEST } from '../destinations.ts';
import { hash32 } from './kernel-hash.ts';
import type { SchedulerDefinition } from './scheduler.ts';

const BITS = 8;

export const dh: SchedulerDefinition = {
  name: 'dh',
  create({ services, dests }, service) {
    const buckets = new Int32Array(1 << BITS);
    function deal(): void {
      const head = services.first[service]!;
      let d = head;
      for (let i = 0; i < buckets.length; i++) {
        buckets[i] = d;
        if (d !== NO_DEST) d = dests.next[d]!;
        if (d === NO_DEST) d = head;
      }
    }
    deal();
    return {
      pick(_source, destination) {
        const d = buckets[hash32(destination, BITS)]!;
        return d !== NO_DEST && dests.isCandidate(d) ? d : NO_DEST;
      },
      added: deal,
      removed: deal,
      changed: deal,
    };
  },
};
