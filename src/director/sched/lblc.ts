/**
 * lblc, locality-based least connections: each destination address keeps its server (net/netfilter/ipvs/ip_vs_lblc.c), for caches behind a firewall
 * mark. An address gets a new one, as wlc picks, when its server has gone, is quiesced, or has more active connections than its weight while another
 * one has less than half of its own. An upper threshold does not take an address from its server.
 */
import { seconds } from '../../base/clock.ts';
import { formatIp4 } from '../../wire/addr.ts';
import { NO_DEST } from '../destinations.ts';
import { AddressCache, NO_ENTRY } from './address-cache.ts';
import { explainChoice, serverName } from './explain.ts';
import type { Scheduler, SchedulerContext, SchedulerDefinition } from './scheduler.ts';
import { explainLeastLoaded, leastLoaded } from './wlc.ts';

/** Has it more active connections than its weight while another server of the service has less than half of its own? */
export function isCrowded({ services, dests }: SchedulerContext, service: number, d: number): boolean {
  if (dests.active[d]! <= dests.weight[d]!) return false;
  for (let other = services.first[service]!; other !== NO_DEST; other = dests.next[other]!) {
    if (dests.active[other]! * 2 < dests.weight[other]!) return true;
  }
  return false;
}

/** @param from what is remembered already; null: nothing */
function byLocality(context: SchedulerContext, service: number, from: AddressCache | null): Scheduler {
  const { dests, sysctls } = context;
  const release = (d: number) => {
    dests.held[d]!--;
  };
  /** Values: destinations. */
  const cache = from === null ? new AddressCache(context.now, release) : from.fork(release);

  /** The server that the address keeps, or NO_DEST. */
  function kept(entry: number): number {
    if (entry === NO_ENTRY) return NO_DEST;
    const d = cache.value[entry]!;
    return dests.isAvailable(d) && dests.weight[d]! > 0 && !isCrowded(context, service, d) ? d : NO_DEST;
  }

  return {
    pick(_source, destination) {
      const entry = cache.use(destination, context.now);
      const its = kept(entry);
      if (its !== NO_DEST) return its;
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
    explain(_source, destination) {
      const entry = cache.find(destination);
      const address = formatIp4(destination);
      const chosen = kept(entry);
      if (chosen !== NO_DEST) {
        const how = `${address} keeps its server ${serverName(dests, chosen)}`;
        return explainChoice(context, service, chosen, how, (d) => [
          `${dests.active[d]} active, weight ${dests.weight[d]}`,
          d === chosen ? 'not crowded' : `not the server of ${address}`,
        ]);
      }
      const before = entry === NO_ENTRY ? 'has no server yet' : `leaves ${serverName(dests, cache.value[entry]!)}`;
      return explainLeastLoaded(context, service, `${address} ${before}: the fewest connections per weight`);
    },
    fork: (its) => byLocality(its, service, cache),
    collect(now) {
      cache.collect(now, seconds(sysctls.lblcExpiration));
    },
    close() {
      cache.clear();
    },
  };
}

export const lblc: SchedulerDefinition = {
  name: 'lblc',
  create: (context, service) => byLocality(context, service, null),
};
