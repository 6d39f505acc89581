/**
 * For tests: everything that an object remembers, private fields and variables of closures too, as V8's inspector shows it. So a test can say that nothing has
 * changed, or that a copy is complete, without a list of fields that somebody would forget to extend.
 */

import type { Runtime } from 'node:inspector';
import { Session } from 'node:inspector';

interface Probe {
  root: unknown;
  ids: WeakMap<object, number>;
  next: number;
}

/** What is looked into among the variables of a function. */
const CLOSURE_CLASSES = new Set(['AddressCache', 'Sets']);
const ARRAYS = /^(Int|Uint|Float)\d+Array$/;

/** Zeros do not count: a table with more room than another may hold the same. */
const DIGEST = `function () {
  let h = 2166136261;
  const whole = this.byteLength & ~7;
  const words = new Float64Array(this.buffer, this.byteOffset, whole >>> 3);
  const bytes = new Uint8Array(this.buffer, this.byteOffset, this.byteLength);
  const mix = (i) => { if (bytes[i] !== 0) h = Math.imul(h ^ bytes[i] ^ Math.imul(i, 0x9e3779b1), 16777619); };
  for (let i = 0; i < words.length; i++) if (!Object.is(words[i], 0)) for (let j = 0; j < 8; j++) mix(8 * i + j);
  for (let i = whole; i < bytes.length; i++) mix(i);
  return h >>> 0;
}`;
const IDENTITY = `function () {
  const probe = globalThis.__inspectState;
  let id = probe.ids.get(this);
  if (id === undefined) probe.ids.set(this, (id = probe.next++));
  return id;
}`;

/**
 * Path → value of every primitive and typed array (as a digest) that can be reached from `root`.
 * @param skips paths that are not entered, nor told of
 */
export function inspectState(root: object, skips: RegExp): Map<string, string> {
  const holder = globalThis as unknown as { __inspectState?: Probe };
  const session = new Session();
  session.connect();
  const found = new Map<string, string>();
  const seen = new Set<number>();

  function post<T>(method: string, params: object): T {
    let answer: unknown;
    session.post(method, params, (error, result) => {
      if (error) throw new Error(`${method}: ${error.message}`);
      answer = result;
    });
    return answer as T;
  }

  function call(objectId: string, functionDeclaration: string): unknown {
    const params = { objectId, functionDeclaration, returnByValue: true };
    return post<Runtime.CallFunctionOnReturnType>('Runtime.callFunctionOn', params).result.value;
  }

  function visit(path: string, value: Runtime.RemoteObject, isClosure: boolean): void {
    if (skips.test(path)) return;
    const { type, subtype, className, objectId } = value;
    if (objectId === undefined) {
      found.set(path, type === 'undefined' ? 'undefined' : String(value.unserializableValue ?? value.value));
    } else if (ARRAYS.test(className ?? '')) {
      found.set(path, String(call(objectId, DIGEST)));
    } else if (type === 'function') {
      visitFunction(path, objectId);
    } else if (!isClosure || CLOSURE_CLASSES.has(className ?? '')) {
      const id = call(objectId, IDENTITY) as number;
      if (seen.has(id)) return;
      seen.add(id);
      visitObject(path, objectId, subtype === 'map' || subtype === 'set');
    }
  }

  function visitObject(path: string, objectId: string, hasEntries: boolean): void {
    const props = properties(objectId);
    for (const p of props.result) {
      if (p.isOwn && p.value !== undefined && p.name !== '__proto__') visit(`${path}.${p.name}`, p.value, false);
    }
    const own = (props as { privateProperties?: { name: string; value?: Runtime.RemoteObject }[] }).privateProperties;
    for (const p of own ?? []) if (p.value?.type !== 'function' && p.value) visit(`${path}.${p.name}`, p.value, false);
    if (!hasEntries) return;
    const entries = props.internalProperties?.find((p) => p.name === '[[Entries]]')?.value;
    if (entries?.objectId !== undefined) visitObject(`${path}[[Entries]]`, entries.objectId, false);
  }

  /** Variables that only this function and its siblings see. */
  function visitFunction(path: string, objectId: string): void {
    const scopes = properties(objectId).internalProperties?.find((p) => p.name === '[[Scopes]]')?.value;
    if (scopes?.objectId === undefined) return;
    const inner = properties(scopes.objectId).result.find((p) => p.name === '0')?.value;
    if (inner?.objectId === undefined || inner.description?.startsWith('Closure') !== true) return;
    const id = call(inner.objectId, IDENTITY) as number;
    if (seen.has(id)) return;
    seen.add(id);
    for (const p of properties(inner.objectId).result) {
      if (p.value !== undefined && p.value.type !== 'function') visit(`${path}()${p.name}`, p.value, true);
    }
  }

  function properties(objectId: string): Runtime.GetPropertiesReturnType {
    return post('Runtime.getProperties', { objectId, ownProperties: true });
  }

  try {
    holder.__inspectState = { root, ids: new WeakMap(), next: 1 };
    const expression = 'globalThis.__inspectState.root';
    const { result } = post<Runtime.EvaluateReturnType>('Runtime.evaluate', { expression });
    visit('', result, false);
  } finally {
    delete holder.__inspectState;
    session.disconnect();
  }
  return found;
}

/** Paths whose values differ, with both. */
export function differences(a: ReadonlyMap<string, string>, b: ReadonlyMap<string, string>): string[] {
  const paths = new Set([...a.keys(), ...b.keys()]);
  return [...paths]
    .filter((path) => a.get(path) !== b.get(path))
    .map((path) => `${path}: ${a.get(path)} | ${b.get(path)}`);
}
