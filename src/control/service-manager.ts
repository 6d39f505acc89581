/**
 * What systemd (or `tapvs supervise`) is told: sd_notify(3) datagrams, descriptors to keep for our next life, and the watchdog that is fed only while the data
 * worker answers. Silent when nobody listens.
 */
import { clockMonotonicUs, notify } from '../device/native.ts';

export class ServiceManager {
  readonly #path: string;
  readonly #watchdogMs: number;
  #timer: NodeJS.Timeout | undefined;

  constructor(env: Readonly<Record<string, string | undefined>>) {
    const { NOTIFY_SOCKET = '', WATCHDOG_USEC = '', WATCHDOG_PID = '' } = env;
    this.#path = NOTIFY_SOCKET;
    const isOurs = WATCHDOG_PID === '' || Number(WATCHDOG_PID) === process.pid;
    this.#watchdogMs = isOurs && Number(WATCHDOG_USEC) > 0 ? Number(WATCHDOG_USEC) / 1000 : 0;
  }

  /** Somebody listens, who may keep descriptors. */
  get isThere(): boolean {
    return this.#path !== '';
  }

  /** The next life gets a copy of the descriptor by this name (control/given.ts), however this one ends. Names have no colon. */
  keep(name: string, fd: number): void {
    // FDPOLL=0: a TAP that is down or a socket whose interface went away is kept all the same.
    this.#say(`FDSTORE=1\nFDNAME=${name}\nFDPOLL=0`, [fd]);
  }

  /** All that is kept by this name. */
  forget(name: string): void {
    this.#say(`FDSTOREREMOVE=1\nFDNAME=${name}`);
  }

  /** Our own manager may start the next process before this one ends (spare.ts). */
  ready(status: string): void {
    this.#say(`READY=1\nX_TAPVS_KNOWS_SPARE=1\nSTATUS=${status}`);
  }

  /** Until the next `ready`. The time lets Type=notify-reload tell this reload from an earlier one. */
  reloading(): void {
    this.#say(`RELOADING=1\nMONOTONIC_USEC=${Math.floor(clockMonotonicUs())}`);
  }

  stopping(): void {
    this.stopWatchdog();
    this.#say('STOPPING=1');
  }

  status(text: string): void {
    this.#say(`STATUS=${text}`);
  }

  /** Feeds the watchdog twice per interval, each time after `ping` has been answered within half of it. */
  startWatchdog(ping: (timeoutMs: number) => Promise<unknown>): void {
    if (this.#path === '' || this.#watchdogMs === 0) return;
    const half = this.#watchdogMs / 2;
    const feed = async (): Promise<void> => {
      try {
        await ping(half);
        this.#say('WATCHDOG=1');
      } catch {
        // not fed: when it stays so, systemd ends and restarts us
      }
    };
    this.#timer = setInterval(() => void feed(), half);
    void feed();
  }

  stopWatchdog(): void {
    clearInterval(this.#timer);
  }

  #say(text: string, fds: readonly number[] = []): void {
    if (this.#path === '') return;
    try {
      notify(this.#path, text, fds);
    } catch {
      // a service manager that went away is no reason to stop serving
    }
  }
}
