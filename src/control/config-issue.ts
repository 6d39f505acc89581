/** What zod found wrong, in the operator's words. */
import { z } from 'zod';
import { didYouMean } from './diagnostics.ts';
import type { Path } from './yaml-source.ts';

/** At the value of `path`, or at the key `key` of the map there. */
export interface IssueText {
  readonly path: Path;
  readonly key?: string;
  readonly message: string;
}

const TYPE_WORDS: Readonly<Record<string, string>> = {
  string: 'a text',
  number: 'a number',
  int: 'a whole number',
  boolean: 'true or false',
  array: 'a list',
  object: 'a map of keys',
  record: 'a map of keys',
};

/** The texts of one issue that `schema` found in `raw`; paths start at `raw`. */
export function describeIssue(issue: z.core.$ZodIssue, raw: unknown, schema: z.ZodType): IssueText[] {
  const path = issue.path.map((step) => (typeof step === 'symbol' ? String(step) : step));
  if (issue.code === 'unrecognized_keys') {
    const known = schema instanceof z.ZodObject ? Object.keys(schema.shape) : [];
    return issue.keys.map((key) => ({ path, key, message: `unknown key${didYouMean(key, known)}` }));
  }
  if (issue.code === 'invalid_key') {
    const key = String(path.at(-1));
    return [{ path: path.slice(0, -1), key, message: `'${key}' ${issue.issues[0]?.message ?? 'is no key'}` }];
  }
  return [{ path, message: describeValue(issue, valueAt(raw, path)) }];
}

function describeValue(issue: z.core.$ZodIssue, value: unknown): string {
  switch (issue.code) {
    case 'invalid_value':
      return noneOf(issue.values, value);
    case 'invalid_union':
      // Which of several shapes it is, one of its keys says.
      return 'options' in issue && Array.isArray(issue.options) ? noneOf(issue.options, value) : issue.message;
    case 'invalid_type': {
      const wanted = TYPE_WORDS[issue.expected] ?? issue.expected;
      return value === undefined ? `is missing: ${wanted}` : `must be ${wanted}, not ${show(value)}`;
    }
    case 'too_small':
      return typeof value === 'string' ? 'is empty' : `${show(value)} is too small: at least ${issue.minimum}`;
    case 'too_big':
      return `${show(value)} is too big: at most ${issue.maximum}`;
    default:
      return issue.message;
  }
}

function noneOf(values: readonly unknown[], value: unknown): string {
  const texts = values.map(String);
  if (value === undefined) return `is missing: one of ${texts.join(', ')}`;
  const hint = typeof value === 'string' ? didYouMean(value, texts) : '';
  return `${show(value)} is not one of ${texts.join(', ')}${hint}`;
}

export function kindOf(value: unknown): string {
  if (value === null) return 'nothing';
  if (Array.isArray(value)) return 'a list';
  return TYPE_WORDS[typeof value] ?? typeof value;
}

function show(value: unknown): string {
  if (typeof value === 'string') return `'${value}'`;
  return typeof value === 'object' ? kindOf(value) : String(value);
}

function valueAt(value: unknown, path: Path): unknown {
  let at = value;
  for (const step of path) {
    at = typeof at === 'object' && at !== null ? (at as Record<string | number, unknown>)[step] : undefined;
  }
  return at;
}
