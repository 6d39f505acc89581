/** Commands of ipvsadm folded into what they amount to: the services with their servers, and the timeouts. A value; the engine is not asked. */
import type {
  DaemonSpec,
  IpvsCommand,
  IpvsErrno,
  LocalAddressSpec,
  ServerKey,
  ServerSpec,
  ServiceKey,
  ServiceSpec,
} from '../model/ipvs.ts';

export interface IpvsService {
  readonly spec: ServiceSpec;
  /** In the order of the file, by serverId. */
  readonly servers: ReadonlyMap<string, ServerSpec>;
  /** In the order of the file, by address. */
  readonly locals: ReadonlyMap<string, LocalAddressSpec>;
}

export interface IpvsTable {
  /** In the order of the file, by serviceId. */
  readonly services: ReadonlyMap<string, IpvsService>;
  /** Seconds; 0 = not set. */
  readonly timeouts: { readonly tcp: number; readonly tcpFin: number; readonly udp: number };
  /** Synchronisation daemons, by role. */
  readonly daemons: ReadonlyMap<DaemonSpec['role'], DaemonSpec>;
}

export const EMPTY_TABLE: IpvsTable = {
  services: new Map(),
  timeouts: { tcp: 0, tcpFin: 0, udp: 0 },
  daemons: new Map(),
};

/** `tcp 10.0.1.100:80`, `fwmark 7`: one service, one text. */
export function serviceId(key: ServiceKey): string {
  return key.kind === 'fwmark'
    ? `fwmark ${key.fwmark}${key.family === 6 ? ' IPv6' : ''}`
    : `${key.protocol} ${key.address}:${key.port}`;
}

export function serverId(key: ServerKey): string {
  return `${key.address}:${key.port}`;
}

interface Building {
  spec: ServiceSpec;
  servers: Map<string, ServerSpec>;
  locals: Map<string, LocalAddressSpec>;
}

/** Builds a table command by command; `apply` refuses with the errno that the kernel would give. */
export class IpvsTableBuilder {
  readonly #services = new Map<string, Building>();
  #timeouts = { tcp: 0, tcpFin: 0, udp: 0 };
  readonly #daemons = new Map<DaemonSpec['role'], DaemonSpec>();

  apply(command: IpvsCommand): IpvsErrno | null {
    switch (command.op) {
      case 'add-service':
      case 'edit-service': {
        const id = serviceId(command.service.key);
        const known = this.#services.get(id);
        if ((known !== undefined) === (command.op === 'add-service')) return known === undefined ? 'ESRCH' : 'EEXIST';
        const { servers, locals } = known ?? { servers: new Map(), locals: new Map() };
        this.#services.set(id, { spec: command.service, servers, locals });
        return null;
      }
      case 'delete-service':
        return this.#services.delete(serviceId(command.service)) ? null : 'ESRCH';
      case 'add-server':
      case 'edit-server':
      case 'delete-server': {
        const servers = this.#services.get(serviceId(command.service))?.servers;
        if (servers === undefined) return 'ESRCH';
        if (command.op === 'delete-server') return servers.delete(serverId(command.server)) ? null : 'ENOENT';
        const id = serverId(command.server.key);
        if (servers.has(id) === (command.op === 'add-server')) return servers.has(id) ? 'EEXIST' : 'ENOENT';
        servers.set(id, command.server);
        return null;
      }
      case 'add-local-address':
      case 'edit-local-address':
      case 'delete-local-address': {
        const locals = this.#services.get(serviceId(command.service))?.locals;
        if (locals === undefined) return 'ESRCH';
        const { address } = command.local;
        if (command.op === 'delete-local-address') return locals.delete(address) ? null : 'ENOENT';
        if (locals.has(address) === (command.op === 'add-local-address'))
          return locals.has(address) ? 'EEXIST' : 'ENOENT';
        locals.set(address, command.local);
        return null;
      }
      case 'clear':
        this.#services.clear();
        return null;
      case 'set-timeouts': {
        const { tcp, tcpFin, udp } = this.#timeouts;
        this.#timeouts = { tcp: command.tcp || tcp, tcpFin: command.tcpFin || tcpFin, udp: command.udp || udp };
        return null;
      }
      case 'start-daemon': {
        const { daemon } = command;
        if (this.#daemons.has(daemon.role)) return 'EEXIST';
        this.#daemons.set(daemon.role, daemon);
        return null;
      }
      case 'stop-daemon':
        return this.#daemons.delete(command.role) ? null : 'ESRCH';
      case 'zero':
        return null;
      case 'drain':
      case 'undrain':
        return 'EINVAL'; // runs, and is not a part of what there should be
    }
  }

  table(): IpvsTable {
    return { services: this.#services, timeouts: this.#timeouts, daemons: this.#daemons };
  }
}
