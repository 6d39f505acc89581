/** The way of a packet in words, for `tapvs explain` and `tapvs trace`: one block a packet, one line a step, 100 columns. */
import type {
  Way,
  WayChange,
  WayChoice,
  WayConnection,
  WayEnd,
  WayFunction,
  WayHop,
  WayService,
  WayStep,
  WayTemplate,
} from '../model/way.ts';

const WIDTH = 100;
/** Column at which what is said of a hook, a function or a note begins. */
const HOOK_COLUMN = 13;
const FUNCTION_COLUMN = 21;
const NOTE_COLUMN = 17;

const MATCHED: Readonly<Record<WayService['matched'], string>> = {
  mark: 'by the firewall mark',
  exact: 'by address and port',
  ftp: 'as a data connection of FTP',
  'any-port': 'by the address, for any port',
};

/** The packet's own way, then those of what it begot. */
export function formatWays(ways: readonly Way[]): string {
  return ways.map((way, i) => formatWay(way, i > 0)).join('\n');
}

function formatWay(way: Way, isBegotten: boolean): string {
  const place = way.device === undefined ? '' : way.origin === 'host' ? ', from this machine' : `, in by ${way.device}`;
  const mark = way.mark === undefined ? '' : `, mark ${way.mark}`;
  const lines = [...folded(`${isBegotten ? 'born of it: ' : ''}${way.packet}${place}${mark}`, 0, 2)];
  for (const step of way.steps) lines.push(...formatStep(step));
  if (way.changes.length > 0) lines.push(...formatChanges(way.changes));
  // What was born here leaves as it was born.
  lines.push(...formatEnd(way.end, way.sent === way.packet ? undefined : way.sent));
  return `${lines.join('\n')}\n`;
}

function formatStep(step: WayStep): string[] {
  if (step.kind === 'route') return line('  route', HOOK_COLUMN, routeText(step));
  const lines = line(step.hook, HOOK_COLUMN, step.verdict.toLowerCase());
  for (const fn of joined(step.functions)) lines.push(...formatFunction(fn));
  return lines;
}

function routeText(step: Extract<WayStep, { kind: 'route' }>): string {
  if (step.type === 'none') return `none to ${step.to}`;
  const by = step.prefix === undefined || step.prefix === `${step.to}/32` ? '' : ` (${step.prefix})`;
  const to = step.type === 'unicast' ? '' : `${step.type} `;
  const device = step.device === undefined ? '' : ` dev ${step.device}`;
  const via = step.via === undefined ? '' : ` via ${step.via}`;
  return `${to}${step.to}${via}${device}${by}`;
}

/** Functions that did the same nothing share a line. */
function joined(functions: readonly WayFunction[]): WayFunction[] {
  const rows: WayFunction[] = [];
  for (const fn of functions) {
    const last = rows.at(-1);
    if (last !== undefined && isIdle(last) && isIdle(fn) && last.note === fn.note) {
      rows[rows.length - 1] = { ...last, name: `${last.name}, ${fn.name}` };
    } else {
      rows.push(fn);
    }
  }
  return rows;
}

function isIdle(fn: WayFunction): boolean {
  return fn.verdict === 'ACCEPT' && fn.connection === undefined && fn.service === undefined;
}

function formatFunction(fn: WayFunction): string[] {
  const note = fn.note === undefined ? '' : `: ${fn.note}`;
  const lines = line(`  ${fn.name}`, FUNCTION_COLUMN, `${fn.verdict.toLowerCase()}${note}`);
  const say = (name: string, text: string) => lines.push(...line(`    ${name}`, NOTE_COLUMN, text));
  const { ended, service, template, choice, connection, nexthop } = fn;
  if (ended !== undefined) say('gone', `the old connection to ${ended.server} in ${ended.state}: ${ended.why}`);
  if (service !== undefined) say('service', serviceText(service));
  if (template?.use !== 'made' && template !== undefined) say('template', templateText(template));
  if (choice !== undefined) {
    say('scheduler', `${choice.scheduler}: ${choice.how}`);
    lines.push(...candidateLines(choice));
  }
  if (template?.use === 'made') say('template', templateText(template));
  if (connection !== undefined) {
    say('connection', connectionText(connection));
    say('state', stateText(connection));
  }
  if (nexthop !== undefined) say('sent on', hopText(nexthop));
  return lines;
}

function serviceText(s: WayService): string {
  const persistence = s.persistence === undefined ? '' : `, persistent ${s.persistence} s`;
  const ops = s.isOnePacket ? ', one packet a connection' : '';
  return `${s.name} ${s.scheduler}${persistence}${ops}: found ${MATCHED[s.matched]}`;
}

function templateText(t: WayTemplate): string {
  if (t.use === 'made') return `new: ${t.name} keeps ${t.server}`;
  const left = t.secondsLeft === undefined ? '' : `, ${t.secondsLeft} s left`;
  if (t.use === 'used') return `${t.name} keeps ${t.server}${left}`;
  return `${t.name} is given up: ${t.server} was removed or is quiesced`;
}

function candidateLines(choice: WayChoice): string[] {
  if (choice.candidates.length === 0) return choice.server === null ? [] : [`    ${' '.repeat(13)}${choice.server}`];
  const rows = choice.candidates.map((c) => [
    `${c.verdict === 'chosen' ? '>' : ' '} ${c.server}`,
    String(c.weight),
    String(c.active),
    String(c.inactive),
    c.figure,
    c.verdict === 'lost' ? c.why : c.verdict === 'chosen' ? `chosen: ${c.why}` : c.why,
  ]);
  const head = ['  server', 'weight', 'active', 'inactive', 'compared', ''];
  const widths = head.map((cell, i) => Math.max(...[head, ...rows].map((row) => row[i]!.length), cell.length));
  return [head, ...rows].flatMap((row) => {
    const cells = row.map((cell, i) =>
      i >= 1 && i <= 3 ? cell.padStart(widths[i]!) : i === 5 ? cell : cell.padEnd(widths[i]!),
    );
    const text = `      ${cells.join('  ')}`.trimEnd();
    // Where the reason does not fit beside the figure it stands below it.
    if (text.length <= WIDTH) return [text];
    const beside = `      ${cells.slice(0, 5).join('  ')}`.trimEnd();
    return [beside, ...folded(row[5]!, 12, 12)];
  });
}

function connectionText(c: WayConnection): string {
  const is = c.isNew ? 'new' : c.direction === 'reply' ? 'known, its server answers' : 'known';
  const local = c.local === undefined ? '' : `${c.local} > `;
  return `${is}: ${c.protocol} ${c.client} > ${c.virtual} > ${local}${c.server} (${c.method})`;
}

function stateText(c: WayConnection): string {
  const move = c.from === c.to ? `stays ${c.to}` : `${c.from} > ${c.to}`;
  return `${move}, ${c.timeoutSeconds} s`;
}

function hopText(hop: WayHop): string {
  return `by ${hop.device}${hop.via === undefined ? '' : ` to ${hop.via}`}, MTU ${hop.mtu}`;
}

function formatChanges(changes: readonly WayChange[]): string[] {
  const rows = changes.map((c) => [`  ${c.field}`, c.from ?? '-', c.to ?? '-'] as const);
  const head = ['rewrite', 'received', 'sent'] as const;
  const widths = [0, 1].map((i) => Math.max(...[head, ...rows].map((row) => row[i]!.length)));
  return [head, ...rows].map(([field, from, to]) => `${field.padEnd(widths[0]!)}  ${from.padEnd(widths[1]!)}  ${to}`);
}

function formatEnd(end: WayEnd, sent: string | undefined): string[] {
  switch (end.kind) {
    case 'sent': {
      const neighbour = [end.mac, end.neighbour].filter((part) => part !== undefined).join(' ');
      const pieces = end.pieces === 1 ? '' : `, cut into ${end.pieces} for the MTU of ${end.mtu}`;
      const to = end.via === undefined ? '' : ` to ${end.via}`;
      const how = neighbour === '' ? '' : ` (${neighbour})`;
      return [
        ...folded(`SENT by ${end.device}${to}${how}${pieces}`, 0, 2),
        ...(sent === undefined ? [] : folded(sent, 2, 4)),
      ];
    }
    case 'host':
      return [`DELIVERED to this machine by ${end.device}`, ...(sent === undefined ? [] : folded(sent, 2, 4))];
    case 'held':
      return [...folded(`HELD: ${end.why}`, 0, 2), ...(sent === undefined ? [] : folded(sent, 2, 4))];
    case 'answered':
      return folded(`ANSWERED (${end.reason}): ${end.why}`, 0, 2);
    case 'dropped':
      return folded(`DROPPED (${end.reason}): ${end.why}`, 0, 2);
  }
}

/** `name` and, from `column` on, what is said of it. */
function line(name: string, column: number, text: string): string[] {
  const head = name.length < column - 1 ? name.padEnd(column) : `${name}  `;
  const [first, ...rest] = folded(text, head.length, column);
  return [head + first!.slice(head.length), ...rest];
}

/** Words in lines of at most WIDTH columns: the first begins at `first`, the others at `indent`. */
function folded(text: string, first: number, indent: number): string[] {
  const lines: string[] = [];
  let current = ' '.repeat(first);
  let isEmpty = true;
  for (const word of text.split(' ')) {
    if (!isEmpty && current.length + 1 + word.length > WIDTH) {
      lines.push(current);
      current = ' '.repeat(indent) + word;
    } else {
      current += isEmpty ? word : ` ${word}`;
    }
    isEmpty = false;
  }
  return [...lines, current];
}
