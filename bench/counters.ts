/** What client and servers counted as damaged during a run: a balancer that breaks checksums shows up here. */
import { run } from './run.ts';

/** The counters of /proc/net/snmp that must not move. */
const WATCHED: Readonly<Record<string, readonly string[]>> = {
  Ip: ['InHdrErrors'],
  Icmp: ['InCsumErrors'],
  Tcp: ['InErrs', 'InCsumErrors'],
  Udp: ['InErrors', 'InCsumErrors', 'RcvbufErrors'],
};

/** The watched counters that are not zero, as `namespace Protocol.Name` → count. Fresh namespaces start at zero. */
export async function damagedPackets(namespaces: readonly string[]): Promise<Record<string, number>> {
  const found: Record<string, number> = {};
  for (const namespace of namespaces) {
    const text = await run(['ip', 'netns', 'exec', namespace, 'cat', '/proc/net/snmp']);
    for (const [name, count] of Object.entries(parseSnmp(text))) {
      const [protocol = '', counter = ''] = name.split('.');
      if (count > 0 && WATCHED[protocol]?.includes(counter)) found[`${namespace} ${name}`] = count;
    }
  }
  return found;
}

/** /proc/net/snmp: pairs of lines, names then values, both after `Protocol:`. */
export function parseSnmp(text: string): Record<string, number> {
  const counters: Record<string, number> = {};
  const lines = text.trim().split('\n');
  for (let i = 0; i + 1 < lines.length; i += 2) {
    const [protocol = '', ...names] = lines[i]!.split(/\s+/);
    const [, ...values] = lines[i + 1]!.split(/\s+/);
    for (const [j, name] of names.entries()) counters[`${protocol.slice(0, -1)}.${name}`] = Number(values[j]);
  }
  return counters;
}
