import { describe, expect, it } from 'vitest';
import { Hook, type HookOp, Priority, Verdict } from '../hooks/hooks.ts';
import { MAC, Rig } from '../ip/rig.ts';
import { type FrameBuilder, frame } from '../wire/build.ts';
import { type MarkRule, TestMarks } from './test-marks.ts';

const tcp = (from: string, to: string, dstPort: number): FrameBuilder =>
  frame().eth(MAC.front, MAC.client).ipv4(from, to).tcp({ srcPort: 1234, dstPort });
const ours = (dstPort: number) => tcp('10.0.1.2', '10.0.1.1', dstPort);
const others = (dstPort: number) => tcp('10.0.1.2', '10.0.2.2', dstPort);

/** The marks that packets have on LOCAL_IN and FORWARD, behind these rules. */
function marksOf(rules: readonly MarkRule[], ...packets: readonly FrameBuilder[]): number[] {
  const rig = new Rig();
  const marks = new TestMarks(rig.stack.hooks, (id) => rig.stack.link.interfaces[id]?.name);
  const seen: number[] = [];
  const look = (hook: Hook): HookOp => ({
    hook,
    priority: Priority.Filter,
    name: 'look',
    why: 'test',
    run: (p) => {
      seen.push(p.mark);
      return Verdict.Accept;
    },
  });
  rig.stack.hooks.register([look(Hook.LocalIn), look(Hook.Forward)]);
  marks.set(rules);
  for (const packet of packets) rig.send(rig.front, packet.build());
  return seen;
}

const full = { value: 7, mask: 0xffffffff };

describe('TestMarks', () => {
  it('marks by protocol, addresses and ports', () => {
    const rules: MarkRule[] = [
      {
        hook: 'PreRouting',
        protocol: 6,
        destination: '10.0.1.0/24',
        destinationPorts: [
          [80, 89],
          [443, 443],
        ],
        ...full,
      },
    ];
    expect(marksOf(rules, ours(80), ours(89), ours(90), ours(443), others(80))).toEqual([7, 7, 0, 7, 0]);
    expect(marksOf([{ hook: 'PreRouting', protocol: 17, ...full }], ours(80))).toEqual([0]);
    expect(
      marksOf([{ hook: 'PreRouting', source: '10.0.1.2', sourcePorts: [[1234, 1234]], ...full }], ours(1)),
    ).toEqual([7]);
  });

  it('marks in the hook that the rule names, and by the device that the packet came in by', () => {
    expect(marksOf([{ hook: 'Forward', ...full }], ours(80), others(80))).toEqual([0, 7]);
    const [front, back] = ['front', 'back'].map((inDevice): MarkRule => ({ hook: 'PreRouting', inDevice, ...full }));
    expect(marksOf([front!], ours(80))).toEqual([7]);
    expect(marksOf([back!], ours(80))).toEqual([0]);
  });

  it('changes the bits of its mask only, one rule after the other', () => {
    const rules: MarkRule[] = [
      { hook: 'PreRouting', value: 0xf1, mask: 0xffffffff },
      { hook: 'PreRouting', value: 0x02, mask: 0x0f },
    ];
    expect(marksOf(rules, ours(80))).toEqual([0xf2]);
  });

  it('marks a fragment without ports by addresses only', () => {
    const later = frame().eth(MAC.front, MAC.client).ipv4('10.0.1.2', '10.0.2.2', { offset: 1480 }).payload(20);
    const rules: MarkRule[] = [{ hook: 'PreRouting', destinationPorts: [[0, 65535]], ...full }];
    expect(marksOf(rules, later)).toEqual([0]);
    expect(marksOf([{ hook: 'PreRouting', ...full }], later)).toEqual([7]);
  });
});
