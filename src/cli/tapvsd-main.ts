/** The daemon behind its entry (tapvsd.ts). It stands here because the configuration holds lines of ipvsadm, and of iptables-save, whose grammars belong to the commands of those names. */
import { type Config, ConfigError, loadConfig, type ParseIpvsadm } from '../control/config.ts';
import type { EarlyStart } from '../control/early-start.ts';
import { main } from '../control/main.ts';
import type { IpvsCommand } from '../model/ipvs.ts';
import { readRules, rulesFault } from './iptables/config-rules.ts';
import { Names } from './ipvsadm/names.ts';
import { parse } from './ipvsadm/parse.ts';
import { Refused } from './ipvsadm/refused.ts';

/** Host names are no part of a configuration: a director must start when DNS is down. Names of ports come from /etc/services. */
const names = new Names();
const source = {
  hostAddress: () => undefined,
  servicePort: (service: string, protocol: string) => names.servicePort(service, protocol),
};

/** As `ipvsadm -R` reads them, and `#` begins a comment line. */
const parseIpvsadm: ParseIpvsadm = (lines, _file, firstLine) => {
  const commands: { line: number; command: IpvsCommand }[] = [];
  const errors: { line: number; message: string }[] = [];
  for (const [i, text] of lines.entries()) {
    const line = firstLine + i;
    const words = text.split(/[ \t\r]+/).filter((word) => word !== '' && word !== 'ipvsadm');
    if (words.length === 0 || words[0]?.startsWith('#') === true) continue;
    try {
      const parsed = parse(words, 'ipvsadm', source);
      if (parsed.kind === 'change') commands.push({ line, command: parsed.command });
      else errors.push({ line, message: `'${words[0]}' changes nothing: only -A, -a and --set make sense here` });
    } catch (error) {
      if (!(error instanceof Refused)) throw error;
      const message = error.message.startsWith('Try ')
        ? `'${text.trim()}' is no command of ipvsadm: see tapvs ipvsadm --help`
        : error.message;
      errors.push({ line, message });
    }
  }
  return { commands, errors };
};

const grammars = { ipvsadm: parseIpvsadm, rules: readRules, rulesFault };

export function runDaemon(start: EarlyStart): Promise<number> {
  return main(start, grammars);
}

/** Of the tables that the configuration wants; null when it is faulty. */
export function readSizes(configFile: string): Pick<Config, 'limits' | 'spin'> | null {
  try {
    return loadConfig(configFile, grammars);
  } catch (error) {
    if (error instanceof ConfigError) return null;
    throw error;
  }
}
