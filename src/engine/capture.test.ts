import { describe, expect, it } from 'vitest';
import { Hook, Verdict } from '../hooks/hooks.ts';
import { MAC, Rig } from '../ip/rig.ts';
import { Drop } from '../packet/drop.ts';
import { describeFrame, describePacket, frame } from '../wire/build.ts';
import { Captures } from './capture.ts';
import type { CaptureRecord, CaptureSpec } from './messages.ts';

const ALL: CaptureSpec = { filter: '', snapLength: 0 };

/** A rig, its captures, and what they have posted. */
function setUp(options: ConstructorParameters<typeof Rig>[0] = {}) {
  const rig = new Rig(options);
  const records: CaptureRecord[] = [];
  let us = 1_700_000_000_000_000;
  const captures = new Captures(
    rig,
    (batch) => records.push(...batch),
    () => us++,
  );
  return {
    rig,
    captures,
    /** `front in: sentence`, one line per record since the last call. */
    told: (): string[] => {
      captures.flush();
      return records.splice(0).map((r) => `${r.device} ${r.direction}: ${r.comment}`);
    },
    taken: (): CaptureRecord[] => {
      captures.flush();
      return records.splice(0);
    },
  };
}

const toServer = (fields = {}) =>
  frame()
    .eth(MAC.front, MAC.client)
    .ipv4('10.0.1.2', '10.0.2.2', fields)
    .tcp({ srcPort: 1024, dstPort: 80, flags: 'S' });

describe('what became of a packet', () => {
  it('forwarded: once as it came, once as it went', () => {
    const { rig, captures, taken } = setUp();
    expect(captures.start(1, ALL)).toBeNull();
    const sent = toServer().build();
    rig.send(rig.front, sent);
    const records = taken();
    expect(records.map((r) => [r.captureId, r.device, r.direction, r.medium, r.comment])).toEqual([
      [1, 'front', 'in', 'ethernet', 'forwarded to back via 10.0.2.2'],
      [1, 'back', 'out', 'ethernet', 'forwarded from front'],
    ]);
    // The copy of what came is from before anybody touched it.
    expect(records[0]!.bytes).toEqual(sent);
    expect(records[0]!.length).toBe(sent.length);
    expect(describeFrame(records[1]!.bytes)).toContain(`${MAC.back} > ${MAC.server} IP`);
    expect(records[1]!.timeUs).toBeGreaterThan(records[0]!.timeUs);
  });

  it('dropped, with the reason', () => {
    const { rig, captures, told } = setUp();
    captures.start(1, { ...ALL, filter: 'tcp' });
    rig.send(rig.front, toServer({ ttl: 1 }).build());
    expect(told()).toEqual(['front in: dropped: TtlExceeded: TTL reached zero in transit']);
  });

  it('answered by tapvs: echo, reset, ARP', () => {
    const { rig, captures, told } = setUp();
    captures.start(1, { ...ALL, device: 'front' });
    rig.send(
      rig.front,
      frame().eth(MAC.front, MAC.client).ipv4('10.0.1.2', '10.0.1.1').icmp({ type: 8, id: 1, seq: 1 }).build(),
    );
    expect(told()).toEqual(['front in: answered: echo reply sent', 'front out: sent by tapvs itself']);
    rig.send(
      rig.front,
      frame()
        .eth(MAC.front, MAC.client)
        .ipv4('10.0.1.2', '10.0.1.1')
        .tcp({ srcPort: 9, dstPort: 9, flags: 'S' })
        .build(),
    );
    expect(told().sort()).toEqual(['front in: answered: TCP reset sent', 'front out: sent by tapvs itself']);
    rig.send(
      rig.front,
      frame()
        .eth(MAC.all, MAC.client)
        .arp({ op: 'request', senderMac: MAC.client, sender: '10.0.1.2', target: '10.0.1.1' })
        .build(),
    );
    expect(told()).toEqual(['front in: answered: ARP reply sent', 'front out: sent by tapvs itself']);
  });

  it('delivered to the host port, and sent from it', () => {
    const { rig, captures, told } = setUp({ hostPort: true });
    captures.start(1, ALL);
    rig.send(
      rig.front,
      frame().eth(MAC.front, MAC.client).ipv4('10.0.1.2', '10.0.3.2').tcp({ srcPort: 9, dstPort: 22 }).build(),
    );
    expect(told()).toEqual([
      'front in: delivered to the host port',
      'host out: delivered to the host port, received on front',
    ]);
    rig.send(rig.host, frame().ipv4('10.0.3.2', '10.0.2.2').tcp({ srcPort: 1, dstPort: 80 }).build());
    expect(told()).toEqual(['host in: forwarded to back via 10.0.2.2', 'back out: sent by a program of this machine']);
  });

  it('is known late when the packet waits for a neighbour', () => {
    const { rig, captures, told } = setUp();
    captures.start(1, { ...ALL, filter: 'tcp' });
    const stranger = () =>
      frame().eth(MAC.front, MAC.client).ipv4('10.0.1.2', '10.0.2.77').tcp({ srcPort: 1, dstPort: 2 }).build();
    rig.send(rig.front, stranger());
    expect(told()).toEqual([]);
    rig.pass(5);
    expect(told()).toEqual(['front in: dropped: NeighbourFailed: the next hop does not answer ARP']);
  });

  it('counts as one for a super-packet that is cut in software', () => {
    const { rig, captures, told } = setUp();
    rig.back.canOffload = false;
    captures.start(1, { ...ALL, device: 'front' });
    rig.send(rig.front, toServer().payload(4000).build(), { gsoType: 1, gsoSize: 1400, csumPartial: 1 });
    expect(told()).toEqual(['front in: forwarded to back via 10.0.2.2']);
    expect(rig.outBytes(rig.back)).toHaveLength(3);
  });
});

describe('at a hook', () => {
  it('the verdict is told, with the reason of a drop', () => {
    const { rig, captures, told, taken } = setUp();
    for (const [id, hook] of ['PREROUTING', 'forward', 'POSTROUTING', 'INPUT'].entries()) {
      expect(captures.start(id, { ...ALL, hook })).toBeNull();
    }
    rig.send(rig.front, toServer().build());
    expect(told()).toEqual([
      'front in: PREROUTING: ACCEPT',
      'front in: FORWARD: ACCEPT',
      'back out: POSTROUTING: ACCEPT',
    ]);
    rig.hooks.register([
      {
        hook: Hook.Forward,
        priority: 0,
        name: 'test/refuse',
        why: 'test',
        run: (p) => {
          p.drop = Drop.DirectorNoDestination;
          return Verdict.Drop;
        },
      },
    ]);
    rig.send(rig.front, toServer().build());
    const [, refused] = taken();
    expect(refused!.comment).toBe('FORWARD: DROP: DirectorNoDestination: no real server available for the service');
    expect(refused!.medium).toBe('ip');
    expect(describePacket(refused!.bytes)).toContain('10.0.1.2.1024 > 10.0.2.2.80');
  });

  it('only of a device, when one is named', () => {
    const { rig, captures, told } = setUp();
    captures.start(1, { ...ALL, hook: 'PREROUTING', device: 'back' });
    rig.send(rig.front, toServer().build());
    rig.send(
      rig.back,
      frame().eth(MAC.back, MAC.server).ipv4('10.0.2.2', '10.0.1.2').tcp({ srcPort: 80, dstPort: 1024 }).build(),
    );
    expect(told()).toEqual(['back in: PREROUTING: ACCEPT']);
  });
});

describe('a capture', () => {
  it('takes what its filter selects, up to its snap length, beside others', () => {
    const { rig, captures, taken } = setUp();
    captures.start(1, { ...ALL, filter: 'port 80', snapLength: 20, device: 'front' });
    captures.start(2, { ...ALL, filter: 'tcp', device: 'front' });
    captures.start(3, { ...ALL, filter: 'udp' });
    rig.send(rig.front, toServer().build());
    expect(taken().map((r) => [r.captureId, r.bytes.length, r.length])).toEqual([
      [1, 20, 54],
      [2, 54, 54],
    ]);
  });

  it('costs the stack nothing before it begins and after it has ended', () => {
    const { rig, captures, told } = setUp();
    expect(rig.stack.tap).toBeNull();
    captures.start(1, ALL);
    captures.start(2, ALL);
    captures.stop(1);
    expect(rig.stack.tap).not.toBeNull();
    captures.stop(2);
    captures.stop(2);
    expect(rig.stack.tap).toBeNull();
    rig.send(rig.front, toServer().build());
    expect(told()).toEqual([]);
  });

  it('that cannot begin says why', () => {
    const { rig, captures } = setUp();
    expect(captures.start(1, { ...ALL, device: 'nope' })).toBe("no device 'nope'; there are: front, back");
    expect(captures.start(1, { ...ALL, hook: 'NOPE' })).toBe(
      "no hook 'NOPE'; there are: PREROUTING, LOCAL_IN, FORWARD, LOCAL_OUT, POSTROUTING",
    );
    expect(captures.start(1, { ...ALL, filter: 'tcp port' })).toMatch(/^syntax error in filter expression: /);
    expect(rig.stack.tap).toBeNull();
  });

  it('keeps its memory bounded, and says how much is missing', () => {
    const { rig, captures, taken } = setUp();
    captures.start(1, { ...ALL, device: 'front' });
    for (let i = 0; i < 5000; i++) {
      rig.send(rig.front, toServer().build());
      rig.outBytes(rig.back);
    }
    expect(taken()).toHaveLength(4096);
    expect(captures.dropped).toBe(5000 - 4096);
    rig.pass(1);
    rig.send(rig.front, toServer().build());
    rig.send(rig.front, toServer().build());
    expect(taken().map((r) => r.comment)).toEqual([
      'forwarded to back via 10.0.2.2; 904 packets before this one could not be captured',
      'forwarded to back via 10.0.2.2',
    ]);
  });
});
