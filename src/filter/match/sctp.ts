/** `-m sctp`: ports and chunk types of SCTP (net/netfilter/xt_sctp.c). */
import type { Packet } from '../../packet/packet.ts';
import { IpProto } from '../../wire/ipv4.ts';
import { CHUNK_HEADER, SCTP_HEADER } from '../../wire/sctp.ts';
import { BadRule, defineMatch, type Reading } from '../extension.ts';
import { Inverted } from '../rule.ts';
import { listPorts, readPortRange, savePorts } from '../values.ts';
import { transport } from './transport.ts';

type Among = 'all' | 'any' | 'only';

interface SctpOptions {
  source: [number, number];
  isSourceInverted: boolean;
  destination: [number, number];
  isDestinationInverted: boolean;
  among: Among | undefined;
  /** 256 of them. */
  chunks: Uint8Array;
  /** By chunk type: bits of its flags that are looked at, and what they must be. */
  flagMasks: Uint8Array;
  flags: Uint8Array;
  isChunksInverted: boolean;
  given: Set<string>;
}

const SCTP = IpProto.Sctp;
const HEADER = SCTP_HEADER;

/** Chunk types by name, and the letters of their flags from bit 7 down (`-` where there is none). */
const TYPES: readonly (readonly [string, number, string])[] = [
  ['DATA', 0, '----IUBE'],
  ['INIT', 1, '--------'],
  ['INIT_ACK', 2, '--------'],
  ['SACK', 3, '--------'],
  ['HEARTBEAT', 4, '--------'],
  ['HEARTBEAT_ACK', 5, '--------'],
  ['ABORT', 6, '-------T'],
  ['SHUTDOWN', 7, '--------'],
  ['SHUTDOWN_ACK', 8, '--------'],
  ['ERROR', 9, '--------'],
  ['COOKIE_ECHO', 10, '--------'],
  ['COOKIE_ACK', 11, '--------'],
  ['ECN_ECNE', 12, '--------'],
  ['ECN_CWR', 13, '--------'],
  ['SHUTDOWN_COMPLETE', 14, '-------T'],
  ['I_DATA', 64, '--------'],
  ['RE_CONFIG', 130, '--------'],
  ['PAD', 132, '--------'],
  ['ASCONF', 193, '--------'],
  ['ASCONF_ACK', 128, '--------'],
  ['FORWARD_TSN', 192, '--------'],
  ['I_FORWARD_TSN', 194, '--------'],
];

/** The tool's manual is older than these. */
const NOT_IN_MANUAL = ['I_DATA', 'RE_CONFIG', 'PAD', 'I_FORWARD_TSN'];

/** `INIT`, `DATA:Be`: a capital letter wants the flag set, a small one not. */
function readChunk(o: SctpOptions, text: string): void {
  const colon = text.indexOf(':');
  const name = colon < 0 ? text : text.slice(0, colon);
  const letters = colon < 0 ? '' : text.slice(colon + 1);
  const row = TYPES.findIndex(([type]) => type === name.toUpperCase());
  if (row < 0) throw new BadRule(`Unknown sctp chunk \`${name}'`);
  const [, type, flags] = TYPES[row]!;
  o.chunks[type] = 1;
  for (const letter of letters) {
    const at = flags.indexOf(letter.toUpperCase());
    if (at < 0 || letter === '-') throw new BadRule(`Invalid flags for chunk type ${row}`);
    const bit = 1 << (7 - at);
    o.flagMasks[type]! |= bit;
    if (letter === letter.toUpperCase()) o.flags[type]! |= bit;
  }
}

function readChunks(o: SctpOptions, among: string, list: string): void {
  const known = (['all', 'any', 'only'] as const).find((word) => word === among.toLowerCase());
  if (known === undefined) throw new BadRule('Match type has to be one of "ALL", "ANY" or "ONLY"');
  o.among = known;
  if (list.toUpperCase() === 'ALL') {
    o.chunks.fill(1);
    return;
  }
  if (list.toUpperCase() === 'NONE') return;
  for (const word of list.split(',')) if (word !== '') readChunk(o, word);
}

function formatChunks({ chunks, flagMasks, flags }: SctpOptions, isNumeric = false): string {
  if (chunks.every((is) => is === 1)) return 'ALL';
  if (chunks.every((is) => is === 0)) return 'NONE';
  const words: string[] = [];
  for (const [type, is] of chunks.entries()) {
    if (is === 0) continue;
    const [name, , letters] = TYPES.find((known) => known[1] === type)!;
    let told = '';
    for (let bit = 7; bit >= 0; bit--) {
      if ((flagMasks[type]! & (1 << bit)) === 0) continue;
      const letter = letters[7 - bit]!;
      told += (flags[type]! & (1 << bit)) !== 0 ? letter : letter.toLowerCase();
    }
    const shown = isNumeric ? `0x${type.toString(16).toUpperCase().padStart(4, '0')}` : name;
    words.push(told === '' ? shown : `${shown}:${told}`);
  }
  return words.join(',');
}

function once(o: SctpOptions, what: string, message: string): void {
  if (o.given.has(what)) throw new BadRule(message);
  o.given.add(what);
}

function portOption(name: string, alias: string, side: 'source' | 'destination') {
  return {
    name,
    aliases: [alias],
    canInvert: true,
    canRepeat: true,
    read: (o: SctpOptions, value: string, isInverted: boolean, reading: Reading): void => {
      once(o, side, `Only one \`--${name}' allowed`);
      const range = readPortRange(value, 'sctp', reading);
      if (side === 'source') [o.source, o.isSourceInverted] = [range, isInverted];
      else [o.destination, o.isDestinationInverted] = [range, isInverted];
    },
  };
}

export const sctp = defineMatch<SctpOptions>({
  name: 'sctp',
  man: `sctp match options
[!] --source-port port[:port]                          match source port(s)
 --sport ...
[!] --destination-port port[:port]                     match destination port(s)
 --dport ...
[!] --chunk-types (all|any|none) (chunktype[:flags])+	match if all, any or none of
						        chunktypes are present
chunktypes - ${TYPES.map(([name]) => name)
    .filter((name) => !NOT_IN_MANUAL.includes(name))
    .join(' ')} ALL NONE
`,
  init: () => ({
    source: [0, 0xffff],
    isSourceInverted: false,
    destination: [0, 0xffff],
    isDestinationInverted: false,
    among: undefined,
    chunks: new Uint8Array(256),
    flagMasks: new Uint8Array(256),
    flags: new Uint8Array(256),
    isChunksInverted: false,
    given: new Set(),
  }),
  options: [
    portOption('source-port', 'sport', 'source'),
    portOption('destination-port', 'dport', 'destination'),
    {
      name: 'chunk-types',
      canInvert: true,
      canRepeat: true,
      read: (o, value, isInverted, reading) => {
        once(o, 'chunks', "Only one `--chunk-types' allowed");
        const list = reading.takeWord();
        if (list === undefined) throw new BadRule('--chunk-types requires two args');
        readChunks(o, value, list);
        o.isChunksInverted = isInverted;
      },
    },
  ],
  isLegal: (_o, header) => header.proto === SCTP && (header.inverted & Inverted.Proto) === 0,
  save: (o) => [
    ...(o.given.has('source') ? saveEnds('--sport', o.source, o.isSourceInverted) : []),
    ...(o.given.has('destination') ? saveEnds('--dport', o.destination, o.isDestinationInverted) : []),
    ...(o.among === undefined ? [] : [...(o.isChunksInverted ? ['!'] : []), '--chunk-types', o.among, formatChunks(o)]),
  ],
  list: (o, form) => {
    const ports = [
      listPorts('spt', o.source, o.isSourceInverted, 'sctp', form),
      listPorts('dpt', o.destination, o.isDestinationInverted, 'sctp', form),
    ].filter((part) => part !== '');
    const chunks =
      o.among === undefined ? [] : [`${o.isChunksInverted ? '! ' : ''}${o.among} ${formatChunks(o, form.isNumeric)}`];
    return ['sctp', ...ports, ...chunks].join(' ');
  },
  ports: (o) => ({
    source: o.isSourceInverted ? null : o.source,
    destination: o.isDestinationInverted ? null : o.destination,
  }),
  compile: (o) => {
    const [sourceLow, sourceHigh] = o.source;
    const [low, high] = o.destination;
    const { isSourceInverted, isDestinationInverted, among, isChunksInverted } = o;
    return transport(HEADER, (p) => {
      const from = p.view.getUint16(p.l4);
      const to = p.view.getUint16(p.l4 + 2);
      if ((from >= sourceLow && from <= sourceHigh) === isSourceInverted) return 0;
      if ((to >= low && to <= high) === isDestinationInverted) return 0;
      if (among === undefined) return 1;
      const found = matchChunks(p, o, among);
      return found < 0 ? -1 : (found === 1) !== isChunksInverted ? 1 : 0;
    });
  },
});

/** All ports too, where they were asked for, unlike tcp and udp. */
function saveEnds(option: string, range: readonly [number, number], isInverted: boolean): string[] {
  const words = savePorts(option, range, isInverted);
  return words.length === 0 ? [option, '0:65535'] : words;
}

/** Of those that must all be there, the types that were met. */
const met = new Uint8Array(256);

/** Chunks of the packet against the list (match_packet): 1, 0, or -1 where a chunk's header is cut off, or it has no length. */
function matchChunks({ view, l4, end }: Packet, o: SctpOptions, among: Among): number {
  if (among === 'all') met.fill(0);
  for (let at = l4 + HEADER; at === l4 + HEADER || at < end; ) {
    if (end - at < CHUNK_HEADER) return -1;
    const type = view.getUint8(at);
    const length = view.getUint16(at + 2);
    if (length === 0) return -1;
    const isListed = o.chunks[type] === 1 && (view.getUint8(at + 1) & o.flagMasks[type]!) === o.flags[type]!;
    if (among === 'any' && isListed) return 1;
    if (among === 'only' && !isListed) return 0;
    if (isListed) met[type] = 1;
    at += (length + 3) & ~3;
  }
  if (among !== 'all') return among === 'only' ? 1 : 0;
  for (let type = 0; type < met.length; type++) if (met[type] !== o.chunks[type]) return 0;
  return 1;
}
