/** `tapvs decap`: the far end of a tunnel, for real servers whose kernel has no IPIP, GRE or GUE. Runs until it is ended; needs no daemon. */
import { ServiceManager } from '../control/service-manager.ts';
import { Decapsulator } from '../decap/decapsulator.ts';
import { TUNNEL_TYPES, type TunnelType } from '../decap/unwrap.ts';
import { parseIp4 } from '../wire/addr.ts';
import { type CliCommand, CliError, Exit } from './command.ts';
import { refuseWords } from './options.ts';

/** IANA's port of GUE. */
const GUE_PORT = 6080;
/** IFNAMSIZ - 1. */
const LONGEST_NAME = 15;

const HELP = `Usage: tapvs decap --device NAME [--type ipip|gue|gre]... [--gue-port PORT] [--local ADDRESS]
Unwraps what a director tunnels to this machine (ipvsadm -i), for kernels that have no IPIP, GRE or GUE of their own: makes a TUN device NAME, takes
the tunnel packets, checks them, and gives the packets inside to the kernel by that device.

  --device NAME     the TUN device; it goes away with this program
  --type TYPE       what to unwrap, ipip unless said; may be given several times
  --gue-port PORT   UDP port of GUE, ${GUE_PORT} unless said; the director's --tun-port
  --local ADDRESS   take only what is addressed to ADDRESS

Beside it the server needs the service's address on lo (arp_ignore 1, arp_announce 2) and rp_filter 0 on NAME.
Says "ready" when packets are taken (and tells systemd), counts on SIGUSR1 and at the end. SIGTERM or SIGINT ends it. Needs root or CAP_NET_ADMIN, CAP_NET_RAW.
`;

interface Settings {
  readonly device: string;
  readonly types: readonly TunnelType[];
  readonly guePort: number;
  readonly local: string | undefined;
}

export const decap: CliCommand = {
  async run(args, { out, err }) {
    if (args.includes('--help') || args.includes('-h')) {
      out(HELP);
      return Exit.Ok;
    }
    const settings = readSettings(args);
    const manager = new ServiceManager(process.env);
    let end: (error: Error | null) => void = () => {};
    const ended = new Promise<Error | null>((resolve) => {
      end = resolve;
    });
    process.on('SIGTERM', () => end(null));
    process.on('SIGINT', () => end(null));
    const decapsulator = open(settings, end);
    process.on('SIGUSR1', () => err(decapsulator.report()));
    try {
      await decapsulator.start();
      const names = settings.types.map((type) => (type === 'gue' ? `gue port ${settings.guePort}` : type)).join(', ');
      out(`ready: ${settings.device} takes ${names}\n`);
      manager.ready(`${settings.device} takes ${names}`);
      const failure = await ended;
      if (failure !== null) throw failure;
      return Exit.Ok;
    } catch (error) {
      throw new CliError(`tapvs decap: ${(error as Error).message}`, Exit.Unavailable);
    } finally {
      manager.stopping();
      decapsulator.stop();
      err(decapsulator.report());
    }
  },
};

function open(settings: Settings, onFailure: (error: Error) => void): Decapsulator {
  try {
    return new Decapsulator({ ...settings, onFailure });
  } catch (error) {
    throw new CliError(`tapvs decap: ${(error as Error).message}`, Exit.Unavailable);
  }
}

/** An option that may be repeated is none of readOptions' kinds. @throws CliError with status 64 */
function readSettings(args: readonly string[]): Settings {
  let device: string | undefined;
  let guePort = GUE_PORT;
  let local: string | undefined;
  const types = new Set<TunnelType>();
  const words = [...args];
  for (let word = words.shift(); word !== undefined; word = words.shift()) {
    if (!word.startsWith('--')) refuseWords('decap', { flags: new Set(), values: new Map(), words: [word] });
    const equals = word.indexOf('=');
    const name = equals < 0 ? word : word.slice(0, equals);
    const value = equals < 0 ? words.shift() : word.slice(equals + 1);
    if (!['--device', '--type', '--gue-port', '--local'].includes(name)) {
      throw usage(`unknown option ${name}, see tapvs decap --help`);
    }
    if (value === undefined || value === '') throw usage(`${name} needs a value`);
    if (name === '--device') device = value;
    else if (name === '--type') types.add(readType(value));
    else if (name === '--gue-port') guePort = readPort(value);
    else local = readAddress(value);
  }
  if (device === undefined) throw usage('--device is needed, see tapvs decap --help');
  if (Buffer.byteLength(device) > LONGEST_NAME || /[\s/%]/.test(device)) throw usage(`no device name: "${device}"`);
  return { device, types: types.size === 0 ? ['ipip'] : [...types], guePort, local };
}

function readType(word: string): TunnelType {
  const type = TUNNEL_TYPES.find((known) => known === word);
  if (type === undefined) throw usage(`no tunnel type: "${word}" (${TUNNEL_TYPES.join(', ')})`);
  return type;
}

function readPort(word: string): number {
  const port = /^[0-9]{1,5}$/.test(word) ? Number(word) : 0;
  if (port < 1 || port > 65535) throw usage(`no port: "${word}"`);
  return port;
}

function readAddress(word: string): string {
  if (parseIp4(word) === undefined) throw usage(`no IPv4 address: "${word}"`);
  return word;
}

function usage(message: string): CliError {
  return new CliError(`tapvs decap: ${message}`, Exit.Usage);
}
