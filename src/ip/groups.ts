/**
 * Multicast groups that this host is in, and IGMP, by which routers and snooping bridges know of it. Not per packet, but for `isMember`.
 * RFC 3376; what is sent when, and that version 2 or 1 is spoken while a querier does, is the kernel's net/ipv4/igmp.c.
 */
import { milliseconds, seconds } from '../base/clock.ts';
import { Hook } from '../hooks/hooks.ts';
import { bear, drop } from '../link/link.ts';
import { Drop } from '../packet/drop.ts';
import type { Packet } from '../packet/packet.ts';
import { ip4 } from '../wire/addr.ts';
import { ETH_HEADER } from '../wire/ethernet.ts';
import * as igmp from '../wire/igmp.ts';
import * as ipv4 from '../wire/ipv4.ts';
import type { IpStack } from './stack.ts';

const { ToExclude, ToInclude, IsExclude } = igmp.IgmpRecord;
const ALL_HOSTS: number = ip4('224.0.0.1');
const ALL_ROUTERS: number = ip4('224.0.0.2');
const ALL_REPORTS: number = ip4('224.0.0.22');
/** How often a change is told: the robustness variable. */
const TELL = 2;
/** A change is told again within this time, ms (igmpv3_unsolicited_report_interval, igmpv2_…). */
const AGAIN_V3_MS = 1000;
const AGAIN_V2_MS = 10_000;
/** For so long the older version is spoken after its querier was heard: 2 × 125 s and the answer's 10 s. */
const OLD_QUERIER = seconds(260);
/** Internetwork control (RFC 2236 §2 asks for it, as RFC 3376 does). */
const TOS = 0xc0;
/** Header with the router alert option (RFC 2113). */
const HEADER = 24;
const ROUTER_ALERT = 0x94040000 | 0;

interface Membership {
  readonly device: number;
  readonly group: number;
  users: number;
  /** Ticks at which a report that was asked for is due; undefined when none is. */
  reportAt: number | undefined;
  /** We were the last to report it, so we say when we leave (version 2). */
  isReporter: boolean;
}

/** A change that routers are told. */
interface Change {
  readonly device: number;
  readonly group: number;
  readonly record: number;
  left: number;
  due: number;
}

export class Groups {
  #members: Membership[] = [];
  #changes: Change[] = [];
  /** By device: what its querier speaks, and until when. */
  readonly #queriers = new Map<number, { version: 1 | 2; until: number }>();

  /** Become a copy. */
  copyFrom(live: Groups): void {
    this.#members = live.#members.map((member) => ({ ...member }));
    this.#changes = live.#changes.map((change) => ({ ...change }));
    for (const [device, querier] of live.#queriers) this.#queriers.set(device, { ...querier });
  }

  /** Is the group one of ours on the device? With any other, we are among all hosts. */
  isMember(device: number, group: number): boolean {
    for (let i = 0; i < this.#members.length; i++) {
      const m = this.#members[i]!;
      if (m.device === device && (m.group === group || group === ALL_HOSTS)) return true;
    }
    return false;
  }

  join(stack: IpStack, device: number, group: number): void {
    const known = this.#members.find((m) => m.device === device && m.group === group);
    if (known !== undefined) {
      known.users++;
      return;
    }
    this.#members.push({ device, group, users: 1, reportAt: undefined, isReporter: false });
    this.#change(stack, device, group, ToExclude);
  }

  leave(stack: IpStack, device: number, group: number): void {
    const at = this.#members.findIndex((m) => m.device === device && m.group === group);
    const member = this.#members[at];
    if (member === undefined || --member.users > 0) return;
    this.#members.splice(at, 1);
    const version = this.#version(device);
    if (version === 3 || (version === 2 && member.isReporter)) this.#change(stack, device, group, ToInclude);
    else this.#changes = this.#changes.filter((c) => c.device !== device || c.group !== group);
  }

  /** The device is gone, and nobody there to tell. */
  forget(device: number): void {
    this.#members = this.#members.filter((m) => m.device !== device);
    this.#changes = this.#changes.filter((c) => c.device !== device);
    this.#queriers.delete(device);
  }

  #version(device: number): 1 | 2 | 3 {
    return this.#queriers.get(device)?.version ?? 3;
  }

  #change(stack: IpStack, device: number, group: number, record: number): void {
    this.#changes = this.#changes.filter((c) => c.device !== device || c.group !== group);
    const change = { device, group, record, left: TELL, due: stack.now };
    this.#changes.push(change);
    this.#tell(stack, change);
  }

  /** Tell of a change, and set when to tell again. */
  #tell(stack: IpStack, change: Change): void {
    const { device, group, record } = change;
    const version = this.#version(device);
    if (version === 3) report(stack, device, record, [group]);
    else if (record === ToExclude) this.#reportOld(stack, device, group, version);
    else sendOld(stack, device, ALL_ROUTERS, igmp.IgmpType.LeaveV2, group);
    // A leave of version 2 is said once.
    change.left = version !== 3 && record === ToInclude ? 0 : change.left - 1;
    change.due = (stack.now + delay(stack, version === 3 ? AGAIN_V3_MS : AGAIN_V2_MS)) | 0;
  }

  #reportOld(stack: IpStack, device: number, group: number, version: 1 | 2): void {
    const { ReportV1, ReportV2 } = igmp.IgmpType;
    sendOld(stack, device, group, version === 1 ? ReportV1 : ReportV2, group);
    const member = this.#members.find((m) => m.device === device && m.group === group);
    if (member !== undefined) member.isReporter = true;
  }

  /** Once per breath. */
  tick(stack: IpStack): void {
    for (const [device, { until }] of this.#queriers) if (((stack.now - until) | 0) > 0) this.#queriers.delete(device);
    if (this.#members.length === 0 && this.#changes.length === 0) return;
    for (const change of this.#changes) if (((stack.now - change.due) | 0) >= 0) this.#tell(stack, change);
    if (this.#changes.some((c) => c.left <= 0)) this.#changes = this.#changes.filter((c) => c.left > 0);
    for (const m of this.#members) {
      if (m.reportAt === undefined || ((stack.now - m.reportAt) | 0) < 0) continue;
      const version = this.#version(m.device);
      if (version === 3) {
        // All that are due on the device stand in one report.
        const due = this.#members.filter((o) => o.device === m.device && o.reportAt === m.reportAt);
        for (const other of due) other.reportAt = undefined;
        report(
          stack,
          m.device,
          IsExclude,
          due.map((other) => other.group),
        );
      } else {
        m.reportAt = undefined;
        this.#reportOld(stack, m.device, m.group, version);
      }
    }
  }

  /** An IGMP message for one of our groups. */
  input(stack: IpStack, p: Packet): void {
    const { view, l4, end } = p;
    const { Query, ReportV1, ReportV2, LeaveV2, ReportV3 } = igmp.IgmpType;
    if (ipv4.isFragment(view, p.l3) || !igmp.isSound(view, l4, end)) return drop(stack.link, p, Drop.IgmpMalformed);
    const type = igmp.type(view, l4);
    if (type === Query) this.#query(stack, p);
    else if (type === ReportV1 || type === ReportV2) this.#heard(p.inDevice, igmp.group(view, l4));
    else if (type !== LeaveV2 && type !== ReportV3) return drop(stack.link, p, Drop.IgmpMalformed);
    drop(stack.link, p, Drop.IgmpTaken);
  }

  #query(stack: IpStack, p: Packet): void {
    const version = igmp.queryVersion(p.view, p.l4, p.end);
    const device = p.inDevice;
    if (version !== 3) {
      const known = this.#version(device);
      const spoken = known === 1 ? 1 : version;
      this.#queriers.set(device, { version: spoken, until: (stack.now + OLD_QUERIER) | 0 });
      // What version 3 had under way ends (igmpv3_clear_delrec).
      this.#changes = this.#changes.filter((c) => c.device !== device);
    }
    const asked = igmp.group(p.view, p.l4);
    const longest = igmp.maxResponse(p.view, p.l4, version);
    const together = (stack.now + delay(stack, longest)) | 0;
    for (const m of this.#members) {
      if (m.device !== device || (asked !== 0 && m.group !== asked)) continue;
      const at = version === 3 ? together : (stack.now + delay(stack, longest)) | 0;
      if (m.reportAt === undefined || ((at - m.reportAt) | 0) < 0) m.reportAt = at;
    }
  }

  /** Another host has said it: versions 1 and 2 need one voice only. */
  #heard(device: number, group: number): void {
    if (this.#version(device) === 3) return;
    for (const m of this.#members) {
      if (m.device !== device || m.group !== group) continue;
      m.reportAt = undefined;
      m.isReporter = false;
    }
  }
}

/** Ticks, 1 … those of `ms`. */
function delay(stack: IpStack, ms: number): number {
  return 1 + ((stack.link.rng.next() >>> 0) % milliseconds(ms));
}

function report(stack: IpStack, device: number, record: number, groups: readonly number[]): void {
  const q = begin(stack, device, ALL_REPORTS, igmp.IGMP_LENGTH + groups.length * igmp.IGMP_RECORD);
  if (q === null) return;
  igmp.emitReport(q.view, q.l4, record, groups);
  stack.defer(q, Hook.LocalOut);
}

function sendOld(stack: IpStack, device: number, to: number, type: number, group: number): void {
  const q = begin(stack, device, to, igmp.IGMP_LENGTH);
  if (q === null) return;
  igmp.emitOld(q.view, q.l4, type, group);
  stack.defer(q, Hook.LocalOut);
}

/** A packet with its IP header, for `length` bytes of IGMP; null when there is no room, or no such device. */
function begin(stack: IpStack, device: number, to: number, length: number): Packet | null {
  if ((stack.link.interfaces[device] ?? null) === null) return null;
  const q = bear(stack.link, ETH_HEADER + HEADER + length);
  if (q === null) return null;
  const source = stack.addresses.own(device);
  ipv4.emit(q.view, q.l3, HEADER + length, ipv4.IpProto.Igmp, source, to, 1, TOS, 0, ipv4.DF);
  q.view.setUint8(q.l3, 0x46);
  q.view.setInt32(q.l3 + ipv4.IPV4_HEADER, ROUTER_ALERT);
  ipv4.fillChecksum(q.view, q.l3);
  q.l4 = q.l3 + HEADER;
  q.proto = ipv4.IpProto.Igmp;
  q.isLocalOut = 1;
  q.nexthop = to;
  q.outDevice = device;
  return q;
}
