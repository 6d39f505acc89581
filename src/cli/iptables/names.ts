/** Names for ports and hosts, as the parser and the listings of iptables want them. */
import type { ListForm } from '../../filter/extension.ts';
import { type CommandLine, type ParsedLine, type ParseSettings, parseLine } from '../../filter/parse.ts';
import { LookupNeeded, type Names } from '../ipvsadm/names.ts';

/** Parse; hosts that must be looked up are, and then it is parsed again. @throws BadRule */
export async function parseWithNames(
  words: readonly string[],
  names: Names,
  settings: Omit<ParseSettings, 'names' | 'warn'>,
): Promise<{ readonly parsed: ParsedLine; readonly warnings: string }> {
  for (;;) {
    let warnings = '';
    const warn = (text: string): void => {
      warnings += text;
    };
    try {
      return { parsed: parseLine(words, { ...settings, names, warn }), warnings };
    } catch (error) {
      if (error instanceof LookupNeeded) {
        await names.lookUpAddress(error.host);
        continue;
      }
      if (error instanceof Error) Object.assign(error, { warnings });
      throw error;
    }
  }
}

export function listForm({ numeric }: Pick<CommandLine, 'numeric'>, names: Names): ListForm {
  return {
    isNumeric: numeric,
    serviceName: (port, protocol) => names.serviceName(port, protocol),
    hostName: (address) => names.hostName(address),
  };
}
