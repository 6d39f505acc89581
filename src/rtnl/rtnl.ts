// Over 400 lines: one class is the whole door, each method a few lines; splitting it would part the queue from its users.
// rtnetlink by name: what `ip link`, `ip address`, `ip route`, `ip rule` and `ip neighbour` do, as promises.
//
// A thin class over the npm package `netlink` 0.3.0: the package owns the socket and the framing, message.ts the bodies;
// here live names instead of indexes, one request at a time (the kernel refuses a second dump on a socket with EBUSY),
// and errors with a code. A socket belongs to the namespace in which it was created: see OpenRtnlOptions.enter.
import { closeSync, openSync } from 'node:fs';
import { getSystemErrorMap } from 'node:util';
import {
  createNetlink,
  Flags,
  FlagsGet,
  FlagsNew,
  MessageType,
  type NetlinkSocket,
  Protocol,
  parseError,
} from 'netlink';
import {
  type AddressRecord,
  AF_INET,
  addressBody,
  addressDump,
  bridgeData,
  type DevConf,
  familyOf,
  type LinkRecord,
  type LinkSpec,
  linkBody,
  neighbourBody,
  type RouteRecord,
  type RouteSpec,
  RtmType,
  type RuleRecord,
  type RuleSpec,
  readAddress,
  readLink,
  readRoute,
  readRule,
  routeBody,
  routeDump,
  ruleBody,
  type Scope,
  vethData,
} from './message.ts';

/** How long the kernel may take to answer; it never does, but an answer lost to ENOBUFS must not hang us. */
const REQUEST_TIMEOUT_MS = 10_000;
const ADD = FlagsNew.CREATE | FlagsNew.EXCL;
const REPLACE = FlagsNew.CREATE | FlagsNew.REPLACE;

/** What the kernel refused, with its reason: `code` is 'EEXIST', 'ENODEV', 'EPERM', … or 'ETIMEDOUT'. */
export class RtnlError extends Error {
  override readonly name = 'RtnlError';
  readonly code: string;
  /** The words of the ip command: 'link add', 'route replace', … */
  readonly operation: string;
  /** What it was about: a device's name, a prefix, … */
  readonly subject: string;

  constructor(code: string, operation: string, subject: string) {
    super(`ip ${operation} ${subject}: ${describe(code)}`);
    this.code = code;
    this.operation = operation;
    this.subject = subject;
  }
}

function describe(code: string): string {
  if (code === 'EPERM') return 'EPERM: not permitted (needs CAP_NET_ADMIN in that network namespace)';
  for (const [name, text] of getSystemErrorMap().values()) if (name === code) return `${code}: ${text}`;
  return code;
}

export interface OpenRtnlOptions {
  /** Runs its argument with the thread inside the namespace wanted, e.g. `(fn) => withNetns(fd, fn)`. Default: here. */
  readonly enter?: <T>(fn: () => T) => T;
}

/** A link with names where the kernel has indexes. */
export interface Link extends Omit<LinkRecord, 'master'> {
  readonly master: string | null;
}

export interface LinkChange {
  readonly up?: boolean;
  readonly arp?: boolean;
  readonly mac?: string;
  readonly mtu?: number;
  /** Name of the bridge to join, null to leave it. */
  readonly master?: string | null;
  /** Move to this named namespace (a name under /run/netns, or a path). */
  readonly netns?: string;
  /** net.ipv4.conf.DEVICE.*: set as a value only; what the sysctl does besides (flush caches, turn LRO off) is not done. */
  readonly devconf?: DevConf;
}

export interface VethOptions {
  readonly mac?: string;
  readonly mtu?: number;
  readonly peerMac?: string;
  /** The namespace in which the peer is born. */
  readonly peerNetns?: string;
}

export interface AddressOptions {
  readonly peer?: string;
  readonly scope?: Scope;
  readonly noPrefixRoute?: boolean;
}

export interface Address extends Omit<AddressRecord, 'index'> {
  readonly dev: string;
}

export interface Route extends Omit<RouteSpec, 'index'> {
  readonly dev?: string;
}

export interface ListedRoute extends Omit<RouteRecord, 'index'> {
  readonly dev: string | null;
}

interface Request {
  readonly type: number;
  readonly flags: number;
  readonly body: Uint8Array;
  readonly operation: string;
  readonly subject: string;
}

/** One rtnetlink socket. Every method rejects with RtnlError when the kernel refuses, RangeError on unparsable text. */
export class Rtnl {
  readonly #socket: NetlinkSocket;
  #last: Promise<unknown> = Promise.resolve();

  constructor(options: OpenRtnlOptions = {}) {
    const create = (): NetlinkSocket => createNetlink(Protocol.ROUTE);
    this.#socket = options.enter === undefined ? create() : options.enter(create);
    // ENOBUFS and the like: the request in flight then ends by its time limit.
    this.#socket.on('error', () => {});
  }

  close(): void {
    this.#socket.close();
  }

  // --- links ---------------------------------------------------------------------------------------------------------

  /** Every link of the namespace, `lo` included. */
  async listLinks(): Promise<Link[]> {
    const bodies = await this.#dump(RtmType.GetLink, linkBody({}), 'link list', 'all');
    const records = bodies.map(readLink);
    const names = new Map(records.map((record) => [record.index, record.name]));
    return records.map((record) => ({ ...record, master: nameIn(names, record.master) }));
  }

  /** @throws RtnlError ENODEV when there is no such link. */
  async getLink(name: string): Promise<Link> {
    const record = await this.#linkRecord({ name }, name);
    const master = record.master === null ? null : (await this.#linkRecord({ index: record.master }, name)).name;
    return { ...record, master };
  }

  /** The link, or null when there is none of that name. */
  async findLink(name: string): Promise<Link | null> {
    try {
      return await this.getLink(name);
    } catch (error) {
      if (error instanceof RtnlError && error.code === 'ENODEV') return null;
      throw error;
    }
  }

  async createVeth(name: string, peerName: string, options: VethOptions = {}): Promise<void> {
    const { mac, mtu, peerMac, peerNetns } = options;
    await withNetnsFd(peerNetns, 'link add', name, (netnsFd) => {
      const both = { ...(mtu !== undefined && { mtu }) };
      const peer: LinkSpec = {
        name: peerName,
        ...both,
        ...(peerMac !== undefined && { mac: peerMac }),
        ...(netnsFd !== undefined && { netnsFd }),
      };
      const spec: LinkSpec = {
        name,
        ...both,
        ...(mac !== undefined && { mac }),
        kind: 'veth',
        kindData: vethData(peer),
      };
      return this.#change(RtmType.NewLink, ADD, linkBody(spec), 'link add', `${name} type veth peer ${peerName}`);
    });
  }

  /** A bridge that forwards at once and to all: no STP, no forward delay, no multicast snooping. Not yet up. */
  async createBridge(name: string, options: { readonly mac?: string; readonly mtu?: number } = {}): Promise<void> {
    const body = linkBody({ name, ...options, kind: 'bridge', kindData: bridgeData() });
    await this.#change(RtmType.NewLink, ADD, body, 'link add', `${name} type bridge`);
  }

  /** The other end of a veth goes with it. */
  async delLink(name: string): Promise<void> {
    await this.#change(RtmType.DelLink, 0, linkBody({ name }), 'link del', name);
  }

  async setLink(name: string, change: LinkChange): Promise<void> {
    const { master, netns, ...rest } = change;
    const index = (await this.#linkRecord({ name }, name)).index;
    const masterIndex = typeof master === 'string' ? await this.#indexOf(master) : master;
    await withNetnsFd(netns, 'link set', name, (netnsFd) => {
      const spec: LinkSpec = {
        index,
        ...rest,
        ...(masterIndex !== undefined && { master: masterIndex }),
        ...(netnsFd !== undefined && { netnsFd }),
      };
      return this.#change(RtmType.NewLink, 0, linkBody(spec), 'link set', name);
    });
  }

  // --- addresses (IPv4) ----------------------------------------------------------------------------------------------

  async addAddress(dev: string, cidr: string, options: AddressOptions = {}): Promise<void> {
    const body = addressBody({ index: await this.#indexOf(dev), cidr, ...options });
    await this.#change(RtmType.NewAddress, ADD, body, 'address add', `${cidr} dev ${dev}`);
  }

  /** Like addAddress, but no error when it is there. */
  async replaceAddress(dev: string, cidr: string, options: AddressOptions = {}): Promise<void> {
    const body = addressBody({ index: await this.#indexOf(dev), cidr, ...options });
    await this.#change(RtmType.NewAddress, REPLACE, body, 'address replace', `${cidr} dev ${dev}`);
  }

  async delAddress(dev: string, cidr: string, options: AddressOptions = {}): Promise<void> {
    const body = addressBody({ index: await this.#indexOf(dev), cidr, ...options });
    await this.#change(RtmType.DelAddress, 0, body, 'address del', `${cidr} dev ${dev}`);
  }

  /** The IPv4 addresses of one device, or of all. */
  async listAddresses(dev?: string): Promise<Address[]> {
    const bodies = await this.#dump(RtmType.GetAddress, addressDump(), 'address list', dev ?? 'all');
    const names = await this.#names();
    return bodies
      .filter((body) => familyOf(body) === AF_INET)
      .map(readAddress)
      .map(({ index, ...address }) => ({ ...address, dev: nameIn(names, index) ?? `if${index}` }))
      .filter((address) => dev === undefined || address.dev === dev);
  }

  // --- routes (IPv4) -------------------------------------------------------------------------------------------------

  async addRoute(route: Route): Promise<void> {
    await this.#changeRoute(RtmType.NewRoute, ADD, 'route add', route);
  }

  /** Takes the place of a route with the same prefix, table and metric. */
  async replaceRoute(route: Route): Promise<void> {
    await this.#changeRoute(RtmType.NewRoute, REPLACE, 'route replace', route);
  }

  /** Deletes the first route that has all that is named. @throws RtnlError ESRCH when there is none. */
  async delRoute(route: Route): Promise<void> {
    await this.#changeRoute(RtmType.DelRoute, 0, 'route del', route);
  }

  /** The IPv4 routes of one table, or of all tables. */
  async listRoutes(table?: number): Promise<ListedRoute[]> {
    const bodies = await this.#dump(RtmType.GetRoute, routeDump(), 'route list', `table ${table ?? 'all'}`);
    const names = await this.#names();
    return bodies
      .filter((body) => familyOf(body) === AF_INET)
      .map(readRoute)
      .map(({ index, ...route }) => ({ ...route, dev: nameIn(names, index) }))
      .filter((route) => table === undefined || route.table === table);
  }

  // --- rules (IPv4) --------------------------------------------------------------------------------------------------

  async addRule(rule: RuleSpec): Promise<void> {
    await this.#change(RtmType.NewRule, ADD, ruleBody(rule), 'rule add', formatRule(rule));
  }

  /** @throws RtnlError ENOENT when no rule has all that is named. */
  async delRule(rule: RuleSpec): Promise<void> {
    await this.#change(RtmType.DelRule, 0, ruleBody(rule), 'rule del', formatRule(rule));
  }

  async listRules(): Promise<RuleRecord[]> {
    const bodies = await this.#dump(RtmType.GetRule, routeDump(), 'rule list', 'all');
    return bodies.filter((body) => familyOf(body) === AF_INET).map(readRule);
  }

  // --- neighbours ----------------------------------------------------------------------------------------------------

  /** A permanent neighbour; replaces what was known of that address. */
  async addNeighbour(dev: string, address: string, mac: string): Promise<void> {
    const body = neighbourBody({ index: await this.#indexOf(dev), address, mac });
    await this.#change(RtmType.NewNeighbour, REPLACE, body, 'neighbour replace', `${address} dev ${dev}`);
  }

  // --- the socket ----------------------------------------------------------------------------------------------------

  async #changeRoute(type: number, flags: number, operation: string, route: Route): Promise<void> {
    const { dev, ...rest } = route;
    const spec: RouteSpec = { ...rest, ...(dev !== undefined && { index: await this.#indexOf(dev) }) };
    await this.#change(type, flags, routeBody(spec, type === RtmType.DelRoute), operation, formatRoute(route));
  }

  async #indexOf(name: string): Promise<number> {
    return (await this.#linkRecord({ name }, name)).index;
  }

  async #linkRecord(which: LinkSpec, subject: string): Promise<LinkRecord> {
    const body = linkBody(which);
    const [found] = await this.#request({ type: RtmType.GetLink, flags: 0, body, operation: 'link show', subject });
    if (found === undefined) throw new RtnlError('ENODEV', 'link show', subject);
    return readLink(found);
  }

  async #names(): Promise<Map<number, string>> {
    const bodies = await this.#dump(RtmType.GetLink, linkBody({}), 'link list', 'all');
    return new Map(bodies.map(readLink).map((link) => [link.index, link.name]));
  }

  async #change(type: number, flags: number, body: Uint8Array, operation: string, subject: string): Promise<void> {
    await this.#request({ type, flags, body, operation, subject });
  }

  #dump(type: number, body: Uint8Array, operation: string, subject: string): Promise<Buffer[]> {
    return this.#request({ type, flags: FlagsGet.DUMP, body, operation, subject });
  }

  /** Waits for its turn, sends, and returns the bodies of the answer's messages (none for a plain acknowledgement). */
  #request(request: Request): Promise<Buffer[]> {
    const turn = this.#last.then(() => this.#exchange(request));
    this.#last = turn.catch(() => {});
    return turn;
  }

  async #exchange(request: Request): Promise<Buffer[]> {
    const { type, flags, body, operation, subject } = request;
    const options = { flags: flags | Flags.REQUEST | Flags.ACK, checkError: false, timeout: REQUEST_TIMEOUT_MS };
    let messages: Awaited<ReturnType<NetlinkSocket['request']>>[0];
    try {
      [messages] = await this.#socket.request(type, body, options);
    } catch (error) {
      const code = error instanceof Error && 'code' in error ? String(error.code) : 'ETIMEDOUT';
      throw new RtnlError(code, operation, subject);
    }
    const [first] = messages;
    if (first?.type === MessageType.ERROR) {
      const { errno } = parseError(first.data, first.flags);
      if (errno === 0) return [];
      throw new RtnlError(getSystemErrorMap().get(errno)?.[0] ?? `errno ${-errno}`, operation, subject);
    }
    // Something changed while the kernel listed (NLM_F_DUMP_INTR): the list may lack or repeat entries.
    if (messages.some((message) => (message.flags & Flags.DUMP_INTR) !== 0)) return this.#exchange(request);
    return messages.map((message) => message.data);
  }
}

/** Opens a socket in the current namespace, or in the one that `enter` enters. @throws Error (with `code`) from socket(2) */
export function openRtnl(options: OpenRtnlOptions = {}): Rtnl {
  return new Rtnl(options);
}

/** A name under /run/netns, or a path, as a path. */
export function netnsPath(netns: string): string {
  return netns.includes('/') ? netns : `/run/netns/${netns}`;
}

async function withNetnsFd<T>(
  netns: string | undefined,
  operation: string,
  subject: string,
  use: (fd: number | undefined) => Promise<T>,
): Promise<T> {
  if (netns === undefined) return use(undefined);
  let fd: number;
  try {
    fd = openSync(netnsPath(netns), 'r');
  } catch (error) {
    const code = error instanceof Error && 'code' in error ? String(error.code) : 'EIO';
    throw new RtnlError(code, operation, `${subject} netns ${netns}`);
  }
  try {
    return await use(fd);
  } finally {
    closeSync(fd);
  }
}

function nameIn(names: ReadonlyMap<number, string>, index: number | null): string | null {
  return index === null || index === 0 ? null : (names.get(index) ?? `if${index}`);
}

function formatRoute(route: Route): string {
  const { type, to, via, dev, table, metric, src } = route;
  const words = [type, to, via && `via ${via}`, dev && `dev ${dev}`, table && `table ${table}`];
  return [...words, metric && `metric ${metric}`, src && `src ${src}`].filter(Boolean).join(' ');
}

function formatRule(rule: RuleSpec): string {
  const { priority, from, to, iif, oif, fwmark, table } = rule;
  const words = [`priority ${priority}`, from && `from ${from}`, to && `to ${to}`, iif && `iif ${iif}`];
  return [...words, oif && `oif ${oif}`, fwmark && `fwmark ${fwmark}`, `table ${table}`].filter(Boolean).join(' ');
}
