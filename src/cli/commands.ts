/** Which commands there are, and which one an invocation means. */
import { DEFAULT_SOCKET } from '../control/api.ts';
import { type CliCommand, CliError, Exit } from './command.ts';

interface Entry {
  readonly name: string;
  readonly summary: string;
  /** `install-links` makes a link of this name. Not for ip and sysctl: a director's host needs the kernel's own as well. */
  readonly isClassic: boolean;
  readonly load: () => Promise<CliCommand>;
}

export const COMMANDS: readonly Entry[] = [
  {
    name: 'ipvsadm',
    summary: 'virtual services, real servers, connections',
    isClassic: true,
    load: () => import('./ipvsadm/run.ts').then((module) => module.ipvsadm),
  },
  {
    name: 'iptables',
    summary: 'rules: what may pass, what is marked, what is translated',
    isClassic: true,
    load: () => import('./iptables/run.ts').then((module) => module.iptables),
  },
  {
    name: 'iptables-save',
    summary: 'all rules as text',
    isClassic: true,
    load: () => import('./iptables/save.ts').then((module) => module.iptablesSave),
  },
  {
    name: 'iptables-restore',
    summary: 'rules from such a text, each table whole or not at all',
    isClassic: true,
    load: () => import('./iptables/restore.ts').then((module) => module.iptablesRestore),
  },
  {
    name: 'conntrack',
    summary: 'connections that are tracked: lists, changes, events',
    isClassic: true,
    load: () => import('./conntrack/run.ts').then((module) => module.conntrack),
  },
  {
    name: 'ip',
    summary: 'addresses, routes, neighbours and links of the host that tapvsd is',
    isClassic: false,
    load: () => import('./ip/run.ts').then((module) => module.ip),
  },
  {
    name: 'sysctl',
    summary: "tapvsd's settings: net.ipv4.vs.*, net.ipv4.*, net.netfilter.*",
    isClassic: false,
    load: () => import('./sysctl.ts').then((module) => module.sysctl),
  },
  {
    name: 'status',
    summary: 'what runs, since when, with how much',
    isClassic: false,
    load: () => import('./status.ts').then((module) => module.status),
  },
  {
    name: 'drops',
    summary: 'why packets were dropped, and how many',
    isClassic: false,
    load: () => import('./drops.ts').then((module) => module.drops),
  },
  {
    name: 'hooks',
    summary: 'what sees a packet at which hook',
    isClassic: false,
    load: () => import('./hooks.ts').then((module) => module.hooks),
  },
  {
    name: 'capture',
    summary: 'packets as tapvsd sees them: to a file, a pipe, or in words',
    isClassic: false,
    load: () => import('./capture.ts').then((module) => module.capture),
  },
  {
    name: 'explain',
    summary: 'what would become of a packet, and why; nothing is sent',
    isClassic: false,
    load: () => import('./explain.ts').then((module) => module.explain),
  },
  {
    name: 'trace',
    summary: 'what becomes of live packets, and why',
    isClassic: false,
    load: () => import('./trace.ts').then((module) => module.trace),
  },
  {
    name: 'reload',
    summary: 'read the configuration file again',
    isClassic: false,
    load: () => import('./reload.ts').then((module) => module.reload),
  },
  {
    name: 'decap',
    summary: 'on a real server: unwrap IPIP, GUE or GRE where its kernel cannot',
    isClassic: false,
    load: () => import('./decap.ts').then((module) => module.decap),
  },
  {
    name: 'supervise',
    summary: 'runs tapvsd where there is no systemd, and restarts it without loss',
    isClassic: false,
    load: () => import('./supervise.ts').then((module) => module.supervise),
  },
  {
    name: 'lab',
    summary: 'a client, a director and real servers in namespaces, to try things in',
    isClassic: false,
    load: () => import('./lab.ts').then((module) => module.lab),
  },
];

interface Invocation {
  /** undefined: the program's own help or version is asked for. */
  readonly command: string | undefined;
  readonly args: readonly string[];
  readonly socketPath: string;
}

/** Which command is meant: by the name that the program was called by, else by the first word. `--socket PATH` may stand before. Throws CliError. */
export function readInvocation(
  calledAs: string,
  words: readonly string[],
  environment: Readonly<Record<string, string | undefined>>,
): Invocation {
  let socketPath = environment.TAPVS_SOCKET || DEFAULT_SOCKET;
  let at = 0;
  if (words[0] === '--socket') {
    if (words[1] === undefined) throw new CliError('tapvs: --socket needs a path', Exit.Usage);
    socketPath = words[1];
    at = 2;
  } else if (words[0]?.startsWith('--socket=') === true) {
    socketPath = words[0].slice('--socket='.length);
    at = 1;
  }
  const isClassic = COMMANDS.some((entry) => entry.isClassic && entry.name === calledAs);
  if (isClassic) return { command: calledAs, args: words.slice(at), socketPath };
  return { command: words[at], args: words.slice(at + 1), socketPath };
}
