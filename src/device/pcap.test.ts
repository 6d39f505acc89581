import { existsSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { describe, expect, it } from 'vitest';
import { Burst } from '../packet/burst.ts';
import { DROP_COUNT, Drop } from '../packet/drop.ts';
import { PacketPool } from '../packet/pool.ts';
import { LinkType, pcapHeader, pcapRecord, readCapture } from '../wire/pcap.ts';
import { frameOf, packetOf, testFrame } from './conformance.ts';
import { corpusFrames } from './corpus.ts';
import { Medium } from './device.ts';
import { mediumOf, PcapDevice, pcapFile } from './pcap.ts';

const CORPUS = fileURLToPath(new URL('../../../shared/corpus/', import.meta.url));

function captureOf(linkType: number, frames: readonly Uint8Array[]) {
  return readCapture(Buffer.concat([pcapHeader(linkType), ...frames.map((f) => pcapRecord(0, f, f.length))]));
}

describe('replay', () => {
  it.each([
    ['Ethernet', LinkType.Ethernet, Medium.Ethernet],
    ['IP without a link header', LinkType.Raw, Medium.Ip],
  ])('of %s gives out the frames in bursts and ends', (_, linkType, medium) => {
    const frames = Array.from({ length: 100 }, (_unused, i) => testFrame(medium, i));
    const pool = new PacketPool(70);
    const device = new PcapDevice(pool, {
      name: 'file',
      replay: captureOf(linkType, frames),
      record: null,
      nowUs: () => 0,
    });
    expect(device.medium).toBe(medium);
    const burst = new Burst();
    const seen: Uint8Array[] = [];
    while (!device.isAtEnd) {
      expect(device.receive(burst)).toBeGreaterThan(0);
      for (let i = 0; i < burst.count; i++) {
        seen.push(frameOf(device, burst.packets[i]!));
        pool.free(burst.packets[i]!);
      }
      burst.clear();
    }
    expect(seen).toEqual(frames);
    expect(device.receive(burst)).toBe(0);
    expect(device.stats.rxPackets).toBe(100);
    device.close();
    expect(pool.available).toBe(70);
  });

  it('waits while the pool is empty', () => {
    const frames = [0, 1, 2].map((i) => testFrame(Medium.Ethernet, i));
    const pool = new PacketPool(2);
    const device = new PcapDevice(pool, { name: 'file', replay: captureOf(1, frames), record: null, nowUs: () => 0 });
    const burst = new Burst();
    expect(device.receive(burst)).toBe(2);
    expect(device.isAtEnd).toBe(false);
    pool.free(burst.packets[0]!);
    burst.clear();
    expect(device.receive(burst)).toBe(1);
    expect(frameOf(device, burst.packets[0]!)).toEqual(frames[2]);
  });

  it('counts frames of another medium, and those too long for a slot', () => {
    const drops = new Float64Array(DROP_COUNT);
    const pool = new PacketPool(4);
    const capture = captureOf(LinkType.Ethernet, [new Uint8Array(70_000)]);
    const odd = captureOf(LinkType.LinuxCooked, [new Uint8Array(60)]);
    const replay = { frames: [...capture.frames, ...odd.frames], fault: null };
    const device = new PcapDevice(pool, { name: 'file', replay, record: null, drops, nowUs: () => 0 });
    expect(device.receive(new Burst())).toBe(0);
    expect([drops[Drop.FrameTruncated], drops[Drop.EtherTypeUnknown], device.stats.rxDropped]).toEqual([1, 1, 2]);
    expect(device.isAtEnd).toBe(true);
  });

  it('tells why a damaged file ended', () => {
    const replay = readCapture(Buffer.concat([pcapHeader(1), new Uint8Array(5)]));
    const device = new PcapDevice(new PacketPool(1), { name: 'file', replay, record: null, nowUs: () => 0 });
    expect(device.fault).toBe('TruncatedHeader');
    expect(device.isAtEnd).toBe(true);
  });
});

describe('recording', () => {
  it('writes a file, frames with their checksums complete', () => {
    const folder = mkdtempSync(join(tmpdir(), 'tapvs-record-'));
    try {
      const path = join(folder, 'out.pcap');
      const pool = new PacketPool(8);
      let us = 1_000_000;
      const device = new PcapDevice(pool, { name: 'file', replay: null, record: pcapFile(path), nowUs: () => us++ });
      const burst = new Burst();
      const frames = [0, 1].map((i) => testFrame(Medium.Ethernet, i));
      for (const frame of frames) burst.push(packetOf(pool, device, frame));
      const superPacket = packetOf(pool, device, testFrame(Medium.Ethernet, 2, 4000));
      superPacket.gsoType = 5;
      superPacket.gsoSize = 1000;
      superPacket.csumPartial = 1;
      burst.push(superPacket);
      device.transmit(burst);
      device.close();
      const { frames: read, fault } = readCapture(readFileSync(path));
      expect(fault).toBeNull();
      expect(read.map((f) => Uint8Array.from(f.bytes))).toEqual(frames);
      expect(read.map((f) => [f.seconds, f.nanoseconds])).toEqual([
        [1, 0],
        [1, 1000],
      ]);
      // It said that it takes no offloads, so a super-packet is refused.
      expect(device.stats).toMatchObject({ txPackets: 2, txErrors: 1 });
      expect(pool.available).toBe(8);
    } finally {
      rmSync(folder, { recursive: true });
    }
  });
});

describe.skipIf(!existsSync(CORPUS))('the corpus', () => {
  it('yields frames of every file that holds any, with names', () => {
    const all = [...corpusFrames(CORPUS)];
    expect(all.length).toBeGreaterThan(100);
    expect(new Set(all.map((f) => f.name)).size).toBe(all.length);
    expect(all.filter((f) => f.medium === Medium.Ethernet).length).toBeGreaterThan(50);
    expect(all.every((f) => f.medium === mediumOf(f.linkType))).toBe(true);
    expect(all.some((f) => f.name.startsWith('rsvp-inf-loop-2.pcapng#1'))).toBe(true);
  });
});
