/** All matches and targets there are. */
import type { MatchExtension, TargetExtension } from './extension.ts';
import { addrtype } from './match/addrtype.ts';
import { comment } from './match/comment.ts';
import { connlabel } from './match/connlabel.ts';
import { connmark } from './match/connmark.ts';
import { conntrack } from './match/conntrack.ts';
import { helper } from './match/helper.ts';
import { icmp } from './match/icmp.ts';
import { mark } from './match/mark.ts';
import { multiport } from './match/multiport.ts';
import { sctp } from './match/sctp.ts';
import { state } from './match/state.ts';
import { tcp } from './match/tcp.ts';
import { ttl } from './match/ttl.ts';
import { udp } from './match/udp.ts';
import { connmark as connmarkTarget } from './target/connmark.ts';
import { ct } from './target/ct.ts';
import { dnat } from './target/dnat.ts';
import { log } from './target/log.ts';
import { mark as markTarget } from './target/mark.ts';
import { masquerade } from './target/masquerade.ts';
import { netmap } from './target/netmap.ts';
import { notrack } from './target/notrack.ts';
import { redirect } from './target/redirect.ts';
import { reject } from './target/reject.ts';
import { snat } from './target/snat.ts';
import { tcpmss } from './target/tcpmss.ts';

export const MATCHES: readonly MatchExtension[] = [
  addrtype,
  comment,
  connlabel,
  connmark,
  conntrack,
  helper,
  icmp,
  mark,
  multiport,
  sctp,
  state,
  tcp,
  ttl,
  udp,
];
export const TARGETS: readonly TargetExtension[] = [
  connmarkTarget,
  ct,
  dnat,
  log,
  markTarget,
  masquerade,
  netmap,
  notrack,
  redirect,
  reject,
  snat,
  tcpmss,
];

export function findMatch(name: string): MatchExtension | undefined {
  return MATCHES.find((match) => match.name === name);
}

export function findTarget(name: string): TargetExtension | undefined {
  return TARGETS.find((target) => target.name === name);
}
