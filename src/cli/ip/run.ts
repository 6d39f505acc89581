/** `tapvs ip`: addresses, routes, neighbours and links of the host that tapvsd is, in iproute2's words and forms. */
import type { CliCommand, CliContext } from '../command.ts';
import { CliError } from '../command.ts';
import { ADDR_HELP, addr } from './addr.ts';
import { LINK_HELP, link } from './link.ts';
import { NEIGH_HELP, neigh } from './neigh.ts';
import type { IpOptions } from './output.ts';
import { ROUTE_HELP, route } from './route.ts';
import { nameOf, Words } from './words.ts';

const HELP = `Usage: tapvs ip [ OPTIONS ] { address | link | neighbour | route } [ COMMAND ... | help ]
What tapvsd's own host has, not the kernel's. Names of objects and commands can be cut short.
OPTIONS := { -4 | -6 | -j[son] | -p[retty] | -br[ief] | -o[neline] | -s[tatistics] | -V[ersion] | -h[elp] }
`;

type Object = 'address' | 'route' | 'neighbor' | 'neighbour' | 'link' | 'help';
const OBJECTS: readonly Object[] = ['address', 'route', 'neighbor', 'neighbour', 'link', 'help'];

type Run = (words: Words, options: IpOptions, context: CliContext) => Promise<number>;
const RUN: Readonly<Record<Exclude<Object, 'help'>, { readonly run: Run; readonly help: string }>> = {
  address: { run: addr, help: ADDR_HELP },
  route: { run: route, help: ROUTE_HELP },
  neighbor: { run: neigh, help: NEIGH_HELP },
  neighbour: { run: neigh, help: NEIGH_HELP },
  link: { run: link, help: LINK_HELP },
};

export const ip: CliCommand = {
  async run(args, context) {
    const options = {
      json: false,
      pretty: false,
      brief: false,
      oneline: false,
      stats: false,
      family: undefined as 4 | 6 | undefined,
    };
    let at = 0;
    for (; args[at]?.startsWith('-') === true; at++) {
      const word = args[at]!.replace(/^--/, '-');
      switch (optionOf(word)) {
        case '-4':
          options.family = 4;
          break;
        case '-6':
          options.family = 6;
          break;
        case '-json':
          options.json = true;
          break;
        case '-pretty':
          options.pretty = true;
          break;
        case '-brief':
          options.brief = true;
          break;
        case '-oneline':
          options.oneline = true;
          break;
        case '-statistics':
          options.stats = true;
          break;
        case '-Version':
          context.out('tapvs ip, in the words of iproute2\n');
          return 0;
        case '-help':
          context.out(HELP);
          return 0;
        default:
          throw new CliError(`Option "${args[at]}" is unknown, try "ip -help".`, 255);
      }
    }
    const word = args[at];
    if (word === undefined) throw new CliError(HELP.trimEnd(), 255);
    const object = nameOf(word, OBJECTS);
    if (object === undefined) throw new CliError(`Object "${word}" is unknown, try "ip help".`, 1);
    if (object === 'help') {
      context.out(HELP);
      return 0;
    }
    const words = new Words(args.slice(at + 1));
    if (words.head === 'help' || words.head === '--help') {
      context.out(RUN[object].help);
      return 0;
    }
    return RUN[object].run(words, options, context);
  },
};

const OPTIONS = ['-4', '-6', '-json', '-pretty', '-brief', '-oneline', '-statistics', '-Version', '-help'] as const;

/** iproute2 gives short beginnings to options of its own that are not here: `-b` is its -batch. */
function optionOf(word: string): (typeof OPTIONS)[number] | undefined {
  return word === '-' || word === '-b' ? undefined : nameOf(word, OPTIONS);
}
