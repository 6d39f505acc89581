/**
 * All that an operator has told an engine, as one text, and back into an engine that is new: devices, addresses, routes, neighbours, sysctls, timeouts, daemons, rules.
 * Services and servers are not here: they stand in columns (director/inherit.ts). Not per packet.
 */
import type { ListSteps } from '../base/slices.ts';
import { type DirectorSettings, settingsOf } from '../director/inherit.ts';
import { recallNeighbour } from '../ip/neighbour-control.ts';
import type { AddressRow, IpCommand, LinkRow, NeighbourRow, RouteRow } from '../model/ip.ts';
import type { TableCommand, TableRow } from '../model/iptables.ts';
import type { DaemonRow } from '../model/ipvs.ts';
import type { Engine } from './engine.ts';
import type { DeviceSpec } from './messages.ts';

const MOST_ENTRIES = 'net.netfilter.nf_conntrack_max';
const ENTRY_ROWS = 'net.netfilter.nf_conntrack_buckets';
const MAXIMA = [MOST_ENTRIES, 'net.nf_conntrack_max'];

/** The engine's settings but for rules. */
export interface KeptSettings {
  readonly devices: readonly (DeviceSpec & { readonly id: number })[];
  readonly links: readonly LinkRow[];
  readonly addresses: readonly AddressRow[];
  readonly routes: readonly RouteRow[];
  readonly neighbours: readonly NeighbourRow[];
  readonly sysctls: readonly (readonly [string, string])[];
  readonly director: DirectorSettings;
  readonly daemons: readonly DaemonRow[];
}

/** As JSON; in pieces where lists are long, of which some are empty. */
export function* readSettings(engine: Engine, devices: readonly DeviceSpec[]): Iterable<string> {
  const { ip, director } = engine;
  const idOf = (name: string): number => engine.stack.link.findInterface(name)?.id ?? -1;
  const short: Omit<KeptSettings, 'addresses' | 'routes' | 'neighbours'> = {
    devices: devices.map((spec) => ({ ...spec, id: idOf(spec.name) })),
    links: ip.listLinks(),
    sysctls: engine.listSysctls(),
    director: settingsOf(director),
    daemons: director.listDaemons(),
  };
  let text = JSON.stringify(short).slice(0, -1);
  text = yield* withList(text, 'addresses', ip.addressesInSteps());
  text = yield* withList(text, 'routes', ip.routesInSteps());
  text = yield* withList(text, 'neighbours', ip.neighboursInSteps(), ({ mac }) => mac !== undefined);
  yield `${text}}`;
}

/** A list behind other members of an object; answers what was not told yet. */
function* withList<Row>(
  before: string,
  name: keyof KeptSettings,
  steps: ListSteps<Row>,
  isKept: (row: Row) => boolean = () => true,
): Generator<string, string> {
  let text = `${before},"${name}":[`;
  for (let isFirst = true; ; ) {
    const { done, value } = steps.next();
    const rows = (value ?? []).filter(isKept);
    if (rows.length > 0) text += `${isFirst ? '' : ','}${JSON.stringify(rows).slice(1, -1)}`;
    isFirst &&= rows.length === 0;
    if (done === true) return `${text}]`;
    yield text;
    text = '';
  }
}

/** The devices are there already. */
export function restoreSettings(engine: Engine, kept: KeptSettings): void {
  const { ip, stack } = engine;
  restoreSysctls(engine, kept.sysctls);
  restoreLinks(engine, kept.links);
  for (const { device, address, prefixLength } of kept.addresses) {
    ip.run({ op: 'addr-replace', device, address, prefixLength });
  }
  restoreRoutes(engine, kept.routes);
  for (const row of kept.neighbours) recallNeighbour(stack.link, row);
}

function restoreSysctls(engine: Engine, sysctls: KeptSettings['sysctls']): void {
  const now = new Map(engine.listSysctls());
  const then = new Map(sysctls);
  // Nobody has bounded the entries when there were as many as rows; there may be other rows now.
  const isBounded = then.get(MOST_ENTRIES) !== then.get(ENTRY_ROWS);
  const wanted = sysctls.filter(([key, value]) => now.get(key) !== value && (isBounded || !MAXIMA.includes(key)));
  // Some bound each other (ipfrag_low_thresh and ipfrag_high_thresh): what cannot be set yet can when the others are.
  for (const [key, value] of wanted.filter(([key, value]) => engine.setSysctl(key, value) !== null)) {
    engine.setSysctl(key, value);
  }
}

function restoreLinks({ ip }: Engine, links: readonly LinkRow[]): void {
  const there = new Map(ip.listLinks().map((row) => [row.name, row]));
  for (const { name, mtu, mac, up } of links) {
    const now = there.get(name);
    if (now === undefined || (now.mtu === mtu && now.mac === mac && now.up === up)) continue;
    const other: IpCommand = {
      op: 'link-set',
      device: name,
      mtu: now.mtu === mtu ? undefined : mtu,
      mac: now.mac === mac ? undefined : mac,
      up: now.up === up ? undefined : up,
    };
    ip.run(other);
  }
}

/** Addresses have brought their own; what was taken away of them goes again, what was added comes back: those without a gateway first, which others need. */
function restoreRoutes({ ip }: Engine, routes: readonly RouteRow[]): void {
  const nameOf = (route: RouteRow): string => JSON.stringify(route, Object.keys(route).sort());
  const wanted = new Set(routes.map(nameOf));
  const there = new Set<string>();
  for (const route of ip.listRoutes()) {
    if (wanted.has(nameOf(route))) there.add(nameOf(route));
    else ip.run({ op: 'route-del', route });
  }
  const missing = routes.filter((route) => !there.has(nameOf(route)));
  const direct = missing.filter(({ via }) => via === undefined);
  for (const route of [...direct, ...missing.filter(({ via }) => via !== undefined)]) {
    // Earlier versions kept lo for what goes nowhere.
    const isWay = route.type === 'unicast' || route.type === 'local' || route.type === 'broadcast';
    ip.run({ op: 'route-add', route: isWay ? route : { ...route, device: undefined } });
  }
}

/** The synchronisation daemons that ran, run again. */
export function restoreDaemons(engine: Engine, daemons: readonly DaemonRow[]): void {
  engine.executeIpvs(daemons.map((daemon) => ({ op: 'start-daemon', daemon }) as const));
}

/** Rules in one piece of their text. */
const RULES = 128;

/** All tables as JSON, in pieces that are short; each table as it is when it is begun. A long chain is there in several parts. */
export function* readRules({ filter }: Engine): Iterable<string> {
  yield '[';
  for (const [i, name] of filter.knownTables.entries()) {
    yield `${i === 0 ? '' : ','}{"name":"${name}","chains":[`;
    let isFirst = true;
    for (const chains of filter.pages(name, RULES)) {
      yield `${isFirst ? '' : ','}${JSON.stringify(chains).slice(1, -1)}`;
      isFirst = false;
    }
    yield ']}';
  }
  yield ']';
}

/** @returns tables that could not be had */
export function restoreRules(engine: Engine, tables: readonly TableRow[]): string[] {
  // The order in which they were asked for shows in iptables-save.
  return [...tables].reverse().flatMap(({ name, chains }) => {
    const own = new Set(chains.filter(({ policy }) => policy === null).map(({ name: chain }) => chain));
    const commands: TableCommand[] = [
      ...[...own].map((chain): TableCommand => ({ op: 'new-chain', chain })),
      ...chains.flatMap(({ name: chain, policy, packets, bytes, rules }): TableCommand[] => [
        ...(policy === null ? [] : [{ op: 'policy', chain, policy, counters: { packets, bytes } } as const]),
        ...rules.map(
          (rule): TableCommand => ({
            op: 'append',
            chain,
            rule: { words: rule.words, counters: { packets: rule.packets, bytes: rule.bytes } },
          }),
        ),
      ]),
    ];
    return engine.filter.change({ table: name, commands }) === null ? [] : [name];
  });
}
