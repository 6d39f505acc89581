/** Carries out the actions of a plan, in order: on the engine, and on the kernel where devices are concerned. */
import type { IpErrno } from '../model/ip.ts';
import type { IpvsCommand, IpvsErrno } from '../model/ipvs.ts';
import type { Devices } from './devices.ts';
import type { Engine } from './engine-client.ts';
import type { Action } from './plan.ts';
import type { RuleChanges } from './rule-changes.ts';
import { sysctlHint } from './sysctl-hint.ts';

/** Commands given to the worker at a time: what it can do between two breaths. */
const BATCH = 64;

/** An action that the engine refused: the file is well-formed, but cannot be had. */
export class ApplyError extends Error {
  override readonly name = 'ApplyError';
}

export class Applier {
  readonly #engine: Engine;
  readonly #devices: Devices;
  readonly #rules: RuleChanges;
  /** What a sysctl was before a file set it. */
  readonly #originals: Map<string, string>;

  /** @param originals what sysctls were before an earlier life's file set them */
  constructor(
    engine: Engine,
    devices: Devices,
    rules: RuleChanges,
    originals: Iterable<readonly [key: string, value: string]> = [],
  ) {
    this.#engine = engine;
    this.#rules = rules;
    this.#devices = devices;
    this.#originals = new Map(originals);
  }

  get sysctlsBefore(): readonly (readonly [key: string, value: string])[] {
    return [...this.#originals];
  }

  /**
   * Does all that can be done, also behind what fails: a half-applied change would be worse.
   * @returns what failed: ApplyError, DeviceError, EngineError
   */
  async apply(actions: readonly Action[]): Promise<Error[]> {
    const faults: Error[] = [];
    for (let at = 0; at < actions.length; ) {
      const action = actions[at]!;
      if (action.do === 'ipvs') {
        const batch: (Action & { do: 'ipvs' })[] = [];
        for (let next = actions[at]; next?.do === 'ipvs' && batch.length < BATCH; next = actions[at]) {
          batch.push(next);
          at++;
        }
        faults.push(...(await this.#ipvs(batch)));
        continue;
      }
      at++;
      try {
        const fault = await this.#one(action);
        if (fault !== null) faults.push(new ApplyError(fault));
      } catch (error) {
        faults.push(error instanceof Error ? error : new Error(String(error)));
      }
    }
    await this.#devices.syncHostPort().catch((error: Error) => faults.push(error));
    return faults;
  }

  async #one(action: Exclude<Action, { do: 'ipvs' }>): Promise<string | null> {
    switch (action.do) {
      case 'add-device':
        await this.#devices.add(action.device);
        return null;
      case 'del-device':
        await this.#devices.remove(action.device.name);
        return null;
      case 'edit-device':
        await this.#devices.edit(action.device);
        return null;
      case 'ip': {
        const [errno] = await this.#engine.call('ip', { commands: [action.command] });
        return errno === null || errno === undefined || isGone(action.command.op, errno)
          ? null
          : `${what(action)}: ${errno}`;
      }
      case 'rules': {
        const outcome = await this.#rules.change(action.rules);
        return outcome === null ? null : `${what(action)}: ${outcome.fault} ${outcome.what ?? ''}`.trimEnd();
      }
      case 'sysctl':
        return this.#setSysctl(action.key, action.value);
      case 'reset-sysctl': {
        const { key } = action;
        const value = this.#originals.get(key);
        const fault = value === undefined ? null : await this.#setSysctl(key, value);
        this.#originals.delete(key);
        return fault;
      }
    }
  }

  async #setSysctl(key: string, value: string): Promise<string | null> {
    const before = await this.#engine.call('get-sysctl', { key });
    const errno = await this.#engine.call('set-sysctl', { key, value });
    if (errno === 'ENOENT') return `sysctl ${key}: there is no such key`;
    if (errno !== null) {
      const rows = await this.#engine.call('get-sysctl', { key: 'net.netfilter.nf_conntrack_buckets' });
      const hint = sysctlHint(key, value, rows ?? '');
      return `sysctl ${key}: cannot be '${value}'${hint === '' ? '' : `: ${hint}`}`;
    }
    if (before !== undefined && !this.#originals.has(key)) this.#originals.set(key, before);
    return null;
  }

  /** A file says how things should be: what is there already is edited, what is gone already is left, what is missing is added. */
  async #ipvs(actions: readonly (Action & { do: 'ipvs' })[]): Promise<Error[]> {
    const results = await this.#engine.call('ipvs', { commands: actions.map(({ command }) => command) });
    const faults: Error[] = [];
    for (const [i, errno] of results.entries()) {
      if (errno === null) continue;
      const action = actions[i]!;
      const other = otherWay(action.command, errno);
      if (other === 'done') continue;
      const again = other === null ? errno : (await this.#engine.call('ipvs', { commands: other })).at(-1);
      if (again) faults.push(new ApplyError(`${what(action)}: ${again}`));
    }
    return faults;
  }
}

function what(action: Action): string {
  return action.text === '' ? action.do : action.text;
}

function isGone(op: string, errno: IpErrno): boolean {
  return op.endsWith('-del') && (errno === 'ESRCH' || errno === 'ENOENT' || errno === 'EADDRNOTAVAIL');
}

/** The commands that reach the same end from where things are; 'done' when nothing is left to do, null when there are none. */
function otherWay(command: IpvsCommand, errno: IpvsErrno): readonly IpvsCommand[] | 'done' | null {
  const isMissing = errno === 'ESRCH' || errno === 'ENOENT';
  switch (command.op) {
    case 'add-service':
      return errno === 'EEXIST' ? [{ ...command, op: 'edit-service' }] : null;
    case 'edit-service':
      return isMissing ? [{ ...command, op: 'add-service' }] : null;
    case 'add-server':
      return errno === 'EEXIST' ? [{ ...command, op: 'edit-server' }] : null;
    case 'edit-server':
      return errno === 'ENOENT' ? [{ ...command, op: 'add-server' }] : null;
    case 'add-local-address':
      return errno === 'EEXIST' ? [{ ...command, op: 'edit-local-address' }] : null;
    case 'edit-local-address':
      return errno === 'ENOENT' ? [{ ...command, op: 'add-local-address' }] : null;
    case 'delete-local-address':
    case 'delete-service':
    case 'delete-server':
    case 'stop-daemon':
      return isMissing ? 'done' : null;
    case 'start-daemon':
      return errno === 'EEXIST' ? [{ op: 'stop-daemon', role: command.daemon.role }, command] : null;
    default:
      return null;
  }
}
