/**
 * An errno of the daemon → ipvsadm's words for it, which depend on the command that met it (libipvs.c, ipvs_strerror).
 */
import type { IpvsErrno } from '../../model/ipvs.ts';
import type { CommandName } from './options.ts';

const ANY_COMMAND: Readonly<Record<IpvsErrno, string>> = {
  EEXIST: 'File exists',
  ENOENT: 'No such file or directory',
  ESRCH: 'No such process',
  EINVAL: 'Invalid operation.  Possibly wrong module version, address not unicast, ...',
  ERANGE: 'Numerical result out of range',
  EOPNOTSUPP: 'Operation not supported with IPv6',
  ENOSPC: 'No space left on device',
  EAFNOSUPPORT: 'Operation not supported with specified address family',
  ENODATA: 'No data available',
  ENODEV: 'No such device',
  EADDRNOTAVAIL: 'Cannot assign requested address',
};

const NO_SCHEDULER = 'Scheduler or persistence engine not found';
export const NO_SERVICE = 'No such service';
const NO_SERVICE_OF_SERVER = 'Service not defined';
const NO_SERVER = 'No such destination';
/** Words of our own: no classic command ends so. */
const NO_FULL_NAT = 'Full NAT does not go together with one-packet scheduling, nor with FTP (port 21)';
const NOT_OURS = 'The local address is not ours, or not on that device: add it first (tapvs ip addr add)';

const BY_COMMAND: Partial<Record<CommandName, Partial<Record<IpvsErrno, string>>>> = {
  'add-service': { EEXIST: 'Service already exists', ENOENT: NO_SCHEDULER },
  'edit-service': { ESRCH: NO_SERVICE, ENOENT: NO_SCHEDULER, EOPNOTSUPP: NO_FULL_NAT },
  'delete-service': { ESRCH: NO_SERVICE },
  zero: { ESRCH: NO_SERVICE },
  'add-server': { ESRCH: NO_SERVICE_OF_SERVER, EEXIST: 'Destination already exists', EOPNOTSUPP: NO_FULL_NAT },
  'edit-server': { ESRCH: NO_SERVICE_OF_SERVER, ENOENT: NO_SERVER, EOPNOTSUPP: NO_FULL_NAT },
  'delete-server': { ESRCH: NO_SERVICE_OF_SERVER, ENOENT: NO_SERVER },
  drain: { ESRCH: NO_SERVICE_OF_SERVER, ENOENT: NO_SERVER },
  'add-laddr': {
    ESRCH: NO_SERVICE,
    EEXIST: 'Local address already exists',
    ENODEV: 'No such device',
    EADDRNOTAVAIL: NOT_OURS,
    EINVAL: 'Illegal local address or ports',
  },
  'del-laddr': { ESRCH: NO_SERVICE, ENOENT: 'No such local address' },
  undrain: { ESRCH: NO_SERVICE_OF_SERVER, ENOENT: NO_SERVER, ENODATA: 'The server is not drained' },
  'start-daemon': { EEXIST: 'Daemon has already run' },
  'stop-daemon': { ESRCH: 'No daemon is running' },
};

export function errnoMessage(name: CommandName, errno: IpvsErrno): string {
  return BY_COMMAND[name]?.[errno] ?? ANY_COMMAND[errno] ?? errno;
}
