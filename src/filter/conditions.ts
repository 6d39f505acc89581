/** What rules may ask of the world besides the packet; the engine gives it. */
import type { Rng } from '../base/rng.ts';
import type { Routing } from '../hooks/routing.ts';

export interface Conditions {
  readonly routing: Routing;
  readonly rng: Rng;
  /** Name of a device, '' for none. */
  deviceName(id: number): string;
}
