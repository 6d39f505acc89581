import { execFileSync } from 'node:child_process';
import { describe, expect, it } from 'vitest';
import type { CaptureRecord } from '../engine/messages.ts';
import { PcapngStream } from './pcapng.ts';

/** 10.0.0.1 → 10.0.0.2, UDP 1000 → 2000, no data. */
const PACKET = '4500001c00010000401166ce0a0000010a00000203e807d00008e015';
const FRAME = `0200000000020200000000010800${PACKET}`;

const record = (more: Partial<CaptureRecord>): CaptureRecord => ({
  captureId: 1,
  timeUs: 1_700_000_000_123_456,
  device: 'front',
  direction: 'in',
  medium: 'ethernet',
  length: 42,
  bytes: Buffer.from(FRAME, 'hex'),
  comment: '',
  ...more,
});

function readWithTcpdump(isMixed: boolean, ...packets: CaptureRecord[]): string[] {
  const one = new PcapngStream({ snapLength: 262_144, isMixed });
  const input = Buffer.concat([one.start('tapvs 0'), ...packets.map((packet) => one.packet(packet))]);
  const stdout = execFileSync('tcpdump', ['-nttr', '-'], { input, stdio: ['pipe', 'pipe', 'ignore'] });
  return stdout.toString().trim().split('\n');
}

describe('a capture file', () => {
  const stream = new PcapngStream({ snapLength: 262_144, isMixed: false });
  const file = Buffer.concat([
    stream.start('tapvs 0'),
    stream.packet(record({ comment: 'to 10.0.2.11:80 by wrr' })),
    stream.packet(
      record({ device: 'host', medium: 'ip', bytes: Buffer.from(PACKET, 'hex'), length: 28, direction: 'out' }),
    ),
    stream.packet(record({ bytes: Buffer.from(FRAME, 'hex').subarray(0, 41), timeUs: 1_700_000_001_000_001 })),
  ]);

  it('is read by tcpdump, with its times, link types and cut packets', () => {
    expect(
      readWithTcpdump(
        false,
        record({}),
        record({ timeUs: 1_700_000_001_000_001, bytes: Buffer.from(FRAME, 'hex').subarray(0, 41) }),
      ),
    ).toEqual([
      '1700000000.123456 IP 10.0.0.1.1000 > 10.0.0.2.2000: UDP, length 0',
      '1700000001.000001 IP 10.0.0.1.1000 > 10.0.0.2.2000:  [|udp]',
    ]);
    const bare = record({ device: 'host', medium: 'ip', bytes: Buffer.from(PACKET, 'hex'), length: 28 });
    expect(readWithTcpdump(false, bare)).toEqual(['1700000000.123456 IP 10.0.0.1.1000 > 10.0.0.2.2000: UDP, length 0']);
  });

  it('is read by tcpdump when Ethernet and bare IP are in one stream', () => {
    const bare = record({ device: 'host', medium: 'ip', bytes: Buffer.from(PACKET, 'hex'), length: 28 });
    const line = '1700000000.123456 IP 10.0.0.1.1000 > 10.0.0.2.2000: UDP, length 0';
    expect(readWithTcpdump(true, record({}), bare)).toEqual([line, line]);
  });

  it('consists of blocks that end as they began, of whole words', () => {
    const types: number[] = [];
    for (let at = 0; at < file.length; ) {
      const length = file.readUInt32LE(at + 4);
      expect(length % 4).toBe(0);
      expect(file.readUInt32LE(at + length - 4)).toBe(length);
      types.push(file.readUInt32LE(at));
      at += length;
    }
    expect(types).toEqual([0x0a0d0d0a, 1, 6, 1, 6, 6]);
  });

  it('says the interface, direction and verdict of each packet', () => {
    const text = file.toString('latin1');
    expect(text).toContain('front\0');
    expect(text).toContain('host');
    expect(text).toContain('to 10.0.2.11:80 by wrr');
  });
});
