import { describe, expect, it } from 'vitest';
import { parse } from 'yaml';
import { formatPlan, isLabNetns, labConfig, labPlan, labServices } from './plan.ts';

describe('labPlan', () => {
  it('refuses no servers, too many, and half of one', () => {
    for (const servers of [0, 100, 1.5]) expect(() => labPlan({ prefix: 'x-', servers })).toThrow(RangeError);
  });

  it('gives every server an address and a MAC of its own', () => {
    const { servers } = labPlan({ prefix: 'x-', servers: 99 });
    expect(new Set(servers.map((server) => server.address)).size).toBe(99);
    expect(new Set(servers.map((server) => server.mac)).size).toBe(99);
    const [name, mac] = ['rs1', '02:00:00:00:02:81'];
    expect(servers[0]).toEqual({ name, netns: 'x-rs1', address: '10.0.2.11', mac, front: null });
  });

  it('never uses a MAC twice on one segment', () => {
    for (const kind of ['tap', 'packet'] as const) {
      for (const layout of ['two-arm', 'one-arm', 'two-leg', 'classic'] as const) {
        const macs =
          formatPlan(labPlan({ prefix: 'x-', servers: 99, kind, layout })).match(/02(:[0-9a-f]{2}){5}/g) ?? [];
        const all = [...macs, '02:00:00:00:01:01', '02:00:00:00:02:01'];
        expect(new Set(all).size).toBe(all.length);
      }
    }
  });

  it('never gives an address twice, whoever has it', () => {
    for (const layout of ['two-arm', 'one-arm', 'two-leg', 'classic'] as const) {
      const plan = labPlan({ prefix: 'x-', servers: 99, layout });
      const { client, front, back, vip } = plan.addresses;
      const legs = plan.servers.flatMap((server) => [server.address, server.front?.address ?? server.address]);
      const all = [...new Set(legs), client, front, ...(back === null ? [] : [back]), ...(vip === front ? [] : [vip])];
      expect(new Set(all).size).toBe(all.length);
    }
  });

  it('has a layout for each method, and refuses those in which answers would go astray', () => {
    const made = (['nat', 'dr', 'tun'] as const).map((method) => labPlan({ prefix: 'x-', method }).layout);
    expect(made).toEqual(['two-arm', 'one-arm', 'two-leg']);
    expect(labPlan({ prefix: 'x-', layout: 'classic' }).method).toBe('dr');
    expect(labPlan({ prefix: 'x-', layout: 'classic', method: 'tun' }).layout).toBe('classic');
    expect(() => labPlan({ prefix: 'x-', layout: 'one-arm', method: 'nat' })).toThrow('one-arm cannot do nat');
    expect(() => labPlan({ prefix: 'x-', layout: 'two-arm', method: 'dr' })).toThrow('two-arm cannot do dr');
    expect(() => labPlan({ prefix: 'x-', layout: 'two-arm', method: 'tun' })).toThrow('two-arm cannot do tun');
  });

  it("has the textbook's addresses in layout classic", () => {
    const text = formatPlan(labPlan({ prefix: 'x-', servers: 1, layout: 'classic' }));
    for (const line of [
      'ip -n x-client address add 192.168.2.254/24 dev eth0\n',
      'ip -n x-client address add 192.168.1.254/24 dev eth1\n',
      'ip -n x-rs1 address add 192.168.1.2/24 dev eth0\n',
      'ip -n x-rs1 route add default via 192.168.1.254\n',
      'scripts/realserver start --method dr --state-dir /run/tapvs-lab-x- 192.168.2.110\n',
    ]) {
      expect(text).toContain(line);
    }
  });

  it('only touches its own namespaces', () => {
    const plan = labPlan({ prefix: 'x-', kind: 'packet' });
    for (const step of plan.steps) {
      expect(isLabNetns('x-', step.netns)).toBe(true);
      if (step.do === 'veth') expect(isLabNetns('x-', step.peer.netns)).toBe(true);
    }
  });

  it('prints as the commands that a person would type', () => {
    const text = formatPlan(labPlan({ prefix: 'x-', servers: 1, checksumOffload: false }));
    expect(text).toContain('ip netns add x-client\nip -n x-client link set lo up\n');
    expect(text).toContain(
      'ip link add eth0 netns x-rs1 address 02:00:00:00:02:81 mtu 1500 ' +
        'type veth peer name rs1 netns x-director address 02:00:00:00:02:11 mtu 1500\n',
    );
    expect(text).toContain('ip -n x-director link set rs1 master br-back up\n');
    expect(text).toContain('ip -n x-director link add br-back address 02:00:00:00:02:fe mtu 1500 up type bridge ');
    expect(text).toContain('ip -n x-rs1 address add 10.0.2.11/24 dev eth0\nip -n x-rs1 link set eth0 up\n');
    expect(text).toContain(
      'ip netns exec x-rs1 scripts/realserver start --method nat --director 10.0.2.1 --state-dir /run/tapvs-lab-x- 10.0.1.100\n',
    );
    expect(text).toContain('ip netns exec x-rs1 ethtool -K eth0 tx off');
  });
});

describe('labConfig', () => {
  it('names a bridge for TAPs and an interface for packet devices', () => {
    const tap = parse(labConfig(labPlan({ prefix: 'x-' })));
    expect(tap.devices[1]).toEqual({
      name: 'back',
      kind: 'tap',
      bridge: 'br-back',
      mac: '02:00:00:00:02:01',
      mtu: 1500,
      addresses: ['10.0.2.1/24'],
    });
    const packet = parse(labConfig(labPlan({ prefix: 'x-', kind: 'packet' })));
    expect(packet.devices[0]).toMatchObject({ kind: 'packet', interface: 'front0' });
  });

  it('has the VIP on the front device in layout classic', () => {
    const config = parse(labConfig(labPlan({ prefix: 'x-', servers: 1, layout: 'classic' })));
    expect(config.addresses).toBeUndefined();
    expect(config.devices.slice(0, 2).map((device: { addresses: string[] }) => device.addresses)).toEqual([
      ['192.168.2.110/24'],
      ['192.168.1.9/24'],
    ]);
    expect(config.ipvsadm).toContain('-a -t 192.168.2.110:80 -r 192.168.1.2:80 -g -w 1\n');
  });

  it('has the host port, the VIP and forwarding; or what is asked for', () => {
    const plan = labPlan({ prefix: 'x-', servers: 1 });
    expect(parse(labConfig(plan))).toMatchObject({
      addresses: ['10.0.1.100/32'],
      sysctl: { 'net.ipv4.ip_forward': 1 },
      ipvsadm: labServices(plan),
    });
    const config = parse(labConfig(plan, { host: false, ipvsadm: '', sysctl: { 'net.ipv4.vs.conntrack': 1 } }));
    expect(config.devices).toHaveLength(2);
    expect(config.ipvsadm).toBeUndefined();
    expect(config.sysctl).toEqual({ 'net.ipv4.ip_forward': 1, 'net.ipv4.vs.conntrack': 1 });
  });

  it('balances by direct routing when all stand on one segment', () => {
    expect(labServices(labPlan({ prefix: 'x-', servers: 1, layout: 'one-arm' }))).toBe(
      '-A -t 10.0.1.100:80 -s rr\n-a -t 10.0.1.100:80 -r 10.0.1.11:80 -g -w 1\n' +
        '-A -u 10.0.1.100:7 -s rr\n-a -u 10.0.1.100:7 -r 10.0.1.11:7 -g -w 1\n',
    );
  });
});
