import { readFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { type Parsed, parse } from './parse.ts';
import { protocolNumber } from './protocol-file.ts';
import { Refused } from './refused.ts';
import { entryChange, entryFilter, entrySpec, originalTuple } from './request.ts';
import { EventMask } from './values.ts';

const table = readFileSync(new URL('../../../golden/cli/conntrack.t', import.meta.url), 'utf8');
const lines = table.split('\n').filter((line) => line !== '' && !line.startsWith('#'));

describe('golden/cli/conntrack.t', () => {
  it.each(lines)('%s', (line) => {
    const [input, expected, verdict] = line.split(' ; ') as [string, string, string];
    const words = input.split(' ').map((word) => word.replace(/^'(.*)'$/, '$1'));
    if (verdict === 'OK') {
      expect(canonical(parse(words, protocolNumber, () => {}))).toBe(expected);
      return;
    }
    const refusal = refusalOf(words);
    expect(refusal.message).toBe(expected);
    expect(`FAIL ${refusal.exit}`).toBe(verdict);
  });
});

describe('what is said on the way', () => {
  it.each([
    ['-L -a x', 'WARNING: ignoring -a, deprecated option.\n'],
    ['-L -u SRC_NAT', 'WARNING: ignoring SRC_NAT, use --src-nat instead\n'],
    ['-L -u d', 'WARNING: ignoring DST_NAT, use --dst-nat instead\n'],
  ])('%s', (input, expected) => {
    let said = '';
    parse(input.split(' '), protocolNumber, (text) => {
      said += text;
    });
    expect(said).toBe(expected);
  });
});

function refusalOf(words: readonly string[]): Refused {
  try {
    parse(words, protocolNumber, () => {});
  } catch (error) {
    if (error instanceof Refused) return error;
    throw error;
  }
  throw new Error(`${words.join(' ')} was accepted`);
}

function canonical(p: Parsed): string {
  switch (p.command) {
    case 'list':
      return `list ${p.table === 'conntrack' ? '' : `${p.table} `}${json(entryFilter(p, 'list'))}`;
    case 'delete':
      return `delete ${json(entryFilter(p, 'delete'))}`;
    case 'update':
      return `update ${json(entryFilter(p, 'update'))} ${json(entryChange(p))}`;
    case 'event': {
      const kinds = (Object.keys(EventMask) as (keyof typeof EventMask)[]).filter(
        (kind) => kind !== 'All' && p.eventMask & EventMask[kind],
      );
      return `event ${kinds.join(',').toUpperCase()} ${json(entryFilter(p, 'list'))}`;
    }
    case 'create':
    case 'add':
      return `${p.command} ${json(entrySpec(p))}`;
    case 'get':
      return `get ${json(originalTuple(p))}`;
    default:
      return p.command ?? '';
  }
}

/** Without the parts that hold nothing. */
function json(value: object): string {
  const text = JSON.stringify(value);
  return text.replace(/"(?:original|reply)":\{\},?/g, '').replace(/,\}/g, '}');
}
