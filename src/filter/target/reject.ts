/** `-j REJECT`: drop, and tell the sender (net/ipv4/netfilter/ipt_REJECT.c). What is owed an answer at all is for ip/icmp.ts to say. */
import { Verdict } from '../../hooks/hooks.ts';
import { Drop } from '../../packet/drop.ts';
import { type Packet, REJECT_TCP_RESET } from '../../packet/packet.ts';
import { sum } from '../../packet/sum.ts';
import { fold, pseudoSum } from '../../wire/checksum.ts';
import { IcmpType, UnreachCode } from '../../wire/icmpv4.ts';
import { dst, IpProto, isFragment, src } from '../../wire/ipv4.ts';
import { BadRule, defineTarget } from '../extension.ts';
import { Inverted } from '../rule.ts';

interface RejectOptions {
  kind: (typeof KINDS)[number];
}

const UNREACHABLE = IcmpType.DestUnreachable;
const { Tcp: TCP, Udp: UDP, Gre: GRE } = IpProto;
const DCCP = 33;
const SUMS_OF_THEIR_OWN: readonly number[] = [IpProto.Ah, IpProto.Esp, IpProto.Sctp, IpProto.UdpLite, DCCP];
/** Bit of a GRE header's first word: there is a checksum (RFC 2784 §2.1). */
const GRE_CHECKSUM = 0x8000;
/** Name, the other name, code (-1 for a reset), what the manual says. */
const KINDS = [
  ['icmp-net-unreachable', 'net-unreach', UnreachCode.Net, 'ICMP network unreachable'],
  ['icmp-host-unreachable', 'host-unreach', UnreachCode.Host, 'ICMP host unreachable'],
  ['icmp-proto-unreachable', 'proto-unreach', 2, 'ICMP protocol unreachable'],
  ['icmp-port-unreachable', 'port-unreach', UnreachCode.Port, 'ICMP port unreachable (default)'],
  ['icmp-net-prohibited', 'net-prohib', 9, 'ICMP network prohibited'],
  ['icmp-host-prohibited', 'host-prohib', 10, 'ICMP host prohibited'],
  ['tcp-reset', 'tcp-rst', -1, 'TCP RST packet'],
  ['icmp-admin-prohibited', 'admin-prohib', UnreachCode.AdminProhibited, 'ICMP administratively prohibited (*)'],
] as const;
const DEFAULT = KINDS[3];

export const reject = defineTarget<RejectOptions>({
  name: 'REJECT',
  man: `REJECT target options:
--reject-with type              drop input packet and send back
                                a reply packet according to type:
Valid reject types:
${KINDS.map(([name, alias, , about]) => `    ${name.padEnd(25)}\t${about}\n    ${alias.padEnd(25)}\talias\n`).join('')}
(*) See man page or read the INCOMPATIBILITES file for compatibility issues.
`,
  init: () => ({ kind: DEFAULT }),
  options: [
    {
      name: 'reject-with',
      read: (o, text, _isInverted, reading) => {
        const wanted = text.toLowerCase();
        const kind = KINDS.find(([name, alias]) => name.startsWith(wanted) || alias.startsWith(wanted));
        if (kind === undefined) {
          if (wanted.startsWith('echo-reply') || wanted.startsWith('echoreply')) {
            reading.warn('--reject-with echo-reply no longer supported\n');
          }
          throw new BadRule(`unknown reject type "${text}"`);
        }
        o.kind = kind;
      },
    },
  ],
  isLegal: ({ kind }, header, { table, hooks }) =>
    table === 'filter' &&
    hooks.every((hook) => hook === 'INPUT' || hook === 'FORWARD' || hook === 'OUTPUT') &&
    (kind[2] !== -1 || (header.proto === IpProto.Tcp && (header.inverted & Inverted.Proto) === 0)),
  save: ({ kind }) => ['--reject-with', kind[0]],
  list: ({ kind }) => `reject-with ${kind[0]}`,
  compile: ({ kind }) => {
    const code = kind[2];
    return (p) => {
      p.drop = Drop.FilterRejected;
      if (code < 0) {
        p.rejectType = REJECT_TCP_RESET;
      } else if (isSound(p)) {
        p.rejectType = UNREACHABLE;
        p.rejectCode = code;
        p.rejectMtu = 0;
      }
      return Verdict.Drop;
    };
  },
});

/** nf_send_unreach: nothing is said about a packet whose checksum is wrong, as far as there is a plain one over all of it (nf_reject_verify_csum). */
function isSound(p: Packet): boolean {
  if (p.csumPartial !== 0 || p.csumValid !== 0 || p.gsoType !== 0) return true;
  const { view, l3, l4, proto } = p;
  if (isFragment(view, l3) || SUMS_OF_THEIR_OWN.includes(proto)) return true;
  const length = p.end - l4;
  if (proto === UDP && (length < 8 || view.getUint16(l4 + 6) === 0)) return true;
  if (proto === GRE && (length < 4 || (view.getUint16(l4) & GRE_CHECKSUM) === 0)) return true;
  const hasPseudo = proto === TCP || proto === UDP;
  const start = hasPseudo ? fold(pseudoSum(src(view, l3), dst(view, l3), proto, length)) : 0;
  return fold(start + sum(p, l4, length)) === 0xffff;
}
