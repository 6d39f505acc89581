/** Errors of POST /v1/ip as iproute2 prints the kernel's. */
import type { CommandResults } from '../../control/api.ts';
import type { IpCommand, IpErrno, LinkRow } from '../../model/ip.ts';
import { type CliContext, CliError } from '../command.ts';
import { noDevice } from './words.ts';

const WORDS: Readonly<Record<string, string>> = {
  EEXIST: 'File exists',
  ESRCH: 'No such process',
  ENOENT: 'No such file or directory',
  ENODEV: 'No such device',
  EINVAL: 'Invalid argument',
  ENETDOWN: 'Network is down',
  ENETUNREACH: 'Network is unreachable',
  EADDRNOTAVAIL: 'Cannot assign requested address',
  EOPNOTSUPP: 'Operation not supported',
};

/** What the kernel says itself (extended acknowledgement). */
const TOLD: Readonly<Record<string, string>> = {
  'addr-add EEXIST': 'ipv4: Address already assigned.',
  'addr-del EADDRNOTAVAIL': 'ipv4: Address not found.',
  'route-add ENETUNREACH': 'Nexthop has invalid gateway.',
  'route-add ENETDOWN': 'Device for nexthop is not up.',
  'route-replace ENETUNREACH': 'Nexthop has invalid gateway.',
  'route-replace ENETDOWN': 'Device for nexthop is not up.',
  'EINVAL/prefix': 'Invalid prefix for given prefix length.',
  'EINVAL/source': 'Invalid prefsrc address.',
  'EINVAL/gateway': 'Nexthop has invalid gateway.',
  'EINVAL/host-gateway': 'Route with host scope can not have a gateway.',
  'EINVAL/mtu-low': 'mtu less than device minimum.',
  'EINVAL/mtu-high': 'mtu greater than device maximum.',
  'EINVAL/way': 'Gateway, device and multipath can not be specified for this route type.',
};

/** Exit status of iproute2 when the kernel refuses. */
const REFUSED = 2;

export function kernelRefusal(errno: IpErrno): CliError {
  return new CliError(`RTNETLINK answers: ${WORDS[errno] ?? errno}`, REFUSED);
}

/** @param device the one that the command named, if it did: iproute2 looks for it before it asks the kernel */
export async function change(context: CliContext, commands: readonly IpCommand[], device?: string): Promise<number> {
  const { results } = await context.client.post<CommandResults>('/v1/ip', { commands });
  const place = results.findIndex((result) => result !== null);
  const errno = results[place];
  if (errno === undefined || errno === null) return 0;
  if (errno === 'ENODEV' && device !== undefined) throw noDevice(device);
  const told = TOLD[`${commands[place]?.op} ${errno}`] ?? TOLD[errno];
  throw told === undefined ? kernelRefusal(errno as IpErrno) : new CliError(`Error: ${told}`, REFUSED);
}

/** Of a device that is asked about. */
export async function checkDevice(context: CliContext, device: string | undefined): Promise<void> {
  if (device === undefined) return;
  const links = await context.client.get<readonly LinkRow[]>('/v1/ip/links');
  if (!links.some(({ name }) => name === device)) throw noDevice(device);
}
