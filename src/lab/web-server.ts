// A real server of the lab: HTTP on TCP, an echo on UDP, and its own name in each answer.
//
//   node web-server.js --name rs1 [--address 0.0.0.0] [--http 80] [--echo 7] [--echo-address 0.0.0.0]
//
//   GET /anything          rs1
//   GET /client            the peer as this server sees it: 10.0.1.2:40312
//   GET /big?bytes=N       N bytes, the same ones for the same N
//   GET /slow?chunks=N&ms=T   N lines, one each T milliseconds
//   POST /anything         the number of bytes received and their SHA-256
//   UDP                    `rs1 ` and what came; from the echo's address, which must be the VIP where the director does not rewrite it back
//
// Says `ready` on stdout when both sockets listen.
import { createHash } from 'node:crypto';
import { createSocket } from 'node:dgram';
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import { parseArgs } from 'node:util';

const BLOCK = Buffer.from(Array.from({ length: 65_536 }, (_, i) => 33 + ((i * 7 + (i >> 8)) % 94)));

function answer(name: string, request: IncomingMessage, response: ServerResponse): void {
  const url = new URL(request.url ?? '/', 'http://lab');
  response.setHeader('x-server', name);
  response.setHeader('content-type', 'text/plain');
  if (request.method === 'POST' || request.method === 'PUT') receive(request, response);
  else if (url.pathname === '/client') response.end(`${request.socket.remoteAddress}:${request.socket.remotePort}\n`);
  else if (url.pathname === '/big') sendBytes(response, Number(url.searchParams.get('bytes') ?? 1_000_000));
  else if (url.pathname === '/slow') {
    sendSlowly(response, Number(url.searchParams.get('chunks') ?? 10), Number(url.searchParams.get('ms') ?? 100));
  } else response.end(`${name}\n`);
}

function receive(request: IncomingMessage, response: ServerResponse): void {
  const hash = createHash('sha256');
  let bytes = 0;
  request.on('data', (chunk: Buffer) => {
    hash.update(chunk);
    bytes += chunk.length;
  });
  request.on('end', () => response.end(`${bytes} ${hash.digest('hex')}\n`));
}

function sendBytes(response: ServerResponse, bytes: number): void {
  response.setHeader('content-length', bytes);
  let left = bytes;
  const more = (): void => {
    while (left > 0) {
      const size = Math.min(left, BLOCK.length);
      left -= size;
      if (!response.write(BLOCK.subarray(0, size)) && left > 0) {
        response.once('drain', more);
        return;
      }
    }
    response.end();
  };
  more();
}

function sendSlowly(response: ServerResponse, chunks: number, ms: number): void {
  let sent = 0;
  const timer = setInterval(() => {
    response.write(`${++sent}\n`);
    if (sent < chunks) return;
    clearInterval(timer);
    response.end();
  }, ms);
  response.on('close', () => clearInterval(timer));
}

const { values } = parseArgs({
  options: {
    name: { type: 'string', default: 'server' },
    address: { type: 'string', default: '0.0.0.0' },
    http: { type: 'string', default: '80' },
    echo: { type: 'string', default: '7' },
    'echo-address': { type: 'string' },
  },
});

const http = createServer((request, response) => answer(values.name, request, response));
http.keepAliveTimeout = 60_000;
const echo = createSocket('udp4');
echo.on('message', (datagram, from) => {
  echo.send(Buffer.concat([Buffer.from(`${values.name} `), datagram]), from.port, from.address);
});
http.listen(Number(values.http), values.address, 4096, () => {
  echo.bind(Number(values.echo), values['echo-address'] ?? values.address, () => process.stdout.write('ready\n'));
});
for (const signal of ['SIGTERM', 'SIGINT'] as const) process.once(signal, () => process.exit(0));
