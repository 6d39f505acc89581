// Writes docs/counters.md from the drop table. `--check` only says whether it is up to date. Needs the build (dist/).
import { readFileSync, writeFileSync } from 'node:fs';
import { Drop, dropText } from '../dist/src/packet/drop.js';

const rows = Object.keys(Drop)
  .filter((name) => name !== 'None')
  .map((name) => `| ${name} | ${dropText[name]} |`);
const text = `# Drop counters

Every packet that tapvs does not send on, deliver or hold ends in exactly one of these; \`tapvs drops -a\` prints them with their counts.
Generated from \`src/packet/drop.ts\` by \`scripts/gen-docs.mjs\`.

| counter | meaning |
|---|---|
${rows.join('\n')}
`;
const file = new URL('../docs/counters.md', import.meta.url);
if (process.argv.includes('--check')) {
  let now = '';
  try {
    now = readFileSync(file, 'utf8');
  } catch {
    // absent is not up to date
  }
  if (now !== text) {
    console.error('gen-docs: docs/counters.md is not what src/packet/drop.ts says: run node scripts/gen-docs.mjs');
    process.exit(1);
  }
} else writeFileSync(file, text);
