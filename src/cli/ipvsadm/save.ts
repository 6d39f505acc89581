/** ipvsadm -S: the table as the commands that would make it. Thresholds are not in it, and a local server is saved as a directly routed one. */
import type { ServerRow, ServiceRow } from '../../model/ipvs.ts';
import { effectiveMask, hostPort, localAddressText, type Naming, schedulerFlagNames, sortServers } from './format.ts';

export function saveService(row: ServiceRow, naming: Naming): string {
  const { key } = row;
  const service = key.kind === 'fwmark' ? fwmarkOption(key.fwmark, key.family) : addressOption(key, naming);
  let text = `-A ${service} -s ${row.scheduler}`;
  if (row.persistenceTimeout !== undefined) {
    text += ` -p ${row.persistenceTimeout}`;
    const mask = effectiveMask(row);
    if (mask !== undefined) text += ` -M ${mask}`;
  }
  if (row.pe !== undefined && row.pe !== '') text += ` --pe ${row.pe}`;
  if (row.ops) text += ' -o';
  if (row.schedulerFlags !== 0) text += ` -b ${schedulerFlagNames(row)}`;
  text += '\n';
  const protocol = key.kind === 'address' ? key.protocol : '';
  for (const local of row.localAddresses ?? []) {
    const device = local.device === undefined ? '' : ` -F ${local.device}`;
    text += `-P ${service} -z ${localAddressText(local)}${device}\n`;
  }
  for (const server of sortServers(row.servers)) {
    text += `-a ${service} -r ${hostPort(server.key, protocol, naming)} ${METHOD[server.method]} -w ${server.weight}${tunnelOptions(server)}\n`;
  }
  return text;
}

const METHOD = { masq: '-m', tunnel: '-i', route: '-g', local: '-g', bypass: '(null)', fullnat: '-b' } as const;
const CHECKSUM = { none: '--tun-nocsum', csum: '--tun-csum', remcsum: '--tun-remcsum' } as const;

function fwmarkOption(fwmark: number, family: 4 | 6): string {
  return `-f ${fwmark}${family === 6 ? ' -6' : ''}`;
}

function addressOption(key: Extract<ServiceRow['key'], { kind: 'address' }>, naming: Naming): string {
  const option = key.protocol === 'tcp' ? '-t' : key.protocol === 'udp' ? '-u' : '--sctp-service';
  return `${option} ${hostPort(key, key.protocol, naming)}`;
}

function tunnelOptions({ method, tunnel }: ServerRow): string {
  if (method !== 'tunnel') return '';
  if (tunnel === undefined || tunnel.type === 'ipip') return ' --tun-type ipip';
  const port = tunnel.type === 'gue' ? ` --tun-port ${tunnel.port}` : '';
  return ` --tun-type ${tunnel.type}${port} ${CHECKSUM[tunnel.checksum]}`;
}
