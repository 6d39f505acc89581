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

/**
 * Whether the file says the same about the size of the tables as then, without reading it as what it is: the lines that can be about that are the same. Then the
 * data worker can be started before the configuration is known.
 */
export function hasSameLimits({ texts: [[path, before] = ['', '']] }: ControlState): boolean {
  try {
    return aboutLimits(readFileSync(path, 'utf8')) === aboutLimits(before);
  } catch {
    return false;
  }
}

function aboutLimits(text: string): string {
  return text
    .split('\n')
    .filter((line) => /limits|connections|entries|packets|spin|[&*]/.test(line))
    .join('\n');
}
