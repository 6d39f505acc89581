/**
 * Drains outlive the daemon: they are kept in the state directory, deadlines as times of day, and begun again before the configuration adds their servers.
 * Also where a restart takes over no connections, the server stays without new ones.
 */
import { mkdirSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { DrainRow, IpvsCommand } from '../model/ipvs.ts';
import { readIpvsCommands } from './api-schema.ts';
import type { Engine } from './engine-client.ts';
import type { Log } from './log.ts';

const FILE = 'drains.json';
const VERSION = 1;
/** What may begin or end a drain. */
const CONCERNED: ReadonlySet<IpvsCommand['op']> = new Set([
  'drain',
  'undrain',
  'edit-server',
  'delete-server',
  'delete-service',
  'clear',
]);

interface Kept {
  readonly service: DrainRow['service'];
  readonly server: DrainRow['server'];
  /** ISO 8601; null without one. */
  readonly deadline: string | null;
  /** Seconds. */
  readonly udpIdle: number | null;
}

export class DrainStore {
  readonly #engine: Engine;
  readonly #directory: string;
  readonly #path: string;
  readonly #log: Pick<Log, 'info' | 'error'>;
  #isKept = false;
  /** Saves run one after the other. */
  #turn: Promise<void> = Promise.resolve();

  constructor(engine: Engine, directory: string, log: Pick<Log, 'info' | 'error'>) {
    this.#engine = engine;
    this.#directory = directory;
    this.#path = join(directory, FILE);
    this.#log = log;
  }

  /** Begin again what was kept. A file that cannot be read is logged, and left alone until the next change. */
  async restore(): Promise<void> {
    let text: string;
    try {
      text = readFileSync(this.#path, 'utf8');
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'ENOENT') this.#complain('cannot be read', error);
      return;
    }
    this.#isKept = true;
    try {
      const commands = parse(text);
      const results = await this.#engine.call('ipvs', { commands });
      for (const [i, errno] of results.entries()) {
        if (errno !== null)
          this.#log.error({ command: commands[i], errno }, `${this.#path}: a drain is not taken up again`);
      }
      this.#log.info({ drains: commands.length }, 'drains taken up again');
    } catch (error) {
      this.#complain('is not what tapvsd writes', error);
    }
  }

  /** After commands have run. */
  async changed(commands: readonly IpvsCommand[]): Promise<void> {
    if (commands.some(({ op }) => CONCERNED.has(op))) await this.save();
  }

  save(): Promise<void> {
    this.#turn = this.#turn.then(() => this.#save());
    return this.#turn;
  }

  async #save(): Promise<void> {
    try {
      const rows = await this.#engine.call('list-drains', {});
      if (rows.length === 0) {
        if (this.#isKept) rmSync(this.#path, { force: true });
        this.#isKept = false;
        return;
      }
      mkdirSync(this.#directory, { recursive: true });
      const draft = `${this.#path}.new`;
      writeFileSync(draft, `${JSON.stringify({ version: VERSION, drains: rows.map(keep) }, null, 2)}\n`, {
        flush: true,
      });
      renameSync(draft, this.#path);
      this.#isKept = true;
    } catch (error) {
      this.#complain('cannot be written: a restart would forget the drains', error);
    }
  }

  #complain(what: string, error: unknown): void {
    this.#log.error({}, `${this.#path} ${what}: ${error instanceof Error ? error.message : String(error)}`);
  }
}

function keep({ service, server, leftSeconds, udpIdleSeconds }: DrainRow): Kept {
  const deadline = leftSeconds === null ? null : new Date(Date.now() + leftSeconds * 1000).toISOString();
  return { service, server, deadline, udpIdle: udpIdleSeconds };
}

/** @throws when it is not what `save` writes */
function parse(text: string): IpvsCommand[] {
  const { version, drains } = JSON.parse(text) as { version: unknown; drains: Kept[] };
  if (version !== VERSION) throw new Error(`its version is ${String(version)}, not ${VERSION}`);
  const commands = drains.map(({ service, server, deadline, udpIdle }) => {
    const left = deadline === null ? undefined : Math.max(0, Math.ceil((Date.parse(deadline) - Date.now()) / 1000));
    return { op: 'drain', service, server, deadline: left, udpIdle: udpIdle ?? undefined, whenAdded: true };
  });
  return readIpvsCommands({ commands });
}
