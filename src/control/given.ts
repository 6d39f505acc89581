/** What a service manager kept for us and hands down at the start, sd_listen_fds(3): descriptors 3, 4, … with their names. */
import { inherit } from '../device/native.ts';

const FIRST_FD = 3;

/**
 * The descriptors by name; of several with one name the last. Takes them on (closed with us, not inherited by children), and the variables out of `env`, so that
 * no child thinks they are its own.
 */
export function takeGiven(env: Record<string, string | undefined>): Map<string, number> {
  const { LISTEN_PID = '', LISTEN_FDS = '', LISTEN_FDNAMES = '' } = env;
  delete env.LISTEN_PID;
  delete env.LISTEN_FDS;
  delete env.LISTEN_FDNAMES;
  const given = new Map<string, number>();
  if (Number(LISTEN_PID) !== process.pid || !/^[0-9]{1,4}$/.test(LISTEN_FDS)) return given;
  const names = LISTEN_FDNAMES.split(':');
  for (let i = 0; i < Number(LISTEN_FDS); i++) {
    try {
      inherit(FIRST_FD + i);
      given.set(names[i] ?? 'unknown', FIRST_FD + i);
    } catch {
      // not open: somebody says what is not so
    }
  }
  return given;
}
