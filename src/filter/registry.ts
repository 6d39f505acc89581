/** All matches and targets there are. */
import type { MatchExtension, TargetExtension } from './extension.ts';
import { comment } from './match/comment.ts';
import { icmp } from './match/icmp.ts';
import { mark } from './match/mark.ts';
import { multiport } from './match/multiport.ts';
import { sctp } from './match/sctp.ts';
import { tcp } from './match/tcp.ts';
import { udp } from './match/udp.ts';
import { mark as markTarget } from './target/mark.ts';
import { reject } from './target/reject.ts';

export const MATCHES: readonly MatchExtension[] = [comment, icmp, mark, multiport, sctp, tcp, udp];
export const TARGETS: readonly TargetExtension[] = [markTarget, reject];

export function findMatch(name: string): MatchExtension | undefined {
  return MATCHES.find((match) => match.name === name);
}

export function findTarget(name: string): TargetExtension | undefined {
  return TARGETS.find((target) => target.name === name);
}
