/** Why a packet was dropped, in one sentence with the numbers of this very packet. */
import type { Director } from '../director/director.ts';
import type { Filter } from '../filter/filter.ts';
import { writeWords } from '../filter/save.ts';
import type { IpStack } from '../ip/stack.ts';
import { TABLE_NAMES } from '../model/iptables.ts';
import type { WayFunction } from '../model/way.ts';
import { Drop, dropName, dropText } from '../packet/drop.ts';
import type { Packet } from '../packet/packet.ts';
import { formatIp4, formatMac } from '../wire/addr.ts';
import * as ethernet from '../wire/ethernet.ts';
import * as ipv4 from '../wire/ipv4.ts';

/** @param fn the hook function that looked at it last, if any */
export function dropWhy(
  stack: IpStack,
  director: Director,
  filter: Filter,
  p: Packet,
  reason: number,
  fn: WayFunction | undefined,
): string {
  const isByRule = reason >= Drop.FilterRule && reason <= Drop.FilterHotDrop;
  const detail = isByRule ? ruleOf(filter, fn) : detailOf(stack, director, p, reason, fn);
  const text = dropText[dropName(reason)];
  return detail === '' ? text : `${text}: ${detail}`;
}

function detailOf(stack: IpStack, director: Director, p: Packet, reason: number, fn: WayFunction | undefined): string {
  const { view, l3 } = p;
  const src = () => formatIp4(ipv4.src(view, l3));
  const dst = () => formatIp4(ipv4.dst(view, l3));
  const port = () => view.getUint16(p.l4 + 2);
  const name = (device: number) => stack.link.interfaces[device]?.name ?? 'lo';
  switch (reason) {
    case Drop.NotForUs: {
      const own = stack.link.interfaces[p.inDevice]?.device;
      const to = formatMac(ethernet.dstHi(view, p.l2), ethernet.dstLo(view, p.l2));
      return own ? `it is for ${to}, ${own.name} has ${formatMac(own.macHi, own.macLo)}` : '';
    }
    case Drop.TtlExceeded:
      return `it came with TTL ${ipv4.ttl(view, l3)}`;
    case Drop.FragmentationNeeded:
      return `${p.end - l3} bytes, and the MTU is ${p.rejectMtu === 0 ? p.mtu : p.rejectMtu}`;
    case Drop.ForwardingOff:
      return `${dst()} is not an address of ours`;
    case Drop.NoRoute:
    case Drop.RouteUnreachable:
      return dst();
    case Drop.ReversePath: {
      const back = stack.routes.lookup(ipv4.src(view, l3));
      const way = back === null ? 'there is none' : `that to ${src()} leaves by ${name(back.device)}`;
      return `${way}, it came in by ${name(p.inDevice)}`;
    }
    case Drop.MartianSource:
      return src();
    case Drop.MartianDestination:
    case Drop.MulticastNotForUs:
    case Drop.BroadcastNotForUs:
      return dst();
    case Drop.NeighbourQueueFull:
    case Drop.NeighbourFailed:
      return `${formatIp4(p.nexthop)} on ${name(p.outDevice)}`;
    case Drop.NeighbourTableFull:
      return `${stack.link.neighbours.size} neighbours`;
    case Drop.HopLoop:
      return `${p.reroutes} times`;
    case Drop.ResetSent:
      return `nothing of ours listens at ${dst()} port ${port()}`;
    case Drop.UnreachableSent:
      return `nothing of ours listens at ${dst()} port ${port()}`;
    case Drop.NoHostPort:
      return dst();
    case Drop.ProtocolUnreachable:
      return `protocol ${p.proto}`;
    case Drop.DirectorNoDestination:
      return fn?.service === undefined ? '' : noDestination(fn);
    case Drop.DirectorDestinationGone:
    case Drop.DirectorNoRoute:
      return fn?.connection?.server ?? '';
    case Drop.DirectorConnTableFull:
      return `${director.conns.count} connections of at most ${director.conns.capacity}`;
    default:
      return '';
  }
}

/** `-A FORWARD -p udp -j DROP, rule 3 of table filter` */
function ruleOf(filter: Filter, fn: WayFunction | undefined): string {
  const table = TABLE_NAMES.find((name) => fn?.name === `filter/${name}`);
  const rule = table === undefined ? null : filter.lastRule(table);
  if (rule === null) return '';
  const { chain, number, words } = rule;
  if (number === 0) return `-P ${chain} ${words[1]}, table ${table}`;
  return `-A ${chain} ${writeWords(words)}, rule ${number} of table ${table}`;
}

/** `TCP 10.0.1.100:80 has 3 servers: 2 quiesced, 1 overloaded` */
function noDestination({ service, choice }: WayFunction): string {
  const { name, servers } = service!;
  if (choice === undefined) return `${name} serves only its own port, for it is not persistent`;
  if (servers === 0) return `${name} has no servers`;
  const count = (verdict: string) => choice.candidates.filter((c) => c.verdict === verdict).length;
  const parts = [
    [count('quiesced'), 'quiesced'],
    [count('overloaded'), 'overloaded'],
    [count('lost'), `not picked by ${choice.scheduler}`],
  ] as const;
  const told = parts.filter(([n]) => n > 0).map(([n, what]) => `${n} ${what}`);
  return `${name} has ${servers} server${servers === 1 ? '' : 's'}${told.length === 0 ? '' : `: ${told.join(', ')}`}`;
}
