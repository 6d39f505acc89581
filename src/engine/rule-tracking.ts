/** What rules ask of connection tracking (filter/tracking.ts), answered by its tables. */
import { TICKS_PER_SECOND } from '../base/clock.ts';
import type { Conntrack } from '../conntrack/conntrack.ts';
import { HELPER_NAMES, HELPER_PROTOCOLS } from '../conntrack/helper-names.ts';
import type { Template, Tracking } from '../filter/tracking.ts';

const BOTH = 3;
const ORIGINAL = 1;
const REPLY = 2;
const ZONE = 0xffff;

/** @param onHelper called when a rule assigns a helper for the first time */
export function ruleTracking(conntrack: Conntrack, onHelper: () => void): Tracking {
  /** Number of conntrack's template, by that of the rule and, where the packet's mark is the zone, by zone. */
  const known = new Map<Template, Map<number, number>>();

  let hasHelpers = false;

  const numberOf = (template: Template, mark: number): number => {
    const { zoneOfMark } = template;
    const zone = zoneOfMark === null ? 0 : mark & ZONE;
    let byZone = known.get(template);
    if (byZone === undefined) {
      byZone = new Map();
      known.set(template, byZone);
    }
    let number = byZone.get(zone);
    if (number === undefined) {
      if (template.helper !== '' && !hasHelpers) {
        hasHelpers = true;
        onHelper();
      }
      number = conntrack.templates.push({ ...zonesOf(template, zone), helper: numberOfHelper(template.helper) }) - 1;
      byZone.set(zone, number);
    }
    return number;
  };

  return {
    acquire: () => conntrack.acquire(),
    release: () => conntrack.release(),
    status: (entry) => conntrack.status(entry),
    tuple: (entry, dir, t) => conntrack.tuple(entry, dir, t),
    mark: (entry) => conntrack.mark(entry),
    setMark: (entry, mark) => conntrack.setMark(entry, mark),
    secondsLeft: (entry) => Math.trunc(conntrack.entries.left(entry, conntrack.now) / TICKS_PER_SECOND),
    helperName: (entry) => HELPER_NAMES[conntrack.helper(entry)] ?? '',
    master: (entry) => conntrack.master(entry),
    hasHelper: (name, proto) => HELPER_PROTOCOLS[numberOfHelper(name)] === proto && proto !== 0,
    attach: (p, template) => {
      p.ctTemplate = numberOf(template, p.mark);
    },
  };
}

/** 0 for none, and for one that there is not. */
function numberOfHelper(name: string): number {
  const names: readonly string[] = HELPER_NAMES;
  return Math.max(0, names.indexOf(name));
}

/** One zone, of one direction or of both. */
function zonesOf(
  { originalZone, replyZone, zoneOfMark }: Template,
  markZone: number,
): { zone: number; zoneDirs: number } {
  if (zoneOfMark !== null) {
    return { zone: markZone, zoneDirs: zoneOfMark === '' ? BOTH : zoneOfMark === '-orig' ? ORIGINAL : REPLY };
  }
  if (originalZone === replyZone) return { zone: originalZone, zoneDirs: BOTH };
  return originalZone !== 0 ? { zone: originalZone, zoneDirs: ORIGINAL } : { zone: replyZone, zoneDirs: REPLY };
}
