import { describe, expect, it } from 'vitest';
import type { CtChange, CtTuple, EntryRow, ExpectationRow } from '../../model/conntrack.ts';
import { Status } from '../../model/entry-status.ts';
import { LabelNames } from '../../model/label-names.ts';
import { formatEntry, formatExpectation, timestamp } from './format.ts';
import { labelBits } from './labels.ts';
import { Printer } from './printer.ts';
import { saveEntry } from './save.ts';
import { shownEvent } from './shown.ts';
import { Output } from './values.ts';
import { formatEntryXml, formatExpectationXml } from './xml.ts';

const NOW = 1_795_193_600_250;

function ends(proto: number, src: string, sport: number, dst: string, dport: number): CtTuple {
  return { src, dst, proto, ports: { src: sport, dst: dport } };
}

function row(changes: Partial<EntryRow>): EntryRow {
  return {
    id: 1_233_234_386,
    original: ends(17, '10.1.0.2', 40_001, '10.2.0.2', 53),
    reply: ends(17, '10.2.0.2', 53, '10.2.0.1', 40_001),
    status: Status.SeenReply | Status.Assured,
    timeoutSeconds: 119,
    mark: 0,
    zones: { original: 0, reply: 0 },
    use: 1,
    ...changes,
  };
}

const COUNTERS = { original: { packets: 4, bytes: 218 }, reply: { packets: 3, bytes: 166 } };
const TCP = row({
  original: ends(6, '10.1.0.2', 40_000, '10.1.0.1', 80),
  reply: ends(6, '10.2.0.2', 8080, '10.2.0.1', 40_000),
  timeoutSeconds: 431_997,
  state: 'ESTABLISHED',
  counters: COUNTERS,
});
const ICMP = row({
  original: { src: '10.1.0.2', dst: '10.2.0.2', proto: 1, icmp: { type: 8, code: 0, id: 11_618 } },
  reply: { src: '10.2.0.2', dst: '10.2.0.1', proto: 1, icmp: { type: 0, code: 0, id: 11_618 } },
  status: Status.SeenReply,
  timeoutSeconds: 26,
});
const GRE = row({
  original: { src: '1.1.1.1', dst: '2.2.2.2', proto: 47, gre: { srcKey: 200, dstKey: 3 } },
  reply: { src: '2.2.2.2', dst: '1.1.1.1', proto: 47, gre: { srcKey: 3, dstKey: 200 } },
  status: 0,
  timeoutSeconds: 49,
});
const AH = row({
  original: { src: '1.1.1.1', dst: '2.2.2.2', proto: 51 },
  reply: { src: '2.2.2.2', dst: '1.1.1.1', proto: 51 },
  status: 0,
  timeoutSeconds: 49,
});
const DCCP = row({
  original: { src: '1.1.1.1', dst: '2.2.2.2', proto: 33 },
  reply: { src: '2.2.2.2', dst: '1.1.1.1', proto: 33 },
  status: 0,
  timeoutSeconds: 4,
});

// Recorded from conntrack 1.4.7 on kernel 6.18.
describe('a line of a list', () => {
  it.each<[string, EntryRow, number]>([
    [
      'tcp      6 431997 ESTABLISHED src=10.1.0.2 dst=10.1.0.1 sport=40000 dport=80 packets=4 bytes=218 src=10.2.0.2 dst=10.2.0.1 sport=8080 dport=40000 packets=3 bytes=166 [ASSURED] mark=0 use=1',
      TCP,
      0,
    ],
    [
      'ipv4     2 tcp      6 431997 ESTABLISHED src=10.1.0.2 dst=10.1.0.1 sport=40000 dport=80 packets=4 bytes=218 src=10.2.0.2 dst=10.2.0.1 sport=8080 dport=40000 packets=3 bytes=166 [ASSURED] mark=0 use=1 id=1233234386',
      TCP,
      Output.Extended | Output.Id,
    ],
    [
      'icmp     1 26 src=10.1.0.2 dst=10.2.0.2 type=8 code=0 id=11618 src=10.2.0.2 dst=10.2.0.1 type=0 code=0 id=11618 mark=0 use=1',
      ICMP,
      0,
    ],
    [
      'gre      47 49 src=1.1.1.1 dst=2.2.2.2 srckey=0xc8 dstkey=0x3 [UNREPLIED] src=2.2.2.2 dst=1.1.1.1 srckey=0x3 dstkey=0xc8 mark=0 use=1',
      GRE,
      0,
    ],
    ['unknown  51 49 src=1.1.1.1 dst=2.2.2.2 [UNREPLIED] src=2.2.2.2 dst=1.1.1.1 mark=0 use=1', AH, 0],
    [
      'dccp     33 4 src=1.1.1.1 dst=2.2.2.2 sport=0 dport=0 [UNREPLIED] src=2.2.2.2 dst=1.1.1.1 sport=0 dport=0 mark=0 use=1',
      DCCP,
      0,
    ],
    [
      'udp      17 119 src=10.1.0.2 dst=10.2.0.2 sport=40001 dport=53 zone-orig=3 [UNREPLIED] src=10.2.0.2 dst=10.2.0.1 sport=53 dport=40001 mark=7 use=1',
      row({ zones: { original: 3, reply: 0 }, mark: 7, status: 0 }),
      0,
    ],
    [
      'udp      17 119 src=10.1.0.2 dst=10.2.0.2 sport=40001 dport=53 src=10.2.0.2 dst=10.2.0.1 sport=53 dport=40001 zone-reply=4 [ASSURED] mark=0 use=1',
      row({ zones: { original: 0, reply: 4 } }),
      0,
    ],
    [
      'udp      17 119 src=10.1.0.2 dst=10.2.0.2 sport=40001 dport=53 src=10.2.0.2 dst=10.2.0.1 sport=53 dport=40001 [ASSURED] mark=0 zone=3 delta-time=88 [start=Fri Nov 20 16:51:52 2026] helper=ftp use=1',
      row({ zones: { original: 3, reply: 3 }, started: '1795193512120985000', helper: 'ftp' }),
      Output.KernelTime,
    ],
    [
      'udp      17 119 src=10.1.0.2 dst=10.2.0.2 sport=40001 dport=53 src=10.2.0.2 dst=10.2.0.1 sport=53 dport=40001 [OFFLOAD] mark=0 use=1',
      row({ status: Status.SeenReply | Status.Assured | Status.Offload }),
      0,
    ],
  ])('%s', (expected, entry, forms) => {
    const was = process.env.TZ;
    process.env.TZ = 'UTC';
    expect(formatEntry(entry, forms, undefined, NOW)).toBe(expected);
    if (was === undefined) delete process.env.TZ;
    else process.env.TZ = was;
  });

  it('names labels that have a name', () => {
    const names = new LabelNames('# comment\n3 foo\n127 top\n  6 indented\n128 beyond\n');
    const labels = labelBits(names, 'foo,top');
    expect(labels).toBe(`8${'0'.repeat(30)}8`);
    expect(formatEntry(row({ labels }), 0, names, NOW)).toMatch(/ mark=0 use=1 labels=foo,top$/);
    expect(formatEntryXml(row({ labels }), 0, names, NOW)).toContain(
      '<labels><label>foo</label><label>top</label></labels>',
    );
    expect(() => labelBits(names, 'foo,')).toThrow("unknown label ''");
    expect(formatEntry(row({ labels: `${'0'.repeat(31)}1` }), 0, names, NOW)).toMatch(/ mark=0 use=1 labels$/);
  });
});

describe('-o xml', () => {
  it('writes an entry as one element', () => {
    const entry = row({
      id: 926_413_713,
      counters: { original: { packets: 2, bytes: 58 }, reply: { packets: 2, bytes: 58 } },
    });
    expect(formatEntryXml(entry, Output.Xml, undefined, NOW)).toBe(
      '<flow><meta direction="original"><layer3 protonum="2" protoname="ipv4"><src>10.1.0.2</src><dst>10.2.0.2</dst></layer3><layer4 protonum="17" protoname="udp"><sport>40001</sport><dport>53</dport></layer4><counters><packets>2</packets><bytes>58</bytes></counters></meta><meta direction="reply"><layer3 protonum="2" protoname="ipv4"><src>10.2.0.2</src><dst>10.2.0.1</dst></layer3><layer4 protonum="17" protoname="udp"><sport>53</sport><dport>40001</dport></layer4><counters><packets>2</packets><bytes>58</bytes></counters></meta><meta direction="independent"><timeout>119</timeout><mark>0</mark><use>1</use><id>926413713</id><assured/></meta></flow>',
    );
  });

  it('writes times when they are asked for', () => {
    const entry = row({ started: '1795193512120985000', stopped: '1795193515233598000', status: 0 });
    expect(formatEntryXml(entry, Output.Xml | Output.KernelTime, undefined, NOW)).toContain(
      '<unreplied/><timestamp><start>1795193512120985000</start><stop>1795193515233598000</stop></timestamp><deltatime>3</deltatime></meta></flow>',
    );
  });
});

describe('-o save', () => {
  it.each<[string, EntryRow]>([
    [
      '-A -t 119 -u SEEN_REPLY,ASSURED -s 10.1.0.2 -d 10.2.0.2 -r 10.2.0.2 -n 10.2.0.1 -p udp --sport 40001 --dport 53 --reply-port-src 53 --reply-port-dst 40001',
      row({ status: Status.SeenReply | Status.Assured | Status.SrcNatDone | Status.DstNatDone }),
    ],
    [
      '-A -t 431997 -u UNSET -s 10.1.0.2 -d 10.1.0.1 -r 10.2.0.2 -q 10.2.0.1 -p tcp --sport 40000 --dport 80 --reply-port-src 8080 --reply-port-dst 40000 --state ESTABLISHED',
      { ...TCP, status: 0 },
    ],
    [
      '-A -t 49 -u UNSET -w 3 -s 1.1.1.1 -d 2.2.2.2 -r 2.2.2.2 -q 1.1.1.1 -p gre --srckey 200 --dstkey 3 --reply-key-src 3 --reply-key-dst 200',
      { ...GRE, zones: { original: 3, reply: 3 } },
    ],
    [
      '-A -t 26 -u SEEN_REPLY --orig-zone 3 -s 10.1.0.2 -d 10.2.0.2 -r 10.2.0.2 -q 10.2.0.1 -p icmp --icmp-type 8 --icmp-code 0 --icmp-id 11618',
      { ...ICMP, zones: { original: 3, reply: 0 } },
    ],
    ['-A -t 49 -u UNSET -s 1.1.1.1 -d 2.2.2.2 -r 2.2.2.2 -q 1.1.1.1 -p 51', AH],
  ])('%s', (expected, entry) => {
    expect(saveEntry(entry)).toBe(expected);
  });
});

describe('an event', () => {
  const event = (kind: 'new' | 'update' | 'destroy', entry: EntryRow, changed: readonly CtChange[]) =>
    formatEntry(shownEvent({ kind, entry, changed, at: '0' }), 0, undefined, NOW);

  it('tells no counters and nobody who uses it while the entry lives', () => {
    expect(event('new', { ...TCP, status: 0, state: 'SYN_SENT', timeoutSeconds: 120 }, ['new', 'protoinfo'])).toBe(
      '    [NEW] tcp      6 120 SYN_SENT src=10.1.0.2 dst=10.1.0.1 sport=40000 dport=80 [UNREPLIED] src=10.2.0.2 dst=10.2.0.1 sport=8080 dport=40000',
    );
  });

  it('tells the mark when it changed or is not 0, and the state when it changed', () => {
    expect(event('update', TCP, ['assured'])).toMatch(/^ \[UPDATE\] tcp {6}6 431997 src=.* \[ASSURED\]$/);
    expect(event('update', TCP, ['mark'])).toMatch(/ \[ASSURED\] mark=0$/);
    expect(event('update', { ...TCP, mark: 3 }, ['assured'])).toMatch(/ \[ASSURED\] mark=3$/);
  });

  it('tells counters and what time is left at the end', () => {
    expect(event('destroy', TCP, ['destroy'])).toBe(
      '[DESTROY] tcp      6 431997 ESTABLISHED src=10.1.0.2 dst=10.1.0.1 sport=40000 dport=80 packets=4 bytes=218 src=10.2.0.2 dst=10.2.0.1 sport=8080 dport=40000 packets=3 bytes=166 [ASSURED]',
    );
    expect(event('destroy', { ...TCP, timeoutSeconds: 0, counters: undefined }, ['destroy'])).toMatch(
      /^\[DESTROY\] tcp {6}6 ESTABLISHED src=/,
    );
  });

  it('says who made it, and when', () => {
    let text = '';
    const printer = new Printer(
      (chunk) => {
        text += chunk;
      },
      Output.Time,
      undefined,
      'conntrack',
    );
    printer.event(
      shownEvent({ kind: 'new', entry: row({ mark: 0 }), changed: ['new', 'mark'], at: '0' }),
      1_795_193_515_252.986,
      {
        portId: 11_728,
        program: 'conntrack',
      },
    );
    printer.end();
    expect(text).toMatch(
      /^\[1795193515\.252986\]\t {4}\[NEW\] udp .* \[ASSURED\] mark=0 \[USERSPACE\] portid=11728 progname=conntrack\n$/,
    );
    expect(timestamp(5_000.5)).toBe('[00000005.000500]\t');
  });

  it('stands in one element with -o xml', () => {
    let text = '';
    const printer = new Printer(
      (chunk) => {
        text += chunk;
      },
      Output.Xml,
      undefined,
      'conntrack',
    );
    for (const kind of ['new', 'destroy'] as const) {
      printer.event(shownEvent({ kind, entry: AH, changed: [], at: '0' }), NOW, undefined);
    }
    printer.end();
    expect(text).toMatch(
      /^<\?xml version="1.0" encoding="utf-8"\?>\n<conntrack>\n<flow type="new">.*<\/flow>\n<flow type="destroy">.*<\/flow>\n<\/conntrack>\n$/,
    );
    expect(printer.shown).toBe(2);
  });
});

describe('an expectation', () => {
  const expectation: ExpectationRow = {
    id: 1,
    timeoutSeconds: 299,
    tuple: ends(6, '10.1.0.2', 0, '10.1.0.1', 50_000),
    mask: ends(6, '255.255.255.255', 0, '255.255.255.255', 65_535),
    master: ends(6, '10.1.0.2', 50_704, '10.1.0.1', 21),
    flags: 0,
    class: 0,
    helper: 'ftp',
    zone: 0,
  };

  it('is a line', () => {
    expect(formatExpectation(expectation)).toBe(
      '299 proto=6 src=10.1.0.2 dst=10.1.0.1 sport=0 dport=50000 mask-src=255.255.255.255 mask-dst=255.255.255.255 sport=0 dport=65535 master-src=10.1.0.2 master-dst=10.1.0.1 sport=50704 dport=21 class=0 helper=ftp',
    );
    expect(formatExpectation({ ...expectation, flags: 5 }, 'new')).toMatch(
      /^ {4}\[NEW\] 299 proto=6 .* dport=21 PERMANENT,USERSPACE class=0 helper=ftp$/,
    );
  });

  it('is an element', () => {
    expect(formatExpectationXml(expectation, undefined)).toBe(
      '<flow><layer3 protonum="2" protoname="ipv4"><expected><src>10.1.0.2</src><dst>10.1.0.1</dst></expected><mask><src>255.255.255.255</src><dst>255.255.255.255</dst></mask><master><src>10.1.0.2</src><dst>10.1.0.1</dst></master></layer3><layer4 protonum="6" protoname="tcp"><expected><sport>0</sport><dport>50000</dport></expected><mask><sport>0</sport><dport>65535</dport></mask><master><sport>50704</sport><dport>21</dport></master></layer4><meta><helper-name>ftp</helper-name><timeout>299</timeout><class>0</class></meta></flow>',
    );
  });
});
