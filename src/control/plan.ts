/**
 * From one configuration to the next as a list of small changes: what a reload does, and what `--dry-run` prints.
 *
 * Only the two files are compared. What was set at run time (`ipvsadm -A`, `tapvs ip addr add`) and stands in neither stays as it is. Whatever exists in
 * both is edited, never deleted and added again, so that its connections live on. A device must be made anew only when its nature changes (kind,
 * namespace, interface, offload, …); the flows over it survive that too, for the flow table does not know devices.
 */
import type { IpCommand } from '../model/ip.ts';
import { acceptingPolicies } from '../model/iptables.ts';
import type { DaemonSpec, IpvsCommand, LocalAddressSpec, ServerSpec, ServiceKey, ServiceSpec } from '../model/ipvs.ts';
import type { Config, DeviceConfig, RouteConfig, TableRules } from './config.ts';
import { EMPTY_TABLE, type IpvsService, type IpvsTable, serviceId } from './ipvs-table.ts';

/** One change. `text` is its line in the diff (`+ device front …`); empty when it only restores what another change took along. */
export type Action = { readonly text: string } & (
  | { readonly do: 'add-device'; readonly device: DeviceConfig }
  | { readonly do: 'del-device'; readonly device: DeviceConfig }
  /** MTU, MAC, bridge or the kernel's side of the host port. */
  | { readonly do: 'edit-device'; readonly from: DeviceConfig; readonly device: DeviceConfig }
  | { readonly do: 'ip'; readonly command: IpCommand }
  | { readonly do: 'sysctl'; readonly key: string; readonly value: string }
  /** Back to the value that it had before a file set it. */
  | { readonly do: 'reset-sysctl'; readonly key: string }
  | { readonly do: 'ipvs'; readonly command: IpvsCommand }
  /** A whole table of iptables at once. */
  | { readonly do: 'rules'; readonly rules: TableRules }
);

export type IpvsAction = Extract<Action, { readonly do: 'ipvs' }>;

/** The changes in the order in which they must be made. */
export function plan(from: Config | null, to: Config): readonly Action[] {
  const devices = planDevices(from?.devices ?? [], to.devices);
  const remade = new Set(devices.add.map((action) => action.device.name));
  const addresses = planAddresses(from, to, remade);
  // A route goes with the address or device that it led over: then each that should be there is said again.
  const isShaken = devices.del.length > 0 || devices.add.length > 0 || addresses.del.length > 0;
  const routes = planRoutes(from?.routes ?? [], to.routes, isShaken);
  return [
    // Before anything comes that they are to guard against.
    ...planRules(from?.rules ?? [], to.rules),
    ...routes.del,
    ...addresses.del,
    ...devices.del,
    ...devices.add,
    ...devices.edit,
    ...addresses.add,
    ...routes.add,
    ...planSysctls(from?.sysctl ?? new Map(), to.sysctl),
    ...planIpvs(from?.ipvs ?? EMPTY_TABLE, to.ipvs),
    ...planDaemons(from?.ipvs ?? EMPTY_TABLE, to.ipvs, remade),
  ];
}

/** What the operator is told: one line for each change. */
export function planText(actions: readonly Action[]): string[] {
  return actions.map((action) => action.text).filter((text) => text !== '');
}

// ---------------------------------------------------------------------------------------------------------------------

function planDevices(from: readonly DeviceConfig[], to: readonly DeviceConfig[]) {
  const old = new Map(from.map((device) => [device.name, device]));
  const names = new Set(to.map((device) => device.name));
  const del: (Action & { do: 'del-device' })[] = [];
  const add: (Action & { do: 'add-device' })[] = [];
  const edit: (Action & { do: 'edit-device' })[] = [];
  for (const device of from) {
    if (!names.has(device.name)) del.push({ do: 'del-device', device, text: `- device ${deviceText(device)}` });
  }
  for (const device of to) {
    const before = old.get(device.name);
    if (before === undefined) {
      add.push({ do: 'add-device', device, text: `+ device ${deviceText(device)}` });
    } else if (nature(before) !== nature(device)) {
      del.push({ do: 'del-device', device: before, text: `- device ${deviceText(before)}` });
      add.push({ do: 'add-device', device, text: `+ device ${deviceText(device)}` });
    } else {
      const changes = changed(before, device, ['mtu', 'mac', 'bridge', 'peer']);
      if (changes !== '')
        edit.push({ do: 'edit-device', from: before, device, text: `~ device ${device.name} ${changes}` });
    }
  }
  return { del, add, edit };
}

/** What cannot change while the device lives. */
function nature(device: DeviceConfig): string {
  const { kind, netns, host, offload, persist } = device;
  return JSON.stringify([kind, netns, device.interface ?? null, host, offload, persist]);
}

function deviceText(device: DeviceConfig): string {
  const words = [device.name, device.kind];
  if (device.host) words.push('host');
  if (device.interface !== undefined) words.push(`interface ${device.interface}`);
  if (device.netns !== null) words.push(`netns ${device.netns}`);
  if (device.mac !== undefined) words.push(`mac ${device.mac}`);
  if (device.bridge !== undefined) words.push(`bridge ${device.bridge}`);
  words.push(`mtu ${device.mtu}`);
  if (device.peer !== undefined) words.push(`peer ${device.peer}`);
  if (!device.offload) words.push('offload off');
  return words.join(' ');
}

// ---------------------------------------------------------------------------------------------------------------------

/** `lo` holds the addresses of no device. */
function addressesOf(config: Config | null): Map<string, { device: string; cidr: string }> {
  const all = new Map<string, { device: string; cidr: string }>();
  if (config === null) return all;
  const add = (device: string, cidr: string): unknown => all.set(`${device} ${cidr}`, { device, cidr });
  for (const device of config.devices) for (const cidr of device.addresses) add(device.name, cidr);
  for (const cidr of config.addresses) add('lo', cidr);
  return all;
}

function planAddresses(from: Config | null, to: Config, remade: ReadonlySet<string>) {
  const old = addressesOf(from);
  const wanted = addressesOf(to);
  const kept = new Set(to.devices.map((device) => device.name));
  const del: Action[] = [];
  const add: Action[] = [];
  for (const [id, { device, cidr }] of old) {
    if (wanted.has(id)) continue;
    // The addresses of a device that goes, go with it.
    if (device !== 'lo' && (!kept.has(device) || remade.has(device))) continue;
    del.push({ do: 'ip', command: addressCommand('addr-del', device, cidr), text: `- address ${cidr} dev ${device}` });
  }
  for (const [id, { device, cidr }] of wanted) {
    const isNew = !old.has(id);
    if (!isNew && !remade.has(device)) continue;
    const text = isNew ? `+ address ${cidr} dev ${device}` : '';
    add.push({ do: 'ip', command: addressCommand('addr-replace', device, cidr), text });
  }
  return { del, add };
}

function addressCommand(op: 'addr-replace' | 'addr-del', device: string, cidr: string): IpCommand {
  const [address = '', length = '32'] = cidr.split('/');
  return { op, device, address, prefixLength: Number(length) };
}

function planRoutes(from: readonly RouteConfig[], to: readonly RouteConfig[], repeatAll: boolean) {
  const old = new Map(from.map((route) => [routeId(route), route]));
  const wanted = new Map(to.map((route) => [routeId(route), route]));
  const del: Action[] = [];
  const add: Action[] = [];
  for (const [id, route] of old) {
    if (wanted.has(id)) continue;
    del.push({ do: 'ip', command: routeCommand('route-del', route), text: `- route ${routeText(route)}` });
  }
  for (const [id, route] of wanted) {
    const before = old.get(id);
    const isSame = before !== undefined && routeText(before) === routeText(route);
    if (isSame && !repeatAll) continue;
    const changes = before === undefined ? '' : `~ route ${routeText(before)} → ${routeText(route)}`;
    const text = before === undefined ? `+ route ${routeText(route)}` : isSame ? '' : changes;
    add.push({ do: 'ip', command: routeCommand('route-replace', route), text });
  }
  return { del, add };
}

/** What `ip route replace` replaces by. */
function routeId(route: RouteConfig): string {
  return `${route.to} ${route.metric}`;
}

function routeText(route: RouteConfig): string {
  const words = route.type === 'unicast' ? [route.to] : [route.type, route.to];
  if (route.via !== undefined) words.push(`via ${route.via}`);
  if (route.dev !== undefined) words.push(`dev ${route.dev}`);
  if (route.src !== undefined) words.push(`src ${route.src}`);
  if (route.metric !== 0) words.push(`metric ${route.metric}`);
  return words.join(' ');
}

function routeCommand(op: 'route-replace' | 'route-del', route: RouteConfig): IpCommand {
  const { to, via, dev, src, metric, type } = route;
  return { op, route: { to, via, device: dev, source: src, metric, type, protocol: 'static' } };
}

// ---------------------------------------------------------------------------------------------------------------------

function planSysctls(from: ReadonlyMap<string, string>, to: ReadonlyMap<string, string>): Action[] {
  const actions: Action[] = [];
  for (const [key, value] of from) {
    if (!to.has(key)) actions.push({ do: 'reset-sysctl', key, text: `- sysctl ${key} = ${value}` });
  }
  for (const [key, value] of to) {
    const before = from.get(key);
    if (before === value) continue;
    const text = before === undefined ? `+ sysctl ${key} = ${value}` : `~ sysctl ${key} ${before} → ${value}`;
    actions.push({ do: 'sysctl', key, value, text });
  }
  return actions;
}

// ---------------------------------------------------------------------------------------------------------------------

/** Tables that differ are made anew, each in one step; what was changed in them at run time goes with that. */
function planRules(from: readonly TableRules[], to: readonly TableRules[]): Action[] {
  const actions: Action[] = [];
  for (const { table } of from) {
    if (to.some((rules) => rules.table === table)) continue;
    const commands = [...acceptingPolicies(table), { op: 'flush' as const }, { op: 'delete-chain' as const }];
    actions.push({ do: 'rules', rules: { table, commands }, text: `- iptables ${table}` });
  }
  for (const rules of to) {
    const before = from.find(({ table }) => table === rules.table);
    if (before !== undefined && JSON.stringify(before) === JSON.stringify(rules)) continue;
    const text =
      before === undefined ? `+ iptables ${rulesText(rules)}` : `~ iptables ${rulesText(before)} → ${rulesText(rules)}`;
    actions.push({ do: 'rules', rules, text });
  }
  return actions;
}

function rulesText({ table, commands }: TableRules): string {
  const rules = commands.filter(({ op }) => op === 'append' || op === 'insert').length;
  return `${table} ${rules} ${rules === 1 ? 'rule' : 'rules'}`;
}

/** From one table to the other: what stays is not touched, what differs is edited. */
export function planIpvs(from: IpvsTable, to: IpvsTable): IpvsAction[] {
  const actions: IpvsAction[] = [];
  for (const [id, { spec }] of from.services) {
    if (to.services.has(id)) continue;
    actions.push({ do: 'ipvs', command: { op: 'delete-service', service: spec.key }, text: `- service ${id}` });
  }
  for (const [id, service] of to.services) {
    const before = from.services.get(id);
    const { spec } = service;
    const edit = planService(id, before?.spec, spec);
    const others = [...planLocals(spec.key, before, service), ...planServers(spec.key, before, service)];
    actions.push(
      ...(before !== undefined && isEditedLast(before, service) ? [...others, ...edit] : [...edit, ...others]),
    );
  }
  actions.push(...planTimeouts(from.timeouts, to.timeouts));
  return actions;
}

/**
 * One-packet scheduling may begin when no server is by full NAT any more, and must have ended before one is. mh takes so many servers only: it comes when those are
 * gone that go.
 */
function isEditedLast(from: IpvsService, to: IpvsService): boolean {
  if (from.spec.ops !== to.spec.ops) return to.spec.ops;
  return to.spec.scheduler === 'mh' && from.spec.scheduler !== 'mh';
}

function planService(id: string, before: ServiceSpec | undefined, spec: ServiceSpec): IpvsAction[] {
  if (before === undefined) {
    const text = `+ service ${serviceText(spec)}`;
    return [{ do: 'ipvs', command: { op: 'add-service', service: spec }, text }];
  }
  const changes = changed(serviceFacts(before), serviceFacts(spec));
  if (changes === '') return [];
  return [{ do: 'ipvs', command: { op: 'edit-service', service: spec }, text: `~ service ${id} ${changes}` }];
}

/** Before the servers, for new ones may need them. */
function planLocals(service: ServiceKey, from: IpvsService | undefined, to: IpvsService): IpvsAction[] {
  const actions: IpvsAction[] = [];
  const name = serviceName(service);
  for (const address of from?.locals.keys() ?? []) {
    if (to.locals.has(address)) continue;
    const command: IpvsCommand = { op: 'delete-local-address', service, local: { address } };
    actions.push({ do: 'ipvs', command, text: `- local address ${name} ← ${address}` });
  }
  for (const [address, local] of to.locals) {
    const before = from?.locals.get(address);
    const changes = before === undefined ? '' : changed(localFacts(before), localFacts(local));
    if (before !== undefined && changes === '') continue;
    const facts = factsText(localFacts(local));
    const what = `local address ${name} ← ${address}`;
    const text = before !== undefined ? `~ ${what} ${changes}` : facts === '' ? `+ ${what}` : `+ ${what} ${facts}`;
    const op = before === undefined ? 'add-local-address' : 'edit-local-address';
    actions.push({ do: 'ipvs', command: { op, service, local }, text });
  }
  return actions;
}

function localFacts({ ports, device }: LocalAddressSpec): Facts {
  return { ports: ports === undefined ? undefined : `${ports.from}-${ports.to}`, dev: device };
}

function serviceName(service: ServiceKey): string {
  return service.kind === 'fwmark' ? serviceId(service) : `${service.address}:${service.port}`;
}

function planServers(service: ServiceKey, from: IpvsService | undefined, to: IpvsService): IpvsAction[] {
  const actions: IpvsAction[] = [];
  const name = serviceName(service);
  // New ones before old ones go, so that the service is never without a server.
  for (const [id, server] of to.servers) {
    const before = from?.servers.get(id);
    if (before === undefined) {
      const text = `+ server ${name} → ${id} ${factsText(serverFacts(server))}`;
      actions.push({ do: 'ipvs', command: { op: 'add-server', service, server }, text });
      continue;
    }
    const changes = changed(serverFacts(before), serverFacts(server));
    if (changes === '') continue;
    const text = `~ server ${name} → ${id} ${changes}`;
    actions.push({ do: 'ipvs', command: { op: 'edit-server', service, server }, text });
  }
  for (const [id, server] of from?.servers ?? []) {
    if (to.servers.has(id)) continue;
    const command: IpvsCommand = { op: 'delete-server', service, server: server.key };
    actions.push({ do: 'ipvs', command, text: `- server ${name} → ${id}` });
  }
  return actions;
}

function planTimeouts(from: IpvsTable['timeouts'], to: IpvsTable['timeouts']): IpvsAction[] {
  const wanted = Object.fromEntries(Object.entries(to).filter(([, value]) => value !== 0));
  if (changed<Record<string, number>>({ ...from }, wanted) === '') return [];
  const text = `~ timeouts tcp ${to.tcp} tcpfin ${to.tcpFin} udp ${to.udp} (0 = unchanged)`;
  return [{ do: 'ipvs', command: { op: 'set-timeouts', ...to }, text }];
}

/** A daemon whose settings change is stopped and started; one whose device is made anew stopped with it. */
function planDaemons(from: IpvsTable, to: IpvsTable, remade: ReadonlySet<string>): Action[] {
  const actions: Action[] = [];
  const stop = (role: DaemonSpec['role'], text: string): Action => ({
    do: 'ipvs',
    command: { op: 'stop-daemon', role },
    text,
  });
  for (const role of ['master', 'backup'] as const) {
    const before = from.daemons.get(role);
    const daemon = to.daemons.get(role);
    if (daemon === undefined) {
      if (before !== undefined) actions.push(stop(role, `- sync daemon ${role}`));
      continue;
    }
    const changes = before === undefined ? '' : changed(daemonFacts(before), daemonFacts(daemon));
    if (before !== undefined && changes === '' && !remade.has(daemon.device)) continue;
    const isNew = before === undefined || changes === '';
    if (!isNew) actions.push(stop(role, ''));
    const text = isNew ? `+ sync daemon ${role} ${factsText(daemonFacts(daemon))}` : `~ sync daemon ${role} ${changes}`;
    actions.push({ do: 'ipvs', command: { op: 'start-daemon', daemon }, text });
  }
  return actions;
}

function daemonFacts({ device, syncId, maxLength, group, port, ttl }: DaemonSpec): Facts {
  return { device, syncid: syncId, maxlen: maxLength, group, port, ttl };
}

function serviceText(spec: ServiceSpec): string {
  return `${serviceId(spec.key)} ${factsText(serviceFacts(spec))}`;
}

type Facts = Readonly<Record<string, string | number | undefined>>;

function serviceFacts(spec: ServiceSpec): Facts {
  return {
    scheduler: spec.scheduler,
    flags: spec.schedulerFlags === 0 ? undefined : spec.schedulerFlags,
    persistent: spec.persistenceTimeout,
    netmask: spec.netmask,
    pe: spec.pe,
    ops: spec.ops ? 'on' : undefined,
  };
}

function serverFacts(spec: ServerSpec): Facts {
  const { tunnel } = spec;
  const isPlain = tunnel === undefined || (spec.method !== 'tunnel' && tunnel.type === 'ipip');
  return {
    method: spec.method,
    weight: spec.weight,
    'u-threshold': spec.upperThreshold === 0 ? undefined : spec.upperThreshold,
    'l-threshold': spec.lowerThreshold === 0 ? undefined : spec.lowerThreshold,
    tunnel: isPlain ? undefined : `${tunnel.type} ${tunnel.port} ${tunnel.checksum}`,
  };
}

function factsText(facts: Facts): string {
  return Object.entries(facts)
    .filter(([, value]) => value !== undefined)
    .map(([name, value]) => `${name} ${value}`)
    .join(' ');
}

/** `weight 1 → 2, mtu 1500 → 9000`; empty when the two agree in all `keys`. */
function changed<T extends object>(from: T, to: T, keys = Object.keys(to) as (keyof T & string)[]): string {
  return keys
    .filter((key) => from[key] !== to[key])
    .map((key) => `${key} ${from[key] ?? 'none'} → ${to[key] ?? 'none'}`)
    .join(', ');
}
