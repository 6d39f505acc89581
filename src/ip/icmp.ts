/**
 * What we say about packets that end here: ICMP errors (RFC 792, RFC 1122 §3.2.2, RFC 1812 §4.3.2) and TCP resets (RFC 9293 §3.10.7.1).   @hot
 *
 * Each is a packet born here that starts at LOCAL_OUT. Sizes, TOS, source and limits are those of the kernel: __icmp_send in net/ipv4/icmp.c,
 * tcp_v4_send_reset in net/ipv4/tcp_ipv4.c.
 */

import { milliseconds } from '../base/clock.ts';
import { Hook } from '../hooks/hooks.ts';
import { bear } from '../link/link.ts';
import { NONE, type Packet, PacketType, REJECT_TCP_RESET } from '../packet/packet.ts';
import { completeChecksum, fillTransportChecksum, isTransportSumRight } from '../packet/sum.ts';
import { isMulticast, isZeroNet } from '../wire/addr.ts';
import { ETH_HEADER } from '../wire/ethernet.ts';
import * as icmp from '../wire/icmpv4.ts';
import * as ipv4 from '../wire/ipv4.ts';
import * as tcp from '../wire/tcp.ts';
import { answered, echoOptions, NO_ECHO, readOptions } from './options.ts';
import { RouteKind } from './routes.ts';
import type { IpStack } from './stack.ts';

const { Tcp: TCP, Icmp: ICMP } = ipv4.IpProto;
const { Fin: FIN, Syn: SYN, Rst: RST, Ack: ACK } = tcp.TcpFlag;
const { IPV4_HEADER, DF } = ipv4;
const ICMP_HEADER = icmp.ICMP_HEADER;
const TCP_HEADER = tcp.TCP_HEADER;
const LOCAL_OUT = Hook.LocalOut;
const BROADCAST = RouteKind.Broadcast;

/** RFC 1812 §4.3.2.3: as much of the cause as fits into 576 bytes. */
const MAX_ERROR_LENGTH = 576;
/** IP precedence "internetwork control" (RFC 1812 §4.3.2.5). */
const PRECEDENCE_CONTROL = 0xc0;
const TOS_BITS = 0x1e;
const ECN_BITS = 3;
/** Types about which the kernel sends no error (icmp_pointers): errors, what was never assigned or used up to 18, and router discovery. */
const UNANSWERED_TYPES = 0x1efe;
const LAST_TYPE = 18;

/** Send what the packet's `rejectType` says that its sender is owed. */
export function reject(stack: IpStack, p: Packet): void {
  const type = p.rejectType;
  p.rejectType = 0;
  if (type === REJECT_TCP_RESET) tcpReset(stack, p, true);
  else icmpError(stack, p, type, p.rejectCode, p.rejectMtu);
}

/** May a packet be answered at all: one sender, one receiver, and both plain addresses (RFC 1122 §3.2.2)? */
function isAnswerable(stack: IpStack, p: Packet): boolean {
  if (p.pktType !== PacketType.Host || p.isLaterFragment !== 0) return false;
  const { view, l3 } = p;
  const src = ipv4.src(view, l3);
  const dst = ipv4.dst(view, l3);
  if (isMulticast(src) || isMulticast(dst) || isZeroNet(src) || src === -1 || dst === -1) return false;
  const route = stack.routes.lookup(dst);
  return route === null || route.kind !== BROADCAST;
}

/** True for a message about which no error is sent: an error itself, or unknown. */
function isIcmpError(p: Packet): boolean {
  if (p.end - p.l4 < 1) return true;
  const type = icmp.type(p.view, p.l4);
  return type > LAST_TYPE || (UNANSWERED_TYPES & (1 << type)) !== 0;
}

/** @param rest the word after the checksum: next-hop MTU, or the pointer of a parameter problem in its first byte */
export function icmpError(stack: IpStack, p: Packet, type: number, code: number, rest: number): void {
  if (!isAnswerable(stack, p) || (p.proto === ICMP && isIcmpError(p))) return;
  const { view, l3 } = p;
  const target = ipv4.src(view, l3);
  // What the kernel behind the host port sends has its own options.
  const hasOptions = ipv4.headerLength(view, l3) !== IPV4_HEADER && p.isLocalOut === 0;
  if (hasOptions) readOptions(stack, p);
  if (!stack.resolve(target) || stack.isBroadcast) return;
  if (!isAllowed(stack, target, type, code)) {
    stack.stats.icmpRateLimited++;
    return;
  }
  if (p.gsoType === 0) completeChecksum(p);
  const source = errorSource(stack, p, target);
  const { mtu } = stack;
  const options = hasOptions ? echoOptions(stack, p, source) : 0;
  if (options === NO_ECHO) return;
  const header = IPV4_HEADER + options;
  const quote = Math.min(p.end - l3, Math.min(MAX_ERROR_LENGTH, mtu) - header - ICMP_HEADER);
  const length = header + ICMP_HEADER + quote;
  const q = bear(stack.link, ETH_HEADER + length);
  if (q === null) return;
  const tos = (ipv4.tos(view, l3) & TOS_BITS) | PRECEDENCE_CONTROL;
  ipv4.emit(q.view, q.l3, length, ICMP, source, target, stack.settings.defaultTtl, tos, stack.nextIdent(), 0);
  if (options !== 0) putOptions(q, options);
  q.l4 = q.l3 + header;
  q.proto = ICMP;
  icmp.emit(q.view, q.l4, type, code, rest);
  q.bytes.copyWithin(q.l4 + ICMP_HEADER, l3, l3 + quote);
  icmp.fillChecksum(q.view, q.l4, q.end);
  q.isLocalOut = 1;
  if (stack.onAnswer !== null) stack.onAnswer(q, p);
  stack.defer(q, LOCAL_OUT);
}

/** Behind the header that was just made: the answer's options. */
function putOptions(q: Packet, length: number): void {
  const { view, bytes, l3 } = q;
  for (let i = 0; i < length; i++) bytes[l3 + IPV4_HEADER + i] = answered[i]!;
  ipv4.setHeaderLength(view, l3, IPV4_HEADER + length);
  ipv4.fillChecksum(view, l3);
}

/** Our address that the packet was for; else the one we use towards its sender, or that of the device where it came in. */
function errorSource(stack: IpStack, p: Packet, target: number): number {
  if (p.isLocalIn !== 0) return ipv4.dst(p.view, p.l3);
  // The kernel behind the host port would take a packet from its own address for a martian.
  if (stack.isLocal && stack.hostId !== NONE) return stack.addresses.select(stack.hostId, target);
  if (stack.settings.icmpUseInboundAddress !== 0 && p.inDevice > 0) return stack.addresses.select(p.inDevice, target);
  return stack.source;
}

/** The limits spare fragmentation needed, on which path MTU discovery depends (icmpv4_mask_allow). */
function isAllowed(stack: IpStack, target: number, type: number, code: number): boolean {
  const s = stack.settings;
  if (type === icmp.IcmpType.DestUnreachable && code === icmp.UnreachCode.FragNeeded) return true;
  if ((s.icmpRateMask & (1 << type)) === 0) return true;
  const now = stack.link.now;
  if (!stack.limiter.allowGlobal(now, s.icmpMessagesPerSecond, s.icmpMessagesBurst)) return false;
  return stack.isLocal || stack.limiter.allowPeer(now, target, milliseconds(s.icmpRateLimit));
}

/** Answers false when the segment is owed nothing: itself a reset, broken, a fragment, or not from one host to one host. */
export function tcpReset(stack: IpStack, p: Packet, isRejected = false): boolean {
  if (p.proto !== TCP || p.l4Fault !== 0 || !isAnswerable(stack, p) || ipv4.isFragment(p.view, p.l3)) return false;
  const { view, l3, l4 } = p;
  const flags = tcp.flags(view, l4);
  if ((flags & RST) !== 0 || !isTransportSumRight(p)) return false;
  const options = isRejected ? 0 : resetOptions(stack, p);
  if (options === NO_ECHO) return false;
  const header = IPV4_HEADER + options;
  const length = header + TCP_HEADER;
  const q = bear(stack.link, ETH_HEADER + length);
  if (q === null) return false;
  const isAck = (flags & ACK) !== 0;
  const data = p.end - l4 - tcp.headerLength(view, l4);
  const controls = ((flags & SYN) !== 0 ? 1 : 0) + ((flags & FIN) !== 0 ? 1 : 0);
  const seq = isAck ? tcp.ack(view, l4) : 0;
  const ack = isAck ? 0 : (tcp.seq(view, l4) + data + controls) | 0;
  q.l4 = q.l3 + header;
  q.proto = TCP;
  const ttl = stack.settings.defaultTtl;
  // A socket's answer keeps the type of service without its ECN bits, that of a rule has none (nf_reject_iphdr_put).
  const tos = isRejected ? 0 : ipv4.tos(view, l3) & ~ECN_BITS;
  ipv4.emit(q.view, q.l3, length, TCP, ipv4.dst(view, l3), ipv4.src(view, l3), ttl, tos, 0, DF);
  if (options !== 0) putOptions(q, options);
  tcp.emit(q.view, q.l4, tcp.dstPort(view, l4), tcp.srcPort(view, l4), seq, ack, isAck ? RST : RST | ACK, 0);
  fillTransportChecksum(q, q.l3, q.l4, TCP);
  q.isLocalOut = 1;
  if (isRejected && stack.onAnswer !== null) stack.onAnswer(q, p);
  stack.defer(q, LOCAL_OUT);
  return true;
}

/** A socket's reset goes on with the route and the times of what it answers, that of a rule has no options. */
function resetOptions(stack: IpStack, p: Packet): number {
  if (ipv4.headerLength(p.view, p.l3) === IPV4_HEADER) return 0;
  readOptions(stack, p);
  return echoOptions(stack, p, ipv4.dst(p.view, p.l3));
}
