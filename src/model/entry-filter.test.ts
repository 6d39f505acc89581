import { expect, it } from 'vitest';
import type { CtChange, EntryEvent, EntryFilter, EntryRow } from './conntrack.ts';
import { isEventMeant, isMeant } from './entry-filter.ts';

const ENTRY = {
  id: 1,
  original: { src: '10.1.0.2', dst: '10.2.0.2', proto: 6, ports: { src: 4000, dst: 80 } },
  reply: { src: '10.2.0.2', dst: '10.1.0.2', proto: 6, ports: { src: 80, dst: 4000 } },
  status: 0,
  timeoutSeconds: 60,
  state: 'ESTABLISHED',
  mark: 0,
  labels: '00000000000000000000000000000002',
  zones: { original: 0, reply: 0 },
  use: 1,
} satisfies EntryRow;

const MARK = { mark: { value: 0, mask: 0xffffffff } };
const STATE = { state: 'ESTABLISHED' };
const LABEL = { labels: '00000000000000000000000000000002' };

const event = (kind: EntryEvent['kind'], changed: CtChange[]): EntryEvent => ({
  kind,
  changed,
  entry: ENTRY,
  at: '0',
});

it.each<[EntryFilter, EntryEvent['kind'], CtChange[], boolean]>([
  [MARK, 'new', ['new', 'mark'], true],
  [MARK, 'update', ['mark'], true],
  [MARK, 'update', ['protoinfo'], false],
  [MARK, 'destroy', ['destroy'], false],
  [STATE, 'update', ['protoinfo'], true],
  [STATE, 'update', ['mark'], false],
  [STATE, 'destroy', ['destroy'], true],
  [LABEL, 'update', ['label'], true],
  [LABEL, 'update', ['mark'], false],
  [LABEL, 'destroy', ['destroy'], false],
  [{ proto: 6 }, 'update', ['mark'], true],
  [{ proto: 17 }, 'update', ['mark'], false],
])('%j is compared with what a %s event of %j holds: %s', (filter, kind, changed, isMet) => {
  expect(isEventMeant(event(kind, changed), filter)).toBe(isMet);
});

it('a mark that is not 0 is in every event', () => {
  const entry = { ...ENTRY, mark: 5 };
  const filter = { mark: { value: 5, mask: 0xffffffff } };
  expect(isEventMeant({ ...event('destroy', ['destroy']), entry }, filter)).toBe(true);
  expect(isMeant(ENTRY, filter)).toBe(false);
});
