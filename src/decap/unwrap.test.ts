/** Every way in which a tunnel packet can be right or wrong, as bytes. */
import { describe, expect, it } from 'vitest';
import { frame, verifyFrame } from '../wire/build.ts';
import { fold, sumBytes } from '../wire/checksum.ts';
import * as gre from '../wire/gre.ts';
import * as gue from '../wire/gue.ts';
import { fillChecksum } from '../wire/ipv4.ts';
import { unwrap } from './unwrap.ts';

const inner = () => frame().ipv4('10.0.1.2', '10.0.1.100').udp({ srcPort: 7, dstPort: 53 }).payload('odd').build();
const view = (bytes: Uint8Array) => new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);

/** `header` bytes, written by `emit`, then the inner packet. */
function wrapped(header: number, emit: (m: DataView) => void, payload = inner()): Uint8Array {
  const bytes = new Uint8Array(header + payload.length);
  bytes.set(payload, header);
  emit(view(bytes));
  return bytes;
}

function greWithChecksum(): Uint8Array {
  return wrapped(gre.GRE_HEADER_CSUM, (m) => {
    gre.emit(m, 0, true);
    gre.setChecksum(m, 0, ~sumBytes(m, 0, m.byteLength) & 0xffff);
  });
}

/** The inner UDP checksum is left open, as a sender leaves it to remote checksum offload. */
function gueWithRemcsum(): Uint8Array {
  const payload = inner();
  const m = view(payload);
  const length = payload.length - 20;
  m.setUint16(26, fold(sumBytes(m, 12, 8) + 17 + length));
  return wrapped(gue.GUE_HEADER_REMCSUM, (h) => gue.emitRemcsum(h, 0, 20, 26), payload);
}

describe('what comes out of a tunnel packet', () => {
  it('is the inner packet, padding cut off, for each type', () => {
    const whole = inner();
    const padded = new Uint8Array([...whole, 0, 0, 0]);
    expect(unwrap('ipip', padded)).toEqual(whole);
    expect(
      unwrap(
        'gre',
        wrapped(4, (m) => gre.emit(m, 0, false)),
      ),
    ).toEqual(whole);
    expect(unwrap('gre', greWithChecksum())).toEqual(whole);
    expect(
      unwrap(
        'gue',
        wrapped(4, (m) => gue.emit(m, 0)),
      ),
    ).toEqual(whole);
  });

  it('has its checksum completed where GUE left it to us', () => {
    const open = gueWithRemcsum();
    expect(verifyFrame(open.slice(gue.GUE_HEADER_REMCSUM), { isIp: true })).not.toEqual([]);
    const out = unwrap('gue', open);
    expect(out).toEqual(inner());
    expect(verifyFrame(out as Uint8Array, { isIp: true })).toEqual([]);
  });

  const changed = (bytes: Uint8Array, at: number, value: number): Uint8Array => {
    bytes[at] = value;
    return bytes;
  };
  const withChecksum = (bytes: Uint8Array): Uint8Array => {
    fillChecksum(view(bytes), 0);
    return bytes;
  };
  const plainGre = () => wrapped(4, (m) => gre.emit(m, 0, false));
  const plainGue = () => wrapped(4, (m) => gue.emit(m, 0));
  it.each([
    ['ipip', inner().slice(0, 19), 'innerTooShort'],
    ['ipip', changed(inner(), 0, 0x65), 'innerVersion'],
    ['ipip', changed(inner(), 0, 0x44), 'innerLength'],
    ['ipip', withChecksum(changed(inner(), 3, 200)), 'innerLength'],
    ['ipip', changed(inner(), 8, 1), 'innerChecksum'],
    ['ipip', new Uint8Array(0), 'innerTooShort'],
    ['gre', new Uint8Array(3), 'outerTooShort'],
    ['gre', new Uint8Array([0x80, 0, 8, 0, 0, 0]), 'outerTooShort'],
    ['gre', changed(plainGre(), 0, 0x20), 'greFlags'],
    ['gre', changed(plainGre(), 1, 1), 'greFlags'],
    ['gre', changed(plainGre(), 3, 1), 'greProtocol'],
    ['gre', changed(greWithChecksum(), 38, 99), 'greChecksum'],
    ['gre', plainGre().slice(0, 10), 'innerTooShort'],
    ['gue', new Uint8Array(2), 'outerTooShort'],
    ['gue', changed(plainGue(), 0, 0x40), 'gueVersion'],
    ['gue', changed(plainGue(), 0, 0x20), 'gueControl'],
    ['gue', changed(plainGue(), 0, 0x1f), 'outerTooShort'],
    ['gue', changed(plainGue(), 2, 1), 'gueFlags'],
    ['gue', changed(plainGue(), 3, 1), 'outerTooShort'],
    ['gue', changed(plainGue(), 1, 41), 'gueProtocol'],
    ['gue', changed(gueWithRemcsum(), 7, 1), 'gueFlags'],
    ['gue', changed(gueWithRemcsum(), 0, 1), 'outerTooShort'],
    ['gue', changed(gueWithRemcsum(), 10, 200), 'gueRemcsum'],
    ['gue', changed(gueWithRemcsum(), 8, 200), 'gueRemcsum'],
  ] as const)('%s that is wrong: %#', (type, bytes, fault) => {
    expect(unwrap(type, bytes)).toBe(fault);
  });

  it('never throws, whatever the bytes', () => {
    let seed = 1;
    const next = () => {
      seed = (Math.imul(seed, 1103515245) + 12345) >>> 0;
      return seed >>> 16;
    };
    for (let i = 0; i < 3000; i++) {
      for (const [type, base] of [
        ['ipip', inner()],
        ['gre', greWithChecksum()],
        ['gue', gueWithRemcsum()],
      ] as const) {
        const bytes = base.slice(0, next() % (base.length + 1));
        for (let n = next() % 4; n > 0 && bytes.length > 0; n--) bytes[next() % bytes.length] = next() & 255;
        const out = unwrap(type, bytes);
        expect(typeof out === 'string' || out.length <= base.length).toBe(true);
      }
    }
  });
});
