/**
 * sh: by the client's address (net/netfilter/ipvs/ip_vs_sh.c). 256 buckets are dealt out to the servers in the order of the list, as many in a row as
 * the server's weight says, one at weight 0, until all are dealt. A bucket whose server may not be picked answers NO_DEST.
 *
 * sh-port adds the client's port to the key. sh-fallback goes on from an unusable bucket to the others, each client from a place of its own.
 */
import { SchedulerFlag } from '../../model/ipvs.ts';
import { NO_DEST } from '../destinations.ts';
import { hash32 } from './kernel-hash.ts';
import type { SchedulerDefinition } from './scheduler.ts';

const BITS = 8;
const SIZE = 1 << BITS;
const { Flag1: FALLBACK, Flag2: PORT } = SchedulerFlag;

export const sh: SchedulerDefinition = {
  name: 'sh',
  create({ services, dests }, service) {
    const buckets = new Int32Array(SIZE);
    function deal(): void {
      const head = services.first[service]!;
      let d = head;
      let dealt = 0;
      for (let i = 0; i < SIZE; i++) {
        buckets[i] = d;
        if (d === NO_DEST || ++dealt < dests.weight[d]!) continue;
        dealt = 0;
        d = dests.next[d]!;
        if (d === NO_DEST) d = head;
      }
    }
    deal();
    return {
      pick(source, _destination, ports) {
        const flags = services.schedulerFlags[service]!;
        const hash = hash32((flags & PORT) === 0 ? source : (source + (ports >>> 16)) | 0, BITS);
        let d = buckets[hash]!;
        if (d === NO_DEST || dests.isCandidate(d)) return d;
        if ((flags & FALLBACK) === 0) return NO_DEST;
        for (let offset = 0; offset < SIZE; offset++) {
          d = buckets[(offset + hash + hash) & (SIZE - 1)]!;
          if (dests.isCandidate(d)) return d;
        }
        return NO_DEST;
      },
      added: deal,
      removed: deal,
      changed: deal,
    };
  },
};
