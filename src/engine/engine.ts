/**
 * The engine: one turn is a *breath*: receive a burst from each device, run each packet to completion, transmit.   @hot
 *
 * This is the composition root, the only place that knows everyone: it makes the pool, the flow table, the hooks, the host (`ip`) and the director,
 * registers the director's functions, and moves packets between devices and the host. It reads the clock once per breath and hands the value down.
 */
import { type Clock, timeOfDayMs, wallClockMs } from '../base/clock.ts';
import { type Allocate, plainMemory } from '../base/memory.ts';
import type { Rng } from '../base/rng.ts';
import { finish, type Steps } from '../base/slices.ts';
import { Conntrack } from '../conntrack/conntrack.ts';
import { ConntrackControl } from '../conntrack/control.ts';
import { CtDir } from '../conntrack/entry.ts';
import { Tuple } from '../conntrack/tuple.ts';
import type { Device } from '../device/device.ts';
import { addedToReply } from '../director/app/ftp.ts';
import { Director } from '../director/director.ts';
import { RESET_LENGTH } from '../director/resets.ts';
import { SYSCTL_PREFIX } from '../director/sysctl.ts';
import { Filter } from '../filter/filter.ts';
import { FlowTable } from '../flow/flow-table.ts';
import { Hooks } from '../hooks/hooks.ts';
import { IpControl } from '../ip/control.ts';
import { originate, receive, tick } from '../ip/receive.ts';
import { IpStack } from '../ip/stack.ts';
import type { Interface } from '../link/interface.ts';
import { bear, drop, flush } from '../link/link.ts';
import type { IpCommand, IpErrno } from '../model/ip.ts';
import type { IpvsCommand, IpvsErrno } from '../model/ipvs.ts';
import { Manip } from '../nat/range.ts';
import { Translation } from '../nat/translation.ts';
import { Burst } from '../packet/burst.ts';
import { PacketPool } from '../packet/pool.ts';
import { ETH_HEADER } from '../wire/ethernet.ts';
import { filterConditions } from './filter-conditions.ts';
import { invalidLine, LogLines, NOTICE } from './log-lines.ts';
import { getNetfilter, isNetfilterKey, listNetfilter, setNetfilter } from './netfilter-sysctls.ts';
import { ruleTracking } from './rule-tracking.ts';

export interface EngineOptions {
  readonly clock: Clock;
  readonly rng: Rng;
  /** Director connections at most; each takes two flow rows. */
  readonly maxConnections: number;
  /** Tracked connections at most, two flow rows each; as many as the director's when absent. */
  readonly maxEntries?: number | undefined;
  /** Flow rows; enough for both tables when absent. */
  readonly maxFlows?: number;
  /** As of the director, when absent. */
  readonly maxServices?: number | undefined;
  readonly maxDestinations?: number | undefined;
  /** Neighbours; as many as their table can have when absent. */
  readonly maxNeighbours?: number;
  /** Packets alive at once: bursts under way, packets armed for receive, waiting for ARP, or in a queue. */
  readonly maxPackets: number;
  /** Memory of the pool and the tables; plain memory when absent. */
  readonly allocate?: Allocate | undefined;
}

/** A device that had nothing for this many breaths is asked only every sixteenth, while others are busy: an empty read is a system call. */
const SILENT_AFTER = 32;
const ASK_ALL_MASK = 15;
const MAX_INTERFACES = 256;

interface Sysctls {
  get(key: string): string | undefined;
  set(key: string, value: string): 'EINVAL' | 'ENOENT' | 'EPERM' | null;
}

export class Engine {
  readonly pool: PacketPool;
  readonly flows: FlowTable;
  readonly hooks = new Hooks();
  readonly stack: IpStack;
  /** Addresses, routes, neighbours, links and net.ipv4 sysctls. */
  readonly ip: IpControl;
  readonly conntrack: Conntrack;
  /** NAT, helpers and expectations. */
  readonly translation: Translation;
  readonly director: Director;
  /** iptables. */
  readonly filter: Filter;
  /** Connection tracking as requests see it. */
  readonly tracking: ConntrackControl;
  /** What its LOG rules say. */
  readonly logLines: LogLines;
  /** By Drop; the devices count into it too. */
  readonly drops: Float64Array;
  /** Grows when a device came or went: the poll set must be made anew. */
  generation = 0;
  breaths = 0;
  readonly rng: Rng;
  readonly #clock: Clock;
  readonly #burst = new Burst();
  /** Breaths since each interface last had something, by interface id. */
  readonly #silence = new Int32Array(MAX_INTERFACES);

  constructor(options: EngineOptions) {
    const { clock, rng, maxConnections, maxEntries = maxConnections, maxPackets, allocate = plainMemory } = options;
    const now = clock.now();
    this.#clock = clock;
    this.rng = rng;
    this.pool = new PacketPool(maxPackets, allocate);
    this.flows = new FlowTable(options.maxFlows ?? 2 * (maxConnections + maxEntries), rng.next(), allocate);
    this.stack = new IpStack(this.pool, this.hooks, rng, options.maxNeighbours);
    this.stack.now = now;
    this.stack.timeOfDayMs = timeOfDayMs;
    this.ip = new IpControl(this.stack);
    this.drops = this.stack.drops;
    this.conntrack = new Conntrack({
      hooks: this.hooks,
      pool: this.pool,
      flows: this.flows,
      rng,
      now,
      maxEntries,
      allocate,
      wallClock: wallClockMs,
      defrag: this.stack.defrag,
    });
    const { maxServices, maxDestinations } = options;
    this.director = new Director({
      flows: this.flows,
      routing: this.stack,
      reassembly: this.stack.fragments,
      tracking: this.conntrack,
      datagrams: this.stack.datagrams,
      rng,
      now,
      maxConnections,
      maxServices,
      maxDestinations,
      allocate,
    });
    this.hooks.register(this.director.hooks());
    this.logLines = new LogLines(() => this.stack.now);
    const conditions = filterConditions(this.stack, this.logLines);
    this.filter = new Filter(this.hooks, conditions);
    this.translation = new Translation({
      hooks: this.hooks,
      entries: this.conntrack,
      addresses: this.stack,
      rng,
      allocate,
    });
    // The director shifts numbers, too: those of a balanced FTP server whose answers it has rewritten.
    const { offset } = this.conntrack;
    const tuple = new Tuple();
    this.conntrack.offset = (entry, dir, seq) => {
      const added = offset === null ? 0 : offset(entry, dir, seq);
      if (dir === CtDir.Original || this.director.ftp.size === 0) return added;
      this.conntrack.tuple(entry, CtDir.Original, tuple);
      return (added + addedToReply(this.director, tuple.src, tuple.dst, tuple.ports, seq)) | 0;
    };
    this.conntrack.sysctls.onChange = () => this.#useSettings();
    const { nat, expectations } = this.translation;
    this.tracking = new ConntrackControl(this.conntrack, expectations, wallClockMs, (entry, isSource, target) =>
      nat.bindByHand(entry, isSource ? Manip.Src : Manip.Dst, target),
    );
    this.filter.connect(ruleTracking(this.conntrack), nat);
    this.conntrack.onInvalid = (p, hook, text) => this.logLines.say(NOTICE, invalidLine(conditions, p, hook, text));
    this.conntrack.onFull = () => this.logLines.sayRarely('nf_conntrack: table full, dropping packet');
    this.stack.onAddressGone = (device, ip) => nat.addressGone(device, ip);
    this.stack.onAnswer = (answer, about) => this.conntrack.attachAnswer(answer, about);
  }

  /** Settings of connection tracking that others go by. */
  #useSettings(): void {
    const { expectMax, isFtpLoose } = this.conntrack.sysctls;
    this.translation.expectations.max = expectMax;
    this.translation.helpers.isFtpLoose = isFtpLoose;
  }

  /** One turn. Answers how many packets came in; 0 means that nobody had anything for us, and we have nothing for them. */
  breathe(): number {
    this.breaths++;
    const stack = this.stack;
    this.keepTime();
    const interfaces = stack.link.interfaces;
    const silence = this.#silence;
    const asksAll = (this.breaths & ASK_ALL_MASK) === 0;
    let received = 0;
    for (let i = 1; i < interfaces.length; i++) {
      const ifc = interfaces[i]!;
      if (ifc === null || ifc.device === null) continue;
      if (silence[i]! > SILENT_AFTER && !asksAll) continue;
      const n = this.#drain(ifc, ifc.device);
      silence[i] = n > 0 ? 0 : silence[i]! + 1;
      received += n;
    }
    if (this.director.resets.isDue) this.#sendResets();
    flush(stack.link);
    return received === 0 && this.#isBehind ? 1 : received;
  }

  /** Is there something to do for us though nobody has something? */
  get #isBehind(): boolean {
    const { director, conntrack, translation } = this;
    return director.sync.isBusy || director.conns.isBehind || conntrack.entries.isBehind || translation.nat.isBehind;
  }

  /** What is due by now happens. */
  keepTime(): void {
    const stack = this.stack;
    const now = this.#clock.now();
    if (now === stack.now) return;
    stack.now = now;
    this.conntrack.advance(now);
    this.translation.advance(now);
    this.director.advance(now);
    tick(stack);
  }

  /** After a sleep: any device may have something. */
  wake(): void {
    this.#silence.fill(0);
  }

  /** What the director wants to be said to both sides of connections that it ends. */
  #sendResets(): void {
    const { link } = this.stack;
    const { resets } = this.director;
    while (resets.next()) {
      const p = bear(link, ETH_HEADER + RESET_LENGTH);
      if (p === null) return;
      if (resets.emit(p)) originate(this.stack, p);
      else drop(link, p, p.drop);
    }
  }

  #drain(ifc: Interface, device: Device): number {
    const burst = this.#burst;
    const n = device.receive(burst);
    const packets = burst.packets;
    for (let i = 0; i < n; i++) {
      const p = packets[i]!;
      packets[i] = null;
      receive(this.stack, ifc, p);
    }
    burst.clear();
    return n;
  }

  // cold: devices come and go
  /** @param peer the kernel's side of the host port, int32; 0 for none */
  addDevice(device: Device, options: { readonly isHost?: boolean; readonly peer?: number } = {}): Interface {
    const ifc = this.ip.addInterface(device, options);
    if (ifc.id >= MAX_INTERFACES) {
      finish(this.ip.removeInterface(ifc.id));
      throw new Error(`${device.name}: more than ${MAX_INTERFACES - 1} devices`);
    }
    this.generation++;
    this.filter.devicesChanged();
    return ifc;
  }

  /** False when there is no such device. */
  removeDevice(name: string): boolean {
    return finish(this.removeInSteps(name));
  }

  *removeInSteps(name: string): Steps<boolean> {
    const ifc = this.stack.link.findInterface(name);
    if (ifc === undefined || ifc.device === null) return false;
    this.director.sync.forget(ifc.id);
    yield* this.ip.removeInterface(ifc.id);
    ifc.device.close();
    this.generation++;
    this.filter.devicesChanged();
    return true;
  }

  /** Run commands in order, each on its own; null for one that worked. */
  executeIp(commands: readonly IpCommand[]): (IpErrno | null)[] {
    return commands.map((command) => this.ip.run(command));
  }

  executeIpvs(commands: readonly IpvsCommand[]): (IpvsErrno | null)[] {
    return this.director.execute(commands);
  }

  /** Value of a sysctl as procps prints it; undefined when there is no such key. */
  getSysctl(key: string): string | undefined {
    return isNetfilterKey(key) ? getNetfilter(this.conntrack.sysctls, key) : this.#sysctlsOf(key).get(key);
  }

  setSysctl(key: string, value: string): 'EINVAL' | 'ENOENT' | 'EPERM' | null {
    if (isNetfilterKey(key)) return setNetfilter(this.conntrack.sysctls, key, value);
    return this.#sysctlsOf(key).set(key, value);
  }

  listSysctls(): (readonly [string, string])[] {
    return [...this.ip.sysctls.list(), ...this.director.sysctls.list(), ...listNetfilter(this.conntrack.sysctls)];
  }

  #sysctlsOf(key: string): Sysctls {
    return key.startsWith(SYSCTL_PREFIX) ? this.director.sysctls : this.ip.sysctls;
  }

  /** Descriptors to sleep on. */
  pollFds(): number[] {
    return this.stack.link.interfaces.flatMap((ifc) => (ifc?.device && ifc.device.fd >= 0 ? [ifc.device.fd] : []));
  }

  close(): void {
    for (const ifc of this.stack.link.interfaces) ifc?.device?.close();
  }
}
