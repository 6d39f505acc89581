/** One direction of a connection as int32 numbers, to be filled and compared without allocation; and the direction that answers it.   @hot */
import { IpProto } from '../wire/ipv4.ts';

const ICMP = IpProto.Icmp;
/** What answers an ICMP type, by type; itself where nothing does (invmap of nf_conntrack_proto_icmp.c). */
const ANSWER = Uint8Array.from({ length: 256 }, (_, type) => type);
ANSWER[8] = 0;
ANSWER[0] = 8;
ANSWER[13] = 14;
ANSWER[14] = 13;
ANSWER[15] = 16;
ANSWER[16] = 15;
ANSWER[17] = 18;
ANSWER[18] = 17;

const HAS_ANSWER = Uint8Array.from({ length: 256 }, (_, type) => (ANSWER[type] === type ? 0 : 1));

export class Tuple {
  src = 0;
  dst = 0;
  /** Source port << 16 | destination port; ICMP: id << 16 | type << 8 | code; GRE: the keys; 0 where the protocol has none. */
  ports = 0;
  proto = 0;

  copyFrom(t: Tuple): void {
    this.src = t.src;
    this.dst = t.dst;
    this.ports = t.ports;
    this.proto = t.proto;
  }

  equals(t: Tuple): boolean {
    return this.src === t.src && this.dst === t.dst && this.ports === t.ports && this.proto === t.proto;
  }

  /** Is there anything that answers it? Nothing does to ICMP errors and unknown types (nf_conntrack_invert_icmp_tuple). */
  canInvert(): boolean {
    return this.proto !== ICMP || HAS_ANSWER[(this.ports >>> 8) & 0xff] === 1;
  }

  /** Becomes what answers it. */
  invert(): void {
    const { src, ports } = this;
    this.src = this.dst;
    this.dst = src;
    if (this.proto === ICMP) this.ports = (ports & -0xff01) | (ANSWER[(ports >>> 8) & 0xff]! << 8);
    else this.ports = (ports << 16) | (ports >>> 16);
  }
}
