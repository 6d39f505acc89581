/** What `ip`'s options ask of the output, and its JSON, whose pretty form is iproute2's own (json_writer.c). */

export interface IpOptions {
  readonly json: boolean;
  readonly pretty: boolean;
  readonly brief: boolean;
  readonly oneline: boolean;
  readonly stats: boolean;
  /** undefined: any. */
  readonly family: 4 | 6 | undefined;
}

/** A line break, or the backslash that stands for it with -o. */
export function lineBreak(options: IpOptions): string {
  return options.oneline ? '\\' : '\n';
}

export function jsonText(value: unknown, options: IpOptions): string {
  return `${options.pretty ? pretty(value, 0) : JSON.stringify(value)}\n`;
}

function pretty(value: unknown, depth: number): string {
  if (Array.isArray(value)) {
    const items = value.map((item) => pretty(item, depth + 1)).join(',');
    return items === '' ? '[ ]' : `[ ${items} ]`;
  }
  if (typeof value !== 'object' || value === null) return JSON.stringify(value);
  const members = Object.entries(value).filter(([, member]) => member !== undefined);
  const lines = members.map(([name, member]) => `${margin(depth + 1)}"${name}": ${pretty(member, depth + 1)}`);
  return lines.length === 0 ? '{}' : `{${lines.join(',')}${margin(depth)}}`;
}

function margin(depth: number): string {
  return `\n${'    '.repeat(depth)}`;
}
