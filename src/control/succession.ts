/**
 * From one life of the daemon to the next: what a service manager keeps of this one (service-manager.ts), and what it kept of the one before (given.ts).
 *
 *   device-NAME   descriptor of a device: frames that arrive while nobody reads wait in it
 *   tables-N      memory with the tables of life N (base/keep.ts)
 *   guard         one page: how many lives in a row went on from their predecessor and died soon after
 *
 * The manager has copies of descriptors, however we end. It lets go of them when the service is stopped for good.
 */
import { KEEP_SIZE, Kept } from '../base/keep.ts';
import { wholeOf } from '../base/memory.ts';
import { close, giveBack, mapShared, memfd } from '../device/native.ts';
import type { KeepData } from '../engine/messages.ts';
import { type ControlState, readControlState } from './control-state.ts';
import { takeGiven } from './given.ts';
import { ServiceManager } from './service-manager.ts';

const TABLES = /^tables-([0-9]{1,9})$/;
const DEVICE = 'device-';
const GUARD = 'guard';
const GUARD_SIZE = 4096;
/** A life that lasts so long was no mistake to begin, ms. */
const SETTLED_MS = 5_000;
/** So many lives that took over may die young before one begins with nothing. */
const YOUNG_DEATHS = 2;

export class Succession {
  readonly manager: ServiceManager;
  /** Descriptors for the data worker; undefined: nobody would hand anything on. */
  keep: KeepData | undefined;
  /** Why nothing is taken over although something was left; empty when nothing was left or it may be taken over. */
  readonly refusal: string;
  readonly #life: number;
  /** Names of what the life before has left in the manager's hands. */
  readonly #left: Set<string>;
  readonly #given: ReadonlyMap<string, number>;
  /** [0]: lives that died young. */
  readonly #guard: Int32Array | null;
  readonly #devices = new Set<string>();

  constructor(
    env: Record<string, string | undefined>,
    wantsFresh: boolean,
    given: ReadonlyMap<string, number> = takeGiven(env),
    fd?: number,
  ) {
    this.manager = new ServiceManager(env);
    this.#given = given;
    this.#left = new Set(this.#given.keys());
    const lives = [...this.#given.keys()].flatMap((name) => TABLES.exec(name)?.[1] ?? []).map(Number);
    const last = Math.max(0, ...lives);
    this.#life = last + 1;
    this.#guard = this.manager.isThere ? this.#openGuard() : null;
    this.refusal = last === 0 ? '' : this.#refusal(wantsFresh);
    const tables = this.#given.get(`tables-${last}`);
    const before =
      tables === undefined || this.refusal !== '' ? undefined : { fd: tables, devices: devicesAmong(this.#given) };
    this.keep = this.manager.isThere ? { fd: fd ?? newTables(), before } : undefined;
    if (before === undefined) this.discard();
    else if (this.#guard !== null) this.#guard[0]!++;
  }

  #openGuard(): Int32Array {
    const given = this.#given.get(GUARD);
    const fd = given ?? memfd('tapvs-guard', GUARD_SIZE);
    if (given === undefined) this.manager.keep(GUARD, fd);
    const guard = new Int32Array(mapShared(fd, GUARD_SIZE));
    close(fd);
    this.#left.delete(GUARD);
    return guard;
  }

  #refusal(wantsFresh: boolean): string {
    if (wantsFresh) return '--fresh says so';
    if (!this.manager.isThere) return 'there is no service manager';
    if (this.#guard === null || this.#guard[0]! < YOUNG_DEATHS) return '';
    this.#guard[0] = 0;
    return `the last ${YOUNG_DEATHS} lives that went on from it ended within ${SETTLED_MS / 1000} s`;
  }

  /** Tables were made in the memory of this life that nobody wants. */
  renewTables(): void {
    if (this.keep === undefined) return;
    close(this.keep.fd);
    this.keep = { ...this.keep, fd: newTables() };
  }

  /** What the main thread of the life before has left, without waiting for the worker: null when it cannot be read. */
  stateBefore(): ControlState | null {
    const fd = this.keep?.before?.fd;
    if (fd === undefined) return null;
    const kept = Kept.open((offset, bytes) => wholeOf(mapShared(fd, bytes, offset)));
    return typeof kept === 'string' ? null : readControlState(kept.read('control'));
  }

  /** Nothing of the life before is wanted any more (a device that was not taken over goes away). */
  discard(): void {
    for (const [name, fd] of this.#given) if (this.#left.has(name)) tryClose(fd);
    for (const name of this.#left) this.manager.forget(name);
    this.#left.clear();
  }

  /** The worker's tables and its state are whole: from now on the next life goes on from these. Devices of the life before that are not among `adopted` go away. */
  begun(adopted: readonly string[]): void {
    if (this.keep === undefined) return;
    for (const device of adopted) {
      this.#left.delete(nameOf(device));
      this.#devices.add(device);
    }
    this.manager.keep(`tables-${this.#life}`, this.keep.fd);
    // The worker may have mapped them until its next garbage collection, and that may never come.
    if (this.keep.before !== undefined) giveBack(this.keep.before.fd);
    this.discard();
  }

  /** All is well, says who should know, after a while: then it was no mistake to go on from the life before. */
  settle(isWell: () => Promise<unknown>): void {
    const ask = (): void =>
      void isWell().then(
        () => this.#settled(),
        () => {},
      );
    setTimeout(ask, SETTLED_MS).unref();
  }

  deviceOpened(device: string, fd: number): void {
    this.#devices.add(device);
    this.manager.keep(nameOf(device), fd);
  }

  deviceClosed(device: string): void {
    this.#devices.delete(device);
    this.manager.forget(nameOf(device));
  }

  /** This life ends as it was told to: with a successor, or for good. */
  end(hasSuccessor: boolean): void {
    this.#settled();
    if (hasSuccessor) return;
    this.discard();
    for (const device of [...this.#devices]) this.deviceClosed(device);
    this.manager.forget(`tables-${this.#life}`);
    this.manager.forget(GUARD);
  }

  #settled(): void {
    if (this.#guard !== null) this.#guard[0] = 0;
  }
}

/** Memory for the tables of a life. */
export function newTables(): number {
  return memfd('tapvs-tables', KEEP_SIZE);
}

/** Will there be a life before this one to go on from? */
export function isSomethingLeft({ LISTEN_FDNAMES = '' }: Record<string, string | undefined>): boolean {
  return LISTEN_FDNAMES.split(':').some((name) => TABLES.test(name));
}

/** LISTEN_FDNAMES has printable ASCII without colons. */
function nameOf(device: string): string {
  return DEVICE + encodeURIComponent(device);
}

function devicesAmong(given: ReadonlyMap<string, number>): Record<string, number> {
  const devices: Record<string, number> = {};
  for (const [name, fd] of given) {
    if (name.startsWith(DEVICE)) devices[decodeURIComponent(name.slice(DEVICE.length))] = fd;
  }
  return devices;
}

function tryClose(fd: number): void {
  try {
    close(fd);
  } catch {
    // closed with what used it
  }
}
