import { describe, expect, it } from 'vitest';
import { SeededRng } from '../base/rng.ts';
import { finish } from '../base/slices.ts';
import { ip4, netmask } from '../wire/addr.ts';
import { Route, RouteKind, RouteTable } from './routes.ts';

function route(prefix: number, length: number, metric = 0, kind: number = RouteKind.Unicast): Route {
  return new Route(prefix, length, kind, 0, 1, 0, metric, 3, 0);
}

/** What the table must answer, by looking at every route. */
function best(routes: readonly Route[], dst: number): Route | null {
  let found: Route | null = null;
  for (const r of routes) {
    if ((dst & netmask(r.length)) !== r.prefix) continue;
    const key = (x: Route) => (x.isInLocalTable ? 100 : 0) + x.length;
    if (found === null || key(r) > key(found) || (key(r) === key(found) && r.metric < found.metric)) found = r;
  }
  return found;
}

describe('RouteTable', () => {
  it('agrees with a search through all routes, while they come and go', () => {
    const rng = new SeededRng(3);
    const table = new RouteTable();
    const routes: Route[] = [];
    const address = () => rng.next() & 0x0f0f0f07;
    for (let step = 0; step < 3000; step++) {
      if (routes.length > 40 && (rng.next() & 3) === 0) {
        const [gone] = routes.splice((rng.next() >>> 1) % routes.length, 1);
        table.remove(gone!);
      } else if (routes.length < 400) {
        const length = (rng.next() >>> 1) % 33;
        const kind = (rng.next() & 7) === 0 ? RouteKind.Local : RouteKind.Unicast;
        const r = route(address() & netmask(length), length, (rng.next() >>> 1) % 5, kind);
        if (
          routes.some((o) => o.prefix === r.prefix && o.length === length && o.metric === r.metric && o.kind === kind)
        )
          continue;
        routes.push(r);
        table.insert(r);
      }
      const dst = address();
      expect(table.lookup(dst)).toBe(best(routes, dst));
      expect(table.lookup(dst)).toBe(best(routes, dst));
    }
    expect(finish(table.all())).toHaveLength(routes.length);
    for (const r of routes) table.remove(r);
    expect(table.lookup(address())).toBeNull();
    expect(finish(table.all())).toEqual([]);
  });

  it('takes the local table first, however short its prefix', () => {
    const table = new RouteTable();
    table.insert(route(ip4('10.1.2.0'), 24));
    table.insert(route(ip4('10.1.0.0'), 16, 0, RouteKind.Local));
    expect(table.lookup(ip4('10.1.2.3'))!.kind).toBe(RouteKind.Local);
  });

  it('grows its generation with each change', () => {
    const table = new RouteTable();
    const r = route(ip4('10.0.0.0'), 8);
    const before = table.generation;
    table.insert(r);
    table.remove(r);
    expect(table.generation).toBe(before + 2);
  });

  it('looks up as quickly among 50,000 routes', () => {
    const table = new RouteTable();
    for (let i = 0; i < 50_000; i++) table.insert(route((i << 8) | 0, 24));
    expect(table.lookup((49_999 << 8) | 7)!.prefix).toBe(49_999 << 8);
    expect(table.lookup(ip4('200.0.0.1'))).toBeNull();
  });
});
