/** Balanced packets that get another mark in mangle OUTPUT are routed anew (netns-tests/oracle/recorded/mark_output_*.txt). */
import { beforeEach, describe, expect, it } from 'vitest';
import type { TableCommand } from '../model/iptables.ts';
import { describeFrame, frame } from '../wire/build.ts';
import { ExplainRig, RIG_MAC } from './explain-rig.ts';

let rig: ExplainRig;

const mark = (chain: string, value: string): TableCommand => ({
  op: 'append',
  chain,
  rule: { words: ['-j', 'MARK', '--set-mark', value] },
});

function rules(...commands: TableCommand[]): void {
  expect(rig.engine.filter.change({ table: 'mangle', commands })).toBeNull();
}

function balance(service: string, method: string): void {
  expect(rig.run(`-A ${service} -s rr`, `-a ${service} -r 10.0.2.11:80 ${method}`)).toEqual([null, null]);
}

/** What leaves when a client begins a connection: device and line. */
function syn(to = '10.0.1.100'): string[] {
  const packet = frame().eth(RIG_MAC.front, RIG_MAC.client).ipv4('10.0.1.2', to);
  return rig
    .send(rig.front, packet.tcp({ srcPort: 4000, dstPort: 80, flags: 'S' }).build())
    .map(({ device, frame: { bytes } }) => `${device} ${describeFrame(bytes)}`);
}

beforeEach(() => {
  rig = new ExplainRig();
});

describe('a mark that is changed in OUTPUT', () => {
  it('brings what direct routing sends on back to the service address, which is ours', () => {
    balance('-t 10.0.1.100:80', '-g');
    rules(mark('OUTPUT', '7'));
    const sent = syn();
    expect(sent).toHaveLength(1);
    expect(sent[0]).toMatch(/^front .*10\.0\.1\.100\.80 > 10\.0\.1\.2\.4000: tcp \[R\.\]/);
  });

  it('of which the packet had it already changes nothing', () => {
    balance('-t 10.0.1.100:80', '-g');
    rules(mark('PREROUTING', '7'), mark('OUTPUT', '7'));
    expect(syn()).toEqual([expect.stringMatching(/^back .*10\.0\.1\.2\.4000 > 10\.0\.1\.100\.80: tcp \[S\]/)]);
  });

  it.each([
    ['-m', /^back .*10\.0\.1\.2\.4000 > 10\.0\.2\.11\.80: tcp \[S\]/],
    ['-i', /^back .*10\.0\.2\.1 > 10\.0\.2\.11/],
  ])('leads to the server all the same where the packet is addressed to it: %s', (method, line) => {
    balance('-t 10.0.1.100:80', method);
    rules(mark('OUTPUT', '7'));
    expect(syn()).toEqual([expect.stringMatching(line)]);
  });

  it("brings a mark's service back to where its own destination leads", () => {
    balance('-f 1', '-g');
    rig.engine.executeIp([{ op: 'route-add', route: { to: '10.9.0.0/24', type: 'local', device: 'lo' } }]);
    rules(mark('PREROUTING', '1'));
    expect(syn('10.9.0.1')).toEqual([expect.stringMatching(/^back /)]);
    rules(mark('OUTPUT', '2'));
    expect(syn('10.9.0.1')).toEqual([expect.stringMatching(/^front .*\[R\.\]/)]);
  });
});
