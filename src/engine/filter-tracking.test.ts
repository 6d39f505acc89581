import { describe, expect, it } from 'vitest';
import { seconds } from '../base/clock.ts';
import { Change } from '../conntrack/changes.ts';
import { Col, ENTRY_SHIFT } from '../conntrack/entries.ts';
import { TCP_CT_NAMES } from '../model/entry-states.ts';
import { type FrameBuilder, frame } from '../wire/build.ts';
import { CLIENT, FilterRig, OURS, SERVER, withRules } from './filter-rig.ts';

const there = (dstPort: number, flags = 'S'): FrameBuilder =>
  frame().eth(OURS, CLIENT).ipv4('10.0.1.2', '10.0.2.2').tcp({ srcPort: 40000, dstPort, flags, seq: 1, ack: 1 });
const back = (srcPort: number, flags: string): FrameBuilder =>
  frame()
    .eth('02:00:00:00:02:01', SERVER)
    .ipv4('10.0.2.2', '10.0.1.2')
    .tcp({ srcPort, dstPort: 40000, flags, seq: 0, ack: 2 });
const ask = (dstPort: number, src = '10.0.1.2', dst = '10.0.2.2'): FrameBuilder =>
  frame().eth(OURS, CLIENT).ipv4(src, dst).udp({ srcPort: 40000, dstPort }).payload('q');
const answer = (srcPort: number, src = '10.0.2.2', dst = '10.0.1.2', dstPort = 40000): FrameBuilder =>
  frame().eth('02:00:00:00:02:01', SERVER).ipv4(src, dst).udp({ srcPort, dstPort }).payload('a');

describe('what the packet is to its connection', () => {
  /** Of a question, its answer, and a stray ACK that is invalid: which count. */
  it.each([
    ['-m conntrack --ctstate NEW', [1, 0, 0]],
    ['-m conntrack --ctstate ESTABLISHED', [0, 1, 0]],
    ['-m conntrack --ctstate NEW,ESTABLISHED', [1, 1, 0]],
    ['-m conntrack --ctstate INVALID', [0, 0, 1]],
    ['-m conntrack ! --ctstate INVALID', [1, 1, 0]],
    ['-m conntrack --ctstate UNTRACKED', [0, 0, 0]],
    ['-m conntrack --ctstate ESTABLISHED --ctdir REPLY', [0, 1, 0]],
    ['-m conntrack --ctstate ESTABLISHED --ctdir ORIGINAL', [0, 0, 0]],
    ['-m conntrack --ctdir ORIGINAL', [1, 0, 0]],
    ['-m conntrack --ctproto 17', [1, 1, 0]],
    ['-m conntrack ! --ctproto 17', [0, 0, 0]],
    ['-m conntrack --ctorigsrc 10.0.1.2', [1, 1, 0]],
    ['-m conntrack --ctorigsrc 10.0.2.2', [0, 0, 0]],
    ['-m conntrack --ctorigdst 10.0.2.9/24', [1, 1, 0]],
    ['-m conntrack ! --ctrepldst 10.0.1.2', [0, 0, 0]],
    ['-m conntrack --ctreplsrc 10.0.2.2', [1, 1, 0]],
    ['-m conntrack --ctorigdstport 50:60', [1, 1, 0]],
    ['-m conntrack --ctreplsrcport 54', [0, 0, 0]],
    ['-m conntrack ! --ctorigsrcport 1', [1, 1, 0]],
    ['-m conntrack --ctstatus CONFIRMED', [0, 1, 0]],
    ['-m conntrack --ctstatus SEEN_REPLY', [0, 1, 0]],
    ['-m conntrack --ctexpire 0:100', [1, 1, 0]],
    ['-m conntrack ! --ctexpire 0:100', [0, 0, 0]],
    ['-m state --state NEW', [1, 0, 0]],
    ['-m state ! --state NEW', [0, 1, 1]],
    ['-m connmark --mark 0x0', [1, 1, 0]],
    ['-m connmark --mark 0x1', [0, 0, 0]],
  ] as const)('%s: %j', (words, expected) => {
    const rig = withRules('mangle', `-A PREROUTING ${words}`);
    const counted = (): number => rig.counts('mangle', 'PREROUTING')[0]!;
    const seen: number[] = [];
    const pass = (inject: () => void): void => {
      const before = counted();
      inject();
      seen.push(counted() - before);
    };
    pass(() => rig.send(ask(53)));
    pass(() => rig.sendBack(answer(53)));
    pass(() => rig.send(there(80, 'FS')));
    expect(seen).toEqual(expected);
  });

  it('says UNTRACKED of what NOTRACK names, before and instead of tracking', () => {
    const rig = withRules('raw', '-A PREROUTING -p udp -j NOTRACK');
    rig.rules('mangle', '-A PREROUTING -m conntrack --ctstate UNTRACKED');
    rig.send(ask(53));
    rig.send(there(80));
    expect(rig.counts('mangle', 'PREROUTING')).toEqual([1, 2]);
    expect(rig.engine.conntrack.entries.count).toBe(1);
  });

  it('tracks while a rule asks for it, and no longer', () => {
    const rig = withRules('filter', '-A FORWARD -p udp');
    rig.send(ask(53));
    expect(rig.engine.conntrack.entries.count).toBe(0);
    rig.rules('filter', '-A FORWARD -m conntrack --ctstate INVALID -j DROP');
    rig.send(ask(53));
    expect(rig.engine.conntrack.entries.count).toBe(1);
    rig.engine.filter.change({ table: 'filter', commands: [{ op: 'flush' }] });
    rig.send(ask(54));
    expect(rig.engine.conntrack.entries.count).toBe(1);
    expect(rig.engine.conntrack.isInUse).toBe(false);
  });
});

describe('CONNMARK', () => {
  it('keeps a mark with the connection and gives it to the answer', () => {
    const rig = withRules(
      'mangle',
      '-A PREROUTING -i front -p udp -j MARK --set-xmark 0x33/0xffffffff',
      '-A PREROUTING -i front -j CONNMARK --save-mark --nfmask 0xf --ctmask 0xff',
      '-A PREROUTING -i back -j CONNMARK --restore-mark --nfmask 0xffffffff --ctmask 0xffffffff',
      '-A PREROUTING -i back -m mark --mark 0x3',
      '-A PREROUTING -m connmark --mark 0x3',
      '-A FORWARD -i back -j CONNMARK --set-xmark 0x40/0x0',
    );
    rig.send(ask(53));
    rig.sendBack(answer(53));
    expect(rig.counts('mangle', 'PREROUTING').slice(3)).toEqual([1, 2, 2]);
    expect(rig.engine.conntrack.mark(1)).toBe(0x43);
  });

  it('shifts what it writes, after the masks: xt_connmark.c, connmark_tg_shift', () => {
    const rig = withRules(
      'mangle',
      '-A PREROUTING -i front -j MARK --set-xmark 0x8000f123/0xffffffff',
      '-A PREROUTING -i front -j CONNMARK --save-mark --nfmask 0xfff --ctmask 0xffffffff --left-shift-mark 8',
      '-A PREROUTING -i back -j CONNMARK --restore-mark --nfmask 0xffffffff --ctmask 0xff000 --right-shift-mark 12',
      '-A PREROUTING -i back -m mark --mark 0x12',
      '-A PREROUTING -i back -j CONNMARK --set-xmark 0x80000000/0xff --right-shift-mark 31',
    );
    rig.send(ask(53));
    expect(rig.engine.conntrack.mark(1)).toBe(0x12300);
    rig.sendBack(answer(53));
    expect(rig.counts('mangle', 'PREROUTING')[3]).toBe(1);
    expect(rig.engine.conntrack.mark(1)).toBe(1);
  });
});

describe('the nat table', () => {
  it('translates a connection once, counts it once, and undoes it for answers', () => {
    const rig = withRules(
      'nat',
      '-A PREROUTING -d 10.0.1.1/32 -p udp -m udp --dport 53 -j DNAT --to-destination 10.0.2.2:5353',
    );
    rig.rules('nat', '-A POSTROUTING -o back -j MASQUERADE');
    expect(rig.send(ask(53, '10.0.1.2', '10.0.1.1'))[0]).toContain('10.0.2.1.40000 > 10.0.2.2.5353');
    expect(rig.sendBack(answer(5353, '10.0.2.2', '10.0.2.1'))[0]).toContain('10.0.1.1.53 > 10.0.1.2.40000');
    expect(rig.send(ask(53, '10.0.1.2', '10.0.1.1'))[0]).toContain('10.0.2.1.40000 > 10.0.2.2.5353');
    expect(rig.counts('nat', 'PREROUTING')).toEqual([1, 0]);
    expect(rig.counts('nat', 'POSTROUTING')).toEqual([1, 0]);
  });

  it('is asked of nothing while no rule needs connections', () => {
    const rig = withRules('nat', '-A POSTROUTING -p udp -j ACCEPT');
    rig.send(ask(53));
    expect(rig.counts('nat', 'POSTROUTING')).toEqual([0, 0]);
    rig.rules('nat', '-A POSTROUTING -o back -j SNAT --to-source 10.0.2.100');
    expect(rig.send(ask(54))[0]).toContain('10.0.1.2.40000 > 10.0.2.2.54');
    expect(rig.counts('nat', 'POSTROUTING')).toEqual([1, 0, 0]);
  });
});

describe('CT', () => {
  it('closes a connection whose segment it answers by a reset, and none by an ICMP error', () => {
    const rig = new FilterRig();
    const state = (): number => rig.engine.conntrack.entries.rows[(1 << ENTRY_SHIFT) + Col.Word]! & 0xff;
    const changes: number[] = [];
    rig.engine.conntrack.sink = (_, change) => changes.push(change);
    rig.rules('mangle', '-A PREROUTING -m conntrack --ctstate NEW');
    rig.send(there(80));
    rig.sendBack(back(80, 'S.'));
    rig.rules('filter', '-A FORWARD -i front -p tcp -j REJECT');
    expect(rig.send(there(80, '.'))).toEqual([expect.stringContaining('icmp error 3/3')]);
    expect(TCP_CT_NAMES[state()]).toBe('ESTABLISHED');
    rig.rules('filter', '-A FORWARD -i back -p tcp -j REJECT --reject-with tcp-reset');
    changes.length = 0;
    expect(rig.sendBack(back(80, '.'))).toEqual([expect.stringContaining('[R]')]);
    expect([TCP_CT_NAMES[state()], rig.engine.conntrack.entries.left(1, 0) <= seconds(10)]).toEqual(['CLOSE', true]);
    expect(changes).toEqual([Change.Protoinfo]);
  });

  it('keeps connections of two zones apart', () => {
    const rig = withRules('raw', '-A PREROUTING -i front -m ttl --ttl-eq 64 -j CT --zone 5');
    rig.send(ask(53));
    rig.sendBack(answer(53));
    // The answer is in no zone, so it is the first packet of another connection.
    expect(rig.engine.conntrack.entries.count).toBe(2);
    expect(rig.engine.conntrack.zone(1)).toBe(5);
  });

  it.each([
    ['-j CT --zone 5', '-j CT --zone 6', 5],
    ['-j CT --zone 0', '-j CT --zone 6', 0],
    ['-j CT --zone 5', '-j NOTRACK', 5],
    ['-j NOTRACK', '-j CT --zone 6', undefined],
  ])('is what the first rule says: %s, then %s', (first, second, zone) => {
    const rig = withRules('raw', `-A PREROUTING ${first}`, `-A PREROUTING ${second}`);
    rig.rules('mangle', '-A FORWARD -m conntrack --ctstate UNTRACKED');
    rig.send(ask(53));
    const { entries } = rig.engine.conntrack;
    expect(entries.count === 1 ? rig.engine.conntrack.zone(1) : undefined).toBe(zone);
    expect(rig.counts('mangle', 'FORWARD')[0]).toBe(zone === undefined ? 1 : 0);
  });

  it('tells only the events that a rule names', () => {
    const rig = new FilterRig();
    const told: number[] = [];
    rig.engine.conntrack.sink = (_entry, changes) => told.push(changes);
    rig.rules(
      'raw',
      '-A PREROUTING -p udp -m udp --dport 53 -j CT --ctevents new',
      '-A PREROUTING -p udp -m udp --dport 54 -j CT --ctevents reply',
    );
    rig.send(ask(53));
    rig.sendBack(answer(53));
    expect(told).toEqual([Change.New]);
    rig.send(ask(54));
    rig.sendBack(answer(54));
    expect(told).toEqual([Change.New, Change.Reply]);
    // Whatever the settings say, a rule that asks for events gets them.
    rig.engine.setSysctl('net.netfilter.nf_conntrack_events', '0');
    rig.send(ask(53, '10.0.1.2', '10.0.2.3'));
    expect(told).toEqual([Change.New, Change.Reply, Change.New]);
    rig.engine.conntrack.kill(1);
    expect(told).toHaveLength(3);
  });

  it('has one template for all rules that say the same', () => {
    const rig = new FilterRig();
    const { templates } = rig.engine.conntrack;
    for (let i = 0; i < 5; i++) {
      rig.rules('raw', '-A PREROUTING -p udp -j CT --zone 7');
      rig.send(ask(53 + i));
      rig.engine.filter.change({ table: 'raw', commands: [{ op: 'flush' }] });
    }
    expect(templates).toHaveLength(2);
  });

  it.each([
    ['-p tcp', 'ftp', null],
    ['-p udp', 'ftp', 'ENOENT'],
    ['-p udp', 'tftp', null],
    ['-p tcp', 'nosuch', 'ENOENT'],
  ])('%s --helper %s: %s', (proto, helper, fault) => {
    const rig = new FilterRig();
    const rule = { words: `${proto} -j CT --helper ${helper}`.split(' ') };
    const outcome = rig.engine.filter.change({ table: 'raw', commands: [{ op: 'append', chain: 'PREROUTING', rule }] });
    expect(outcome?.fault ?? null).toBe(fault);
  });
});

describe('labels', () => {
  const label = (bit: number): string => (1n << BigInt(bit)).toString(16).padStart(32, '0');
  const everything = { cursor: 0, limit: 100, filter: {}, table: 'conntrack' as const, zero: false };

  it('are set by a rule, found by others, told of, and changed by commands', () => {
    const rig = withRules(
      'mangle',
      '-A PREROUTING -p udp -m connlabel --label 40 --set',
      '-A FORWARD -m connlabel --label 40',
    );
    rig.rules('mangle', '-A FORWARD -m connlabel ! --label 40', '-A FORWARD -m connlabel --label 41');
    const { tracking } = rig.engine;
    tracking.watch({ entries: true, expectations: false });
    rig.send(ask(53));
    rig.sendBack(answer(53));
    expect(rig.counts('mangle', 'PREROUTING').slice(0, -1)).toEqual([2]);
    expect(rig.counts('mangle', 'FORWARD').slice(0, -1)).toEqual([2, 0, 0]);
    const [made, replied] = tracking.takeEvents().entries;
    expect(made).toMatchObject({ changed: expect.arrayContaining(['new', 'label']), entry: { labels: label(40) } });
    expect(replied!.changed).not.toContain('label');
    const change = { labels: { value: label(127), mask: label(127) } };
    expect(tracking.update({ ...everything, change }).rows).toMatchObject([{ errno: null }]);
    expect(tracking.list(everything).rows[0]!.labels).toBe(`8${label(40).slice(1)}`);
    expect(tracking.takeEvents().entries.at(-1)!.changed).toContain('label');
    const clear = { labels: { value: label(0).replace('1', '0'), mask: 'f'.repeat(32) } };
    tracking.update({ ...everything, change: clear });
    expect(tracking.list(everything).rows[0]!.labels).toBeUndefined();
    // Nothing is there to be taken.
    expect(tracking.update({ ...everything, change: clear }).rows).toEqual([]);
  });

  it('have no place in an entry from before the first rule, nor of the next user of its row', () => {
    const rig = withRules('filter', '-A FORWARD -m conntrack --ctstate NEW');
    rig.send(ask(53));
    rig.rules('mangle', '-A PREROUTING -m connlabel --label 1 --set', '-A PREROUTING -m connlabel ! --label 1');
    rig.send(ask(53));
    rig.send(ask(54));
    expect(rig.counts('mangle', 'PREROUTING').slice(0, -1)).toEqual([1, 1]);
    expect(rig.engine.tracking.list(everything).rows.map(({ labels }) => labels)).toEqual([undefined, label(1)]);
    rig.engine.tracking.flush({ cursor: 0, limit: 4096 });
    rig.engine.filter.change({ table: 'mangle', commands: [{ op: 'flush' }] });
    rig.send(ask(55));
    expect(rig.engine.tracking.list(everything).rows.map(({ labels }) => labels)).toEqual([undefined]);
  });

  it('end at 127', () => {
    const rig = new FilterRig();
    const words = ['-m', 'connlabel', '--label', '128'];
    const commands = [{ op: 'append' as const, chain: 'INPUT', rule: { words } }];
    expect(rig.engine.filter.change({ table: 'filter', commands })).toMatchObject({ fault: 'ERANGE' });
  });
});
