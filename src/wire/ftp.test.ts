/** The lines that the kernel's FTP helper understands, and how strictly (ip_vs_ftp.c; recordings ftp_*). */
import { describe, expect, it } from 'vitest';
import { formatIp4 } from './addr.ts';
import * as ftp from './ftp.ts';

const { None, Passive, ExtendedPassive } = ftp.FtpRequest;

/** The line stands between other bytes that must not be read. */
function within<T>(line: string, read: (bytes: Uint8Array, at: number, end: number) => T): T {
  const bytes = Uint8Array.from([...`1,|${line}2|,)\r\n`].map((c) => c.charCodeAt(0)));
  return read(bytes, 3, 3 + line.length);
}
function tell(line: string, found: ftp.FtpAddress | undefined): string {
  if (found === undefined) return 'nothing';
  const address = found.address === undefined ? '-' : formatIp4(found.address);
  return `${address}:${found.port} ${JSON.stringify(line.slice(found.from - 3, found.to - 3))}`;
}
const active = (line: string) => tell(line, within(line, ftp.activeRequest));
const answer = (line: string, request: number) =>
  tell(
    line,
    within(line, (bytes, at, end) => ftp.passiveAnswer(bytes, at, end, request)),
  );

describe('a request to listen', () => {
  it.each([
    ['PASV\r\n', Passive],
    ['pasv\r\n', Passive],
    ['XPASV\r\n', Passive],
    ['NOOP\r\nPASV\r\n', Passive],
    ['PASV\n', None],
    ['PASV \r\n', None],
    ['PASV\r', None],
    ['EPSV\r\n', ExtendedPassive],
    ['EPSV 1\r\n', ExtendedPassive],
    ['EPSV 1\r', ExtendedPassive],
    ['epsv\r\n', ExtendedPassive],
    ['EPSV 2\r\n', None],
    ['EPSV ALL\r\n', None],
    ['EPSV ALL\r\nPASV\r\n', None],
    ['EPSVX\r\nPASV\r\n', Passive],
    ['EPSV\r', None],
    ['EPSV', None],
    ['', None],
    ['LIST\r\n', None],
  ])('%j is %i', (line, request) => expect(within(line, ftp.passiveRequest)).toBe(request));
});

describe('an address of the client', () => {
  it.each([
    ['PORT 10,0,1,2,24,1\r\n', '10.0.1.2:6145 "10,0,1,2,24,1"'],
    ['port 10,0,1,2,24,1\r\n', '10.0.1.2:6145 "10,0,1,2,24,1"'],
    ['PORT  10,0,1,2,24,1\r\n', '10.0.1.2:6145 "10,0,1,2,24,1"'],
    ['PORT10,0,1,2,24,1\r\n', '10.0.1.2:6145 "10,0,1,2,24,1"'],
    ['PORTx10,0,1,2,24,1\r\n', '10.0.1.2:6145 "10,0,1,2,24,1"'],
    ['PORT 10,0,1,2,24,1\n', '10.0.1.2:6145 "10,0,1,2,24,1"'],
    ['PORT 266,0,1,2,24,1\r\n', 'nothing'],
    ['PORT 10,0,1,2,24,256\r\n', 'nothing'],
    ['PORT 10,0,1,2,24,1,7\r\n', '10.0.1.2:6145 "10,0,1,2,24,1"'],
    ['PORT ,,,,,\r\n', '0.0.0.0:0 ",,,,,"'],
    ['PORT 10,0,1,2,24,1', 'nothing'],
    ['PORT 10,0,1,2,24\r\n', 'nothing'],
    ['PORT x10,0,1,2,24,1\r\n', 'nothing'],
    ['PORT 10,0, 1,2,24,1\r\n', 'nothing'],
    ['PORT', 'nothing'],
    ['PORT ', 'nothing'],
    ['NOOP\r\nPORT 10,0,1,2,24,1\r\n', 'nothing'],
    ['EPRT |1|10.0.1.2|6145|\r\n', '10.0.1.2:6145 "|1|10.0.1.2|6145|"'],
    ['eprt !1!10.0.1.2!6145!\r\n', '10.0.1.2:6145 "!1!10.0.1.2!6145!"'],
    ['EPRT |1|10.0.1.2|65535|\r\n', '10.0.1.2:65535 "|1|10.0.1.2|65535|"'],
    ['EPRT |1|10.0.1.2|65536|\r\n', 'nothing'],
    ['EPRT |1|10.0.1.2|99999999999999999999|\r\n', 'nothing'],
    ['EPRT |2|10.0.1.2|6145|\r\n', 'nothing'],
    ['EPRT |2|::1|6145|\r\n', 'nothing'],
    ['EPRT |1|10.0.1|6145|\r\n', 'nothing'],
    ['EPRT |1|10.0.1.256|6145|\r\n', 'nothing'],
    ['EPRT |1|10.0.1.2|0|\r\n', 'nothing'],
    ['EPRT |1|10.0.1.2|6145\r\n', 'nothing'],
    ['EPRT |||6145|\r\n', 'nothing'],
    ['EPRT |1|', 'nothing'],
    ['EPRT |', 'nothing'],
    ['EPRT ', 'nothing'],
    ['LIST\r\n', 'nothing'],
  ])('in %j is %s', (line, found) => expect(active(line)).toBe(found));
});

describe('an answer', () => {
  it.each([
    ['227 Entering Passive Mode (10,0,2,11,195,80).\r\n', '10.0.2.11:50000 "10,0,2,11,195,80"'],
    ['227 =10,0,2,11,195,80\r\n', '10.0.2.11:50000 "10,0,2,11,195,80"'],
    ['227 ((10,0,2,11,195,80))\r\n', '10.0.2.11:50000 "10,0,2,11,195,80"'],
    ['227 (10,0,2,11,195,80', 'nothing'],
    ['227 7 (10,0,2,11,195,80)\r\n', 'nothing'],
    ['227 none\r\n', 'nothing'],
    ['227-x (10,0,2,11,195,80)\r\n', 'nothing'],
    ['227', 'nothing'],
    ['200 x\r\n227 (10,0,2,11,195,80)\r\n', 'nothing'],
    ['229 Entering (|||50000|)\r\n', 'nothing'],
  ])('to PASV, %j, says %s', (line, found) => expect(answer(line, Passive)).toBe(found));

  it.each([
    ['229 Entering Extended Passive Mode (|||50000|)\r\n', '-:50000 "|||50000|"'],
    ['229 (!!!50000!)\r\n', '-:50000 "!!!50000!"'],
    ['229 (|1|10.0.2.11|50000|)\r\n', '10.0.2.11:50000 "|1|10.0.2.11|50000|"'],
    ['229 (|2||50000|)\r\n', 'nothing'],
    ['229 (||50000|)\r\n', 'nothing'],
    ['229 (|||50000)\r\n', 'nothing'],
    ['229 (|||0|)\r\n', 'nothing'],
    ['229 (|||70009|)\r\n', 'nothing'],
    ['229 |||50000|\r\n', 'nothing'],
    ['229 (', 'nothing'],
    ['227 (10,0,2,11,195,80)\r\n', 'nothing'],
  ])('to EPSV, %j, says %s', (line, found) => expect(answer(line, ExtendedPassive)).toBe(found));
});

it('writes what it reads', () => {
  const text = ftp.shortText(0x0a000164 | 0, 50000);
  expect(text).toBe('10,0,1,100,195,80');
  expect(answer(`227 (${text})\r\n`, Passive)).toBe('10.0.1.100:50000 "10,0,1,100,195,80"');
  expect(answer(`229 (${ftp.extendedText(50000)})\r\n`, ExtendedPassive)).toBe('-:50000 "|||50000|"');
});
