/**
 * lblc, locality-based least connections: each destination address keeps its server (net/netfilter/ipvs/ip_vs_lblc.c), for caches behind a firewall
 * mark. An address gets a new one, as wlc picks, when its server has gone, is quiesced, or has more active connections than its weight while another
 * one has less than half of its own. An upper threshold does not take an address from its server.
 */
import { seconds } from '../../base/clock.ts';
import { NO_DEST } from '../destinations.ts';
import { AddressCache, NO_ENTRY } from './address-cache.ts';
import type { SchedulerContext, SchedulerDefinition } from './scheduler.ts';
import { leastLoaded } from './wlc.ts';

/** Has it more active connections than its weight while another server of the service has less than half of its own? */
export function isCrowded({ services, dests }: SchedulerContext, service: number, d: number): boolean {
  if (dests.active[d]! <= dests.weight[d]!) return false;
  for (let other = services.first[service]!; other !== NO_DEST; other = dests.next[other]!) {
    if (dests.active[other]! * 2 < dests.weight[other]!) return true;
  }
  return false;
}

export const lblc: SchedulerDefinition = {
  name: 'lblc',
  create(context, service) {
    const { dests, sysctls } = context;
    /** Values: destinations. */
    const cache = new AddressCache(context.now, (d) => dests.held[d]!--);
    return {
      pick(_source, destination) {
        const entry = cache.use(destination, context.now);
        if (entry !== NO_ENTRY) {
          const d = cache.value[entry]!;
          if (dests.isAvailable(d) && dests.weight[d]! > 0 && !isCrowded(context, service, d)) return d;
        }
        const d = leastLoaded(context, service);
        if (d === NO_DEST) return NO_DEST;
        if (entry !== NO_ENTRY) {
          dests.held[cache.value[entry]!]!--;
          cache.value[entry] = d;
        } else if (cache.add(destination, d, context.now) === NO_ENTRY) {
          return d;
        }
        dests.held[d]!++;
        return d;
      },
      collect(now) {
        cache.collect(now, seconds(sysctls.lblcExpiration));
      },
      close() {
        cache.clear();
      },
    };
  },
};
