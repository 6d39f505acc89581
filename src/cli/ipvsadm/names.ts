/**
 * Names for addresses and ports, and back. Ports come from /etc/services, read when first needed; hosts come from the resolver (which reads
 * /etc/hosts first), one at a time and remembered. Parsing and formatting stay synchronous: a host that is not known yet is thrown as LookupNeeded,
 * the caller looks it up and parses again; for lists the caller looks up what a batch holds before it formats it.
 */
import { readFileSync } from 'node:fs';
import { isIPv6 } from 'node:net';

/** What the parser asks. */
export interface NameSource {
  /** First IPv4 address of a host; undefined when there is none. Throws LookupNeeded. */
  hostAddress(host: string): string | undefined;
  servicePort(service: string, protocol: string): number | undefined;
}

export class LookupNeeded extends Error {
  readonly host: string;

  constructor(host: string) {
    super(`the address of ${host} is not known yet`);
    this.host = host;
  }
}

export class Names implements NameSource {
  readonly #addresses = new Map<string, string | undefined>();
  readonly #hosts = new Map<string, string | undefined>();
  /** Names that nobody answered for, so that they may exist. */
  readonly #unanswered = new Set<string>();
  #services: Services | undefined;

  hostAddress(host: string): string | undefined {
    if (!/^[\w.-]+$/.test(host) || /^[0-9.]*[0-9]$/.test(host)) return undefined; // the resolver would not ask anybody
    if (!this.#addresses.has(host)) throw new LookupNeeded(host);
    return this.#addresses.get(host);
  }

  async lookUpAddress(host: string): Promise<void> {
    const { lookup } = await resolver();
    try {
      this.#addresses.set(host, (await lookup(host, { family: 4 })).address);
    } catch (error) {
      this.#addresses.set(host, undefined);
      if ((error as NodeJS.ErrnoException).code === 'EAI_AGAIN') this.#unanswered.add(host);
    }
  }

  /** Why a host has no address, as gai_strerror(3) says it. */
  hostFault(host: string): string {
    if (isIPv6(host)) return 'Address family for hostname not supported';
    return this.#unanswered.has(host) ? 'Temporary failure in name resolution' : 'Name or service not known';
  }

  /** Finds the names of all these addresses that are not known yet. */
  async lookUpHosts(addresses: Iterable<string>): Promise<void> {
    const unknown = [...new Set(addresses)].filter((address) => !this.#hosts.has(address));
    if (unknown.length === 0) return;
    const { lookupService } = await resolver();
    await Promise.all(
      unknown.map(async (address) => {
        this.#hosts.set(address, await lookupService(address, 0).then((found) => found.hostname, nothing));
      }),
    );
  }

  hostName(address: string): string | undefined {
    return this.#hosts.get(address);
  }

  servicePort(service: string, protocol: string): number | undefined {
    return this.#table().ports.get(`${service}/${protocol}`);
  }

  serviceName(port: number, protocol: string): string | undefined {
    return this.#table().names.get(`${port}/${protocol}`);
  }

  #table(): Services {
    this.#services ??= parseServices(readServices());
    return this.#services;
  }
}

interface Services {
  /** `http/tcp` → 80, aliases too. */
  readonly ports: ReadonlyMap<string, number>;
  /** `80/tcp` → http. */
  readonly names: ReadonlyMap<string, string>;
}

/** services(5). */
function parseServices(text: string): Services {
  const ports = new Map<string, number>();
  const names = new Map<string, string>();
  for (const line of text.split('\n')) {
    const found = /^\s*([^\s#]+)\s+(\d+)\/([^\s#]+)([^#]*)/.exec(line);
    if (found === null) continue;
    const [, name, digits, protocol, aliases] = found as unknown as [string, string, string, string, string];
    const port = Number(digits);
    if (!names.has(`${port}/${protocol}`)) names.set(`${port}/${protocol}`, name);
    for (const alias of [name, ...aliases.split(/\s+/)]) {
      if (alias !== '' && !ports.has(`${alias}/${protocol}`)) ports.set(`${alias}/${protocol}`, port);
    }
  }
  return { ports, names };
}

function readServices(): string {
  try {
    return readFileSync('/etc/services', 'utf8');
  } catch {
    return '';
  }
}

/** Loaded when it is needed: most commands hold numbers only, and should start fast. */
function resolver(): Promise<typeof import('node:dns/promises')> {
  return import('node:dns/promises');
}

function nothing(): undefined {
  return undefined;
}
