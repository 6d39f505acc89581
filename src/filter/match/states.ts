/** The states that `-m conntrack --ctstate` and `-m state` speak of. */
import { CtInfo } from '../../conntrack/entry.ts';
import { Status } from '../../model/entry-status.ts';
import type { Packet } from '../../packet/packet.ts';
import type { Tracking } from '../tracking.ts';
import { readWords } from '../values.ts';

const { EstablishedReply: FIRST_REPLY, Untracked: UNTRACKED_INFO } = CtInfo;

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

/** The bits that hold for the packet: one of the first five, and of its connection's translations. */
export function stateOf(p: Packet, tracking: Tracking): number {
  const { entry, ctInfo } = p;
  if (entry === 0) return ctInfo === UNTRACKED_INFO ? UNTRACKED : INVALID;
  const state = BY_INFO[ctInfo >= FIRST_REPLY ? ctInfo - FIRST_REPLY : ctInfo]!;
  const status = tracking.status(entry);
  return state | ((status & Status.SrcNat) !== 0 ? SNAT : 0) | ((status & Status.DstNat) !== 0 ? DNAT : 0);
}
