import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { ControlRig } from './test-rig.ts';

const rig = new ControlRig();
beforeAll(() => rig.listen());
afterAll(() => rig.close());

const MULTICAST = '01:00:5e:00:00:01';

it('lets the kernel follow the commands that have worked, and no others', async () => {
  const good = { op: 'link-set', device: 'front', mtu: 1400 };
  const bad = { op: 'link-set', device: 'back', mtu: 1300, mac: MULTICAST };
  expect(await rig.ask('POST', '/v1/ip', { commands: [bad, good] })).toEqual([
    200,
    { results: ['EADDRNOTAVAIL', null] },
  ]);
  expect(rig.ipChanged).toEqual([good]);
});

describe('what makes no sense is refused with its place', () => {
  const chain = (name: string) => ({ table: 'filter', commands: [{ op: 'new-chain', chain: name }] });
  const renamed = (to: string) => ({ table: 'filter', commands: [{ op: 'rename-chain', chain: 'INPUT', to }] });
  const counted = (packets: number) => ({
    table: 'filter',
    commands: [{ op: 'append', chain: 'INPUT', rule: { words: [], counters: { packets, bytes: 0 } } }],
  });
  const service = (key: object) => ({ commands: [{ op: 'delete-service', service: key }] });
  const NO_NAME = "cannot be a chain's name: at most 28 bytes, no blanks";
  it.each([
    ['/v1/iptables', chain('a\nb'), `change.commands.0.chain: ${NO_NAME}`],
    ['/v1/iptables', chain('a\0b'), `change.commands.0.chain: ${NO_NAME}`],
    ['/v1/iptables', chain(''), `change.commands.0.chain: ${NO_NAME}`],
    ['/v1/iptables', chain('é'.repeat(15)), `change.commands.0.chain: ${NO_NAME}`],
    ['/v1/iptables', renamed('a b'), `change.commands.0.to: ${NO_NAME}`],
    ['/v1/iptables', counted(1.5), 'change.commands.0.rule.counters.packets: must be a whole number'],
    [
      '/v1/iptables',
      counted(1e300),
      'change.commands.0.rule.counters.packets: 1e+300 is too big: at most 18446744073709552000',
    ],
    ['/v1/ipvs', service({}), 'commands.0.service.kind: is missing: one of address, fwmark'],
    ['/v1/ipvs', service({ kind: 'mark' }), "commands.0.service.kind: 'mark' is not one of address, fwmark"],
    ['/v1/ipvs', service({ kind: 'fwmark', fwmark: 1, family: 5 }), 'commands.0.service.family: 5 is not one of 4, 6'],
    [
      '/v1/ipvs',
      { commands: [{ op: 'cleer' }] },
      "commands.0.op: 'cleer' is not one of add-service, edit-service, delete-service, clear, add-server, edit-server, delete-server, add-local-address, edit-local-address, delete-local-address, zero, drain, undrain, set-timeouts, start-daemon, stop-daemon (did you mean 'clear'?)",
    ],
  ])('%s %j', async (path, body, message) => {
    expect(await rig.ask('POST', path, body)).toEqual([400, { error: { code: 'bad-request', message } }]);
    expect(rig.engine.filter.list('filter').chains.map(({ name, rules }) => [name, rules.length])).toEqual([
      ['INPUT', 0],
      ['FORWARD', 0],
      ['OUTPUT', 0],
    ]);
  });

  it('but a name that cannot be is looked for like any other', async () => {
    const flush = { table: 'filter', commands: [{ op: 'flush', chain: 'a b' }] };
    expect(await rig.ask('POST', '/v1/iptables', flush)).toEqual([200, { index: 0, fault: 'ENOENT' }]);
  });
});
