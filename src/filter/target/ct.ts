/** `-j CT`: what connection tracking shall make of the packet, before it sees it (net/netfilter/xt_CT.c). */
import { CtInfo } from '../../conntrack/entry.ts';
import type { Packet } from '../../packet/packet.ts';
import { BadRule, CONTINUE, defineTarget } from '../extension.ts';
import { type Header, Inverted } from '../rule.ts';
import type { Template } from '../tracking.ts';
import { parseNumber } from '../values.ts';

interface CtOptions {
  isUntracked: boolean;
  /** Undefined: not asked for. */
  zone: number | 'mark' | undefined;
  /** Of which directions: bits of DIRECTIONS; none and both are all. */
  zoneDirs: number;
  helper: string;
  /** Name of a timeout policy. Nobody makes any here, so only a rule that tracks nothing can name one. */
  timeout: string;
  /** Bits by the place in EVENTS; 0: not asked for. */
  events: number;
  expectationEvents: number;
}

/** By number, include/uapi/linux/netfilter/nf_conntrack_common.h, enum ip_conntrack_events. */
const EVENTS = [
  'new', 'related', 'destroy', 'reply', 'assured', 'protoinfo', 'helper', 'mark', 'natseqinfo', 'secmark',
]; // biome-ignore format: a table
const EXPECTATION_EVENTS = ['new'];

function readEvents(text: string, known: readonly string[]): number {
  let events = 0;
  for (const word of text.split(',')) {
    const event = known.indexOf(word);
    if (event < 0) throw new BadRule(`Unknown event type "${word}"`);
    events |= 1 << event;
  }
  return events;
}

function formatEvents(events: number): string {
  return EVENTS.filter((_name, bit) => (events & (1 << bit)) !== 0).join(',');
}

/** The first rule that says something of a packet's tracking has said it all, and a packet that came before is what it is. */
function isDecided(p: Packet): boolean {
  return p.entry !== 0 || p.ctTemplate !== 0 || p.ctInfo === CtInfo.Untracked;
}

/** The packet shall not be tracked. */
export function untrack(p: Packet): number {
  if (!isDecided(p)) p.ctInfo = CtInfo.Untracked;
  return CONTINUE;
}

const DIRECTIONS = ['', '-orig', '-reply', ''] as const;

function zoneOption(dir: (typeof DIRECTIONS)[number]) {
  return {
    name: `zone${dir}`,
    read: (o: CtOptions, text: string): void => {
      const zone = text.toLowerCase() === 'mark' ? 'mark' : parseNumber(text, 0xffff);
      if (zone === undefined) throw new BadRule(`Cannot parse ${text} as a zone ID`);
      o.zone = zone;
      o.zoneDirs |= DIRECTIONS.indexOf(dir);
    },
  };
}

/** Each option with its value; '' for none. */
function parts(o: CtOptions): [string, string][] {
  const all: [string, string][] = [];
  if (o.isUntracked) all.push(['notrack', '']);
  if (o.helper !== '') all.push(['helper', o.helper]);
  if (o.timeout !== '') all.push(['timeout', o.timeout]);
  if (o.events !== 0) all.push(['ctevents', formatEvents(o.events)]);
  if (o.expectationEvents !== 0) all.push(['expevents', 'new']);
  // Zone 0 is where connections are anyway.
  if (o.zone !== undefined && o.zone !== 0) all.push([`zone${DIRECTIONS[o.zoneDirs]}`, String(o.zone)]);
  return all;
}

/** 0: any, or any but one. */
function protocolOf({ inverted, proto }: Header): number {
  return (inverted & Inverted.Proto) === 0 ? proto : 0;
}

export const ct = defineTarget<CtOptions>({
  name: 'CT',
  man: `CT target options:
 --notrack			Don't track connection
 --helper name			Use conntrack helper 'name' for connection
 --timeout name 		Use timeout policy 'name' for connection
 --ctevents event[,event...]	Generate specified conntrack events for connection
 --expevents event[,event...]	Generate specified expectation events for connection
 --zone {ID|mark}		Assign/Lookup connection in zone ID/packet nfmark
 --zone-orig {ID|mark}		Same as 'zone' option, but only applies to ORIGINAL direction
 --zone-reply {ID|mark} 	Same as 'zone' option, but only applies to REPLY direction
`,
  needsConntrack: ({ isUntracked }) => !isUntracked,
  init: () => ({
    isUntracked: false,
    zone: undefined,
    zoneDirs: 0,
    helper: '',
    timeout: '',
    events: 0,
    expectationEvents: 0,
  }),
  options: [
    {
      name: 'notrack',
      value: 'none',
      read: (o) => {
        o.isUntracked = true;
      },
    },
    {
      name: 'helper',
      isText: true,
      read: (o, text) => {
        o.helper = text;
      },
    },
    {
      name: 'timeout',
      isText: true,
      read: (o, text) => {
        o.timeout = text;
      },
    },
    {
      name: 'ctevents',
      read: (o, text) => {
        o.events = readEvents(text, EVENTS);
      },
    },
    {
      name: 'expevents',
      read: (o, text) => {
        o.expectationEvents = readEvents(text, EXPECTATION_EVENTS);
      },
    },
    zoneOption(''),
    zoneOption('-orig'),
    zoneOption('-reply'),
  ],
  isLegal: ({ helper, timeout, isUntracked }, header, { table }) => {
    if (table !== 'raw') return false;
    // A policy is of a protocol; a helper that is asked for is looked for first.
    return timeout === '' || isUntracked || helper !== '' || protocolOf(header) !== 0;
  },
  isMissing: ({ helper, timeout, isUntracked }, header, tracking) => {
    if (isUntracked) return false;
    return timeout !== '' || (helper !== '' && !tracking.hasHelper(helper, protocolOf(header)));
  },
  save: (o) => parts(o).flatMap(([name, value]) => (value === '' ? [`--${name}`] : [`--${name}`, value])),
  list: (o) => ['CT', ...parts(o).map(([name, value]) => (value === '' ? name : `${name} ${value}`))].join(' '),
  compile: (o) => {
    if (o.isUntracked) return untrack;
    const isOfMark = o.zone === 'mark';
    const zone = typeof o.zone === 'number' ? o.zone : 0;
    const dir = DIRECTIONS[o.zoneDirs]!;
    const template: Template = {
      originalZone: dir === '-reply' ? 0 : zone,
      replyZone: dir === '-orig' ? 0 : zone,
      zoneOfMark: isOfMark ? dir : null,
      helper: o.helper,
      events: o.events === 0 ? null : o.events,
      expectationEvents: o.expectationEvents === 0 ? null : o.expectationEvents,
    };
    return (p, { conditions }) => {
      if (!isDecided(p)) conditions.tracking!.attach(p, template);
      return CONTINUE;
    };
  },
});
