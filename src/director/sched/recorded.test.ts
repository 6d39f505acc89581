/**
 * Who the real kernel chose: the recordings of Linux 6.1 (oracle scenarios sched_*, dest_*, sh_*, mh_*, fo_*), transcribed, and played again here.
 *
 *   +3*2x5  add server 10.0.2.13 with weight 2 and upper threshold 5 (default 1, none)    =3*0  edit it    -3  delete it
 *   3-6:2-21    clients 10.0.1.3 … 10.0.1.6 connect and close again; they got servers 2, none, 2 and 1    20:11  one client twice
 *   !3-4:12     the same, and they stay connected    fin1-2  the first two of all those close    rst3,5  these end in a reset
 *   2@1-3:123   the client connects to 10.0.3.1 … 10.0.3.3 (a firewall mark catches that network)    w400  400 seconds pass
 *
 * Client ports are 20001, 20002, …
 */
import { describe, expect, it } from 'vitest';
import { ip4 } from '../../wire/addr.ts';
import { Bench, tcpPacket, VIP } from '../test-rig.ts';

const MARK = 7;

/** `3-6` and `3,4` and `3` as numbers. */
function numbers(text: string): number[] {
  return text.split(',').flatMap((part) => {
    const [from, to] = part.split('-').map(Number) as [number, number | undefined];
    return Array.from({ length: (to ?? from) - from + 1 }, (_, i) => from + i);
  });
}

/** The steps with the choices that this scheduler makes. */
function play(scheduler: string, steps: string): string {
  const isMarked = scheduler.endsWith(' fwmark');
  const service = isMarked ? `-f ${MARK}` : `-t ${VIP}:80`;
  const b = new Bench();
  for (let i = 1; i <= 16; i++) b.routing.locals.add(ip4(`10.0.3.${i}`));
  expect(b.run(`-A ${service} -s ${scheduler}`)).toEqual([null]);
  const held: { from: string; to: string; server: string }[] = [];
  let port = 20001;

  function command(step: string): string {
    const [, op, server, weight, upper] = /^([-+=])(\d)(?:\*(\d+))?(?:x(\d+))?$/.exec(step)!;
    const verb = { '+': '-a', '=': '-e', '-': '-d' }[op as '+' | '=' | '-'];
    const line = `${verb} ${service} -r 10.0.2.1${server}${isMarked ? '' : ':80'} -m -w ${weight ?? 1} -x ${upper ?? 0}`;
    expect(b.run(line)).toEqual([null]);
    return step;
  }

  function close(step: string): string {
    const [, how, which] = /^(fin|rst)(.+)$/.exec(step)!;
    for (const i of numbers(which!)) {
      const { from, to, server } = held[i - 1]!;
      if (how === 'fin') b.close(from, to, server);
      else b.send(tcpPacket(from, to, 'RA'));
    }
    return step;
  }

  function probe(step: string): string {
    const [, hold, clients, addresses, picks] = /^(!?)([\d-]+)(?:@([\d-]+))?:(.+)$/.exec(step)!;
    const froms = numbers(clients!);
    const tos = addresses === undefined ? [VIP] : numbers(addresses).map((n) => `10.0.3.${n}`);
    let chosen = '';
    for (let i = 0; i < picks!.length; i++) {
      const from = `10.0.1.${froms[i % froms.length]}:${port++}`;
      const to = `${tos[i % tos.length]}:80`;
      const server = b.probe(from, to, hold !== '', isMarked ? MARK : 0);
      chosen += server === 'refused' ? '-' : server.slice('10.0.2.1'.length, -':80'.length);
      if (hold !== '') held.push({ from, to, server });
    }
    return step.slice(0, -chosen.length) + chosen;
  }

  return steps
    .split(' ')
    .map((step) => {
      if (/^[-+=]/.test(step)) return command(step);
      if (/^[fr]/.test(step)) return close(step);
      if (step.startsWith('w')) {
        b.wait(Number(step.slice(1)));
        return step;
      }
      return probe(step);
    })
    .join(' ');
}

describe('the kernel’s choices', () => {
  it.each([
    [
      'dest_dh',
      'dh fwmark',
      '+1 +2 +3*2 2@1-16:3112123312132313 9@1-6:311212 =3*0 2@1-8:-11212-- =3 2@1-8:31121233 -2 2@1-8:11333331',
    ],
    ['dest_lblc_overload', 'lblc fwmark', '+1*2 +2*2 +3*4 !3-12@1:3333322211 !3-8@2:111111 fin1-10 2@1-4:3323'],
    ['dest_lblcr_expire', 'lblcr fwmark', '+1 +2 +3 !3-8@1:332211 rst1-6 w400 2@1-3:132'],
    ['dest_lblcr_overload', 'lblcr fwmark', '+1*2 +2*2 +3*4 !3-12@1:3333322211 !3-8@2:111111 fin1-10 2@1-4:3323'],
    [
      'dest_mh',
      'mh fwmark',
      '+1 +2 +3*2 2@1-16:1111111111111111 9@1-6:111111 =3*0 2@1-8:11111111 =3 2@1-8:11111111 -2 2@1-8:11111111',
    ],
    [
      'dest_sh',
      'sh fwmark',
      '+1 +2 +3*2 2@1-16:2222222222222222 9@1-6:222222 =3*0 2@1-8:22222222 =3 2@1-8:22222222 -2 2@1-8:33333333',
    ],
    [
      'dest_wlc',
      'wlc fwmark',
      '+1 +2 +3*2 2@1-16:3213321332133213 9@1-6:321332 =3*0 2@1-8:12121212 =3 2@1-8:12132132 -2 2@1-8:13131313',
    ],
    ['fo_steps', 'fo', '+1 +2*3 +3*2 3-5:222 =2*0 3-5:333 =3*2x2 !3-6:1111 =2*9 3-5:222'],
    [
      'mh_flags_mh_fallback',
      'mh -b mh-fallback',
      '+1 +2 +3*2 5:3333333333 3-12:3333113122 =1*0 3-12:3333223322 =3*2x1 !3-12:2222222222',
    ],
    [
      'mh_spread',
      'mh',
      '+1 +2*2 +3*3 +4 +5*5 2-59:5253355354435545534323325332335225155551141513534451512455 -3 2-59:5255255554455545554522225152215225155551141515544451512555',
    ],
    [
      'sched_dh_change',
      'dh',
      '+1 +2 3-6:2222 +3*2 3-10:33333333 =2*0 3-10:33333333 -1 3-8:333333 +4 =2*3 3-12:4444444444 -3 -4 3-6:2222',
    ],
    ['sched_dh_held', 'dh', '+1*3 +2 +3*2 !3-14:333333333333 fin1-5 !15-22:33333333 rst6-12 !23-28:333333'],
    ['sched_dh_weights', 'dh', '+1 +2*2 +3*3 +4*4 3-22:44444444444444444444 =1*4 =2*2 =3*6 =4*0 3-16:--------------'],
    ['sched_dh_zero', 'dh', '2:- +1*0 +2*0 +3*0 3-5:--- =2 3-6:---- !7-9:--- =2*0 3-5:--- -1 -2 -3 2:-'],
    [
      'sched_fo_change',
      'fo',
      '+1 +2 3-6:2222 +3*2 3-10:33333333 =2*0 3-10:33333333 -1 3-8:333333 +4 =2*3 3-12:2222222222 -3 -4 3-6:2222',
    ],
    ['sched_lblc_equal', 'lblc', '+1 +2 +3 3-14:333333333333 20:3333'],
    ['sched_lblc_held', 'lblc', '+1*3 +2 +3*2 !3-14:333221111111 fin1-5 !15-22:33322222 rst6-12 !23-28:111111'],
    [
      'sched_lblc_weights',
      'lblc',
      '+1 +2*2 +3*3 +4*4 3-22:44444444444444444444 =1*4 =2*2 =3*6 =4*0 3-16:33333333333333',
    ],
    ['sched_lblc_zero', 'lblc', '2:- +1*0 +2*0 +3*0 3-5:--- =2 3-6:2222 !7-9:222 =2*0 3-5:--- -1 -2 -3 2:-'],
    [
      'sched_lblcr_weights',
      'lblcr',
      '+1 +2*2 +3*3 +4*4 3-22:44444444444444444444 =1*4 =2*2 =3*6 =4*0 3-16:33333333333333',
    ],
    ['sched_lc_equal', 'lc', '+1 +2 +3 3-14:321321321321 20:3213'],
    ['sched_lc_held', 'lc', '+1*3 +2 +3*2 !3-14:321321321321 fin1-5 !15-22:32132132 rst6-12 !23-28:132132'],
    [
      'sched_mh_change',
      'mh',
      '+1 +2 3-6:2222 +3*2 3-10:33331131 =2*0 3-10:33331131 -1 3-8:33333- +4 =2*3 3-12:2332423242 -3 -4 3-6:2222',
    ],
    ['sched_mh_equal', 'mh', '+1 +2 +3 3-14:233211312231 20:1111'],
    ['sched_nq_equal', 'nq', '+1 +2 +3 3-14:333333333333 20:3333'],
    ['sched_nq_held', 'nq', '+1*3 +2 +3*2 !3-14:321131131321 fin1-5 !15-22:31321131 rst6-12 !23-28:132113'],
    ['sched_nq_weights', 'nq', '+1 +2*2 +3*3 +4*4 3-22:44444444444444444444 =1*4 =2*2 =3*6 =4*0 3-16:33333333333333'],
    ['sched_ovf_held', 'ovf', '+1*3 +2 +3*2 !3-14:111133322--- fin1-5 !15-22:11113--- rst6-12 !23-28:3322--'],
    ['sched_ovf_weights', 'ovf', '+1 +2*2 +3*3 +4*4 3-22:44444444444444444444 =1*4 =2*2 =3*6 =4*0 3-16:33333333333333'],
    ['sched_ovf_zero', 'ovf', '2:- +1*0 +2*0 +3*0 3-5:--- =2 3-6:2222 !7-9:22- =2*0 3-5:--- -1 -2 -3 2:-'],
    [
      'sched_rr_change',
      'rr',
      '+1 +2 3-6:2121 +3*2 3-10:32132132 =2*0 3-10:13131313 -1 3-8:333333 +4 =2*3 3-12:2432432432 -3 -4 3-6:2222',
    ],
    ['sched_rr_equal', 'rr', '+1 +2 +3 3-14:321321321321 20:3213'],
    ['sched_rr_held', 'rr', '+1*3 +2 +3*2 !3-14:321321321321 fin1-5 !15-22:32132132 rst6-12 !23-28:132132'],
    ['sched_rr_zero', 'rr', '2:- +1*0 +2*0 +3*0 3-5:--- =2 3-6:2222 !7-9:222 =2*0 3-5:--- -1 -2 -3 2:-'],
    [
      'sched_sed_change',
      'sed',
      '+1 +2 3-6:2222 +3*2 3-10:33333333 =2*0 3-10:33333333 -1 3-8:333333 +4 =2*3 3-12:2222222222 -3 -4 3-6:2222',
    ],
    ['sched_sed_equal', 'sed', '+1 +2 +3 3-14:333333333333 20:3333'],
    ['sched_sed_held', 'sed', '+1*3 +2 +3*2 !3-14:131321131321 fin1-5 !15-22:31321131 rst6-12 !23-28:132113'],
    ['sched_sed_weights', 'sed', '+1 +2*2 +3*3 +4*4 3-22:44444444444444444444 =1*4 =2*2 =3*6 =4*0 3-16:33333333333333'],
    ['sched_sed_zero', 'sed', '2:- +1*0 +2*0 +3*0 3-5:--- =2 3-6:2222 !7-9:222 =2*0 3-5:--- -1 -2 -3 2:-'],
    [
      'sched_sh_change',
      'sh',
      '+1 +2 3-6:1111 +3*2 3-10:13131323 =2*0 3-10:131313-3 -1 3-8:-3-3-3 +4 =2*3 3-12:2223243432 -3 -4 3-6:2222',
    ],
    ['sched_sh_held', 'sh', '+1*3 +2 +3*2 !3-14:111313232131 fin1-5 !15-22:31321211 rst6-12 !23-28:111131'],
    ['sched_sh_weights', 'sh', '+1 +2*2 +3*3 +4*4 3-22:14121333334444442423 =1*4 =2*2 =3*6 =4*0 3-16:12312-23113123'],
    ['sched_sh_zero', 'sh', '2:- +1*0 +2*0 +3*0 3-5:--- =2 3-6:---2 !7-9:--- =2*0 3-5:--- -1 -2 -3 2:-'],
    [
      'sched_wlc_change',
      'wlc',
      '+1 +2 3-6:2121 +3*2 3-10:33333213 =2*0 3-10:31331331 -1 3-8:333333 +4 =2*3 3-12:4422242224 -3 -4 3-6:2222',
    ],
    ['sched_wlc_equal', 'wlc', '+1 +2 +3 3-14:321321321321 20:3213'],
    ['sched_wlc_held', 'wlc', '+1*3 +2 +3*2 !3-14:321131321131 fin1-5 !15-22:32131132 rst6-12 !23-28:113132'],
    ['sched_wlc_zero', 'wlc', '2:- +1*0 +2*0 +3*0 3-5:--- =2 3-6:2222 !7-9:222 =2*0 3-5:--- -1 -2 -3 2:-'],
    ['sched_wrr_big', 'wrr', '+1*65535 +2 3-8:211111'],
    ['sched_wrr_gcd', 'wrr', '+1*100 +2*50 +3*25 3-23:321112132111213211121 =1*7 =2*3 =3 3-25:11112121321111121213211'],
    ['sched_wrr_weights', 'wrr', '+1 +2*2 +3*3 +4*4 3-22:43214434324321443432 =1*4 =2*2 =3*6 =4*0 3-16:31321331321331'],
    ['sched_wrr_zero', 'wrr', '2:- +1*0 +2*0 +3*0 3-5:--- =2 3-6:2222 !7-9:222 =2*0 3-5:--- -1 -2 -3 2:-'],
    [
      'sh_flags_sh_fallback',
      'sh -b sh-fallback',
      '+1 +2 +3*2 5:1111111111 3-12:1313132321 =1*0 3-12:2323232322 =3*2x1 !3-12:2222222222',
    ],
    [
      'sh_flags_sh_fallback_sh_port',
      'sh -b sh-fallback,sh-port',
      '+1 +2 +3*2 5:1323233131 3-12:3333112223 =1*0 3-12:2222333322 =3*2x1 !3-12:2222222222',
    ],
    ['sh_spread', 'sh', '+1 +2*2 +3*3 +4 +5*5 2-59:2121515555155555555545455353543433333323213232521215255551'],
  ])('%s', (_name, scheduler, steps) => {
    expect(play(scheduler, steps)).toBe(steps);
  });
});
