import { describe, expect, it } from 'vitest';
import { formatIp4, ip4 } from './addr.ts';
import { type Announcement, announcementText, FtpLine, readAnnouncement } from './ftp-lines.ts';

const SPEAKER = ip4('10.9.9.9');

/** `PORT 10.1.0.2:50000 "10,1,0,2,195,80"`, or why not. */
function read(text: string, isReply: boolean): string {
  const bytes = Uint8Array.from(`??${text}`, (c) => c.charCodeAt(0));
  const found: Announcement = { line: FtpLine.None, address: SPEAKER, port: 0, from: 0, to: 0 };
  const line = readAnnouncement(bytes, 2, bytes.length, isReply, found);
  const name = Object.entries(FtpLine).find(([, value]) => value === line)![0];
  if (line === FtpLine.None || line === FtpLine.Partial) return name;
  const said = text.slice(found.from - 2, found.to - 2);
  return `${name} ${formatIp4(found.address)}:${found.port} "${said}"`;
}

describe('what a control connection announces', () => {
  it.each([
    [false, 'PORT 10,1,0,2,195,80\r\n', 'Port 10.1.0.2:50000 "10,1,0,2,195,80"'],
    [false, 'port 10,1,0,2,0,20\r\n', 'Port 10.1.0.2:20 "10,1,0,2,0,20"'],
    [false, 'PORT 10,1,0,2,195,80\n', 'Partial'],
    [false, 'PORT 10,1,0,2,195\r\n', 'Partial'],
    [false, 'PORT 10,1,0,2,195,80', 'Partial'],
    [false, 'PO', 'Partial'],
    [false, 'PORT', 'Partial'],
    [false, 'USER port\r\n', 'None'],
    [false, '227 (10,2,0,2,195,80)\r\n', 'None'],
    [false, 'EPRT |1|10.1.0.2|50000|\r\n', 'Eprt 10.1.0.2:50000 "|1|10.1.0.2|50000|"'],
    [false, 'EPRT !1!10.1.0.2!50000!\r\n', 'Eprt 10.1.0.2:50000 "!1!10.1.0.2!50000!"'],
    [false, 'EPRT |2|fe80::1|50000|\r\n', 'Partial'],
    [false, 'EPRT |1|10.1.0.2|0|\r\n', 'Partial'],
    [false, 'EPRT |1|10.1.0.2|50000\r\n', 'Partial'],
    [true, '227 Entering Passive Mode (10,2,0,2,195,80)\r\n', 'Pasv 10.2.0.2:50000 "10,2,0,2,195,80"'],
    [true, '227 =10,2,0,2,195,81\r\n', 'Pasv 10.2.0.2:50001 "10,2,0,2,195,81"'],
    [true, '227 no address\r\n', 'Partial'],
    [true, '227 (10,2,0,2,195,8', 'Partial'],
    [true, '229 Extended (|||50000|)\r\n', 'Epsv 10.9.9.9:50000 "|||50000|"'],
    [true, '229 Extended (||50000|)\r\n', 'Partial'],
    [true, 'PORT 10,2,0,2,195,83\r\n', 'None'],
    [true, '220 hi\r\n', 'None'],
  ])('%s: %j is %s', (isReply, text, expected) => {
    expect(read(text, isReply)).toBe(expected);
  });

  it.each([
    [FtpLine.Port, '10,2,0,100,195,80'],
    [FtpLine.Pasv, '10,2,0,100,195,80'],
    [FtpLine.Eprt, '|1|10.2.0.100|50000|'],
    [FtpLine.Epsv, '|||50000|'],
  ])('is written anew in its own form (%i)', (line, text) => {
    expect(announcementText(line, ip4('10.2.0.100'), 50000)).toBe(text);
  });
});
