/**
 * For this folder's tests: a director with a hand-cranked clock on a bench, commands in ipvsadm's words, packets in and out as bytes.
 *
 *   client side 10.0.1.0/24 (device 1) ── director 10.0.1.1, VIPs 10.0.1.100-102 ── server side 10.0.2.0/24 (device 2), the oracle's addresses
 */
import { seconds } from '../base/clock.ts';
import { SeededRng } from '../base/rng.ts';
import { FlowTable } from '../flow/flow-table.ts';
import { Hook, Hooks, Verdict } from '../hooks/hooks.ts';
import type { Routing } from '../hooks/routing.ts';
import type { IpvsCommand, IpvsErrno, ServerSpec, ServiceKey } from '../model/ipvs.ts';
import { Drop, dropName } from '../packet/drop.ts';
import type { Packet } from '../packet/packet.ts';
import { PacketPool } from '../packet/pool.ts';
import { formatIp4, ip4 } from '../wire/addr.ts';
import { type FrameBuilder, frame } from '../wire/build.ts';
import { dst, headerLength, IpProto, isFragment, isLaterFragment, proto } from '../wire/ipv4.ts';
import { check as checkSctp, SctpFault } from '../wire/sctp.ts';
import { check as checkTcp, TcpFault } from '../wire/tcp.ts';
import { check as checkUdp, UdpFault } from '../wire/udp.ts';
import { Director } from './director.ts';

export const CLIENT = '10.0.1.2';
export const VIP = '10.0.1.100';

/** Two on-link networks and our own addresses. */
export class BenchRouting implements Routing {
  isLocal = false;
  isBroadcast = false;
  nexthop = 0;
  outDevice = -1;
  mtu = 1500;
  source = 0;
  generation = 0;
  readonly locals = new Set(['10.0.1.1', '10.0.2.1', '10.0.1.100', '10.0.1.101', '10.0.1.102', '127.0.0.1'].map(ip4));
  backMtu = 1500;
  /** What was learnt, the last first. */
  readonly learnt: string[] = [];

  resolve(to: number): boolean {
    this.isLocal = this.locals.has(ip4Of(to));
    this.isBroadcast = (to & 0xff) === 255;
    this.nexthop = to;
    if (this.isLocal) return true;
    if (to >> 8 === ip4('10.0.1.0') >> 8) this.outDevice = 1;
    else if (to >> 8 === ip4('10.0.2.0') >> 8) this.outDevice = 2;
    else return false;
    this.mtu = this.outDevice === 2 ? this.backMtu : 1500;
    this.source = ip4(this.outDevice === 2 ? '10.0.2.1' : '10.0.1.1');
    return true;
  }

  recordOptions(): void {}

  sumOptions(): void {}

  rerouteOptions(): void {}

  learnMtu(to: number, mtu: number): boolean {
    this.learnt.unshift(`${formatIp4(to)} ${mtu}`);
    if (mtu < this.backMtu) {
      this.backMtu = mtu;
      this.generation++;
    }
    return this.learnt.length > 1;
  }
}

function ip4Of(n: number) {
  return n as ReturnType<typeof ip4>;
}

/** What became of a packet. */
export interface Outcome {
  readonly verdict: 'accept' | 'drop' | 'reroute';
  /** The IP packet afterwards. */
  readonly bytes: Uint8Array;
  readonly drop: string;
  readonly reject: string;
  readonly packet: Packet;
}

export interface SendOptions {
  readonly isLocalOut?: boolean;
  readonly gsoSize?: number;
  readonly gsoType?: number;
  readonly partial?: boolean;
  readonly pktType?: number;
  readonly mark?: number;
}

export class Bench {
  readonly flows: FlowTable;
  readonly routing = new BenchRouting();
  readonly hooks = new Hooks();
  readonly pool = new PacketPool(2);
  readonly director: Director;
  now: number;

  constructor(
    options: {
      readonly maxConnections?: number;
      readonly flowRows?: number;
      readonly now?: number;
      readonly services?: number;
    } = {},
  ) {
    const maxConnections = options.maxConnections ?? 4096;
    this.now = options.now ?? 1000;
    this.flows = new FlowTable(options.flowRows ?? maxConnections * 2, 7);
    this.director = new Director({
      flows: this.flows,
      routing: this.routing,
      rng: new SeededRng(5),
      now: this.now,
      maxConnections,
      maxServices: options.services ?? 64,
      maxDestinations: (options.services ?? 64) * 10,
    });
    this.hooks.register(this.director.hooks());
  }

  wait(secondsToWait: number): void {
    // In steps, as breaths come.
    for (let left = seconds(secondsToWait); left > 0; left -= 25) {
      this.now = (this.now + Math.min(25, left)) | 0;
      this.director.advance(this.now);
    }
  }

  run(...lines: readonly string[]): (IpvsErrno | null)[] {
    return this.director.execute(lines.map(parseCommand));
  }

  /** Send an IP packet through the hooks that it would cross: LOCAL_IN for our own addresses, FORWARD for others, LOCAL_OUT for what is born here. */
  send(packet: FrameBuilder | Uint8Array, options: SendOptions = {}): Outcome {
    const bytes = packet instanceof Uint8Array ? packet : packet.build();
    const p = this.pool.take(bytes.length + 14)!;
    p.bytes.set(bytes, p.l3);
    p.l4 = p.l3 + headerLength(p.view, p.l3);
    p.end = p.l3 + bytes.length;
    p.proto = proto(p.view, p.l3);
    p.isLaterFragment = isLaterFragment(p.view, p.l3) ? 1 : 0;
    p.pktType = options.pktType ?? 0;
    p.mark = options.mark ?? 0;
    p.gsoSize = options.gsoSize ?? 0;
    p.gsoType = options.gsoType ?? (p.gsoSize === 0 ? 0 : 1);
    p.csumPartial = options.partial ? 1 : 0;
    p.isLocalOut = options.isLocalOut ? 1 : 0;
    p.isLocalIn = this.routing.locals.has(ip4Of(dst(p.view, p.l3))) && !options.isLocalOut ? 1 : 0;
    this.#checkTransport(p);
    const isOurs = this.routing.locals.has(ip4Of(dst(p.view, p.l3)));
    const hook = options.isLocalOut ? Hook.LocalOut : isOurs ? Hook.LocalIn : Hook.Forward;
    const verdict = this.hooks.chains[hook]!.run(p, 0);
    const outcome: Outcome = {
      verdict: verdict === Verdict.Accept ? 'accept' : verdict === Verdict.Reroute ? 'reroute' : 'drop',
      bytes: p.bytes.slice(p.l3, p.end),
      drop: dropName(p.drop),
      reject: p.rejectType === 0 ? '' : `${p.rejectType}/${p.rejectCode}${p.rejectMtu === 0 ? '' : ` ${p.rejectMtu}`}`,
      packet: p,
    };
    this.pool.free(p);
    return outcome;
  }

  #checkTransport(p: Packet): void {
    if (p.isLaterFragment !== 0) return;
    if (p.proto === IpProto.Tcp) {
      const fault = checkTcp(p.view, p.l4, p.end);
      p.l4Fault = fault === TcpFault.None ? 0 : fault === TcpFault.TooShort ? Drop.TcpTooShort : Drop.TcpBadOffset;
    } else if (p.proto === IpProto.Udp && !isFragment(p.view, p.l3) && p.gsoType === 0) {
      const fault = checkUdp(p.view, p.l4, p.end);
      p.l4Fault = fault === UdpFault.None ? 0 : fault === UdpFault.TooShort ? Drop.UdpTooShort : Drop.UdpBadLength;
    } else if (p.proto === IpProto.Sctp) {
      p.l4Fault = checkSctp(p.view, p.l4, p.end) === SctpFault.None ? 0 : Drop.SctpTooShort;
    }
  }

  /**
   * A TCP connection as a client makes it, answers of the server included.
   * @param hold leave it open; else the client closes and the server follows
   * @returns the server's address and port, or 'refused'
   */
  probe(from: string, to: string, hold = false, mark = 0): string {
    const opened = this.send(tcpPacket(from, to, 'S'), { mark });
    if (opened.verdict !== 'reroute') return 'refused';
    const view = new DataView(opened.bytes.buffer);
    const server = `${formatIp4(dst(view, 0))}:${view.getUint16(22)}`;
    this.send(tcpPacket(server, from, 'SA'));
    this.send(tcpPacket(from, to, '.'));
    if (!hold) this.close(from, to, server);
    return server;
  }

  close(from: string, to: string, server: string): void {
    this.send(tcpPacket(from, to, 'FA'));
    this.send(tcpPacket(server, from, 'FA'));
    this.send(tcpPacket(from, to, '.'));
  }

  /** One line per connection, sorted: protocol, seconds left, state, client, virtual, destination. */
  connections(): string[] {
    const { rows } = this.director.listConnections(0, 100000);
    return rows
      .map((r) => {
        const [c, v, d] = [r.client, r.virtual, r.destination].map((k) => `${k.address}:${k.port}`);
        return `${r.protocol} ${r.expiresSeconds} ${r.state} ${c} ${v} ${d}`;
      })
      .sort();
  }

  /** `ADDRESS:PORT weight active inactive` per server in the list's order, all services. */
  servers(): string[] {
    return this.director
      .listServices(0, 100000)
      .rows.flatMap((s) =>
        s.servers.map((d) => `${d.key.address}:${d.key.port} ${d.weight} ${d.activeConns} ${d.inactiveConns}`),
      );
  }
}

export function tcpPacket(from: string, to: string, flags: string, data: string | number = 0): FrameBuilder {
  const [src, srcPort] = split(from);
  const [dst, dstPort] = split(to);
  return frame().ipv4(src, dst, { df: true }).tcp({ srcPort, dstPort, flags }).payload(data);
}

export function udpPacket(from: string, to: string, data: string | number = 3): FrameBuilder {
  const [src, srcPort] = split(from);
  const [dst, dstPort] = split(to);
  return frame().ipv4(src, dst, { df: true }).udp({ srcPort, dstPort }).payload(data);
}

/** One chunk of each type, without value. */
export function sctpPacket(from: string, to: string, ...types: readonly number[]): FrameBuilder {
  const [src, srcPort] = split(from);
  const [dst, dstPort] = split(to);
  return frame()
    .ipv4(src, dst, { df: true })
    .sctp({ srcPort, dstPort, chunks: types.map((type) => ({ type })) });
}

function split(at: string): [string, number] {
  const [address, port] = at.split(':');
  return [address!, Number(port)];
}

/** The subset of ipvsadm's words that the tests use; server ports default to the service's. */
export function parseCommand(line: string): IpvsCommand {
  const words = line.split(' ');
  const option = (name: string) => (words.includes(name) ? words[words.indexOf(name) + 1]! : undefined);
  const key = (): ServiceKey => {
    const mark = option('-f');
    if (mark !== undefined) return { kind: 'fwmark', fwmark: Number(mark), family: 4 };
    const [udp, sctp] = [option('-u'), option('--sctp-service')];
    const [address, port] = split(udp ?? sctp ?? option('-t')!);
    const protocol = udp !== undefined ? 'udp' : sctp !== undefined ? 'sctp' : 'tcp';
    return { kind: 'address', protocol, address, port };
  };
  const server = (): ServerSpec => {
    const [address, port] = option('-r')!.split(':');
    const k = key();
    return {
      key: { address: address!, port: port !== undefined ? Number(port) : k.kind === 'address' ? k.port : 0 },
      method: words.includes('-m')
        ? 'masq'
        : words.includes('-i')
          ? 'tunnel'
          : words.includes('-b')
            ? 'fullnat'
            : 'route',
      tunnel: words.includes('--tun-type')
        ? {
            type: option('--tun-type') as 'ipip' | 'gue' | 'gre',
            port: Number(option('--tun-port') ?? 0),
            checksum: words.includes('--tun-csum') ? 'csum' : words.includes('--tun-remcsum') ? 'remcsum' : 'none',
          }
        : undefined,
      weight: Number(option('-w') ?? 1),
      upperThreshold: Number(option('-x') ?? 0),
      lowerThreshold: Number(option('-y') ?? 0),
    };
  };
  const service = () => ({
    key: key(),
    scheduler: option('-s') ?? 'wlc',
    schedulerFlags: (option('-b') ?? '')
      .split(',')
      .reduce((flags, name) => flags | (name === '' ? 0 : name.endsWith('-port') ? 2 : 1), 0),
    ops: words.includes('-o'),
    persistenceTimeout: words.includes('-p') ? Number(option('-p')) : undefined,
    netmask: option('-M'),
    pe: option('--pe'),
  });
  switch (words[0]) {
    case '-A':
      return { op: 'add-service', service: service() };
    case '-E':
      return { op: 'edit-service', service: service() };
    case '-D':
      return { op: 'delete-service', service: key() };
    case '-C':
      return { op: 'clear' };
    case '-a':
      return { op: 'add-server', service: key(), server: server() };
    case '-e':
      return { op: 'edit-server', service: key(), server: server() };
    case '-d':
      return { op: 'delete-server', service: key(), server: server().key };
    case '-P':
    case '-Q': {
      const [address = '', ports] = option('-z')!.split(':');
      const [from, to] = ports?.split('-').map(Number) ?? [];
      const device = option('-F');
      if (words[0] === '-Q') return { op: 'delete-local-address', service: key(), local: { address, device } };
      const range = from === undefined ? undefined : { from, to: to ?? from };
      return { op: 'add-local-address', service: key(), local: { address, device, ports: range } };
    }
    case '-Z':
      return { op: 'zero', service: words.length > 1 ? key() : undefined };
    case '--drain':
    case '--undrain': {
      const op = words[0] === '--drain' ? 'drain' : 'undrain';
      const [deadline, udpIdle] = [option('--deadline'), option('--udp-idle')];
      return {
        op,
        service: key(),
        server: server().key,
        ...(deadline === undefined ? {} : { deadline: Number(deadline) }),
        ...(udpIdle === undefined ? {} : { udpIdle: Number(udpIdle) }),
      };
    }
    case '--set':
      return { op: 'set-timeouts', tcp: Number(words[1]), tcpFin: Number(words[2]), udp: Number(words[3]) };
    default:
      throw new Error(`not a command of the tests: ${line}`);
  }
}
