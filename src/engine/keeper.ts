/**
 * What outlives this process, beside the tables' own columns (base/keep.ts): settings, rules and what stands in no column are written as texts when they have changed, and
 * in a new life everything is taken over from the life before.
 *
 *   change ─► dirty ─► written before the request is answered, or a little per breath as soon as its cost allows
 *   start  ─► devices, settings, services, translation, rules; then it forwards, and rows of connections and entries
 *             come when they are asked for, the rest of them little by little (flow/inheritance.ts); one that does not hold is left out and counted
 */
import { crc32 } from 'node:zlib';
import { milliseconds } from '../base/clock.ts';
import type { Keep, Kept, SlotName } from '../base/keep.ts';
import type { Steps } from '../base/slices.ts';
import { Col, Trait } from '../conntrack/entries.ts';
import { HELPER_NAMES } from '../conntrack/helper-names.ts';
import { ENTRY_TUPLES, EntryHeir, entriesLeft } from '../conntrack/inherit.ts';
import { Conn, ConnFlag } from '../director/connection.ts';
import * as directors from '../director/inherit.ts';
import { SCHEDULERS } from '../director/sched/index.ts';
import { Inheritance } from '../flow/inheritance.ts';
import { Status } from '../model/entry-status.ts';
import * as translations from '../nat/inherit.ts';
import type { Engine } from './engine.ts';
import {
  type KeptSettings,
  readRules,
  readSettings,
  restoreDaemons,
  restoreRules,
  restoreSettings,
} from './kept-settings.ts';
import type { DeviceSpec, KeptReport } from './messages.ts';

/** What the columns mean: when any of this is another, so are the rows. */
export const LAYOUT =
  crc32(JSON.stringify([Conn, ConnFlag, Col, Status, Trait, SCHEDULERS.map(({ name }) => name), HELPER_NAMES])) | 0;

/** What stands in no column. */
interface Rest {
  readonly director: directors.DirectorRest;
  readonly translation: translations.TranslationRest;
  /** Translation goes on without rules (filter.ts). */
  readonly hadNat: boolean;
}

/** Of the time, a text may take this share. */
const SHARE = 20;
/** A text that took no longer than this last time is written before its change is answered, ms; no other one is longer at it without a pause. */
const AT_ONCE = 2;

interface Text {
  readonly slot: SlotName;
  readonly pieces: () => Iterable<string>;
  isDirty: boolean;
  /** What is left to do of a text that is being written. */
  steps: Steps<boolean> | null;
  /** How long it took last time, ms, and the tick before which it is not written again. */
  cost: number;
  notBefore: number;
}

export class Keeper {
  /** In their order. */
  devices: DeviceSpec[] = [];
  readonly #engine: Engine;
  readonly #keep: Keep;
  readonly #settings: Text;
  readonly #rules: Text;
  readonly #rest: Text;
  /** Told once of a text that is too long. */
  readonly #onTooLong: (slot: SlotName) => void;
  #restChanges = 0;
  #tooLong = false;

  constructor(engine: Engine, keep: Keep, onTooLong: (slot: SlotName) => void) {
    this.#engine = engine;
    this.#keep = keep;
    this.#onTooLong = onTooLong;
    const text = (slot: SlotName, pieces: () => Iterable<string>): Text => ({
      slot,
      pieces,
      isDirty: true,
      steps: null,
      cost: 0,
      notBefore: engine.stack.now,
    });
    this.#settings = text('settings', () => readSettings(engine, this.devices));
    this.#rules = text('rules', () => readRules(engine));
    this.#rest = text('side', () => {
      const director = directors.restOf(engine.director);
      const translation = translations.restOf(engine.translation);
      return [JSON.stringify({ director, translation, hadNat: engine.filter.hadNat } satisfies Rest)];
    });
  }

  /** The device is gone. */
  forget(name: string): void {
    this.devices = this.devices.filter((spec) => spec.name !== name);
  }

  /** A request has been carried out that may have changed settings, or rules. */
  settingsChanged(): void {
    this.#changed(this.#settings);
  }

  rulesChanged(): void {
    this.#changed(this.#rules);
  }

  /** Memory that is free for another attempt. */
  get end(): number {
    return this.#keep.end;
  }

  writeControl(text: string): void {
    this.#report('control', this.#keep.write('control', text));
  }

  /** Is there something that is not written yet? */
  get isBehind(): boolean {
    return [this.#rest, this.#settings, this.#rules].some(({ isDirty, steps }) => isDirty || steps !== null);
  }

  /** Once per breath: writes what is due. */
  advance(): void {
    const { now } = this.#engine.stack;
    this.#keep.tick = now;
    const { director, translation, filter } = this.#engine;
    const changes = directors.restChanges(director) + translations.restChanges(translation) + Number(filter.hadNat);
    if (changes !== this.#restChanges) {
      this.#restChanges = changes;
      this.#rest.isDirty = true;
    }
    this.#writeIfDue(this.#rest, now);
    this.#writeIfDue(this.#settings, now);
    this.#writeIfDue(this.#rules, now);
  }

  /** The tables are whole from now on. */
  begin(): void {
    this.finish();
    this.#keep.complete();
  }

  /** All of it, now: the end has come, or the beginning. */
  finish(): void {
    this.#keep.tick = this.#engine.stack.now;
    for (const text of [this.#rest, this.#settings, this.#rules]) {
      text.steps = null;
      this.#write(text, Infinity);
    }
  }

  #changed(text: Text): void {
    text.isDirty = true;
    if (text.cost <= AT_ONCE && text.steps === null) this.#write(text, AT_ONCE);
  }

  #writeIfDue(text: Text, now: number): void {
    if (text.steps !== null || (text.isDirty && ((now - text.notBefore) | 0) >= 0)) this.#write(text, AT_ONCE);
  }

  /** Begin to write it, or go on, for `ms`. */
  #write(text: Text, ms: number): void {
    const began = performance.now();
    if (text.steps === null) {
      text.isDirty = false;
      text.cost = 0;
      text.steps = this.#keep.writeInSteps(text.slot, text.pieces());
    }
    do {
      const { done, value } = text.steps.next();
      if (done !== true) continue;
      text.steps = null;
      this.#report(text.slot, value);
      break;
    } while (performance.now() - began < ms);
    text.cost += performance.now() - began;
    text.notBefore = (this.#engine.stack.now + milliseconds(text.cost * SHARE)) | 0;
  }

  #report(slot: SlotName, fits: boolean): void {
    if (fits || this.#tooLong) return;
    this.#tooLong = true;
    this.#onTooLong(slot);
  }
}

export type TakenOver = Omit<Extract<KeptReport, { adopted: true }>, 'pauseMs'>;

export interface Inherited {
  readonly notes: readonly string[];
  /** What is left to do while packets are forwarded. */
  readonly steps: Steps<TakenOver>;
}

/**
 * What the life before has left, into an engine that is new: from now on it forwards. Rows of connections and entries come as they are asked for, and in the steps. Devices go
 * first: `addDevice` makes one that works on the descriptor that was handed on.
 * @throws Error when what was left contradicts itself: then the engine is good for nothing
 */
export function inherit(engine: Engine, kept: Kept, addDevice: (spec: DeviceSpec) => boolean): Inherited {
  const notes: string[] = [];
  const settings = parse<KeptSettings>(kept, 'settings');
  const rest = parse<Rest>(kept, 'side');
  const devices: DeviceSpec[] = [];
  for (const { id: _, ...spec } of settings.devices) if (addDevice(spec)) devices.push(spec);
  restoreSettings(engine, settings);
  const { director, translation, flows, stack } = engine;
  const [conns, entries] = [directors.connectionsLeft(kept), entriesLeft(kept)];
  const tuples = conns * directors.CONNECTION_TUPLES + entries * ENTRY_TUPLES;
  const inheritance = new Inheritance(flows, Math.max(conns, entries), tuples);
  const connectionHeir = directors.inheritDirector(director, kept, settings.director, inheritance);
  const numbers = new Map(settings.devices.map(({ id, name }) => [id, stack.link.findInterface(name)?.id ?? -1]));
  const translate = translations.heirOf(translation, kept, (old) => numbers.get(old) ?? -1);
  const entryHeir = new EntryHeir(engine.conntrack.entries, kept, stack.now, inheritance, translate);
  if (rest.hadNat) engine.filter.recallNat();
  inheritance.begin(connectionHeir, entryHeir);
  translation.nat.inheritance = inheritance;
  connectionHeir.takeRelated(rest.director);
  entryHeir.takeRelated();
  translations.inheritRest(translation, kept, rest.translation, entryHeir.places);
  for (const table of restoreRules(engine, parse(kept, 'rules')))
    notes.push(`iptables: table ${table} could not be had again`);
  restoreDaemons(engine, settings.daemons);
  function* steps(): Steps<TakenOver> {
    yield* inheritance.steps();
    translation.nat.inheritance = null;
    return {
      adopted: true,
      devices,
      services: director.services.count,
      connections: connectionHeir.count,
      entries: entryHeir.count,
      dropped: connectionHeir.dropped + entryHeir.dropped,
      controlText: kept.read('control'),
    };
  }
  return { notes, steps: steps() };
}

function parse<T>(kept: Kept, slot: SlotName): T {
  const text = kept.read(slot);
  if (text === '') throw new Error(`its ${slot} are damaged`);
  return JSON.parse(text) as T;
}
