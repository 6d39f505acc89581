/** The states that `-m conntrack --ctstate` and `-m state` speak of. */
import { CtInfo } from '../../conntrack/entry.ts';
import { Status } from '../../model/entry-status.ts';
import type { Packet } from '../../packet/packet.ts';
import type { Tracking } from '../tracking.ts';
import { readWords } from '../values.ts';

const { EstablishedReply: FIRST_REPLY, Untracked: UNTRACKED_INFO } = CtInfo;
const { SrcNat: SRC_NAT, DstNat: DST_NAT } = Status;

/** Bits, in the order in which they are printed. */
const INVALID = 1;
const UNTRACKED = 16;
const SNAT = 32;
const DNAT = 64;
const NAMES: readonly (readonly [string, number])[] = [
  ['INVALID', INVALID],
  ['NEW', 2],
  ['RELATED', 4],
  ['ESTABLISHED', 8],
  ['UNTRACKED', UNTRACKED],
  ['SNAT', SNAT],
  ['DNAT', DNAT],
];
/** Bit of CtInfo Established, Related, New, apart from the direction. */
const BY_INFO = Int32Array.of(8, 4, 2);

/** @throws BadRule */
export function readStates(text: string): number {
  return readWords(text, NAMES, (rest) => `Bad ctstate "${rest}"`);
}

/** For `-m state`, which knows nothing of translations. @throws BadRule */
export function readOlderStates(text: string): number {
  const names = NAMES.filter(([, bit]) => bit < SNAT);
  const wanted = '"--state" requires a list of states with no spaces, e.g. ESTABLISHED,RELATED';
  return readWords(text, names, (rest) => (rest === '' ? wanted : `Bad state "${rest}"`));
}

export function formatStates(states: number): string {
  return NAMES.filter(([, bit]) => (states & bit) !== 0)
    .map(([name]) => name)
    .join(',');
}

/** Does one of the states hold for the packet? One of the first five does, and those of its connection's translations. */
export function isInState(p: Packet, tracking: Tracking, states: number): boolean {
  const { entry, ctInfo } = p;
  if (entry === 0) return (states & (ctInfo === UNTRACKED_INFO ? UNTRACKED : INVALID)) !== 0;
  if ((states & BY_INFO[ctInfo >= FIRST_REPLY ? ctInfo - FIRST_REPLY : ctInfo]!) !== 0) return true;
  if ((states & (SNAT | DNAT)) === 0) return false;
  const status = tracking.status(entry);
  return ((states & SNAT) !== 0 && (status & SRC_NAT) !== 0) || ((states & DNAT) !== 0 && (status & DST_NAT) !== 0);
}
