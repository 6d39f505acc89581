/** What ends a command with a message of conntrack(8). */

export const PROGRAM = 'conntrack v1.4.7 (conntrack-tools)';
export const TRY_HELP = "Try `conntrack -h' or 'conntrack --help' for more information.";

export class Refused extends Error {
  /** 2: wrong use, and where help is to be had; 1: anything else. */
  readonly exit: 1 | 2;

  constructor(message: string, exit: 1 | 2 = 2) {
    super(message);
    this.exit = exit;
  }

  /** As it goes to stderr. */
  get text(): string {
    return `${PROGRAM}: ${this.message}\n${this.exit === 2 ? `${TRY_HELP}\n` : ''}`;
  }
}
