// GET /v1/trace: what the worker posts comes out of the socket, a line of JSON each.
import { once } from 'node:events';
import { type IncomingMessage, request } from 'node:http';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { frame } from '../wire/build.ts';
import type { TraceRecord } from './api.ts';
import { ControlRig } from './test-rig.ts';

let rig: ControlRig;
beforeEach(async () => {
  rig = new ControlRig();
  await rig.listen();
});
afterEach(() => rig.close());

async function get(path: string): Promise<IncomingMessage> {
  const asked = request({ socketPath: rig.socketPath, path }).end();
  const [response] = (await once(asked, 'response')) as [IncomingMessage];
  response.setEncoding('utf8');
  return response;
}

/** A SYN from the client's side to nobody's port. */
function pass(srcPort: number): void {
  const bytes = frame()
    .eth('00:00:00:00:01:01', '02:00:00:00:01:02')
    .ipv4('10.0.1.2', '10.0.1.100')
    .tcp({ srcPort, dstPort: 80, flags: 'S' });
  rig.front.inject(bytes.build());
  rig.engine.wake();
  rig.engine.breathe();
  rig.workerTraces.flush();
}

describe('a trace through the API', () => {
  it('streams until its client goes, and ends then in the worker too', async () => {
    const response = await get('/v1/trace?device=front&filter=tcp');
    expect([response.statusCode, response.headers['content-type']]).toEqual([200, 'application/x-ndjson']);
    expect(rig.engine.director.notes).not.toBeNull();
    const lines = response[Symbol.asyncIterator]() as AsyncIterator<string>;
    for (const port of [1234, 1235]) {
      pass(port);
      const record = JSON.parse((await lines.next()).value) as TraceRecord;
      expect(record).toMatchObject({ missed: 0 });
      expect(record.ways[0]).toMatchObject({ device: 'front', origin: 'received', end: { kind: 'answered' } });
      expect(record.ways[0]!.packet).toContain(`tcp 10.0.1.2:${port} > 10.0.1.100:80 [S]`);
      // What it begot.
      expect(record.ways[1]!.packet).toMatch(/^(tcp 10\.0\.1\.100:80 > 10\.0\.1\.2:|arp who-has)/);
    }
    const stopped = new Promise<void>((resolve) => {
      const stop = rig.workerTraces.stop.bind(rig.workerTraces);
      rig.workerTraces.stop = (id) => {
        stop(id);
        resolve();
      };
    });
    response.destroy();
    await stopped;
    expect(rig.engine.director.notes).toBeNull();
  });

  it('refuses what it cannot trace, in one line', async () => {
    const refused = async (query: string) => {
      const response = await get(`/v1/trace?${query}`);
      let text = '';
      for await (const chunk of response) text += chunk;
      return [response.statusCode, JSON.parse(text).error.message];
    };
    expect(await refused('filter=tcp+porrt')).toEqual([422, "syntax error in filter expression: unexpected 'porrt'"]);
    expect(await refused('device=nix')).toEqual([404, "there is no device 'nix'; there are lo, front, back"]);
    expect(await refused('device=lo')).toEqual([404, 'nothing comes in by lo']);
    expect(rig.engine.director.notes).toBeNull();
  });
});
