/** What must hold between several keys of the configuration. Each check answers faults, with paths below the thing that it was given. */
import { formatPrefix, isMulticast, isZeroNet, netmask, type Prefix, parseIp4, parsePrefix } from '../wire/addr.ts';
import type { DeviceConfig, RouteConfig } from './config.ts';
import type { Path } from './yaml-source.ts';

export interface Fault {
  readonly path: Path;
  readonly message: string;
}

/** A device that could be read, with its place in the list. */
export interface CheckedDevice {
  readonly index: number;
  readonly config: DeviceConfig;
}

export interface CheckedRoute {
  readonly index: number;
  readonly config: RouteConfig;
}

/** One device by itself. */
export function checkDevice(device: DeviceConfig): Fault[] {
  const faults: Fault[] = [];
  const fault = (key: string, message: string): number => faults.push({ path: [key], message });
  const { kind } = device;
  if (device.name === 'lo') fault('name', "'lo' is the name of the addresses that belong to no device: choose another");
  if (kind !== 'tap' && device.bridge !== undefined)
    fault('bridge', `only a tap can be a port of a bridge, not a ${kind}`);
  if (kind === 'packet' && device.interface === undefined) {
    faults.push({
      path: [],
      message: "a packet device needs 'interface': the name of the network interface to bind to",
    });
  }
  if (kind !== 'packet' && device.interface !== undefined) {
    fault('interface', `only a packet device is bound to an interface; a ${kind} is made by its name`);
  }
  if (kind === 'packet' && device.persist) fault('persist', 'a packet device makes no interface that could stay');
  if (kind === 'tun' && device.mac !== undefined) fault('mac', 'a tun carries no Ethernet frames and has no MAC');
  if (device.host && kind !== 'tun') fault('host', `the host port must be of kind tun, not ${kind}`);
  if (device.host && device.peer === undefined) {
    faults.push({ path: [], message: "the host port needs 'peer': the address of the kernel's side" });
  }
  if (device.host && device.addresses.length === 0) {
    faults.push({ path: [], message: "the host port needs 'addresses': tapvs's side of it" });
  }
  if (device.peer !== undefined) {
    const peer = parsePrefix(device.peer)!;
    const own = device.addresses.map((text) => parsePrefix(text)!);
    if (!device.host) fault('peer', "only the host port (host: true) has a kernel's side");
    else if (own.some((prefix) => prefix.ip === peer.ip)) fault('peer', `${device.peer} is also tapvs's own side`);
    else if (own.length > 0 && !own.some((prefix) => contains(prefix, peer.ip))) {
      fault('peer', `${device.peer} is in none of the device's networks (${device.addresses.join(', ')})`);
    }
  }
  return faults;
}

/** All devices together: names, MACs, one host port. */
export function checkDevices(devices: readonly CheckedDevice[]): Fault[] {
  const faults: Fault[] = [];
  const names = new Map<string, number>();
  const macs = new Map<string, string>();
  const interfaces = new Map<string, string>();
  let host: string | undefined;
  for (const { index, config } of devices) {
    const path = ['devices', index];
    const same = names.get(config.name);
    if (same !== undefined) {
      faults.push({ path: [...path, 'name'], message: `'${config.name}' is already the name of devices.${same}` });
    } else names.set(config.name, index);
    if (config.mac !== undefined) {
      const mac = config.mac.toLowerCase();
      const other = macs.get(mac);
      if (other !== undefined) faults.push({ path: [...path, 'mac'], message: `is already the MAC of '${other}'` });
      else macs.set(mac, config.name);
    }
    if (config.interface !== undefined) {
      const id = `${config.netns ?? ''} ${config.interface}`;
      const other = interfaces.get(id);
      if (other !== undefined) {
        faults.push({ path: [...path, 'interface'], message: `'${config.interface}' is already used by '${other}'` });
      } else interfaces.set(id, config.name);
    }
    if (config.host) {
      if (host !== undefined)
        faults.push({ path: [...path, 'host'], message: `there is one host port, and '${host}' is it` });
      else host = config.name;
    }
  }
  return faults;
}

/** No address twice, and no network on two devices: a packet to it would leave by either. */
export function checkAddresses(devices: readonly CheckedDevice[], addresses: readonly string[]): Fault[] {
  const faults: Fault[] = [];
  const owners = new Map<number, string>();
  const networks: { readonly prefix: Prefix; readonly device: string }[] = [];
  const own = (text: string, path: Path, owner: string): void => {
    const { ip } = parsePrefix(text)!;
    const other = owners.get(ip);
    if (other !== undefined) faults.push({ path, message: `${text.split('/')[0]} is already an address of ${other}` });
    else owners.set(ip, owner);
  };
  for (const { index, config } of devices) {
    for (const [i, text] of config.addresses.entries()) {
      const path = ['devices', index, 'addresses', i];
      own(text, path, `device '${config.name}'`);
      const prefix = parsePrefix(text)!;
      const met = networks.find((network) => network.device !== config.name && overlap(network.prefix, prefix));
      if (met !== undefined && owners.get(prefix.ip) === `device '${config.name}'`) {
        const message = `the network of ${text} overlaps ${formatPrefix(met.prefix)} of device '${met.device}'`;
        faults.push({ path, message });
      }
      if (prefix.length < 32) networks.push({ prefix, device: config.name });
    }
    if (config.peer !== undefined)
      own(config.peer, ['devices', index, 'peer'], `the kernel's side of '${config.name}'`);
  }
  for (const [i, text] of addresses.entries()) own(text, ['addresses', i], "'addresses'");
  return faults;
}

export function checkRoute(route: RouteConfig, devices: readonly CheckedDevice[]): Fault[] {
  const faults: Fault[] = [];
  const fault = (key: string, message: string): number => faults.push({ path: [key], message });
  const { via, dev, type } = route;
  const out = dev === undefined ? undefined : devices.find((device) => device.config.name === dev);
  if (dev !== undefined && out === undefined) fault('dev', `there is no device '${dev}'`);
  if (type !== 'unicast') {
    if (via !== undefined || dev !== undefined)
      fault('type', `a route of type ${type} leads nowhere: no 'via' and no 'dev'`);
    return faults;
  }
  if (via === undefined) {
    if (dev === undefined) faults.push({ path: [], message: "needs 'via' (a gateway) or 'dev' (a device)" });
    return faults;
  }
  const gateway = parseIp4(via)!;
  if (isMulticast(gateway) || isZeroNet(gateway)) fault('via', `${via} cannot be a gateway`);
  else if (dev === undefined || out !== undefined) {
    const candidates = out === undefined ? devices : [out];
    const nets = candidates.flatMap((device) => device.config.addresses.map((text) => parsePrefix(text)!));
    if (!nets.some((prefix) => contains(prefix, gateway))) {
      fault('via', `${via} is in no network of ${dev === undefined ? 'any device' : `device '${dev}'`}`);
    } else if (nets.some((prefix) => prefix.ip === gateway)) fault('via', `${via} is an address of tapvs itself`);
  }
  return faults;
}

function contains(prefix: Prefix, ip: number): boolean {
  return ((prefix.ip ^ ip) & netmask(prefix.length)) === 0;
}

/** Two /32 never overlap here: equal addresses are found as such. */
function overlap(a: Prefix, b: Prefix): boolean {
  const length = Math.min(a.length, b.length);
  return b.length < 32 && ((a.ip ^ b.ip) & netmask(length)) === 0;
}
