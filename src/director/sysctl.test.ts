/** Names and defaults as Linux 6.1 has them (recording sysctl_defaults); what is not built is refused. */
import { describe, expect, it } from 'vitest';
import { Sysctls } from './sysctl.ts';

const DEFAULTS = [
  'am_droprate 10',
  'amemthresh 1024',
  'backup_only 0',
  'cache_bypass 0',
  'conn_reuse_mode 1',
  'conntrack 0',
  'drop_entry 0',
  'drop_packet 0',
  'expire_nodest_conn 0',
  'expire_quiescent_template 0',
  'ignore_tunneled 0',
  'lblc_expiration 86400',
  'lblcr_expiration 86400',
  'nat_icmp_send 0',
  'pmtu_disc 1',
  'run_estimation 1',
  'schedule_icmp 0',
  'secure_tcp 0',
  'sloppy_sctp 0',
  'sloppy_tcp 0',
  'snat_reroute 1',
  'sync_persist_mode 0',
  'sync_ports 1',
  'sync_qlen_max 16384',
  'sync_refresh_period 0',
  'sync_retries 0',
  'sync_sock_size 0',
  'sync_threshold 3\t50',
  'sync_version 1',
];

describe('net.ipv4.vs.*', () => {
  it('has the kernel’s names and defaults', () => {
    const s = new Sysctls();
    expect(s.list().map(([k, v]) => `${k.replace('net.ipv4.vs.', '')} ${v}`)).toEqual(DEFAULTS);
    expect(s.get('net.ipv4.vs.sync_threshold')).toBe('3\t50');
    expect(s.get('net.ipv4.vs.nosuch')).toBe(undefined);
  });

  it('takes what it carries out, refuses the rest', () => {
    const s = new Sysctls();
    expect(s.set('net.ipv4.vs.expire_nodest_conn', '1')).toBe(null);
    expect([s.expireNodestConn, s.get('expire_nodest_conn')]).toEqual([1, '1']);
    expect(s.set('net.ipv4.vs.conn_reuse_mode', ' 0\n')).toBe(null);
    expect(s.connReuseMode).toBe(0);
    expect(s.set('net.ipv4.vs.sloppy_tcp', 'yes')).toBe('EINVAL');
    expect(s.set('net.ipv4.vs.sloppy_tcp', '9999999999')).toBe('EINVAL');
    expect(s.set('net.ipv4.vs.nosuch', '1')).toBe('ENOENT');
    expect(s.set('net.ipv4.vs.snat_reroute', '0')).toBe(null);
    expect(s.get('snat_reroute')).toBe('0');
    expect(s.set('net.ipv4.vs.conntrack', '0')).toBe(null);
    expect(s.set('net.ipv4.vs.conntrack', '1')).toBe(null);
    for (const name of ['lblc_expiration', 'lblcr_expiration']) {
      expect(s.set(`net.ipv4.vs.${name}`, '600')).toBe(null);
      expect(s.get(name)).toBe('600');
      // More seconds than fit a tick counter of 250 a second.
      expect(s.set(name, '8589935')).toBe('EINVAL');
    }
    expect([s.lblcExpiration, s.lblcrExpiration]).toEqual([600, 600]);
  });

  it('tells of a mode that was written, not of one that stayed', () => {
    const s = new Sysctls();
    const told: number[] = [];
    s.onMode = () => told.push(s.dropEntry);
    for (const text of ['3', '3', '4', '-1', 'x', '', '0']) s.set('drop_entry', text);
    s.set('am_droprate', '7');
    expect(told).toEqual([3, 0]);
    expect(['drop_entry', 'drop_packet', 'secure_tcp'].map((name) => s.set(name, '4'))).toEqual(
      Array(3).fill('EINVAL'),
    );
  });

  it('checks the keys of synchronisation as the kernel does', () => {
    const s = new Sysctls();
    /** Which of the values are taken. */
    const taken = (name: string, values: string) => values.split(', ').filter((value) => s.set(name, value) === null);
    expect(taken('sync_version', '0, 1, 2, -1')).toEqual(['0', '1']);
    expect(taken('sync_ports', '2, 3, 0, -1, 64, 1024')).toEqual(['2', '64', '1024']);
    expect(taken('sync_persist_mode', '1, 5, -5')).toEqual(['1', '5', '-5']);
    expect(taken('sync_qlen_max', '10, -1, 3000000000')).toEqual(['10', '3000000000']);
    expect(taken('sync_sock_size', '5, -5')).toEqual(['5', '-5']);
    expect(taken('sync_refresh_period', '10, -1, 9000000')).toEqual(['10', '-1']);
    expect(taken('sync_retries', '3, 4, -1')).toEqual(['3']);
    expect(taken('backup_only', '2, -2')).toEqual(['2', '-2']);
    const thresholds = '5, 5 100, 5 0, 0 0, 5 5, 5 4, -1 4, 1 -4, 1 2 3, x, 2, 200, 2,50, 2 x, 0x10 0x20, 010 0x20';
    expect(taken('sync_threshold', thresholds)).toEqual(['5', '5 100', '5 0', '0 0', '1 2 3', '0x10 0x20', '010 0x20']);
    expect(s.get('sync_threshold')).toBe('8\t32');
  });

  it.each([
    // Written one after the other, as recorded: key, text, what it has then; ! for those that are refused.
    [
      'am_droprate',
      [
        '2147483647 2147483647',
        '2147483648! 2147483647',
        '-2147483648 -2147483648',
        '0x1f 31',
        '010 8',
        '09! 8',
        '+1! 8',
      ],
    ],
    ['sync_ports', ['2 2', '3! 2', '0! 2', '-1! 2', '010 8', '1 1']],
    ['sync_retries', ['3 3', '4! 3', '-1! 3', '0 0']],
    ['sync_version', ['0 0', '2! 0', '1 1']],
    ['sync_qlen_max', ['4294967296 4294967296', '-1! 4294967296', '0 0']],
    ['lblc_expiration', ['-1 -1', '2147483647! -1', '-2147483648! -1', '7 7']],
    ['secure_tcp', ['3 3', '4! 3', '-1! 3', '0 0']],
    ['sync_threshold', ['7 7\t50', '-1! 7\t50', '2147483647! 7\t50', '! 7\t50']],
  ])('%s takes and refuses as the kernel does', (name, writes) => {
    const s = new Sysctls();
    for (const write of writes) {
      const [text, after] = write.split(' ');
      const refused = text!.endsWith('!');
      expect([write, s.set(name, refused ? text!.slice(0, -1) || ' ' : text!)]).toEqual([
        write,
        refused ? 'EINVAL' : null,
      ]);
      expect(s.get(name)).toBe(after);
    }
  });

  it('sync_threshold: two numbers, the first below the second, which may be 0', () => {
    const s = new Sysctls();
    const seen = ['1 2', '1\t1', '3 50', '0 0', '1\n', '5\n6', '', '\n1'].map((text) => [
      s.set('sync_threshold', text),
      s.get('sync_threshold'),
    ]);
    expect(seen).toEqual([
      [null, '1\t2'],
      ['EINVAL', '1\t2'],
      [null, '3\t50'],
      [null, '0\t0'],
      [null, '1\t0'],
      [null, '5\t6'],
      [null, '5\t6'],
      [null, '1\t6'],
    ]);
  });
});
