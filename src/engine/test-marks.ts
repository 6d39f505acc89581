/**
 * Marks for tests, until iptables can set them: what rules of `iptables -t mangle … -j MARK` say, as a list that a test replaces whole.
 *
 * Only in the daemon's test mode (`tapvsd --test-marks`); without it nothing is registered. A rule says the mark's bits as xt_MARK does: those of `mask`
 * are cleared, then those of `value` turned over.
 */
import { Hook, type HookOp, type Hooks, Priority, Verdict } from '../hooks/hooks.ts';
import { NONE, type Packet } from '../packet/packet.ts';
import { netmask, parsePrefix } from '../wire/addr.ts';
import { dst, IpProto, src } from '../wire/ipv4.ts';

/** Lowest and highest, both included. */
export type PortRange = readonly [number, number];

export interface MarkRule {
  readonly hook: keyof typeof Hook;
  /** 0 or absent: every protocol. */
  readonly protocol?: number | undefined;
  readonly source?: string | undefined;
  readonly destination?: string | undefined;
  /** Any of them; they need TCP or UDP. */
  readonly sourcePorts?: readonly PortRange[] | undefined;
  readonly destinationPorts?: readonly PortRange[] | undefined;
  readonly inDevice?: string | undefined;
  readonly outDevice?: string | undefined;
  readonly value: number;
  readonly mask: number;
}

/** Names of devices by id. */
export type DeviceName = (id: number) => string | undefined;

const HAS_PORTS: readonly number[] = [IpProto.Tcp, IpProto.Udp, IpProto.Sctp];
const WHY = 'marks that a test asked for';

export class TestMarks {
  readonly #deviceName: DeviceName;
  #rules: readonly MarkRule[] = [];

  constructor(hooks: Hooks, deviceName: DeviceName) {
    this.#deviceName = deviceName;
    hooks.register(this.#ops());
  }

  /** These rules, in this order, in the place of those that were there. */
  set(rules: readonly MarkRule[]): void {
    this.#rules = rules;
  }

  #ops(): HookOp[] {
    return (Object.keys(Hook) as (keyof typeof Hook)[]).map((hook) => ({
      hook: Hook[hook],
      priority: Priority.Mangle,
      name: 'test/marks',
      why: WHY,
      run: (p) => {
        for (const rule of this.#rules) {
          if (rule.hook === hook && this.#matches(rule, p)) p.mark = (p.mark & ~rule.mask) ^ rule.value;
        }
        return Verdict.Accept;
      },
    }));
  }

  #matches(rule: MarkRule, p: Packet): boolean {
    const { view, l3, l4 } = p;
    if ((rule.protocol ?? 0) !== 0 && rule.protocol !== p.proto) return false;
    if (rule.source !== undefined && !isWithin(src(view, l3), rule.source)) return false;
    if (rule.destination !== undefined && !isWithin(dst(view, l3), rule.destination)) return false;
    if (rule.inDevice !== undefined && this.#nameOf(p.inDevice) !== rule.inDevice) return false;
    if (rule.outDevice !== undefined && this.#nameOf(p.outDevice) !== rule.outDevice) return false;
    if (rule.sourcePorts === undefined && rule.destinationPorts === undefined) return true;
    if (p.isLaterFragment !== 0 || p.end - l4 < 4 || !HAS_PORTS.includes(p.proto)) return false;
    return isOneOf(view.getUint16(l4), rule.sourcePorts) && isOneOf(view.getUint16(l4 + 2), rule.destinationPorts);
  }

  #nameOf(device: number): string | undefined {
    return device === NONE ? undefined : this.#deviceName(device);
  }
}

function isWithin(ip: number, text: string): boolean {
  const prefix = parsePrefix(text);
  return prefix !== undefined && ((ip ^ prefix.ip) & netmask(prefix.length)) === 0;
}

function isOneOf(port: number, ranges: readonly PortRange[] | undefined): boolean {
  return ranges === undefined || ranges.some(([low, high]) => port >= low && port <= high);
}
