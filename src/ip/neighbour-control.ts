/** Neighbours as the operator sees them: rows, and changes by hand (`tapvs ip neigh`). */
import type { ListSteps } from '../base/slices.ts';
import type { LinkLayer } from '../link/link.ts';
import { LAST_VALID, Nud } from '../link/neighbours.ts';
import { forget, learn } from '../link/resolve.ts';
import type { IpErrno, NeighbourRow, NeighbourState } from '../model/ip.ts';
import { Drop } from '../packet/drop.ts';
import { NONE } from '../packet/packet.ts';
import { formatIp4, formatMac, parseIp4, parseMac } from '../wire/addr.ts';

/** Rows of a part of a long list. */
const ROWS = 256;

const STATE_NAME: Readonly<Record<number, NeighbourState>> = {
  [Nud.Permanent]: 'PERMANENT',
  [Nud.Reachable]: 'REACHABLE',
  [Nud.Stale]: 'STALE',
  [Nud.Delay]: 'DELAY',
  [Nud.Probe]: 'PROBE',
  [Nud.Incomplete]: 'INCOMPLETE',
  [Nud.Failed]: 'FAILED',
};

/** A neighbour by hand is permanent, as `ip neigh add … lladdr …` makes it. */
export function addNeighbour(
  link: LinkLayer,
  device: string,
  address: string,
  mac: string | undefined,
  canReplace: boolean,
): IpErrno | null {
  const table = link.neighbours;
  const ifc = link.findInterface(device);
  if (ifc === undefined) return 'ENODEV';
  const ip = parseIp4(address);
  const parsed = mac === undefined ? undefined : parseMac(mac);
  if (ip === undefined || parsed === undefined || !ifc.hasNeighbours) return 'EINVAL';
  let row = table.find(ifc.id, ip);
  if (row !== NONE && !canReplace) return 'EEXIST';
  if (row === NONE) row = table.add(ifc.id, ip, link.now);
  // The kernel says ENOBUFS when the table is full; IpErrno has no such word.
  if (row === NONE) return 'EINVAL';
  const state = table.state[row];
  if (state === Nud.Permanent || state === Nud.Free) table.state[row] = Nud.Failed;
  learn(link, ifc, row, parsed.hi, parsed.lo, Nud.Reachable, true);
  table.state[row] = Nud.Permanent;
  return null;
}

/** A neighbour that an earlier life of the daemon knew: to be asked again when it is used, but packets need not wait for that. */
export function recallNeighbour(link: LinkLayer, { device, address, mac = '', state }: NeighbourRow): void {
  if (state === 'PERMANENT') {
    addNeighbour(link, device, address, mac, true);
    return;
  }
  const ifc = link.findInterface(device);
  const ip = parseIp4(address);
  const known = parseMac(mac);
  if (ifc === undefined || !ifc.hasNeighbours || ip === undefined || known === undefined) return;
  if (link.neighbours.find(ifc.id, ip) !== NONE) return;
  const row = link.neighbours.add(ifc.id, ip, link.now);
  if (row !== NONE) learn(link, ifc, row, known.hi, known.lo, Nud.Stale, true);
}

export function delNeighbour(link: LinkLayer, device: string, address: string): IpErrno | null {
  const ifc = link.findInterface(device);
  if (ifc === undefined) return 'ENODEV';
  const ip = parseIp4(address);
  if (ip === undefined) return 'EINVAL';
  const row = link.neighbours.find(ifc.id, ip);
  if (row === NONE) return 'ENOENT';
  forget(link, row, Drop.NeighbourFailed);
  return null;
}

/** As `ip neigh flush`: permanent ones stay. */
export function flushNeighbours(link: LinkLayer, device: string | undefined): IpErrno | null {
  const ifc = device === undefined ? undefined : link.findInterface(device);
  if (device !== undefined && ifc === undefined) return 'ENODEV';
  forgetNeighbours(link, ifc?.id, false);
  return null;
}

/** All neighbours of an interface, or of every one. */
export function forgetNeighbours(link: LinkLayer, device: number | undefined, alsoPermanent: boolean): void {
  const table = link.neighbours;
  for (let row = 0; row < table.top; row++) {
    const state = table.state[row]!;
    if (state === Nud.Free || (device !== undefined && table.device[row] !== device)) continue;
    if (state !== Nud.Permanent || alsoPermanent) forget(link, row, Drop.DeviceGone);
  }
}

export function* listNeighbours(link: LinkLayer): ListSteps<NeighbourRow> {
  const table = link.neighbours;
  let rows: NeighbourRow[] = [];
  for (let row = 0; row < table.top; row++) {
    const state = table.state[row]!;
    if (row % ROWS === ROWS - 1) {
      yield rows;
      rows = [];
    }
    if (state === Nud.Free) continue;
    rows.push({
      device: link.interfaces[table.device[row]!]?.name ?? 'lo',
      address: formatIp4(table.ip[row]!),
      mac: state <= LAST_VALID ? formatMac(table.macHi[row]!, table.macLo[row]!) : undefined,
      state: STATE_NAME[state]!,
    });
  }
  return rows;
}
