// Holds every file that says @hot in its header comment to the rules that a reader can check by eye but should not have to
// (its list is RULES below): no exceptions as control flow, no strings or collections per packet, no subarray, no Buffer.
// What allocates at run time in spite of it is caught by the GC check of bench/micro.
import { readdirSync, readFileSync } from 'node:fs';
import { dirname, join, relative } from 'node:path';
import { fileURLToPath } from 'node:url';

const RULES = [
  [/\.subarray\(|\.slice\(/, 'subarray/slice per packet (an offset does it)'],
  [/\bBuffer\b/, 'Buffer (only devices see one)'],
  [/\btry\s*\{|\bcatch\b/, 'try/catch (errors are values here)'],
  [/\bJSON\.|\bRegExp\(|\bnew Date\b|\bDate\.now\b|\bMath\.random\b/, 'JSON, RegExp, Date or Math.random'],
  [/\bBigInt\b|\b\d+n\b/, 'BigInt'],
  [/\bfor\s*\(\s*const\s+[^;)]*\bof\b/, 'for…of (an iterator per packet)'],
  [/\.\.\.[a-zA-Z_]/, 'spread or rest'],
];

const src = join(dirname(fileURLToPath(import.meta.url)), '..', 'src');
let hot = 0;
const faults = [];
for (const f of readdirSync(src, { recursive: true, withFileTypes: true })) {
  if (!f.isFile() || !f.name.endsWith('.ts') || f.name.endsWith('.test.ts')) continue;
  const file = join(f.parentPath ?? f.path, f.name);
  const text = readFileSync(file, 'utf8');
  const header = /^\s*\/\*\*[\s\S]*?\*\//.exec(text)?.[0] ?? '';
  if (!header.includes('@hot')) continue;
  hot++;
  let inCold = false;
  let inComment = false;
  text.split('\n').forEach((line, i) => {
    // A section between `// cold:` and `// hot again` is set-up or control code of a hot file.
    if (/^\s*\/\/ cold:/.test(line)) inCold = true;
    if (/^\s*\/\/ hot again/.test(line)) inCold = false;
    if (/^\s*\/\*\*?/.test(line)) inComment = true;
    const wasComment = inComment;
    if (line.includes('*/')) inComment = false;
    if (inCold || wasComment) return;
    const code = line.replace(/\/\/.*$/, '').replace(/'(?:[^'\\]|\\.)*'/g, "''");
    for (const [pattern, what] of RULES) {
      if (pattern.test(code)) faults.push(`${relative(src, file)}:${i + 1}: ${what}`);
    }
  });
}
if (hot === 0) faults.push('no @hot file found: the check would prove nothing');
for (const fault of faults) console.error(`check-hot: ${fault}`);
if (faults.length === 0) console.log(`check-hot: ${hot} hot files keep the rules`);
process.exit(faults.length === 0 ? 0 : 1);
