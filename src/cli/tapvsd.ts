/** Entry of the daemon. Small, because connections of an earlier life wait until what it imports is loaded: see control/early-start.ts. */
import { UsageError } from '../control/arguments.ts';
import { startEarly } from '../control/early-start.ts';

async function run(): Promise<number> {
  try {
    const load = () => import('./tapvsd-main.ts');
    const start = await startEarly(process.argv.slice(2), process.env, load);
    const { runDaemon } = await load();
    return await runDaemon(start);
  } catch (error) {
    if (!(error instanceof UsageError)) throw error;
    process.stderr.write(`tapvsd: ${error.message}; see tapvsd --help\n`);
    return 64;
  }
}

run().then(
  (status) => process.exit(status),
  (error: unknown) => {
    process.stderr.write(`tapvsd: internal error: ${error instanceof Error ? error.stack : String(error)}\n`);
    process.exit(70);
  },
);
