/** Forms, complaints and statuses of procps 4.0.2. */
import { rmSync } from 'node:fs';
import { createServer, type Server } from 'node:http';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Readable } from 'node:stream';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { ApiClient } from './client.ts';
import { sysctl } from './sysctl.ts';

const path = join(tmpdir(), `tapvs-sysctl-test-${process.pid}.sock`);
const client = new ApiClient(path);
const values = new Map([
  ['net.ipv4.vs.drop_entry', '0'],
  ['net.ipv4.ip_forward', '1'],
  ['net.ipv4.conf.eth0/1.forwarding', '1'],
]);
let server: Server;

beforeAll(async () => {
  server = createServer(async (request, response) => {
    const refuse = (status: number, code: string) => {
      response.statusCode = status;
      response.end(JSON.stringify({ error: { code, message: code } }));
    };
    if (request.url === '/v1/sysctl') return void response.end(JSON.stringify([...values]));
    const key = decodeURIComponent((request.url ?? '').slice('/v1/sysctl/'.length));
    if (!values.has(key)) return refuse(404, 'no-such-key');
    if (request.method === 'PUT') {
      let body = '';
      for await (const chunk of request) body += chunk;
      const { value } = JSON.parse(body) as { value: string };
      if (!/^(0x)?\d$/.test(value)) return refuse(422, 'bad-value');
      values.set(key, String(Number(value)));
    }
    response.end(JSON.stringify({ key, value: values.get(key) }));
  });
  await new Promise<void>((resolve) => server.listen(path, resolve));
});

afterAll(async () => {
  client.close();
  await new Promise((resolve) => server.close(resolve));
  rmSync(path, { force: true });
});

const FORWARD = 'net.ipv4.ip_forward = 1\n';

it.each([
  ['net.ipv4.ip_forward', 0, FORWARD, ''],
  ['net/ipv4/ip_forward', 0, FORWARD, ''],
  ['net/ipv4/conf/eth0.1/forwarding', 0, 'net.ipv4.conf.eth0/1.forwarding = 1\n', ''],
  ['-n net.ipv4.ip_forward', 0, '1\n', ''],
  ['-N net.ipv4.ip_forward', 0, 'net.ipv4.ip_forward\n', ''],
  ['net.ipv4.vs.drop_entry=3', 0, 'net.ipv4.vs.drop_entry = 3\n', ''],
  ['-w net.ipv4.vs.drop_entry=2', 0, 'net.ipv4.vs.drop_entry = 2\n', ''],
  ['-nw net.ipv4.vs.drop_entry=1', 0, '1\n', ''],
  ['net.ipv4.vs.drop_entry=0x1', 0, 'net.ipv4.vs.drop_entry = 1\n', ''],
  ['net.ipv4.vs.drop_entry', 0, 'net.ipv4.vs.drop_entry = 1\n', ''],
  ['net.ipv4.vs.drop_entry=', 1, '', 'sysctl: setting key "net.ipv4.vs.drop_entry": Invalid argument\n'],
  ['=1', 1, '', 'sysctl: Path is not under /proc/sys/: /proc/sys/\n'],
  ['-q net.ipv4.vs.drop_entry=0', 0, '', ''],
  ['net.ipv4.vs', 0, 'net.ipv4.vs.drop_entry = 0\n', ''],
  ['-a', 0, `net.ipv4.conf.eth0/1.forwarding = 1\n${FORWARD}net.ipv4.vs.drop_entry = 0\n`, ''],
  ['-a -r ip_for', 0, FORWARD, ''],
  ['-w net.ipv4.ip_forward', 1, '', 'sysctl: command line(0): invalid syntax, continuing...\n'],
  ['net.ipv4.ip_forward=x', 1, '', 'sysctl: setting key "net.ipv4.ip_forward": Invalid argument\n'],
  ['net.foo', 1, '', 'sysctl: cannot stat /proc/sys/net/foo: No such file or directory\n'],
  ['net.foo=1', 1, '', 'sysctl: cannot stat /proc/sys/net/foo: No such file or directory\n'],
  ['net.foo net.ipv4.ip_forward', 1, FORWARD, 'sysctl: cannot stat /proc/sys/net/foo: No such file or directory\n'],
  ['-e net.foo', 0, '', ''],
  ['-w', 1, '', "sysctl: no variables specified\nTry `sysctl --help' for more information.\n"],
])('sysctl %s', async (words, status, out, err) => {
  const said = { out: '', err: '' };
  const found = await sysctl.run(words.split(' '), {
    program: 'sysctl',
    client,
    stdin: Readable.from([]),
    out: (text) => {
      said.out += String(text);
    },
    err: (text) => {
      said.err += text;
    },
  });
  expect({ status: found, ...said }).toEqual({ status, out, err });
});
