/** A packet in the words of the kernel's log (net/netfilter/nf_log_syslog.c: nf_log_ip_packet, dump_ipv4_packet). */
import { NONE, type Packet } from '../../packet/packet.ts';
import { formatIp4 } from '../../wire/addr.ts';
import { ETH_HEADER } from '../../wire/ethernet.ts';
import * as ipv4 from '../../wire/ipv4.ts';
import { IpProto } from '../../wire/ipv4.ts';
import type { HostConditions } from '../conditions.ts';
import { formatHex } from '../values.ts';

/** Bits of struct xt_log_info.logflags. */
export const LogFlag = { TcpSequence: 1, TcpOptions: 2, IpOptions: 4, Uid: 8, MacDecode: 32 } as const;

const EVIL = 0x8000;
/** Letters of TCP's flags as the kernel writes them, by bit, highest first. */
const TCP_FLAGS = ['CWR', 'ECE', 'URG', 'ACK', 'PSH', 'RST', 'SYN', 'FIN'];
/** ICMP types whose body is understood further. */
const Icmp = {
  EchoReply: 0,
  Unreachable: 3,
  Quench: 4,
  Redirect: 5,
  Echo: 8,
  TimeExceeded: 11,
  Parameter: 12,
} as const;
const KNOWN_LAST = 18;
/** Bytes that a message of an ICMP type must have, where the kernel looks. */
const MIN_ICMP: Readonly<Record<number, number>> = {
  3: 28, 4: 28, 5: 28, 11: 28, 12: 28, 13: 20, 14: 20, 17: 12, 18: 12,
}; // biome-ignore format: a table

/** Flags of lines that no rule asks for (NF_LOG_DEFAULT_MASK). */
export const DEFAULT_FLAGS = LogFlag.TcpSequence | LogFlag.TcpOptions | LogFlag.IpOptions | LogFlag.Uid;

/** Where a packet is when it is told of; devices are NONE where the hook has none. */
export interface LogPlace {
  readonly inDevice: number;
  readonly outDevice: number;
  readonly conditions: Pick<HostConditions, 'deviceName' | 'isEthernet'>;
}

/** `IN=front OUT=back MAC=… SRC=… DST=… LEN=40 … PROTO=TCP SPT=… ` with the prefix before it. */
export function logLine(p: Packet, place: LogPlace, prefix: string, flags: number): string {
  const { conditions, inDevice, outDevice } = place;
  const name = (id: number): string => (id === NONE ? '' : conditions.deviceName(id));
  let line = `${prefix}IN=${name(inDevice)} OUT=${name(outDevice)} `;
  if (inDevice !== NONE) line += macHeader(p, conditions.isEthernet(inDevice), flags);
  line += ipHeader(p.view, p.bytes, p.l3, p.end, flags, true);
  if (p.mark !== 0) line += `MARK=${formatHex(p.mark)} `;
  return line;
}

function hex(bytes: Uint8Array, from: number, to: number, separator: string): string {
  const words: string[] = [];
  for (let i = from; i < to; i++) words.push(bytes[i]!.toString(16).padStart(2, '0'));
  return words.join(separator);
}

function macHeader({ view, bytes, l2 }: Packet, isEthernet: boolean, flags: number): string {
  if (!isEthernet) return 'MAC= ';
  if ((flags & LogFlag.MacDecode) === 0) return `MAC=${hex(bytes, l2, l2 + ETH_HEADER, ':')} `;
  const [dst, src] = [hex(bytes, l2, l2 + 6, ':'), hex(bytes, l2 + 6, l2 + 12, ':')];
  return `MACSRC=${src} MACDST=${dst} MACPROTO=${view
    .getUint16(l2 + 12)
    .toString(16)
    .padStart(4, '0')} `;
}

/** @param isOuter false for what an ICMP error quotes, which is not followed further */
function ipHeader(view: DataView, bytes: Uint8Array, l3: number, end: number, flags: number, isOuter: boolean): string {
  if (end - l3 < ipv4.IPV4_HEADER) return 'TRUNCATED';
  const tos = ipv4.tos(view, l3);
  const word = ipv4.fragmentWord(view, l3);
  const byte = (value: number): string => `0x${value.toString(16).toUpperCase().padStart(2, '0')}`;
  let line = `SRC=${formatIp4(ipv4.src(view, l3))} DST=${formatIp4(ipv4.dst(view, l3))} `;
  line += `LEN=${ipv4.totalLength(view, l3)} TOS=${byte(tos & 0x1e)} PREC=${byte(tos & 0xe0)} `;
  line += `TTL=${ipv4.ttl(view, l3)} ID=${ipv4.id(view, l3)} `;
  if ((word & EVIL) !== 0) line += 'CE ';
  if ((word & ipv4.DF) !== 0) line += 'DF ';
  if ((word & ipv4.MF) !== 0) line += 'MF ';
  const offset = word & 0x1fff;
  if (offset !== 0) line += `FRAG:${offset} `;
  const l4 = l3 + ipv4.headerLength(view, l3);
  if ((flags & LogFlag.IpOptions) !== 0 && l4 > l3 + ipv4.IPV4_HEADER) {
    if (l4 > end) return `${line}TRUNCATED`;
    line += `OPT (${hex(bytes, l3 + ipv4.IPV4_HEADER, l4, '').toUpperCase()}) `;
  }
  return line + transport(view, bytes, ipv4.proto(view, l3), l4, end, offset, flags, isOuter);
}

function transport(
  view: DataView,
  bytes: Uint8Array,
  proto: number,
  l4: number,
  end: number,
  fragment: number,
  flags: number,
  isOuter: boolean,
): string {
  const incomplete = `INCOMPLETE [${Math.max(0, end - l4)} bytes] `;
  switch (proto) {
    case IpProto.Tcp:
      if (fragment !== 0) return 'PROTO=TCP ';
      return `PROTO=TCP ${end - l4 < 20 ? incomplete : tcp(view, bytes, l4, end, flags)}`;
    case IpProto.Udp:
    case IpProto.UdpLite: {
      const name = proto === IpProto.Udp ? 'PROTO=UDP ' : 'PROTO=UDPLITE ';
      if (fragment !== 0) return name;
      if (end - l4 < 8) return name + incomplete;
      return `${name}SPT=${view.getUint16(l4)} DPT=${view.getUint16(l4 + 2)} LEN=${view.getUint16(l4 + 4)} `;
    }
    case IpProto.Icmp:
      if (fragment !== 0) return 'PROTO=ICMP ';
      return `PROTO=ICMP ${end - l4 < 8 ? incomplete : icmp(view, bytes, l4, end, flags, isOuter)}`;
    case IpProto.Ah:
      if (fragment !== 0) return 'PROTO=AH ';
      return `PROTO=AH ${end - l4 < 12 ? incomplete : `SPI=${formatHex(view.getUint32(l4 + 4))} `}`;
    case IpProto.Esp:
      if (fragment !== 0) return 'PROTO=ESP ';
      return `PROTO=ESP ${end - l4 < 8 ? incomplete : `SPI=${formatHex(view.getUint32(l4))} `}`;
    default:
      return `PROTO=${proto} `;
  }
}

function tcp(view: DataView, bytes: Uint8Array, l4: number, end: number, flags: number): string {
  let line = `SPT=${view.getUint16(l4)} DPT=${view.getUint16(l4 + 2)} `;
  if ((flags & LogFlag.TcpSequence) !== 0) line += `SEQ=${view.getUint32(l4 + 4)} ACK=${view.getUint32(l4 + 8)} `;
  line += `WINDOW=${view.getUint16(l4 + 14)} RES=0x${((view.getUint8(l4 + 12) & 15) << 2).toString(16).padStart(2, '0')} `;
  const bits = view.getUint8(l4 + 13);
  for (const [i, name] of TCP_FLAGS.entries()) if ((bits & (0x80 >> i)) !== 0) line += `${name} `;
  line += `URGP=${view.getUint16(l4 + 18)} `;
  const options = l4 + ((view.getUint8(l4 + 12) >> 4) << 2);
  if ((flags & LogFlag.TcpOptions) !== 0 && options > l4 + 20) {
    if (options > end) return `${line}OPT (TRUNCATED)`;
    line += `OPT (${hex(bytes, l4 + 20, options, '').toUpperCase()}) `;
  }
  return line;
}

function icmp(view: DataView, bytes: Uint8Array, l4: number, end: number, flags: number, isOuter: boolean): string {
  const [type, code] = [view.getUint8(l4), view.getUint8(l4 + 1)];
  let line = `TYPE=${type} CODE=${code} `;
  if (type <= KNOWN_LAST && end - l4 < (MIN_ICMP[type] ?? 0)) return `${line}INCOMPLETE [${end - l4} bytes] `;
  const quoted = (): string => (isOuter ? `[${ipHeader(view, bytes, l4 + 8, end, flags, false)}] ` : '');
  switch (type) {
    case Icmp.Echo:
    case Icmp.EchoReply:
      return `${line}ID=${view.getUint16(l4 + 4)} SEQ=${view.getUint16(l4 + 6)} `;
    case Icmp.Parameter:
      return `${line}PARAMETER=${view.getUint32(l4 + 4) >>> 24} `;
    case Icmp.Redirect:
      return `${line}GATEWAY=${formatIp4(view.getInt32(l4 + 4))} ${quoted()}`;
    case Icmp.Unreachable:
    case Icmp.Quench:
    case Icmp.TimeExceeded:
      line += quoted();
      if (type === Icmp.Unreachable && code === 4) line += `MTU=${view.getUint16(l4 + 6)} `;
      return line;
    default:
      return line;
  }
}
