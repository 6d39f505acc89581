/**
 * A tunnel's far end in userspace: outer packets in by sockets, inner packets out by a TUN, into the kernel of the namespace that runs it.
 *
 *   IPIP (4), GRE (47)   raw socket of that protocol (npm raw-socket)  ┐
 *   GUE                  UDP socket                                    ┴─► unwrap ─► TUN ─► the kernel's input, as from a tunl0
 *
 * While a raw socket of a protocol is open the kernel sends no "protocol unreachable" for it, and it puts fragments together first. raw-socket takes one
 * packet per turn of the event loop, which is enough for a test bed and small services; what comes faster waits in the socket buffer and is dropped by
 * the kernel when that is full. It opens in the namespace of its process, and cannot bind: `local` is compared here. A packet must be complete: one that a kernel on the
 * same machine hands over with its checksums left open (a veth with offloads on) cannot be told from a broken one; tapvs completes them before it wraps.
 */
import { createSocket, type Socket as UdpSocket } from 'node:dgram';
import { writeSync } from 'node:fs';
import { createRequire } from 'node:module';
import { close, linkSetUp, openTun } from '../device/native.ts';
import { ip4 } from '../wire/addr.ts';
import * as ipv4 from '../wire/ipv4.ts';
import { FAULTS, type Fault, type TunnelType, unwrap } from './unwrap.ts';

/** What of npm's raw-socket is used here. */
interface RawSocket {
  on(event: 'message', listener: (packet: Buffer, source: string) => void): void;
  on(event: 'error', listener: (error: Error) => void): void;
  on(event: 'close', listener: () => void): void;
  setOption(level: number, option: number, value: number): void;
  close(): void;
}
interface RawSocketModule {
  createSocket(options: { protocol: number; bufferSize: number }): RawSocket;
  readonly SocketLevel: Readonly<Record<string, number>>;
  readonly SocketOption: Readonly<Record<string, number>>;
}

const { IpIp: IPIP, Gre: GRE } = ipv4.IpProto;
const LONGEST = 65_536;
/** What the kernel gives of it is bounded by net.core.rmem_max. */
const RECEIVE_BUFFER = 8 << 20;
const EBADFD = 77;

export interface DecapOptions {
  /** Name of the TUN. */
  readonly device: string;
  readonly types: readonly TunnelType[];
  readonly guePort: number;
  /** Take only what is addressed to this; undefined: to any of the host's addresses. */
  readonly local?: string | undefined;
  /** A socket or the TUN failed for good. Not called after `stop`. */
  readonly onFailure: (error: Error) => void;
}

export class Decapsulator {
  /** Packets given to the kernel, per type. */
  readonly taken: Record<TunnelType, number> = { ipip: 0, gue: 0, gre: 0 };
  readonly refused = new Map<Fault | 'device', number>();
  bytes = 0;
  readonly #options: DecapOptions;
  readonly #fd: number;
  readonly #local: number | undefined;
  readonly #raws: RawSocket[] = [];
  #udp: UdpSocket | undefined;
  #isStopped = false;

  /** Makes the TUN, which is up then; packets come after `start`. @throws NativeError */
  constructor(options: DecapOptions) {
    this.#options = options;
    this.#local = options.local === undefined ? undefined : ip4(options.local);
    const { fd } = openTun({ name: options.device, kind: 'tun' });
    this.#fd = fd;
    try {
      linkSetUp(options.device, true);
    } catch (error) {
      close(fd);
      throw error;
    }
  }

  /** Opens the sockets; resolves when all of them receive. @throws Error when one cannot be opened: no raw-socket, no right, a port in use */
  async start(): Promise<void> {
    const { types } = this.#options;
    if (types.includes('ipip')) this.#openRaw('ipip', IPIP);
    if (types.includes('gre')) this.#openRaw('gre', GRE);
    if (types.includes('gue')) await this.#openUdp();
  }

  /** The sockets close and the TUN goes. */
  stop(): void {
    if (this.#isStopped) return;
    this.#isStopped = true;
    for (const raw of this.#raws) raw.close();
    this.#udp?.close();
    close(this.#fd);
  }

  #openRaw(type: TunnelType, protocol: number): void {
    const module = loadRawSocket();
    const raw = module.createSocket({ protocol, bufferSize: LONGEST });
    this.#raws.push(raw);
    raw.on('error', (error) => this.#fail(error));
    raw.setOption(module.SocketLevel.SOL_SOCKET!, module.SocketOption.SO_RCVBUF!, RECEIVE_BUFFER);
    raw.on('message', (packet) => {
      const m = new DataView(packet.buffer, packet.byteOffset, packet.byteLength);
      if (this.#local !== undefined && ipv4.dst(m, 0) !== this.#local) return;
      this.#take(type, packet.subarray(ipv4.headerLength(m, 0)));
    });
  }

  async #openUdp(): Promise<void> {
    const { guePort, local } = this.#options;
    const udp = createSocket({ type: 'udp4' });
    this.#udp = udp;
    await new Promise<void>((resolve, reject) => {
      udp.once('error', reject);
      udp.bind(guePort, local, () => {
        udp.off('error', reject);
        resolve();
      });
    });
    udp.setRecvBufferSize(RECEIVE_BUFFER);
    udp.on('error', (error) => this.#fail(error));
    udp.on('message', (payload) => this.#take('gue', payload));
  }

  #take(type: TunnelType, payload: Uint8Array): void {
    const inner = unwrap(type, payload);
    if (typeof inner === 'string') return this.#refuse(inner);
    try {
      writeSync(this.#fd, inner);
    } catch (error) {
      const { errno = 0 } = error as NodeJS.ErrnoException;
      if (-errno === EBADFD) return this.#fail(new Error(`${this.#options.device}: the device is gone`));
      return this.#refuse('device');
    }
    this.taken[type]++;
    this.bytes += inner.byteLength;
  }

  #refuse(fault: Fault | 'device'): void {
    this.refused.set(fault, (this.refused.get(fault) ?? 0) + 1);
  }

  #fail(error: Error): void {
    if (!this.#isStopped) this.#options.onFailure(error);
  }

  /** What was done so far: a line for the packets taken, then one for each fault that occurred. */
  report(): string {
    const { device, types } = this.#options;
    const parts = types.map((type) => `${this.taken[type]} ${type}`).join(', ');
    const lines = [`${device}: ${parts}, ${this.bytes} bytes`];
    for (const [fault, count] of this.refused) {
      lines.push(`${device}: ${count} refused, ${fault === 'device' ? 'the device did not take it' : FAULTS[fault]}`);
    }
    return `${lines.join('\n')}\n`;
  }
}

function loadRawSocket(): RawSocketModule {
  try {
    return createRequire(import.meta.url)('raw-socket') as RawSocketModule;
  } catch (error) {
    const why = (error as Error).message.split('\n')[0];
    throw new Error(`the npm package raw-socket is needed for ipip and gre: ${why}`, { cause: error });
  }
}
