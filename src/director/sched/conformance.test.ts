/** One contract, applied to every scheduler of the registry; then what the real kernel chose (recordings sched_*), newest server first. */
import { describe, expect, it } from 'vitest';
import { SeededRng } from '../../base/rng.ts';
import { NO_DEST } from '../destinations.ts';
import { Bench, VIP } from '../test-rig.ts';
import { SCHEDULERS } from './index.ts';

const T = `-t ${VIP}:80`;

function pick(b: Bench): number {
  const { services, dests } = b.director;
  const d = services.schedulers[0]!.pick(1, 2, 3);
  if (d !== NO_DEST) expect(dests.isAvailable(d)).toBe(true);
  return d;
}

describe.each(SCHEDULERS.map((s) => s.name))('%s keeps the contract', (name) => {
  const bench = () => {
    const b = new Bench();
    b.run(`-A ${T} -s ${name}`, ...[1, 2, 3].map((i) => `-a ${T} -r 10.0.2.1${i}:80 -m -w ${i}`));
    return b;
  };

  it('answers NO_DEST for a service without servers, and when the last one has gone', () => {
    const b = new Bench();
    b.run(`-A ${T} -s ${name}`);
    expect(pick(b)).toBe(NO_DEST);
    b.run(`-a ${T} -r 10.0.2.11:80 -m`);
    expect(pick(b)).not.toBe(NO_DEST);
    b.run(`-d ${T} -r 10.0.2.11:80`);
    expect(pick(b)).toBe(NO_DEST);
  });

  it('never picks a destination of weight 0, and picks it again when it has one', () => {
    const b = bench();
    b.run(...[1, 2, 3].map((i) => `-e ${T} -r 10.0.2.1${i}:80 -m -w 0`));
    expect(pick(b)).toBe(NO_DEST);
    b.run(`-e ${T} -r 10.0.2.12:80 -m -w 5`);
    for (let i = 0; i < 20; i++) expect(b.director.dests.weight[pick(b)]).toBe(5);
  });

  it('never picks an overloaded destination', () => {
    const b = new Bench();
    b.run(`-A ${T} -s ${name}`, `-a ${T} -r 10.0.2.11:80 -m -w 65535 -x 1`, `-a ${T} -r 10.0.2.12:80 -m -w 1 -x 2`);
    const got = [1, 2, 3, 4].map((i) => b.probe(`10.0.1.9:${i}`, `${VIP}:80`, true));
    expect(got.filter((s) => s === '10.0.2.11:80')).toHaveLength(1);
    expect(got.filter((s) => s === '10.0.2.12:80')).toHaveLength(2);
    expect(got[3]).toBe('refused');
  });

  it('survives any change between two picks, and never picks what may not be picked', () => {
    const b = bench();
    const rng = new SeededRng(11);
    const { dests, services } = b.director;
    for (let i = 0; i < 3000; i++) {
      const server = `10.0.2.${11 + ((rng.next() >>> 4) % 6)}:80`;
      const weight = (rng.next() >>> 4) % 4;
      b.run(
        [`-a ${T} -r ${server} -m -w ${weight}`, `-e ${T} -r ${server} -m -w ${weight}`, `-d ${T} -r ${server}`][
          (rng.next() >>> 4) % 3
        ]!,
      );
      const d = pick(b);
      let candidates = 0;
      for (let x = services.first[0]!; x !== NO_DEST; x = dests.next[x]!) candidates += dests.isCandidate(x) ? 1 : 0;
      expect(d !== NO_DEST).toBe(candidates > 0);
      if (d !== NO_DEST) expect(dests.isCandidate(d)).toBe(true);
    }
  });
});

/** `+3:2` adds server 3 with weight 2, `=` edits, `-` deletes; `12` probes 12 times, `h3` three that stay open, `c1` closes the first held one. */
function replay(scheduler: string, steps: string): string {
  const b = new Bench();
  b.run(`-A ${T} -s ${scheduler}`);
  const held: { from: string; server: string }[] = [];
  let client = 0;
  return steps
    .split(' ')
    .map((step) => {
      const [, op, rest] = /^([-+=hc]?)(.*)$/.exec(step)!;
      if (op === 'c') {
        const conn = held[Number(rest) - 1]!;
        b.close(conn.from, `${VIP}:80`, conn.server);
        return '';
      }
      if (op === 'h' || op === '') {
        let chosen = '';
        for (let i = 0; i < Number(rest); i++) {
          const from = `10.0.1.${3 + (client % 200)}:${20001 + client}`;
          client++;
          const server = b.probe(from, `${VIP}:80`, op === 'h');
          if (op === 'h') held.push({ from, server });
          chosen += server === 'refused' ? '-' : server.slice('10.0.2.1'.length, -3);
        }
        return chosen;
      }
      const [server, weight] = rest!.split(':');
      const command = { '+': '-a', '=': '-e', '-': '-d' }[op as '+' | '=' | '-'];
      expect(b.run(`${command} ${T} -r 10.0.2.1${server}:80 -m -w ${weight ?? 1}`)).toEqual([null]);
      return '';
    })
    .filter((s) => s !== '')
    .join(' ');
}

describe('the kernel’s choices', () => {
  it.each([
    ['rr', '+1 +2 +3 12 4', '321321321321 3213'],
    ['rr', '+1 +2 4 +3:2 8 =2:0 8 -1 6 +4 =2:3 10 -3 -4 4', '2121 32132132 13131313 333333 2432432432 2222'],
    ['rr', '1 +1:0 +2:0 +3:0 3 =2 4 h3 =2:0 3 -1 -2 -3 1', '- --- 2222 222 --- -'],
    ['wrr', '+1:1 +2:2 +3:3 +4:4 20 =1:4 =2:2 =3:6 =4:0 14', '43214434324321443432 31321331321331'],
    ['wrr', '+1:100 +2:50 +3:25 21 =1:7 =2:3 =3:1 23', '321112132111213211121 11112121321111121213211'],
    ['wrr', '+1:65535 +2:1 6', '211111'],
    ['wrr', '1 +1:0 +2:0 +3:0 3 =2 4', '- --- 2222'],
    ['lc', '+1 +2 +3 12 4', '321321321321 3213'],
    ['lc', '+1:3 +2:1 +3:2 h12 c1 c2 c3 c4 c5 h8', '321321321321 32132132'],
    ['wlc', '+1 +2 +3 12 4', '321321321321 3213'],
    ['wlc', '+1:3 +2:1 +3:2 h12 c1 c2 c3 c4 c5 h8', '321131321131 32131132'],
    ['wlc', '+1 +2 4 +3:2 8 =2:0 8 -1 6 +4 =2:3 10 -3 -4 4', '2121 33333213 31331331 333333 4422242224 2222'],
  ])('%s %s', (scheduler, steps, chosen) => {
    expect(replay(scheduler, steps)).toBe(chosen);
  });
});
