/** Where the director stands in the pipeline: `ip_vs_ops4` of net/netfilter/ipvs/ip_vs_core.c. */
import { expect, it } from 'vitest';
import { HOOK_NAMES, Hooks } from '../hooks/hooks.ts';
import { directorHooks } from './hooks.ts';
import { Bench } from './test-rig.ts';

it('stands where the kernel’s functions stand: answers before requests, ICMP before answers in transit', () => {
  const hooks = new Hooks();
  hooks.register(directorHooks(new Bench().director));
  const table = hooks.chains.flatMap((chain) =>
    chain.ops.map((op) => `${HOOK_NAMES[chain.hook]} ${op.priority} ${op.name}`),
  );
  expect(table).toEqual([
    'LOCAL_IN 98 director/reply',
    'LOCAL_IN 99 director/request',
    'FORWARD 99 director/icmp',
    'FORWARD 100 director/reply',
    'LOCAL_OUT -99 director/reply',
    'LOCAL_OUT -98 director/request',
  ]);
});
