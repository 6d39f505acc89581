/**
 * The dimension of a block index (block-index.ts) that depends on the world: which of its rules a device leaves over by the names in -i or -o.   @hot
 *
 * A program does not know devices, and several may use one index. So each walk has these bits for itself, made when the first packet of a device comes, and made
 * anew when devices come or go.
 */
import { type DeviceHint, setBit } from './block-index.ts';

/** Does the pattern with this name fit the device? */
export type FitsDevice = (pattern: string, device: number) => boolean;

/** Devices are told apart by this many ids; the first column is "none". */
export const DEVICE_COLUMNS = 257;

const COLUMNS = DEVICE_COLUMNS;

export class DeviceBits {
  /** Rows as those of a Dimension: `words` ints, and which of them are not 0. */
  bits: Int32Array;
  readonly #hints: readonly (DeviceHint | null)[];
  readonly #words: number;
  readonly #fits: FitsDevice;
  /** By device + 1: where its bits are in `bits`, + 1; 0: not made yet. */
  readonly #places = new Int32Array(COLUMNS);
  #used = 0;

  // cold: making
  constructor(hints: readonly (DeviceHint | null)[], words: number, fits: FitsDevice) {
    this.#hints = hints;
    this.#words = words;
    this.#fits = fits;
    this.bits = new Int32Array(2 * (words + 1));
  }

  /** Devices came or went. */
  forget(): void {
    this.#places.fill(0);
    this.#used = 0;
  }
  // hot again

  /** Where in `bits` those of the device are. @param device NONE where the hook has none */
  of(device: number): number {
    const place = this.#places[device + 1]!;
    return place !== 0 ? place - 1 : this.#make(device);
  }

  // cold: once per device
  #make(device: number): number {
    const words = this.#words;
    const place = this.#used;
    this.#used += words + 1;
    if (this.#used > this.bits.length) {
      const grown = new Int32Array(2 * this.bits.length);
      grown.set(this.bits);
      this.bits = grown;
    }
    this.bits.fill(0, place, this.#used);
    const known = new Map<string, boolean>();
    for (const [rule, hint] of this.#hints.entries()) {
      if (hint !== null) {
        const { pattern, isInverted } = hint;
        let fits = known.get(pattern);
        if (fits === undefined) {
          fits = this.#fits(pattern, device);
          known.set(pattern, fits);
        }
        if (fits === isInverted) continue;
      }
      setBit(this.bits, place, words, rule);
    }
    this.#places[device + 1] = place + 1;
    return place;
  }
  // hot again
}
