/** TFTP (nf_conntrack_tftp.c, nf_nat_tftp.c; RFC 1350 §4): a request to port 69 is answered from another port of the server. */
import { CtDir } from '../conntrack/entry.ts';
import { EXPECT_POLICIES, type NewExpectation } from '../conntrack/expectations.ts';
import { Helper } from '../conntrack/helper-names.ts';
import { Tuple } from '../conntrack/tuple.ts';
import { Verdict } from '../hooks/hooks.ts';
import { Status } from '../model/entry-status.ts';
import { Drop } from '../packet/drop.ts';
import type { Packet } from '../packet/packet.ts';
import { IpProto } from '../wire/ipv4.ts';
import { UDP_HEADER } from '../wire/udp.ts';
import type { HelperParts } from './helper-ftp.ts';

const READ = 1;
const WRITE = 2;
const POLICY = EXPECT_POLICIES[Helper.Tftp]!;
const tuple = new Tuple();

export function helpTftp({ entries, expectations }: HelperParts, p: Packet, now: number): Verdict {
  const data = p.l4 + UDP_HEADER;
  if (p.end - data < 2) return Verdict.Accept;
  const code = p.view.getUint16(data);
  if (code !== READ && code !== WRITE) return Verdict.Accept;
  const { entry } = p;
  const isTranslated = (entries.status(entry) & (Status.SrcNat | Status.DstNat)) !== 0;
  entries.tuple(entry, CtDir.Original, tuple);
  const port = tuple.ports >>> 16;
  entries.tuple(entry, CtDir.Reply, tuple);
  const wanted: NewExpectation = {
    master: entry,
    proto: IpProto.Udp,
    src: tuple.src,
    srcMask: -1,
    srcPort: 0,
    srcPortMask: 0,
    dst: tuple.dst,
    dstPort: tuple.ports & 0xffff,
    zone: entries.zoneId(entry),
    helper: 'tftp',
    class: 0,
    flags: 0,
    nat: isTranslated ? { dir: CtDir.Reply, port } : null,
  };
  if (expectations.add(now, wanted, POLICY) === null) return Verdict.Accept;
  p.drop = Drop.HelperNoExpectation;
  return Verdict.Drop;
}
