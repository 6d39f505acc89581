/**
 * What the director tells whoever looks over its shoulder (`tapvs explain`, `tapvs trace`), at the moment when it happens. Nobody looks: `director.notes` is
 * null, which costs a branch where connections begin. Notes must change nothing.
 */

/** Why a connection made place for the packet's own. */
export const Ended = { UsedAgain: 0, ServerGone: 1 } as const;
/** What became of the client's persistence template. */
export const TemplateUse = { Used: 0, Made: 1, GivenUp: 2 } as const;

export interface Notes {
  /** The packet belongs to this connection, in direction `dir` (Dir). */
  found(conn: number, dir: number): void;
  /** Before it goes. @param why Ended */
  ended(conn: number, why: number): void;
  /** The service that the packet begins a connection of. */
  service(service: number): void;
  /** @param use TemplateUse */
  template(template: number, use: number): void;
  /** Before the scheduler picks, with what it will be given. */
  scheduling(service: number, source: number, destination: number, ports: number): void;
  made(conn: number): void;
}
