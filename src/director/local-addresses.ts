/**
 * Full NAT: the local addresses of each service, and the port that a new connection gets on one of them (DPVS: ip_vs_laddr.c, sa_pool.c).
 *
 *   client:cport → virtual:vport   becomes   local:lport → server:rport
 *
 * What tells a connection from others on the servers' side is (protocol, local:lport, server:rport). A port is free when the flow table has no row for its
 * answers, whoever would have made one; so there is nothing else to keep, and nothing to give back. Looking for one costs one look-up as a rule: ports are taken
 * in turn, and the one whose turn it is was used longest ago. Where it is taken still, the next looks go a long way each, for what is used lies together. After
 * PROBES looks a connection is refused: with one address, when about 99 of 100 ports are taken.
 */
import { copyState } from '../base/copy-state.ts';
import type { Rng } from '../base/rng.ts';
import { type FlowTable, NO_FLOW } from '../flow/flow-table.ts';
import type { Routing } from '../hooks/routing.ts';

/** As DPVS: MIN_PORT and MAX_PORT of sa_pool.c. */
export const FIRST_LOCAL_PORT = 1025;
export const LAST_LOCAL_PORT = 65535;
/** Looks at ports for one connection, over all addresses. */
const PROBES = 256;
/** Addresses that one connection tries (dp_vs_laddr_max_trails). */
const MOST_ADDRESSES = 16;
/** An address is known by 16 bits of a connection's column. */
const MAX_ADDRESSES = 65536;
/** Of a hundred connections, how many leave one address out, where the scheduler goes in turn too: else each server would meet the same addresses always. */
const LEAVES_OUT = 5;

export const NO_LOCAL = -1;

/** Why `choose` found nothing. */
export const LocalFault = { NoAddress: 0, NoPort: 1 } as const;

interface LocalAddress {
  readonly id: number;
  readonly ip: number;
  readonly low: number;
  readonly high: number;
  /** The device that the operator said has it; empty when nothing was said. */
  readonly device: string;
  /** From one look to the next; no divisor of it divides the number of ports. */
  readonly stride: number;
  /** Distance from `low` of the port whose turn it is. */
  next: number;
  conns: number;
  /** Looks that met a port in use. */
  conflicts: number;
  /** In the pool; an address that was taken out stays until its connections have ended. */
  isListed: boolean;
}

/** An address as a later life of the daemon finds it; `service` is -1 where it is in no pool any more. */
export interface KeptLocalAddress {
  readonly id: number;
  readonly service: number;
  readonly ip: number;
  readonly low: number;
  readonly high: number;
  readonly device: string;
}

interface Pool {
  readonly addresses: LocalAddress[];
  /** Whose turn it was. */
  at: number;
}

export interface LocalAddressState {
  readonly ip: number;
  readonly low: number;
  readonly high: number;
  readonly device: string;
  readonly conns: number;
  readonly conflicts: number;
}

export class LocalAddresses {
  /** What `choose` has found: the address, and the port. */
  ip = 0;
  port = 0;
  /** LocalFault. */
  fault: number = LocalFault.NoAddress;
  readonly #pools = new Map<number, Pool>();
  /** By id. */
  readonly #all: (LocalAddress | null)[] = [];
  readonly #freeIds: number[] = [];

  /** Addresses that can still be added. */
  get room(): number {
    return MAX_ADDRESSES - this.#all.length + this.#freeIds.length;
  }

  has(service: number, ip: number): boolean {
    return this.#find(service, ip) !== undefined;
  }

  /** A new address, the last of its service's pool, or the same one in its place with other ports. False when there is no room. */
  set(service: number, ip: number, low: number, high: number, device: string): boolean {
    const old = this.#find(service, ip);
    if (old !== undefined && old.low === low && old.high === high && old.device === device) return true;
    if (this.room === 0) return false;
    const id = this.#freeIds.pop() ?? this.#all.length;
    const stride = strideOf(high - low + 1);
    const address = { id, ip, low, high, device, stride, next: 0, conns: 0, conflicts: 0, isListed: true };
    this.#all[id] = address;
    const pool = this.#pools.get(service) ?? { addresses: [], at: 0 };
    this.#pools.set(service, pool);
    if (old === undefined) {
      pool.addresses.push(address);
      return true;
    }
    pool.addresses[pool.addresses.indexOf(old)] = address;
    this.#unlist(old);
    return true;
  }

  /** Connections keep what they have. False when it is not in the pool, or was added as another device's. */
  remove(service: number, ip: number, device: string): boolean {
    const address = this.#find(service, ip);
    if (address === undefined || (device !== '' && address.device !== device)) return false;
    const { addresses } = this.#pools.get(service)!;
    addresses.splice(addresses.indexOf(address), 1);
    if (addresses.length === 0) this.#pools.delete(service);
    this.#unlist(address);
    return true;
  }

  /** The service goes. */
  clear(service: number): void {
    for (const { ip } of this.list(service)) this.remove(service, ip, '');
  }

  isEmpty(service: number): boolean {
    return !this.#pools.has(service);
  }

  /** In the order in which they were added. */
  list(service: number): readonly LocalAddressState[] {
    return [...(this.#pools.get(service)?.addresses ?? [])];
  }

  /**
   * An address and a port for a connection to a server: `ip` and `port`.
   * @param isInTurn the service's scheduler goes from server to server
   * @returns the address's id; NO_LOCAL: see `fault`
   */
  choose(
    service: number,
    flows: FlowTable,
    routing: Routing,
    rng: Rng,
    proto: number,
    rip: number,
    rport: number,
    isInTurn: boolean,
  ): number {
    this.fault = LocalFault.NoAddress;
    const pool = this.#pools.get(service);
    if (pool === undefined) return NO_LOCAL;
    const { addresses } = pool;
    const count = Math.min(addresses.length, MOST_ADDRESSES);
    const probes = Math.ceil(PROBES / count);
    if (isInTurn && count > 1 && (rng.next() >>> 0) % 100 < LEAVES_OUT) pool.at++;
    for (let i = 0; i < count; i++) {
      pool.at = (pool.at + 1) % addresses.length;
      const address = addresses[pool.at]!;
      // One that is not ours any more would get no answers.
      if (!routing.resolve(address.ip) || !routing.isLocal) continue;
      this.fault = LocalFault.NoPort;
      if (this.#probe(address, probes, flows, proto, rip, rport)) return address.id;
    }
    return NO_LOCAL;
  }

  #probe(a: LocalAddress, most: number, flows: FlowTable, proto: number, rip: number, rport: number): boolean {
    const size = a.high - a.low + 1;
    let offset = a.next;
    a.next = offset + 1 === size ? 0 : offset + 1;
    for (let left = Math.min(most, size); left > 0; left--) {
      const port = a.low + offset;
      if (flows.find(rip, a.ip, (rport << 16) | port, proto) === NO_FLOW) {
        this.ip = a.ip;
        this.port = port;
        return true;
      }
      a.conflicts++;
      offset = (offset + a.stride) % size;
    }
    return false;
  }

  /** A connection has it. */
  bind(id: number): void {
    this.#all[id]!.conns++;
  }

  /** A connection of it has ended. */
  release(id: number): void {
    const address = this.#all[id]!;
    address.conns--;
    if (address.conns === 0 && !address.isListed) this.#forget(address);
  }

  #unlist(address: LocalAddress): void {
    address.isListed = false;
    if (address.conns === 0) this.#forget(address);
  }

  #forget({ id }: LocalAddress): void {
    this.#all[id] = null;
    this.#freeIds.push(id);
  }

  #find(service: number, ip: number): LocalAddress | undefined {
    return this.#pools.get(service)?.addresses.find((address) => address.ip === ip);
  }

  /** All of them, for another life of the daemon: those of a pool in their order. */
  listAll(): KeptLocalAddress[] {
    const kept = ({ id, ip, low, high, device }: LocalAddress, service: number): KeptLocalAddress => ({
      id,
      service,
      ip,
      low,
      high,
      device,
    });
    const gone = this.#all.flatMap((address) => (address === null || address.isListed ? [] : [kept(address, -1)]));
    return [...this.#pools].flatMap(([service, { addresses }]) => addresses.map((a) => kept(a, service))).concat(gone);
  }

  /** What an earlier life has left, under the same ids; the connections follow. */
  inherit(all: readonly KeptLocalAddress[]): void {
    for (const { id, service, ip, low, high, device } of all) {
      const isListed = service >= 0;
      const stride = strideOf(high - low + 1);
      const address = { id, ip, low, high, device, stride, next: 0, conns: 0, conflicts: 0, isListed };
      this.#all[id] = address;
      if (!isListed) continue;
      const pool = this.#pools.get(service);
      if (pool === undefined) this.#pools.set(service, { addresses: [address], at: 0 });
      else pool.addresses.push(address);
    }
    for (let id = 0; id < this.#all.length; id++) {
      this.#all[id] ??= null;
      if (this.#all[id] === null) this.#freeIds.push(id);
    }
  }

  /** Is there an address with this id? */
  isKnown(id: number): boolean {
    return (this.#all[id] ?? null) !== null;
  }

  /** Connections have come back: an address that is in no pool, and that none of them has, goes. */
  forgetUnused(): void {
    for (const address of this.#all)
      if (address !== null && !address.isListed && address.conns === 0) this.#forget(address);
  }

  copyFrom(live: LocalAddresses): void {
    copyState<LocalAddresses>(this, live);
    this.#all.length = 0;
    for (const address of live.#all) this.#all.push(address === null ? null : { ...address });
    this.#freeIds.splice(0, this.#freeIds.length, ...live.#freeIds);
    this.#pools.clear();
    for (const [service, { addresses, at }] of live.#pools) {
      this.#pools.set(service, { addresses: addresses.map(({ id }) => this.#all[id]!), at });
    }
  }
}

/** About the golden section of `size`, and without a divisor in common with it: `size` steps of it come by every port. */
function strideOf(size: number): number {
  let stride = Math.max(1, Math.round(size * 0.618));
  while (divisor(stride, size) !== 1) stride++;
  return stride;
}

function divisor(a: number, b: number): number {
  return b === 0 ? a : divisor(b, a % b);
}
