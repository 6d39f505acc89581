/**
 * An engine on which a configuration is tried before the real one gets it: the same code judges, nothing is opened, nothing is sent. What it refuses, `tapvsd
 * check` can say with line and column, and a start or a reload with such a file changes nothing.
 */
import { ManualClock } from '../base/clock.ts';
import { SeededRng } from '../base/rng.ts';
import { MemoryDevice } from '../device/memory.ts';
import { Engine } from '../engine/engine.ts';
import type { IpvsCommand, IpvsErrno } from '../model/ipvs.ts';
import type { Rehearsal } from './config.ts';

export class EngineRehearsal implements Rehearsal {
  readonly #engine = new Engine({
    clock: new ManualClock(0),
    rng: new SeededRng(1),
    maxConnections: 16,
    maxPackets: 16,
  });

  addDevice(name: string): void {
    if (this.#engine.stack.link.findInterface(name) === undefined) {
      this.#engine.addDevice(new MemoryDevice(this.#engine.pool, { name }));
    }
  }

  setSysctl(key: string, value: string): 'EINVAL' | 'ENOENT' | null {
    return this.#engine.setSysctl(key, value);
  }

  run(command: IpvsCommand): IpvsErrno | null {
    return this.#engine.executeIpvs([command])[0] ?? null;
  }
}
