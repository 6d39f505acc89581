import { describe, expect, it } from 'vitest';
import { spawnIn, waitForLine } from './netns.ts';

/** Says `first`, hears one line, says `rest`, and ends when it is told to. */
function speaker(first: string, rest: string) {
  return spawnIn(null, ['sh', '-c', 'printf "$1"; read word; printf "$2"; read word', 'sh', first, rest], {
    stdio: ['pipe', 'pipe', 'inherit'],
  });
}

describe('waitForLine', () => {
  it('waits for the end of a line that comes in pieces', async () => {
    const child = speaker('talked ', 'all\\n');
    child.stdout!.once('data', () => child.stdin!.write('go on\n'));
    expect(await waitForLine(child, /^talked/)).toBe('talked all');
    child.stdin!.end();
  });

  it('takes the last line of a child that ends without a line end', async () => {
    const child = speaker('2', '00');
    child.stdout!.once('data', () => child.stdin!.end('go on\n'));
    expect(await waitForLine(child, /^\d{3}$/)).toBe('200');
  });

  it('says what it heard when the child ends without the line', async () => {
    const child = speaker('nothing of the sort\\n', '');
    child.stdin!.end();
    await expect(waitForLine(child, /^ready$/)).rejects.toThrow('it said: nothing of the sort');
  });
});
