import { describe, expect, it } from 'vitest';
import { DEFAULT_SOCKET } from '../control/api.ts';
import { readInvocation } from './commands.ts';

describe('which command is meant', () => {
  it('is the first word, or the name that the program was called by', () => {
    expect(readInvocation('tapvs', ['ipvsadm', '-Ln'], {})).toEqual({
      command: 'ipvsadm',
      args: ['-Ln'],
      socketPath: DEFAULT_SOCKET,
    });
    expect(readInvocation('ipvsadm', ['-Ln'], {})).toMatchObject({ command: 'ipvsadm', args: ['-Ln'] });
    expect(readInvocation('tapvs', [], {})).toMatchObject({ command: undefined, args: [] });
    expect(readInvocation('status', ['x'], {}).command).toBe('x');
  });

  it('takes the socket from --socket, then from TAPVS_SOCKET', () => {
    const environment = { TAPVS_SOCKET: '/a' };
    expect(readInvocation('tapvs', ['status'], environment).socketPath).toBe('/a');
    expect(readInvocation('tapvs', ['status'], { TAPVS_SOCKET: '' }).socketPath).toBe(DEFAULT_SOCKET);
    expect(readInvocation('tapvs', ['--socket', '/b', 'status'], environment)).toMatchObject({
      socketPath: '/b',
      command: 'status',
    });
    expect(readInvocation('ipvsadm', ['--socket=/b', '-L'], {})).toMatchObject({ socketPath: '/b', args: ['-L'] });
    expect(() => readInvocation('tapvs', ['--socket'], {})).toThrow('--socket needs a path');
  });
});
