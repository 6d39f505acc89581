/** `-j CT`: what connection tracking shall make of the packet, before it sees it (net/netfilter/xt_CT.c). */
import { CtInfo } from '../../conntrack/entry.ts';
import type { Packet } from '../../packet/packet.ts';
import { BadRule, CONTINUE, defineTarget } from '../extension.ts';
import { Inverted } from '../rule.ts';
import type { Template } from '../tracking.ts';
import { parseNumber } from '../values.ts';

interface CtOptions {
  isUntracked: boolean;
  /** Undefined: not asked for. */
  zone: number | 'mark' | undefined;
  zoneDir: '' | '-orig' | '-reply';
  helper: string;
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

/** The packet shall not be tracked, unless it is already. */
export function untrack(p: Packet): number {
  if (p.entry === 0 && p.ctInfo !== CtInfo.Untracked) p.ctInfo = CtInfo.Untracked;
  return CONTINUE;
}

function zoneOption(dir: CtOptions['zoneDir']) {
  return {
    name: `zone${dir}`,
    read: (o: CtOptions, text: string): void => {
      const zone = text === 'mark' ? text : parseNumber(text, 0xffff);
      if (zone === undefined) throw new BadRule(`Cannot parse ${text} as a zone ID`);
      o.zone = zone;
      o.zoneDir = dir;
    },
  };
}

/** Each option with its value; '' for none. */
function parts(o: CtOptions): [string, string][] {
  const all: [string, string][] = [];
  if (o.isUntracked) all.push(['notrack', '']);
  if (o.helper !== '') all.push(['helper', o.helper]);
  if (o.events !== 0) all.push(['ctevents', formatEvents(o.events)]);
  if (o.expectationEvents !== 0) all.push(['expevents', 'new']);
  if (o.zone !== undefined) all.push([`zone${o.zoneDir}`, String(o.zone)]);
  return all;
}

export const ct = defineTarget<CtOptions>({
  name: 'CT',
  man: `CT target options:
 --notrack			Don't track connection
 --helper name			Use conntrack helper 'name' for connection
 --ctevents event[,event...]	Generate specified conntrack events for connection
 --expevents event[,event...]	Generate specified expectation events for connection
 --zone {ID|mark}		Assign/Lookup connection in zone ID/packet nfmark
 --zone-orig {ID|mark}		Same as 'zone' option, but only applies to ORIGINAL direction
 --zone-reply {ID|mark}		Same as 'zone' option, but only applies to REPLY direction
`,
  needsConntrack: ({ isUntracked }) => !isUntracked,
  init: () => ({
    isUntracked: false,
    zone: undefined,
    zoneDir: '',
    helper: '',
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
  isLegal: (_o, _header, { table }) => table === 'raw',
  isMissing: ({ helper, isUntracked }, header, tracking) => {
    if (helper === '' || isUntracked) return false;
    const proto = (header.inverted & Inverted.Proto) === 0 ? header.proto : 0;
    return !tracking.hasHelper(helper, proto);
  },
  save: (o) => parts(o).flatMap(([name, value]) => (value === '' ? [`--${name}`] : [`--${name}`, value])),
  list: (o) => ['CT', ...parts(o).map(([name, value]) => (value === '' ? name : `${name} ${value}`))].join(' '),
  compile: (o) => {
    if (o.isUntracked) return untrack;
    const isOfMark = o.zone === 'mark';
    const zone = typeof o.zone === 'number' ? o.zone : 0;
    const template: Template = {
      originalZone: o.zoneDir === '-reply' ? 0 : zone,
      replyZone: o.zoneDir === '-orig' ? 0 : zone,
      zoneOfMark: isOfMark ? o.zoneDir : null,
      helper: o.helper,
      events: o.events === 0 ? null : o.events,
      expectationEvents: o.expectationEvents === 0 ? null : o.expectationEvents,
    };
    return (p, { conditions }) => {
      if (p.entry === 0 && p.ctInfo !== CtInfo.Untracked) conditions.tracking!.attach(p, template);
      return CONTINUE;
    };
  },
});
