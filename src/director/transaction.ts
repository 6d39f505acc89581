/**
 * Commands that are carried out all or not at all, between two breaths: what could still fail is looked for before anything changes. That each command makes
 * sense (scheduler, thresholds, addresses) has been tried before, on an engine of its own; what is left is what only this director knows.
 */
import { assert } from '../base/assert.ts';
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

/** @param commands removals first: what they free is there for the others */
export function executeAll(director: Director, commands: readonly IpvsCommand[]): Refusal | null {
  const refusal = foresee(director, commands);
  if (refusal !== null) return refusal;
  for (const command of commands) {
    const errno = executeCommand(director, command);
    assert(errno === null, `${JSON.stringify(command)} fails with ${errno ?? ''}, which nobody foresaw`);
  }
  return null;
}

function foresee(director: Director, commands: readonly IpvsCommand[]): Refusal | null {
  const { services, dests } = director;
  let serviceRoom = services.capacity - services.count;
  let serverRoom = dests.room;
  let localRoom = director.locals.room;
  const removed = new Map<number, number>();
  for (const [index, command] of commands.entries()) {
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
