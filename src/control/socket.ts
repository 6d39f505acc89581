/** The control socket in the file system: one daemon each, dead ones make way, group members may connect. */
import { chmodSync, mkdirSync, statSync, unlinkSync } from 'node:fs';
import type { Server } from 'node:http';
import { connect } from 'node:net';
import { dirname } from 'node:path';

/** Somebody else answers there, or something that is no socket stands in the way. */
export class SocketInUse extends Error {
  override readonly name = 'SocketInUse';
}

/** Listens at `path` with mode 0660. @throws Error with a code (EADDRINUSE, EACCES, …) from the system */
export async function listenAt(server: Server, path: string): Promise<void> {
  const umask = process.umask(0o117); // from its first moment on nobody else may connect
  try {
    await new Promise<void>((resolve, reject) => {
      server.once('error', reject);
      server.listen(path, () => {
        server.off('error', reject);
        resolve();
      });
    });
  } finally {
    process.umask(umask);
  }
  chmodSync(path, 0o660);
}

/** Makes way for our socket: the directory, and the socket of a daemon that is dead goes. @throws SocketInUse, or Error with a code */
export async function claimSocket(path: string): Promise<void> {
  mkdirSync(dirname(path), { recursive: true, mode: 0o755 });
  const stat = statSync(path, { throwIfNoEntry: false });
  if (stat === undefined) return;
  if (!stat.isSocket())
    throw new SocketInUse(`${path} is there and is no socket: remove it, or choose another --socket`);
  if (await isAnswered(path)) {
    throw new SocketInUse(`another tapvsd listens on ${path}: stop it, or choose another --socket`);
  }
  unlinkSync(path);
}

function isAnswered(path: string): Promise<boolean> {
  return new Promise((resolve, reject) => {
    const socket = connect(path);
    socket.once('connect', () => {
      socket.destroy();
      resolve(true);
    });
    socket.once('error', (error: NodeJS.ErrnoException) => {
      if (error.code === 'ECONNREFUSED' || error.code === 'ENOENT') resolve(false);
      else reject(error);
    });
  });
}
