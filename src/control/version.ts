/** The version of package.json, which stands above this file in a checkout, in dist/ and in an installation alike. */
import { existsSync, readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';

export function readVersion(): string {
  for (const above of ['../../package.json', '../../../package.json']) {
    const file = fileURLToPath(new URL(above, import.meta.url));
    if (existsSync(file)) return (JSON.parse(readFileSync(file, 'utf8')) as { version: string }).version;
  }
  return 'unknown';
}
