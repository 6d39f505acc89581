/** `-m icmp`: type and code (net/netfilter/xt_tcpudp.c, icmp_match). */
import { ICMP_HEADER } from '../../wire/icmpv4.ts';
import { IpProto } from '../../wire/ipv4.ts';
import { BadRule, defineMatch } from '../extension.ts';
import { Inverted } from '../rule.ts';
import { leadingNumber } from '../values.ts';
import { transport } from './transport.ts';

interface IcmpOptions {
  type: number;
  lowCode: number;
  highCode: number;
  isInverted: boolean;
}

const ICMP = IpProto.Icmp;
const ANY = 255;
const ALL_CODES = [0, 255] as const;

/** Name, type, lowest and highest code; in the order in which the tool looks for them. */
const NAMES: readonly (readonly [string, number, number, number])[] = [
  ['any', ANY, ...ALL_CODES],
  ['echo-reply', 0, ...ALL_CODES],
  ['pong', 0, ...ALL_CODES],
  ['destination-unreachable', 3, ...ALL_CODES],
  ['network-unreachable', 3, 0, 0],
  ['host-unreachable', 3, 1, 1],
  ['protocol-unreachable', 3, 2, 2],
  ['port-unreachable', 3, 3, 3],
  ['fragmentation-needed', 3, 4, 4],
  ['source-route-failed', 3, 5, 5],
  ['network-unknown', 3, 6, 6],
  ['host-unknown', 3, 7, 7],
  ['network-prohibited', 3, 9, 9],
  ['host-prohibited', 3, 10, 10],
  ['TOS-network-unreachable', 3, 11, 11],
  ['TOS-host-unreachable', 3, 12, 12],
  ['communication-prohibited', 3, 13, 13],
  ['host-precedence-violation', 3, 14, 14],
  ['precedence-cutoff', 3, 15, 15],
  ['source-quench', 4, ...ALL_CODES],
  ['redirect', 5, ...ALL_CODES],
  ['network-redirect', 5, 0, 0],
  ['host-redirect', 5, 1, 1],
  ['TOS-network-redirect', 5, 2, 2],
  ['TOS-host-redirect', 5, 3, 3],
  ['echo-request', 8, ...ALL_CODES],
  ['ping', 8, ...ALL_CODES],
  ['router-advertisement', 9, ...ALL_CODES],
  ['router-solicitation', 10, ...ALL_CODES],
  ['time-exceeded', 11, ...ALL_CODES],
  ['ttl-exceeded', 11, ...ALL_CODES],
  ['ttl-zero-during-transit', 11, 0, 0],
  ['ttl-zero-during-reassembly', 11, 1, 1],
  ['parameter-problem', 12, ...ALL_CODES],
  ['ip-header-bad', 12, 0, 0],
  ['required-option-missing', 12, 1, 1],
  ['timestamp-request', 13, ...ALL_CODES],
  ['timestamp-reply', 14, ...ALL_CODES],
  ['address-mask-request', 17, ...ALL_CODES],
  ['address-mask-reply', 18, ...ALL_CODES],
];

function readType(text: string): [number, number, number] {
  const prefix = text.toLowerCase();
  const found = NAMES.filter(([name]) => name.toLowerCase().startsWith(prefix));
  const [first, second] = found;
  if (first !== undefined && second !== undefined) {
    throw new BadRule(`Ambiguous ICMP type \`${text}': \`${first[0]}' or \`${second[0]}'?`);
  }
  if (first !== undefined) return [first[1], first[2], first[3]];
  const type = leadingNumber(text);
  if (type === undefined || type.value > 255) throw new BadRule(`Unknown ICMP type \`${text}'`);
  if (type.rest === '') return [type.value, 0, 255];
  if (type.rest[0] !== '/') throw new BadRule(`unknown character ${type.rest[0]}`);
  const code = leadingNumber(type.rest.slice(1));
  if (code === undefined || code.value > 255) throw new BadRule(`Unknown ICMP code \`${text}'`);
  if (code.rest !== '') throw new BadRule(`unknown character ${code.rest[0]}`);
  return [type.value, code.value, code.value];
}

/** For the manual: another name in brackets, types with a code behind theirs. */
function typeList(): string {
  return NAMES.map(([name, type, low, high], i) => {
    const before = NAMES[i - 1];
    const isAlias = before !== undefined && before[1] === type && before[2] === low && before[3] === high;
    return isAlias ? ` (${name})` : `${i === 0 ? '' : '\n'}${low === high ? '   ' : ''}${name}`;
  })
    .join('')
    .concat('\n');
}

export const icmp = defineMatch<IcmpOptions>({
  name: 'icmp',
  man: `icmp match options:
[!] --icmp-type typename	match icmp type
[!] --icmp-type type[/code]	(or numeric type or type/code)
Valid ICMP Types:
${typeList()}`,
  init: () => ({ type: 0, lowCode: 0, highCode: 255, isInverted: false }),
  options: [
    {
      name: 'icmp-type',
      canInvert: true,
      isRequired: true,
      read: (o, text, isInverted) => {
        [o.type, o.lowCode, o.highCode] = readType(text);
        o.isInverted = isInverted;
      },
    },
  ],
  isLegal: (_o, header) => header.proto === ICMP && (header.inverted & Inverted.Proto) === 0,
  save: ({ type, lowCode, highCode, isInverted }) => {
    const code = lowCode === 0 && highCode === 255 ? '' : `/${lowCode}`;
    return [...(isInverted ? ['!'] : []), '--icmp-type', type === ANY ? 'any' : `${type}${code}`];
  },
  list: (o, form) => {
    const { type, lowCode, highCode, isInverted } = o;
    const hasCode = lowCode !== 0 || highCode !== 255;
    const known = form.isNumeric
      ? undefined
      : NAMES.find(([, t, low, high]) => t === type && low === lowCode && high === highCode);
    const not = isInverted ? '!' : '';
    if (known !== undefined) return `icmp ${not}${known[0]}`;
    const code = !hasCode ? '' : lowCode === highCode ? ` code ${lowCode}` : ` codes ${lowCode}-${highCode}`;
    return isInverted ? `icmp !type ${type}${code}` : `icmptype ${type}${code}`;
  },
  compile: ({ type, lowCode, highCode, isInverted }) =>
    transport(ICMP_HEADER, ({ view, l4 }) => {
      const code = view.getUint8(l4 + 1);
      const isMatch = type === ANY || (view.getUint8(l4) === type && code >= lowCode && code <= highCode);
      return isMatch !== isInverted ? 1 : 0;
    }),
});
