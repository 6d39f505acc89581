/**
 * An engine on which a configuration is tried before the real one gets it: the same code judges, nothing is opened, nothing is sent. What it refuses, `tapvsd
 * check` can say with line and column, and a start or a reload with such a file changes nothing.
 */
import { ManualClock } from '../base/clock.ts';
import { SeededRng } from '../base/rng.ts';
import { MemoryDevice } from '../device/memory.ts';
import { Engine } from '../engine/engine.ts';
import type { AddressRow } from '../model/ip.ts';
import type { TableChange, TableName, TableOutcome, TableRow } from '../model/iptables.ts';
import type { IpvsCommand, IpvsErrno, ServerKey, ServiceKey, ServiceRow } from '../model/ipvs.ts';
import type { Rehearsal } from './config.ts';

export class EngineRehearsal implements Rehearsal {
  readonly #engine: Engine;

  /** @param most services and servers that it will have to hold; as many as the real one when absent */
  constructor(most?: number) {
    this.#engine = new Engine({
      clock: new ManualClock(0),
      rng: new SeededRng(1),
      maxConnections: 16,
      maxPackets: 16,
      maxServices: most,
      maxDestinations: most,
    });
    // How many there will be room for, the file itself says.
    this.#engine.conntrack.sysctls.rows = Number.POSITIVE_INFINITY;
  }

  addDevice(name: string): void {
    if (this.#engine.stack.link.findInterface(name) === undefined) {
      this.#engine.addDevice(new MemoryDevice(this.#engine.pool, { name }));
    }
  }

  setSysctl(key: string, value: string): 'EINVAL' | 'ENOENT' | 'EPERM' | null {
    return this.#engine.setSysctl(key, value);
  }

  /** One of our addresses: a server cannot have its network's broadcast address. */
  addAddress({ device, address, prefixLength }: Pick<AddressRow, 'device' | 'address' | 'prefixLength'>): void {
    if (device !== 'lo') this.addDevice(device);
    this.#engine.executeIp([{ op: 'addr-add', device, address, prefixLength }]);
  }

  /** A service and its servers as they stand elsewhere, in the same order. */
  copy(row: ServiceRow): void {
    const { stats: _, servers, localAddresses: __, ...service } = row;
    this.run({ op: 'add-service', service });
    for (const server of servers.toReversed()) this.run({ op: 'add-server', service: row.key, server });
  }

  services(): readonly ServiceRow[] {
    return this.#engine.director.listServices(0, Number.POSITIVE_INFINITY).rows;
  }

  choose(service: ServiceKey, client: ServerKey, virtual: ServerKey): ServerKey | null {
    return this.#engine.director.choose(service, client, virtual);
  }

  changeTable(change: TableChange): TableOutcome {
    return this.#engine.filter.change(change);
  }

  table(name: TableName): TableRow {
    return this.#engine.filter.list(name);
  }

  run(command: IpvsCommand): IpvsErrno | null {
    return this.#engine.executeIpvs([command])[0] ?? null;
  }
}
