/** From the samples of all rounds to medians, ratios, the JSON document and the table. */
import { FIGURES, type Figure } from './figures.ts';
import type { PeerName } from './peers.ts';

/** figure → peer → one value per round; null where a peer has no such figure or a measurement failed. */
export type Samples = Map<string, Map<PeerName, (number | null)[]>>;

/** Median; the mean of the middle two for an even count; null for none. */
export function median(values: readonly number[]): number | null {
  if (values.length === 0) return null;
  const sorted = [...values].sort((a, b) => a - b);
  const upper = sorted[sorted.length >> 1]!;
  return sorted.length % 2 === 1 ? upper : (upper + sorted[(sorted.length >> 1) - 1]!) / 2;
}

const present = (values: readonly (number | null)[]): number[] => values.filter((value) => value !== null);

/**
 * Median over the rounds of (peer / base) within a round. The machine drifts by a factor of two within minutes, so the two
 * values that are compared must have been measured side by side.
 */
export function medianRatio(peer: readonly (number | null)[], base: readonly (number | null)[]): number | null {
  const ratios: number[] = [];
  for (const [round, value] of peer.entries()) {
    const reference = base[round];
    if (value !== null && reference !== null && reference !== undefined && reference > 0)
      ratios.push(value / reference);
  }
  return median(ratios);
}

export interface Report {
  readonly figures: Record<string, Record<string, number | null>>;
  /** figure → peer → ratio to nft. */
  readonly ratios: Record<string, Record<string, number | null>>;
  /** figure → peer → ratio of DR, IPIP, and NAT with tracking or rules to plain NAT on the same kind of device. */
  readonly ratios_to_nat: Record<string, Record<string, number | null>>;
}

/** What the other tapvs lanes are compared with. */
const NAT_OF: Partial<Record<PeerName, PeerName>> = {
  tapvs_dr: 'tapvs',
  tapvs_ipip: 'tapvs',
  tapvs_ct: 'tapvs',
  tapvs_rules: 'tapvs',
  tapvs_packet_dr: 'tapvs_packet',
  tapvs_packet_ipip: 'tapvs_packet',
  tapvs_packet_ct: 'tapvs_packet',
  tapvs_packet_rules: 'tapvs_packet',
};

export function summarise(samples: Samples, peers: readonly PeerName[]): Report {
  const figures: Report['figures'] = {};
  const ratios: Report['ratios'] = {};
  const toNat: Report['ratios_to_nat'] = {};
  for (const { name } of FIGURES) {
    const byPeer = samples.get(name);
    if (byPeer === undefined) continue;
    const values: Record<string, number | null> = {};
    const relative: Record<string, number | null> = {};
    const relativeToNat: Record<string, number | null> = {};
    for (const peer of peers) {
      const own = byPeer.get(peer) ?? [];
      values[peer] = rounded(median(present(own)), 4);
      relative[peer] = rounded(medianRatio(own, byPeer.get('nft') ?? []), 3);
      const nat = NAT_OF[peer];
      if (nat !== undefined) relativeToNat[peer] = rounded(medianRatio(own, byPeer.get(nat) ?? []), 3);
    }
    figures[name] = values;
    if (peers.includes('nft') && Object.values(relative).some((value) => value !== null)) ratios[name] = relative;
    if (Object.values(relativeToNat).some((value) => value !== null)) toNat[name] = relativeToNat;
  }
  return { figures, ratios, ratios_to_nat: toNat };
}

function rounded(value: number | null, digits: number): number | null {
  return value === null ? null : Number(value.toFixed(digits));
}

/** The aligned table: per figure the medians, and below them the ratios to nft and, of the other lanes of tapvs, to its plain NAT. */
export function formatTable(report: Report, peers: readonly PeerName[]): string {
  const rows: string[][] = [['', ...peers]];
  for (const figure of FIGURES) {
    const values = report.figures[figure.name];
    if (values === undefined) continue;
    rows.push([figure.name, ...peers.map((peer) => cell(values[peer] ?? null, figure.digits))]);
    const ratios = report.ratios[figure.name];
    if (ratios !== undefined) rows.push(['  to nft', ...peers.map((peer) => cell(ratios[peer] ?? null, 2))]);
    const toNat = report.ratios_to_nat[figure.name];
    if (toNat === undefined) continue;
    rows.push(['  to NAT', ...peers.map((peer) => (peer in NAT_OF ? cell(toNat[peer] ?? null, 2) : ''))]);
  }
  const widths = rows[0]!.map((_, column) => Math.max(...rows.map((row) => row[column]!.length)));
  return rows
    .map((row) =>
      row
        .map((text, i) => (i === 0 ? text.padEnd(widths[0]!) : text.padStart(widths[i]!)))
        .join('  ')
        .trimEnd(),
    )
    .join('\n');
}

function cell(value: number | null, digits: number): string {
  return value === null ? 'n/a' : value.toFixed(digits);
}

/** Direct routing does less than NAT does, so these may not be worse. */
const NO_WORSE_THAN_NAT = ['bulk1_gbps', 'bulk4_gbps', 'conn_per_s'];

/** One line per floor that this run can judge: those to nft, and those of DR to NAT. */
export function formatFloors(report: Report): string[] {
  const lines: string[] = [];
  for (const figure of FIGURES) {
    if (figure.floor === null) continue;
    for (const peer of ['tapvs', 'tapvs_packet'] as const) {
      const ratio = report.ratios[figure.name]?.[peer];
      if (ratio === null || ratio === undefined) continue;
      lines.push(`${peer} ${figure.name}: ${judged(figure, ratio, figure.floor[peer], 'nft')}`);
    }
  }
  for (const name of NO_WORSE_THAN_NAT) {
    const figure = FIGURES.find((one) => one.name === name)!;
    for (const peer of ['tapvs_dr', 'tapvs_packet_dr'] as const) {
      const ratio = report.ratios_to_nat[name]?.[peer];
      if (ratio === null || ratio === undefined) continue;
      lines.push(`${peer} ${name}: ${judged(figure, ratio, 1, NAT_OF[peer]!)}`);
    }
  }
  return lines;
}

function judged(figure: Figure, ratio: number, floor: number, base: string): string {
  const isReached = figure.lowerIsBetter ? ratio <= floor : ratio >= floor;
  const bound = figure.lowerIsBetter ? 'at most' : 'at least';
  return `${ratio.toFixed(2)} of ${base}, floor ${bound} ${floor}: ${isReached ? 'reached' : 'MISSED'}`;
}
