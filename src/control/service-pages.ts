/** Services as the worker lists them, a page at a time, put together again where a page ends among the servers of one. */
import type { ServiceKey, ServiceRow } from '../model/ipvs.ts';
import type { Engine } from './engine-client.ts';
import type { Page } from './http.ts';
import { serviceId } from './ipvs-table.ts';

/** Services and servers asked of the worker at a time: what it can list between two breaths. */
const LINES = 256;

/** Asks for a page: whole services, at least one unless there is no more. To be called with the cursor of the page before. */
export function servicePages(engine: Engine, key?: ServiceKey): (cursor: number) => Promise<Page<ServiceRow>> {
  let held: ServiceRow | null = null;
  return async (from) => {
    const rows: ServiceRow[] = [];
    for (let cursor = from; ; ) {
      const page = await engine.call('list-services', { key, cursor, limit: LINES });
      for (const row of page.rows) {
        if (held === null) held = row;
        else if (serviceId(held.key) === serviceId(row.key))
          held = { ...held, servers: [...held.servers, ...row.servers] };
        else {
          rows.push(held);
          held = row;
        }
      }
      if (!page.isCut && held !== null) {
        rows.push(held);
        held = null;
      }
      cursor = page.next;
      if (rows.length > 0 || cursor < 0) return { rows, next: cursor };
    }
  };
}
