import { readdirSync, readFileSync } from 'node:fs';
import { Readable } from 'node:stream';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { ControlRig } from '../../control/test-rig.ts';
import { ApiClient } from '../client.ts';
import { type CliCommand, CliError } from '../command.ts';
import { iptablesRestore } from './restore.ts';
import { iptables } from './run.ts';
import { iptablesSave } from './save.ts';

const TOOLS: Readonly<Record<string, CliCommand>> = {
  iptables,
  'iptables-save': iptablesSave,
  'iptables-restore': iptablesRestore,
};

const folder = new URL('../../../golden/cli/iptables/', import.meta.url);

interface Step {
  readonly command: string;
  readonly stdin: string;
  readonly expected: string;
}

function steps(text: string): Step[] {
  return text.split(/^(?=\$ )/m).flatMap((part) => {
    if (!part.startsWith('$ ')) return [];
    const lines = part.replace(/\n+$/, '').split('\n');
    const command = lines[0]!.slice(2);
    const input = lines.filter((line) => line.startsWith('>')).map((line) => `${line.slice(2)}\n`);
    const rest = lines.slice(1).filter((line) => line !== '' && !/^[>#]/.test(line));
    return [{ command, stdin: input.join(''), expected: rest.join('\n') }];
  });
}

/** Words as a shell parts them. */
function words(command: string): string[] {
  return [...command.matchAll(/(?:[^\s"]+|"(?:\\.|[^"\\])*")+/g)].map(([word]) =>
    word.replace(/"((?:\\.|[^"\\])*)"/g, (_all, text: string) => text.replace(/\\(.)/g, '$1')),
  );
}

async function run(step: Step, client: ApiClient): Promise<string> {
  const [tool = '', ...args] = words(step.command);
  let out = '';
  let err = '';
  let status: number;
  try {
    status = await TOOLS[tool]!.run(args, {
      program: tool,
      client,
      stdin: Readable.from([Buffer.from(step.stdin)]),
      out: (text) => {
        out += text;
      },
      err: (text) => {
        err += text;
      },
    });
  } catch (error) {
    if (!(error instanceof CliError)) throw error;
    err += `${error.message}\n`;
    status = error.exit;
  }
  const mark = (letter: string, text: string): string[] =>
    text
      .replace(/ on \w{3} \w{3} +\d+ [\d:]+ \d{4}/g, ' on DATE')
      .split('\n')
      .slice(0, -1)
      .map((line) => (line === '' ? letter : `${letter} ${line}`));
  return [...mark('|', out), ...mark('!', err), ...(status === 0 ? [] : [`rc ${status}`])].join('\n');
}

for (const file of readdirSync(folder)) {
  describe(`golden/cli/iptables/${file}`, () => {
    let rig: ControlRig;
    let client: ApiClient;
    beforeAll(async () => {
      rig = new ControlRig();
      await rig.listen();
      client = new ApiClient(rig.socketPath);
    });
    afterAll(() => {
      client.close();
      rig.close();
    });
    it.each(steps(readFileSync(new URL(file, folder), 'utf8')))('$command', async (step) => {
      expect(await run(step, client)).toBe(step.expected);
    });
  });
}
