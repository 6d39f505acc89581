/** Names for ports, hosts and networks, as the parser and the listings of iptables want them. */
import { readFileSync } from 'node:fs';
import type { ListForm } from '../../filter/extension.ts';
import { type CommandLine, type ParsedLine, type ParseSettings, parseLine } from '../../filter/parse.ts';
import type { LabelNames } from '../../model/label-names.ts';
import { LABELS_FILE } from '../../model/label-names.ts';
import { LookupNeeded, Names } from '../ipvsadm/names.ts';
import { readLabelNames } from '../label-file.ts';

/** And for connection labels; their file is read when a name is asked for. */
export class RuleNames extends Names {
  readonly #warn: (text: string) => void;
  #networks: ReadonlyMap<string, string> | undefined;
  #labels: LabelNames | undefined;

  readonly #networksFile: string;

  constructor(warn: (text: string) => void, networksFile = '/etc/networks') {
    super();
    this.#warn = warn;
    this.#networksFile = networksFile;
  }

  /** Of a host, or of a network of networks(5). */
  override hostName(address: string): string | undefined {
    this.#networks ??= readNetworkNames(this.#networksFile);
    return super.hostName(address) ?? this.#networks.get(address);
  }

  labelBit(name: string): number | undefined {
    return this.#file()?.bit(name);
  }

  labelName(bit: number): string | undefined {
    return this.#file()?.name(bit);
  }

  #file(): LabelNames | undefined {
    this.#labels ??= readLabelNames();
    if (this.#labels === undefined) this.#warn(`Warning: cannot open ${LABELS_FILE}: No such file or directory\n`);
    return this.#labels;
  }
}

/** `127.0.0.0` → loopback. */
function readNetworkNames(file: string): ReadonlyMap<string, string> {
  const names = new Map<string, string>();
  for (const line of readLines(file)) {
    const found = /^([^\s#]+)\s+([0-9.]+)/.exec(line);
    if (found === null) continue;
    const [, name, network] = found as unknown as [string, string, string];
    const address = [...network.split('.'), '0', '0', '0'].slice(0, 4).join('.');
    if (!names.has(address)) names.set(address, name);
  }
  return names;
}

function readLines(file: string): readonly string[] {
  try {
    return readFileSync(file, 'utf8').split('\n');
  } catch {
    return [];
  }
}

/** Parse; hosts that must be looked up are, and then it is parsed again. @throws BadRule */
export async function parseWithNames(
  words: readonly string[],
  names: RuleNames,
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

export function listForm({ numeric }: Pick<CommandLine, 'numeric'>, names: RuleNames): ListForm {
  return {
    isNumeric: numeric,
    serviceName: (port, protocol) => names.serviceName(port, protocol),
    hostName: (address) => names.hostName(address),
    labelName: (bit) => names.labelName(bit),
  };
}
