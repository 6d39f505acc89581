/** `tapvs explain`: what would become of a packet. It runs through the real pipeline of an engine of its own; the live one is only read. */

import type { Allocate } from '../base/memory.ts';
import { Medium } from '../device/device.ts';
import { receive } from '../ip/receive.ts';
import { RouteKind } from '../ip/routes.ts';
import type { Interface } from '../link/interface.ts';
import { flush } from '../link/link.ts';
import { LAST_VALID } from '../link/neighbours.ts';
import type { ExplainSpec, Explanation, Way } from '../model/way.ts';
import { NONE } from '../packet/packet.ts';
import { formatMac, parseIp4 } from '../wire/addr.ts';
import { frame } from '../wire/build.ts';
import { ETH_HEADER } from '../wire/ethernet.ts';
import { ChunkType } from '../wire/sctp.ts';
import type { Engine } from './engine.ts';
import { forkEngine } from './fork.ts';
import { WayRecorder } from './way-recorder.ts';

/** The sender's MAC where nobody knows it. */
const UNKNOWN_MAC = '00:00:00:00:00:00';
const HEADERS: Readonly<Record<ExplainSpec['protocol'], number>> = { tcp: 40, udp: 28, sctp: 32, icmp: 28 };
const LONGEST = 65535;
/** Bytes that chunks of these types have at least (RFC 9260 §3.3); others four, their header. */
const CHUNKS: Readonly<Record<number, number>> = {
  [ChunkType.Data]: 16,
  [ChunkType.Init]: 20,
  [ChunkType.InitAck]: 20,
  [ChunkType.Sack]: 16,
  [ChunkType.Shutdown]: 8,
};
const CHUNK_HEADER = 4;

/**
 * Answers a text, one line, when the packet cannot be.
 * @param allocate memory of the copy, which may be used again afterwards
 */
export function explain(live: Engine, spec: ExplainSpec, allocate?: Allocate): Explanation | string {
  live.keepTime();
  const ifc = deviceOf(live, spec);
  if (typeof ifc === 'string') return ifc;
  const bytes = packetOf(live, spec, ifc);
  if (typeof bytes === 'string') return bytes;

  const fork = forkEngine(live, allocate);
  const ways: Way[] = [];
  const recorder = new WayRecorder(fork, {
    wants: () => true,
    done: (done) => ways.push(...done),
    maxCandidates: Number.POSITIVE_INFINITY,
  });
  recorder.start();
  const isEthernet = ifc.device!.medium === Medium.Ethernet;
  const p = fork.pool.take(isEthernet ? bytes.length : bytes.length + ETH_HEADER);
  if (p === null) return 'all packets of the pool are in use (limits.packets): a packet could not even be received now';
  p.bytes.set(bytes, isEthernet ? p.l2 : p.l3);
  p.mark = spec.mark | 0;
  receive(fork.stack, fork.stack.link.interfaces[ifc.id]!, p);
  flush(fork.stack.link);
  recorder.finish();
  return { ways };
}

/** Where such a packet comes in: the device that is named, or the one by which its source is routed. */
function deviceOf({ stack }: Engine, { device, source }: ExplainSpec): Interface | string {
  const { interfaces } = stack.link;
  if (device !== undefined) {
    const named = stack.link.findInterface(device);
    if (named?.device) return named;
    const names = interfaces.flatMap((ifc) => (ifc?.device ? [ifc.name] : []));
    return `there is no device '${device}'; there are ${names.join(', ') || 'none'}`;
  }
  const src = parseIp4(source)!;
  const route = stack.routes.lookup(src);
  if (route?.kind === RouteKind.Unicast) {
    const ifc = interfaces[route.device];
    if (ifc?.device) return ifc;
  }
  if (route?.kind === RouteKind.Local && stack.isHostAddress(src)) return interfaces[stack.hostId]!;
  const why = route === null ? 'has no route' : 'is not an address of another host';
  return `${source} ${why}: name the device where the packet comes in with -i`;
}

function packetOf(live: Engine, spec: ExplainSpec, ifc: Interface): Uint8Array | string {
  const { protocol, source, destination, sourcePort: srcPort, destinationPort: dstPort, ttl, df } = spec;
  const isSctp = protocol === 'sctp';
  const shortest = HEADERS[protocol] + (isSctp ? (CHUNKS[spec.chunk] ?? CHUNK_HEADER) : 0);
  const length = spec.length === 0 ? shortest : spec.length;
  if (length < shortest || length > LONGEST)
    return `${protocol}: a packet has ${shortest} to ${LONGEST} bytes, not ${length}`;
  if (isSctp && length % 4 !== 0) return `sctp: a packet has a multiple of 4 bytes, not ${length}`;
  const device = ifc.device!;
  const builder = frame();
  if (device.medium === Medium.Ethernet)
    builder.eth(formatMac(device.macHi, device.macLo), senderMac(live, ifc, source));
  builder.ipv4(source, destination, { ttl, df });
  if (protocol === 'tcp') builder.tcp({ srcPort, dstPort, flags: spec.flags, seq: 1 });
  else if (protocol === 'udp') builder.udp({ srcPort, dstPort });
  else if (protocol === 'icmp') builder.icmp({ type: 8, id: 1, seq: 1 });
  else {
    const value = length - HEADERS.sctp - CHUNK_HEADER;
    return builder.sctp({ srcPort, dstPort, chunks: [{ type: spec.chunk, value }] }).build();
  }
  return builder.payload(length - shortest).build();
}

/** MAC of whoever would hand us the packet, as far as we know it. */
function senderMac({ stack }: Engine, ifc: Interface, source: string): string {
  const src = parseIp4(source)!;
  const route = stack.routes.lookup(src);
  const hop = route !== null && route.via !== 0 ? route.via : src;
  const table = stack.link.neighbours;
  const row = table.find(ifc.id, hop);
  if (row === NONE || table.state[row]! > LAST_VALID) return UNKNOWN_MAC;
  return formatMac(table.macHi[row]!, table.macLo[row]!);
}
