/** What the kernel's SIP engine takes for a Call-ID; the cases were asked from Linux 6.1. */
import { describe, expect, it } from 'vitest';
import { callId } from './sip.ts';

function read(text: string): string | undefined {
  const bytes = Uint8Array.from([...`??${text}??`].map((c) => c.charCodeAt(0)));
  return callId(bytes, 2, bytes.length - 2);
}
const message = (header: string, eol = '\r\n') => `INVITE sip:x@y SIP/2.0${eol}${header}${eol}CSeq: 1${eol}`;

describe('the Call-ID', () => {
  it.each([
    ['Call-ID: a@h', 'a@h'],
    ['call-id:a@h', 'a@h'],
    ['CALL-ID  :  a@h', 'a@h'],
    ['i: a@h', 'a@h'],
    ['I:a@h', 'a@h'],
    ['Call-ID: word', 'word'],
    ['Call-ID:\ta@h', 'a@h'],
    ['Call-ID:\r\n a@h', 'a@h'],
    ['Call-ID\r\n : a@h', 'a@h'],
    ['Call-ID: w!"%()*+-./:<>?[]_`{}~@[::1]:5060', 'w!"%()*+-./:<>?[]_`{}~@[::1]:5060'],
    [`Call-ID: ${'x'.repeat(255)}`, 'x'.repeat(255)],
    ['Call-ID: #\r\nCall-ID: a@h', 'a@h'],
    ['Call-ID: a@h\r\nCall-ID: b@h', 'a@h'],
    ['\r\nCall-ID: a@h', 'a@h'],
  ])('of %j is %j', (header, value) => expect(read(message(header))).toBe(value));

  it.each(['\n', '\r', '\r\n'])('may end with %j', (eol) => {
    expect(read(message('Call-ID: a@h', eol))).toBe('a@h');
  });

  it.each([
    'Call-ID: a@',
    'Call-ID: @h',
    'Call-ID: a@h b',
    'Call-ID: a@h;tag=1',
    'Call-ID: a=b',
    'Call-ID: a@h,b',
    'Call-ID a@h',
    ' Call-ID: a@h',
    '\tCall-ID: a@h',
    'in: a@h',
    'Call-IDs: a@h',
    'call\rid: a@h',
    `Call-ID: ${'x'.repeat(256)}`,
    'Subject: none',
  ])('is not there in %j', (header) => expect(read(message(header))).toBeUndefined());

  it.each([
    'Call-ID: a@h\r\nINVITE x\r\n',
    'INVITE x\r\nCall-ID: a@h',
    'INVITE x\r\nCall-ID: ',
    'INVITE x\r\nCall-ID:',
    'INVITE x\r\nCall-ID',
    'INVITE x\r\ni',
    'INVITE x\r\n',
    'INVITE x\r',
    '',
  ])('is not there in %j', (text) => expect(read(text)).toBeUndefined());

  it('ends every search, and never looks outside the message', () => {
    const noise = 'Cali-ID:@\r\n \t#ah';
    let seed = 1;
    const below = (n: number) => {
      seed = (Math.imul(seed, 1103515245) + 12345) & 0x7fffffff;
      return (seed >> 8) % n;
    };
    for (let n = 0; n < 20000; n++) {
      const text = Array.from({ length: below(60) }, () =>
        below(5) === 0 ? '\nCall-ID:' : noise[below(noise.length)],
      ).join('');
      const inside = Uint8Array.from([...text].map((c) => c.charCodeAt(0)));
      const surrounded = Uint8Array.from([...'ah\r\n', ...text, ...'ah\r\n\r\n'].map((c) => c.charCodeAt(0)));
      expect(callId(surrounded, 4, 4 + inside.length)).toBe(callId(inside, 0, inside.length));
    }
  });
});
