/** Names and numbers of protocols: protocols(5), which getprotobyname(3) reads. */
import { readFileSync } from 'node:fs';

interface ProtocolEntry {
  readonly number: number;
  /** Official name, then the others. */
  readonly names: readonly string[];
}

let entries: readonly ProtocolEntry[] | undefined;

function load(): readonly ProtocolEntry[] {
  let text = '';
  try {
    text = readFileSync('/etc/protocols', 'utf8');
  } catch {
    // Without the file no protocol has a name.
  }
  return text.split('\n').flatMap((line) => {
    const [name, number, ...aliases] = line.replace(/#.*/, '').trim().split(/\s+/);
    return name !== undefined && /^\d+$/.test(number ?? '')
      ? [{ number: Number(number), names: [name, ...aliases] }]
      : [];
  });
}

export function protocolNumber(name: string): number | undefined {
  entries ??= load();
  return entries.find(({ names }) => names.includes(name))?.number;
}

export function officialName(number: number): string | undefined {
  entries ??= load();
  return entries.find((entry) => entry.number === number)?.names[0];
}
