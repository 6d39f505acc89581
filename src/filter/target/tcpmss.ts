/** `-j TCPMSS`: no longer segments than the path takes (net/netfilter/xt_TCPMSS.c). */
import { Verdict } from '../../hooks/hooks.ts';
import type { Packet } from '../../packet/packet.ts';
import { adjust, adjustPartial, diff16 } from '../../wire/checksum.ts';
import * as ipv4 from '../../wire/ipv4.ts';
import * as tcp from '../../wire/tcp.ts';
import { BadRule, CONTINUE, defineTarget, type Traversal } from '../extension.ts';
import { Inverted } from '../rule.ts';
import { readNumber } from '../values.ts';

interface TcpmssOptions {
  mss: number;
  isClamped: boolean;
}

const TCP = ipv4.IpProto.Tcp;
const LARGEST = 65515;
/** Option kind and length (RFC 9293 §3.2). */
const MSS = 2;
const MSS_LENGTH = 4;
/** What a host without the option takes (RFC 9293 §3.7.1). */
const DEFAULT_MSS = 536;
const LONGEST_HEADER = 60;
const HEADERS = ipv4.IPV4_HEADER + tcp.TCP_HEADER;
const CLAMP_HOOKS: readonly string[] = ['FORWARD', 'OUTPUT', 'POSTROUTING'];

export const tcpmss = defineTarget<TcpmssOptions>({
  name: 'TCPMSS',
  man: `TCPMSS target mutually-exclusive options:
  --set-mss value               explicitly set MSS option to specified value
  --clamp-mss-to-pmtu           automatically clamp MSS value to (path_MTU - 20)
`,
  init: () => ({ mss: 0, isClamped: false }),
  options: [
    {
      name: 'set-mss',
      read: (o, text) => {
        const value = readNumber('TCPMSS', 'set-mss', text, LARGEST);
        if (!o.isClamped) o.mss = value;
      },
    },
    {
      name: 'clamp-mss-to-pmtu',
      value: 'none',
      read: (o) => {
        o.isClamped = true;
      },
    },
  ],
  finish: (_o, _header, given) => {
    if (given.size === 0) throw new BadRule('TCPMSS target: At least one parameter is required');
  },
  isLegal: ({ isClamped }, header, { hooks, matches }) =>
    header.proto === TCP &&
    (header.inverted & Inverted.Proto) === 0 &&
    (!isClamped || hooks.every((hook) => CLAMP_HOOKS.includes(hook))) &&
    matches.some(({ extension, options }) => extension.name === 'tcp' && asksForSyn(options)),
  save: ({ mss, isClamped }) => (isClamped ? ['--clamp-mss-to-pmtu'] : ['--set-mss', String(mss)]),
  list: ({ mss, isClamped }) => (isClamped ? 'TCPMSS clamp to PMTU' : `TCPMSS set ${mss}`),
  compile: ({ mss, isClamped }) => {
    return (p, t) => {
      if (p.isLaterFragment !== 0) return CONTINUE;
      // It is written into as a whole (skb_ensure_writable), and then no datagram in pieces any more.
      if (p.fragMax !== 0) p.drawn = p.end - p.l4;
      if (p.end - p.l4 < tcp.TCP_HEADER) return Verdict.Drop;
      const length = tcp.headerLength(p.view, p.l4);
      if (length < tcp.TCP_HEADER || p.end - p.l4 < length) return Verdict.Drop;
      const most = isClamped ? clampTo(p, t) : mss;
      return most < 0 ? Verdict.Drop : lower(p, length, most);
    };
  },
});

/** find_syn_match: its flags are looked at for SYN, and not inverted. */
function asksForSyn(options: unknown): boolean {
  const { flags, isFlagsInverted } = options as { flags: number; isFlagsInverted: boolean };
  return (flags & tcp.TcpFlag.Syn) !== 0 && !isFlagsInverted;
}

/** The smaller MTU of both directions without headers; -1 when nothing is left. */
function clampTo(p: Packet, t: Traversal): number {
  const { routing } = t.conditions;
  const back = routing.resolve(ipv4.src(p.view, p.l3)) ? routing.mtu : Number.POSITIVE_INFINITY;
  const mtu = Math.min(p.mtu, back);
  return mtu <= HEADERS ? -1 : mtu - HEADERS;
}

/** Lower the option; put it in where there is none and nothing stands behind the header. */
function lower(p: Packet, length: number, mss: number): number {
  const { view, l4 } = p;
  for (let at = tcp.TCP_HEADER; at <= length - MSS_LENGTH; ) {
    const kind = view.getUint8(l4 + at);
    const size = kind <= 1 ? 1 : view.getUint8(l4 + at + 1) || 1;
    if (kind === MSS && size === MSS_LENGTH) {
      const old = view.getUint16(l4 + at + 2);
      if (old > mss) write(p, at + 2, old, mss);
      return CONTINUE;
    }
    at += size;
  }
  if (p.end - l4 > length || length >= LONGEST_HEADER) return CONTINUE;
  insert(p, Math.min(mss, DEFAULT_MSS));
  return CONTINUE;
}

function write(p: Packet, at: number, old: number, value: number): void {
  const { view, l4 } = p;
  view.setUint16(l4 + at, value);
  if (p.csumPartial !== 0) return;
  // The option may stand at an odd place; its bytes then count the other way round in the sum.
  const swap = (word: number): number => ((at & 1) === 0 ? word : ((word & 0xff) << 8) | (word >> 8));
  const sum = view.getUint16(l4 + tcp.TCP_CHECKSUM);
  tcp.setChecksum(view, l4, adjust(sum, diff16(swap(old), swap(value))));
}

/** Four bytes more, first of the options. */
function insert(p: Packet, mss: number): void {
  const { view, bytes, l3, l4 } = p;
  bytes.copyWithin(l4 + tcp.TCP_HEADER + MSS_LENGTH, l4 + tcp.TCP_HEADER, p.end);
  p.end += MSS_LENGTH;
  view.setUint8(l4 + tcp.TCP_HEADER, MSS);
  view.setUint8(l4 + tcp.TCP_HEADER + 1, MSS_LENGTH);
  view.setUint16(l4 + tcp.TCP_HEADER + 2, mss);
  const offset = view.getUint16(l4 + 12);
  view.setUint16(l4 + 12, offset + 0x1000);
  let sum = view.getUint16(l4 + tcp.TCP_CHECKSUM);
  const length = p.end - l4;
  if (p.csumPartial !== 0) {
    sum = adjustPartial(sum, diff16(length - MSS_LENGTH, length));
  } else {
    sum = adjust(sum, diff16(length - MSS_LENGTH, length));
    sum = adjust(sum, diff16(offset, offset + 0x1000));
    sum = adjust(sum, diff16(0, (MSS << 8) | MSS_LENGTH));
    sum = adjust(sum, diff16(0, mss));
  }
  tcp.setChecksum(view, l4, sum);
  const total = ipv4.totalLength(view, l3);
  ipv4.setTotalLength(view, l3, total + MSS_LENGTH);
  ipv4.adjustChecksum(view, l3, diff16(total, total + MSS_LENGTH));
}
