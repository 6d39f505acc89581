import { describe, expect, it } from 'vitest';
import { parseSnmp } from './counters.ts';
import { formatFloors, formatTable, median, medianRatio, type Samples, summarise } from './report.ts';

describe('median', () => {
  it('is the middle value, or the mean of the middle two', () => {
    expect(median([3, 1, 2])).toBe(2);
    expect(median([4, 1, 2, 3])).toBe(2.5);
    expect(median([])).toBeNull();
  });
});

describe('medianRatio', () => {
  it('compares within rounds, so that a drift of the machine cancels', () => {
    expect(medianRatio([10, 20, 40], [20, 40, 80])).toBe(0.5);
  });

  it('leaves out rounds in which either value is missing', () => {
    expect(medianRatio([10, null, 30], [20, 40, null])).toBe(0.5);
    expect(medianRatio([null], [1])).toBeNull();
    expect(medianRatio([1], [])).toBeNull();
  });
});

describe('summarise', () => {
  const samples: Samples = new Map([
    [
      'conn_per_s',
      new Map([
        ['nft', [100, 200, 300]],
        ['tapvs', [80, 190, 270]],
      ]),
    ],
    [
      'p50_us',
      new Map([
        ['nft', [30, 30]],
        ['tapvs', [60, 60]],
      ]),
    ],
  ]);
  const report = summarise(samples, ['nft', 'tapvs', 'haproxy']);

  it('gives medians and ratios to nft, null for what was not measured', () => {
    expect(report.figures).toEqual({
      conn_per_s: { nft: 200, tapvs: 190, haproxy: null },
      p50_us: { nft: 30, tapvs: 60, haproxy: null },
    });
    expect(report.ratios).toEqual({
      conn_per_s: { nft: 1, tapvs: 0.9, haproxy: null },
      p50_us: { nft: 1, tapvs: 2, haproxy: null },
    });
  });

  it('judges the floors, latency from the other side', () => {
    expect(formatFloors(report)).toEqual([
      'tapvs conn_per_s: 0.90 of nft, floor at least 0.9: reached',
      'tapvs p50_us: 2.00 of nft, floor at most 1.4: MISSED',
    ]);
  });

  it('prints an aligned table', () => {
    expect(formatTable(report, ['nft', 'tapvs', 'haproxy'])).toBe(
      [
        '             nft  tapvs  haproxy',
        'conn_per_s   200    190      n/a',
        '  to nft    1.00   0.90      n/a',
        'p50_us      30.0   60.0      n/a',
        '  to nft    1.00   2.00      n/a',
      ].join('\n'),
    );
  });
});

describe('direct routing and tunnels', () => {
  const samples: Samples = new Map([
    [
      'bulk1_gbps',
      new Map([
        ['nft', [20, 40]],
        ['tapvs', [10, 20]],
        ['tapvs_dr', [11, 24]],
        ['tapvs_ipip', [3, 4]],
      ]),
    ],
  ]);
  const peers = ['nft', 'tapvs', 'tapvs_dr', 'tapvs_ipip'] as const;
  const report = summarise(samples, peers);

  it('are compared with NAT on the same device, too', () => {
    expect(report.ratios_to_nat).toEqual({ bulk1_gbps: { tapvs_dr: 1.15, tapvs_ipip: 0.25 } });
    expect(formatTable(report, peers)).toBe(
      [
        '              nft  tapvs  tapvs_dr  tapvs_ipip',
        'bulk1_gbps  30.00  15.00     17.50        3.50',
        '  to nft     1.00   0.50      0.57        0.13',
        '  to NAT                      1.15        0.25',
      ].join('\n'),
    );
  });

  it('judge that DR is no worse than NAT, and say nothing of IPIP', () => {
    expect(formatFloors(report)).toEqual([
      'tapvs bulk1_gbps: 0.50 of nft, floor at least 0.5: reached',
      'tapvs_dr bulk1_gbps: 1.15 of tapvs, floor at least 1: reached',
    ]);
  });
});

describe('parseSnmp', () => {
  it('pairs names with values', () => {
    expect(parseSnmp('Ip: Forwarding InHdrErrors\nIp: 1 7\nUdp: InErrors\nUdp: 0\n')).toEqual({
      'Ip.Forwarding': 1,
      'Ip.InHdrErrors': 7,
      'Udp.InErrors': 0,
    });
  });
});
