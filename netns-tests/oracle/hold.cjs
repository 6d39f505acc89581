// Loaded before a command of the oracle: it is started while an earlier step runs, and does nothing until its turn has come (run.py, backend.py).
require('node:http');
try {
  require('node:fs').readSync(Number(process.env.TAPVS_ORACLE_TURN), Buffer.alloc(1));
} catch (error) {
  if (error.code !== 'EOF') throw error;
}
