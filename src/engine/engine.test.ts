import { describe, expect, it } from 'vitest';
import { ManualClock } from '../base/clock.ts';
import { SeededRng } from '../base/rng.ts';
import { MemoryDevice } from '../device/memory.ts';
import { mac } from '../wire/addr.ts';
import { describeFrame, frame } from '../wire/build.ts';
import { Engine } from './engine.ts';

const CLIENT = '02:00:00:00:01:02';

function rig() {
  const clock = new ManualClock(0);
  const engine = new Engine({ clock, rng: new SeededRng(1), maxConnections: 100, maxPackets: 256 });
  const device = (name: string, address: string): MemoryDevice => {
    const { hi, lo } = mac(address);
    const d = new MemoryDevice(engine.pool, { name, macHi: hi, macLo: lo, drops: engine.drops });
    engine.addDevice(d);
    return d;
  };
  const [front, back] = [device('front', '02:00:00:00:01:01'), device('back', '02:00:00:00:02:01')];
  engine.executeIp([
    { op: 'addr-add', device: 'front', address: '10.0.1.1', prefixLength: 24 },
    { op: 'addr-add', device: 'back', address: '10.0.2.1', prefixLength: 24 },
  ]);
  engine.breathe();
  front.takeSent();
  back.takeSent();
  return { engine, clock, front, back };
}

const question = (to: string, target: string): Uint8Array =>
  frame().eth(to, CLIENT).arp({ op: 'request', senderMac: CLIENT, sender: '10.0.1.2', target }).build();

describe('Engine', () => {
  it('takes at most a burst from each device in one breath, and answers how many', () => {
    const { engine, front, back } = rig();
    for (let i = 0; i < 100; i++) front.inject(question('ff:ff:ff:ff:ff:ff', '10.0.1.1'));
    back.inject(question('ff:ff:ff:ff:ff:ff', '10.0.2.1'));
    expect(engine.breathe()).toBe(65);
    expect(engine.breathe()).toBe(36);
    expect(engine.breathe()).toBe(0);
    expect(front.takeSent()).toHaveLength(100);
    expect(describeFrame(back.takeSent()[0]!.bytes)).toContain('10.0.2.1 is-at 02:00:00:00:02:01');
  });

  it('asks a silent device rarely while another is busy, but never forgets it', () => {
    const { engine, front, back } = rig();
    const busy = (): number => {
      front.inject(question('ff:ff:ff:ff:ff:ff', '10.0.1.1'));
      return engine.breathe();
    };
    for (let i = 0; i < 100; i++) busy();
    back.inject(question('ff:ff:ff:ff:ff:ff', '10.0.2.1'));
    let breaths = 0;
    while (back.takeSent().length === 0 && breaths < 100) {
      busy();
      breaths++;
    }
    expect(breaths).toBeLessThanOrEqual(16);
    // Awake again, it is asked each time.
    back.inject(question('ff:ff:ff:ff:ff:ff', '10.0.2.1'));
    busy();
    expect(back.takeSent()).toHaveLength(1);
  });

  it('closes a removed device and forgets what was its', () => {
    const { engine, back } = rig();
    const { generation } = engine;
    expect(engine.removeDevice('back')).toBe(true);
    expect(engine.removeDevice('back')).toBe(false);
    expect(engine.generation).toBeGreaterThan(generation);
    back.inject(question('ff:ff:ff:ff:ff:ff', '10.0.2.1'));
    expect(engine.breathe()).toBe(0);
    expect(engine.ip.listAddresses().map((a) => a.device)).toEqual(['front']);
  });

  it('knows both families of sysctls', () => {
    const { engine } = rig();
    expect(engine.setSysctl('net.ipv4.ip_forward', '1')).toBeNull();
    expect(engine.getSysctl('net.ipv4.ip_forward')).toBe('1');
    expect(engine.getSysctl('net.ipv4.vs.conn_reuse_mode')).toBe('1');
    expect(engine.setSysctl('net.ipv4.vs.nonsense', '1')).toBe('ENOENT');
    expect(engine.getSysctl('net.ipv4.nonsense')).toBeUndefined();
    const keys = engine.listSysctls().map(([key]) => key);
    expect(keys).toContain('net.ipv4.ip_forward');
    expect(keys).toContain('net.ipv4.vs.conntrack');
  });
});
