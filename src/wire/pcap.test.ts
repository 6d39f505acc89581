import { execFileSync } from 'node:child_process';
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { SeededRng } from '../base/rng.ts';
import { LinkType, pcapFaultText, pcapHeader, pcapRecord, readCapture } from './pcap.ts';

const CORPUS = new URL('../../../shared/corpus/', import.meta.url);
// The captures lie beside the checkout, not in it.
const files = existsSync(CORPUS) ? readdirSync(CORPUS).filter((name) => /\.pcap(ng)?$/.test(name)) : [];

let folder: string;
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), 'tapvs-pcap-'));
});
afterAll(() => rmSync(folder, { recursive: true }));

/** A classic file in either byte order and resolution, of two packets. */
function classic(isLittle: boolean, isNano: boolean): Uint8Array {
  const bytes = new Uint8Array(24 + 2 * 16 + 4 + 2);
  const m = new DataView(bytes.buffer);
  m.setUint32(0, isNano ? 0xa1b23c4d : 0xa1b2c3d4, isLittle);
  m.setUint16(4, 2, isLittle);
  m.setUint16(6, 4, isLittle);
  m.setUint32(16, 65535, isLittle);
  m.setUint32(20, LinkType.Raw, isLittle);
  let at = 24;
  for (const [seconds, fraction, captured, length] of [
    [1_700_000_000, 123_456, 4, 4],
    [1_700_000_001, 999_999, 2, 1500],
  ] as const) {
    m.setUint32(at, seconds, isLittle);
    m.setUint32(at + 4, fraction, isLittle);
    m.setUint32(at + 8, captured, isLittle);
    m.setUint32(at + 12, length, isLittle);
    bytes.fill(0x45, at + 16, at + 16 + captured);
    at += 16 + captured;
  }
  return bytes;
}

describe('reading', () => {
  it.each([
    [true, false],
    [true, true],
    [false, false],
    [false, true],
  ])('classic files: little-endian %s, nanoseconds %s', (isLittle, isNano) => {
    const { frames, fault } = readCapture(classic(isLittle, isNano));
    expect(fault).toBeNull();
    const unit = isNano ? 1 : 1000;
    expect(frames).toEqual([
      {
        seconds: 1_700_000_000,
        nanoseconds: 123_456 * unit,
        length: 4,
        bytes: new Uint8Array([0x45, 0x45, 0x45, 0x45]),
        linkType: LinkType.Raw,
        comment: '',
      },
      expect.objectContaining({ nanoseconds: 999_999 * unit, length: 1500, bytes: new Uint8Array([0x45, 0x45]) }),
    ]);
  });

  it.each(files)('%s holds what tcpdump finds in it', (name) => {
    const path = new URL(name, CORPUS).pathname;
    const { frames } = readCapture(readFileSync(path));
    // tcpdump copies what it can read, in the classic format, and complains about the rest.
    const copy = join(folder, 'copy.pcap');
    try {
      execFileSync('tcpdump', ['-r', path, '-w', copy], { stdio: 'ignore' });
    } catch {
      // Some end in the middle of a packet: what came before has been written.
    }
    const theirs = readCapture(readFileSync(copy)).frames;
    expect(frames.map((f) => [f.seconds, Math.trunc(f.nanoseconds / 1000), f.bytes, f.linkType])).toEqual(
      theirs.map((f) => [f.seconds, Math.trunc(f.nanoseconds / 1000), f.bytes, f.linkType]),
    );
  });

  it('ends at what makes no sense, with a fault, and never throws', () => {
    expect(readCapture(new Uint8Array(0))).toEqual({ frames: [], fault: 'NotACapture' });
    expect(readCapture(new TextEncoder().encode('no capture at all'))).toEqual({ frames: [], fault: 'NotACapture' });
    const whole = classic(true, false);
    expect(readCapture(whole.slice(0, 20)).fault).toBe('TruncatedHeader');
    expect(readCapture(whole.slice(0, 30)).fault).toBe('TruncatedHeader');
    expect(readCapture(whole.slice(0, 42))).toMatchObject({ frames: [], fault: 'TruncatedPacket' });
    expect(readCapture(whole.slice(0, 50))).toMatchObject({ frames: [{ length: 4 }], fault: 'TruncatedHeader' });
    const wild = whole.slice();
    new DataView(wild.buffer).setUint32(32, 0xffffffff, true);
    expect(readCapture(wild)).toMatchObject({ frames: [], fault: 'BadLength' });
    wild[4] = 9;
    expect(readCapture(wild).fault).toBe('UnknownVersion');
  });

  it.skipIf(files.length === 0)('survives any damage to the files of the corpus', () => {
    const rng = new SeededRng(5);
    let faults = 0;
    for (const name of files) {
      const whole = readFileSync(new URL(name, CORPUS));
      for (let round = 0; round < 200; round++) {
        const damaged = Uint8Array.from(whole.subarray(0, 1 + ((rng.next() >>> 0) % whole.length)));
        for (let n = (rng.next() >>> 0) % 8; n > 0; n--) {
          // Half of the damage to the headers, where it hurts.
          const reach = (n & 1) === 0 ? damaged.length : Math.min(damaged.length, 64);
          damaged[(rng.next() >>> 0) % reach] = rng.next() & 0xff;
        }
        const { frames, fault } = readCapture(damaged);
        if (fault !== null) {
          faults++;
          expect(pcapFaultText[fault]).toBeTruthy();
        }
        for (const frame of frames) expect(frame.bytes.length).toBeLessThanOrEqual(damaged.length);
      }
    }
    expect(faults).toBeGreaterThan(1000);
  });
});

describe('writing', () => {
  it('makes files that tcpdump reads, with the time in microseconds', () => {
    const bytes = new Uint8Array(60).fill(0xff);
    bytes[12] = 8;
    bytes[13] = 6;
    const path = join(folder, 'written.pcap');
    writeFileSync(path, Buffer.concat([pcapHeader(LinkType.Ethernet), pcapRecord(1_700_000_000_123_456, bytes, 1500)]));
    const said = execFileSync('tcpdump', ['-tt', '-e', '-n', '-r', path], {
      stdio: ['ignore', 'pipe', 'ignore'],
    }).toString();
    expect(said).toMatch(
      /^1700000000\.123456 ff:ff:ff:ff:ff:ff > ff:ff:ff:ff:ff:ff, ethertype ARP \(0x0806\), length 1500:/,
    );
  });

  it('is read back as it was written', () => {
    const bytes = new Uint8Array([1, 2, 3]);
    const file = Buffer.concat([pcapHeader(LinkType.Raw, 96), pcapRecord(5_000_007, bytes, 40)]);
    expect(readCapture(file)).toEqual({
      frames: [
        { seconds: 5, nanoseconds: 7000, length: 40, bytes: Buffer.from(bytes), linkType: LinkType.Raw, comment: '' },
      ],
      fault: null,
    });
  });
});
