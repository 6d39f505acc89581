/** A line of ipvsadm's that ends a command before anything is asked of the daemon. */
export class Refused extends Error {
  /** 2 for what ipvsadm itself refuses, 255 for what its option reader does. */
  readonly exit: 2 | 255;
  /** Ends a whole -R, not only its line. */
  readonly isFatal: boolean;

  constructor(message: string, exit: 2 | 255 = 2, isFatal = true) {
    super(message);
    this.exit = exit;
    this.isFatal = isFatal;
  }
}

export function tryHelp(program: string): Refused {
  return new Refused(`Try \`${program} -h' or '${program} --help' for more information.`, 255);
}
