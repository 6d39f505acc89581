/** For tests: an engine in memory that ends and comes again, with devices that stay. */
import { Keep, Kept, keptOr, type SlotSizes } from '../base/keep.ts';
import { MemoryFile } from '../base/keep-rig.ts';
import { plainMemory } from '../base/memory.ts';
import { SeededRng } from '../base/rng.ts';
import { finish, type Steps } from '../base/slices.ts';
import { MemoryDevice, type MemoryDeviceOptions } from '../device/memory.ts';
import { formatMac } from '../wire/addr.ts';
import { Engine, type EngineOptions } from './engine.ts';
import { inherit, Keeper, LAYOUT, type TakenOver } from './keeper.ts';

type DeviceOptions = Omit<MemoryDeviceOptions, 'drops'> & { readonly name: string };
export type LivesOptions = Omit<EngineOptions, 'allocate' | 'rng'>;

/** Of texts: small ones, for the collector runs for each byte that a life could have. */
export const TEXTS: SlotSizes = { control: 2 ** 16, settings: 2 ** 18, rules: 2 ** 20, side: 2 ** 18 };

export class Lives {
  engine: Engine;
  keeper: Keeper;
  /** Of the life that runs. */
  memory = new MemoryFile();
  /** By name; another one in each life. */
  readonly devices = new Map<string, MemoryDevice>();
  readonly #options: LivesOptions;
  readonly #deviceOptions = new Map<string, DeviceOptions>();
  #life = 1;

  constructor(options: LivesOptions) {
    this.#options = options;
    ({ engine: this.engine, keeper: this.keeper } = this.#begin());
    this.keeper.begin();
  }

  #begin(): { engine: Engine; keeper: Keeper } {
    const { maxConnections, maxEntries, maxPackets } = this.#options;
    const settings = { maxConnections, maxEntries, maxPackets, spin: 0, testClock: false };
    const keep = new Keep(this.memory.map, settings, LAYOUT, this.#life, { sizes: TEXTS });
    const rng = new SeededRng(6 + this.#life);
    const engine = new Engine({ ...this.#options, rng, allocate: keptOr(keep, plainMemory) });
    return { engine, keeper: new Keeper(engine, keep, () => {}) };
  }

  addDevice(options: DeviceOptions): MemoryDevice {
    this.#deviceOptions.set(options.name, options);
    const { pool, drops } = this.engine;
    const device = new MemoryDevice(pool, { ...options, drops });
    this.engine.addDevice(device);
    this.devices.set(options.name, device);
    const { name, macHi, macLo, mtu } = device;
    const mac = formatMac(macHi, macLo);
    this.keeper.devices.push({ name, kind: 'tap', fd: -1, mac, mtu, isHost: false, offload: false });
    this.keeper.settingsChanged();
    return device;
  }

  /** What the engine has written so far is all that is left of it: it was killed. Or, with `ends`, it came to its end. */
  restart(how: 'ends' | 'killed'): TakenOver {
    return finish(this.restartInSteps(how));
  }

  /** The same; the next life runs at once, and takes the rest over meanwhile. */
  restartInSteps(how: 'ends' | 'killed'): Steps<TakenOver> {
    if (how === 'ends') this.keeper.finish();
    const kept = Kept.open(this.memory.map, LAYOUT, TEXTS);
    if (typeof kept === 'string') throw new Error(kept);
    this.#life = kept.life + 1;
    this.memory = new MemoryFile();
    ({ engine: this.engine, keeper: this.keeper } = this.#begin());
    const { steps } = inherit(this.engine, kept, ({ name }) => {
      this.addDevice(this.#deviceOptions.get(name)!);
      return true;
    });
    const { keeper } = this;
    return (function* () {
      const report = yield* steps;
      keeper.begin();
      return report;
    })();
  }
}
