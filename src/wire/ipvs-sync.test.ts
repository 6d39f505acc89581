/** Against what Linux 6.1 sent (golden/sync), byte for byte both ways; and against anything at all, without reading past its end. */
import { readFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { SeededRng } from '../base/rng.ts';
import { formatIp4, ip4 } from './addr.ts';
import {
  appendRecord,
  emitHeader,
  isVersion1,
  messageSize,
  recordLength,
  SyncFault,
  SyncFlag,
  SyncReader,
  SyncRecord,
  syncId,
} from './ipvs-sync.ts';

const GOLDEN = readFileSync(new URL('../../golden/sync/linux-6.1-master.txt', import.meta.url), 'utf8');

/** Messages of a step: what follows IP and UDP header. */
function messages(step: string): Uint8Array[] {
  return GOLDEN.split('\n')
    .filter((line) => line.startsWith(`${step} `))
    .map((line) => new Uint8Array(Buffer.from(line.split(' ')[3]!, 'hex').subarray(28)));
}

function viewOf(bytes: Uint8Array): DataView {
  return new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
}

/** A message with room before and behind it, so that a read outside is a read of something else. */
function read(bytes: Uint8Array): { fault: number; records: string[] }[] {
  const reader = new SyncReader();
  reader.open(viewOf(bytes), 0, bytes.length);
  const results: { fault: number; records: string[] }[] = [];
  while (!reader.isAtEnd) results.push({ fault: reader.next(), records: [describeRecord(reader.record)] });
  return results;
}

function describeRecord(r: SyncRecord): string {
  const client = `${formatIp4(r.cip)}:${r.cport}`;
  return `${r.protocol} ${r.flags.toString(16)} ${r.state} ${client} ${formatIp4(r.vip)}:${r.vport} ${formatIp4(r.rip)}:${r.dport} ${r.timeout}`;
}

function copy(bytes: Uint8Array): Uint8Array {
  const version = isVersion1(viewOf(bytes), 0, bytes.length) ? 1 : 0;
  const out = new Uint8Array(bytes.length).fill(0xee);
  const reader = new SyncReader();
  reader.open(viewOf(bytes), 0, bytes.length);
  let length = emitHeader(viewOf(out), 0, version, syncId(viewOf(bytes), 0));
  while (!reader.isAtEnd) {
    expect(reader.next()).toBe(SyncFault.None);
    length = appendRecord(viewOf(out), 0, length, version, reader.record);
  }
  expect(length).toBe(bytes.length);
  return out;
}

describe('synchronisation messages', () => {
  it('are read as the kernel meant them', () => {
    const [message] = messages('held-dr');
    expect([syncId(viewOf(message!), 0), messageSize(viewOf(message!), 0)]).toEqual([5, 44]);
    expect(read(message!)).toEqual([{ fault: 0, records: ['6 83 1 10.0.1.2:20001 10.0.1.100:80 10.0.2.12:80 900'] }]);
    expect(read(messages('persistent')[0]!).map((r) => r.records[0])).toEqual([
      '6 1100 0 10.0.1.2:0 10.0.1.100:443 10.0.2.11:443 60',
      '6 1100 1 10.0.1.2:0 10.0.1.100:443 10.0.2.11:443 60',
      '6 0 1 10.0.1.2:20002 10.0.1.100:443 10.0.2.11:443 900',
      ...Array.from({ length: 4 }, () => '6 1100 1 10.0.1.2:0 10.0.1.100:443 10.0.2.11:443 60'),
    ]);
  });

  it('are written as the kernel writes them, in both versions', () => {
    const steps = ['held-dr', 'persistent', 'udp', 'five-closed', 'close-and-reset', 'version-0', 'refresh'];
    const all = steps.flatMap(messages);
    expect(all).toHaveLength(10);
    for (const bytes of all) expect(copy(bytes)).toEqual(bytes);
  });

  it('carry sequences, a persistence engine and the life that is left, padded to 4', () => {
    const record = new SyncRecord();
    Object.assign(record, {
      protocol: 17,
      flags: SyncFlag.Template,
      cip: ip4('10.0.1.2'),
      vip: 7,
      rip: -1,
      fwmark: -2,
    });
    record.sequences.set([1, 2, 3, -4, 5, 6]);
    record.hasSequences = 1;
    record.peData.set([...'call-1'].map((c) => c.charCodeAt(0)));
    record.peDataLength = 6;
    record.peName.set([115, 105, 112]);
    record.peNameLength = 3;
    record.lifeLeft = 77;
    const bytes = new Uint8Array(256).fill(0xee);
    let length = emitHeader(viewOf(bytes), 0, 1, 9);
    length = appendRecord(viewOf(bytes), 0, length, 1, record);
    expect(length).toBe(8 + recordLength(record, 1));
    expect(length & 3).not.toBe(0);
    length = appendRecord(viewOf(bytes), 0, length, 1, record);
    const reader = new SyncReader();
    reader.open(viewOf(bytes), 0, length);
    for (let i = 0; i < 2; i++) {
      expect(reader.next()).toBe(SyncFault.None);
      const r = reader.record;
      expect([...r.sequences, r.fwmark, r.lifeLeft]).toEqual([1, 2, 3, -4, 5, 6, -2, 77]);
      expect(Buffer.from(r.peData.subarray(0, r.peDataLength)).toString()).toBe('call-1');
      expect(Buffer.from(r.peName.subarray(0, r.peNameLength)).toString()).toBe('sip');
    }
    expect(reader.isAtEnd).toBe(true);
  });

  it('with something wrong end there, or lose one record, as the kernel has it', () => {
    const [sound] = messages('five-closed');
    const broken = (change: (m: DataView) => void) => {
      const bytes = sound!.slice();
      change(viewOf(bytes));
      return read(bytes).map((r) => r.fault);
    };
    const { Bad, Skip, None } = SyncFault;
    const rest = Array.from({ length: 8 }, () => None);
    expect(broken((m) => m.setUint16(8 + 36 + 2, 35))).toEqual([None, Bad]); // shorter than a record
    expect(broken((m) => m.setUint16(8 + 36 + 2, 0x1024))).toEqual([None, Bad]); // another version
    expect(broken((m) => m.setUint16(8 + 36 + 2, 4000))).toEqual([None, Bad]); // beyond the message
    expect(broken((m) => m.setUint8(8 + 36, 2))).toEqual([None, Bad]); // another type
    expect(broken((m) => m.setUint8(8 + 36, 1))).toEqual([None, Bad]); // IPv6, but too short for it
    expect(broken((m) => m.setUint8(4, 11))).toEqual([None, None, ...rest, Bad]); // one more than there are
    const withOption = (...option: number[]) =>
      broken((m) => {
        m.setUint16(8 + 2, 36 + option.length);
        for (const [i, byte] of option.entries()) m.setUint8(8 + 36 + i, byte);
        m.setUint8(4, 1);
      });
    expect(withOption(9, 2, 0, 0)).toEqual([Skip]); // unknown
    expect(withOption(9 | 0x40, 2, 0, 0)).toEqual([None]); // unknown, and optional
    expect(withOption(1, 2, 0, 0)).toEqual([Bad]); // sequences of another length
    expect(withOption(3, 3, 0, 0)).toEqual([Bad]); // longer than its record
    expect(withOption(3, 0)).toEqual([Bad]); // empty
    expect(withOption(3)).toEqual([Bad]); // no length
    expect(withOption(3, 1, 65, 3, 1, 65)).toEqual([Bad]); // twice
  });

  it('of any bytes whatever are read without a fault of ours', () => {
    const rng = new SeededRng(8848);
    const random = (n: number) => (rng.next() >>> 0) % n;
    const sound = ['persistent', 'five-closed', 'version-0'].flatMap(messages);
    let faults = 0;
    for (let i = 0; i < 20_000; i++) {
      const bytes = i % 2 === 0 ? new Uint8Array(4 + random(200)) : sound[random(sound.length)]!.slice();
      if (i % 2 === 0) for (let b = 0; b < bytes.length; b++) bytes[b] = random(256);
      else for (let n = random(8); n >= 0; n--) bytes[random(bytes.length)] = random(256);
      if (i % 4 === 0 && bytes.length >= 8) bytes.set([0, 0, 0, bytes.length, 5, 1, 0, 0]);
      const cut = bytes.subarray(0, 4 + random(bytes.length - 3));
      for (const { fault } of read(cut)) if (fault !== SyncFault.None) faults++;
    }
    expect(faults).toBeGreaterThan(1000);
  });
});
