import { describe, expect, it } from 'vitest';
import { describeFrame, frame, verifyFrame } from './build.ts';

const A = '02:00:00:00:00:0a';
const B = '02:00:00:00:00:0b';

describe('frame builder', () => {
  it('sums what it builds, and verifyFrame sees each single wrong byte', () => {
    const good = frame()
      .eth(B, A)
      .ipv4('10.0.0.1', '10.0.0.2', { id: 7, df: true })
      .tcp({ srcPort: 1024, dstPort: 80, flags: 'S', seq: 1 })
      .payload('odd')
      .build();
    expect(verifyFrame(good)).toEqual([]);
    expect(describeFrame(good)).toBe(
      `${A} > ${B} IP 10.0.0.1.1024 > 10.0.0.2.80: tcp [S] seq 1 ack 0 win 65535 len 3 (ttl 64 id 7 DF)`,
    );
    for (let i = 14; i < good.length; i++) {
      if (i >= 20 && i < 22) continue; // DF and offset: a fragment's transport is not verified
      const bad = good.slice();
      bad[i]! ^= 0x01;
      expect(verifyFrame(bad), `byte ${i}`).not.toEqual([]);
    }
  });

  it('agrees with a known checksum: the UDP example of 10.0.0.1 to 10.0.0.2', () => {
    // The sum of RFC 1071 by hand: pseudo-header (addresses, protocol 17, length 10), header, data "hi".
    const bytes = frame().ipv4('10.0.0.1', '10.0.0.2').udp({ srcPort: 1, dstPort: 2 }).payload('hi').build();
    const sum = 0x0a00 + 0x0001 + 0x0a00 + 0x0002 + 17 + 10 + 1 + 2 + 10 + 0x6869;
    expect((bytes[26]! << 8) | bytes[27]!).toBe(~sum & 0xffff);
  });

  it('builds ARP, tunnels and quotations', () => {
    const arp = frame()
      .eth('ff:ff:ff:ff:ff:ff', A)
      .arp({ op: 'request', senderMac: A, sender: '10.0.0.1', target: '10.0.0.2' });
    expect(describeFrame(arp.build())).toBe(`${A} > ff:ff:ff:ff:ff:ff ARP who-has 10.0.0.2 tell 10.0.0.1`);
    const quote = frame()
      .eth(B, A)
      .ipv4('10.0.0.9', '10.0.0.1')
      .icmp({ type: 3, code: 4, mtu: 1400 })
      .ipv4('10.0.0.1', '10.0.0.2')
      .udp({ srcPort: 1, dstPort: 2 })
      .build();
    expect(verifyFrame(quote)).toEqual([]);
    expect(describeFrame(quote)).toContain('icmp error 3/4 mtu 1400 { IP 10.0.0.1.1 > 10.0.0.2.2: udp len 0');
    const ipip = frame()
      .ipv4('1.1.1.1', '2.2.2.2')
      .ipv4('10.0.0.1', '10.0.0.2')
      .udp({ srcPort: 1, dstPort: 2 })
      .build();
    expect(ipip[9]).toBe(4);
    expect(verifyFrame(ipip, { isIp: true })).toEqual([]);
  });
});
