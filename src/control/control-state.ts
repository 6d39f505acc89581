/** What the main thread of one life tells that of the next: a text beside the tables. From its texts the next life knows what this one's configuration was. */
import { readFileSync } from 'node:fs';
import type { Config } from './config.ts';

const VERSION = 1;

export interface ControlState {
  readonly version: typeof VERSION;
  /** The configuration's files as they were read, path and text; the first is the configuration file. */
  readonly texts: readonly (readonly [path: string, text: string])[];
  readonly limits: Config['limits'];
  readonly spin: number;
  readonly generation: number;
  /** What sysctls were before the file set them. */
  readonly sysctlsBefore: readonly (readonly [key: string, value: string])[];
}

export function writeControlState(state: Omit<ControlState, 'version'>): string {
  return JSON.stringify({ version: VERSION, ...state });
}

/** Null when it is not what this version writes. */
export function readControlState(text: string): ControlState | null {
  try {
    const state = JSON.parse(text) as ControlState;
    return state.version === VERSION && state.texts.length > 0 ? state : null;
  } catch {
    return null;
  }
}

/** Whether the files say what they said then: so the configuration is the same, and need not be read to know it. */
export function isUnchanged({ texts }: ControlState): boolean {
  try {
    return texts.every(([path, text]) => readFileSync(path, 'utf8') === text);
  } catch {
    return false;
  }
}
