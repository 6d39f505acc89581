/** For this folder's tests: connections that are tracked, without packets. */
import { seconds } from '../base/clock.ts';
import { SeededRng } from '../base/rng.ts';
import { Conntrack } from '../conntrack/conntrack.ts';
import { Col, ENTRY_SHIFT } from '../conntrack/entries.ts';
import { Tuple } from '../conntrack/tuple.ts';
import { FlowTable } from '../flow/flow-table.ts';
import { Hooks } from '../hooks/hooks.ts';
import { PacketPool } from '../packet/pool.ts';
import { ip4 } from '../wire/addr.ts';

/** `10.1.0.2:40000 > 10.2.0.2:53`, of UDP unless said otherwise. */
export function tupleOf(text: string, proto = 17): Tuple {
  const [src, srcPort, dst, dstPort] = text.split(/[:> ]+/) as [string, string, string, string];
  const t = new Tuple();
  t.src = ip4(src);
  t.dst = ip4(dst);
  t.ports = (Number(srcPort) << 16) | Number(dstPort);
  t.proto = proto;
  return t;
}

export function newTracking(maxEntries = 1000): Conntrack {
  return new Conntrack({
    hooks: new Hooks(),
    pool: new PacketPool(1),
    flows: new FlowTable(maxEntries * 2, 7),
    rng: new SeededRng(5),
    now: 0,
    maxEntries,
    wallClock: () => 0,
    defrag: { acquire: () => {}, release: () => {} },
  });
}

/** As a connection's first packet does; it is in the table after `insert`. */
export function open(tracking: Conntrack, original: Tuple, zone = 0): number {
  const entry = tracking.open(original, zone, zone, 0);
  tracking.entries.rows[(entry << ENTRY_SHIFT) + Col.Timeout] = seconds(600);
  return entry;
}
