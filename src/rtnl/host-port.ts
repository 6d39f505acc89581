// The kernel's side of the host port: how a namespace's own programs and tapvs share addresses over a TUN.
//
// tapvs owns the local addresses (VIPs, its addresses on the segments); the kernel must not own them, or it would serve
// them itself and answer ARP for them. Yet sockets must be able to accept what tapvs sends up the TUN to such an address
// and to answer from it. With the TUN `host`, the kernel's address 10.0.3.2 and a local address A:
//
//   address  A/32 dev host                        A may be a packet's source: the kernel looks that up in its list of
//                                                 addresses (net/ipv4/devinet.c, __ip_dev_find), not in a table …
//   (absent) local A table local                  … so the route that came with the address can go: for the rest of the
//                                                 kernel A is then not local (no ARP answers, no short cut over lo)
//   rule     5  iif host      lookup 7791         what comes up the TUN to A is local all the same:
//   route    local A dev host table 7791             sockets, ICMP echo, RST and port unreachable
//   rule     6  from A        lookup 7792         what a socket answers from A (or from 10.0.3.2) goes down the TUN,
//   route    default dev host table 7792          whatever the destination
//   route    A dev host src 10.0.3.2              `curl A` goes down the TUN as well
//   route    PREFIX dev host src 10.0.3.2 metric 4242
//                                                 so does what tapvs can reach and the kernel cannot: a route of the
//                                                 kernel's own to the same prefix has a smaller metric and wins
//
// Seen on kernel 6.18, for rp_filter 0, 1 and 2 alike (netns-tests/host-port.test.ts repeats it). The reverse-path check
// asks for the route back, from A or 10.0.3.2 to the sender: rule 6 says the TUN, the device where the packet came from.
// The replies of `curl A` have the source A, which is no martian, because for that look-up A is not local.
// accept_local is not needed. The kernel puts `local A` back when the TUN goes down and up: configure again then.
//
// What stays different from an address that the kernel owns: bind(A) is refused (it looks into table local), unless
// net.ipv4.ip_nonlocal_bind=1 or the program sets IP_FREEBIND; listeners on 0.0.0.0 need neither. A UDP socket on
// 0.0.0.0 answers from 10.0.3.2, as on every host with several addresses, unless it uses IP_PKTINFO.
import { formatPrefix, type Ip4, ip4, netmask } from '../wire/addr.ts';
import { ROUTE_TYPES, type RuleSpec, splitCidr, Table } from './message.ts';
import type { ListedRoute, Route, Rtnl } from './rtnl.ts';

/** Marks the routes that are ours (rtm_protocol; `ip route show proto 79`). */
export const HOST_PORT_PROTOCOL = 79;
/** Behind every route that somebody else made to the same prefix. */
const MIRROR_METRIC = 4242;

export interface HostPortConfig {
  /** The TUN. It must exist; it is set up. */
  readonly device: string;
  /** The kernel's own address and prefix length: `10.0.3.2/30`. */
  readonly peer: string;
  /** Every address that tapvs holds as its own, on any device. */
  readonly localAddresses: readonly string[];
  /** Networks that tapvs reaches: connected and routed ones. Host bits are ignored. */
  readonly prefixes: readonly string[];
  /** Whether tapvs has a default route. */
  readonly hasDefault: boolean;
  /** Routing tables for what comes up and what goes down; default 7791 and 7792. Two tapvs in one namespace differ here. */
  readonly tables?: { readonly up: number; readonly down: number };
  /** Priority of the first of the two rules; default 5. */
  readonly rulePriority?: number;
}

/** tapvs and another device of the namespace would both hold this address. */
export class HostPortConflict extends Error {
  override readonly name = 'HostPortConflict';
  readonly address: string;
  readonly device: string;

  constructor(address: string, device: string) {
    super(`${address} is an address of ${device} in this namespace: remove it there, or give tapvs another one`);
    this.address = address;
    this.device = device;
  }
}

/** One change, in the words of ip(8), and how to make it. */
export interface HostPortStep {
  readonly text: string;
  readonly run: (rtnl: Rtnl) => Promise<void>;
}

/** What the kernel should have. */
interface Wanted {
  readonly addresses: readonly string[];
  readonly routes: readonly Route[];
  readonly rules: readonly RuleSpec[];
}

function settings(config: HostPortConfig): { up: number; down: number; priority: number } {
  return { ...(config.tables ?? { up: 7791, down: 7792 }), priority: config.rulePriority ?? 5 };
}

function wanted(config: HostPortConfig): Wanted {
  const { device: dev, peer } = config;
  const { up, down, priority } = settings(config);
  const src = splitCidr(peer).address;
  const protocol = HOST_PORT_PROTOCOL;
  const locals = [...new Set(config.localAddresses.map((text) => splitCidr(text).address))];
  const mirrored = [...config.prefixes.map(network), ...(config.hasDefault ? ['default'] : [])];
  const prefixes = [...new Set(mirrored)].filter((prefix) => prefix !== network(peer) && !prefix.endsWith('/32'));
  const hosts = [...new Set(mirrored)].filter((prefix) => prefix.endsWith('/32'));
  const reachable = [...prefixes, ...hosts.filter((host) => !locals.includes(splitCidr(host).address))];
  return {
    addresses: [peer, ...locals.map((address) => `${address}/32`)],
    routes: [
      { to: 'default', dev, table: down, protocol },
      ...locals.map((address): Route => ({ to: `${address}/32`, type: 'local', dev, table: up, protocol })),
      ...locals.map((address): Route => ({ to: `${address}/32`, dev, table: Table.Main, src, protocol })),
      ...reachable.map((to): Route => ({ to, dev, table: Table.Main, src, metric: MIRROR_METRIC, protocol })),
    ],
    rules: [
      { priority, table: up, iif: dev },
      ...[src, ...locals].map((address): RuleSpec => ({ priority: priority + 1, table: down, from: `${address}/32` })),
    ],
  };
}

/** The prefix without host bits. @throws RangeError */
function network(text: string): string {
  const { address, length } = splitCidr(text);
  return length === 0 ? 'default' : formatPrefix({ ip: (ip4(address) & netmask(length)) as Ip4, length });
}

const routeKey = (route: Pick<ListedRoute, 'to' | 'table'> & { metric?: number | undefined }): string =>
  `${route.to} table ${route.table} metric ${route.metric ?? 0}`;
const ruleKey = (rule: { priority: number; table: number; iif?: string | null; from?: string | null }): string =>
  `${rule.priority} from ${rule.from ?? 'all'} iif ${rule.iif ?? 'any'} lookup ${rule.table}`;
const isMissing = (error: unknown): boolean => error instanceof Error && 'code' in error && error.code === 'ESRCH';

/**
 * The steps from what the kernel has to what `config` wants; none when all is as it should be. Reads only.
 * @throws HostPortConflict when a local address is on another device; RtnlError ENODEV when there is no such device.
 */
export async function planHostPort(rtnl: Rtnl, config: HostPortConfig): Promise<HostPortStep[]> {
  const { device } = config;
  const { up, down } = settings(config);
  const want = wanted(config);
  const link = await rtnl.getLink(device);
  const addresses = await rtnl.listAddresses();
  const routes = await rtnl.listRoutes();
  const rules = (await rtnl.listRules()).filter((rule) => rule.table === up || rule.table === down);

  const wantedIps = new Set(want.addresses.map((cidr) => splitCidr(cidr).address));
  for (const { cidr, dev } of addresses) {
    const { address } = splitCidr(cidr);
    if (dev !== device && wantedIps.has(address)) throw new HostPortConflict(address, dev);
  }

  const steps: HostPortStep[] = [];
  const step = (text: string, run: HostPortStep['run']): void => {
    steps.push({ text, run });
  };

  // What is not wanted goes first, so that an address can change from one meaning to another in one go.
  const wantedRules = new Set(want.rules.map(ruleKey));
  for (const rule of rules) {
    if (wantedRules.has(ruleKey(rule))) continue;
    const { priority, table, iif, from } = rule;
    const spec = { priority, table, ...(iif !== null && { iif }), ...(from !== null && { from }) };
    step(`rule del ${ruleKey(rule)}`, (r) => r.delRule(spec));
  }
  const ours = routes.filter((route) => route.dev === device && route.protocol === HOST_PORT_PROTOCOL);
  const wantedRoutes = new Set(want.routes.map((route) => `${routeKey({ table: Table.Main, ...route })}`));
  for (const { to, table, metric } of ours) {
    if (wantedRoutes.has(routeKey({ to, table, metric }))) continue;
    step(`route del ${routeKey({ to, table, metric })}`, (r) => r.delRoute({ to, dev: device, table, metric }));
  }
  const held = addresses.filter((address) => address.dev === device).map((address) => address.cidr);
  for (const cidr of held) {
    if (!want.addresses.includes(cidr)) step(`address del ${cidr} dev ${device}`, (r) => r.delAddress(device, cidr));
  }

  if (!link.isUp) step(`link set ${device} up`, (r) => r.setLink(device, { up: true }));
  const [peer = '', ...locals] = want.addresses;
  if (!held.includes(peer)) step(`address add ${peer} dev ${device}`, (r) => r.addAddress(device, peer));
  // Rules and routes before the addresses: an address is never the kernel's for longer than two requests.
  const haveRules = new Set(rules.map(ruleKey));
  for (const rule of want.rules) {
    if (!haveRules.has(ruleKey(rule))) step(`rule add ${ruleKey(rule)}`, (r) => r.addRule(rule));
  }
  const haveRoutes = new Map(ours.map((route) => [routeKey(route), route]));
  for (const route of want.routes) {
    const have = link.isUp ? haveRoutes.get(routeKey({ table: Table.Main, ...route })) : undefined;
    if (have !== undefined && have.src === (route.src ?? null)) continue;
    step(`route replace ${routeKey({ table: Table.Main, ...route })}`, (r) => r.replaceRoute(route));
  }
  for (const cidr of locals) {
    const isHeld = held.includes(cidr);
    if (!isHeld) step(`address add ${cidr} dev ${device}`, (r) => r.addAddress(device, cidr));
    const isLocal = routes.some((route) => route.to === cidr && route.table === Table.Local && route.dev === device);
    if (isHeld && !isLocal && link.isUp) continue;
    step(`route del local ${cidr} table local`, (r) => delLocalRoute(r, device, cidr));
  }
  return steps;
}

async function delLocalRoute(rtnl: Rtnl, dev: string, to: string): Promise<void> {
  try {
    await rtnl.delRoute({ to, dev, table: Table.Local, type: 'local' });
  } catch (error) {
    if (!isMissing(error)) throw error;
  }
}

/**
 * Brings the namespace of `rtnl` to what `config` wants, from whatever is there: first use, a change of addresses or
 * prefixes at run time, leftovers of a crash. Idempotent.
 * @returns what was changed, in the words of ip(8)
 * @throws HostPortConflict, RtnlError
 */
export async function configureHostPort(rtnl: Rtnl, config: HostPortConfig): Promise<string[]> {
  const steps = await planHostPort(rtnl, config);
  for (const { run } of steps) await run(rtnl);
  return steps.map(({ text }) => text);
}

/**
 * Removes rules, routes and addresses of the host port. The routes and addresses also go with the TUN itself; the rules
 * do not, but are harmless without them. No error when the device is gone already.
 */
export async function removeHostPort(
  rtnl: Rtnl,
  config: Pick<HostPortConfig, 'device' | 'tables' | 'rulePriority'>,
): Promise<void> {
  const { up, down } = settings({ ...config, peer: '', localAddresses: [], prefixes: [], hasDefault: false });
  for (const { priority, table, iif, from } of await rtnl.listRules()) {
    if (table !== up && table !== down) continue;
    await rtnl.delRule({ priority, table, ...(iif !== null && { iif }), ...(from !== null && { from }) });
  }
  if ((await rtnl.findLink(config.device)) === null) return;
  for (const { to, table, metric, type, protocol, dev } of await rtnl.listRoutes()) {
    if (dev !== config.device || protocol !== HOST_PORT_PROTOCOL) continue;
    const isLocal = type === ROUTE_TYPES.local;
    await rtnl.delRoute({ to, dev, table, metric, ...(isLocal && { type: 'local' as const }) });
  }
  for (const { cidr } of await rtnl.listAddresses(config.device)) await rtnl.delAddress(config.device, cidr);
}
