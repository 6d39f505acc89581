/** Columns as wide as their widest cell; the last one is not filled up. Numbers stand to the right. */
export function formatTable(rows: readonly (readonly (string | number)[])[]): string {
  const widths: number[] = [];
  for (const row of rows) {
    for (const [i, cell] of row.entries()) widths[i] = Math.max(widths[i] ?? 0, String(cell).length);
  }
  const fill = (cell: string | number, i: number, last: number) =>
    typeof cell === 'number' ? String(cell).padStart(widths[i]!) : i === last ? cell : cell.padEnd(widths[i]!);
  return rows.map((row) => `${row.map((cell, i) => fill(cell, i, row.length - 1)).join('  ')}\n`).join('');
}
