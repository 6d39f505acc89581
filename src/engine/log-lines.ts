/** Lines of LOG rules on their way to the daemon's log, bounded: a flood of packets must not become a flood of messages. */
import { seconds } from '../base/clock.ts';

/** Level as in syslog(3). */
export type LogSink = (level: number, text: string) => void;

/** Lines that pass within one second. */
const MOST_PER_SECOND = 1000;
const WARNING = 4;

export class LogLines {
  /** Null: nobody listens. */
  sink: LogSink | null = null;
  readonly #now: () => number;
  #since = 0;
  #count = 0;

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
        sink(WARNING, `iptables: ${lost} lines of LOG rules were left out, for there were too many in one second`);
      this.#since = now;
      this.#count = 0;
    }
    if (++this.#count <= MOST_PER_SECOND) sink(level, text);
  }
}
