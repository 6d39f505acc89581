// The architecture, executable: each folder of src may import only from the folders named beside it.
// Fails on any other import between folders, on a cycle inside a folder, on an unknown folder, and when it finds no modules at all.
import { readdirSync, readFileSync } from 'node:fs';
import { dirname, join, relative, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';

const MAY_IMPORT = {
  base: [],
  wire: ['base'],
  packet: ['base', 'wire'],
  model: ['base', 'wire'],
  hooks: ['base', 'packet'],
  flow: ['base', 'wire', 'packet'],
  device: ['base', 'wire', 'packet'],
  rtnl: ['base', 'wire'],
  decap: ['base', 'wire', 'device'],
  supervise: ['device'],
  link: ['base', 'wire', 'packet', 'device'],
  conntrack: ['base', 'wire', 'packet', 'flow', 'hooks', 'model'],
  nat: ['base', 'wire', 'packet', 'flow', 'hooks', 'model', 'conntrack'],
  filter: ['base', 'wire', 'packet', 'flow', 'hooks', 'model', 'conntrack', 'nat'],
  director: ['base', 'wire', 'packet', 'flow', 'hooks', 'model'],
  ip: ['base', 'wire', 'packet', 'model', 'device', 'link', 'hooks'],
  engine: ['base', 'wire', 'packet', 'model', 'device', 'flow', 'link', 'hooks', 'conntrack', 'nat', 'filter', 'director', 'ip'],
  control: ['base', 'wire', 'model', 'device', 'rtnl', 'engine'],
  cli: ['base', 'wire', 'model', 'filter', 'control', 'decap', 'supervise'],
  lab: ['base', 'wire', 'model', 'device', 'rtnl', 'control', 'cli'],
};

const src = join(dirname(fileURLToPath(import.meta.url)), '..', 'src');
const files = readdirSync(src, { recursive: true, withFileTypes: true })
  .filter((f) => f.isFile() && f.name.endsWith('.ts'))
  .map((f) => join(f.parentPath ?? f.path, f.name));

const IMPORT = /^\s*(?:import|export)\b[^'"]*?from\s*['"](\.{1,2}\/[^'"]+)['"]|^\s*import\s*['"](\.{1,2}\/[^'"]+)['"]|\bimport\(\s*['"](\.{1,2}\/[^'"]+)['"]/gm;
const faults = [];
const graph = new Map();

for (const file of files) {
  const text = readFileSync(file, 'utf8');
  const from = relative(src, file);
  const layer = from.split('/')[0];
  const allowed = MAY_IMPORT[layer];
  if (allowed === undefined) {
    faults.push(`${from}: folder "${layer}" is not in the table of scripts/check-layers.mjs`);
    continue;
  }
  const isTest = from.endsWith('.test.ts');
  const targets = [];
  for (const match of text.matchAll(IMPORT)) {
    const to = relative(src, resolve(dirname(file), match[1] ?? match[2] ?? match[3]));
    if (to.startsWith('..')) {
      if (!isTest) faults.push(`${from}: imports ${to}, which lies outside src`);
      continue;
    }
    const target = to.split('/')[0];
    if (target !== layer && !allowed.includes(target)) faults.push(`${from}: may not import ${to} (${layer} may import: ${allowed.join(' ') || 'nothing'})`);
    if (!/^\s*(?:import|export)\s+type\b/.test(match[0])) targets.push(to);
  }
  graph.set(from, targets);
}

const done = new Set();
function visit(file, path) {
  const at = path.indexOf(file);
  if (at >= 0) {
    faults.push(`cycle: ${[...path.slice(at), file].join(' → ')}`);
    return;
  }
  if (done.has(file)) return;
  for (const next of graph.get(file) ?? []) visit(next, [...path, file]);
  done.add(file);
}
for (const file of graph.keys()) visit(file, []);

if (graph.size === 0) faults.push('no modules found below src: the check would prove nothing');
for (const fault of faults) console.error(`check-layers: ${fault}`);
if (faults.length === 0) console.log(`check-layers: ${graph.size} modules, the import rule holds`);
process.exit(faults.length === 0 ? 0 : 1);
