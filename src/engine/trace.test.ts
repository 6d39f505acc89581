import { describe, expect, it } from 'vitest';
import type { TraceRecord } from '../model/way.ts';
import { frame } from '../wire/build.ts';
import { explain } from './explain.ts';
import { ExplainRig, explainSpec, RIG_MAC } from './explain-rig.ts';
import { Traces } from './trace.ts';

const T = '-t 10.0.1.100:80';

/** A balancing rig, its traces, and what they have posted. */
function setUp() {
  const rig = new ExplainRig();
  rig.run(`-A ${T} -s rr`, ...[11, 12].map((n) => `-a ${T} -r 10.0.2.${n}:80 -m`));
  const records: TraceRecord[] = [];
  let us = 1_700_000_000_000_000;
  const traces = new Traces(
    rig.engine,
    (batch) => records.push(...batch),
    () => us++,
  );
  return {
    rig,
    traces,
    taken: (): TraceRecord[] => {
      traces.flush();
      return records.splice(0);
    },
  };
}

const request = (srcPort: number, dstPort = 80, flags = 'S') =>
  frame()
    .eth(RIG_MAC.front, RIG_MAC.client)
    .ipv4('10.0.1.2', '10.0.1.100', { ttl: 64 })
    .tcp({ srcPort, dstPort, flags, seq: 1 })
    .build();

describe('a trace', () => {
  it('says of a live packet what explain says of it before', () => {
    const { rig, traces, taken } = setUp();
    expect(traces.start(1, undefined, 'tcp')).toBeNull();
    const foretold = explain(rig.engine, explainSpec('tcp 10.0.1.2:1234 10.0.1.100:80'));
    const [sent] = rig.send(rig.front, request(1234));
    expect(sent!.device).toBe('back');
    const records = taken();
    expect(records).toEqual([{ traceId: 1, timeUs: 1_700_000_000_000_000, missed: 0, ...(foretold as object) }]);
    expect(records[0]!.ways[0]!.end).toMatchObject({ kind: 'sent', device: 'back', via: '10.0.2.12' });
  });

  it('changes nothing of what is sent', () => {
    const frames = [true, false].map((isTraced) => {
      const { rig, traces, taken } = setUp();
      if (isTraced) traces.start(1, undefined, '');
      const sent = [1, 2, 3].flatMap((port) => rig.send(rig.front, request(port)));
      expect(taken()).toHaveLength(isTraced ? 3 : 0);
      return sent.map(({ device, frame: { bytes } }) => [device, Buffer.from(bytes).toString('hex')]);
    });
    expect(frames[0]).toHaveLength(3);
    expect(frames[0]).toEqual(frames[1]);
  });

  it('takes what its filter and its device select; two go on side by side', () => {
    const { rig, traces, taken } = setUp();
    traces.start(1, undefined, 'port 80');
    traces.start(2, 'back', '');
    traces.start(3, 'front', 'tcp');
    const ids = () => taken().map(({ traceId }) => traceId);
    rig.send(rig.front, request(1234));
    expect(ids()).toEqual([1, 3]);
    rig.send(rig.front, request(1234, 81));
    expect(ids()).toEqual([3]);
    traces.stop(3);
    rig.send(rig.front, request(1235));
    expect(ids()).toEqual([1]);
    traces.stop(1);
    traces.stop(2);
    rig.send(rig.front, request(1236));
    expect(taken()).toEqual([]);
    expect(rig.engine.director.notes).toBeNull();
  });

  it('refuses a filter that is none', () => {
    const { traces, rig } = setUp();
    expect(traces.start(1, undefined, 'tcp porrt')).toBe("syntax error in filter expression: unexpected 'porrt'");
    expect(rig.engine.director.notes).toBeNull();
  });

  it('writes down 500 at once and 250 a second, and says what it left out', () => {
    const { rig, traces, taken } = setUp();
    traces.start(1, undefined, 'tcp');
    traces.start(2, undefined, 'port 81');
    const burst = (count: number) => {
      for (let i = 0; i < count; i++) rig.send(rig.front, request(1000 + i));
      return taken();
    };
    expect(burst(520).map(({ missed }) => missed)).toEqual(Array(500).fill(0));
    rig.clock.advance(25);
    rig.engine.breathe();
    expect(burst(20).map(({ missed }) => missed)).toEqual([20, ...Array(19).fill(0)]);
    rig.clock.advance(250);
    rig.engine.breathe();
    // Five ticks were left over, 250 came.
    expect(burst(400)).toHaveLength(255);
    expect(taken()).toEqual([]);
    // Nothing follows: a second later it is said all the same, once, to whom it concerns.
    rig.clock.advance(250);
    rig.engine.breathe();
    expect(taken()).toEqual([{ traceId: 1, timeUs: expect.any(Number), missed: 145, ways: [] }]);
    expect(taken()).toEqual([]);
  });
});
