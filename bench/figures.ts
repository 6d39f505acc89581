/**
 * The figures: what each one is called, which load produces it, which direction is better, and the floor that issue 2 sets
 * for tapvs as a ratio to nftables DNAT in the same run.
 */

export type Load = 'bulk1' | 'bulk4' | 'conn' | 'req' | 'lat' | 'udp';

export interface Figure {
  readonly name: string;
  readonly load: Load;
  readonly what: string;
  readonly lowerIsBetter: boolean;
  /** Digits after the point in the table. */
  readonly digits: number;
  /** The ratio to nft that tapvs must reach on TAPs and on packet devices; null: none is set. */
  readonly floor: { readonly tapvs: number; readonly tapvs_packet: number } | null;
}

const figure = (
  name: string,
  load: Load,
  what: string,
  digits: number,
  floors: readonly [number, number] | null,
  lowerIsBetter = false,
): Figure => ({
  name,
  load,
  what,
  digits,
  lowerIsBetter,
  floor: floors === null ? null : { tapvs: floors[0], tapvs_packet: floors[1] },
});

export const FIGURES: readonly Figure[] = [
  figure('bulk1_gbps', 'bulk1', 'bulk TCP, 1 stream, Gbit/s', 2, [0.5, 0.65]),
  figure('bulk4_gbps', 'bulk4', 'bulk TCP, 4 streams, Gbit/s', 2, [0.5, 0.65]),
  figure('conn_per_s', 'conn', 'new connections/s', 0, [0.9, 1.3]),
  figure('req_per_s', 'req', 'requests/s, 64 kept-alive connections', 0, [0.85, 1.1]),
  figure('p50_us', 'lat', 'latency of one connection, median, µs', 1, [1.4, 1.2], true),
  figure('p99_us', 'lat', 'latency of one connection, 99th percentile, µs', 1, null, true),
  figure('udp_pps', 'udp', 'small UDP packets/s, none lost', 0, [0.9, 1.0]),
  figure('cpu_s_per_gb', 'bulk1', "balancer's CPU seconds per GB", 3, null, true),
  figure('cpu_s_per_100k_conn', 'conn', "balancer's CPU seconds per 100,000 connections", 2, null, true),
];

/** The loads, in the order in which a round runs them. */
export const LOADS: readonly Load[] = ['bulk1', 'bulk4', 'conn', 'req', 'lat', 'udp'];

/** benchload's arguments for a load, without targets and durations. */
export const LOAD_ARGUMENTS: Readonly<Record<Load, readonly string[]>> = {
  bulk1: ['bulk', '--n', '1'],
  bulk4: ['bulk', '--n', '4'],
  conn: ['conn', '--n', '64'],
  req: ['req', '--n', '64'],
  lat: ['lat'],
  udp: ['udp', '--window', '1024'],
};
