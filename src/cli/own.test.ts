import { describe, expect, it } from 'vitest';
import { readOptions } from './options.ts';
import { PcapngSplitter } from './pcapng-splitter.ts';
import { formatStatus } from './status.ts';
import { formatTable } from './table.ts';

describe('options of our own commands', () => {
  const specs = [
    { long: '--all', short: '-a' },
    { long: '--json' },
    { long: '--count', short: '-c', takesValue: true },
  ];

  it('stand anywhere, attached or not', () => {
    const { flags, values, words } = readOptions('x', ['tcp', '-ac', '5', '--json', 'port', '--', '-a'], specs);
    expect([...flags]).toEqual(['all', 'json']);
    expect(values.get('count')).toBe('5');
    expect(words).toEqual(['tcp', 'port', '-a']);
    expect(readOptions('x', ['-c5'], specs).values.get('count')).toBe('5');
    expect(readOptions('x', ['--count=5'], specs).values.get('count')).toBe('5');
    expect(readOptions('x', ['-h'], specs).flags.has('help')).toBe(true);
  });

  it('are refused when unknown or incomplete', () => {
    expect(() => readOptions('x', ['-q'], specs)).toThrow('tapvs x: unknown option -q, see tapvs x --help');
    expect(() => readOptions('x', ['--jsonx'], specs)).toThrow('unknown option --jsonx');
    expect(() => readOptions('x', ['-c'], specs)).toThrow('-c needs a value');
    expect(() => readOptions('x', ['--all=1'], specs)).toThrow('--all takes no value');
  });
});

describe('tables', () => {
  it('are as wide as they need to be, numbers to the right', () => {
    expect(
      formatTable([
        ['a', 1, 'x'],
        ['long', 100, 'yy'],
      ]),
    ).toBe('a       1  x\nlong  100  yy\n');
    expect(formatTable([])).toBe('');
  });
});

describe('tapvs status', () => {
  it('says how long the daemon is up, and its devices', () => {
    const text = formatStatus({
      version: '0.1.0',
      pid: 7,
      uptimeSeconds: 3725,
      configFile: '/etc/tapvs/tapvs.yaml',
      generation: 2,
      workers: 1,
      services: 3,
      servers: 4,
      connections: 5,
      devices: [
        { name: 'front', kind: 'tap', mac: '02:00:00:00:01:01', addresses: ['10.0.1.1/24', '10.0.1.2/24'] },
        { name: 'host', kind: 'tun', addresses: [] },
      ],
    });
    expect(text).toContain('tapvsd         0.1.0, process 7, up 1h 2min\n');
    expect(text).toContain(
      'devices\n  front  tap  02:00:00:00:01:01  10.0.1.1/24 10.0.1.2/24\n  host   tun  -                  -\n',
    );
  });
});

describe('a pcapng stream', () => {
  const block = (type: number, body: number): Buffer => {
    const bytes = Buffer.alloc(12 + body);
    bytes.writeUInt32LE(type, 0);
    bytes.writeUInt32LE(bytes.length, 4);
    bytes.writeUInt32LE(bytes.length, bytes.length - 4);
    return bytes;
  };
  const header = block(0x0a0d0d0a, 16);
  header.writeUInt32LE(0x1a2b3c4d, 8);
  const stream = Buffer.concat([header, block(1, 8), block(6, 60), block(6, 100), block(6, 20)]);

  it('is passed on in whole blocks, whatever pieces it comes in', () => {
    const splitter = new PcapngSplitter(Number.POSITIVE_INFINITY);
    const pieces: Buffer[] = [];
    for (let at = 0; at < stream.length; at += 7) pieces.push(splitter.push(stream.subarray(at, at + 7)));
    expect(Buffer.concat(pieces)).toEqual(stream);
    expect(splitter.packets).toBe(3);
  });

  it('ends after the last packet that is wanted', () => {
    const splitter = new PcapngSplitter(2);
    expect(splitter.push(stream)).toEqual(stream.subarray(0, stream.length - 32));
    expect(splitter.packets).toBe(2);
    expect(splitter.push(stream)).toHaveLength(0);
  });

  it('is refused when it is none', () => {
    expect(() => new PcapngSplitter(1).push(Buffer.alloc(64))).toThrow('a block of 0 bytes is no pcapng');
  });
});
