/** What translation does with time: connections whose address went end a share at a time. */
import { expect, it } from 'vitest';
import { SeededRng } from '../base/rng.ts';
import { Hooks } from '../hooks/hooks.ts';
import { ip4 } from '../wire/addr.ts';
import { EntryList, tupleOf } from './entry-list.ts';
import { Nat } from './nat.ts';

const FRONT = 1;
const BACK = 2;

it('of thousands of connections that lose their address, packets wait for no more than a tick may end', () => {
  const entries = new EntryList();
  const addresses = { sourceOn: () => 0, firstAddress: () => 0 };
  const nat = new Nat({ hooks: new Hooks(), entries, addresses, rng: new SeededRng(3) });
  let alive = 0;
  entries.onEnd = (entry) => {
    alive--;
    nat.entryEnds(entry);
  };
  const open = (device: number, to: string): void => {
    const entry = entries.open(tupleOf('10.1.0.2:40000 > 10.2.0.2:53'));
    const reply = tupleOf(`10.2.0.2:53 > ${to}:40000`);
    entries.alterReply(entry, reply);
    entries.confirm(entry);
    nat.inherit(entry, device + 1);
    alive++;
  };
  for (let n = 0; n < 3000; n++) open(BACK, n % 3 === 2 ? '10.2.0.9' : '10.2.0.1');
  for (let n = 0; n < 200; n++) open(FRONT, '10.2.0.1');
  nat.addressGone(BACK, ip4('10.2.0.1'));
  expect([alive, nat.isBehind]).toEqual([2176, true]);
  // Another one goes meanwhile.
  nat.addressGone(FRONT, 0);
  const left: number[] = [];
  while (nat.isBehind) {
    nat.advance();
    left.push(alive);
  }
  expect(left).toEqual([1152, 1000]);
  nat.addressGone(BACK, 0);
  expect([alive, nat.isBehind]).toEqual([0, false]);
});
