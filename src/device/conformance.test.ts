import { ManualClock } from '../base/clock.ts';
import { SeededRng } from '../base/rng.ts';
import type { PacketPool } from '../packet/pool.ts';
import { type Capture, LinkType, pcapHeader, pcapRecord, readCapture } from '../wire/pcap.ts';
import { deviceConformance, type World } from './conformance.ts';
import { type Device, Medium } from './device.ts';
import { FaultDevice } from './fault.ts';
import { MemoryDevice, type MemoryDeviceOptions } from './memory.ts';
import { PcapDevice } from './pcap.ts';
import { TracerDevice } from './tracer.ts';

/** A memory device, and maybe a wrapper around it. */
async function memoryWorld(
  pool: PacketPool,
  options: MemoryDeviceOptions,
  wrap: (device: Device) => Device = (device) => device,
): Promise<World> {
  const memory = new MemoryDevice(pool, options);
  return {
    device: wrap(memory),
    deliver: async (frames) => {
      for (const frame of frames) memory.inject(frame);
    },
    collect: async () => memory.takeSent().map((frame) => frame.bytes),
    end: async () => {},
  };
}

deviceConformance({ name: 'memory', open: (pool, drops) => memoryWorld(pool, { drops }) });
deviceConformance({
  name: 'memory without a link header',
  open: (pool, drops) => memoryWorld(pool, { drops, medium: Medium.Ip }),
});
deviceConformance({
  name: 'memory, one of a pair',
  open: async (pool, drops) => {
    const [device, peer] = MemoryDevice.pair(pool, { drops }, {});
    const probe = new MemoryDevice(pool);
    return {
      device,
      deliver: async (frames) => {
        for (const frame of frames) device.inject(frame);
      },
      collect: async () => {
        // What arrives at the peer, read by sending it on into a device that keeps copies.
        const { Burst } = await import('../packet/burst.ts');
        const burst = new Burst();
        while (peer.receive(burst) > 0) probe.transmit(burst);
        return probe.takeSent().map((frame) => frame.bytes);
      },
      end: async () => peer.close(),
    };
  },
});
deviceConformance({
  name: 'tracer',
  open: (pool, drops) => memoryWorld(pool, { drops }, (device) => new TracerDevice(device, () => {})),
});
deviceConformance({
  name: 'fault with nothing to spoil',
  open: (pool, drops) =>
    memoryWorld(
      pool,
      { drops },
      (device) => new FaultDevice(device, { pool, rng: new SeededRng(1), clock: new ManualClock(), drops }),
    ),
});

/** What a list of frames is as a capture file that was read. */
function captureOf(frames: readonly Uint8Array[]): Capture {
  const parts = [pcapHeader(LinkType.Ethernet), ...frames.map((frame) => pcapRecord(0, frame, frame.length))];
  return readCapture(Buffer.concat(parts));
}

deviceConformance({
  name: 'pcap, recording',
  deviations: { sendsOnly: 'what it replays is fixed when it is opened: pcap.test.ts' },
  open: async (pool, drops) => {
    const chunks: Uint8Array[] = [];
    const record = { write: (chunk: Uint8Array) => void chunks.push(Uint8Array.from(chunk)), close: () => {} };
    const device = new PcapDevice(pool, { name: 'pcap', replay: captureOf([]), record, drops, nowUs: () => 0 });
    return {
      device,
      deliver: async () => {},
      collect: async () => readCapture(Buffer.concat(chunks)).frames.map((frame) => Uint8Array.from(frame.bytes)),
      end: async () => {},
    };
  },
});
