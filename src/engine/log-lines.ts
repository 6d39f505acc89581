/** Lines about packets, of LOG rules and of connection tracking, on their way to the daemon's log, bounded: a flood of packets must not become a flood of messages. */
import { seconds } from '../base/clock.ts';
import type { HostConditions } from '../filter/conditions.ts';
import { DEFAULT_FLAGS, logLine } from '../filter/target/log-line.ts';
import { Hook } from '../hooks/hooks.ts';
import { NONE, type Packet } from '../packet/packet.ts';

/** Level as in syslog(3). */
export type LogSink = (level: number, text: string) => void;

/** Warnings of one kind that pass within that time (net_ratelimit). */
const WARNINGS = 10;
const WARNINGS_TIME = seconds(5);
/** Lines that pass within one second. */
const MOST_PER_SECOND = 1000;
const WARNING = 4;
/** Level of what no rule asks for. */
export const NOTICE = 5;

export class LogLines {
  /** Null: nobody listens. */
  sink: LogSink | null = null;
  readonly #now: () => number;
  #since = 0;
  #count = 0;
  #warningsSince = 0;
  #warnings = 0;

  constructor(now: () => number) {
    this.#now = now;
  }

  say(level: number, text: string): void {
    const { sink } = this;
    if (sink === null) return;
    const now = this.#now();
    if (now - this.#since >= seconds(1)) {
      const lost = this.#count - MOST_PER_SECOND;
      if (lost > 0)
        sink(WARNING, `iptables: ${lost} lines about packets were left out, for there were too many in one second`);
      this.#since = now;
      this.#count = 0;
    }
    if (++this.#count <= MOST_PER_SECOND) sink(level, text);
  }

  /** A warning that each packet of a flood could be the cause of. */
  sayRarely(text: string): void {
    if (this.sink === null) return;
    const now = this.#now();
    if (now - this.#warningsSince >= WARNINGS_TIME) {
      if (this.#warnings > WARNINGS) this.sink(WARNING, `${text}: ${this.#warnings - WARNINGS} more times`);
      this.#warningsSince = now;
      this.#warnings = 0;
    }
    if (++this.#warnings <= WARNINGS) this.sink(WARNING, text);
  }
}

/** A packet that belongs to no connection, as the kernel tells of it: with all that it tells of packets. */
export function invalidLine(conditions: HostConditions, p: Packet, hook: number, text: string): string {
  const isComing = hook === Hook.PreRouting;
  const place = { conditions, inDevice: isComing ? p.inDevice : NONE, outDevice: isComing ? NONE : p.outDevice };
  return logLine(p, place, text, DEFAULT_FLAGS);
}
