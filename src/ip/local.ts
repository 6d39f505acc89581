/**
 * Local delivery: LOCAL_IN, then the host port, or our own answers where nobody else can give them.   @hot
 * Kernel: ip_local_deliver, icmp_rcv (icmp_echo), tcp_v4_rcv and __udp4_lib_rcv where no socket is found.
 */
import { Hook, Verdict } from '../hooks/hooks.ts';
import { DefragUser } from '../hooks/reassembly.ts';
import { drop } from '../link/link.ts';
import { Drop } from '../packet/drop.ts';
import { FLOW_UNKNOWN, NONE, type Packet, PacketType } from '../packet/packet.ts';
import { isTransportSumRight, isUdpLiteRight } from '../packet/sum.ts';
import { adjust, diff16 } from '../wire/checksum.ts';
import { fillChecksum, ICMP_CHECKSUM, IcmpType, setType, type as typeOf, UnreachCode } from '../wire/icmpv4.ts';
import * as ipv4 from '../wire/ipv4.ts';
import { tcpReset } from './icmp.ts';
import { answered, echoOptions, NO_ECHO, readOptions } from './options.ts';
import { finish } from './output.ts';
import { refuseWith, settle } from './settle.ts';
import { type IpStack, tapHook } from './stack.ts';

const ACCEPT = Verdict.Accept;
const { IPV4_HEADER } = ipv4;
const LOCAL_DELIVER = DefragUser.LocalDeliver;
const { LocalIn: LOCAL_IN, LocalOut: LOCAL_OUT } = Hook;
const { Tcp: TCP, Udp: UDP, Icmp: ICMP, Igmp: IGMP, Sctp: SCTP, UdpLite: UDPLITE } = ipv4.IpProto;
/** Longest packet that goes up the host port whole. */
const HOST_MTU = 65535;
/** ICMP timestamp, RFC 792 p. 16: when it was asked, when that was received, when the answer was sent. */
const TIMESTAMP_LENGTH = 20;
const TIMESTAMP_RECEIVED = 12;
const TIMESTAMP_SENT = 16;

export function localIn(stack: IpStack, p: Packet): void {
  p.isLocalIn = 1;
  p.nexthop = 0;
  p.outDevice = NONE;
  if (!ipv4.isFragment(p.view, p.l3)) return localInWhole(stack, p);
  const verdict = stack.fragments.take(p, LOCAL_DELIVER);
  if (verdict !== ACCEPT) return settle(stack, p, verdict);
  localInWhole(stack, p);
}

function localInWhole(stack: IpStack, p: Packet): void {
  const verdict = stack.hooks.localIn.run(p, 0);
  if (stack.link.tap !== null) tapHook(stack, p, LOCAL_IN, verdict);
  if (verdict !== ACCEPT) return settle(stack, p, verdict);
  deliver(stack, p);
}

/** After LOCAL_IN: find who the packet is for. */
export function deliver(stack: IpStack, p: Packet): void {
  if (p.proto === UDP && stack.datagrams.count !== 0 && stack.datagrams.deliver(p)) return;
  if (p.pktType !== PacketType.Host) return deliverBroadcast(stack, p);
  const dst = ipv4.dst(p.view, p.l3);
  const host = stack.hostId === NONE ? null : (stack.link.interfaces[stack.hostId] ?? null);
  if (host !== null && dst === host.peer) return deliverToHost(stack, p);
  // Nobody here reads SCTP, so nobody finds fault with it.
  if (p.l4Fault !== 0 && p.proto !== SCTP) return drop(stack.link, p, p.l4Fault);
  if (p.proto === ICMP && p.isLaterFragment === 0 && isOurIcmp(stack, p)) return;
  if (stack.isHostAddress(dst)) return deliverToHost(stack, p);
  answerUnserved(stack, p);
}

/** Up the TUN: offload fields as they are, no MTU, for the kernel takes what it is given. */
function deliverToHost(stack: IpStack, p: Packet): void {
  p.outDevice = stack.hostId;
  p.nexthop = ipv4.dst(p.view, p.l3);
  p.fragMax = 0;
  p.mtu = HOST_MTU;
  finish(stack, p);
}

/** Broadcasts end here: behind the host port nobody stands on this segment. An echo request is answered only when that is asked for. */
function deliverBroadcast(stack: IpStack, p: Packet): void {
  if (p.pktType === PacketType.Multicast) {
    if (p.proto === IGMP) return stack.groups.input(stack, p);
    return drop(stack.link, p, p.l4Fault !== 0 ? p.l4Fault : Drop.MulticastNotForUs);
  }
  if (p.l4Fault !== 0) return drop(stack.link, p, p.l4Fault);
  const isEcho = p.proto === ICMP && p.isLaterFragment === 0 && typeOf(p.view, p.l4) === IcmpType.Echo;
  const s = stack.settings;
  if (
    !isEcho ||
    s.icmpEchoIgnoreBroadcasts !== 0 ||
    s.icmpEchoIgnoreAll !== 0 ||
    !stack.resolve(ipv4.src(p.view, p.l3))
  ) {
    return drop(stack.link, p, Drop.BroadcastNotForUs);
  }
  echo(stack, p, stack.source);
}

/** ICMP that we take ourselves even beside a host port: echo and timestamp requests to our own addresses. True: the packet has ended. */
function isOurIcmp(stack: IpStack, p: Packet): boolean {
  if (ipv4.isFragment(p.view, p.l3)) return false;
  const type = typeOf(p.view, p.l4);
  if (type === IcmpType.Timestamp && p.end - p.l4 >= TIMESTAMP_RECEIVED) {
    tellTime(stack, p);
    return true;
  }
  if (type !== IcmpType.Echo) return false;
  if (stack.settings.icmpEchoIgnoreAll !== 0) drop(stack.link, p, Drop.IcmpUnhandled);
  else echo(stack, p, ipv4.dst(p.view, p.l3));
  return true;
}

/** Turn the echo request around (RFC 792): the same memory becomes the reply, a new packet to the pipeline. */
function echo(stack: IpStack, p: Packet, source: number): void {
  if (!turnOptions(stack, p, source)) return drop(stack.link, p, Drop.IcmpUnhandled);
  const { view, l4 } = p;
  turnRound(stack, p, source);
  setType(view, l4, IcmpType.EchoReply);
  const value = adjust(view.getUint16(l4 + ICMP_CHECKSUM), diff16(IcmpType.Echo << 8, 0));
  // Zero and all ones are the same number, but only all ones is right for a message that is zero throughout.
  view.setUint16(l4 + ICMP_CHECKSUM, value === 0 ? 0xffff : value);
  rebear(stack, p);
  stack.defer(p, LOCAL_OUT);
}

/** A timestamp request becomes its answer: when it came, and when it goes, which is the same millisecond (RFC 792 p. 16; icmp_timestamp). */
function tellTime(stack: IpStack, p: Packet): void {
  if (!turnOptions(stack, p, ipv4.dst(p.view, p.l3))) return drop(stack.link, p, Drop.IcmpUnhandled);
  const { view, l3, l4 } = p;
  const now = stack.timeOfDayMs();
  p.end = l4 + TIMESTAMP_LENGTH;
  ipv4.setTotalLength(view, l3, p.end - l3);
  turnRound(stack, p, ipv4.dst(view, l3));
  // Whatever code the request had, the answer's is 0.
  view.setUint16(l4, IcmpType.TimestampReply << 8);
  view.setUint32(l4 + TIMESTAMP_RECEIVED, now);
  view.setUint32(l4 + TIMESTAMP_SENT, now);
  fillChecksum(view, l4, p.end);
  rebear(stack, p);
  stack.defer(p, LOCAL_OUT);
}

/** The answer's options in the place of the question's. False: there is none. */
function turnOptions(stack: IpStack, p: Packet, source: number): boolean {
  const { view, bytes, l3, l4 } = p;
  if (l4 - l3 === IPV4_HEADER) return true;
  readOptions(stack, p);
  const length = echoOptions(stack, p, source);
  if (length === NO_ECHO) return false;
  p.l4 = l3 + IPV4_HEADER + length;
  for (let i = 0; i < length; i++) bytes[l3 + IPV4_HEADER + i] = answered[i]!;
  bytes.copyWithin(p.l4, l4, p.end);
  p.end += p.l4 - l4;
  ipv4.setHeaderLength(view, l3, p.l4 - l3);
  ipv4.setTotalLength(view, l3, p.end - l3);
  return true;
}

/** The IPv4 header of an answer in the memory of its question. */
function turnRound(stack: IpStack, p: Packet, source: number): void {
  const { view, l3 } = p;
  const client = ipv4.src(view, l3);
  stack.drops[Drop.EchoAnswered]!++;
  stack.stats.born++;
  ipv4.setSrc(view, l3, source);
  ipv4.setDst(view, l3, client);
  ipv4.setTtl(view, l3, stack.settings.defaultTtl);
  ipv4.setId(view, l3, stack.nextIdent());
  ipv4.setFragmentWord(view, l3, 0);
  ipv4.fillChecksum(view, l3);
}

/** Forget all that was known of the packet that came in. */
function rebear(stack: IpStack, p: Packet): void {
  stack.pool.forgetEntry(p);
  p.fragMax = 0;
  p.options = 0;
  p.pktType = PacketType.Host;
  p.inDevice = NONE;
  p.outDevice = NONE;
  p.isLocalOut = 1;
  p.isLocalIn = 0;
  p.nexthop = 0;
  p.mark = 0;
  p.flow = FLOW_UNKNOWN;
  p.ipvsProperty = 0;
  p.reroutes = 0;
  p.csumPartial = 0;
  p.csumValid = 0;
}

/** No host port has this address: say what a host without sockets says (RFC 1122 §3.2.2.1, RFC 9293 §3.10.7.1). */
function answerUnserved(stack: IpStack, p: Packet): void {
  const link = stack.link;
  if (ipv4.isFragment(p.view, p.l3)) return drop(link, p, Drop.NoHostPort);
  const proto = p.proto;
  if (proto === ICMP) return drop(link, p, Drop.IcmpUnhandled);
  if (proto === IGMP) return drop(link, p, Drop.NoHostPort);
  const { DestUnreachable } = IcmpType;
  if (proto === TCP) {
    if (!isTransportSumRight(p)) return drop(link, p, Drop.TcpBadChecksum);
    return drop(link, p, tcpReset(stack, p) ? Drop.ResetSent : Drop.NoHostPort);
  }
  if (proto === UDP) {
    if (!isTransportSumRight(p)) return drop(link, p, Drop.UdpBadChecksum);
    return refuseWith(stack, p, Drop.UnreachableSent, DestUnreachable, UnreachCode.Port, 0);
  }
  if (proto === UDPLITE) {
    if (!isUdpLiteRight(p)) return drop(link, p, Drop.UdpBadChecksum);
    return refuseWith(stack, p, Drop.UnreachableSent, DestUnreachable, UnreachCode.Port, 0);
  }
  refuseWith(stack, p, Drop.ProtocolUnreachable, DestUnreachable, UnreachCode.Protocol, 0);
}
