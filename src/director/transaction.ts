/**
 * Commands that are carried out all or not at all: what could still fail is looked for before anything changes. That each command makes sense (scheduler, thresholds, addresses)
 * has been tried before, on an engine of its own; what is left is what only this director knows.
 *
 * Packets meet all as it was or as it shall be, unless there are more than MOST_AT_ONCE commands: then each service as it was or as it shall be, unless that many are about it alone.
 */
import { assert } from '../base/assert.ts';
import type { Steps } from '../base/slices.ts';
import type { IpvsCommand, IpvsErrno, ServerKey, ServiceKey } from '../model/ipvs.ts';
import { formatIp4, parseIp4 } from '../wire/addr.ts';
import { checkLocalAddress, executeCommand, findService, isUnicast } from './commands.ts';
import { NO_DEST } from './destinations.ts';
import type { Director } from './director.ts';
import { findScheduler } from './sched/index.ts';
import { NO_SERVICE } from './services.ts';

export interface Refusal {
  readonly index: number;
  readonly errno: IpvsErrno;
}

/** Commands that are carried out between the same two breaths. */
const MOST_AT_ONCE = 256;
/** Commands that are looked at without a pause. */
const LOOK_AT = 64;

/** Nobody else may run commands meanwhile. @param commands removals first: what they free is there for the others */
export function* executeAll(director: Director, commands: readonly IpvsCommand[]): Steps<Refusal | null> {
  const { dests } = director;
  // What is foreseen of a server in the trash holds while it stays there.
  dests.isTrashHeld = true;
  try {
    const refusal = yield* foresee(director, commands);
    if (refusal !== null) return refusal;
    let met = 0;
    for (const some of yield* byService(commands)) {
      if (met > 0 && met + some.length > MOST_AT_ONCE) {
        yield;
        met = 0;
      }
      for (const [i, command] of some.entries()) {
        if (i > 0 && i % MOST_AT_ONCE === 0) yield;
        const errno = executeCommand(director, command);
        assert(errno === null, `${JSON.stringify(command)} fails with ${errno ?? ''}, which nobody foresaw`);
      }
      met += some.length;
    }
    return null;
  } finally {
    dests.isTrashHeld = false;
  }
}

/** Services in the order of their first commands. All that are deleted come before any that is added, for removals are first and one that is added has none. */
function* byService(commands: readonly IpvsCommand[]): Steps<Iterable<IpvsCommand[]>> {
  const groups = new Map<string, IpvsCommand[]>();
  for (const [i, command] of commands.entries()) {
    if (i % LOOK_AT === 0) yield;
    const { service } = command as { readonly service?: ServiceKey | { readonly key: ServiceKey } };
    const name = service === undefined ? `${i}` : JSON.stringify('key' in service ? service.key : service);
    const group = groups.get(name);
    if (group === undefined) groups.set(name, [command]);
    else group.push(command);
  }
  return groups.values();
}

function* foresee(director: Director, commands: readonly IpvsCommand[]): Steps<Refusal | null> {
  const { services, dests } = director;
  let serviceRoom = services.capacity - services.count;
  let serverRoom = dests.room;
  let localRoom = director.locals.room;
  const removed = new Map<number, number>();
  for (const [index, command] of commands.entries()) {
    if (index % LOOK_AT === 0) yield;
    const errno = ((): IpvsErrno | null => {
      switch (command.op) {
        case 'delete-service':
          serviceRoom++;
          return null;
        case 'delete-server': {
          const s = findService(director, command.service);
          removed.set(s, (removed.get(s) ?? 0) + 1);
          return null;
        }
        case 'add-service':
          return --serviceRoom < 0 ? 'ENOSPC' : null;
        case 'edit-service': {
          const s = findService(director, command.service.key);
          const most = findScheduler(command.service.scheduler)?.maxDestinations;
          const isNew = services.schedulerNames[s] !== command.service.scheduler;
          return isNew && most !== undefined && services.destinations[s]! - (removed.get(s) ?? 0) > most
            ? 'EINVAL'
            : null;
        }
        case 'add-server': {
          const ip = parseIp4(command.server.key.address)!;
          const s = findService(director, command.service);
          if (s !== NO_SERVICE && dests.isTrashed(s, ip, command.server.key.port)) return null;
          if (!isUnicast(director, ip)) return 'EINVAL';
          return --serverRoom < 0 ? 'ENOSPC' : null;
        }
        case 'add-local-address':
        case 'edit-local-address': {
          if (--localRoom < 0) return 'ENOSPC';
          return checkLocalAddress(director, parseIp4(command.local.address)!, command.local.device);
        }
        default:
          return null;
      }
    })();
    if (errno !== null) return { index, errno };
  }
  return null;
}

/** Whom the scheduler of a service would choose for this client now. Only for schedulers that remember nothing: sh, dh, mh. */
export function chosenServer(
  director: Director,
  key: ServiceKey,
  client: ServerKey,
  virtual: ServerKey,
): ServerKey | null {
  const { services, dests } = director;
  const s = findService(director, key);
  const [cip, vip] = [parseIp4(client.address), parseIp4(virtual.address)];
  if (s === NO_SERVICE || cip === undefined || vip === undefined) return null;
  const d = services.schedulers[s]!.pick(cip, vip, (client.port << 16) | virtual.port);
  return d === NO_DEST ? null : { address: formatIp4(dests.ip[d]!), port: dests.port[d]! };
}
