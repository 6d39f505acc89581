/**
 * An engine of its own for a question: the packet that is explained runs through the real pipeline, on copies of all that it could meet or change.
 *
 * What a packet only reads is shared (routes, addresses); what it changes is copied at once (services, servers, neighbours, settings, the clock's and the random
 * generator's state) or when it is asked for (connections, schedulers). Devices have stand-ins that send nothing. Lives between two breaths of `live`.
 */
import type { Allocate } from '../base/memory.ts';
import { MemoryDevice } from '../device/memory.ts';
import { Interface, LOOPBACK_ID } from '../link/interface.ts';
import { Engine } from './engine.ts';

/** Slots for the packet and all that it begets: 44 fragments of 64 KiB at the smallest usual MTU, and more. */
const PACKETS = 128;
/** New connections, flow rows or neighbours that one packet can make, and more. */
const ROOM = 64;

/** @param allocate memory of its tables */
export function forkEngine(live: Engine, allocate?: Allocate): Engine {
  const rng = live.rng.fork();
  const { conns, flows, services, dests } = live.director;
  const { entries } = live.conntrack;
  const { neighbours } = live.stack.link;
  const fork = new Engine({
    clock: { now: () => live.stack.now },
    rng,
    maxConnections: Math.min(conns.capacity, conns.highWater + ROOM),
    maxEntries: Math.min(entries.capacity, entries.highWater + ROOM),
    maxFlows: Math.min(flows.capacity, flows.highWater + ROOM),
    maxServices: Math.max(1, services.highWater),
    maxDestinations: Math.max(1, dests.highWater),
    maxNeighbours: Math.min(neighbours.capacity, neighbours.top + ROOM),
    maxPackets: PACKETS,
    allocate,
  });
  const { interfaces } = fork.stack.link;
  for (const ifc of live.stack.link.interfaces) {
    if (ifc?.id !== LOOPBACK_ID) interfaces.push(ifc === null ? null : standIn(fork, ifc));
  }
  fork.stack.copyFrom(live.stack);
  const takeover = fork.director.copyFrom(live.director);
  fork.conntrack.copyFrom(live.conntrack);
  const takeFlow = (row: number) => takeover.takeFlow(row);
  takeover.onFlow = (row) => fork.conntrack.adopt(live.conntrack, row, takeFlow);
  fork.conntrack.onLook = (entry) => fork.conntrack.adoptEntry(live.conntrack, entry, takeFlow);
  fork.translation.copyFrom(live.translation);
  fork.filter.copyFrom(live.filter);
  for (const chain of live.hooks.chains) {
    const known = fork.hooks.chains[chain.hook]!.ops.map((op) => op.name);
    fork.hooks.register(chain.ops.filter((op) => !known.includes(op.name)));
  }
  // A packet that is held is the end of its way here.
  for (const queue of live.hooks.queues.keys()) fork.hooks.queues.set(queue, () => true);
  while (fork.pool.available > live.pool.available) fork.pool.take(0);
  rng.state = live.rng.state;
  return fork;
}

function standIn(fork: Engine, ifc: Interface): Interface {
  const { id, name, device, hasNeighbours, isHost, peer } = ifc;
  if (device === null) return new Interface(id, name, null, hasNeighbours, isHost, peer);
  const { medium, mtu, macHi, macLo, canOffload } = device;
  const cable = new MemoryDevice(fork.pool, { name, medium, mtu, macHi, macLo, canOffload, drops: fork.drops });
  cable.keepsSent = false;
  return new Interface(id, name, cable, hasNeighbours, isHost, peer);
}
