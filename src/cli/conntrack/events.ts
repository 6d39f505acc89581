/** `conntrack -E`: events as they come, until the reader has enough. */
import type { EntryEvent, EventsLost, ExpectationEvent } from '../../model/conntrack.ts';
import type { CliContext } from '../command.ts';
import type { Parsed } from './parse.ts';
import { Printer } from './printer.ts';
import { PROGRAM, Refused } from './refused.ts';
import { entryFilter } from './request.ts';
import { shownEvent } from './shown.ts';
import { EventMask } from './values.ts';

const LOST =
  'WARNING: We have hit ENOBUFS! We are losing events.\nThis message means that the current netlink socket buffer size is too small.\n' +
  'Please, check --buffer-size in conntrack(8) manpage.\n';
/** The least that a socket's buffer is (SOCK_MIN_RCVBUF); else it is twice what was asked for. */
const MIN_BUFFER = 2304;

export async function followEntries(context: CliContext, p: Parsed): Promise<number> {
  if (p.given.has('mask-src') && !p.given.has('src')) throw new Refused("Can't use --mask-src without --src");
  if (p.given.has('mask-dst') && !p.given.has('dst')) throw new Refused("Can't use --mask-dst without --dst");
  const query = new URLSearchParams({ kinds: kinds(p.eventMask), filter: JSON.stringify(entryFilter(p, 'list')) });
  if (p.given.has('buffer-size')) {
    const bytes = Math.max(MIN_BUFFER, 2 * p.bufferSize);
    context.err(`NOTICE: Netlink socket buffer size has been set to ${bytes} bytes.\n`);
    query.set('buffer', String(bytes));
  }
  const printer = new Printer(context.out, p.output, p.labelNames, 'conntrack');
  return follow<EntryEvent>(context, p, `/v1/conntrack/events?${query}`, printer, 'flow events', (event) =>
    printer.event(shownEvent(event), millis(event.at), event.by),
  );
}

export async function followExpectations(context: CliContext, p: Parsed): Promise<number> {
  const printer = new Printer(context.out, p.output, undefined, 'expect');
  const path = '/v1/conntrack/expectation-events';
  return follow<ExpectationEvent>(context, p, path, printer, 'expectation events', (event) =>
    printer.expectation(event.expectation, event.kind, millis(event.at)),
  );
}

async function follow<Event extends object>(
  context: CliContext,
  p: Parsed,
  path: string,
  printer: Printer,
  what: string,
  print: (event: Event) => void,
): Promise<number> {
  const { client, out, err } = context;
  const stop = new Promise<undefined>((resolve) => {
    for (const signal of ['SIGINT', 'SIGTERM'] as const) process.once(signal, () => resolve(undefined));
  });
  const batches = client.rows<Event | EventsLost>(path);
  for (;;) {
    const next = await Promise.race([batches.next(), stop]);
    if (next === undefined || next.done === true) break;
    for (const event of next.value) {
      if ('lost' in event) err(LOST);
      else if (p.json) out(`${JSON.stringify(event)}\n`);
      else print(event as Event);
    }
    printer.flush();
  }
  printer.end();
  err(`${PROGRAM}: ${printer.shown} ${what} have been shown.\n`);
  client.close();
  return 0;
}

function kinds(mask: number): string {
  return [
    mask & EventMask.New ? 'new' : '',
    mask & EventMask.Update ? 'update' : '',
    mask & EventMask.Destroy ? 'destroy' : '',
  ]
    .filter((kind) => kind !== '')
    .join(',');
}

function millis(nanoseconds: string): number {
  return Number(BigInt(nanoseconds) / 1000n) / 1000;
}
