/** What is wrong with a text file and where: `file:line:column: path: message`, the line itself and a caret below it. */

export interface Diagnostic {
  readonly file: string;
  /** From 1; 0 when the file as a whole is meant. */
  readonly line: number;
  readonly column: number;
  /** `devices.0.mac`; empty for the whole file. */
  readonly path: string;
  readonly message: string;
  readonly sourceLine: string;
}

/** One diagnostic as the operator reads it; without `withSource` only its first line. */
export function formatDiagnostic(d: Diagnostic, withSource = true): string {
  const place = d.line === 0 ? d.file : `${d.file}:${d.line}:${d.column}`;
  const head = `${place}: ${d.path === '' ? '' : `${d.path}: `}${d.message}`;
  if (!withSource || d.line === 0) return head;
  // Tabs before the caret stay tabs, so that it stands where the terminal puts the character.
  const indent = d.sourceLine.slice(0, d.column - 1).replace(/[^\t]/g, ' ');
  return `${head}\n  ${d.sourceLine}\n  ${indent}^`;
}

/** By place in the file, then by path. */
export function sortDiagnostics(list: readonly Diagnostic[]): Diagnostic[] {
  return [...list].sort(
    (a, b) =>
      a.line - b.line || a.column - b.column || a.path.localeCompare(b.path) || a.message.localeCompare(b.message),
  );
}

/** ` (did you mean 'x'?)` for the nearest candidate that is near enough to be a slip of the finger, else nothing. */
export function didYouMean(word: string, candidates: readonly string[]): string {
  let best = '';
  let bestDistance = Math.max(1, Math.floor(word.length / 3)) + 1;
  for (const candidate of candidates) {
    const distance = editDistance(word.toLowerCase(), candidate.toLowerCase());
    if (distance < bestDistance) {
      best = candidate;
      bestDistance = distance;
    }
  }
  return best === '' ? '' : ` (did you mean '${best}'?)`;
}

/** Levenshtein's distance with swaps of neighbours as one step (optimal string alignment). */
export function editDistance(a: string, b: string): number {
  let beforeLast: number[] = [];
  let last = Array.from({ length: b.length + 1 }, (_, j) => j);
  for (let i = 1; i <= a.length; i++) {
    const row = [i];
    for (let j = 1; j <= b.length; j++) {
      const change = a[i - 1] === b[j - 1] ? 0 : 1;
      let cost = Math.min(row[j - 1]! + 1, last[j]! + 1, last[j - 1]! + change);
      if (i > 1 && j > 1 && a[i - 1] === b[j - 2] && a[i - 2] === b[j - 1])
        cost = Math.min(cost, beforeLast[j - 2]! + 1);
      row.push(cost);
    }
    beforeLast = last;
    last = row;
  }
  return last[b.length]!;
}
